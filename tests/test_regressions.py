"""Faults that were met once, kept from coming back."""

import gc
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jol
from jaxopt_lite.core import tracing

BATCHED = """
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
import jaxopt_lite as jol
A = jnp.asarray(np.random.default_rng(0).normal(size=(400, 31)))
problem = jol.Problem(lambda x, p: jnp.mean(jnp.logaddexp(0.0, A @ x)) + p * x @ x)
solve = lambda p: jol.solve(problem, jnp.zeros(31), (p,), solver=jol.TrustRegion("exact")).x
gradient = jax.grad(lambda p: jnp.sum(solve(p) ** 2))
both = jax.jit(jax.vmap(lambda p: (solve(p), gradient(p))))
penalties = jnp.logspace(-4, 1, 60)
for _ in range(15):
    answers, slopes = jax.block_until_ready(both(penalties))
assert np.all(np.isfinite(answers)) and np.all(np.isfinite(slopes))
print("done")
"""


def test_batched_factorisations_do_not_deadlock():
    # Two independent batched LAPACK calls at once can block every thread of XLA's CPU pool on each
    # other (seen in 1 of 15 runs on 2 cores, with jaxlib 0.10.2); ours are ordered by their data.
    settings = {name: value for name, value in os.environ.items() if name != "PJRT_NPROC"}
    done = subprocess.run(
        [sys.executable, "-c", BATCHED],
        capture_output=True, text=True, check=True, timeout=200, env=settings,
    )  # fmt: skip
    assert done.stdout.strip() == "done"


def test_traces_die_with_the_function_they_are_of():
    """A key of the cache once held the function itself: nothing was freed, bound methods stale."""
    before = len(tracing._cache)
    jol.minimize(lambda x: jnp.sum(x * x), jnp.ones(2), solver=jol.LBFGS())
    jol.least_squares(lambda x: x, jnp.ones(2))
    jol.root(lambda x: x, jnp.ones(2))
    gc.collect()
    assert len(tracing._cache) <= before


def test_new_values_of_bounds_and_new_wrappers_compile_nothing(compilations):
    residual = lambda x: x - 3.0
    fit = lambda upper: jol.least_squares(residual, jnp.ones(2), bounds=(0.0, upper)).x
    np.testing.assert_allclose(fit(2.0), 2.0)
    with compilations() as count:
        np.testing.assert_allclose(fit(1.5), 1.5)
    assert count.programs == 0


def test_a_tie_is_decided_once_for_the_whole_step(monkeypatch):
    """XLA computed the decision anew for each array: x moved and its value stayed behind."""
    # At its minimiser along d a quadratic has fallen by half of what the slope promised.
    monkeypatch.setattr(jol.BFGS, "sufficient_decrease", 0.5)
    rng = np.random.default_rng(0)
    starts, scales = jnp.array(rng.normal(size=(2, 4000, 3)))
    problem = jol.Problem(lambda x, a: 0.5 * jnp.sum(jnp.exp(a) * x * x))
    for steps in (3, 8):
        fit = lambda x, a, steps=steps: jol.solve(
            problem, x, (a,), solver=jol.BFGS(), max_steps=steps, tol=1e-12
        )
        sol = jax.vmap(fit)(starts, scales)
        value = 0.5 * np.sum(np.exp(scales) * sol.x**2, axis=-1)
        gradient = np.max(np.exp(scales) * np.abs(sol.x), axis=-1)
        np.testing.assert_allclose(sol.value, value, rtol=1e-12)
        np.testing.assert_allclose(sol.residuals.stationarity, gradient, rtol=1e-12)

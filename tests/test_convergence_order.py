"""Rates that theory gives, measured; and evaluations, counted where they happen."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite.core import Status

QUADRATIC = jol.Problem(lambda x, matrix: 0.5 * x @ matrix @ x)


def matrix_with(values, rng):
    basis, _ = np.linalg.qr(rng.standard_normal((len(values),) * 2))
    return jnp.array((basis * values) @ basis.T)


@pytest.mark.parametrize("kappa", [3.0, 10.0, 50.0])
def test_fixed_step_has_the_linear_rate_of_theory(kappa, rng):
    matrix = matrix_with(np.linspace(1, kappa, 6), rng)
    sol = jol.solve(
        QUADRATIC, jnp.array(rng.standard_normal(6)), (matrix,),
        jol.FixedStep(2 / (1 + kappa)), tol=1e-9, max_steps=2000, history=True,
    )  # fmt: skip
    assert sol.status == Status.CONVERGED
    norms = np.asarray(sol.history.residuals.stationarity[: int(sol.steps)])
    # Two eigenvectors are left, at +-rate; the infinity norm alternates, so measure over even
    # spans of the last third. Nesterov (2018), theorem 2.1.15.
    span = 2 * (len(norms) // 6)
    rate = (norms[-1] / norms[-1 - span]) ** (1 / span)
    np.testing.assert_allclose(rate, (kappa - 1) / (kappa + 1), rtol=0.01)


def curved(x):
    """Strictly convex, Hessian Lipschitz and not constant at the minimiser, gradient far from 0."""
    return jnp.sum(jnp.exp(x) - 2 * x) + 0.1 * jnp.sum(x) ** 2 + jnp.exp(x[0] - x[1])


def _gradient_norms(solver, x0, **options):
    sol = jol.minimize(curved, x0, solver=solver, history=True, **options)
    assert sol.status == Status.CONVERGED
    return np.asarray(sol.history.residuals.stationarity[: int(sol.steps)])


def test_trust_region_is_quadratic():
    norms = _gradient_norms(jol.TrustRegion("exact"), jnp.zeros(3), tol=1e-13, max_steps=50)
    # Where the gradient is small and above rounding: |g+| ~ C |g|^2.
    pairs = [(a, b) for a, b in itertools.pairwise(norms) if a < 0.5 and b > 1e-13]
    assert len(pairs) >= 2
    orders = [np.log(b) / np.log(a) for a, b in pairs]
    assert orders[-1] >= 1.8
    slopes = np.diff(np.log([a for a, _ in pairs] + [pairs[-1][1]]))
    # Two successive drops of the logarithm: the later is about twice the earlier.
    assert slopes[-1] / slopes[-2] >= 1.6


def test_lbfgs_with_more_pairs_than_variables_ends_superlinearly():
    norms = _gradient_norms(jol.LBFGS(memory=20), jnp.zeros(3), tol=1e-11, max_steps=60)
    drops = norms[1:] / norms[:-1]
    assert np.median(drops[-3:]) < 0.3 * np.median(drops[:4])
    assert len(norms) <= 25


def test_lbfgs_on_a_quadratic_ends_in_little_more_than_n_steps(rng):
    n = 10
    matrix = matrix_with(np.linspace(1, 10, n), rng)
    start = jnp.array(rng.standard_normal(n))
    sol = jol.solve(QUADRATIC, start, (matrix,), jol.LBFGS(), tol=1e-6)
    assert sol.status == Status.CONVERGED
    # With exact line searches it would be n + 1 evaluations; inexact ones cost about as many again.
    assert sol.steps <= 2 * n + 2


def test_trust_region_solves_a_quadratic_in_one_newton_step(rng):
    matrix = matrix_with(np.linspace(1, 10, 5), rng)
    start = jnp.array(rng.standard_normal(5))
    start = 0.2 * start / jnp.linalg.norm(start)  # within the first radius, 0.25
    sol = jol.solve(QUADRATIC, start, (matrix,), jol.TrustRegion("exact"), tol=1e-10)
    assert sol.steps == 2  # the start and the answer
    assert sol.status == Status.CONVERGED


def test_gradient_descent_beats_a_fixed_step_when_ill_conditioned(rng):
    kappa = 1e3
    matrix = matrix_with(np.logspace(0, 3, 8), rng)
    start = jnp.array(rng.standard_normal(8))
    options = {"tol": 1e-6, "max_steps": 20_000}
    adaptive = jol.solve(QUADRATIC, start, (matrix,), jol.GradientDescent(), **options)
    fixed = jol.solve(QUADRATIC, start, (matrix,), jol.FixedStep(2 / (1 + kappa)), **options)
    assert adaptive.status == fixed.status == Status.CONVERGED
    assert 5 * adaptive.steps < fixed.steps


# -- evaluations -----------------------------------------------------------------------------------


SOLVERS = [
    jol.LBFGS(), jol.GradientDescent(), jol.FixedStep(1e-3), jol.TrustRegion("exact"),
    jol.TrustRegion("cg"),
]  # fmt: skip


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_steps_are_evaluations(solver):
    """Each step evaluates f and its gradient once, accepted or not: counted on the host."""
    calls = []

    def tell(x):
        calls.append(np.array(x))

    def objective(x):
        jax.debug.callback(tell, jax.lax.stop_gradient(x))
        return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2

    sol = jol.minimize(objective, jnp.array([-1.2, 1.0]), solver=solver, max_steps=60, tol=1e-6)
    jax.effects_barrier()
    steps = int(sol.steps)
    if isinstance(solver, jol.TrustRegion):
        # Hessians and products linearise anew at accepted points: those are extra, and no more
        # than one pass each.
        distinct = {tuple(x.ravel()) for x in calls}
        assert len(distinct) <= steps
        assert len(distinct) >= steps - 1  # the first proposal may repeat a point
    else:
        assert len(calls) == steps


def test_objective_stands_in_the_trust_region_program_as_few_times_as_needed():
    def start(x):
        return jol.minimize(lambda x: jnp.sum(jnp.cosh(x)), x, solver=jol.TrustRegion("exact"))

    # cosh for f and for its gradient's derivative: f with gradient, and the Hessian on acceptance.
    assert 1 <= str(jax.make_jaxpr(start)(jnp.ones(3))).count(" cosh ") <= 4

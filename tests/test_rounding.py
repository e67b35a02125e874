"""Objectives whose rounding is larger than their size tells: small sums of large terms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite.core import Status


def double_well(x, offset):
    """x^4 - 3x^2 + 2: at the minimum -1/4 is 2.25 - 4.5 + 2, and rounding 20 times its own."""
    return x[0] ** 4 - 3 * x[0] ** 2 + 2 + offset


SOLVERS = [
    jol.TrustRegion(),
    jol.TrustRegion("cg"),
    jol.SR1(),
    jol.CubicNewton(),
    jol.SaddleFreeNewton(),
    jol.Newton(),
    jol.NewtonCG(),
    jol.LBFGS(),
    jol.BFGS(),
    jol.NonlinearCG(),
    jol.GradientDescent(),
]


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_a_thousand_starts_in_a_double_well(solver, dtype):
    # Before slopes judged steps too small for the values, 0.1 to 0.5% of these stalled.
    starts = jnp.linspace(-2, 2, 1001, dtype=dtype)[:, None]
    sol = jax.vmap(lambda x: jol.minimize(double_well, x, (jnp.zeros((), dtype),), solver=solver))(
        starts
    )
    assert np.all(sol.status == Status.CONVERGED)
    assert np.max(sol.steps) <= 30
    away = np.abs(np.asarray(starts)[:, 0]) > 1e-3  # a first-order method stays at the maximum
    rtol = 1e-8 if dtype == jnp.float64 else 1e-4
    np.testing.assert_allclose(np.abs(sol.x[away]), np.sqrt(1.5), rtol=rtol)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_a_large_offset_hides_no_minimum(solver):
    # 1e4 hides decreases below 1e-12, and with them gradients below 1e-5, from the values.
    starts = jnp.linspace(0.3, 2, 100)[:, None]
    sol = jax.vmap(lambda x: jol.minimize(double_well, x, (jnp.array(1e4),), solver=solver))(starts)
    assert np.all(sol.status == Status.CONVERGED)
    np.testing.assert_allclose(np.abs(sol.x), np.sqrt(1.5), rtol=1e-8)

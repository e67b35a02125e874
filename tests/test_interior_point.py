"""The interior point method: known answers and multipliers, failures, batches, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite.core import Status

SOLVER = jol.InteriorPoint()

HS71 = jol.Problem(
    lambda x, a, b: x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2],
    eq=lambda x, a, b: x @ x - b,
    ineq=lambda x, a, b: a - jnp.prod(x),
    bounds=(1.0, 5.0),
)
HS71_START = jnp.array([1.0, 5.0, 5.0, 1.0])


def test_hs71():
    sol = jol.solve(HS71, HS71_START, (25.0, 40.0))
    assert sol.status == Status.CONVERGED
    assert sol.steps <= 15
    np.testing.assert_allclose(sol.x, [1.0, 4.7429994, 3.8211503, 1.3794082], rtol=1e-6)
    np.testing.assert_allclose(sol.value, 17.0140173, rtol=1e-8)
    np.testing.assert_allclose(sol.multipliers.eq, 0.1614686, rtol=1e-6)
    np.testing.assert_allclose(sol.multipliers.ineq, 0.5522937, rtol=1e-6)
    np.testing.assert_allclose(sol.multipliers.lower, [1.0878712, 0, 0, 0], atol=1e-6)


BUDGET = jol.Problem(
    lambda x, budget: jnp.sum((x - 1.0) ** 2), ineq=lambda x, budget: jnp.sum(x) - budget
)


def test_the_price_of_a_budget():
    sol = jol.solve(BUDGET, jnp.zeros(3), args=(1.0,))
    np.testing.assert_allclose(sol.x, 1 / 3, rtol=1e-8)
    np.testing.assert_allclose(sol.multipliers.ineq, 4 / 3, rtol=1e-8)
    assert sol.multipliers.ineq.shape == ()
    price = jax.grad(lambda b: jol.solve(BUDGET, jnp.zeros(3), args=(b,)).value)(1.0)
    np.testing.assert_allclose(price, -4 / 3, rtol=1e-8)


def test_constraints_that_are_not_finite_at_the_start():
    with pytest.raises(ValueError, match=r"`ineq` is not finite at `x0`.*entry 0 is nan"):
        jol.minimize(lambda x: x[0], jnp.array([-1.0]), ineq=lambda x: jnp.log(x))

"""Methods for the simplex: known answers, what they refuse, counts, batches, derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_diabetes

import jaxopt_lite as jol
from jaxopt_lite.core import Status

SOLVERS = {
    "MirrorDescent": jol.MirrorDescent(),
    "FrankWolfe": jol.FrankWolfe(),
    "FrankWolfe-away": jol.FrankWolfe("away"),
}
every = pytest.mark.parametrize("name", SOLVERS)


def on_simplex(fun, slope=1.0):
    """Fun(x, total, *data) where sum x = total."""
    return jol.Problem(
        fun, eq=lambda x, total, *data: slope * (jnp.sum(x) - total), bounds=(0.0, None)
    )


def distance(x, total, c):
    return 0.5 * jnp.sum((x - c) ** 2)


NEAREST = on_simplex(distance)


def check_kkt(fun, sol, total, tol=1.5e-8):
    """The conditions, by formulas of this file, of a problem whose equation is sum x - total."""
    x, gradient = np.asarray(sol.x), np.asarray(jax.grad(fun)(sol.x))
    price, low = float(sol.multipliers.eq), np.asarray(sol.multipliers.lower)
    assert np.all(x >= 0)
    assert np.all(low >= 0)
    assert abs(np.sum(x) - total) <= 1e-14 * x.size * max(1, total)
    assert np.max(np.abs(gradient + price - low)) <= 1e-12 * (1 + np.max(np.abs(gradient)))
    assert np.max(low * x) <= tol


@pytest.mark.parametrize(("total", "slope"), [(1.0, 1.0), (2.5, -3.0)])
@every
def test_nearest_point_is_the_projection(name, total, slope, rng):
    c = jnp.asarray(rng.normal(size=40))
    problem = on_simplex(distance, slope)
    expected = jol.projections.simplex(c, total)
    for x0 in (jnp.full(40, 1 / 40), jnp.zeros(40).at[7].set(1.0), -c):
        sol = jol.solve(problem, x0, (total, c), solver=SOLVERS[name])
        assert sol.status == Status.CONVERGED
        # x times its price is below 1.5e-8, and the prices of entries at 0 are above 1e-3 here.
        np.testing.assert_allclose(sol.x, expected, atol=2e-5)
        np.testing.assert_array_equal(np.asarray(sol.x) > 1e-4, np.asarray(expected) > 0)
        assert sol.residuals.worst() <= 1.5e-8
        if name.startswith("FrankWolfe"):
            np.testing.assert_array_equal(sol.x == 0, expected == 0)
    # One unit more of the total costs minus the price of the equation, per unit of slope.
    h = 1e-5
    value = lambda s: distance(jol.projections.simplex(c, s), s, c)
    worth = (value(total + h) - value(total - h)) / (2 * h)
    np.testing.assert_allclose(slope * sol.multipliers.eq, -worth, rtol=1e-5)


def test_entropy_has_its_answer_in_closed_form(rng):
    """Least sum x log x + c'x is the softmax of -c; mirror descent gets there in a step."""
    c = jnp.asarray(rng.normal(size=1000) * 3)
    problem = on_simplex(lambda x, total: jnp.sum(jax.scipy.special.xlogy(x, x)) + c @ x)
    sol = jol.solve(problem, jnp.full(1000, 1e-3), (1.0,), solver=jol.MirrorDescent(), tol=1e-10)
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, jax.nn.softmax(-c), rtol=1e-6, atol=1e-12)
    assert sol.steps <= 6


@every
def test_weights_of_least_variance_of_the_diabetes_features(name):
    covariance = jnp.asarray(np.cov(load_diabetes().data.T) * 442)
    problem = on_simplex(lambda x, total, v: 0.5 * x @ v @ x)
    args = 1.0, covariance
    sol = jol.solve(problem, jnp.full(10, 0.1), args, solver=SOLVERS[name])
    assert sol.status == Status.CONVERGED
    check_kkt(lambda x: 0.5 * x @ covariance @ x, sol, 1.0)
    reference = jol.solve(problem, jnp.full(10, 0.1), args, solver=jol.InteriorPoint())
    # The gap of a convex problem bounds f - f*: it is at most n times the complementarity.
    np.testing.assert_allclose(sol.value, reference.value, atol=2e-7)
    assert jol.certify(problem, sol, args, tol=1e-7).residuals.worst() <= 1e-7


@every
def test_each_evaluation_is_a_step_on_the_simplex(name, rng):
    seen = []
    a, b = jnp.asarray(rng.normal(size=(20, 8))), jnp.asarray(rng.normal(size=20))

    def fun(x, total):
        jax.debug.callback(lambda at: seen.append(np.asarray(at)), x)
        return jnp.sum((a @ x - b) ** 2)

    sol = jol.solve(on_simplex(fun), jnp.zeros(8), (1.0,), solver=SOLVERS[name])
    jax.effects_barrier()
    assert sol.status == Status.CONVERGED
    assert len(seen) == int(sol.steps)
    assert np.all(np.array(seen) >= 0)
    np.testing.assert_allclose(np.sum(seen, axis=1), 1.0, atol=1e-13)


@every
def test_what_is_no_simplex_is_refused_or_never_converged(name):
    fun, solver, x0 = (lambda x, *a: jnp.sum((x - 0.2) ** 2)), SOLVERS[name], jnp.full(4, 0.25)
    plain = lambda x: jnp.sum(x) - 1.0
    for problem in (
        jol.Problem(fun, eq=plain),
        jol.Problem(fun, bounds=(0.0, None)),
        jol.Problem(fun, eq=lambda x: x[:2] - 0.1, bounds=(0.0, None)),
    ):
        with pytest.raises(ValueError, match=f"{type(SOLVERS[name]).__name__} takes"):
            jol.solve(problem, x0, solver=solver)
    for eq, bounds in (
        (lambda x: x[0] + 2 * x[1] + x[2] + x[3] - 1.0, (0.0, None)),
        (lambda x: jnp.sum(x) - 1.0, (-1.0, None)),
        (lambda x: jnp.sum(x) - 1.0, (0.0, 0.4)),
        (lambda x: jnp.sum(x) + 1.0, (0.0, None)),
        (lambda x: jnp.sum(x) + jnp.sum(x * x) - 1.0, (0.0, None)),
    ):
        problem = jol.Problem(fun, eq=eq, bounds=bounds)
        with pytest.raises(
            ValueError,
            match=rf"{type(SOLVERS[name]).__name__} takes the simplex only.*InteriorPoint",
        ):
            jol.solve(problem, x0, solver=solver)
        run = jax.jit(lambda x0, problem=problem: jol.solve(problem, x0, solver=solver).status)
        assert run(x0) == Status.STALLED
    with pytest.raises(TypeError, match=f"{type(SOLVERS[name]).__name__} takes no ineq"):
        jol.solve(
            jol.Problem(fun, eq=plain, ineq=lambda x: x[0], bounds=(0.0, None)), x0, solver=solver
        )
    nan = jax.jit(lambda x0: jol.solve(NEAREST, x0, (1.0, jnp.zeros(4)), solver=solver).status)
    assert nan(x0.at[0].set(jnp.nan)) == Status.NONFINITE


@every
def test_thousand_lanes(name, rng):
    c, total = jnp.asarray(rng.normal(size=(1000, 6))), jnp.asarray(rng.uniform(0.2, 3, 1000))
    run = lambda total, c: jol.solve(NEAREST, jnp.ones(6), (total, c), solver=SOLVERS[name])
    batch = jax.jit(jax.vmap(run))(total, c)
    assert np.all(batch.status == Status.CONVERGED)
    expected = jax.vmap(jol.projections.simplex)(c, total)
    # f is strongly convex: |x - x*|^2 is at most the gap, six products of at most 1.5e-8.
    np.testing.assert_allclose(batch.x, expected, atol=3.1e-4)
    assert len(set(batch.steps.tolist())) >= 3


@every
def test_derivative_is_that_of_the_projection(name, rng):
    c = jnp.asarray(rng.normal(size=12))
    run = lambda total, c: jol.solve(NEAREST, jnp.ones(12), (total, c), solver=SOLVERS[name]).x
    got = jax.jacobian(run, (0, 1))(1.0, c)
    expected = jax.jacobian(lambda total, c: jol.projections.simplex(c, total), (0, 1))(1.0, c)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-9), got, expected)


@every
def test_float32_and_a_pytree(name):
    problem = jol.Problem(
        lambda x: (x["a"] - 1) ** 2 + jnp.sum((x["b"] - 0.25) ** 2),
        eq=lambda x: x["a"] + jnp.sum(x["b"]) - 1,
        bounds=(0.0, None),
    )
    x0 = {"a": jnp.float32(0.2), "b": jnp.zeros(2, jnp.float32)}
    sol = jol.solve(problem, x0, solver=SOLVERS[name])
    assert sol.status == Status.CONVERGED
    assert sol.x["a"].dtype == np.float32
    # By hand: all gradients are equal at a = 5/6, b = 1/12.
    np.testing.assert_allclose(sol.x["a"], 5 / 6, atol=1e-3)
    np.testing.assert_allclose(sol.x["b"], 1 / 12, atol=1e-3)

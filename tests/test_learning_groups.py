"""Group and multi-task lasso, the lasso's constrained twin, bootstraps, and scales of features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite.learning import (
    group_lasso,
    lasso,
    logistic,
    multi_task_lasso,
    ridge,
    ridge_folds,
    standardize,
)

RNG = np.random.default_rng(0)
X = RNG.standard_normal((50, 12))
LABELS = np.repeat(np.arange(4), 3)
Y = X[:, :3] @ [1.0, -1.0, 0.5] + X[:, 6] + 0.3 * RNG.standard_normal(50)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_optimality_of_groups_by_numpy(ridge):
    weights = np.array([1.0, 0.5, 2.0, 1.0])
    fit = group_lasso(X, Y, 0.4, LABELS, ridge=ridge, weights=weights, tol=1e-11)
    w = np.asarray(fit.raise_for_status().x).reshape(4, 3)
    push = (X.T @ (Y - X @ w.ravel()) / 50 - ridge * w.ravel()).reshape(4, 3)
    norms = np.linalg.norm(w, axis=1)
    assert 0 < (norms > 0).sum() == int(fit.state.support) < 4
    for g in range(4):
        if norms[g] > 0:
            np.testing.assert_allclose(push[g], 0.4 * weights[g] * w[g] / norms[g], atol=1e-10)
        else:
            assert np.linalg.norm(push[g]) < 0.4 * weights[g]
    np.testing.assert_allclose(
        fit.state.slack, 0.4 * weights - np.linalg.norm(push, axis=1), atol=1e-12
    )
    assert -1e-15 < fit.state.gap < 1e-9
    if ridge == 0:
        dual = np.asarray(fit.state.dual)
        assert fit.value == pytest.approx(dual @ Y / 50 - dual @ dual / 100, abs=1e-9)


def test_groups_of_one_and_many_tasks(compilations):
    ones = group_lasso(X, Y, 0.1, np.arange(12), tol=1e-11).raise_for_status()
    np.testing.assert_allclose(ones.x, lasso(X, Y, 0.1).x, atol=1e-9)
    linear_model = pytest.importorskip("sklearn.linear_model")
    tasks = np.stack([Y, X[:, 0] - X[:, 4], np.sin(Y)], 1)
    theirs = linear_model.MultiTaskLasso(0.15, fit_intercept=False, tol=1e-13).fit(X, tasks)
    ours = multi_task_lasso(X, tasks, 0.15, tol=1e-10).raise_for_status()
    np.testing.assert_allclose(ours.x, theirs.coef_.T, atol=1e-7)
    assert 0 < ours.state.support < 12
    with compilations() as count:
        multi_task_lasso(X + 1.0, tasks, 0.2, tol=1e-10)
    assert count.programs == 0


def test_derivatives_are_finite_differences():
    args = tuple(map(jnp.asarray, (X, Y, 0.2, 0.1)))

    def fit(X, y, penalty, ridge):
        found = group_lasso(X, y, penalty, LABELS, ridge=ridge, tol=1e-12)
        return jnp.sum(jnp.sin(found.x)) + found.value

    gradient, value = jax.jit(jax.grad(fit, range(4)))(*args), jax.jit(fit)
    for i, (arg, slope) in enumerate(zip(args, gradient, strict=True)):
        step = jnp.asarray(RNG.standard_normal(arg.shape))
        ends = [value(*args[:i], arg + h * step, *args[i + 1 :]) for h in (1e-5, -1e-5)]
        numeric = float(ends[0] - ends[1]) / 2e-5
        assert jnp.sum(slope * step) == pytest.approx(numeric, rel=1e-6, abs=1e-7)


def test_the_lasso_is_least_squares_in_a_ball():
    """The penalty is the price of the radius, in both directions."""
    A, b = jnp.asarray(X), jnp.asarray(Y)
    penalty = 0.15
    free = lasso(A, b, penalty).raise_for_status()

    def inside(radius):
        ball = jol.prox.Indicator(lambda w: jol.projections.l1_ball(w, radius))
        return jol.minimize(
            lambda w, A, b: jnp.mean((b - A @ w) ** 2) / 2,
            jnp.zeros(12),
            (A, b),
            nonsmooth=ball,
            solver=jol.FISTA(),
            tol=1e-10,
        ).raise_for_status()

    radius = float(jnp.sum(jnp.abs(free.x)))
    np.testing.assert_allclose(inside(radius).x, free.x, atol=1e-8)
    other = inside(0.6 * radius).x
    price = float(jnp.max(jnp.abs(A.T @ (b - A @ other)))) / 50
    np.testing.assert_allclose(lasso(A, b, price).x, other, atol=1e-8)
    # What one more unit of radius is worth: the envelope.
    value = lambda r: float(jnp.mean((b - A @ inside(r).x) ** 2)) / 2
    assert (value(radius - 1e-4) - value(radius + 1e-4)) / 2e-4 == pytest.approx(penalty, rel=1e-5)


def test_bootstraps_folds_and_penalties_in_one_call():
    counts = RNG.multinomial(50, np.full(50, 0.02), size=3).astype(float)
    A, b, penalties = jnp.asarray(X), jnp.asarray(Y), jnp.array([1.0, 0.1])
    run = jax.jit(jax.vmap(lambda s: ridge_folds(A, b, penalties, folds=4, sample_weight=s)))
    found = run(jnp.asarray(counts))
    assert found.x.weights.shape == (3, 4, 2, 12)
    assert np.all(found.success)
    rest = np.setdiff1d(np.arange(50), np.array_split(np.arange(50), 4)[1])
    repeated = np.repeat(rest, counts[2][rest].astype(int))
    single = ridge(X[repeated], Y[repeated], 0.1)
    np.testing.assert_allclose(found.x.weights[2, 1, 1], single.x.weights, atol=1e-10)


def test_standardised_fits_are_restored():
    scales = np.geomspace(1e-3, 1e3, 12)
    A = X * scales + 10 * scales
    Z, scaling = standardize(np.column_stack([A, np.full(50, 0.1)]))
    np.testing.assert_allclose(Z[:, :12].mean(0), 0, atol=1e-13)
    np.testing.assert_allclose(Z[:, :12].std(0), 1, rtol=1e-12)
    np.testing.assert_allclose(Z[:, 12], 0, atol=1e-15)
    fit = logistic(Z, Y > 0, 0.1).raise_for_status()
    new = scaling.restore(fit.x)
    raw = np.column_stack([A, np.full(50, 0.1)])
    np.testing.assert_allclose(new(raw), fit.x(Z), atol=1e-10)
    np.testing.assert_allclose(scaling(raw), Z, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: group_lasso(X, Y, 0.1, LABELS[:-1]), "each of the 12 features"),
        (lambda: group_lasso(X, Y, 0.1, LABELS * 1.0), "each of the 12 features, but float64"),
        (lambda: group_lasso(X, Y, 0.1, LABELS - 1), "integers from 0, but -1 came"),
        (lambda: group_lasso(X, Y, -0.1, LABELS), "`penalty` must be finite and >= 0"),
        (lambda: group_lasso(X, Y, 0.1, LABELS, weights=np.ones(3)), r"must have shape \(4,\)"),
        (lambda: multi_task_lasso(X, Y, 0.1), "`Y` must have 2 axes"),
        (lambda: standardize(np.full((2, 2), np.nan)), "`X` must be finite"),
    ],
)
def test_bad_input_says_what_came_and_what_to_do(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()

"""Ridge regression against normal equations, scikit-learn, brute force and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite import Status
from jaxopt_lite.learning import ridge, ridge_folds, ridge_path

RNG = np.random.default_rng(0)
X, W = RNG.standard_normal((40, 6)) + 3.0, RNG.standard_normal(6)
Y = X @ W - 2.0 + 0.5 * RNG.standard_normal(40)
S = RNG.uniform(0.2, 2.0, 40)
WIDE = RNG.standard_normal((15, 30))
FEW = RNG.standard_normal(15)


def by_numpy(X, y, penalty, s=None, intercept=True):
    """The normal equations with a column of ones."""
    s = np.ones(len(y)) if s is None else s
    s = s / s.sum()
    A = np.column_stack([X, np.ones(len(X))]) if intercept else X
    level = np.append(np.broadcast_to(penalty, X.shape[1]), [0.0] * intercept)
    w = np.linalg.solve(
        A.T @ (s[:, None] * A) + np.diag(level), A.T @ (s[:, None] * y.reshape(len(y), -1))
    )
    w = w.reshape(A.shape[1], *y.shape[1:])
    return (w[:-1], w[-1]) if intercept else (w, 0.0)


@pytest.mark.parametrize("method", ["cholesky", "qr", "svd", "dual"])
def test_every_method_solves_the_normal_equations(method):
    targets = np.column_stack([Y, np.sin(Y)])
    for penalty in (0.3, np.linspace(0.1, 1.0, 6)):
        got = ridge(X, targets, penalty, sample_weight=S, method=method).raise_for_status()
        weights, level = by_numpy(X, targets, penalty, S)
        np.testing.assert_allclose(got.x.weights, weights, atol=1e-11)
        np.testing.assert_allclose(got.x.intercept, level, atol=1e-10)
    hat = np.trace(np.linalg.solve(by_gram(X, S) + np.diag(penalty), by_gram(X, S)))
    assert got.state.dof == pytest.approx(hat + 1, rel=1e-10)


def by_gram(X, s):
    s = s / s.sum()
    C = X - s @ X
    return C.T @ (s[:, None] * C)


def test_conventions_are_those_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    theirs = linear_model.Ridge(alpha=0.3 * S.sum(), tol=1e-12).fit(X, Y, S)
    ours = ridge(X, Y, 0.3, sample_weight=S).raise_for_status()
    np.testing.assert_allclose(ours.x.weights, theirs.coef_, rtol=1e-9)
    np.testing.assert_allclose(ours.x(X), theirs.predict(X), rtol=1e-9)
    # Theirs of leave-one-out keeps alpha, as ours keeps the total penalty.
    cv = linear_model.RidgeCV(alphas=[0.3 * 40], store_cv_results=True).fit(X, Y)
    alone = np.asarray(ridge(X, Y, 0.3).state.leave_one_out)
    np.testing.assert_allclose(alone**2, cv.cv_results_.ravel(), rtol=1e-8)


def test_leave_one_out_and_gcv_by_brute_force():
    state = ridge(X, Y, 0.2, sample_weight=S).state
    for i in (0, 7):
        rest = np.delete(np.arange(40), i)
        weights, level = by_numpy(X[rest], Y[rest], 0.2 * S.sum() / S[rest].sum(), S[rest])
        assert state.leave_one_out[i] == pytest.approx(Y[i] - X[i] @ weights - level, rel=1e-9)
    fit = ridge(X, Y, 0.2)
    misfit = Y - fit.x(X)
    assert fit.state.gcv == pytest.approx(
        float(jnp.mean(misfit**2) / (1 - fit.state.dof / 40) ** 2), rel=1e-12
    )


@pytest.mark.parametrize("wide", [False, True])
def test_path_and_folds_are_single_fits(wide):
    A, b = (WIDE, FEW) if wide else (X, Y)
    n, penalties = len(b), np.array([1e-3, 0.1, 2.0])
    s = S[:n]
    path = ridge_path(A, b, penalties, sample_weight=s).raise_for_status()
    svd = [ridge(A, b, t, sample_weight=s, method="svd") for t in penalties]
    for i, single in enumerate(svd):
        np.testing.assert_allclose(path.x.weights[i], single.x.weights, atol=1e-10)
        np.testing.assert_allclose(
            path.state.leave_one_out[i], single.state.leave_one_out, rtol=1e-7
        )
        assert path.state.dof[i] == pytest.approx(float(single.state.dof), rel=1e-9)
        assert path.state.gcv[i] == pytest.approx(float(single.state.gcv), rel=1e-8)
        assert path.value[i] == pytest.approx(float(single.value), rel=1e-9)
    filters = np.sort(np.asarray(svd[1].state.filters))
    np.testing.assert_allclose(np.sort(path.state.filters[1])[-len(filters) :], filters, atol=1e-9)
    for batching in ("map", "vmap"):
        found = ridge_folds(A, b, penalties, folds=4, sample_weight=s, batching=batching)
        found.raise_for_status()
        blocks = np.array_split(np.arange(n), 4)
        for k in (0, 3):
            rest = np.setdiff1d(np.arange(n), blocks[k])
            weights, level = by_numpy(A[rest], b[rest], 0.1, s[rest])
            np.testing.assert_allclose(found.x.weights[k, 1], weights, atol=1e-10)
            missed = (b - A @ weights - level)[blocks[k]]
            error = np.average(missed**2, weights=s[blocks[k]])
            assert found.state.errors[k, 1] == pytest.approx(error, rel=1e-9)


def test_unique_or_of_least_norm():
    full = ridge(X, Y, 0.0).raise_for_status()
    assert full.state.unique
    np.testing.assert_allclose(full.x.weights, by_numpy(X, Y, 0.0)[0], rtol=1e-9)
    twice = np.column_stack([X, X[:, 0]])
    for A, b in ((WIDE, FEW), (twice, Y)):
        least = ridge(A, b, 0.0).raise_for_status()
        assert not least.state.unique
        C = A - A.mean(0)
        np.testing.assert_allclose(least.x.weights, np.linalg.pinv(C) @ (b - b.mean()), atol=1e-9)
    assert ridge(twice, Y, 0.0, method="cholesky").status == Status.STALLED
    filters = ridge(X, Y, 0.5, method="svd").state.filters
    s2 = np.linalg.svd(X - X.mean(0), compute_uv=False) ** 2 / 40
    np.testing.assert_allclose(filters, s2 / (s2 + 0.5), rtol=1e-10)


def test_penalty_is_the_multiplier_of_a_bound_on_the_norm():
    A, b = jnp.asarray(X - X.mean(0)), jnp.asarray(Y - Y.mean())

    def bounded(radius):
        return jol.minimize(
            lambda w, A, b, radius: jnp.mean((b - A @ w) ** 2) / 2,
            0.1 * jnp.ones(6),
            (A, b, radius),
            ineq=lambda w, A, b, radius: w @ w / 2 - radius,
        ).raise_for_status()

    penalty = 0.4
    weights = ridge(X, Y, penalty).x.weights
    inside = bounded(weights @ weights / 2)  # from the penalty to the bound
    np.testing.assert_allclose(inside.x, weights, atol=1e-6)
    assert inside.multipliers.ineq == pytest.approx(penalty, rel=1e-6)
    other = bounded(jnp.asarray(0.7))  # and from a bound to its penalty
    again = ridge(X, Y, other.multipliers.ineq).x.weights
    np.testing.assert_allclose(again, other.x, atol=1e-6)


@pytest.mark.parametrize("method", ["cholesky", "qr", "svd", "dual"])
def test_derivatives_are_finite_differences(method):
    args = tuple(map(jnp.asarray, (X[:12], Y[:12], 0.3, S[:12])))

    def fit(X, y, t, s):
        found = ridge(X, y, t, sample_weight=s, method=method)
        return jnp.sum(jnp.sin(found.x.weights)) + found.x.intercept + found.value

    _agrees(fit, args)


def _agrees(fit, args):
    gradient = jax.jit(jax.grad(fit, range(len(args))))(*args)
    compiled = jax.jit(fit)
    rng = np.random.default_rng(1)
    for i, (arg, slope) in enumerate(zip(args, gradient, strict=True)):
        step = jnp.asarray(rng.standard_normal(arg.shape))
        ends = [compiled(*args[:i], arg + h * step, *args[i + 1 :]) for h in (1e-6, -1e-6)]
        # Differences of values of size 10 over 2e-6: 1e-9 of rounding.
        numeric = float(ends[0] - ends[1]) / 2e-6
        assert jnp.sum(slope * step) == pytest.approx(numeric, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("wide", [False, True])
def test_derivatives_through_folds_and_of_least_norm(wide):
    A, b = (WIDE, FEW) if wide else (X[:12], Y[:12])
    A, b, penalties = jnp.asarray(A), jnp.asarray(b), jnp.array([0.05, 0.5])
    _agrees(lambda A, b, t: jnp.sum(ridge_folds(A, b, t, folds=3).state.errors), (A, b, penalties))
    _agrees(lambda A, b, t: jnp.sum(jnp.sin(ridge_path(A, b, t).x.weights)), (A, b, penalties))
    if wide:  # rows are independent, so that the pseudo-inverse is smooth
        _agrees(lambda A, b: jnp.sum(jnp.sin(ridge(A, b, 0.0).x.weights)), (A, b))
    error = lambda t: jnp.sum(ridge_folds(A, b, t, folds=3).state.errors)
    second = jax.hessian(error)(penalties)
    ends = [jax.grad(error)(penalties + h) for h in (1e-6, -1e-6)]
    np.testing.assert_allclose(jnp.sum(second, 1), (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-8)


def test_float32_batches_and_lanes_without_numbers():
    single = ridge(X.astype(np.float32), Y.astype(np.float32), 0.3).raise_for_status()
    assert single.x.weights.dtype == jnp.float32
    np.testing.assert_allclose(single.x.weights, by_numpy(X, Y, 0.3)[0], atol=1e-4)
    both = jnp.stack([jnp.asarray(Y), jnp.asarray(Y).at[3].set(jnp.nan)])
    lanes = jax.vmap(lambda y: ridge(jnp.asarray(X), y, 0.3))(both)
    assert lanes.status.tolist() == [Status.CONVERGED, Status.NONFINITE]
    assert np.all(np.isfinite(lanes.x.weights))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ridge(X, Y[:-1], 0.1), r"y has shape \(39,\) and X \(40, 6\)"),
        (lambda: ridge(X, Y, -0.1), "`penalty` must be finite and >= 0, but -0.1 came"),
        (lambda: ridge(X, Y, np.ones(5)), "each of the 6 features"),
        (lambda: ridge(np.where(X > 4, np.nan, X), Y, 0.1), "`X` must be finite, but"),
        (lambda: ridge(X, Y, 0.1, method="lu"), "one of cholesky, dual, qr, svd, but 'lu' came"),
        (lambda: ridge(X, Y, np.eye(6)[0], method="dual"), "some are 0. Take 'cholesky'"),
        (lambda: ridge(X, Y, 0.1, sample_weight=-S), "`sample_weight` must be finite and >= 0"),
        (lambda: ridge(X, Y, 0.1, sample_weight=0 * S), "> 0 for some row"),
        (lambda: ridge_path(X, Y, 0.1), "They are a grid of numbers"),
        (lambda: ridge_folds(X, Y, np.ones(2), folds=1), "from 2 to the number of rows, 40"),
    ],
)
def test_bad_input_says_what_came_and_what_to_do(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()

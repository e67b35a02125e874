"""The lasso against its optimality conditions, scikit-learn, closed forms and finite differences.

Everything is recomputed by NumPy from X, y and w; of what the solver says only claims are tested.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_lite import Status
from jaxopt_lite.learning import lasso, lasso_folds, lasso_path


def design(n, p, seed=0, dtype=float):
    """Columns correlated as 0.5^|i - j|, a sparse truth, and noise."""
    rng = np.random.default_rng(seed)
    X, fresh = np.empty((n, p)), rng.standard_normal((n, p))
    X[:, 0] = fresh[:, 0]
    for j in range(1, p):
        X[:, j] = 0.5 * X[:, j - 1] + np.sqrt(0.75) * fresh[:, j]
    w = np.where(np.arange(p) % 7 == 0, rng.choice([-1.0, 1.0], p), 0)
    return X.astype(dtype), (X @ w + 0.3 * rng.standard_normal(n)).astype(dtype)


def gap(X, y, limit, ridge, w):
    """(P - D) / P(0), with the residual scaled until it is feasible."""
    n, limit = len(y), np.broadcast_to(limit, w.shape)
    residual = y - X @ w
    slope = X.T @ residual / n - ridge * w
    square = residual @ residual / n + ridge * w @ w
    primal = square / 2 + limit @ np.abs(w)
    scale = min(1, np.min(limit / np.maximum(np.abs(slope), 1e-300)))
    return (primal - (scale * (y @ residual) / n - scale**2 * square / 2)) / (y @ y / (2 * n))


def top(X, y):
    return np.max(np.abs(X.T @ y)) / len(y)


SMALL = design(60, 40)


@pytest.mark.parametrize(
    ("shape", "fraction", "ridge"),
    [((60, 40), 0.02, 0.0), ((60, 40), 0.02, 0.1), ((50, 300), 0.05, 0.0), ((50, 300), 0.01, 0.05)],
)
def test_optimality_conditions_by_numpy(shape, fraction, ridge):
    X, y = design(*shape)
    weights = np.linspace(0.5, 1.5, shape[1])
    penalty = fraction * top(X, y)
    solution = lasso(X, y, penalty, ridge=ridge, weights=weights).raise_for_status()
    w, limit = np.asarray(solution.x), penalty * weights
    slope = X.T @ (y - X @ w) / len(y) - ridge * w
    on = w != 0
    assert 0 < on.sum() == int(solution.state.support)
    # Newton's step solves the equations of the support: rounding alone, of sums of terms of size 1.
    np.testing.assert_allclose(slope[on], (limit * np.sign(w))[on], atol=1e-12)
    assert np.all(np.abs(slope[~on]) <= limit[~on] + 1e-12)
    assert gap(X, y, limit, ridge, w) < 1e-11
    # The certificate: feasible dual point, and the slack that holds a weight at zero.
    state = solution.state
    np.testing.assert_allclose(state.correlation, slope, atol=1e-12)
    np.testing.assert_allclose(state.slack, limit - np.abs(slope), atol=1e-12)
    assert not np.any(state.boundary)
    if ridge == 0:
        assert np.all(np.abs(X.T @ state.dual) / len(y) <= limit * (1 + 1e-12))
        dual = state.dual @ y / len(y) - state.dual @ state.dual / (2 * len(y))
        assert abs(float(solution.value) - float(dual)) < 1e-12 * (y @ y)


@pytest.mark.parametrize("name", ["load_diabetes", "load_breast_cancer"])
def test_parity_with_scikit_learn(name):
    datasets = pytest.importorskip("sklearn.datasets")
    linear_model = pytest.importorskip("sklearn.linear_model")
    X, y = getattr(datasets, name)(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    y = (y - y.mean()) / y.std()
    options = {"fit_intercept": False, "tol": 1e-14, "max_iter": 1_000_000}
    for penalty, ridge in ((0.05, 0.0), (0.02, 0.03)):
        total = penalty + ridge
        theirs = linear_model.ElasticNet(alpha=total, l1_ratio=penalty / total, **options).fit(X, y)
        ours = lasso(X, y, penalty, ridge=ridge).raise_for_status()
        # Theirs stops at gaps of 1e-14 |y|^2: weights of size 1e-7 for this conditioning.
        np.testing.assert_allclose(ours.x, theirs.coef_, atol=1e-6 * np.abs(theirs.coef_).max())


def test_orthonormal_columns_give_soft_thresholds(rng):
    Q = np.sqrt(50) * np.linalg.qr(rng.standard_normal((50, 20)))[0]
    y = Q @ rng.standard_normal(20)
    free = Q.T @ y / 50
    got = lasso(Q, y, 0.5, ridge=0.2).raise_for_status().x
    expected = np.sign(free) * np.maximum(np.abs(free) - 0.5, 0) / 1.2
    np.testing.assert_allclose(got, expected, atol=1e-13)


def test_penalties_at_and_above_the_largest():
    X, y = SMALL
    zero = lasso(X, y, top(X, y) * (1 + 1e-12))
    assert zero.success
    assert np.all(zero.x == 0)
    just_below = lasso(X, y, top(X, y) * (1 - 1e-3))
    assert just_below.success
    assert just_below.state.support == 1


def test_no_penalty_is_least_squares_or_says_what_it_reached():
    X, y = SMALL
    free = lasso(X, y, 0.0).raise_for_status()
    np.testing.assert_allclose(free.x, np.linalg.lstsq(X, y)[0], atol=1e-9)
    wide = lasso(X[:30], y[:30], 0.0)  # interpolates: the smallest value is 0
    assert bool(wide.success) == (float(wide.value) <= 1e-6 * (y[:30] @ y[:30]) / 60)


def test_too_little_room_is_never_converged():
    X, y = design(50, 300)
    tight = lasso(X, y, 0.05 * top(X, y), working_set=8)
    assert tight.status in (Status.STALLED, Status.MAX_STEPS)
    short = lasso(X, y, 0.05 * top(X, y), max_steps=1)
    assert short.status == Status.MAX_STEPS
    assert np.isnan(jax.grad(lambda t: lasso(X, y, t, max_steps=1).x.sum())(0.05 * top(X, y)))


def test_a_thousand_penalties_in_a_batch_are_the_path_and_the_singles():
    X, y = map(jnp.asarray, SMALL)
    penalties = jnp.geomspace(1.0, 0.01, 1000) * top(*SMALL)
    batch = jax.jit(jax.vmap(lambda t: lasso(X, y, t)))(penalties).raise_for_status()
    path = lasso_path(X, y, penalties).raise_for_status()
    np.testing.assert_allclose(batch.x, path.x, atol=1e-9)
    for i in (0, 200, 500, 999):
        np.testing.assert_allclose(batch.x[i], lasso(X, y, penalties[i]).x, atol=1e-9)
    assert (
        max(gap(*SMALL, t, 0, np.asarray(w)) for t, w in zip(penalties, path.x, strict=True))
        < 1e-10
    )


def test_a_path_that_outgrows_its_room_and_starts_elsewhere():
    X, y = design(150, 300)
    penalties = np.geomspace(1, 0.002, 12) * top(X, y)
    path = lasso_path(X, y, penalties).raise_for_status()
    assert path.state.support[-1] > 72
    last = lasso(X, y, penalties[-1], x0=path.x[-2]).raise_for_status()
    np.testing.assert_allclose(path.x[-1], last.x, atol=1e-9)
    inside = jax.jit(lasso)(X, y, penalties[-1]).raise_for_status()
    np.testing.assert_allclose(path.x[-1], inside.x, atol=1e-9)


@pytest.mark.parametrize(("n", "batching"), [(47, "map"), (47, "vmap"), (33, "map")])
def test_folds_are_fits_on_the_other_rows(n, batching):
    X, y = SMALL[0][:n], SMALL[1][:n]  # 33 rows are fewer than the columns
    penalties = np.geomspace(1, 0.05, 6) * top(X, y)
    found = lasso_folds(X, y, penalties, folds=4, ridge=0.01, batching=batching).raise_for_status()
    blocks = np.array_split(np.arange(n), 4)
    for k in (0, 3):
        rest = np.setdiff1d(np.arange(n), blocks[k])
        for i in (2, 5):
            w = np.asarray(found.x[k, i])
            assert gap(X[rest], y[rest], penalties[i], 0.01, w) < 1e-10
            error = np.mean((y[blocks[k]] - X[blocks[k]] @ w) ** 2)
            assert found.state.errors[k, i] == pytest.approx(error, rel=1e-10)


def test_derivatives_are_finite_differences_in_every_argument():
    X, y = map(jnp.asarray, SMALL)
    weights, penalty = jnp.linspace(0.5, 1.5, 40), jnp.asarray(0.05 * top(*SMALL))
    args = (X, y, penalty, weights, jnp.asarray(0.05))

    def fit(X, y, penalty, weights, ridge):
        solution = lasso(X, y, penalty, weights=weights, ridge=ridge)
        return jnp.sum(jnp.sin(solution.x)), solution.value

    compiled = jax.jit(fit)
    for which in (0, 1):
        gradient = jax.jit(jax.grad(lambda *a, k=which: fit(*a)[k], range(5)))(*args)
        rng = np.random.default_rng(1)
        for i, (arg, slope) in enumerate(zip(args, gradient, strict=True)):
            step = jnp.asarray(rng.standard_normal(arg.shape))
            h = 1e-5  # errors h^2 and 1e-15 / h, both 1e-10
            ends = [compiled(*args[:i], arg + s * h * step, *args[i + 1 :])[which] for s in (1, -1)]
            numeric = (ends[0] - ends[1]) / (2 * h)
            assert jnp.sum(slope * step) == pytest.approx(float(numeric), rel=1e-6, abs=1e-8)

    eager = jax.grad(lambda t: fit(X, y, t, *args[3:])[0])(penalty)
    push = jax.jvp(lambda t: fit(X, y, t, *args[3:])[0], (penalty,), (1.0 + 0 * penalty,))[1]
    assert eager == pytest.approx(float(push), rel=1e-10)
    second = jax.grad(jax.grad(lambda t: fit(X, y, t, *args[3:])[1]))(penalty)
    envelope = jax.grad(lambda t: fit(X, y, t, *args[3:])[1])
    ends = [envelope(penalty + h) for h in (1e-5, -1e-5)]
    assert second == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-6)


def test_derivatives_through_folds_choose_a_penalty():
    X, y = map(jnp.asarray, SMALL)
    penalties = jnp.geomspace(0.2, 0.05, 3) * top(*SMALL)
    error = jax.jit(lambda t: lasso_folds(X, y, t, folds=3).state.errors.mean(0))
    jacobian = jax.jacfwd(error)(penalties)
    h = 1e-6
    numeric = (error(penalties * (1 + h)) - error(penalties * (1 - h))) / (2 * h * penalties)
    np.testing.assert_allclose(jnp.diag(jacobian), numeric, rtol=1e-6)


def test_float32_and_a_lane_without_numbers():
    X, y = design(60, 40, dtype=np.float32)
    single = lasso(X, y, np.float32(0.05 * top(X, y))).raise_for_status()
    assert single.x.dtype == jnp.float32
    assert gap(*SMALL, 0.05 * top(*SMALL), 0, np.asarray(single.x, float)) < 1e-4

    X, y = map(jnp.asarray, SMALL)
    both = jnp.stack([y, y.at[3].set(jnp.nan)])
    lanes = jax.vmap(lambda y: lasso(X, y, 0.05 * top(*SMALL)))(both)
    assert lanes.status.tolist() == [Status.CONVERGED, Status.NONFINITE]
    assert np.all(np.isfinite(lanes.x))
    refused = jax.jit(lambda t: lasso(X, y, t).status)(-0.1)  # traced: cannot be an error
    assert refused == Status.NONFINITE


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda X, y: lasso(X, y[:-1], 0.1), r"y has shape \(59,\) and X \(60, 40\)"),
        (lambda X, y: lasso(y, y, 0.1), "`X` must have 2 axes"),
        (lambda X, y: lasso(X, y, -0.1), "`penalty` must be finite and >= 0, but -0.1 came"),
        (lambda X, y: lasso(X, y, np.ones(40)), "pass `weights`; for many, call `lasso_path`"),
        (lambda X, y: lasso(X, y, 0.1, ridge=-1.0), "`ridge` must be finite and >= 0"),
        (lambda X, y: lasso(X, y, 0.1, weights=np.ones(3)), r"shape \(3,\) and X \(60, 40\)"),
        (lambda X, y: lasso(X, np.where(y > 1, np.nan, y), 0.1), "`y` must be finite, but"),
        (lambda X, y: lasso(X, y, 0.1, working_set=0), "`working_set` must be an integer >= 1"),
        (lambda X, y: lasso(X, y, 0.1, x0=np.ones(3)), r"`x0` must have shape \(40,\)"),
        (lambda X, y: lasso_path(X, y, np.array([0.1, 0.2])), "in descending order"),
        (lambda X, y: lasso_path(X, y, 0.1), "For a single penalty call `lasso`"),
        (lambda X, y: lasso_folds(X, y, np.array([0.1]), folds=61), "from 2 to the number of rows"),
        (lambda X, y: lasso_folds(X, y, np.array([0.1]), batching="x"), "'auto', 'map' or 'vmap'"),
    ],
)
def test_bad_input_says_what_came_and_what_to_do(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(*SMALL)

"""Generalised linear models against scikit-learn, worked examples, proofs, finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite import Status
from jaxopt_lite.learning import Data, Likelihood, Linear, gamma, logistic, logistic_folds, poisson

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 4))
SCORE = X @ np.array([1.0, -2.0, 0.0, 0.5]) + 0.3
Y = (SCORE + RNG.logistic(size=60) > 0).astype(int)
THREE = np.digitize(SCORE + RNG.logistic(size=60), [-1.0, 1.0])
COUNTS = RNG.poisson(np.exp(0.4 * SCORE)).astype(float)
S = RNG.uniform(0.2, 2.0, 60)


def test_two_points_step_to_zero_and_two():
    A, y = np.array([[-1.0], [1.0]]), np.array([0, 1])
    # At 0: mean - y = (1/2, -1/2), weights 1/4; H = diag(1/2, 1/2), gradient (0, -1): step (0, 2).
    first = logistic(A, y, 0.0, max_steps=2)  # one evaluation at the start, one a step
    np.testing.assert_allclose(first.x.intercept, 0.0, atol=1e-12)
    np.testing.assert_allclose(first.x.weights, [2.0], rtol=1e-12)
    # A point at 0 parts the two: no minimiser, and the direction says so.
    found = logistic(A, y, 0.0)
    assert found.status == Status.DIVERGED
    assert found.state.separable
    assert found.state.margin == pytest.approx(1.0)
    with pytest.raises(jol.SolveError):
        found.raise_for_status()


@pytest.mark.parametrize("method", ["newton", "lbfgs"])
def test_separable_data_are_said_with_a_direction(method, compilations):
    for y, k in ((np.where(SCORE > 0, 1, -1), 2), (np.digitize(SCORE, [-1.0, 1.0]), 3)):
        found = logistic(X, y, 0.0, method=method)
        assert found.status == Status.DIVERGED
        moves = np.asarray(found.state.direction(X))
        if k == 2:
            assert np.min(y * moves) == pytest.approx(float(found.state.margin))
        else:
            own = np.take_along_axis(moves, y[:, None], 1)[:, 0]
            others = np.where(np.arange(3) == y[:, None], -np.inf, moves).max(1)
            assert np.min(own - others) == pytest.approx(float(found.state.margin))
        assert found.state.margin > 0
        assert not logistic(X, y, 1e-3, method=method).raise_for_status().state.separable
    with compilations() as count:
        logistic(X, THREE, 2e-3, method=method)
    assert count.programs == 0
    assert logistic(X, Y, 0.0, method=method).success  # and not where there is a minimiser
    assert logistic(X, THREE, 0.0, method=method).success


def test_rows_on_the_border_and_counts_without_a_minimiser():
    A = np.array([[-2.0, 1.0], [-1.0, 3.0], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0], [1.0, 1.0]])
    y = np.array([0, 0, 0, 1, 0, 1])  # three rows on the border, where the classes mix
    found = logistic(A, y, 0.0)
    assert found.status == Status.DIVERGED
    margins = (2 * y - 1) * np.asarray(found.state.direction(A))
    # Newton's direction on the border is zero to the root of what the Hessian is there: 1e-8.
    assert np.all(margins > -1e-6)
    assert margins.max() == pytest.approx(1.0)
    zero = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 2.0]])
    for counts, exists in (([0.0, 0.0, 2.0, 5.0], False), ([1.0, 0.0, 2.0, 5.0], True)):
        got = poisson(zero, np.array(counts), 0.0, intercept=False)
        assert bool(got.state.separable) != exists
        assert got.status == (Status.CONVERGED if exists else Status.DIVERGED)
    assert got.success
    # A penalty on the weights leaves the intercept: no event at all, or no row of a class counts.
    for found in (
        poisson(zero, np.zeros(4), 0.1),
        logistic(X, Y, 0.1, sample_weight=1.0 * Y),
        logistic(X, THREE, 0.1, sample_weight=1.0 * (THREE > 0)),
    ):
        assert found.status == Status.DIVERGED
        assert np.any(found.state.direction.intercept != 0)
        assert not np.any(found.state.direction.weights)


@pytest.mark.parametrize("name", ["load_breast_cancer", "load_iris", "load_wine"])
def test_parity_with_scikit_learn(name):
    datasets = pytest.importorskip("sklearn.datasets")
    linear_model = pytest.importorskip("sklearn.linear_model")
    A, y = getattr(datasets, name)(return_X_y=True)
    A = (A - A.mean(0)) / A.std(0)
    penalty, s = 1e-2, np.linspace(0.5, 1.5, len(y))
    theirs = linear_model.LogisticRegression(
        C=1 / (penalty * s.sum()), solver="newton-cholesky", tol=1e-12, max_iter=1000
    ).fit(A, y, s)
    ours = logistic(A, y, penalty, sample_weight=s, tol=1e-11).raise_for_status()
    weights = ours.x.weights[None] if ours.x.weights.ndim == 1 else ours.x.weights.T
    np.testing.assert_allclose(weights, theirs.coef_, atol=1e-8)
    level = np.asarray(ours.x.intercept)
    expected = theirs.intercept_ - (theirs.intercept_.mean() if level.ndim else 0)
    np.testing.assert_allclose(
        np.atleast_1d(level - (level.mean() if level.ndim else 0)), expected, atol=1e-8
    )
    few = logistic(A, y, penalty, sample_weight=s, method="lbfgs").raise_for_status()
    # Gradients of 1.5e-8 over curvatures of at least the penalty.
    np.testing.assert_allclose(few.x.weights, ours.x.weights, atol=2e-6)


def test_parity_of_counts_gamma_and_class_weights():
    linear_model = pytest.importorskip("sklearn.linear_model")
    options = {"alpha": 0.05, "tol": 1e-12, "solver": "newton-cholesky"}
    theirs = linear_model.PoissonRegressor(**options).fit(X, COUNTS, S)
    ours = poisson(X, COUNTS, 0.05, sample_weight=S).raise_for_status()
    np.testing.assert_allclose(ours.x.weights, theirs.coef_, atol=1e-8)
    assert ours.x.intercept == pytest.approx(theirs.intercept_, abs=1e-8)
    theirs = linear_model.GammaRegressor(**options).fit(X, COUNTS + 0.5)
    ours = gamma(X, COUNTS + 0.5, 0.05).raise_for_status()
    np.testing.assert_allclose(ours.x.weights, theirs.coef_, atol=1e-8)
    theirs = linear_model.LogisticRegression(
        C=1.0, class_weight="balanced", tol=1e-12, solver="newton-cholesky"
    ).fit(X, Y)
    # Balanced weights sum to n, so that C = 1 / (penalty n).
    ours = logistic(X, Y, 1 / 60, class_weight="balanced").raise_for_status()
    np.testing.assert_allclose(ours.x.weights, theirs.coef_[0], atol=1e-8)
    # Exposure e as an offset: the same as rates y / e with weights e.
    e = S
    rates = poisson(X, COUNTS / e, 0.05, sample_weight=e).x
    counts = poisson(X, COUNTS, 0.05 * e.mean(), offset=np.log(e)).x
    np.testing.assert_allclose(counts.weights, rates.weights, atol=1e-8)


def test_certificate_and_l1_by_the_proximal_solvers():
    found = logistic(X, Y, 0.1).raise_for_status()
    data = Data(
        *map(jnp.asarray, (X, Y.astype(float), np.full(60, 1 / 60), np.full(4, 0.1), [0.0]))
    )
    report = jol.certify(jol.Problem(Likelihood("logistic")), found, (data,))
    assert "strict local minimum" in str(report)
    assert report.residuals.worst() < 1e-8
    l1 = 0.05
    sparse = logistic(X, Y, 0.0, l1=l1, tol=1e-10).raise_for_status()
    w, b = np.asarray(sparse.x.weights), float(sparse.x.intercept)
    slope = X.T @ (1 / (1 + np.exp(-X @ w - b)) - Y) / 60
    on = w != 0
    assert 0 < on.sum() < 4
    np.testing.assert_allclose(slope[on], -l1 * np.sign(w[on]), atol=1e-9)
    assert np.all(np.abs(slope[~on]) <= l1)
    both = logistic(X, THREE, 0.01, l1=l1).raise_for_status().x.weights
    assert 0 < np.sum(both == 0) < 12


def test_derivatives_are_finite_differences():
    args = tuple(map(jnp.asarray, (X, np.linspace(0.05, 0.2, 4), S, 0.1 * SCORE)))

    def two(X, penalty, s, offset):
        found = logistic(X, jnp.asarray(Y), penalty, sample_weight=s, offset=offset, tol=1e-12)
        return jnp.sum(jnp.sin(found.x.weights)) + found.x.intercept + found.value

    def three(X, penalty, s, offset):
        offset = jnp.stack([offset, 0 * offset, -offset], 1)
        found = logistic(X, THREE, penalty, sample_weight=s, offset=offset, tol=1e-12)
        return jnp.sum(jnp.sin(found.x.weights)) + found.value

    def counts(X, penalty, s, offset):
        found = poisson(X, jnp.asarray(COUNTS), penalty, sample_weight=s, offset=offset, tol=1e-12)
        return jnp.sum(jnp.sin(found.x.weights)) + found.x.intercept + found.value

    for fit in (two, three, counts):
        value = jax.jit(fit)
        gradient = jax.jit(jax.grad(fit, range(4)))(*args)
        rng = np.random.default_rng(1)
        for i, (arg, slope) in enumerate(zip(args, gradient, strict=True)):
            step = jnp.asarray(rng.standard_normal(arg.shape)) * (0.1 if i in (1, 2) else 1)
            ends = [value(*args[:i], arg + h * step, *args[i + 1 :]) for h in (1e-5, -1e-5)]
            # Error h^2 of the difference, and 1e-12 / h of the fits.
            numeric = float(ends[0] - ends[1]) / 2e-5
            assert jnp.sum(slope * step) == pytest.approx(numeric, rel=1e-6, abs=1e-6)


def test_folds_are_fits_on_the_other_rows():
    penalties = jnp.array([1.0, 0.1, 0.01])
    found = logistic_folds(X, Y, penalties, folds=3, sample_weight=S).raise_for_status()
    assert found.x.weights.shape == (3, 3, 4)
    block = np.arange(20, 40)
    rest = np.setdiff1d(np.arange(60), block)
    alone = logistic(X[rest], Y[rest], 0.1, sample_weight=S[rest]).raise_for_status()
    np.testing.assert_allclose(found.x.weights[1, 1], alone.x.weights, atol=1e-7)
    z = X[block] @ np.asarray(alone.x.weights) + float(alone.x.intercept)
    error = np.average(np.logaddexp(0, -(2 * Y[block] - 1) * z), weights=S[block])
    assert found.state.errors[1, 1] == pytest.approx(error, rel=1e-6)
    mean = jax.jit(lambda t: jnp.sum(logistic_folds(X, Y, t, folds=3).state.errors))
    ends = [mean(penalties * (1 + h)) for h in (1e-4, -1e-4)]
    slope = jnp.vdot(jax.grad(mean)(penalties), penalties)
    assert slope == pytest.approx(float(ends[0] - ends[1]) / 2e-4, rel=1e-5)


def test_float32_warm_starts_and_lanes_without_numbers():
    single = logistic(X.astype(np.float32), Y, 0.05).raise_for_status()
    double = logistic(X, Y, 0.05).raise_for_status()
    np.testing.assert_allclose(single.x.weights, double.x.weights, atol=5e-3)
    again = logistic(X, Y, 0.05, x0=double.x)
    assert again.steps == 1
    lanes = jax.vmap(lambda A: logistic(A, jnp.asarray(Y), 0.05))(
        jnp.stack([jnp.asarray(X), jnp.asarray(X).at[0, 0].set(jnp.nan)])
    )
    assert lanes.status.tolist() == [Status.CONVERGED, Status.NONFINITE]
    np.testing.assert_allclose(lanes.x.weights[0], double.x.weights, atol=1e-7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: logistic(X, np.ones(60, int), 0.1), "two classes, but all of its labels are 1"),
        (lambda: logistic(X, Y + 3, 0.1), "0 ... k - 1, but has 3, 4"),
        (lambda: logistic(X, np.where(Y, 0.5, 0.0), 0.1), "but has 0.0, 0.5"),
        (lambda: logistic(X, np.where(Y, np.nan, 0.0), 0.1), "`y` must be finite"),
        (lambda: logistic(X, Y[:-1], 0.1), r"y has shape \(59,\) and X \(60, 4\)"),
        (lambda: logistic(np.where(X > 2, np.inf, X), Y, 0.1), "`X` must be finite"),
        (lambda: logistic(X, Y, -1.0), "`penalty` must be finite and >= 0"),
        (lambda: logistic(X, Y, 0.1, class_weight="even"), "'balanced' or an array"),
        (lambda: logistic(X, Y, 0.1, method="sag"), "one of newton, lbfgs, but 'sag' came"),
        (lambda: logistic(X, Y, 0.1, offset=np.ones(3)), r"`offset` must have shape \(60,\)"),
        (lambda: logistic(X, Y, 0.1, x0=Linear(np.ones(3), 0.0)), "`x0` must be a Linear"),
        (lambda: poisson(X, COUNTS - 1, 0.1), "`y` must be >= 0 everywhere, but -1.0 came"),
        (lambda: gamma(X, COUNTS, 0.1), "`y` must be > 0 everywhere, but 0.0 came"),
    ],
)
def test_bad_input_says_what_came_and_what_to_do(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()

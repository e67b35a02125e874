"""Support vector machines against strong duality, libsvm, programs, finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_lite import Status
from jaxopt_lite.learning import kernels, linear_svc, one_class_svm, svc, svr

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 2))
Y = np.where(X[:, 0] * X[:, 1] + 0.3 * X[:, 0] + 0.3 * RNG.standard_normal(60) > 0, 1, -1)
SPLIT = np.where(X[:, 0] - X[:, 1] > 0, 1, 0)
AWAY = X + 0.4 * np.where(SPLIT[:, None] > 0, [[1, -1]], [[-1, 1]])
TARGET = np.sin(2 * X[:, 0]) + X[:, 1] + 0.1 * RNG.standard_normal(60)
RBF = kernels.RBF(0.7)


def coefficients(model, n):
    full = np.zeros(n)
    full[model.support_] = np.ravel(model.dual_coef_)
    return full


@pytest.mark.parametrize("method", ["smo", "qp"])
@pytest.mark.parametrize(
    ("kernel", "name", "options"),
    [
        (kernels.Linear(), "linear", {}),
        (RBF, "rbf", {"gamma": 0.7}),
        (kernels.Polynomial(3, 0.5, 1.0), "poly", {"gamma": 0.5, "coef0": 1.0, "degree": 3}),
    ],
)
def test_strong_duality_cases_and_libsvm(method, kernel, name, options):
    fit = svc(X, Y, 2.0, kernel=kernel, method=method, tol=1e-9).raise_for_status()
    state, K = fit.state, np.asarray(kernel(jnp.asarray(X), jnp.asarray(X)))
    b, bias, a = np.asarray(fit.x.weights), float(fit.x.intercept), np.asarray(state.dual)
    # Everything anew, by NumPy: feasibility, both values, complementary slackness.
    assert abs(a @ Y) < 1e-10
    assert np.all((a >= 0) & (a <= 2.0))
    scores = K @ b + bias
    np.testing.assert_allclose(state.scores, scores, atol=1e-9)
    primal = b @ K @ b / 2 + 2.0 * np.maximum(0, 1 - Y * scores).sum()
    dual = a.sum() - b @ K @ b / 2
    assert -1e-12 < primal - dual < 1e-6 * primal
    assert state.gap == pytest.approx(primal - dual, abs=1e-10)
    assert fit.value == pytest.approx(dual, rel=1e-12)
    margins = Y * scores
    assert np.all(margins[np.asarray(state.outside)] >= 1 - 1e-7)
    np.testing.assert_allclose(margins[np.asarray(state.free)], 1.0, atol=1e-7)
    assert np.all(margins[np.asarray(state.bound)] <= 1 + 1e-7)
    assert np.all(np.asarray(state.outside) | np.asarray(state.free) | np.asarray(state.bound))
    assert state.margin == pytest.approx(1 / np.sqrt(b @ K @ b), rel=1e-9)
    svm = pytest.importorskip("sklearn.svm")
    theirs = svm.SVC(C=2.0, kernel=name, tol=1e-10, **options).fit(X, Y)
    # libsvm keeps its kernel matrix in float32, so that its answers have six digits.
    if name != "linear":  # with 2 features the multipliers of more rows are not unique
        np.testing.assert_allclose(b, coefficients(theirs, 60), atol=4e-6)
    np.testing.assert_allclose(scores, theirs.decision_function(X), rtol=1e-6, atol=1e-6)
    fresh = RNG.standard_normal((5, 2))
    new = fit.x(kernel(jnp.asarray(fresh), jnp.asarray(X)))
    np.testing.assert_allclose(new, theirs.decision_function(fresh), rtol=1e-6, atol=2e-6)


def test_only_inner_products_and_only_support_vectors_matter():
    K = np.asarray(RBF(jnp.asarray(X), jnp.asarray(X)))
    fit = svc(X, Y, 1.0, kernel=RBF, tol=1e-10).raise_for_status()
    same = svc(K, Y, 1.0, kernel="precomputed", tol=1e-10).raise_for_status()
    np.testing.assert_array_equal(same.x.weights, fit.x.weights)
    own = svc(X, Y, 1.0, kernel=lambda A, B: RBF(A, B), tol=1e-10)
    np.testing.assert_allclose(own.x.weights, fit.x.weights, atol=1e-8)
    keep = ~np.asarray(fit.state.outside)
    assert keep.sum() < 60
    less = svc(X[keep], Y[keep], 1.0, kernel=RBF, tol=1e-10).raise_for_status()
    np.testing.assert_allclose(less.x.weights, fit.x.weights[keep], atol=1e-7)
    assert less.x.intercept == pytest.approx(float(fit.x.intercept), abs=1e-8)
    again = svc(X, Y, 1.0, kernel=RBF, tol=1e-10, warm=fit)
    assert again.steps == 0


def test_hard_margins_and_squared_hinges(compilations):
    fit = svc(AWAY, SPLIT, np.inf, tol=1e-9).raise_for_status()
    w = AWAY.T @ np.asarray(fit.x.weights)
    margins = (2 * SPLIT - 1) * (AWAY @ w + float(fit.x.intercept))
    assert margins.min() == pytest.approx(1.0, abs=1e-7)
    assert fit.state.margin == pytest.approx(1 / np.linalg.norm(w), rel=1e-9)
    soft = svc(AWAY, SPLIT, 1e6, tol=1e-9)
    np.testing.assert_allclose(AWAY.T @ np.asarray(soft.x.weights), w, atol=1e-6)
    A = np.array([[0.0], [0.0], [1.0], [2.0]])
    none = svc(A, np.array([1, 0, 1, 0]), np.inf, max_steps=10_000)
    assert none.status in (Status.PRIMAL_INFEASIBLE, Status.MAX_STEPS)
    assert not none.success
    # The squared hinge, by its dual and by its primal.
    dual = svc(X, Y, 0.5, loss="squared_hinge", tol=1e-10).raise_for_status()
    primal = linear_svc(X, Y, 0.5, tol=1e-10).raise_for_status()
    np.testing.assert_allclose(X.T @ np.asarray(dual.x.weights), primal.x.weights, atol=1e-8)
    assert dual.value == pytest.approx(float(primal.value), rel=1e-9)
    for one in (dual, primal):
        assert 0 <= one.state.gap + 1e-12 < 1e-7 * one.value
    np.testing.assert_allclose(dual.state.dual, primal.state.dual, atol=1e-7)
    assert not np.any(dual.state.bound)
    with compilations() as count:
        svc(X + 1.0, Y, 0.7, loss="squared_hinge", tol=1e-9)
        linear_svc(X + 1.0, Y, 0.7, tol=1e-9)
    assert count.programs == 0


def test_regression_and_one_class():
    svm = pytest.importorskip("sklearn.svm")
    theirs = svm.SVR(C=3.0, epsilon=0.2, gamma=0.7, tol=1e-11).fit(X, TARGET)
    for method in ("smo", "qp"):
        fit = svr(X, TARGET, 3.0, epsilon=0.2, kernel=RBF, method=method, tol=1e-9)
        fit.raise_for_status()
        np.testing.assert_allclose(fit.x.weights, coefficients(theirs, 60), atol=6e-6)  # of 3.0
        assert fit.x.intercept == pytest.approx(theirs.intercept_[0], abs=1e-6)
        assert 0 <= fit.state.gap + 1e-12 < 1e-6 * fit.value
        misfit = np.abs(TARGET - np.asarray(fit.state.scores))
        assert np.all(misfit[np.asarray(fit.state.outside)] <= 0.2 + 1e-7)
        np.testing.assert_allclose(misfit[np.asarray(fit.state.free)], 0.2, atol=1e-7)
    theirs = svm.OneClassSVM(nu=0.3, gamma=0.7, tol=1e-11).fit(X)
    for method in ("smo", "qp"):
        fit = one_class_svm(X, 0.3, kernel=RBF, method=method, tol=1e-10).raise_for_status()
        np.testing.assert_allclose(0.3 * 60 * fit.x.weights, coefficients(theirs, 60), atol=1e-6)
        assert 0.3 * 60 * fit.x.intercept == pytest.approx(theirs.intercept_[0], abs=1e-6)
        assert abs(fit.state.gap) < 1e-7
    outside = np.mean(np.asarray(fit.state.scores) < -1e-9)
    assert outside <= 0.3 <= np.mean(np.asarray(fit.x.weights) > 0)


def test_derivatives_are_finite_differences():
    A, C = jnp.asarray(X[:30]), jnp.asarray(RNG.uniform(1.0, 2.0, 30))
    sign = Y[:30]

    def two(A, C, width, loss="hinge"):
        fit = svc(A, sign, C, kernel=kernels.RBF(width), loss=loss, tol=1e-12)
        return jnp.sum(jnp.sin(fit.x.weights)) + fit.x.intercept + 0.1 * fit.value

    def squared(A, C, width):
        return two(A, C, width, "squared_hinge")

    def numbers(A, C, width, y, e):
        fit = svr(A, y, C, epsilon=e, kernel=kernels.RBF(width), tol=1e-12)
        return jnp.sum(jnp.sin(fit.x.weights)) + fit.x.intercept + 0.1 * fit.value

    def one(A, width, nu):
        fit = one_class_svm(A, nu, kernel=kernels.RBF(width), tol=1e-13)
        return jnp.sum(jnp.sin(fit.x.weights)) + fit.x.intercept + fit.value

    width, y = jnp.asarray(0.7), jnp.asarray(TARGET[:30])
    cases = [
        (two, (A, C, width)),
        (squared, (A, C, width)),
        (numbers, (A, C, width, y, jnp.asarray(0.15))),
        (one, (A, width, jnp.asarray(0.4))),
    ]
    for fit, args in cases:
        value = jax.jit(fit)
        gradient = jax.jit(jax.grad(fit, range(len(args))))(*args)
        rng = np.random.default_rng(1)
        for i, (arg, slope) in enumerate(zip(args, gradient, strict=True)):
            step = jnp.asarray(rng.standard_normal(arg.shape))
            ends = [value(*args[:i], arg + h * step, *args[i + 1 :]) for h in (1e-5, -1e-5)]
            numeric = float(ends[0] - ends[1]) / 2e-5  # fits to 1e-11 over 1e-5
            assert jnp.sum(slope * step) == pytest.approx(numeric, rel=1e-5, abs=1e-5), fit
    eager = jax.grad(two, 2)(A, C, width)
    second = jax.grad(jax.grad(two, 2), 2)(A, C, width)
    ends = [jax.grad(two, 2)(A, C, width + h) for h in (1e-5, -1e-5)]
    assert second == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-5)
    assert eager == pytest.approx(float(jax.jit(jax.grad(two, 2))(A, C, width)), rel=1e-8)


def test_float32_batches_and_failures():
    single = svc(X.astype(np.float32), Y, 1.0, kernel=RBF).raise_for_status()
    assert single.x.weights.dtype == jnp.float32
    widths = jnp.array([0.3, 0.7])
    lanes = jax.jit(jax.vmap(lambda t: svc(jnp.asarray(X), Y, 1.0, kernel=kernels.RBF(t))))(widths)
    np.testing.assert_allclose(lanes.x.weights[1], svc(X, Y, 1.0, kernel=RBF).x.weights, atol=1e-5)
    assert svc(X, Y, 1.0, kernel=RBF, max_steps=3).status == Status.MAX_STEPS
    bad = jax.jit(lambda K: svc(K, Y, 1.0, kernel="precomputed").status)
    assert bad(jnp.full((60, 60), jnp.nan)) == Status.NONFINITE
    assert bad(-jnp.eye(60)) == Status.NONCONVEX


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: svc(X, np.ones(60), 1.0), "two classes, but all of its labels are 1.0"),
        (lambda: svc(X, Y + 2, 1.0), "-1 and 1, or 0 and 1, but has 1, 3"),
        (lambda: svc(X, Y[:-1], 1.0), "`y` must have 60 entries"),
        (lambda: svc(X, Y, 0.0), "`C` must be a number > 0, but 0.0 came"),
        (lambda: svc(X, Y, np.ones(3)), "each of the 60 rows"),
        (lambda: svc(np.where(X > 2, np.nan, X), Y, 1.0), "`X` must be finite"),
        (lambda: svc(X, Y, 1.0, kernel="rbf"), "`learning.kernels.RBF"),
        (lambda: svc(X, Y, 1.0, kernel=3), "must be 'precomputed', one of"),
        (lambda: svc(X, Y, 1.0, kernel="precomputed"), "square matrix"),
        (
            lambda: svc(np.diag(np.r_[-0.5, np.ones(59)]), Y, 1.0, kernel="precomputed"),
            r"least eigenvalue is -0.5 \(the largest 1; 1 of 60 are negative\)",
        ),
        (lambda: svc(np.tri(60), Y, 1.0, kernel="precomputed"), "symmetric, but K - K' has"),
        (lambda: svc(X, Y, 1.0, loss="log"), "one of hinge, squared_hinge, but 'log' came"),
        (lambda: svc(X, Y, 1.0, method="ipm"), "one of smo, qp, but 'ipm' came"),
        (lambda: one_class_svm(X, 1.5), r"in \(0, 1\], but 1.5 came"),
        (lambda: svr(X, TARGET, 1.0, epsilon=-0.1), "`epsilon` must be a number >= 0"),
        (lambda: kernels.RBF(-1.0), r"RBF\(gamma=...\) must be a number > 0"),
        (lambda: kernels.Polynomial(2, 1.0, -1.0), "the kernel is indefinite"),
    ],
)
def test_bad_input_says_what_came_and_what_to_do(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_rows_that_occur_twice_have_derivatives():
    """Both free: how they share a multiplier is arbitrary, the scores are not."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((24, 2))
    y = np.where(X[:, 0] + 0.5 * rng.standard_normal(24) > 0, 1, -1)
    held = rng.standard_normal((5, 2))

    def score(gamma, X, y, weight):
        machine = svc(X, y, weight, kernel=kernels.RBF(gamma), tol=1e-11)
        return jnp.sum(machine.x(kernels.RBF(gamma)(held, X)) ** 2), machine.state.free

    once = np.ones(24)
    _, free = score(1.0, X, y, once)
    double = int(np.flatnonzero(free)[0])
    twice, labels = np.concatenate([X, X[double:][:1]]), np.append(y, y[double])
    # A row with C = 1 is two rows with C = 1/2.
    half = np.append(once, 0.5)
    half[double] = 0.5
    slope, free = jax.grad(score, has_aux=True)(1.0, twice, labels, half)
    assert bool(free[double] & free[-1])
    expected, _ = jax.grad(score, has_aux=True)(1.0, X, y, once)
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


def test_a_hard_margin_short_by_rounding_has_a_finite_gap():
    X = np.array([[0.1, 0.7], [0.3, -0.2], [1.7, 0.4], [1.9, -0.3]])
    for method in ("qp", "smo"):
        machine = svc(X, np.array([-1, -1, 1, 1]), jnp.inf, method=method)
        assert machine.status == Status.CONVERGED
        assert abs(machine.state.gap) <= 1e-5

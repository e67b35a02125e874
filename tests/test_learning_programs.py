"""Programs in disguise: prices measured by paying them, peers, and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_lite import Status
from jaxopt_lite.learning import diet, isotonic, markowitz, nnls, optimal_transport

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 6))
Y = X @ [1.0, -1.0, 0.5, 0.0, 2.0, -0.5] + 1.0 + 0.3 * RNG.standard_normal(40)
FACTORS = RNG.standard_normal((30, 5))
S, MEAN = FACTORS.T @ FACTORS / 30, np.array([0.02, 0.05, 0.08, 0.1, 0.12])
SEQUENCE = np.cumsum(RNG.standard_normal(30)) * 0.2 + np.linspace(0, 2, 30)
COST = RNG.uniform(size=(6, 8))
ROWS, COLUMNS = RNG.dirichlet(np.ones(6)), RNG.dirichlet(np.ones(8))


def agrees(fit, args, rel=1e-6):
    gradient, value = jax.jit(jax.grad(fit, range(len(args))))(*args), jax.jit(fit)
    rng = np.random.default_rng(1)
    for i, (arg, slope) in enumerate(zip(args, gradient, strict=True)):
        step = jnp.asarray(rng.standard_normal(arg.shape)) * 0.1
        ends = [value(*args[:i], arg + h * step, *args[i + 1 :]) for h in (1e-5, -1e-5)]
        numeric = float(ends[0] - ends[1]) / 2e-5
        assert jnp.sum(slope * step) == pytest.approx(numeric, rel=rel, abs=1e-6)


def test_the_cheapest_diet_and_what_a_nutrient_is_worth():
    """Bread, milk, cheese; energy, protein, calcium. Scipy's answer and prices, and the theorem."""
    optimize = pytest.importorskip("scipy.optimize")
    cost = np.array([2.0, 3.5, 8.0])
    content = np.array([[4.0, 8.0, 7.0], [2.0, 12.0, 24.0], [1.0, 30.0, 20.0]])
    need = np.array([32.0, 36.0, 25.0])
    fit = diet(cost, content, need).raise_for_status()
    other = optimize.linprog(cost, -content, -need)
    np.testing.assert_allclose(fit.x, other.x, atol=1e-8)
    np.testing.assert_allclose(fit.multipliers.ineq, -other.ineqlin.marginals, atol=1e-8)
    np.testing.assert_allclose(fit.multipliers.lower, other.lower.marginals, atol=1e-8)
    prices = np.asarray(fit.multipliers.ineq)
    assert need @ prices == pytest.approx(float(fit.value), rel=1e-9)
    np.testing.assert_allclose(cost - content.T @ prices, fit.multipliers.lower, atol=1e-8)
    slope = jax.grad(lambda need: diet(cost, content, need).value)(jnp.asarray(need))
    np.testing.assert_allclose(slope, prices, atol=1e-8)
    assert diet(cost, content * 0, need).status == Status.PRIMAL_INFEASIBLE
    with pytest.raises(ValueError, match=r"`content` must have shape \(2, 3\)"):
        diet(cost, content, need[:2])


def test_non_negative_least_squares():
    optimize = pytest.importorskip("scipy.optimize")
    fit = nnls(X, Y, tol=1e-12).raise_for_status()
    np.testing.assert_allclose(fit.x.weights, optimize.nnls(X, Y)[0], atol=1e-9)
    w = np.asarray(fit.x.weights)
    assert fit.value == pytest.approx(np.mean((Y - X @ w) ** 2) / 2, rel=1e-9)
    price = X.T @ (X @ w - Y) / 40
    np.testing.assert_allclose(fit.state.price, price, atol=1e-9)
    np.testing.assert_allclose(fit.multipliers.lower, np.maximum(price, 0), atol=1e-8)
    assert 0 < np.sum(w == 0) < 6
    linear_model = pytest.importorskip("sklearn.linear_model")
    theirs = linear_model.LinearRegression(positive=True).fit(X, Y)
    ours = nnls(X, Y, intercept=True).raise_for_status()
    np.testing.assert_allclose(ours.x.weights, theirs.coef_, atol=1e-7)
    assert ours.x.intercept == pytest.approx(theirs.intercept_, abs=1e-7)


def test_prices_of_a_portfolio_are_what_it_costs():
    fit = markowitz(S, MEAN, target=0.09, tol=1e-11).raise_for_status()
    w = np.asarray(fit.x)
    assert w.sum() == pytest.approx(1, abs=1e-10)
    assert MEAN @ w == pytest.approx(0.09, abs=1e-9)
    price = float(fit.multipliers.ineq[0])
    ends = [markowitz(S, MEAN, target=0.09 + h, tol=1e-11).value for h in (1e-5, -1e-5)]
    assert price == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-4)
    slope = jax.grad(lambda t: markowitz(S, MEAN, target=t).value)(jnp.asarray(0.09))
    assert slope == pytest.approx(price, rel=1e-6)
    same = markowitz(S, MEAN, aversion=1 / price, tol=1e-11).raise_for_status()
    np.testing.assert_allclose(same.x, w, atol=1e-7)
    assert markowitz(S, MEAN, target=0.2).status == Status.PRIMAL_INFEASIBLE


def test_isotonic_regression():
    sklearn = pytest.importorskip("sklearn.isotonic")
    s = RNG.uniform(0.5, 2.0, 30)
    for increasing in (True, False):
        fit = isotonic(SEQUENCE, sample_weight=s, increasing=increasing).raise_for_status()
        theirs = sklearn.isotonic_regression(SEQUENCE, sample_weight=s, increasing=increasing)
        np.testing.assert_allclose(fit.x, theirs, atol=1e-12)
        price, x = np.asarray(fit.state.price), np.asarray(fit.x)
        assert np.all(price >= -1e-15)
        assert np.all((price < 1e-14) | (np.diff(x) == 0))
        # Stationarity: s (x - y) / sum s + prices of the order, in and out.
        flow = np.diff(np.concatenate([[0], price, [0]])) * (-1 if increasing else 1)
        np.testing.assert_allclose(s * (x - SEQUENCE) / s.sum(), flow, atol=1e-14)
    batch = jax.vmap(lambda y: isotonic(y).x)(jnp.asarray(RNG.standard_normal((4, 30))))
    assert np.all(np.diff(batch, axis=1) >= 0)
    args = (jnp.asarray(SEQUENCE), jnp.asarray(s))
    agrees(lambda y, s: jnp.sum(jnp.sin(isotonic(y, sample_weight=s).x)), args)


def test_entropic_transport():
    fit = optimal_transport(COST, ROWS, COLUMNS, 0.05, tol=1e-13).raise_for_status()
    P = np.asarray(fit.x)
    np.testing.assert_allclose(P.sum(1), ROWS, atol=1e-13)
    np.testing.assert_allclose(P.sum(0), COLUMNS, atol=1e-13)
    f, g = (-np.asarray(part) for part in fit.multipliers.eq)
    np.testing.assert_allclose(P, np.exp((f[:, None] + g - COST) / 0.05), rtol=1e-10)
    value = np.sum(COST * P) + 0.05 * np.sum(P * (np.log(P) - 1))
    assert fit.value == pytest.approx(value, rel=1e-10)
    assert abs(fit.state.gap) < 1e-12
    step = np.zeros(6)
    step[[0, 1]] = 1e-5, -1e-5
    ends = [
        optimal_transport(COST, ROWS + t * step, COLUMNS, 0.05, tol=1e-13).value for t in (1, -1)
    ]
    assert f[0] - f[1] == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-6)
    # Towards the linear program: the bound is epsilon log(mn).
    optimize = pytest.importorskip("scipy.optimize")
    A = np.concatenate([np.kron(np.eye(6), np.ones(8)), np.kron(np.ones(6), np.eye(8))])
    exact = optimize.linprog(COST.ravel(), A_eq=A, b_eq=np.concatenate([ROWS, COLUMNS])).fun
    sharp = optimal_transport(COST, ROWS, COLUMNS, 1e-3, tol=1e-6, max_steps=100_000)
    assert 0 <= np.sum(COST * np.asarray(sharp.x)) - exact + 1e-6 < 1e-3 * np.log(48)

    def scalar(C, shift, e):
        rows = jnp.asarray(ROWS) + shift - jnp.mean(shift)
        found = optimal_transport(C, rows, jnp.asarray(COLUMNS), e, tol=1e-13)
        return jnp.sum(jnp.sin(3 * found.x)) + found.value

    args = (jnp.asarray(COST), jnp.zeros(6), jnp.asarray(0.1))
    gradient = jax.jit(jax.grad(scalar, (0, 1, 2)))(*args)
    for i, width in enumerate((1.0, 0.01, 0.1)):
        step = width * jnp.asarray(RNG.standard_normal(args[i].shape))
        ends = [scalar(*args[:i], args[i] + h * step, *args[i + 1 :]) for h in (1e-5, -1e-5)]
        numeric = float(ends[0] - ends[1]) / 2e-5
        assert jnp.sum(gradient[i] * step) == pytest.approx(numeric, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nnls(X, Y[:-1]), r"y has shape \(39,\)"),
        (lambda: markowitz(S, MEAN[:-1]), r"must have shape \(4, 4\) for 4 assets"),
        (lambda: markowitz(S, MEAN, target=0.1, aversion=1.0), "not both: one fixes the other"),
        (lambda: markowitz(S, MEAN, aversion=0.0), "`aversion` must be a number > 0"),
        (lambda: isotonic(np.array([1.0, np.nan])), "`y` must be finite"),
        (lambda: optimal_transport(COST, ROWS, COLUMNS, 0.0), "`epsilon` must be a number > 0"),
        (lambda: optimal_transport(COST, ROWS, 2 * COLUMNS, 0.1), "sum to 1 and 2"),
        (lambda: optimal_transport(COST, -ROWS, COLUMNS, 0.1), "`rows` must be > 0 everywhere"),
        (lambda: optimal_transport(COST, COLUMNS, ROWS, 0.1), r"\(6,\) and \(8,\)"),
    ],
)
def test_bad_input_says_what_came_and_what_to_do(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()

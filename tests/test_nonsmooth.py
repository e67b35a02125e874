"""Smooth plus non-smooth: answers, rates, certificates, derivatives, batches, what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso

import jaxopt_lite as jol
from jaxopt_lite.core import Status
from jaxopt_lite.implicit import Implicit

SOLVERS = {
    "ISTA": jol.ISTA(),
    "FISTA": jol.FISTA(),
    "ProximalLBFGS": jol.ProximalLBFGS(),
    "ProximalNewton": jol.ProximalNewton(),
    "ProximalNewton-cg": jol.ProximalNewton("cg"),
}
every = pytest.mark.parametrize("name", SOLVERS)
X, Y = load_diabetes(return_X_y=True)
X, Y = X / X.std(axis=0), Y - Y.mean()
N, P = X.shape


def half_mean_square(w, design, target, *rest):
    return 0.5 * jnp.mean((design @ w - target) ** 2)


LASSO = jol.Problem(half_mean_square, nonsmooth=lambda design, target, weight: jol.prox.L1(weight))


def lasso(weight, solver, design=X, target=Y, **options):
    return jol.solve(
        LASSO, jnp.zeros(P, design.dtype), (design, target, weight), solver=solver, **options
    )


def total(w, weight):
    return 0.5 * np.mean((X @ w - Y) ** 2) + np.sum(np.abs(weight * np.asarray(w)))


@functools.cache
def reference(weight):
    fit = Lasso(alpha=weight, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(X, Y)
    return fit.coef_


# -- the answer ------------------------------------------------------------------------------------


@every
def test_lasso_equals_scikit_learn_and_says_so_itself(name):
    sol = lasso(5.0, SOLVERS[name], tol=1e-9)
    assert sol.status == Status.CONVERGED
    # The least curvature is 0.0086 on all, 0.4 on the support: errors are below 1e-9 / 0.4.
    np.testing.assert_allclose(sol.x, reference(5.0), atol=1e-8)
    np.testing.assert_array_equal(sol.x == 0, reference(5.0) == 0)
    np.testing.assert_allclose(sol.value, total(sol.x, 5.0), rtol=1e-13)
    gradient = X.T @ (X @ sol.x - Y) / N
    distance = np.where(
        sol.x != 0, np.abs(gradient + 5 * np.sign(sol.x)), np.maximum(np.abs(gradient) - 5, 0)
    )
    assert distance.max() <= 1e-9 + 1e-12  # measured is an upper bound of it, but for rounding


@every
def test_a_weight_above_the_largest_gradient_gives_zero(name):
    largest = np.abs(X.T @ Y / N).max()
    sol = lasso(1.0001 * largest, SOLVERS[name])
    assert sol.status == Status.CONVERGED
    assert np.all(sol.x == 0)


@every
def test_an_indicator_keeps_every_iterate_inside(name):
    c = jnp.linspace(-2.0, 3.0, 12)
    problem = jol.Problem(lambda x: jnp.sum((x - c) ** 4), nonsmooth=jol.prox.Box(-0.5, 1.0))
    sol = jol.solve(problem, 5 * jnp.ones(12), solver=SOLVERS[name], max_steps=1000, history="x")
    assert sol.status == Status.CONVERGED
    seen = np.asarray(sol.history.x)[: int(sol.steps)]
    assert np.all((seen >= -0.5) & (seen <= 1.0))
    np.testing.assert_allclose(sol.x, jnp.clip(c, -0.5, 1.0), atol=2e-3)  # f is of order 4 there


def test_defaults():
    assert "ProximalNewton" in repr(jol.solvers.choose(LASSO, 200))
    assert "ProximalLBFGS" in repr(jol.solvers.choose(LASSO, 201))
    sol = jol.minimize(half_mean_square, jnp.zeros(P), (X, Y), nonsmooth=jol.prox.L1(5.0))
    np.testing.assert_allclose(sol.x, reference(5.0), atol=1e-6)
    assert int(sol.steps) < 30


# -- rates against theory --------------------------------------------------------------------------


@functools.cache
def chain():
    """Nesterov's worst function, 1/2 x'Ax - x_1: the bounds are attained in order; f* is known."""
    n = 400
    a = jnp.diag(jnp.full(n, 2.0)) - jnp.eye(n, k=1) - jnp.eye(n, k=-1)
    fun = lambda x: 0.125 * (x @ (a @ x)) - 0.25 * x[0]  # L <= 1
    best = jnp.linalg.solve(a, jnp.zeros(n).at[0].set(1.0))
    return fun, best


def slope(values, start, end):
    k = np.arange(1, len(values) + 1)
    return np.polyfit(np.log(k[start:end]), np.log(values[start:end]), 1)[0]


def test_ista_and_fista_keep_their_bounds_and_their_orders():
    fun, best = chain()
    lowest, far = float(fun(best)), float(best @ best)
    problem = jol.Problem(fun, nonsmooth=jol.prox.Zero())
    run = lambda solver, steps: np.asarray(
        jol.solve(
            problem, jnp.zeros(400), solver=solver, max_steps=steps, history=True, tol=0.0
        ).history.value
    )
    plain = run(jol.ISTA(1.0), 151)[1:] - lowest
    k = np.arange(1, 151)
    assert np.all(plain <= far / (2 * k))
    # Two evaluations an iteration: every other value is new.
    fast = run(jol.FISTA(1.0, restart=False), 301)[1::2] - lowest
    k = np.arange(1, fast.size + 1)
    assert np.all(fast <= 2 * far / (k + 1) ** 2)
    # On this function neither is much faster than its bound before the wave has crossed it.
    assert -0.7 < slope(plain, 10, 150) < -0.3  # k^-1/2: this start is no worst one for ISTA
    assert slope(fast, 10, 140) < 1.8 * slope(plain, 10, 150)


def test_strong_convexity_is_linear_with_mu_and_with_restarts():
    rng = np.random.default_rng(0)
    curvatures = np.logspace(-3, 0, 60)
    c = jnp.asarray(rng.normal(size=60))
    problem = jol.Problem(lambda x: 0.5 * jnp.sum(curvatures * (x - c) ** 2),
                          nonsmooth=jol.prox.L1(1e-4))  # fmt: skip
    shift = 1e-4 / curvatures
    best = np.sign(c) * np.maximum(np.abs(c) - shift, 0)
    value = lambda x: float(0.5 * np.sum(curvatures * (x - c) ** 2) + 1e-4 * np.sum(np.abs(x)))
    rate = 1 - np.sqrt(1e-3)
    for solver in (jol.FISTA(1.0, 1e-3), jol.FISTA(1.0), jol.FISTA()):
        sol = jol.solve(problem, jnp.zeros(60), solver=solver, max_steps=5000, tol=1e-9)
        assert sol.status == Status.CONVERGED
        np.testing.assert_allclose(sol.x, best, atol=2e-6)
        # From a gap of about 10 to 1e-18 at the rate of theory, two evaluations an iteration.
        assert int(sol.steps) <= 2 * np.log(1e-18 / (value(np.zeros(60)) - value(best))) / np.log(
            rate
        )


def test_a_step_above_two_over_l_diverges_and_says_so():
    curvature = float(np.linalg.eigvalsh(X.T @ X / N)[-1])
    # So little weight that all ten features stay: the support has the largest curvature too.
    sol = lasso(1e-3, jol.ISTA(2.1 / curvature), max_steps=20_000)
    assert sol.status == Status.DIVERGED
    sol = lasso(1e-3, jol.ISTA(1.9 / curvature), max_steps=20_000, tol=1e-6)
    assert sol.status == Status.CONVERGED


# -- certificates ----------------------------------------------------------------------------------


def test_certificate_of_a_lasso():
    sol = lasso(5.0, None, tol=1e-9)
    certificate = jol.certify(LASSO, sol, (X, Y, 5.0), floor=0.0)
    report = certificate.nonsmooth
    assert bool(certificate.certified)
    gradient = X.T @ (X @ sol.x - Y) / N
    zero = sol.x == 0
    np.testing.assert_array_equal(report.at_kink, zero)
    np.testing.assert_allclose(report.slack[zero], 5 - np.abs(gradient[zero]), rtol=1e-12)
    assert np.all(np.isnan(report.slack[~zero]))
    assert int(report.weak) == 0
    support = np.flatnonzero(~zero)
    inside = np.linalg.eigvalsh((X.T @ X / N)[np.ix_(support, support)])
    np.testing.assert_allclose(report.eigenvalues[: support.size], inside, rtol=1e-10)
    assert int(report.dimension) == int(report.positive) == support.size
    # The gap bounds what is left, and is no looser than a dual point near this one makes it.
    assert 0 <= float(report.gap) <= 2e-6  # 1e-9 of the value
    near = jol.certify(LASSO, sol.x + 1e-3, (X, Y, 5.0), floor=0.0)
    assert int(near.verdict) == 0
    assert total(sol.x + 1e-3, 5.0) - total(sol.x, 5.0) <= float(near.nonsmooth.gap) <= 10
    text = str(certificate)
    assert text.startswith("CERTIFIED")
    assert "5 of 10 entries, slack 0.3317" in text


def test_certificates_of_known_verdicts():
    ask = lambda fun, x, term: jol.certify(jol.Problem(fun, nonsmooth=term), jnp.asarray(x))
    l1 = jol.prox.L1(1.0)
    assert bool(ask(lambda x: jnp.sum((x - 2) ** 2) / 2, [1.0], l1).certified)  # soft threshold
    # Concave along the support: 0 is a subgradient, and F falls on both sides.
    saddle = ask(lambda x: -jnp.sum((x - 2) ** 2) / 2, [3.0], l1)
    assert saddle.verdict == 3
    # |x| holds what -x^2 pushes away from 0: a strict minimum without curvature.
    held = ask(lambda x: -jnp.sum(x * x), [0.0], l1)
    assert bool(held.certified)
    assert int(held.nonsmooth.dimension) == 0
    # Gradient at the end of the interval: weak, one-sided, and still a minimum by convexity of f.
    weak = ask(lambda x: jnp.sum((x - 1) ** 2) / 2, [0.0], l1)
    assert int(weak.nonsmooth.weak) == 1
    assert bool(weak.certified)
    assert "one-sided" in str(weak)
    assert ask(lambda x: -jnp.sum(x * x) + jnp.sum(x), [0.0], l1).verdict == 3  # weak and concave
    assert ask(lambda x: jnp.sum(x), [0.5], jol.prox.Box(0.0, 1.0)).verdict == 0
    assert ask(lambda x: jnp.sum(x), [-0.5], jol.prox.Box(0.0, 1.0)).verdict == 6
    # Two equal columns: the answer is not unique, and that is no strict minimum.
    twins = ask(lambda x: (jnp.sum(x) - 2) ** 2 / 2, [0.5, 0.5], l1)
    assert twins.verdict == 4
    assert "convex" in str(twins)


def test_the_gap_is_never_below_the_error_and_for_squares_it_is_the_textbook_one():
    sol = lasso(5.0, jol.ISTA(), tol=1e-9, max_steps=100, history="x")
    iterates = sol.history.x[: int(sol.steps)]
    errors = np.array([total(x, 5.0) for x in iterates]) - total(sol.x, 5.0)
    residual = lambda w, design, target: (design @ w - target) / np.sqrt(N)
    squares = jol.Problem(
        jol.Composite(residual, lambda z, *_: 0.5 * jnp.sum(z * z), separable=True),
        nonsmooth=jol.prox.L1(5.0),
    )
    ask = lambda problem, args, floor: jax.vmap(
        lambda x: jol.certify(problem, x, args, floor=floor).nonsmooth.gap
    )(iterates)
    plain, exact = ask(LASSO, (X, Y, 5.0), 0.0), ask(squares, (X, Y), None)
    rounding = 1e-12 * total(sol.x, 5.0)
    assert np.all(exact >= errors - rounding)
    assert np.all(plain >= exact - rounding)

    def textbook(x):
        dual = Y - X @ x
        dual = dual * min(1, 5 / np.abs(X.T @ dual / N).max())
        return total(x, 5.0) - (Y @ dual - 0.5 * dual @ dual) / N

    expected = np.array([textbook(np.asarray(x)) for x in iterates])
    assert np.all(exact <= 1.1 * expected + 1e-9 * total(sol.x, 5.0))


def test_a_breakpoint_is_flagged_from_both_sides():
    fun = lambda x: 0.5 * jnp.sum((x - 2) ** 2)
    problem = jol.Problem(fun, nonsmooth=jol.prox.L1(2.0))
    for x in (0.0, 4e-15, 1e-12):
        assert int(jol.certify(problem, jnp.array([x])).nonsmooth.weak) == 1
    away = jol.Problem(fun, nonsmooth=jol.prox.L1(1.9))
    assert int(jol.certify(away, jnp.array([0.1])).nonsmooth.weak) == 0


def test_certificates_in_a_batch():
    weights = jnp.linspace(1.0, 60.0, 40)  # the largest leaves nothing

    def run(weight):
        sol = lasso(weight, jol.ProximalNewton(), tol=1e-9)
        return jol.certify(LASSO, sol, (X, Y, weight), floor=0.0)

    certificates = jax.jit(jax.vmap(run))(weights)
    assert np.all(certificates.certified)
    sizes = [np.sum(reference(float(w)) != 0) for w in weights[::13]]
    assert certificates.nonsmooth.dimension[::13].tolist() == sizes
    assert "40 certified" in str(certificates)


# -- derivatives -----------------------------------------------------------------------------------

HOWS = {"dense": "implicit", "cg": Implicit("cg"), "gmres": Implicit("gmres")}


@pytest.mark.parametrize("how", HOWS)
def test_derivatives_are_differences_of_solves(how):
    scores = jnp.linspace(-1.0, 1.0, P)

    def score(weights, design, target):
        sol = lasso(weights, jol.ProximalNewton(), design, target, tol=1e-12,
                    differentiate=HOWS[how])  # fmt: skip
        return jnp.sum(jnp.sin(scores + 0.1 * sol.x))

    weights = jnp.linspace(4.0, 6.0, P)
    gradients = jax.grad(score, (0, 1, 2))(weights, X, Y)
    rng = np.random.default_rng(0)
    directions = [rng.normal(size=np.shape(a)) for a in (weights, X, Y)]
    run = jax.jit(score)
    for i, (gradient, direction) in enumerate(zip(gradients, directions, strict=True)):
        h = 1e-5
        at = lambda s, i=i, d=direction: run(
            *(a + s * d if j == i else a for j, a in enumerate((weights, X, Y)))
        )
        difference = (at(h) - at(-h)) / (2 * h)
        np.testing.assert_allclose(jnp.vdot(gradient, direction), difference, rtol=1e-6)
    zero = np.asarray(lasso(weights, jol.ProximalNewton(), tol=1e-12).x) == 0
    assert 2 <= zero.sum() <= 8
    np.testing.assert_array_equal(gradients[0][zero], 0)  # off the support weights have no effect


def test_second_derivatives_and_the_value():
    value = lambda weight: lasso(weight, jol.ProximalNewton(), tol=1e-12).value
    x = lambda weight: lasso(weight, jol.ProximalNewton(), tol=1e-12).x
    # The envelope theorem: d value / d weight = ||x||_1, and once more its derivative.
    np.testing.assert_allclose(jax.grad(value)(5.0), jnp.sum(jnp.abs(x(5.0))), rtol=1e-10)
    slope = jnp.sum(jnp.sign(x(5.0)) * jax.jacfwd(x)(5.0))
    np.testing.assert_allclose(jax.grad(jax.grad(value))(5.0), slope, rtol=1e-9)
    unrolled = lambda weight: (
        lasso(weight, jol.FISTA(), tol=1e-11, max_steps=150, differentiate="unrolled").x
    )
    np.testing.assert_allclose(jax.jacfwd(unrolled)(5.0), jax.jacfwd(x)(5.0), atol=1e-7)


def test_weights_that_the_term_closes_over():
    def norm(weight):
        term = jol.prox.L1(weight * jnp.ones(P))
        return jnp.sum(jol.minimize(half_mean_square, jnp.zeros(P), (X, Y), nonsmooth=term).x)

    inside = lambda weight: jnp.sum(lasso(weight, None).x)
    np.testing.assert_allclose(jax.grad(norm)(5.0), jax.grad(inside)(5.0), rtol=1e-7)
    many = jnp.array([2.0, 5.0, 9.0])
    np.testing.assert_allclose(jax.vmap(norm)(many), jax.vmap(inside)(many), rtol=1e-9)


def test_the_derivative_of_a_large_lasso_costs_products_on_the_support():
    """A gradient by conjugate gradients: no more products than the support has entries, and few."""
    rng = np.random.default_rng(1)
    n, p, k = 80, 900, 12
    design = jnp.asarray(rng.normal(size=(n, p)))
    target = design[:, :k] @ jnp.ones(k) + 0.01 * rng.normal(size=n)
    problem = jol.Problem(half_mean_square, nonsmooth=lambda d, t, weight: jol.prox.L1(weight))
    solve = lambda weight: jol.solve(problem, jnp.zeros(p), (design, target, weight), tol=1e-10)
    sol = solve(0.3)
    support = np.flatnonzero(sol.x)
    assert support.size < 40
    slopes = jax.jacfwd(lambda weight: solve(weight).x)(0.3)
    block = design[:, support]
    inverse = np.linalg.solve(block.T @ block / n, -np.sign(sol.x[support]))
    np.testing.assert_allclose(slopes[support], inverse, rtol=1e-6)
    assert np.all(np.delete(slopes, support) == 0)


# -- batches, pytrees, precision -------------------------------------------------------------------


@every
def test_two_thousand_lanes_are_themselves(name):
    rng = np.random.default_rng(2)
    targets = jnp.asarray(rng.normal(size=(2000, 6)) * 10 ** rng.uniform(-1, 1, (2000, 1)))
    weights = jnp.asarray(10 ** rng.uniform(-2, 1, 2000)).at[7].set(jnp.nan)
    bend = jnp.asarray(rng.normal(size=(6, 6)))
    bend = bend @ bend.T + 0.1 * jnp.eye(6)
    fun = lambda x, target, weight: 0.5 * (x @ (bend @ x)) - target @ x
    problem = jol.Problem(fun, nonsmooth=lambda target, weight: jol.prox.L1(weight))
    run = lambda data: jol.solve(problem, jnp.zeros(6), data, solver=SOLVERS[name], tol=1e-7)
    batch = jax.jit(jax.vmap(run))((targets, weights))
    some = jnp.arange(0, 2000, 40).at[0].set(7)
    alone = jax.jit(lambda data: lax.map(run, data))((targets[some], weights[some]))
    good = np.arange(2000) != 7
    assert np.all(np.asarray(batch.status)[good] == Status.CONVERGED)
    assert batch.status[7] != Status.CONVERGED
    np.testing.assert_allclose(batch.x[some[1:]], alone.x[1:], atol=1e-6)
    gradient = batch.x @ bend - targets
    distance = jnp.where(
        batch.x != 0,
        jnp.abs(gradient + weights[:, None] * jnp.sign(batch.x)),
        jnp.maximum(jnp.abs(gradient) - weights[:, None], 0),
    )
    assert np.max(np.asarray(distance)[good]) <= 1.01e-7
    assert len(set(np.asarray(batch.steps).tolist())) > 5


def test_pytrees_and_float32():
    x0 = {"a": jnp.zeros(3, jnp.float32), "b": jnp.zeros((2, 2), jnp.float32)}
    weights = {"a": jnp.full(3, 1.0, jnp.float32), "b": jnp.full((2, 2), 0.5, jnp.float32)}
    fun = lambda x: jnp.sum((x["a"] - 2.0) ** 2) / 2 + jnp.sum((x["b"] + 1.0) ** 2) / 2
    for solver in SOLVERS.values():
        sol = jol.minimize(fun, x0, nonsmooth=jol.prox.L1(weights), solver=solver)
        assert sol.status == Status.CONVERGED
        assert sol.x["a"].dtype == jnp.float32
        np.testing.assert_allclose(sol.x["a"], 1.0, atol=1e-3)
        np.testing.assert_allclose(sol.x["b"], -0.5, atol=1e-3)
    certificate = jol.certify(jol.Problem(fun, nonsmooth=jol.prox.L1(weights)), sol)
    assert bool(certificate.certified)
    assert certificate.nonsmooth.slack["b"].shape == (2, 2)


def test_new_weights_compile_nothing(compilations):
    fit = lambda weight: (
        jol.minimize(half_mean_square, jnp.zeros(P), (X, Y), nonsmooth=jol.prox.L1(weight)).x
    )
    fit(5.0)
    with compilations() as count:
        fit(4.0)
    assert count.programs == 0


# -- what is refused -------------------------------------------------------------------------------


def test_bad_input():
    fun = lambda x: jnp.sum(x * x)
    with pytest.raises(ValueError, match=r"weight.*-1.0"):
        jol.prox.L1(-1.0)
    with pytest.raises(TypeError, match=r"jol\.prox\.Custom"):
        jol.Problem(fun, nonsmooth=3.0)
    with pytest.raises(TypeError, match=r"L1\(0.1\)"):
        jol.Problem(fun, nonsmooth=jol.prox.L1)  # forgot the brackets
    with pytest.raises(TypeError, match="returned a float"):
        jol.minimize(fun, jnp.ones(2), nonsmooth=lambda: 3.0)
    with pytest.raises(ValueError, match=r"weight.*shape"):
        jol.minimize(fun, jnp.ones(2), nonsmooth=jol.prox.L1(jnp.ones(3)))
    with pytest.raises(TypeError, match="FISTA takes no bounds"):
        jol.minimize(fun, jnp.ones(2), bounds=(0.0, 1.0), solver=jol.FISTA())
    with pytest.raises(TypeError, match=r"takes no nonsmooth.*ISTA.*ProximalNewton"):
        jol.minimize(fun, jnp.ones(2), nonsmooth=jol.prox.L1(), solver=jol.LBFGS())
    with pytest.raises(ValueError, match="step_size"):
        jol.ISTA(-1.0)
    halved = jol.prox.Custom(lambda x: jnp.sum(jnp.abs(x)), lambda x, step: x[:1])
    with pytest.raises(ValueError, match="prox"):
        jol.minimize(fun, jnp.ones(2), nonsmooth=halved)
    with pytest.raises(ValueError, match="subproblem"):
        jol.ProximalNewton("lu")
    with pytest.raises(ValueError, match="not finite at `x0`"):
        jol.minimize(lambda x: jnp.sum(jnp.log(x)), -jnp.ones(2), nonsmooth=jol.prox.L1())
    # A weight that is only known at run time, and negative: never converged.
    sol = jax.jit(lambda w: jol.minimize(fun, jnp.ones(2), nonsmooth=jol.prox.L1(w)))(-1.0)
    assert sol.status == Status.NONFINITE


def test_a_function_that_is_nan_beyond_a_wall_ends_at_a_finite_point():
    fun = lambda x: jnp.sum(x - 2 * jnp.sqrt(1 - x))  # unbounded slope at 1, NaN beyond
    for solver in SOLVERS.values():
        sol = jol.minimize(fun, 0.9 * jnp.ones(2), nonsmooth=jol.prox.L1(0.1), solver=solver,
                           max_steps=500)  # fmt: skip
        assert np.all(np.isfinite(sol.x))
        assert np.isfinite(sol.value)


# -- splitting methods -----------------------------------------------------------------------------

SPLITTING = {
    "CondatVu": jol.CondatVu(),
    "ADMM": jol.ADMM(),
    "DouglasRachford": jol.DouglasRachford(),
}
DIFFERENCES = jnp.asarray(np.diff(np.eye(P), axis=0))
CHAIN = jol.Problem(half_mean_square, nonsmooth=lambda d, t, w: jol.prox.TotalVariation(w))
FUSED = jol.Problem(
    half_mean_square,
    nonsmooth=lambda d, t, w: jol.prox.L1(w) + jol.prox.Composed(jol.prox.L1(w), DIFFERENCES),
)
WEIGHED = jol.Problem(
    half_mean_square, nonsmooth=lambda d, t, w: jol.prox.L1(w) + jol.prox.Simplex(50.0)
)


@pytest.mark.parametrize("name", ["CondatVu", "ADMM"])
def test_a_linear_map_inside_a_norm(name):
    composed = jol.Problem(
        half_mean_square, nonsmooth=lambda d, t, w: jol.prox.Composed(jol.prox.L1(w), DIFFERENCES)
    )
    run = lambda problem, weight, solver, tol: jol.solve(
        problem, jnp.zeros(P), (X, Y, weight), solver=solver, tol=tol
    )
    exact = run(CHAIN, 5.0, jol.ProximalNewton(), 1e-11)
    sol = run(composed, 5.0, SPLITTING[name], 1e-8)
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, exact.x, atol=1e-6)
    np.testing.assert_allclose(sol.value, exact.value, rtol=1e-9)
    # y is a subgradient of 5 |.|_1 at the differences, and balances the gradient.
    y, jumps = np.asarray(sol.multipliers.eq), DIFFERENCES @ exact.x
    assert np.max(np.abs(y)) <= 5 + 1e-9
    np.testing.assert_allclose(y[np.abs(jumps) > 1e-6], 5 * np.sign(jumps[np.abs(jumps) > 1e-6]))
    gradient = X.T @ (X @ sol.x - Y) / N
    np.testing.assert_allclose(gradient + DIFFERENCES.T @ y, 0, atol=1e-7)
    slopes = [
        jax.jacfwd(lambda w, p=p, s=s: run(p, w, s, 1e-8).x)(5.0)
        for p, s in ((composed, SPLITTING[name]), (CHAIN, jol.ProximalNewton()))
    ]
    np.testing.assert_allclose(*slopes, atol=1e-7)


def test_two_terms_at_once_against_the_program_that_they_are():
    """l1 + total variation, and l1 on a simplex, as quadratic programs."""
    solutions = [
        jol.solve(FUSED, jnp.zeros(P), (X, Y, 5.0), solver=SPLITTING[name], tol=1e-8)
        for name in ("CondatVu", "ADMM")
    ]
    rows = np.vstack([np.eye(P), DIFFERENCES])
    m = len(rows)
    program = jol.solve_qp(
        P=np.block([[X.T @ X / N, np.zeros((P, m))], [np.zeros((m, P + m))]]),
        q=np.concatenate([-X.T @ Y / N, np.full(m, 5.0)]),
        G=np.block([[rows, -np.eye(m)], [-rows, -np.eye(m)]]),
        h=np.zeros(2 * m),
    )
    for sol in solutions:
        assert sol.status == Status.CONVERGED
        np.testing.assert_allclose(sol.x, program.x[:P], atol=1e-5)
        np.testing.assert_allclose(sol.value, program.value + 0.5 * np.mean(Y**2), rtol=1e-9)
    nearest = jol.solve_qp(
        P=X.T @ X / N, q=-X.T @ Y / N + 5.0, A=np.ones((1, P)), b=np.array([50.0]),
        lower=np.zeros(P),
    )  # fmt: skip
    for solver in SPLITTING.values():
        sol = jol.solve(WEIGHED, jnp.zeros(P), (X, Y, 5.0), solver=solver, tol=1e-8)
        assert sol.status == Status.CONVERGED
        np.testing.assert_allclose(sol.x, nearest.x, atol=1e-5)


def test_splitting_in_a_batch_and_in_float32():
    weights = jnp.asarray(np.linspace(1, 20, 200), jnp.float32).at[3].set(jnp.nan)
    data = jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32)
    for name, solver in SPLITTING.items():
        problem = WEIGHED if name == "DouglasRachford" else FUSED
        run = lambda w, p=problem, s=solver: jol.solve(
            p, jnp.zeros(P, jnp.float32), (*data, w), solver=s, tol=1e-2, max_steps=3000
        )
        sol = jax.jit(jax.vmap(run))(weights)
        good = np.arange(200) != 3
        assert np.all(np.asarray(sol.status)[good] == Status.CONVERGED)
        assert sol.status[3] == Status.NONFINITE
        assert sol.x.dtype == jnp.float32


def test_what_splitting_refuses():
    with pytest.raises(NotImplementedError, match="ADMM"):
        jol.solve(FUSED, jnp.zeros(P), (X, Y, 5.0), solver=jol.FISTA())
    with pytest.raises(TypeError, match="CondatVu and ADMM"):
        jol.solve(FUSED, jnp.zeros(P), (X, Y, 5.0), solver=jol.DouglasRachford())
    with pytest.raises(ValueError, match="rho"):
        jol.ADMM(0.0)
    sol = jol.minimize(lambda x: -jnp.sum(x), jnp.zeros(3), nonsmooth=jol.prox.NonNegative(),
                       solver=jol.CondatVu(), max_steps=2000)  # fmt: skip
    assert sol.status != Status.CONVERGED  # unbounded


# -- by coordinates, and by subgradients -----------------------------------------------------------

LABELS = (0, 0, 1, 1, 2, 2, 2, 3, 3, 3)
ORDERS = ("cyclic", "random", "greedy")
GROUPED = jol.Problem(
    half_mean_square, nonsmooth=lambda d, t, w: jol.prox.GroupLasso(np.array(LABELS), w)
)
SIGNS = jol.Problem(
    lambda w, d, t, weight: jnp.mean(jnp.logaddexp(0.0, -jnp.sign(t) * (d @ w))),
    nonsmooth=lambda d, t, weight: jol.prox.ElasticNet(weight, 0.1 * weight),
)


@pytest.mark.parametrize("order", ORDERS)
def test_coordinate_descent_finds_what_newton_finds(order):
    by_one, by_block = jol.CoordinateDescent(order), jol.BlockCoordinateDescent(LABELS, order)
    cases = [(LASSO, 5.0, by_one), (SIGNS, 0.02, by_one), (SIGNS, 0.02, by_block),
             (GROUPED, 5.0, by_block)]  # fmt: skip
    for problem, weight, solver in cases:
        run = lambda s, p=problem, w=weight: jol.solve(
            p, jnp.zeros(P), (X, Y, w), solver=s, tol=1e-9, max_steps=500
        )
        sol, exact = run(solver), run(jol.ProximalNewton())
        assert sol.status == Status.CONVERGED
        # The least curvature of the logistic loss on the support is above 0.02 here.
        np.testing.assert_allclose(sol.x, exact.x, atol=1e-7)
        np.testing.assert_array_equal(sol.x == 0, exact.x == 0)


def test_one_sweep_is_the_textbook_sweep_and_extrapolation_saves_some():
    sol = lasso(5.0, jol.CoordinateDescent(acceleration=0), max_steps=2)
    gram, w = X.T @ X / N, np.zeros(P)
    for i in range(P):  # the second step evaluates the end of the first sweep
        z = (X.T @ Y / N - gram @ w)[i] + gram[i, i] * w[i]
        w[i] = np.sign(z) * max(abs(z) - 5, 0) / gram[i, i]
    np.testing.assert_allclose(sol.x, w, rtol=1e-12)
    steps = [
        int(lasso(0.5, jol.CoordinateDescent(acceleration=k), tol=1e-9, max_steps=5000).steps)
        for k in (0, 5)
    ]
    assert steps[1] < 0.5 * steps[0]


def test_subgradient_method_keeps_its_bound_and_its_best():
    fun = lambda x: jnp.zeros(())
    term = jol.prox.L1(1.0)
    x0 = jnp.array([3.0, -1.0, 0.5])
    run = lambda solver, steps: jol.minimize(
        fun, x0, nonsmooth=term, solver=solver, max_steps=steps, history=True
    )
    sol = run(jol.Subgradient(float(jnp.linalg.norm(x0))), 400)
    values = np.asarray(sol.history.value)
    values = values[np.isfinite(values)]
    assert np.all(np.diff(values) <= 0)
    k = np.arange(1, values.size + 1)
    radius, lipschitz = float(jnp.linalg.norm(x0)), np.sqrt(3)
    assert np.all(values[1:] <= (radius * lipschitz * (1 + np.log(k)) / np.sqrt(k))[1:])
    sharp = run(jol.Subgradient(minimum=0.0), 60)
    assert float(sharp.value) <= 1e-3 * values[0]


def test_what_methods_by_coordinates_refuse():
    with pytest.raises(TypeError, match="BlockCoordinateDescent takes its groups"):
        jol.solve(GROUPED, jnp.zeros(P), (X, Y, 5.0), solver=jol.CoordinateDescent())
    with pytest.raises(TypeError, match=r"TotalVariation.*FISTA"):
        jol.solve(CHAIN, jnp.zeros(P), (X, Y, 5.0), solver=jol.BlockCoordinateDescent(LABELS))
    with pytest.raises(ValueError, match="9 labels"):
        jol.solve(GROUPED, jnp.zeros(P), (X, Y, 5.0), solver=jol.BlockCoordinateDescent(LABELS[1:]))
    with pytest.raises(ValueError, match="order"):
        jol.CoordinateDescent("best")
    with pytest.raises(ValueError, match="blocks"):
        jol.BlockCoordinateDescent()
    with pytest.raises(ValueError, match="step_size"):
        jol.Subgradient(0.0)

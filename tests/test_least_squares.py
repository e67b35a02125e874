"""Least squares beyond the contract: certified regressions, bounds, outliers, sizes, covariance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite.core import Status

from . import nist

T = jnp.linspace(0.0, 3.0, 25)
TRUE = {"a": jnp.array(2.5), "b": jnp.array(1.3)}
START = {"a": jnp.array(1.0), "b": jnp.array(0.5)}


def decay(p, t, y):
    return p["a"] * jnp.exp(-p["b"] * t) - y


def noisy(rng, size=0.05):
    return decay(TRUE, T, 0.0) + size * jnp.asarray(rng.standard_normal(T.size))


# -- certified values ------------------------------------------------------------------------------


@pytest.mark.parametrize("case", nist.SETS, ids=str)
def test_nist_sets_from_both_starts(case):
    """Six certified digits; a gradient that rounding holds above 1e-10 may end STALLED."""
    data = jnp.asarray(case.x), jnp.asarray(case.y)
    fit = jax.jit(
        jax.vmap(lambda b: jol.least_squares(case.residual, b, data, tol=1e-10, max_steps=5000))
    )
    sol = fit(jnp.asarray(case.starts))
    for lane in range(2):
        assert sol.status[lane] in (Status.CONVERGED, Status.STALLED)
        assert nist.digits(sol.x[lane], case.estimate) >= 6, sol.x[lane]
        np.testing.assert_allclose(2 * sol.value[lane], case.sum_of_squares, rtol=1e-9, atol=1e-20)


# Lanczos 1 fits to 1e-13: at an estimate of eleven digits its residuals are 170 times as large.
@pytest.mark.parametrize("case", [c for c in nist.SETS if c.name not in ("Lanczos1",)], ids=str)
def test_nist_standard_deviations(case):
    data = jnp.asarray(case.x), jnp.asarray(case.y)
    found = jol.covariance(case.residual, jnp.asarray(case.estimate), data)
    # The estimates are given to 11 digits, of which deviations keep about half.
    assert nist.digits(found.deviations, case.deviations) >= 5
    assert found.rank == case.estimate.size


# -- bounds ----------------------------------------------------------------------------------------

LINEAR = jnp.array([[2.0, 1.0], [1.0, 3.0], [0.5, -1.0]])


def linear(x, target):
    return LINEAR @ (x - target)


SOLVERS = [jol.LevenbergMarquardt(), jol.LevenbergMarquardt("weight"), jol.Dogleg()]


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_bounds_bind_and_have_prices(solver):
    """The minimiser on the face x0 = 1, by hand, and the multiplier that holds it there."""
    target = jnp.array([2.0, -1.0])

    def fit(upper):
        return jol.least_squares(
            linear, jnp.zeros(2), (target,), bounds=(None, jnp.array([upper, jnp.inf])),
            solver=solver, tol=1e-10,
        )  # fmt: skip

    sol = fit(1.0)
    square = LINEAR.T @ LINEAR
    x1 = target[1] - square[1, 0] * (1 - target[0]) / square[1, 1]
    np.testing.assert_allclose(sol.x, [1.0, x1], rtol=1e-9)
    assert sol.success
    force = -(square @ (sol.x - target))
    np.testing.assert_allclose(sol.multipliers.upper, [force[0], 0], atol=1e-9)
    # The price is what a unit of the bound is worth.
    slope = (fit(1.0 + 1e-4).value - fit(1.0 - 1e-4).value) / 2e-4
    np.testing.assert_allclose(-sol.multipliers.upper[0], slope, rtol=1e-6)


def test_derivative_with_a_bound_that_binds():
    def x(target):
        return jol.least_squares(
            linear, jnp.zeros(2), (target,), bounds=(None, jnp.array([1.0, jnp.inf])), tol=1e-12
        ).x

    target = jnp.array([2.0, -1.0])
    square = LINEAR.T @ LINEAR
    expected = jnp.array([[0, 0], [square[1, 0] / square[1, 1], 1]])
    np.testing.assert_allclose(jax.jacrev(x)(target), expected, atol=1e-9)
    np.testing.assert_allclose(jax.jacfwd(x)(target), expected, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_start_outside_of_the_bounds_and_infinite_bounds(solver):
    inside = jol.least_squares(
        linear, jnp.array([9.0, 9.0]), (jnp.zeros(2),), bounds=(-jnp.inf, 1.0), solver=solver
    )
    assert inside.success
    np.testing.assert_allclose(inside.x, 0, atol=1e-7)
    free = jol.least_squares(
        linear, jnp.ones(2), (jnp.ones(2) * 3,), bounds=(-jnp.inf, jnp.inf), solver=solver
    )
    np.testing.assert_allclose(free.x, 3, rtol=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_random_boxes_satisfy_kkt(seed):
    """500 bounded fits in one batch; the KKT conditions are checked outside."""
    rng = np.random.default_rng(seed)
    a = jnp.asarray(rng.standard_normal((500, 8, 5)))
    b = jnp.asarray(rng.standard_normal((500, 8)))
    lower, upper = jnp.asarray(-rng.uniform(0, 0.5, (2, 500, 5)) * np.array([[[1.0]], [[-1.0]]]))
    problem = jol.Problem(
        jol.Composite(lambda x, a, b, low, up: a @ x - b, _half_square, separable=True),
        bounds=lambda a, b, low, up: (low, up),
    )
    run = jax.jit(
        jax.vmap(lambda *data: jol.solve(problem, jnp.zeros(5), data, tol=1e-9, max_steps=500))
    )
    sol = run(a, b, lower, upper)
    assert np.all(sol.success)
    gradient = jnp.einsum("kij,ki->kj", a, jnp.einsum("kij,kj->ki", a, sol.x) - b)
    moved = jnp.clip(sol.x - gradient, lower, upper) - sol.x  # 0 exactly at a KKT point
    assert np.max(np.abs(moved)) <= 1e-8
    assert np.all((sol.x >= lower) & (sol.x <= upper))
    assert np.mean((sol.x == lower) | (sol.x == upper)) > 0.3  # bounds really bind


def _half_square(r, *args):
    return 0.5 * jnp.sum(r * r)


# -- outliers --------------------------------------------------------------------------------------


# Cauchy's loss is not convex, which NaturalGradient asks for.
ROBUST = [(solver, loss) for solver in SOLVERS for loss in ("huber", "soft_l1", "cauchy")]
ROBUST += [(jol.NaturalGradient("exact"), loss) for loss in ("huber", "soft_l1")]


@pytest.mark.parametrize(("solver", "loss"), ROBUST, ids=str)
def test_robust_losses_resist_outliers(loss, solver, rng):
    y = noisy(rng, 0.01).at[jnp.array([3, 11, 19])].add(jnp.array([4.0, -3.0, 5.0]))
    plain = jol.least_squares(decay, START, (T, y), solver=solver)
    robust = jol.least_squares(decay, START, (T, y), loss=loss, scale=0.05, solver=solver)
    assert robust.success
    off = lambda sol: max(abs(float(sol.x[k] - TRUE[k])) for k in TRUE)
    assert off(plain) > 0.2
    assert off(robust) < 0.05
    # Stationarity of the published formula, written out.
    r = decay(robust.x, T, y) / 0.05
    weight = {
        "huber": jnp.where(jnp.abs(r) <= 1, 1, 1 / jnp.abs(r)),
        "soft_l1": (1 + r * r) ** -0.5,
        "cauchy": 1 / (1 + r * r),
    }[loss]
    pull = jax.vjp(lambda p: decay(p, T, y), robust.x)[1](weight * 0.05 * r)[0]
    assert max(abs(float(v)) for v in pull.values()) <= 2e-8


def test_loss_values():
    r = jnp.array([0.0, 0.5, 3.0])
    value = lambda loss: float(
        jol.least_squares(lambda x: r + 0 * x, jnp.zeros(()), loss=loss, scale=2.0).value
    )
    z = np.asarray(r / 2) ** 2
    rho = {
        "linear": z,
        "huber": np.where(z <= 1, z, 2 * np.sqrt(z) - 1),
        "soft_l1": 2 * (np.sqrt(1 + z) - 1),
        "cauchy": np.log1p(z),
    }
    for loss, terms in rho.items():
        np.testing.assert_allclose(value(loss), 0.5 * 4 * np.sum(terms), rtol=1e-14)


# -- shapes and sizes ------------------------------------------------------------------------------


def test_fewer_residuals_than_unknowns():
    a = jnp.array([[1.0, 2.0, -1.0], [0.0, 1.0, 1.0]])
    sol = jol.least_squares(lambda x: a @ x - jnp.array([1.0, 2.0]), jnp.zeros(3))
    assert sol.success
    assert sol.value <= 1e-20


@pytest.mark.parametrize("solver", [*SOLVERS, jol.GaussNewton()], ids=repr)
def test_rank_deficient_jacobian(solver):
    """x0 and x1 enter as a sum only: the answer is a line, any point of which is right."""
    residual = lambda x: jnp.stack([x[0] + x[1] - 1, jnp.exp(x[0] + x[1]) - jnp.e, x[2] - 2])
    sol = jol.least_squares(residual, jnp.array([3.0, -1.0, 0.0]), solver=solver)
    assert sol.success
    np.testing.assert_allclose(residual(sol.x), 0, atol=1e-7)


@pytest.mark.parametrize("solver", [*SOLVERS, jol.NaturalGradient()], ids=repr)
def test_matrix_free_above_the_limit(solver, rng):
    n, m = 1200, 1500
    a = jnp.asarray(rng.standard_normal((m, n)) / np.sqrt(m))
    b = jnp.asarray(rng.standard_normal(m))
    residual = lambda x, a, b: jnp.concatenate([a @ x - b, 0.3 * x])
    run = jax.jit(lambda a, b: jol.least_squares(residual, jnp.zeros(n), (a, b), solver=solver))
    assert f"tensor<{m + n}x{n}x" not in run.lower(a, b).as_text()
    sol = run(a, b)
    assert sol.success
    exact = np.linalg.solve(a.T @ a + 0.09 * np.eye(n), a.T @ b)
    np.testing.assert_allclose(sol.x, exact, atol=1e-6)


def test_ten_thousand_small_fits(rng):
    lanes = 10_000
    a, b = jnp.asarray(rng.uniform(1, 4, lanes)), jnp.asarray(rng.uniform(0.3, 2.5, lanes))
    y = jax.vmap(lambda a, b: decay({"a": a, "b": b}, T, 0.0))(a, b)
    y = y + 1e-3 * jnp.asarray(rng.standard_normal(y.shape))
    solver = jol.LevenbergMarquardt("weight")
    fit = jax.jit(jax.vmap(lambda y: jol.least_squares(decay, START, (T, y), solver=solver)))
    sol = fit(y)
    assert np.all(sol.success)
    # Five standard deviations of the estimate, s (J'J)^-1/2, s = 1e-3: at most 0.02 here.
    np.testing.assert_allclose(sol.x["a"], a, atol=0.02)
    np.testing.assert_allclose(sol.x["b"], b, atol=0.02)
    assert sol.steps.min() < sol.steps.max()


def test_softmax_regression_by_the_natural_gradient(rng):
    """A composite whose outer function is no sum of squares; its GGN is the Fisher matrix."""
    x, labels = jnp.asarray(rng.standard_normal((60, 3))), jnp.asarray(rng.integers(0, 3, 60))
    cross = lambda z, *a: -jnp.mean(jax.nn.log_softmax(z)[jnp.arange(60), labels])
    objective = jol.Composite(lambda w, x: x @ w["W"] + w["b"], lambda z, x: cross(z))
    penalised = jol.Composite(
        lambda w, x: (x @ w["W"] + w["b"], w), lambda z, x: cross(z[0]) + 0.01 * _square(z[1])
    )
    w0 = {"W": jnp.zeros((3, 3)), "b": jnp.zeros(3)}
    assert callable(objective)
    natural = jol.solve(jol.Problem(penalised), w0, (x,), solver=jol.NaturalGradient(), tol=1e-10)
    newton = jol.solve(jol.Problem(penalised), w0, (x,), tol=1e-10)
    assert natural.success
    np.testing.assert_allclose(natural.x["W"], newton.x["W"], atol=1e-8)
    # Logits are linear in w: the generalised Gauss-Newton matrix is the Hessian.
    assert natural.steps == newton.steps


def _square(tree):
    return sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(tree))


# -- covariance ------------------------------------------------------------------------------------


def test_covariance_of_a_linear_fit_is_the_textbook_formula(rng):
    y = LINEAR @ jnp.array([1.0, 2.0]) + jnp.asarray(rng.standard_normal(3))
    residual = lambda x, y: LINEAR @ x - y
    sol = jol.least_squares(residual, jnp.zeros(2), (y,), tol=1e-12)
    found = jol.covariance(residual, sol, (y,))
    noise = float(jnp.sum(residual(sol.x, y) ** 2) / (3 - 2))
    np.testing.assert_allclose(found.variance, noise, rtol=1e-10)
    exact = noise * np.linalg.inv(LINEAR.T @ LINEAR)
    np.testing.assert_allclose(found.matrix, exact, rtol=1e-10)
    known = jol.covariance(residual, sol, (y,), variance=1.0)
    np.testing.assert_allclose(known.matrix, exact / noise, rtol=1e-10)


def test_covariance_says_what_the_data_leave_open():
    residual = lambda x: jnp.stack([x[0] + x[1], 2 * (x[0] + x[1]) - 1, x[2], 3 * x[2], x[2] - 1])
    found = jol.covariance(residual, jnp.zeros(4), variance=1.0)
    assert found.rank == 2
    np.testing.assert_array_equal(np.isinf(found.deviations), [True, True, False, True])
    np.testing.assert_allclose(found.deviations[2], 11**-0.5, rtol=1e-12)


def test_spread_of_many_fits_is_the_covariance(rng):
    y = decay(TRUE, T, 0.0) + 0.02 * jnp.asarray(rng.standard_normal((4000, T.size)))
    fit = jax.jit(jax.vmap(lambda y: jol.least_squares(decay, START, (T, y)).x))
    spread = jnp.std(jnp.stack(list(fit(y).values())), axis=1)
    told = jol.covariance(decay, TRUE, (T, decay(TRUE, T, 0.0)), variance=0.02**2)
    # A standard deviation from 4,000 draws is right to 1/sqrt(8000) = 1.1%; three of these.
    np.testing.assert_allclose(spread, jnp.stack(list(told.deviations.values())), rtol=0.035)


# -- bad input and failure -------------------------------------------------------------------------


def test_bad_input():
    with pytest.raises(TypeError, match=r"`residual` must return.*float64\[\].*not their sum of"):
        jol.least_squares(lambda x: jnp.sum(x * x), jnp.ones(2))
    with pytest.raises(TypeError, match="at least one entry"):
        jol.least_squares(lambda x: x[:0], jnp.ones(2))
    with pytest.raises(ValueError, match=r"`loss` must be one of linear, huber.*'tukey' came"):
        jol.least_squares(decay, START, (T, T), loss="tukey")
    with pytest.raises(ValueError, match="scale must be a number > 0"):
        jol.least_squares(decay, START, (T, T), loss="huber", scale=-1.0)
    with pytest.raises(TypeError, match="`least_squares` got unknown options xtol"):
        jol.least_squares(decay, START, (T, T), xtol=1e-3)
    with pytest.raises(
        ValueError, match=r"at least as many residuals as unknowns.*returns 1.*has 2"
    ):
        jol.least_squares(lambda x: x[:1], jnp.ones(2), solver=jol.GaussNewton())
    with pytest.raises(TypeError, match=r"LevenbergMarquardt solves problems of the kind.*Pose it"):
        jol.minimize(lambda x: jnp.sum(x * x), jnp.ones(2), solver=jol.LevenbergMarquardt())
    with pytest.raises(ValueError, match=r"damping=.*'nielsen' came"):
        jol.LevenbergMarquardt("nielsen")
    with pytest.raises(ValueError, match="`variance` cannot be estimated from 2 residuals of 2"):
        jol.covariance(lambda x: x, jnp.ones(2))
    with pytest.raises(ValueError, match=r"`bounds`.*lower.*upper"):
        jol.least_squares(lambda x: x, jnp.ones(2), bounds=(1.0, 0.0))


@pytest.mark.parametrize("solver", [*SOLVERS, jol.GaussNewton()], ids=repr)
def test_residual_that_turns_nan_ends_at_the_best_finite_point(solver):
    """Towards the answer at 3 lies a wall at 2, beyond which there is nothing."""
    residual = lambda x: jnp.where(x > 2, jnp.nan, jnp.exp(x) - jnp.exp(3.0))
    sol = jol.least_squares(residual, jnp.array([0.0]), solver=solver, max_steps=500)
    assert not sol.success
    assert np.all(np.isfinite(sol.x))
    assert sol.value < 0.5 * (np.exp(3) - 1) ** 2


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_flat_residuals_are_stationary_at_once(solver):
    sol = jol.least_squares(lambda x: 1.0 + 0 * x, jnp.ones(3), solver=solver)
    assert sol.status == Status.CONVERGED
    assert sol.steps == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float32(dtype, rng):
    y = noisy(rng).astype(dtype)
    start = jax.tree.map(lambda v: v.astype(dtype), START)
    sol = jol.least_squares(decay, start, (T.astype(dtype), y))
    assert sol.success
    assert sol.x["a"].dtype == dtype
    wide = jol.least_squares(decay, START, (T, y.astype(np.float64)), tol=1e-12)
    np.testing.assert_allclose(sol.x["b"], wide.x["b"], rtol=1e-3)

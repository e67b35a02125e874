"""Bounds on an objective: known answers, active sets, counts, batches, derivatives, failures."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from sklearn.datasets import load_diabetes

import jaxopt_lite as jol
from jaxopt_lite.core import Status

from .hock_schittkowski import banana

INF = np.inf
SOLVERS = {
    "LBFGSB": jol.LBFGSB(),
    "TRON": jol.TRON(),
    "TRON-cg": jol.TRON("cg"),
    "ProjectedGradient": jol.ProjectedGradient(),
}
SECOND_ORDER = ("TRON", "TRON-cg")
every = pytest.mark.parametrize("name", SOLVERS)


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def hs38(x):
    first = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
    second = 90 * (x[3] - x[2] ** 2) ** 2 + (1 - x[2]) ** 2
    both = 10.1 * ((x[1] - 1) ** 2 + (x[3] - 1) ** 2) + 19.8 * (x[1] - 1) * (x[3] - 1)
    return first + second + both


def hs110(x):
    return jnp.sum(jnp.log(x - 2) ** 2 + jnp.log(10 - x) ** 2) - jnp.prod(x) ** 0.2


# Objective, start, bounds, minima known: those of the book, and of HS2 the local one too.
KNOWN = {
    "HS1": (banana, (-2, 1), (-INF, -1.5), INF, (0.0,)),
    "HS2": (banana, (-2, 1), (-INF, 1.5), INF, (0.0504261879, 4.9412293)),
    "HS3": (lambda x: x[1] + 1e-5 * (x[1] - x[0]) ** 2, (10, 1), (-INF, 0), INF, (0.0,)),
    "HS4": (lambda x: (x[0] + 1) ** 3 / 3 + x[1], (1.125, 0.125), (1, 0), INF, (8 / 3,)),
    "HS5": (
        lambda x: jnp.sin(x[0] + x[1]) + (x[0] - x[1]) ** 2 - 1.5 * x[0] + 2.5 * x[1] + 1,
        (0, 0), (-1.5, -3), (4, 3), (-np.sqrt(3) / 2 - np.pi / 3,),
    ),
    "HS38": (hs38, (-3, -1, -3, -1), -10, 10, (0.0,)),
    "HS45": (lambda x: 2 - jnp.prod(x) / 120, (2,) * 5, 0, (1, 2, 3, 4, 5), (1.0,)),
    "HS110": (hs110, (9,) * 10, 2.001, 9.999, (-45.77846971,)),
}  # fmt: skip


def box(x0, lower, upper):
    spread = lambda side: jnp.asarray(np.broadcast_to(np.asarray(side, float), np.shape(x0)))
    return spread(lower), spread(upper)


@functools.cache
def posed(case):
    fun, x0, lower, upper, minima = KNOWN[case]
    x0 = jnp.asarray(x0, jnp.float64)
    return jol.Problem(fun, bounds=box(x0, lower, upper)), x0, minima


def check_kkt(fun, sol, lower, upper, tol=1.5e-8):
    """The conditions, computed here from the function and the multipliers of the solution."""
    x, gradient = np.asarray(sol.x), np.asarray(jax.grad(fun)(sol.x))
    low, high = np.asarray(sol.multipliers.lower), np.asarray(sol.multipliers.upper)
    assert np.all((lower <= x) & (x <= upper))
    assert np.all(low >= 0)
    assert np.all(high >= 0)
    assert np.all(low[x > lower] == 0)
    assert np.all(high[x < upper] == 0)
    # Another program rounds the gradient in another way.
    assert np.max(np.abs(gradient - low + high)) <= tol + 1e-12 * (1 + np.max(np.abs(gradient)))


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", KNOWN)
@every
def test_hock_schittkowski(name, case):
    problem, x0, minima = posed(case)
    sol = jol.solve(problem, x0, solver=SOLVERS[name])
    assert sol.status == Status.CONVERGED, sol
    lower, upper = problem.bounds()
    check_kkt(problem.objective, sol, lower, upper)
    # Published to nine digits; of the residual 1.5e-8 remains less in f.
    assert min(abs(float(sol.value) - m) for m in minima) <= 2e-8 * max(1, abs(sol.value))


@every
def test_rosenbrock_in_a_box_where_jaxopt_stops_at_an_error_of_0_61(name):
    lower, upper = box(np.zeros(10), -2.0, 0.8)
    sol = jol.solve(
        jol.Problem(rosenbrock, bounds=(lower, upper)), jnp.full(10, -1.2), solver=SOLVERS[name]
    )
    reference = scipy.optimize.minimize(
        lambda x: jax.tree.map(np.asarray, jax.value_and_grad(rosenbrock)(jnp.asarray(x))),
        np.full(10, -1.2), jac=True, method="L-BFGS-B", bounds=[(-2, 0.8)] * 10,
        options={"ftol": 0, "gtol": 1.5e-8, "maxiter": 500},
    )  # fmt: skip
    assert sol.status == Status.CONVERGED
    check_kkt(rosenbrock, sol, lower, upper)
    # Both stop at gradients of 1.5e-8 where the least curvature is about 1.
    np.testing.assert_allclose(sol.x, reference.x, atol=1e-6)
    np.testing.assert_array_equal(sol.x == upper, np.arange(10) == 0)
    most = {"LBFGSB": 1.3 * reference.nfev, "TRON": 25, "TRON-cg": 25, "ProjectedGradient": 400}
    assert int(sol.steps) <= most[name]


def test_non_negative_least_squares_of_the_diabetes_data():
    data = load_diabetes()
    features, target = data.data * np.sqrt(442), data.target - np.mean(data.target)
    expected, _ = scipy.optimize.nnls(features, target)
    assert 2 <= np.sum(expected == 0) <= 8
    problem = jol.Problem(lambda x, a, b: 0.5 * jnp.mean((a @ x - b) ** 2), bounds=(0.0, None))
    args = jnp.asarray(features), jnp.asarray(target)
    for solver in SOLVERS.values():
        sol = jol.solve(problem, jnp.ones(10), args, solver=solver)
        assert sol.status == Status.CONVERGED
        np.testing.assert_array_equal(sol.x == 0, expected == 0)
        # Gradients to 1.5e-8 over the least eigenvalue of the correlations, 0.008.
        np.testing.assert_allclose(sol.x, expected, atol=1e-5)
        assert sol.multipliers.upper is None
        slope = features.T @ (features @ expected - target) / 442
        np.testing.assert_allclose(
            sol.multipliers.lower, np.where(expected == 0, slope, 0), atol=1e-6
        )


def made_quadratic(n, condition, rng):
    """A quadratic built from its answer: a third of x on each side, prices in [1, 2]."""
    values = jnp.asarray(rng.permutation(np.geomspace(1, condition, n)))
    v = rng.normal(size=n)
    v = jnp.asarray(v / np.linalg.norm(v))
    side = rng.integers(-1, 2, n)
    x = jnp.asarray(np.where(side == 0, rng.uniform(-0.9, 0.9, n), side))
    price = jnp.asarray(rng.uniform(1, 2, n) * side)
    reflect = lambda y: y - 2 * v * (v @ y)  # H = Q diag(values) Q, Q a reflection
    product = lambda y: reflect(values * reflect(y))
    shift = product(x) + price
    return lambda y: 0.5 * y @ product(y) - shift @ y, x, side, price


@every
def test_thousand_variables_with_a_known_active_set(name, rng):
    fun, x, side, price = made_quadratic(1000, 1e3, rng)
    lower, upper = box(x, -1.0, 1.0)
    sol = jol.solve(jol.Problem(fun, bounds=(lower, upper)), jnp.zeros(1000), solver=SOLVERS[name])
    assert sol.status == Status.CONVERGED
    np.testing.assert_array_equal(sol.x == 1, side == 1)
    np.testing.assert_array_equal(sol.x == -1, side == -1)
    # Curvatures are at least 1, so errors are at most the norm of a gradient of 1.5e-8 an entry.
    np.testing.assert_allclose(sol.x, x, atol=5e-7)
    np.testing.assert_allclose(sol.multipliers.upper, np.maximum(price, 0), atol=1e-4)
    np.testing.assert_allclose(sol.multipliers.lower, np.maximum(-price, 0), atol=1e-4)
    # SciPy's L-BFGS-B takes 280 evaluations; conjugate gradients without bounds sqrt(kappa)
    # ln(2e8) / 2 = 300. Newton needs seven doublings of its radius, 1/4, and its active set.
    most = {"LBFGSB": 400, "TRON": 15, "TRON-cg": 15, "ProjectedGradient": 1000}
    assert int(sol.steps) <= most[name]


@pytest.mark.parametrize("name", ["LBFGSB", "TRON-cg"])
def test_a_hundred_thousand_variables_need_no_matrix(name):
    n = 100_000
    pull = jnp.sin(jnp.arange(n, dtype=float) / 50.0)

    def string(x):  # over an obstacle
        ends = jnp.pad(x, 1)
        return 0.5 * jnp.sum((ends[1:] - ends[:-1]) ** 2) + 0.05 * jnp.sum(x * x) - pull @ x

    lower, upper = box(pull, -2.0, 3.0)
    sol = jol.solve(
        jol.Problem(string, bounds=(-2.0, 3.0)), jnp.zeros(n), solver=SOLVERS[name], tol=1e-6
    )
    assert sol.status == Status.CONVERGED
    check_kkt(string, sol, lower, upper, tol=1e-6)
    held = np.mean((np.asarray(sol.x) == 3) | (np.asarray(sol.x) == -2))
    assert 0.2 < held < 0.9
    assert sol.steps <= 150


# -- what is evaluated -----------------------------------------------------------------------------


@every
def test_one_evaluation_a_step_each_within_the_bounds_exactly(name):
    seen = []

    def fun(x):
        jax.debug.callback(lambda at: seen.append(np.asarray(at)), x)
        return rosenbrock(x)

    lower, upper = box(np.zeros(5), (-0.3, 0.1, -2, -2, 0.7), (0.7, INF, 0.3, 0.45, 0.7))
    bounds = lower, upper
    sol = jol.solve(jol.Problem(fun, bounds=bounds), jnp.full(5, -1.2), solver=SOLVERS[name])
    jax.effects_barrier()
    assert sol.status == Status.CONVERGED
    inside = [np.all((np.asarray(lower) <= x) & (x <= np.asarray(upper))) for x in seen]
    assert np.all(inside)
    if name not in SECOND_ORDER:  # there the Hessian evaluates the objective too
        assert len(seen) == sol.steps
        assert int(sol.steps) <= 1.5 * (int(sol.state.accepted) + 1)
    check_kkt(rosenbrock, sol, lower, upper)


def test_newton_is_quadratic_once_the_active_set_is_right():
    problem = jol.Problem(rosenbrock, bounds=(-2.0, 0.8))
    sol = jol.solve(problem, jnp.full(10, -1.2), solver=jol.TRON(), tol=1e-12, history=True)
    assert sol.status == Status.CONVERGED
    left = np.asarray(sol.history.residuals.stationarity)[: int(sol.steps)]
    end = left[-5:]
    assert 0.1 < end[0] < 1
    # 0.39, 1.6e-2, 2.2e-5, 4.8e-11; third derivatives over squared curvatures are below 1 here.
    assert np.all(end[1:] <= end[:-1] ** 2 + 1e-12)


# -- edges -----------------------------------------------------------------------------------------


@every
def test_fixed_missing_and_infinite_bounds_and_starts_outside(name):
    target = jnp.array([3.0, -3.0, 0.5, 7.0, 0.2])
    fun = lambda x: jnp.sum((x - target) ** 2) + x[0] * x[2]
    lower, upper = jnp.array([0.0, -INF, 0.25, -INF, 1.0]), jnp.array([1.0, INF, 0.25, 6.0, INF])
    # By hand: x0 at 1 and x2 fixed; the rest is the target within its bounds.
    expected = np.array([1.0, -3.0, 0.25, 6.0, 1.0])
    for x0 in (jnp.full(5, 50.0), jnp.full(5, -50.0), lower.at[jnp.array([1, 3])].set(0.0)):
        sol = jol.solve(jol.Problem(fun, bounds=(lower, upper)), x0, solver=SOLVERS[name])
        assert sol.status == Status.CONVERGED
        on = np.array([0, 2, 3, 4])
        np.testing.assert_array_equal(sol.x[on], expected[on])
        assert abs(sol.x[1] + 3) <= 1e-8
        # The gradient at that point; of the fixed variable either side may hold it, by its sign.
        np.testing.assert_allclose(sol.multipliers.lower, [0, 0, 0.5, 0, 1.6], atol=1e-12)
        np.testing.assert_allclose(sol.multipliers.upper, [3.75, 0, 0, 2, 0], atol=1e-12)
    free = jol.solve(jol.Problem(fun, bounds=(None, None)), jnp.zeros(5), solver=SOLVERS[name])
    assert free.status == Status.CONVERGED
    assert free.multipliers.lower is None


@every
def test_crossed_bounds(name):
    fun = lambda x, lower: jnp.sum(x * x)
    with pytest.raises(ValueError, match="lower <= upper"):
        jol.solve(jol.Problem(fun, bounds=(1.0, 0.0)), jnp.ones(2), (0.0,), solver=SOLVERS[name])
    problem = jol.Problem(fun, bounds=lambda lower: (lower, 0.5))
    run = jax.jit(lambda lower: jol.solve(problem, jnp.ones(2), (lower,), solver=SOLVERS[name]))
    assert run(1.0).status == Status.PRIMAL_INFEASIBLE
    assert run(0.25).status == Status.CONVERGED


@every
def test_statuses_of_failures(name):
    solver = SOLVERS[name]
    down = jol.solve(
        jol.Problem(lambda x: -x[0] - x[1] ** 2, bounds=(-1.0, None)), jnp.ones(2), solver=solver
    )
    assert down.status == Status.DIVERGED
    run = jax.jit(
        lambda x: jol.solve(jol.Problem(rosenbrock, bounds=(-1.0, 2.0)), x, solver=solver)
    )
    assert run(jnp.array([jnp.nan, 0.0])).status == Status.NONFINITE
    kink = jol.Problem(lambda x: jnp.abs(x[0] - 0.3) + x[1] ** 2, bounds=(-1.0, 2.0))
    sol = jol.solve(kink, jnp.array([1.0, 1.0]), solver=solver, max_steps=2000)
    assert sol.status in (Status.STALLED, Status.MAX_STEPS)  # no gradient vanishes: not CONVERGED
    assert sol.value < 1.7  # at the start
    # Where the objective ends inside the box, steps come back from there.
    log = jol.Problem(lambda x: jnp.sum(x - jnp.log(x)), bounds=(-5.0, 4.0))
    sol = jol.solve(log, jnp.full(3, 0.01), solver=solver)
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, 1, atol=1e-7)


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_saddle_points_of_the_free_variables_are_left(name):
    solve = lambda fun, x0, bounds: jol.solve(
        jol.Problem(fun, bounds=bounds), jnp.array(x0), solver=SOLVERS[name]
    )
    saddle = lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4
    sol = solve(saddle, [0.0, 0.0], (-1.0, 0.5))
    assert sol.status == Status.CONVERGED
    assert sol.value <= -0.1875 + 1e-12  # at x1 = 1/2; and the minima are -1/4
    # A bound that binds with multiplier 0, and a way down from it.
    sol = solve(saddle, [0.0, 0.0], (0.0, 2.0))
    assert sol.status == Status.CONVERGED
    assert abs(sol.value + 0.25) <= 1e-12
    # Indefinite, but no way down in the quadrant: there is nothing to leave.
    sol = solve(lambda x: x[0] * x[1], [0.0, 0.0], (0.0, 2.0))
    assert sol.status == Status.CONVERGED
    assert sol.steps == 1
    # A strict saddle with a variable held by its bound.
    sol = solve(
        lambda x: x[0] + x[1] ** 2 - x[2] ** 2,
        [0.0, 0.0, 0.0],
        (jnp.array([0.0, -1.0, -1.0]), jnp.full(3, 2.0)),
    )
    assert sol.status == Status.CONVERGED
    assert abs(sol.x[2]) >= 1


@every
def test_pytrees_and_float32(name):
    def fun(x):
        return jnp.sum((x["a"] - 2) ** 2) + (x["b"] - x["a"][0]) ** 2

    x0 = {"a": jnp.zeros(2, jnp.float32), "b": jnp.zeros((), jnp.float32)}
    bounds = ({"a": jnp.full(2, -1.0, jnp.float32), "b": jnp.float32(-1)}, 1.5)
    sol = jol.solve(jol.Problem(fun, bounds=(bounds[0], bounds[1])), x0, solver=SOLVERS[name])
    assert sol.status == Status.CONVERGED
    assert sol.x["a"].dtype == sol.multipliers.upper["b"].dtype == jnp.float32
    np.testing.assert_array_equal(sol.x["a"], np.float32([1.5, 1.5]))
    np.testing.assert_allclose(sol.x["b"], 1.5, atol=1e-3)
    np.testing.assert_allclose(sol.multipliers.upper["a"], [1.0, 1.0], atol=1e-2)
    floats = {leaf.dtype for leaf in jax.tree.leaves(sol.state) if leaf.dtype.kind == "f"}
    assert floats == {np.dtype("float32")}


# -- batches ---------------------------------------------------------------------------------------


@every
def test_two_thousand_lanes_with_bounds_of_their_own(name, rng):
    lanes = 2000
    ends = np.sort(rng.uniform(-1.5, 1.5, (2, lanes, 2)), axis=0)
    lower, upper = (
        jnp.asarray(ends[0]),
        jnp.asarray(np.where(rng.random((lanes, 2)) < 0.3, INF, ends[1])),
    )
    curvature = jnp.asarray(10 ** rng.uniform(-1, 2, lanes))
    valley = lambda x, c, lower, upper: c * (x[1] - x[0] ** 2) ** 2 + (x[0] - 1) ** 2
    problem = jol.Problem(valley, bounds=lambda c, lower, upper: (lower, upper))
    start = jnp.array([-1.2, 1.0])
    run = lambda *args: jol.solve(problem, start, args, solver=SOLVERS[name], max_steps=3000)
    batch = jax.jit(jax.vmap(run))(curvature, lower, upper)
    assert np.all(batch.status == Status.CONVERGED)
    gradient = jax.vmap(jax.grad(valley))(batch.x, curvature, lower, upper)
    assert np.all((lower <= batch.x) & (batch.x <= upper))
    left = batch.x - jnp.clip(batch.x - gradient, lower, upper)  # 0 at a stationary point
    assert np.max(np.abs(left)) <= 1.6e-8
    assert 300 < np.sum((batch.x == lower) | (batch.x == upper)) < 3700
    steps = np.asarray(batch.steps)
    assert steps.min() < np.median(steps) < steps.max()
    one = jax.jit(run)
    for lane in (0, 3, int(steps.argmax()), int(steps.argmin())):
        alone = one(curvature[lane], lower[lane], upper[lane])
        assert alone.steps == steps[lane]
        np.testing.assert_allclose(alone.x, batch.x[lane], rtol=1e-9, atol=1e-9)


# -- derivatives -----------------------------------------------------------------------------------


@every
def test_derivative_at_a_bound_that_binds_hardly_or_not(name):
    problem = jol.Problem(lambda x, p: jnp.sum((x - p) ** 2), bounds=(0.0, None))
    answer = lambda p: jol.solve(problem, jnp.ones(1), (p,), solver=SOLVERS[name], tol=1e-12).x[0]
    slopes = jax.vmap(jax.grad(answer))(jnp.array([1e-3, 0.0, -1e-3]))
    # At 0 one that binds weakly counts as not binding: the derivative from the right.
    np.testing.assert_allclose(slopes, [1.0, 1.0, 0.0], atol=1e-12)


@every
def test_derivative_in_data_and_in_the_bounds(name):
    hessian = jnp.array([[4.0, 1.0, 0.5], [1.0, 3.0, -0.5], [0.5, -0.5, 2.0]])
    problem = jol.Problem(
        lambda x, p, edge: 0.5 * x @ hessian @ x - p @ x, bounds=lambda p, edge: (None, edge)
    )
    run = lambda p, edge: jol.solve(
        problem, jnp.zeros(3), (p, edge), solver=SOLVERS[name], tol=1e-12
    )
    args = jnp.array([1.0, 5.0, 1.0]), jnp.array([10.0, 0.5, 10.0])
    by_p, by_edge = jax.jacobian(lambda p, edge: run(p, edge).x, (0, 1))(*args)
    free = np.array([0, 2])
    inverse = np.linalg.inv(np.asarray(hessian)[np.ix_(free, free)])
    expected = np.zeros((3, 3))
    expected[np.ix_(free, free)] = inverse
    np.testing.assert_allclose(by_p, expected, atol=1e-10)  # the bound that binds holds still
    along = np.zeros((3, 3))
    along[1, 1] = 1
    along[free, 1] = -inverse @ np.asarray(hessian)[free, 1]
    np.testing.assert_allclose(by_edge, along, atol=1e-10)
    # What one more unit of room is worth.
    worth = jax.grad(lambda edge: run(args[0], edge).value)(args[1])
    np.testing.assert_allclose(worth, -run(*args).multipliers.upper, atol=1e-10)


# -- for methods that call LBFGSB ------------------------------------------------------------------


def test_restart_keeps_the_point_and_what_was_learned():
    problem = jol.Problem(lambda x, shift: rosenbrock(x) + shift @ x, bounds=(-2.0, 0.8))
    solver = jol.LBFGSB()
    stationarity = lambda x, g: float(jnp.max(jnp.abs(x - jnp.clip(x - g, -2.0, 0.8))))

    def go(stepping, shift, tol=1e-6):
        for count in range(1, 300):
            stepping = solver.step(problem, stepping, (shift,))
            state = stepping.state
            if stationarity(state.point.x, state.gradient) <= tol:
                return stepping, count
        raise AssertionError("did not converge")

    cold, _ = go(solver.init(problem, jnp.full(10, -1.2), (jnp.zeros(10),)), jnp.zeros(10))
    shift = jnp.linspace(-0.1, 0.1, 10)
    warm, few = go(dataclasses.replace(cold, state=solver.restart(cold.state)), shift)
    anew, many = go(solver.init(problem, cold.point, (shift,)), shift)
    np.testing.assert_allclose(warm.point.x, anew.point.x, atol=1e-5)
    assert few <= many

"""`sensitivity`: prices, slopes, bends and ranges against closed forms and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol

# eps^(3/8) is what `certify` lets a point be off by; solutions here are polished to 1e-12.
CLOSE = 1e-8


def product(x, total):
    return -x[0] * x[1]


RECTANGLE = jol.Problem(product, eq=lambda x, total: x[0] + x[1] - total)


def test_max_xy_with_x_plus_y_equal_to_ten():
    """Value 25, price 5; at 11 the truth is 30.25, which slope and bend predict exactly."""
    solution = jol.solve(RECTANGLE, jnp.ones(2), (10.0,))
    found = jol.sensitivity(RECTANGLE, solution, (10.0,), change=(1.0,))
    assert bool(found.valid & found.strict & found.unique)
    assert found.value == pytest.approx(-25, abs=CLOSE)
    assert found.multipliers.eq == pytest.approx(5, abs=CLOSE)
    # Of -t^2/4: slope -t/2, bend -1/2. The relaxation of eq by t is the same change of the total.
    assert found.bend.eq == pytest.approx(-0.5, abs=CLOSE)
    assert found.gradient[0] == pytest.approx(-5, abs=CLOSE)
    e = found.expansion
    assert e.value_slope == pytest.approx(-5, abs=CLOSE)
    assert e.value_bend == pytest.approx(-0.5, abs=CLOSE)
    x, value, multipliers = e.at(1.0)
    assert value == pytest.approx(-30.25, abs=CLOSE)
    np.testing.assert_allclose(x, [5.5, 5.5], atol=CLOSE)
    assert multipliers.eq == pytest.approx(5.5, abs=CLOSE)
    assert e.lowest == -np.inf
    assert e.highest == np.inf


def spending(x, budget, goal):
    return jnp.sum((x - goal) ** 2)


BUDGET = jol.Problem(spending, ineq=lambda x, budget, goal: jnp.sum(x) - budget, bounds=(0.0, None))


def test_range_ends_where_a_bound_begins_to_bind_and_the_budget_ceases_to():
    """Goals 1, 2, 3 with total 6, budget 5: x = goal - 1/3; x_1 reaches 0 at 3, slack at 6."""
    args = (5.0, jnp.array([1.0, 2.0, 3.0]))
    solution = jol.solve(BUDGET, jnp.ones(3), args)
    found = jol.sensitivity(BUDGET, solution, args, change=(1.0, jnp.zeros(3)))
    assert bool(found.valid & found.strict & found.unique)
    assert found.multipliers.ineq == pytest.approx(2 / 3, abs=CLOSE)
    # value (6 - b)^2 / 3
    assert found.bend.ineq == pytest.approx(2 / 3, abs=CLOSE)
    np.testing.assert_allclose([found.lowest.ineq, found.highest.ineq], [-2, 1], atol=CLOSE)
    np.testing.assert_allclose(
        [found.expansion.lowest, found.expansion.highest], [-2, 1], atol=CLOSE
    )
    # A bound that does not bind is worth nothing, until it is raised to x.
    np.testing.assert_allclose(found.multipliers.lower, 0, atol=CLOSE)
    np.testing.assert_allclose(found.lowest.lower, -solution.x, atol=CLOSE)
    assert np.all(np.isinf(found.highest.lower))
    assert "from -2 to 1" in str(found)


def test_gradient_and_expansion_in_all_args_against_solves():
    """Slopes to second order in t, the bend by central differences of the value."""
    args = (2.0, {"goal": jnp.array([1.0, 2.0, 3.0]), "name": 3})

    def objective(x, budget, extra):
        return jnp.sum(jnp.cosh(x - extra["goal"])) * jnp.log(1 + budget) / extra["name"]

    problem = jol.Problem(
        objective,
        ineq=lambda x, budget, extra: jnp.stack([jnp.sum(x**2) - budget, x[0] - 2 * x[1]]),
    )
    change = (0.3, {"goal": jnp.array([0.5, -1.0, 0.2]), "name": 0})
    solve = lambda a: jol.solve(problem, jnp.zeros(3), a, tol=1e-11)
    found = jol.sensitivity(problem, solve(args), args, change)
    at = lambda t: solve(
        (2.0 + 0.3 * t, {"goal": args[1]["goal"] + t * change[1]["goal"], "name": 3})
    )
    h = 1e-3
    up, mid, down = at(h), at(0.0), at(-h)
    e = found.expansion
    # Central differences are off by h^2 times third derivatives, some units here.
    assert e.value_slope == pytest.approx(float(up.value - down.value) / (2 * h), abs=1e-5)
    assert e.value_bend == pytest.approx(
        float(up.value - 2 * mid.value + down.value) / h**2, abs=1e-4
    )
    np.testing.assert_allclose(e.x_slope, (up.x - down.x) / (2 * h), atol=1e-5)
    slope = (up.multipliers.ineq - down.multipliers.ineq) / (2 * h)
    np.testing.assert_allclose(e.multipliers_slope.ineq, slope, atol=1e-5)
    gradient = jax.grad(lambda b: solve((b, args[1])).value)(2.0)
    assert found.gradient[0] == pytest.approx(float(gradient), abs=CLOSE)
    assert found.gradient[1]["name"] is None
    along = 0.3 * found.gradient[0] + change[1]["goal"] @ found.gradient[1]["goal"]
    assert along == pytest.approx(float(e.value_slope), abs=CLOSE)


HALF_LINE = jol.Problem(lambda x, p: jnp.sum((x - p) ** 2), bounds=(0.0, None))


@pytest.mark.parametrize(("towards", "slope"), [(1.0, 1.0), (-1.0, 0.0)])
def test_a_weakly_active_bound_has_one_sided_slopes(towards, slope):
    """min (x - p)^2 over x >= 0 at p = 0: x = max(p, 0)."""
    found = jol.sensitivity(HALF_LINE, jnp.zeros(1), (0.0,), (towards,))
    assert bool(found.valid & found.unique)
    assert not bool(found.strict)
    assert found.expansion.x_slope[0] == pytest.approx(slope, abs=CLOSE)
    # The multiplier is max(-2 p, 0), the value min(p, 0)^2.
    assert found.expansion.multipliers_slope.lower[0] == pytest.approx(2 * (1 - slope), abs=CLOSE)
    assert found.expansion.value_bend == pytest.approx(2 * (1 - slope), abs=CLOSE)
    assert found.expansion.lowest == 0
    assert np.isnan(found.bend.lower[0])
    assert "one-sided" in str(found)


def test_several_weakly_active_constraints_against_projections():
    """Projection on the orthant cut by sum x <= 0, at its tip: slopes are projections too."""
    rng = np.random.default_rng(0)
    problem = jol.Problem(
        lambda x, p: 0.5 * jnp.sum((x - p) ** 2),
        ineq=lambda x, p: jnp.stack([x[0] + x[1] + x[2], x[0] - x[1]]), bounds=(-1.0, None),
    )  # fmt: skip
    for _ in range(10):
        change = jnp.asarray(rng.standard_normal(3))
        found = jol.sensitivity(problem, jnp.zeros(3), (jnp.zeros(3),), (change,))
        t = 1e-3  # the set is a cone near 0, so that x is linear in t
        there = jol.solve(problem, jnp.zeros(3), (t * change,), tol=1e-12).x / t
        np.testing.assert_allclose(found.expansion.x_slope, there, atol=1e-7)


def test_a_duplicated_constraint_is_flagged_and_its_slopes_are_right():
    """x >= p twice: LICQ fails, x = p moves with slope 1 all the same."""
    problem = jol.Problem(
        lambda x, p: jnp.sum(x**2), ineq=lambda x, p: jnp.stack([p - x[0], p - x[0]])
    )
    found = jol.sensitivity(problem, jnp.ones(1), (1.0,), (1.0,))
    assert bool(found.valid)
    assert not bool(found.unique)
    assert found.expansion.x_slope[0] == pytest.approx(1, abs=CLOSE)
    assert found.expansion.value_slope == pytest.approx(2, abs=CLOSE)
    assert "LICQ fails" in str(found)


def test_no_constraints():
    """min (x - p)^2 / 2 + x^4 / 4: dx/dp = 1 / (1 + 3 x^2)."""
    problem = jol.Problem(lambda x, p: 0.5 * (x - p) ** 2 + 0.25 * x**4)
    solution = jol.solve(problem, jnp.array(0.0), (2.0,), tol=1e-12)
    found = jol.sensitivity(problem, solution, (2.0,), (1.0,))
    assert solution.x == pytest.approx(1, abs=CLOSE)
    assert bool(found.valid & found.strict & found.unique)
    assert found.expansion.x_slope == pytest.approx(0.25, abs=CLOSE)
    assert found.gradient[0] == pytest.approx(1, abs=CLOSE)
    assert found.expansion.value_bend == pytest.approx(0.75, abs=CLOSE)


@pytest.mark.parametrize(
    ("problem", "x"),
    [
        (RECTANGLE, jnp.array([4.0, 6.0])),  # no KKT point
        (RECTANGLE, jnp.array([5.0, 4.0])),  # not feasible
        (jol.Problem(lambda x, p: x[0] ** 2 - x[1] ** 2), jnp.zeros(2)),  # a saddle
        (jol.Problem(lambda x, p: x[0] ** 2 + 0 * x[1]), jnp.zeros(2)),  # a valley
    ],
)
def test_no_derivative_where_there_is_no_optimum_that_moves(problem, x):
    found = jol.sensitivity(problem, x, (10.0,), (1.0,))
    assert not bool(found.valid)
    assert np.isnan(found.gradient[0])
    assert np.all(np.isnan(found.expansion.x_slope))
    assert str(found).startswith("NOT VALID")


def test_batch_of_budgets_in_float32():
    """A thousand budgets, some of them slack: prices max(0, 2 (6 - b) / 3), until x_1 is 0."""
    budgets = jnp.linspace(3.5, 8.0, 1000, dtype=jnp.float32)
    goal = jnp.array([1.0, 2.0, 3.0], jnp.float32)

    @jax.jit
    @jax.vmap
    def run(b):
        solution = jol.solve(BUDGET, jnp.ones(3, jnp.float32), (b, goal))
        return jol.sensitivity(BUDGET, solution, (b, goal), (jnp.ones_like(b), 0 * goal))

    found = run(budgets)
    clear = np.abs(np.asarray(budgets) - 6) > 0.05  # beside, binding is within rounding
    assert np.all(np.asarray(found.valid)[clear])
    price = np.maximum(0, 2 * (6 - budgets) / 3)
    # The tolerance of a solve in float32, 3.5e-4, on the gradient 2 (x - goal) + price.
    np.testing.assert_allclose(np.asarray(found.multipliers.ineq)[clear], price[clear], atol=2e-3)
    slope = np.where(budgets < 6, 1 / 3, 0)
    np.testing.assert_allclose(
        np.asarray(found.expansion.x_slope)[clear, 0], slope[clear], atol=1e-4
    )
    assert "1000" in str(found)


def test_bad_input():
    with pytest.raises(TypeError, match="`change` must have the structure"):
        jol.sensitivity(RECTANGLE, jnp.full(2, 5.0), (10.0,), change=1.0)
    with pytest.raises(ValueError, match="at most 1000"):
        jol.sensitivity(jol.Problem(lambda x: jnp.sum(x**2)), jnp.zeros(1001))

"""The interior point method: known answers and multipliers, failures, batches, derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite.core import Status

from .hock_schittkowski import FAMILIES

SOLVER = jol.InteriorPoint()
HS71 = jol.Problem(
    lambda x, a, b: x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2],
    eq=lambda x, a, b: x @ x - b,
    ineq=lambda x, a, b: a - jnp.prod(x),
    bounds=(1.0, 5.0),
)
HS71_START = jnp.array([1.0, 5.0, 5.0, 1.0])


# -- Hock and Schittkowski -------------------------------------------------------------------------


@functools.cache
def solutions(family):
    return [jol.solve(family.problem, *family.data(i)) for i in range(len(family.members))]


@functools.cache
def measure_of(family):
    """Residuals computed from the functions and the multipliers, by formulas of this file."""
    problem = family.problem

    @jax.jit
    def measure(x, prices, args):
        gradient = jax.grad(problem.objective)(x, *args)
        _, low, high = args
        eq, ineq, lower, upper = prices
        below, above = jnp.where(jnp.isfinite(low), low - x, -1), x - high
        above = jnp.where(jnp.isfinite(high), above, -1)
        net = gradient - lower + upper
        violated = [jnp.maximum(below, 0), jnp.maximum(above, 0)]
        pairs, signs = [(lower, below), (upper, above)], [lower, upper]
        if eq is not None:
            net = net + eq @ jax.jacfwd(problem.eq)(x, *args)
            violated.append(jnp.abs(problem.eq(x, *args)))
        if ineq is not None:
            g = problem.ineq(x, *args)
            net = net + ineq @ jax.jacfwd(problem.ineq)(x, *args)
            violated.append(jnp.maximum(g, 0))
            pairs.append((ineq, g))
            signs.append(ineq)
        worst = lambda parts: jnp.max(jnp.abs(jnp.concatenate(parts)))
        # Neither the products may be large nor the lesser factor of any of them.
        price, slack = (jnp.abs(jnp.concatenate(parts)) for parts in zip(*pairs, strict=True))
        apart = jnp.max(jnp.maximum(price * slack, jnp.minimum(price, slack)))
        sign = -jnp.minimum(jnp.min(jnp.concatenate(signs)), 0)
        return jnp.stack([jnp.max(jnp.abs(net)), worst(violated), sign, apart])

    return measure


MEMBERS = [
    pytest.param(family, i, id=str(member))
    for family in FAMILIES
    for i, member in enumerate(family.members)
]


@pytest.mark.parametrize(("family", "i"), MEMBERS)
def test_hock_schittkowski(family, i):
    member, sol = family.members[i], solutions(family)[i]
    assert sol.status == Status.CONVERGED, sol
    # Published to some nine digits; sqrt(eps) in the residuals leaves f that much uncertain.
    tol = 1e-8 if member.degenerate is False else 1e-6
    np.testing.assert_allclose(sol.value, member.minimum, rtol=2e-8, atol=tol)
    _, args = family.data(i)
    outside = measure_of(family)(sol.x, sol.multipliers, args)
    # The same residuals, computed in another order: equal to rounding of terms up to 1e4.
    np.testing.assert_allclose(outside, jnp.stack(list(sol.residuals)), atol=1e-11)
    assert np.all(outside <= 1.5e-8)
    for name, expected in member.prices.items():
        got = np.asarray(getattr(sol.multipliers, name))[: len(expected)]
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6, err_msg=name)
    assert sol.steps <= (200 if member.number in (7, 17, 27) else 60)


def test_hock_schittkowski_counts(capsys):
    """Evaluations and accepted steps; IPOPT's median over such problems is about 10 iterations."""
    rows = [
        (str(m), int(sol.steps), int(sol.state.accepted))
        for family in FAMILIES
        for m, sol in zip(family.members, solutions(family), strict=True)
    ]
    with capsys.disabled():
        print()
        print("; ".join(f"{name} {steps}/{accepted}" for name, steps, accepted in rows))
    assert np.median([steps for _, steps, _ in rows]) <= 12
    assert np.median([accepted for *_, accepted in rows]) <= 10


def test_active_bounds_are_met_exactly():
    sol = solutions(FAMILIES[-1])[2]
    assert sol.x[0] == 1.0
    np.testing.assert_array_equal(sol.multipliers.upper, np.zeros(4))
    np.testing.assert_array_equal(sol.multipliers.lower[1:], np.zeros(3))


# -- batches, dtypes -------------------------------------------------------------------------------


def test_two_thousand_lanes_of_different_difficulty():
    rng = np.random.default_rng(0)
    a, b = jnp.asarray(rng.uniform(10, 120, 2000)), jnp.asarray(rng.uniform(30, 60, 2000))
    run = jax.jit(jax.vmap(lambda a, b: jol.solve(HS71, HS71_START, (a, b), max_steps=300)))
    batch = run(a, b)
    # By the inequality of the means the product is at most (b / 4)^2: beyond, there is no point.
    possible = np.asarray(a < 0.999 * (b / 4) ** 2)
    status = np.asarray(batch.status)
    assert 1000 < possible.sum() < 1900
    assert np.all(status[possible] == Status.CONVERGED)
    beyond = status[np.asarray(a > 1.001 * (b / 4) ** 2)]
    assert not np.any(beyond == Status.CONVERGED)
    assert np.mean(beyond == Status.PRIMAL_INFEASIBLE) > 0.95  # the rest runs out of patience
    measured = jax.vmap(lambda x, m, a, b: HS71.residuals(jol.Point(x, m), (a, b)).worst())
    good = status == Status.CONVERGED
    assert np.all(np.asarray(measured(batch.x, batch.multipliers, a, b))[good] <= 1.6e-8)
    assert len(set(np.asarray(batch.steps)[good].tolist())) >= 5
    for lane in (0, 7, int(np.argmax(np.where(good, batch.steps, 0)))):
        one = jol.solve(HS71, HS71_START, (a[lane], b[lane]), max_steps=300)
        assert one.status == batch.status[lane]
        if good[lane]:
            np.testing.assert_allclose(one.x, batch.x[lane], atol=1e-7)


def test_float32():
    args = jnp.float32(25.0), jnp.float32(40.0)
    sol = jol.solve(HS71, HS71_START.astype(jnp.float32), args)
    assert sol.status == Status.CONVERGED
    assert sol.x.dtype == sol.multipliers.eq.dtype == jnp.float32
    # Default tolerance 3.5e-4, multipliers and inverse curvatures near 1.
    np.testing.assert_allclose(sol.x, [1.0, 4.743, 3.82115, 1.379408], atol=2e-3)
    state = sol.state
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {
        np.dtype("float32"),
        np.dtype("int32"),
    }


@pytest.mark.parametrize("n", [1, 300])
def test_sizes(n):
    """The projection of a vector on the simplex, and its multipliers, by sorting."""
    p = jnp.asarray(np.random.default_rng(1).standard_normal(n))
    problem = jol.Problem(
        lambda x, p: 0.5 * jnp.sum((x - p) ** 2), eq=lambda x, p: jnp.sum(x) - 1, bounds=(0.0, None)
    )
    sol = jol.solve(problem, jnp.full(n, 1 / n), (p,))
    ordered = np.sort(p)[::-1]
    sums = (np.cumsum(ordered) - 1) / np.arange(1, n + 1)
    shift = sums[np.flatnonzero(ordered > sums)[-1]]
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, np.maximum(p - shift, 0), atol=1e-8)
    np.testing.assert_allclose(sol.multipliers.eq, shift, atol=1e-8)


# -- failures --------------------------------------------------------------------------------------


def solve(objective, x0, **kwargs):
    return jol.minimize(objective, jnp.array(x0), solver=SOLVER, max_steps=1000, **kwargs)


def test_an_infeasible_problem_ends_at_a_stationary_point_of_the_violation():
    sol = solve(lambda x: x[0], [1.0, 1.0], eq=lambda x: x[0] ** 2 + 1)
    assert sol.status == Status.PRIMAL_INFEASIBLE
    np.testing.assert_allclose(sol.x[0], 0, atol=1e-6)
    assert sol.residuals.primal == pytest.approx(1)
    apart = lambda x: jnp.stack([x[0] - 1 + x[1] ** 2, 2 - x[0]])
    sol = solve(lambda x: x @ x, [1.0, 1.0], ineq=apart)
    assert sol.status == Status.PRIMAL_INFEASIBLE
    # Least squares of x <= 1 and x >= 2.
    np.testing.assert_allclose(sol.x, [1.5, 0], atol=1e-4)


def test_inconsistent_equations_and_more_equations_than_unknowns():
    objective = lambda x: jnp.sum((x - 2) ** 2)
    rows = jnp.array([[1.0, 1.0], [1.0, 0.0], [0.0, 2.0]])
    consistent = solve(objective, [0.0, 0.0], eq=lambda x: rows @ x - rows @ jnp.array([1.0, 0.0]))
    assert consistent.status == Status.CONVERGED
    np.testing.assert_allclose(consistent.x, [1, 0], atol=5e-8)
    b = jnp.array([1.0, 1.0, 1.0])
    sol = solve(objective, [0.0, 0.0], eq=lambda x: rows @ x - b)
    assert sol.status == Status.PRIMAL_INFEASIBLE
    np.testing.assert_allclose(sol.x, np.linalg.lstsq(rows, b)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        (lambda x: x[0] - 2 * x[1], {"ineq": lambda x: x[0] + x[1] - 100.0}),
        (lambda x: -(x @ x), {"bounds": (0.0, None)}),
        (lambda x: x[0], {"eq": lambda x: x[0] - x[1]}),
    ],
)
def test_unbounded(objective, options):
    sol = solve(objective, [1.0, 1.0], **options)
    assert sol.status in (Status.DUAL_INFEASIBLE, Status.DIVERGED), sol


def test_where_no_multiplier_exists_it_does_not_converge():
    """The cusp of Kuhn and Tucker: at its minimum (1, 0) no constraint qualification holds."""
    cusp = lambda x: jnp.stack([x[1] - (1 - x[0]) ** 3, -x[1]])
    sol = solve(lambda x: -x[0], [0.5, 0.5], ineq=cusp)
    assert sol.status == Status.STALLED
    assert np.all(np.isfinite(sol.x))
    # (1 - x)^3 <= 1e-8 is all that a tolerance of 1e-8 can see.
    np.testing.assert_allclose(sol.x, [1, 0], atol=5e-3)


def test_crossed_bounds():
    with pytest.raises(ValueError, match="must have lower <= upper"):
        solve(lambda x: x @ x, [1.0, 1.0], bounds=(2.0, 1.0))
    at = lambda lower: jol.minimize(
        lambda x: x @ x, jnp.ones(2), bounds=(lower, 1.0), solver=SOLVER, max_steps=50
    )
    assert jax.jit(at)(jnp.array([0.0, 2.0])).status == Status.PRIMAL_INFEASIBLE
    assert jax.jit(at)(jnp.array([0.0, 0.5])).status == Status.CONVERGED


def test_max_steps():
    sol = jol.solve(HS71, HS71_START, (25.0, 40.0), max_steps=1)
    assert sol.status == Status.MAX_STEPS
    assert sol.steps == 1


def test_constraints_that_are_not_finite_at_the_start():
    with pytest.raises(ValueError, match=r"`ineq` is not finite at `x0`.*entry 0 is nan"):
        solve(lambda x: x[0], [-1.0], ineq=lambda x: jnp.log(x))
    run = jax.jit(lambda x0: solve(lambda x: x[0], x0, ineq=lambda x: jnp.log(x)))
    assert run(jnp.array([-1.0])).status == Status.NONFINITE


def test_wrong_shapes():
    with pytest.raises(TypeError, match=r"`eq` must return a real array of shape \(m,\)"):
        solve(lambda x: x @ x, [1.0, 1.0], eq=lambda x: jnp.outer(x, x))
    with pytest.raises(ValueError, match=r"InteriorPoint\(barrier=...\) must be a number > 0"):
        jol.InteriorPoint(barrier=0.0)


def test_a_start_outside_the_bounds_fixed_variables_and_duplicated_rows():
    bounds = jnp.array([1.0, -1.0]), jnp.array([1.0, 1.5])
    sol = solve(lambda x: jnp.sum((x - 2) ** 2), [9.0, 9.0], bounds=bounds)
    np.testing.assert_array_equal(sol.x, [1.0, 1.5])
    np.testing.assert_allclose(sol.multipliers.upper, [2, 1], rtol=1e-12)
    twice = lambda x: jnp.stack([jnp.sum(x) - 1, jnp.sum(x) - 1])
    for kind in ("eq", "ineq"):
        sol = solve(lambda x: jnp.sum((x - 2) ** 2), [0.0, 0.0], **{kind: twice})
        assert sol.status == Status.CONVERGED
        np.testing.assert_allclose(sol.x, 0.5, atol=2e-8)
        np.testing.assert_allclose(jnp.sum(getattr(sol.multipliers, kind)), 3, rtol=1e-7)


def test_step_by_step_and_what_the_default_is():
    state = SOLVER.init(HS71, HS71_START, (25.0, 40.0))
    step = jax.jit(lambda state: SOLVER.step(HS71, state, (25.0, 40.0)))
    for _ in range(12):
        state = step(state)
    np.testing.assert_allclose(state.point.x, [1.0, 4.743, 3.8211500, 1.3794083], rtol=1e-6)
    from jaxopt_lite.solvers import choose

    square = lambda x: x @ x
    for options in ({"eq": square}, {"ineq": square}, {"eq": square, "bounds": (0.0, None)}):
        problem = jol.Problem(square, **options)
        assert isinstance(choose(problem, 1000), jol.InteriorPoint)
        assert isinstance(choose(problem, 1001), jol.AugmentedLagrangian)
    assert isinstance(choose(jol.Problem(square, bounds=(0.0, None)), 2), jol.TRON)


# -- derivatives -----------------------------------------------------------------------------------


def all_of_hs71(p):
    sol = jol.solve(HS71, HS71_START, (p[0], p[1]), tol=1e-10)
    m = sol.multipliers
    return jnp.concatenate([sol.x, jnp.stack([m.eq, m.ineq, sol.value]), m.lower, m.upper])


HS71_CONSTANTS = jnp.array([25.0, 40.0])


@functools.cache
def hs71_jacobian():
    return jax.jit(jax.jacfwd(all_of_hs71))(HS71_CONSTANTS)


def test_hs71_in_its_two_constants():
    p, forward = HS71_CONSTANTS, hs71_jacobian()
    answer = jax.jit(all_of_hs71)
    h = 1e-4  # error h^2 times third derivatives, and 1e-10 / h
    for i in range(2):
        move = h * jnp.eye(2)[i]
        difference = (answer(p + move) - answer(p - move)) / (2 * h)
        np.testing.assert_allclose(forward[:, i], difference, atol=5e-6)
    # Shadow prices: d value / d a = ineq_mult, d value / d b = -eq_mult.
    np.testing.assert_allclose(forward[6], [0.5522937, -0.1614686], atol=1e-7)


def test_hs71_in_reverse_mode_to_second_order_in_a_batch():
    def sweep(p):  # the value's gradient, and what it is made of
        value, pull = jax.vjp(all_of_hs71, p)
        return jax.vmap(pull)(jnp.eye(value.size))[0]

    batch = jnp.stack([HS71_CONSTANTS, HS71_CONSTANTS + 1])
    second, first = jax.jit(jax.vmap(lambda p: (jax.jacfwd(sweep)(p)[6], sweep(p))))(batch)
    np.testing.assert_allclose(first[0], hs71_jacobian(), atol=1e-12)
    # The second derivative of the value is the first of the prices.
    for jacobian, hessian in zip(first, second, strict=True):
        np.testing.assert_allclose(hessian, [jacobian[5], -jacobian[4]], atol=1e-9)


def test_a_budget_that_is_closed_over():
    def price(b):
        problem = jol.Problem(lambda x: jnp.sum((x - 1) ** 2), ineq=lambda x: jnp.sum(x) - b)
        sol = jol.solve(problem, jnp.zeros(3))
        return sol.value, sol.multipliers.ineq, sol.x

    value, multiplier, x = jax.jit(jax.jacrev(price))(1.0)
    np.testing.assert_allclose(value, -4 / 3, rtol=1e-8)
    np.testing.assert_allclose(multiplier, -2 / 3, rtol=1e-8)
    np.testing.assert_allclose(x, 1 / 3, rtol=1e-8)


SIMPLEX = jol.Problem(
    lambda x, p: jnp.sum((x - p) ** 2), eq=lambda x, p: jnp.sum(x) - 1, bounds=(0.0, None)
)


def test_projection_on_the_simplex():
    jacobian = jax.jacrev(lambda p: jol.solve(SIMPLEX, jnp.ones(3) / 3, (p,)).x)
    expected = np.array([[0.5, -0.5, 0], [-0.5, 0.5, 0], [0, 0, 0]])
    np.testing.assert_allclose(jacobian(jnp.array([0.5, 0.2, -0.4])), expected, atol=1e-12)
    everywhere = np.eye(3) - 1 / 3
    np.testing.assert_allclose(jacobian(jnp.array([0.5, 0.2, 0.4])), everywhere, atol=1e-12)


HALF_LINE = jol.Problem(lambda x, p: jnp.sum((x - p) ** 2), bounds=(0.0, None))


@jax.jit
def half_line(p):
    def reach(p):
        sol = jol.solve(HALF_LINE, jnp.ones(1), (p,))
        return sol.x, sol.multipliers.lower

    return *reach(p), jax.jacfwd(reach)(p), jax.jacrev(reach)(p)


@pytest.mark.parametrize(("p", "slope"), [(1e-3, 1.0), (-1e-3, 0.0), (0.0, 1.0)])
def test_a_bound_that_hardly_binds_does_not_bind_or_is_weakly_active(p, slope):
    """At p = 0 the bound binds weakly: it counts as not binding, the right-hand derivative."""
    p = jnp.array([p])
    x, lower, *jacobians = half_line(p)
    np.testing.assert_allclose(x, np.maximum(p, 0), atol=1e-12)
    np.testing.assert_allclose(lower, np.maximum(-2 * p, 0), atol=1e-12)
    for of_x, of_lower in jacobians:
        np.testing.assert_allclose(of_x, [[slope]], atol=1e-12)
        np.testing.assert_allclose(of_lower, [[-2 * (1 - slope)]], atol=1e-12)


def test_degenerate_derivatives_have_minimum_norm():
    def twice(p):
        rows = lambda x, p: jnp.stack([jnp.sum(x) - p, jnp.sum(x) - p])
        sol = jol.minimize(lambda x, p: jnp.sum((x - 2) ** 2), jnp.zeros(2), (p,), ineq=rows)
        return sol.x, sol.multipliers.ineq, sol.value

    x, prices, value = jax.jacrev(twice)(1.0)
    np.testing.assert_allclose(x, [0.5, 0.5], atol=1e-8)
    np.testing.assert_allclose(prices, [-0.5, -0.5], atol=1e-8)
    np.testing.assert_allclose(value, -3, atol=1e-7)

    def singular(p):
        fun = lambda x, p: (x[0] + x[1] - p) ** 2
        return jol.minimize(fun, jnp.zeros(2), (p,), bounds=(-10.0, 10.0)).x

    np.testing.assert_allclose(jax.jacrev(singular)(1.0), [0.5, 0.5], atol=1e-8)


def test_the_derivative_of_an_answer_that_is_none_is_nan():
    def infeasible(p):
        return jol.minimize(
            lambda x, p: x[0], jnp.ones(1), (p,), eq=lambda x, p: x**2 + p, solver=SOLVER
        )

    assert infeasible(1.0).status == Status.PRIMAL_INFEASIBLE
    assert np.isnan(jax.grad(lambda p: infeasible(p).value)(1.0))


def test_jacobian_in_a_thousand_parameters_agrees_with_finite_differences():
    """50 variables, 10 equalities, 20 inequalities, with 1,000 parameters in all of them."""
    rng = np.random.default_rng(0)
    root = rng.standard_normal((50, 50)) / 10
    q, m, b, k = (
        jnp.asarray(matrix)
        for matrix in (
            root @ root.T + np.eye(50),
            *(rng.standard_normal((rows, 1000)) / np.sqrt(1000) for rows in (50, 10, 20)),
        )
    )
    a, g = jnp.asarray(rng.standard_normal((10, 50))), jnp.asarray(rng.standard_normal((20, 50)))
    problem = jol.Problem(
        lambda x, p: 0.5 * x @ q @ x + jnp.sum(jnp.cosh(x)) - 3 * (m @ p) @ x,
        eq=lambda x, p: a @ x - b @ p,
        ineq=lambda x, p: g @ x - 1 - k @ p,
    )
    solve = lambda p: jol.solve(problem, jnp.zeros(50), (p,), tol=1e-10)
    p = jnp.asarray(rng.standard_normal(1000))
    assert int(jnp.sum(solve(p).multipliers.ineq > 1e-3)) > 3
    jacobian = jax.jit(jax.jacrev(lambda p: solve(p).x))(p)
    for direction in jnp.asarray(rng.standard_normal((5, 1000))):
        step = 1e-4 * direction
        # Off by the square of the step, |step| = 3e-3, times third derivatives below 1.
        difference = (solve(p + step).x - solve(p - step).x) / 2e-4
        np.testing.assert_allclose(jacobian @ direction, difference, atol=1e-6)

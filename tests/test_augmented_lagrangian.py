"""The augmented Lagrangian: known answers and prices, failures, size, batches, training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jol
from jaxopt_lite.core import Status

from .hock_schittkowski import FAMILIES
from .test_interior_point import HS71, HS71_CONSTANTS, HS71_START, measure_of

SOLVER = jol.AugmentedLagrangian()


def solve(objective, x0, args=(), solver=SOLVER, **options):
    return jol.minimize(objective, jnp.array(x0), args, solver=solver, **options)


# -- Hock and Schittkowski -------------------------------------------------------------------------

# KKT points besides the published ones: 15 where x1 x2 = 1 with both negative, 24 where x2 = 0 and
# f has no slope, 33 at (0, 0, 2).
OTHERS = {15: 360.379767173, 24: 0.0, 33: -4.0}


@functools.cache
def solutions(family):
    data = [family.data(i) for i in range(len(family.members))]
    return [jol.solve(family.problem, x0, args, solver=SOLVER) for x0, args in data]


MEMBERS = [
    pytest.param(family, i, id=str(member))
    for family in FAMILIES
    for i, member in enumerate(family.members)
]


@pytest.mark.parametrize(("family", "i"), MEMBERS)
def test_hock_schittkowski(family, i):
    member, sol = family.members[i], solutions(family)[i]
    assert sol.status == Status.CONVERGED, sol
    # Residuals up to 1.5e-8 leave f uncertain by the sum of multipliers (up to 700) times them.
    minimum = OTHERS.get(member.number, member.minimum)
    np.testing.assert_allclose(sol.value, minimum, rtol=1e-7, atol=1e-6)
    _, args = family.data(i)
    outside = measure_of(family)(sol.x, sol.multipliers, args)
    np.testing.assert_allclose(outside, jnp.stack(list(sol.residuals)), atol=1e-11)
    assert np.all(outside <= 1.5e-8)
    prices = {} if member.number in OTHERS else member.prices
    for name, expected in prices.items():
        got = np.asarray(getattr(sol.multipliers, name))[: len(expected)]
        if member.number == 40 and sol.x[3] < 0:  # its mirror image in x3 and x4
            got = got * np.array([1, -1, 1])
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6, err_msg=name)
    assert sol.steps <= (800 if member.number == 100 else 300)


def test_hock_schittkowski_counts(capsys):
    """Evaluations, and inner problems."""
    rows = [
        (str(m), int(sol.steps), int(sol.state.number))
        for family in FAMILIES
        for m, sol in zip(family.members, solutions(family), strict=True)
    ]
    with capsys.disabled():
        print()
        print("; ".join(f"{name} {steps}/{number}" for name, steps, number in rows))
    assert np.median([steps for _, steps, _ in rows]) <= 60
    assert np.median([number for *_, number in rows]) <= 8


SECOND_ORDER = jol.AugmentedLagrangian(jol.TRON())


@pytest.mark.parametrize("family", FAMILIES[-2:], ids=str)
def test_second_derivatives_within_bounds(family):
    """The published minima and prices, in a third of the steps."""
    for i, member in enumerate(family.members):
        sol = jol.solve(family.problem, *family.data(i), solver=SECOND_ORDER)
        assert sol.status == Status.CONVERGED
        np.testing.assert_allclose(sol.value, member.minimum, rtol=1e-7, atol=1e-6)
        for name, expected in member.prices.items():
            got = np.asarray(getattr(sol.multipliers, name))[: len(expected)]
            np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6, err_msg=name)
        assert sol.steps <= 60


def test_an_answer_is_certified():
    sol = jol.solve(HS71, HS71_START, (25.0, 40.0), solver=SOLVER)
    certificate = jol.certify(HS71, sol, (25.0, 40.0))
    assert bool(certificate.certified), certificate


# -- known answers ---------------------------------------------------------------------------------

INNERS = {
    "LBFGS": jol.LBFGS(),
    "LBFGSB": jol.LBFGSB(),
    "BFGS": jol.BFGS(),
    "TrustRegion": jol.TrustRegion("exact"),
    "TrustRegion-cg": jol.TrustRegion("cg"),
    "Newton": jol.Newton(),
    "NonlinearCG": jol.NonlinearCG(),
    "Nesterov": jol.Nesterov(),
    "GradientDescent": jol.GradientDescent(),
    "Optax": jol.Optax(optax.sgd(0.02, momentum=0.5)),
    "FixedStep": jol.FixedStep(0.02),
}


@pytest.mark.parametrize("name", INNERS)
def test_every_smooth_solver_serves_inside(name):
    """On the circle and in the half plane: x0 + x1 on |x|^2 = 2 with x0 >= -1/2; by hand."""
    solver = jol.AugmentedLagrangian(INNERS[name], penalty=10.0)
    if name in ("FixedStep", "Optax"):  # for which larger penalties would make steps too long
        solver = jol.AugmentedLagrangian(INNERS[name], penalty=1.0, inner_steps=20)
    sol = solve(
        lambda x: x[0] + x[1],
        [0.5, -1.0],
        solver=solver,
        tol=1e-6,
        max_steps=20_000,
        eq=lambda x: x @ x - 2,
        ineq=lambda x: -0.5 - x[0],
    )
    assert sol.status == Status.CONVERGED, sol
    second = -np.sqrt(1.75)
    np.testing.assert_allclose(sol.x, [-0.5, second], atol=1e-6)
    eq = -1 / (2 * second)
    np.testing.assert_allclose(sol.multipliers.eq, eq, rtol=1e-5)
    np.testing.assert_allclose(sol.multipliers.ineq, 1 - eq, rtol=1e-5)


def test_projection_on_a_plane_of_a_pytree_and_its_derivative():
    p = {"a": jnp.array([[0.3, -1.2]]), "b": jnp.array(2.0)}
    total = lambda x: jnp.sum(x["a"]) + x["b"]
    problem = jol.Problem(
        lambda x, p: 0.5 * (jnp.sum((x["a"] - p["a"]) ** 2) + (x["b"] - p["b"]) ** 2),
        eq=lambda x, p: total(x) - 1,
    )
    reach = lambda p: jol.solve(problem, p, (p,), solver=SOLVER, tol=1e-11)
    sol = reach(p)
    shift = (total(p) - 1) / 3
    np.testing.assert_allclose(sol.x["a"], p["a"] - shift, atol=1e-10)
    np.testing.assert_allclose(sol.x["b"], p["b"] - shift, atol=1e-10)
    np.testing.assert_allclose(sol.multipliers.eq, shift, atol=1e-10)
    assert sol.multipliers.eq.shape == ()
    slope = jax.jacrev(lambda p: reach(p).x["b"])(p)
    np.testing.assert_allclose(slope["a"], [[-1 / 3, -1 / 3]], atol=1e-12)
    np.testing.assert_allclose(slope["b"], 2 / 3, atol=1e-12)


def test_a_budget_that_stops_binding():
    """|x - 1|^2 with sum x <= b: binds below 3, with price 2 (3 - b) / 3; above it is exactly 0."""
    problem = jol.Problem(lambda x, b: jnp.sum((x - 1) ** 2), ineq=lambda x, b: jnp.sum(x) - b)
    reach = lambda b: jol.solve(problem, jnp.zeros(3), (b,), solver=SOLVER, tol=1e-10)
    both = jax.vmap(lambda b: (reach(b), jax.grad(lambda b: reach(b).value)(b)))
    budgets = jnp.array([1.0, 2.9, 3.1, 5.0])
    sol, slopes = jax.jit(both)(budgets)
    assert np.all(sol.status == Status.CONVERGED)
    prices = np.maximum(2 * (3 - budgets) / 3, 0)
    np.testing.assert_allclose(sol.multipliers.ineq, prices, atol=2e-10)
    np.testing.assert_array_equal(sol.multipliers.ineq[2:], 0)
    np.testing.assert_allclose(slopes, -prices, atol=2e-10)  # the envelope theorem
    np.testing.assert_allclose(sol.x, np.minimum(budgets / 3, 1)[:, None] * np.ones(3), atol=2e-10)


def test_where_the_augmented_lagrangian_is_unbounded_but_the_problem_is_not():
    """-x^4 falls faster than any rho (x - 1)^2 rises, -exp(x) faster than any power."""
    for inner in (None, jol.TrustRegion("exact")):
        solver = jol.AugmentedLagrangian(inner)
        sol = solve(lambda x: -(x[0] ** 4), [0.5], solver=solver, eq=lambda x: x[0] - 1)
        assert sol.status == Status.CONVERGED
        np.testing.assert_allclose(sol.multipliers.eq, 4, rtol=1e-6)
        sol = solve(lambda x: -jnp.exp(x[0]), [0.5], solver=solver, eq=lambda x: x[0])
        assert sol.status == Status.CONVERGED
        np.testing.assert_allclose(sol.multipliers.eq, 1, rtol=1e-6)


def test_residuals_and_a_second_output():
    total = lambda x, a: jnp.sum(x) - 1
    residuals = jol.Composite(lambda x, a: x - a, lambda r, a: jnp.sum(r * r), separable=True)
    a = jnp.arange(3.0)
    sol = jol.solve(jol.Problem(residuals, eq=total), jnp.zeros(3), (a,), solver=SOLVER)
    np.testing.assert_allclose(sol.x, a - 2 / 3, atol=2e-8)
    square = jol.Problem(lambda x, a: (jnp.sum((x - a) ** 2), {"first": x[0]}), total, has_aux=True)
    sol = jol.solve(square, jnp.zeros(3), (a,), solver=SOLVER, history=True)
    assert float(sol.aux["first"]) == float(sol.x[0])
    assert np.sum(np.isfinite(np.asarray(sol.history.value))) == int(sol.steps)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_units_of_objective_and_constraints(scale):
    """Multipliers change with the units, and x does not."""
    base = lambda x: jnp.sum(jnp.cosh(x - 2))
    for f, c in ((scale, 1.0), (1.0, scale)):
        sol = solve(lambda x, f=f: f * base(x), [0.0, 0.0], eq=lambda x, c=c: c * (jnp.sum(x) - 1))
        assert sol.status == Status.CONVERGED
        # By how much a violation of 1.5e-8 in the units of c moves x, and a slope of it.
        np.testing.assert_allclose(sol.x, 0.5, atol=1.5e-8 * max(1 / f, 1 / c))
        np.testing.assert_allclose(sol.multipliers.eq, f / c * np.sinh(1.5), rtol=2e-5)


# -- failures --------------------------------------------------------------------------------------


def test_infeasible_problems_end_at_stationary_points_of_the_violation():
    sol = solve(lambda x: x[0], [1.0, 1.0], eq=lambda x: x[0] ** 2 + 1)
    assert sol.status == Status.PRIMAL_INFEASIBLE
    np.testing.assert_allclose(sol.x[0], 0, atol=1e-6)
    apart = lambda x: jnp.stack([x[0] - 1 + x[1] ** 2, 2 - x[0]])
    for inner in (None, jol.TrustRegion("exact")):
        sol = solve(lambda x: x @ x, [1.0, 1.0], ineq=apart, solver=jol.AugmentedLagrangian(inner))
        assert sol.status == Status.PRIMAL_INFEASIBLE
        np.testing.assert_allclose(sol.x, [1.5, 0], atol=1e-6)
        # The proof: positive weights, whose sum of gradients vanishes.
        np.testing.assert_allclose(sol.multipliers.ineq, [0.5, 0.5], atol=1e-6)
    sol = solve(lambda x: x @ x, [1.0, 3.0], eq=lambda x: jnp.sum(x) + 1, bounds=(0.0, None))
    assert sol.status == Status.PRIMAL_INFEASIBLE
    np.testing.assert_array_equal(sol.x, [0, 0])


def test_inconsistent_and_redundant_equations():
    objective = lambda x: jnp.sum((x - 2) ** 2)
    rows = jnp.array([[1.0, 1.0], [1.0, 0.0], [0.0, 2.0]])
    consistent = solve(objective, [0.0, 0.0], eq=lambda x: rows @ x - rows @ jnp.array([1.0, 0.0]))
    assert consistent.status == Status.CONVERGED
    np.testing.assert_allclose(consistent.x, [1, 0], atol=3e-8)
    b = jnp.ones(3)
    sol = solve(objective, [0.0, 0.0], eq=lambda x: rows @ x - b)
    assert sol.status == Status.PRIMAL_INFEASIBLE
    np.testing.assert_allclose(sol.x, np.linalg.lstsq(rows, b)[0], atol=1e-6)
    twice = lambda x: jnp.stack([jnp.sum(x) - 1, jnp.sum(x) - 1])
    for kind in ("eq", "ineq"):
        sol = solve(objective, [0.0, 0.0], **{kind: twice})
        assert sol.status == Status.CONVERGED
        np.testing.assert_allclose(sol.x, 0.5, atol=2e-8)
        # From prices 0 multipliers stay in the range of the Jacobian: those of minimum norm.
        np.testing.assert_allclose(getattr(sol.multipliers, kind), 1.5, rtol=1e-7)


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        (lambda x: x[0] - 2 * x[1], {"ineq": lambda x: x[0] + x[1] - 100.0}),
        (lambda x: -(x @ x), {"bounds": (0.0, None)}),
        (lambda x: x[0], {"eq": lambda x: x[0] - x[1]}),
    ],
)
def test_unbounded(objective, options):
    sol = solve(objective, [1.0, 1.0], max_steps=1000, **options)
    assert sol.status in (Status.DUAL_INFEASIBLE, Status.DIVERGED), sol


@pytest.mark.parametrize("inner", [None, jol.TrustRegion("exact")], ids=["LBFGS", "TrustRegion"])
def test_where_no_multiplier_exists_it_does_not_converge(inner):
    """The cusp of Kuhn and Tucker: at its minimum (1, 0) no constraint qualification holds."""
    cusp = lambda x: jnp.stack([x[1] - (1 - x[0]) ** 3, -x[1]])
    solver = jol.AugmentedLagrangian(inner)
    sol = solve(lambda x: -x[0], [0.5, 0.5], solver=solver, ineq=cusp, max_steps=3000)
    assert sol.status == Status.STALLED
    # (1 - x)^3 <= 1e-8 is all that a tolerance of 1e-8 can see.
    np.testing.assert_allclose(sol.x, [1, 0], atol=5e-3)
    assert np.min(sol.multipliers.ineq) > 1e4  # they grow without bound


def test_what_is_not_finite():
    run = jax.jit(lambda x0: solve(lambda x: x @ x, x0, eq=lambda x: x[0] - 1))
    sol = run(jnp.array([jnp.nan, 0.0]))
    assert sol.status == Status.NONFINITE
    assert sol.steps == 1
    assert run(jnp.zeros(2)).status == Status.CONVERGED
    with pytest.raises(ValueError, match=r"`ineq` is not finite at `x0`: entry 1 is nan"):
        solve(lambda x: x[0], [-1.0], ineq=lambda x: jnp.stack([x[0], jnp.log(x[0])]))
    # Beyond x = 1 there is nothing: the search comes back from there, and the answer is inside.
    sol = solve(lambda x: -x[0], [0.0], ineq=lambda x: -jnp.sqrt(1 - x) + 0.5)
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, 0.75, atol=1e-7)
    # A fixed step that leaves for good: NONFINITE, and the last point that was one.
    solver = jol.AugmentedLagrangian(jol.FixedStep(0.5), penalty=1.0)
    sol = solve(lambda x: jnp.exp(x[0] ** 2), [3.0], solver=solver, eq=lambda x: x[0])
    assert sol.status in (Status.NONFINITE, Status.DIVERGED)
    assert np.all(np.isfinite(sol.x))


def test_bad_options():
    with pytest.raises(TypeError, match=r"inner=.*must be a solver of smooth.*Write `LBFGS\(\)`"):
        jol.AugmentedLagrangian(jol.LBFGS)
    for wrong in (jol.InteriorPoint(), jol.NewtonRoot(), "LBFGS", SOLVER):
        with pytest.raises(TypeError, match=r"inner=.*must be a solver of smooth objectives"):
            jol.AugmentedLagrangian(wrong)
    with pytest.raises(ValueError, match=r"penalty=...\) must be a number > 0"):
        jol.AugmentedLagrangian(penalty=0.0)
    with pytest.raises(ValueError, match=r"inner_steps=...\) must be an integer >= 1"):
        jol.AugmentedLagrangian(jol.FixedStep(0.1), inner_steps=0)
    for inner in (None, jol.LBFGS()):
        with pytest.raises(TypeError, match=r"compares values.*Pass inner=Optax"):
            jol.AugmentedLagrangian(inner, inner_steps=10)
    solver = jol.AugmentedLagrangian(jol.TrustRegion())
    with pytest.raises(TypeError, match=r"TrustRegion takes no bounds.*LBFGSB"):
        solve(lambda x: x @ x, [1.0], solver=solver, bounds=(0.0, None))


# -- cost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", [jol.LBFGS(), jol.LBFGSB(), jol.Nesterov()], ids=str)
def test_one_evaluation_a_step(inner):
    """f, c and g stand once in a step: sinh, cbrt and atan, whose derivatives are others."""
    problem = jol.Problem(
        lambda x: jnp.sum(jnp.sinh(x)),
        eq=lambda x: jnp.cbrt(x[:1]),
        ineq=lambda x: jnp.arctan(x[:2]),
    )
    solver = jol.AugmentedLagrangian(inner)
    state = solver.init(problem, jnp.ones(3))
    program = str(jax.make_jaxpr(lambda state: solver.step(problem, state))(state))
    for name in ("sinh", "cbrt", "atan"):
        assert program.count(f" {name} ") == 1, name


N = 100_000
CLASSES = {1: jnp.zeros(N, int), 1000: jnp.arange(N) % 1000}


@pytest.mark.parametrize("m", CLASSES)
def test_a_hundred_thousand_variables(m):
    """Projection on m planes sum x_class = 1, bounded memory: no (m, n), let alone (n, n)."""
    classes = CLASSES[m]
    p = jnp.asarray(np.random.default_rng(0).standard_normal(N))
    sums = lambda x: jnp.zeros(m, x.dtype).at[classes].add(x)
    problem = jol.Problem(lambda x, p: 0.5 * jnp.sum((x - p) ** 2), eq=lambda x, p: sums(x) - 1)
    run = jax.jit(lambda p: jol.solve(problem, jnp.zeros(N), (p,), solver=SOLVER, max_steps=500))
    program = run.lower(p).compile()
    # Ten pairs, twice while they change hands, and vectors; J alone would be m vectors.
    assert program.memory_analysis().temp_size_in_bytes < 100 * 8 * N
    sol = run(p)
    assert sol.status == Status.CONVERGED
    price = (sums(p) - 1) / (N // m)
    np.testing.assert_allclose(sol.x, p - price[classes], atol=1e-7)
    np.testing.assert_allclose(sol.multipliers.eq, price, atol=1e-7)
    assert sol.steps <= 100


def test_the_derivative_of_a_hundred_thousand_variables_needs_no_matrix():
    """By GMRES on products with the KKT matrix; here it is w less its mean in each class."""
    classes, m = CLASSES[1000], 1000
    sums = lambda x: jnp.zeros(m, x.dtype).at[classes].add(x)
    problem = jol.Problem(lambda x, p: 0.5 * jnp.sum((x - p) ** 2), eq=lambda x, p: sums(x) - 1)
    p, w = jnp.asarray(np.random.default_rng(1).standard_normal((2, N)))
    reach = lambda p: w @ jol.solve(problem, jnp.zeros(N), (p,), solver=SOLVER).x
    gradient = jax.jit(jax.grad(reach))
    assert gradient.lower(p).compile().memory_analysis().temp_size_in_bytes < 100 * 8 * N
    np.testing.assert_allclose(gradient(p), w - (sums(w) / (N // m))[classes], atol=1e-10)


# -- batches, dtypes, derivatives ------------------------------------------------------------------


def test_two_thousand_lanes_of_different_difficulty_some_of_them_infeasible():
    rng = np.random.default_rng(0)
    a, b = jnp.asarray(rng.uniform(10, 120, 2000)), jnp.asarray(rng.uniform(30, 60, 2000))
    one = lambda a, b: jol.solve(HS71, HS71_START, (a, b), solver=SOLVER, max_steps=1000)
    run = jax.jit(jax.vmap(one))
    batch = run(a, b)
    # By the inequality of the means the product is at most (b / 4)^2: beyond, there is no point.
    possible = np.asarray(a < 0.999 * (b / 4) ** 2)
    status = np.asarray(batch.status)
    assert 1000 < possible.sum() < 1900
    assert np.mean(status[possible] == Status.CONVERGED) > 0.99
    beyond = status[np.asarray(a > 1.001 * (b / 4) ** 2)]
    assert not np.any(beyond == Status.CONVERGED)
    assert np.mean(beyond == Status.PRIMAL_INFEASIBLE) > 0.95
    assert not np.any(status[possible] == Status.PRIMAL_INFEASIBLE)
    good = status == Status.CONVERGED
    measured = jax.vmap(lambda x, m, a, b: HS71.residuals(jol.Point(x, m), (a, b)).worst())
    assert np.all(np.asarray(measured(batch.x, batch.multipliers, a, b))[good] <= 1.6e-8)
    assert len(set(np.asarray(batch.steps)[good].tolist())) >= 20
    alone = jax.jit(one)
    for lane in (0, 7, int(np.argmax(np.where(good, batch.steps, 0)))):
        single = alone(a[lane], b[lane])
        assert single.status == batch.status[lane]
        if good[lane]:
            np.testing.assert_allclose(single.value, batch.value[lane], rtol=1e-6)


def test_a_sweep_over_penalties():
    """They are leaves: one program. The answer does not depend on them."""
    problem = jol.Problem(lambda x: x[0] * x[1], eq=lambda x: x[0] ** 2 + 4 * x[1] ** 2 - 8)
    run = lambda rho: jol.solve(
        problem, jnp.array([1.0, -2.0]), solver=jol.AugmentedLagrangian(jol.BFGS(), penalty=rho)
    )
    sols = jax.jit(jax.vmap(run))(jnp.logspace(-1, 3, 5))
    assert np.all(sols.status == Status.CONVERGED)
    np.testing.assert_allclose(sols.value, -2, rtol=1e-7)
    np.testing.assert_allclose(sols.multipliers.eq, 0.25, rtol=1e-6)
    assert sols.state.number[0] > sols.state.number[4]  # the larger rho, the fewer inner problems


def test_float32():
    sol = jol.solve(
        HS71, HS71_START.astype(jnp.float32), (jnp.float32(25), jnp.float32(40)), solver=SOLVER
    )
    assert sol.status == Status.CONVERGED
    # Default tolerance 3.5e-4, multipliers and inverse curvatures near 1.
    np.testing.assert_allclose(sol.x, [1.0, 4.743, 3.82115, 1.379408], atol=2e-3)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(sol.state)}
    assert dtypes == {np.dtype("float32"), np.dtype("int32"), np.dtype("bool")}
    sol = jol.minimize(
        lambda x: x @ x, jnp.ones(2, jnp.float32), ineq=lambda x: 1 - x[0] + x[1] ** 2,
        eq=lambda x: x[0] + 1, solver=SOLVER,
    )  # fmt: skip
    assert sol.status == Status.PRIMAL_INFEASIBLE


def all_of_hs71(p):
    sol = jol.solve(HS71, HS71_START, (p[0], p[1]), tol=1e-10, solver=SOLVER)
    m = sol.multipliers
    return jnp.concatenate([sol.x, jnp.stack([m.eq, m.ineq, sol.value]), m.lower, m.upper])


def test_derivatives_equal_finite_differences():
    jacobian = jax.jit(jax.jacfwd(all_of_hs71))(HS71_CONSTANTS)
    answer = jax.jit(all_of_hs71)
    h = 1e-4  # error h^2 times third derivatives, and 1e-10 / h
    for i in range(2):
        move = h * jnp.eye(2)[i]
        difference = (answer(HS71_CONSTANTS + move) - answer(HS71_CONSTANTS - move)) / (2 * h)
        np.testing.assert_allclose(jacobian[:, i], difference, atol=1e-5)
    # Shadow prices: d value / d a = ineq_mult, d value / d b = -eq_mult.
    np.testing.assert_allclose(jacobian[6], [0.5522937, -0.1614686], atol=1e-7)


# -- training --------------------------------------------------------------------------------------


def _batches(n, size, epochs):
    """Indices (steps, size): every epoch a new order."""
    rng = np.random.default_rng(0)
    orders = [rng.permutation(n)[: n // size * size].reshape(-1, size) for _ in range(epochs)]
    return jnp.asarray(np.concatenate(orders))


def _train(solver, problem, start, data, indices, *limits):
    """The last state, and the multipliers at every step."""
    pick = lambda i: jax.tree.map(lambda leaf: leaf[i], data)
    state = solver.init(problem, start, (pick(indices[0]), *limits))

    def one(state, i):
        state = solver.step(problem, state, (pick(i), *limits))
        return state, state.point.multipliers.ineq

    return jax.jit(lambda state: jax.lax.scan(one, state, indices))(state)


def _breast_cancer():
    from sklearn.datasets import load_breast_cancer

    raw = load_breast_cancer()
    features = (raw.data - raw.data.mean(0)) / raw.data.std(0)
    # Two groups, by texture; mean(side * score) is the difference of their mean scores.
    group = np.where(raw.data[:, 1] > np.median(raw.data[:, 1]), 1.0, -1.0)
    share = np.where(group > 0, np.mean(group > 0), np.mean(group < 0))
    return tuple(map(jnp.asarray, (features, 2.0 * raw.target - 1, group / share)))


def _score(w, features):
    return features @ w["slope"] + w["offset"]


def _logistic(w, data, gap, size):
    features, label, _ = data
    losses = jnp.logaddexp(0.0, -label * _score(w, features))
    return jnp.mean(losses) + 0.005 * jnp.sum(w["slope"] ** 2)


def _fair_and_short(w, data, gap, size):
    """The groups' mean scores differ by at most `gap`, and |slope|^2 <= size."""
    features, _, side = data
    difference = jnp.mean(side * _score(w, features))
    return jnp.stack([difference - gap, -difference - gap, jnp.sum(w["slope"] ** 2) - size])


def test_logistic_regression_with_fairness_and_a_norm_by_batches():
    """The prices it learns from batches are the shadow prices of the problem on all data."""
    data, gap, size = _breast_cancer(), 0.2, 1.0
    problem = jol.Problem(_logistic, ineq=_fair_and_short)
    start = {"slope": jnp.zeros(30), "offset": jnp.zeros(())}
    optimum = jax.jit(lambda *limits: jol.solve(problem, start, (data, *limits), tol=1e-10))
    best, h = optimum(gap, size), 1e-4
    assert best.status == Status.CONVERGED
    value = lambda *limits: optimum(*limits).value
    by_gap = -(value(gap + h, size) - value(gap - h, size)) / (2 * h)
    by_size = -(value(gap, size + h) - value(gap, size - h)) / (2 * h)
    shadow = np.array([0, by_gap, by_size])
    np.testing.assert_allclose(best.multipliers.ineq, shadow, rtol=1e-4, atol=1e-8)

    indices = _batches(569, 64, 200)
    rate = optax.cosine_decay_schedule(0.01, len(indices))
    solver = jol.AugmentedLagrangian(jol.Optax(optax.adam(rate)), inner_steps=50)
    state, prices = _train(solver, problem, start, data, indices, gap, size)
    # With six other orders of the batches they were within 2% and 9%: a price moves by rho times
    # the mean of 50 batches, 0.1 times about 0.05, and the last fifth is six such moves.
    learned = np.mean(prices[-len(indices) // 5 :], axis=0)
    np.testing.assert_allclose(learned[0], 0, atol=1e-3)
    np.testing.assert_allclose(learned[1], by_gap, rtol=0.05)
    np.testing.assert_allclose(learned[2], by_size, rtol=0.15)
    w = state.point.x
    assert np.all(_fair_and_short(w, data, gap, size) <= 0.02)
    assert abs(_logistic(w, data, gap, size) - best.value) <= 0.005
    # Without the constraints it is neither fair nor short.
    free = jol.minimize(_logistic, start, (data, gap, size)).x
    assert _fair_and_short(free, data, gap, size)[1] > 1


def _network(w, pixels):
    return jnp.tanh(pixels @ w["in"]) @ w["out"]


def _cross_entropy(w, data, size):
    pixels, label = data
    logits = _network(w, pixels)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], 1))


def _size(w, data, size):
    return jnp.sum(w["in"] ** 2) + jnp.sum(w["out"] ** 2) - size


def test_a_network_of_limited_norm_by_batches():
    """Digits by 64 -> 32 -> 10 with |w|^2 <= 60: kept, and at the price that the gradients say."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    data, size = (jnp.asarray(raw.data / 16), jnp.asarray(raw.target)), 60.0
    rng = np.random.default_rng(0)
    start = {"in": rng.standard_normal((64, 32)) / 8, "out": rng.standard_normal((32, 10)) / 6}
    start = jax.tree.map(jnp.asarray, start)
    problem = jol.Problem(_cross_entropy, ineq=_size)
    indices = _batches(1797, 128, 100)
    rate = optax.cosine_decay_schedule(0.01, len(indices))
    solver = jol.AugmentedLagrangian(jol.Optax(optax.adam(rate)), penalty=1e-3, inner_steps=50)
    state, prices = _train(solver, problem, start, data, indices, size)
    w = state.point.x
    assert abs(_size(w, data, size)) <= 0.01 * size
    assert np.mean(np.argmax(_network(w, data[0]), 1) == raw.target) > 0.95
    f, g = (jax.grad(fun)(w, data, size) for fun in (_cross_entropy, _size))
    dot = lambda a, b: sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), a, b)))
    learned = np.mean(prices[-len(indices) // 5 :])
    np.testing.assert_allclose(learned, -dot(f, g) / dot(g, g), rtol=0.05)


def test_from_a_solution_with_its_multipliers_one_step_is_enough():
    problem = jol.Problem(
        lambda x, c: x[0] + x[1] ** 2, eq=lambda x, c: x @ x - c, ineq=lambda x, c: 0.5 - x[1]
    )
    solve = lambda x0: jol.solve(problem, x0, (4.0,), solver=jol.AugmentedLagrangian())
    sol = solve(jnp.array([1.0, 1.0]))
    assert sol.status == Status.CONVERGED
    assert solve(sol).steps == 1
    assert solve(sol.x).steps > 5  # the multipliers have to be found again

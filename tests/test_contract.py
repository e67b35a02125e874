"""The contract: what holds for every solver of the table on every case it is run on, in float64.

A table (`solvers_table.py`) times a contract. Answers are checked against the plain objective,
differentiated here, and against minima known in advance; the solver is never asked.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite.core import TABLE, Status
from jaxopt_lite.solvers.conic import PROGRAM_SOLVERS

from .problems import by_name
from .solvers_table import (
    FAMILY,
    PENALISED_COSH,
    ROWS,
    Row,
    answer,
    case_data,
    family,
    family_solver,
    gradient_of,
    pairs,
    penalised_cosh,
    problem_of,
    row_by_name,
)

MAIN = [row for row in ROWS if not row.variant]
FAR = jnp.array([5.0, -3.0])
NEAR = jnp.array([0.5, -0.4])
CENTRE = jnp.array([1.0, -2.0])


def family_args(weight=0.5, centre=CENTRE):
    return jnp.asarray(weight), centre


def solve_family(row: Row, x0, args, **options):
    options = {"tol": row.tol, "max_steps": row.max_steps} | options
    return jol.solve(family(row), x0, args, solver=family_solver(row), **options)


def same_solution(one: jol.Solution, other: jol.Solution) -> None:
    """Equal statuses and steps; numbers equal to the rounding that another fusion may bring."""
    assert np.array_equal(one.status, other.status)
    assert np.array_equal(one.success, other.success)
    assert np.array_equal(one.steps, other.steps)
    # Rounding of one step, 1e-16, is amplified by at most a few hundred contracting steps.
    np.testing.assert_allclose(one.x, other.x, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(one.value, other.value, rtol=1e-9, atol=1e-9)
    # The residual is a difference that cancels: compare it on the scale of the problem, 1.
    ours, theirs = one.residuals.worst(), other.residuals.worst()
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


def test_every_solver_has_a_row():
    # Those of equations alone have theirs in test_equations.py; those that take constraints are
    # tested with them, test_interior_point.py for instance, and may have one here too.
    covered = {type(family_solver(row)).__name__ for row in ROWS}
    names = {name for name, cls in TABLE.items() if cls.kinds != ("equations",)}
    constrained = {name for name in names if "eq" in TABLE[name].accepts}
    assert covered | constrained == names


def test_every_public_solver_is_in_the_table():
    public = {
        name
        for name in jol.__all__
        if isinstance(getattr(jol, name), type)
        and issubclass(getattr(jol, name), jol.Solver)
        and getattr(jol, name) is not jol.Solver
    }
    assert public == set(TABLE) | set(PROGRAM_SOLVERS)


def test_no_two_solvers_have_equal_structures():
    """A wrong program answered, once in a thousand compilations: jax.jit looks up by equality."""
    classes = [*TABLE.values(), *PROGRAM_SOLVERS.values()]
    structures = [jax.tree.structure(_plain(cls)) for cls in classes]
    for i, one in enumerate(structures):
        assert all(one != other for other in structures[:i])


def _plain(cls):
    """An instance with a 0 in each field: only its structure matters."""
    solver = object.__new__(cls)
    for field in dataclasses.fields(cls):
        object.__setattr__(solver, field.name, 0)
    return solver


# -- the answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "case"), pairs(), ids=str)
def test_answer_is_independently_right(row, case):
    sol = answer(row, case)
    _, args = case_data(case)
    gradient = np.max(np.abs(gradient_of(case)(sol.x, *args)))
    if case.name in row.stubborn:
        assert sol.status in (Status.CONVERGED, Status.STALLED, Status.MAX_STEPS)
    else:
        # Another program rounds the gradient differently: by eps times the terms it sums, which
        # change by as much where x changes by eps, each entry of it up or down.
        eps = np.finfo(np.float64).eps
        up = sol.x * (1 + 4 * eps * np.sign(np.cos(np.arange(sol.x.size)).reshape(sol.x.shape)))
        around = [np.max(np.abs(gradient_of(case)(x, *args))) for x in (up, 2 * sol.x - up)]
        noise = 1e-11 * (1 + abs(float(sol.value))) + max(abs(g - gradient) for g in around)
        assert abs(gradient - sol.residuals.stationarity) <= 1e-6 * gradient + noise
        assert sol.status == Status.CONVERGED, sol
    if sol.status == Status.CONVERGED:
        assert gradient <= 10 * row.tol
    if case.minima:
        distance = min(abs(float(sol.value) - m) / (1 + abs(m)) for m in case.minima)
        assert distance <= 1e-6, sol
    assert sol.x.dtype == jnp.float64
    assert bool(sol.success) == (sol.status == Status.CONVERGED)


@pytest.mark.parametrize("row", MAIN, ids=str)
def test_answer_is_certified(row):
    sol = solve_family(row, FAR, family_args())
    certificate = jol.certify(FAMILY, sol, family_args(), tol=10 * row.tol)
    assert certificate.residuals.worst() <= 10 * row.tol
    assert bool(certificate.certified), certificate


@pytest.mark.parametrize("row", MAIN, ids=str)
def test_one_step_ends_in_max_steps(row):
    for sol in (
        solve_family(row, FAR, family_args(), max_steps=1),
        jol.solve(
            problem_of(by_name("booth"), row.residuals),
            jnp.zeros(2),
            solver=row.make("booth"),
            max_steps=1,
        ),
    ):
        assert sol.status == Status.MAX_STEPS
        assert sol.steps == 1
        assert not sol.success


@pytest.mark.parametrize("row", MAIN, ids=str)
def test_start_at_the_answer_takes_one_step(row):
    best = solve_family(row_by_name("TrustRegion-exact"), FAR, family_args(), tol=1e-13).x
    sol = solve_family(row, best, family_args())
    assert sol.status == Status.CONVERGED
    assert sol.steps == 1 + row.extra_steps
    # A step more, taken to make sure, may move x by its rounding.
    np.testing.assert_allclose(sol.x, best, rtol=1e-12 if row.extra_steps else 0)


@pytest.mark.parametrize("row", MAIN, ids=str)
def test_nan_start_under_jit_is_nonfinite(row):
    run = jax.jit(lambda x0: solve_family(row, x0, family_args()))
    sol = run(jnp.array([jnp.nan, 0.0]))
    assert sol.status == Status.NONFINITE
    assert not sol.success
    assert sol.steps == 1
    assert run(FAR).status == Status.CONVERGED  # the same program, a good start


UNBOUNDED = {
    "linear": lambda x: x[0] - 2 * x[1],
    "concave": lambda x: -jnp.sum(x * x) + x[0],
    "cubic": lambda x: x[0] ** 3 + x[1] ** 2 - x[0],
}
# x^3 - x has a local minimum at 1/sqrt 3; this start is on the unbounded side of its maximum.
DOWNHILL = jnp.array([-2.0, 1.0])


@pytest.mark.parametrize("kind", UNBOUNDED)
@pytest.mark.parametrize("row", [row for row in MAIN if not row.residuals], ids=str)
def test_unbounded_problem_is_never_converged(row, kind):
    problem = jol.Problem(UNBOUNDED[kind])
    sol = jol.solve(problem, DOWNHILL, solver=row.make("booth"), max_steps=3000)
    expected = [Status.DIVERGED]
    if not row.searches:  # a fixed step goes down a slope for ever, and can overflow on the way
        expected += [Status.MAX_STEPS, Status.NONFINITE]
    if not row.searches and kind == "cubic":  # or leap over the hill, to the local minimum
        expected += [Status.CONVERGED] if abs(sol.x[0] - 3**-0.5) < 1e-3 else []
    assert sol.status in expected, sol


FEATURES = {
    "eq": {"eq": lambda x, *args: x[0] - 1},
    "ineq": {"ineq": lambda x, *args: x[0] - 1},
    "bounds": {"bounds": (0.0, None)},
    "nonsmooth": {"nonsmooth": jol.prox.L1()},
}


@pytest.mark.parametrize(
    ("row", "feature"),
    [(row, f) for row in MAIN for f in FEATURES if f not in family_solver(row).accepts],
    ids=str,
)
def test_problem_with_a_feature_it_does_not_accept_is_refused(row, feature):
    problem = family(row, **FEATURES[feature])
    solver = family_solver(row)
    name = type(solver).__name__
    with pytest.raises(TypeError, match=rf"{name} takes no {feature}.*has {feature}") as error:
        jol.solve(problem, FAR, family_args(), solver=solver)
    able = [
        n
        for n, cls in TABLE.items()
        if problem.features <= cls.accepts and problem.kind in cls.kinds
    ]
    assert all(n in str(error.value) for n in able)
    with pytest.raises(TypeError, match=rf"{name} takes no {feature}"):
        solver.init(problem, FAR, family_args())


# -- transformations -------------------------------------------------------------------------------


@pytest.mark.parametrize("row", MAIN, ids=str)
def test_jit_equals_eager(row):
    eager = solve_family(row, FAR, family_args())
    jitted = jax.jit(lambda x0, args: solve_family(row, x0, args))(FAR, family_args())
    same_solution(eager, jitted)
    assert jax.tree.structure(eager) == jax.tree.structure(jitted)


@pytest.mark.parametrize("row", MAIN, ids=str)
def test_vmap_equals_loop_lane_by_lane(row):
    weights = jnp.array([0.2, 2.0, 0.5, 1.0, 1.0, 0.5])
    centres = jnp.array(
        [[1.0, -2.0], [0.5, 0.5], [0.0, 3.0], [1.0, 1.0], [jnp.nan, 0.0], [2.0, 0.1]]
    )
    best = solve_family(
        row_by_name("TrustRegion-exact"), NEAR, (weights[3], centres[3]), tol=1e-13
    ).x
    starts = jnp.stack([FAR, NEAR, jnp.array([jnp.nan, 1.0]), best, NEAR, 3 * FAR])

    def run(x0, weight, centre):
        return solve_family(row, x0, (weight, centre))

    batch = jax.jit(jax.vmap(run))(starts, weights, centres)
    one = jax.jit(run)
    lanes = [one(x, w, c) for x, w, c in zip(starts, weights, centres, strict=True)]
    same_solution(batch, jax.tree.map(lambda *leaves: jnp.stack(leaves), *lanes))
    ok, bad = int(Status.CONVERGED), int(Status.NONFINITE)
    assert batch.status.tolist() == [ok, ok, bad, ok, bad, ok]
    assert batch.steps[2] == batch.steps[4] == 1
    assert batch.steps[3] == 1 + row.extra_steps
    assert len(set(batch.steps.tolist())) >= 3  # lanes really end at different times
    # Dead lanes do not reach their neighbours.
    good = jnp.array([0, 1, 3, 5])
    gradients = jax.vmap(jax.grad(penalised_cosh))(batch.x[good], weights[good], centres[good])
    assert np.max(np.abs(gradients)) <= 10 * row.tol


def valley(x, curvature, centre):
    """Rosenbrock with a curvature and a centre of its own in every lane; minimum 0 at (c, c^2)."""
    return curvature * (x[1] - x[0] ** 2) ** 2 + (x[0] - centre) ** 2


VALLEY = jol.Problem(valley)
LANES = 4000


@pytest.mark.parametrize("name", ["LBFGS", "TrustRegion-exact"])
def test_thousands_of_lanes_of_different_difficulty(name, rng):
    row = row_by_name(name)
    starts = jnp.array(rng.uniform(-2, 2, (LANES, 2)))
    curvatures = jnp.array(10 ** rng.uniform(-1, 2.5, LANES))
    centres = jnp.array(rng.uniform(0.5, 1.5, LANES))

    def run(x0, curvature, centre):
        solver = row.make("rosenbrock")
        return jol.solve(VALLEY, x0, (curvature, centre), solver=solver, tol=1e-8, max_steps=500)

    batch = jax.jit(jax.vmap(run))(starts, curvatures, centres)
    assert np.all(batch.status == Status.CONVERGED)
    gradients = jax.vmap(jax.grad(valley))(batch.x, curvatures, centres)
    assert np.max(np.abs(gradients)) <= 1e-7
    # The only stationary point is the minimiser: |x - c| <= |gradient| / 2 + coupling, safely 1e-5.
    np.testing.assert_allclose(batch.x[:, 0], centres, atol=1e-5)
    # Steps are each lane's own, not those of the slowest.
    steps = np.asarray(batch.steps)
    assert steps.min() < np.median(steps) < steps.max() / 1.5
    one = jax.jit(run)
    for lane in (0, 1, 17, steps.argmax(), steps.argmin()):
        alone = one(starts[lane], curvatures[lane], centres[lane])
        assert alone.steps == batch.steps[lane]
        assert alone.status == batch.status[lane]
        np.testing.assert_allclose(alone.x, batch.x[lane], rtol=1e-9, atol=1e-9)


# -- derivatives -----------------------------------------------------------------------------------


def _directional(row: Row, **options):
    """(weight, centre) -> v.x + value, by the row's solver."""
    v = jnp.array([0.7, -1.3])

    def reach(weight, centre):
        sol = solve_family(row, NEAR, (weight, centre), **options)
        return v @ sol.x + sol.value

    return reach


@pytest.mark.parametrize("row", MAIN, ids=str)
def test_implicit_derivative_equals_finite_differences(row):
    tol = 1e-10 if row.name != "TrustRegion-cg" else 1e-11
    options = {"tol": tol, "max_steps": 20_000}
    reach = jax.jit(_directional(row, **options))
    at = family_args()
    by_weight, by_centre = jax.jit(jax.grad(_directional(row, **options), argnums=(0, 1)))(*at)
    # Answers are right to tol / 0.5, so with h = 1e-4 the differences are to 1e-5 and h^2.
    h = 1e-4
    slope = (reach(at[0] + h, at[1]) - reach(at[0] - h, at[1])) / (2 * h)
    np.testing.assert_allclose(by_weight, slope, rtol=2e-5, atol=2e-5)
    for i, unit in enumerate(np.eye(2)):
        slope = (reach(at[0], at[1] + h * unit) - reach(at[0], at[1] - h * unit)) / (2 * h)
        np.testing.assert_allclose(by_centre[i], slope, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("row", [row for row in MAIN if row.unrolls], ids=str)
def test_unrolled_derivative_equals_implicit(row):
    # Enough steps for the error of derivative and answer to be below 1e-6 for every row.
    steps = 1500 if row.name == "Optax-adam" else 60
    options = {"tol": 1e-10, "max_steps": steps}
    unrolled = jax.grad(_directional(row, differentiate="unrolled", **options), argnums=(0, 1))
    implicit = jax.grad(_directional(row, **options | {"max_steps": 20_000}), argnums=(0, 1))
    got, expected = jax.jit(unrolled)(*family_args()), jax.jit(implicit)(*family_args())
    # Derivatives converge with the iterates, a step or a root of the rate behind: 1e-5 is what
    # 1e-10 in the gradient leaves for line searches whose step lengths are held fixed.
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("row", [row for row in MAIN if not row.unrolls], ids=str)
def test_unrolled_derivative_is_refused_where_it_does_not_pass(row):
    with pytest.raises(ValueError, match=r"unrolled.*does not pass through.*implicit"):
        jax.grad(_directional(row, differentiate="unrolled", max_steps=5))(*family_args())


# -- precision -------------------------------------------------------------------------------------


def _floats(tree):
    """The floating dtypes in a tree."""
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(tree)}
    return {dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)}


@pytest.mark.parametrize(("row", "case"), pairs(float32=True), ids=str)
def test_float32(row, case):
    x0, args = case_data(case, np.float32)
    problem, solver = problem_of(case, row.residuals), row.make(case.name)
    sol = jol.solve(problem, x0, args, solver=solver, tol=1e-3, max_steps=row.max_steps)
    assert sol.status in (Status.CONVERGED, Status.STALLED), sol
    gradient = np.max(np.abs(gradient_of(case)(sol.x, *args)))
    # Rounding of f in float32 hides gradients below sqrt(eps) times its scale: STALLED is honest.
    assert gradient <= (1e-2 if sol.status == Status.CONVERGED else 1e-1)
    assert bool(jnp.isfinite(sol.value))
    assert bool(jnp.all(jnp.isfinite(sol.x)))
    assert _floats(dataclasses.replace(sol, state=None if row.foreign_state else sol.state)) == {
        np.dtype(np.float32)
    }
    if case.minima:  # a gradient of 1e-3 leaves 1e-6 over the curvature, at least 1e-3 here
        assert min(abs(sol.value - m) / (1 + abs(m)) for m in case.minima) <= 1e-3


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("row", MAIN, ids=str)
def test_state_keeps_structure_shapes_and_dtypes(row, dtype):
    solver, args = family_solver(row), jax.tree.map(lambda a: a.astype(dtype), family_args())
    state = solver.init(family(row), FAR.astype(dtype), args)
    after = jax.eval_shape(lambda s: solver.step(family(row), s, args), state)
    before = jax.eval_shape(lambda s: s, state)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
    if not row.foreign_state:
        assert _floats(after) == {np.dtype(dtype)}


# -- compilation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("row", MAIN, ids=str)
def test_second_call_compiles_nothing(row, compilations):
    traces = []

    function = PENALISED_COSH.inner if row.residuals else family(row).objective

    def counted(x, weight, centre):
        traces.append(None)
        return function(x, weight, centre)

    def run(x0, args, tol):
        objective = dataclasses.replace(PENALISED_COSH, inner=counted) if row.residuals else counted
        problem, solver = jol.Problem(objective), family_solver(row)  # built anew each time
        return jol.solve(problem, x0, args, solver=solver, tol=tol, max_steps=row.max_steps)

    starts = [np.array([1.0, 1.0]), FAR, NEAR]
    args = [family_args(0.9, CENTRE + 1), family_args(), family_args(0.7)]
    first = jax.block_until_ready(run(starts[0], args[0], 1e-3))
    assert len(traces) == 1
    with compilations() as count:
        for i in (1, 2):
            second = jax.block_until_ready(run(starts[i], args[i], 1e-4))
    assert count.programs == 0
    assert len(traces) == 1
    assert first.status == second.status == Status.CONVERGED
    assert not np.allclose(first.x, second.x)


@pytest.mark.parametrize("row", MAIN, ids=str)
def test_rebuilt_solver_is_equal_and_hits_an_outer_jit(row):
    jitted = jax.jit(lambda x0, solver: jol.solve(family(row), x0, family_args(), solver=solver).x)
    jitted(FAR, family_solver(row))
    jitted(NEAR, family_solver(row))
    assert jitted._cache_size() == 1
    assert family_solver(row) == family_solver(row)


@pytest.mark.parametrize("row", MAIN, ids=str)
def test_numbers_of_a_solver_are_leaves_and_the_rest_is_not(row):
    solver = family_solver(row)
    leaves, treedef = jax.tree.flatten(solver)
    numbers = [
        f.name
        for f in dataclasses.fields(solver)
        if not f.metadata.get("static") and getattr(solver, f.name) is not None
    ]
    assert len(leaves) == len(numbers)
    assert jax.tree.unflatten(treedef, leaves) == solver

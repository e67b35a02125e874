"""Roots and fixed points: the contract for every solver of equations, and what each one promises.

The rows are here and not in `solvers_table.py`, whose family is an objective. The family of this
file is a displacement T(x) - x with T a contraction: Picard, Newton and brackets all solve it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxopt_lite as jol
from jaxopt_lite.core import TABLE, Solver, Status
from jaxopt_lite.solvers.equations.broyden import inverse_product
from jaxopt_lite.solvers.equations.newton import guarded_lu

from .systems import SYSTEMS, System, discrete_integral_equation, system

# -- the rows --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Row:
    """One solver with its settings, and the systems it is run on from their standard starts."""

    name: str
    make: Callable[[], Solver]
    systems: tuple[str, ...] = ()
    bracket: bool = False  # one unknown, between bounds; the start does not matter
    map: bool = False  # iterates a map: may diverge where there is nothing to find
    unrolls: bool = True

    def __str__(self) -> str:
        return self.name


ALL = tuple(s.name for s in SYSTEMS)
EASY = (
    "discrete_boundary_value",
    "discrete_integral_equation",
    "broyden_tridiagonal",
    "broyden_banded",
)


def _without(*names: str) -> tuple[str, ...]:
    return tuple(name for name in ALL if name not in names)


ROWS = (
    Row(name="NewtonRoot", make=jol.NewtonRoot, systems=ALL),
    Row(
        name="NewtonRoot-gmres",
        make=lambda: jol.NewtonRoot(linear_solver="gmres"),
        systems=(*EASY, "rosenbrock", "powell_singular", "helical_valley"),
        unrolls=False,
    ),
    # Its approximate Jacobians lose the way in the trigonometric function: STALLED.
    Row(name="Broyden", make=jol.Broyden, systems=_without("trigonometric")),
    Row(
        name="Broyden-start",
        make=lambda: jol.Broyden(jacobian="start"),
        systems=(*EASY, "rosenbrock", "powell_singular", "helical_valley", "chebyquad9"),
    ),
    Row(
        name="Broyden-never",
        make=lambda: jol.Broyden(jacobian="never"),
        systems=("discrete_integral_equation", "broyden_banded", "chebyquad7", "rosenbrock"),
    ),
    Row(name="Chord", make=jol.Chord, systems=EASY),
    Row(name="Picard", make=jol.Picard, map=True),
    Row(name="Picard-damped", make=lambda: jol.Picard(damping=0.7), map=True),
    Row(name="Anderson", make=jol.Anderson, systems=("discrete_integral_equation",), map=True),
    Row(name="Bisection", make=jol.Bisection, bracket=True, unrolls=False),
    Row(name="Brent", make=jol.Brent, bracket=True, unrolls=False),
    Row(name="ITP", make=jol.ITP, bracket=True, unrolls=False),
)
BRACKETS = [row for row in ROWS if row.bracket]
OTHERS = [row for row in ROWS if not row.bracket]
TOL = 1e-10


def test_every_solver_of_equations_alone_has_a_row():
    covered = {type(row.make()).__name__ for row in ROWS}
    assert covered == {name for name, cls in TABLE.items() if cls.kinds == ("equations",)}


# -- the family ------------------------------------------------------------------------------------

MIX = np.array([[0.6, -0.5], [0.3, 0.7]])  # |MIX|_2 < 0.87, not symmetric


def displacement(x, weight, centre):
    """T(x) - x with T(x) = c + w tanh(M x), a contraction for w <= 1."""
    return centre + weight * jnp.tanh(jnp.asarray(MIX, x.dtype) @ x) - x


def scalar_displacement(x, weight, centre):
    """The same for one unknown; T stays within w of c, so that c -+ 1 is a bracket."""
    return centre + weight * jnp.tanh(0.8 * x) - x


FAMILY = jol.Problem(None, eq=displacement)
SCALARS = jol.Problem(
    None, eq=scalar_displacement, bounds=lambda weight, centre: (centre - 1, centre + 1)
)
ROOT, FAR, NEAR = np.array([1.0, -2.0]), np.array([5.0, -3.0]), np.array([0.5, -0.4])


def family(row: Row) -> jol.Problem:
    return SCALARS if row.bracket else FAMILY


def centre_of(row: Row, root=ROOT, weight=0.8):
    """The centre for which `root` is the root: known answers come first."""
    root = root[0] if row.bracket else root
    inner = 0.8 * root if row.bracket else MIX @ root
    return root - weight * np.tanh(inner)


def args_of(row: Row, root=ROOT, weight=0.8):
    return jnp.asarray(weight), jnp.asarray(centre_of(row, root, weight))


def start(row: Row, x0):
    return jnp.asarray(x0[0] if row.bracket else x0)


def solve_family(row: Row, x0, args, **options):
    options = {"tol": TOL, "max_steps": 2000} | options
    return jol.solve(family(row), start(row, x0), args, solver=row.make(), **options)


def same_solution(one: jol.Solution, other: jol.Solution) -> None:
    """Equal statuses and steps, and numbers equal to the rounding that another fusion may bring."""
    assert np.array_equal(one.status, other.status)
    assert np.array_equal(one.steps, other.steps)
    np.testing.assert_allclose(one.x, other.x, rtol=1e-9, atol=1e-9)
    ours, theirs = one.residuals.worst(), other.residuals.worst()
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


# -- the contract ----------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_known_root(row):
    sol = solve_family(row, FAR, args_of(row))
    assert sol.status == Status.CONVERGED
    # The Jacobian is T' - I with |T'| <= 0.7: the error is at most 3.3 |F|, in another norm 5.
    np.testing.assert_allclose(sol.x, start(row, ROOT), atol=5 * TOL)
    again = np.max(np.abs(family(row).eq(sol.x, *args_of(row))))
    assert abs(again - sol.residuals.primal) <= 1e-15  # the rounding of |F|, whose terms are <= 3
    assert sol.residuals.primal <= TOL
    # For brackets and others alike the value is 1/2 |F|^2.
    assert sol.value <= TOL**2
    assert "primal" in str(sol) or sol.residuals.primal == 0


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_one_step_ends_in_max_steps(row):
    sol = solve_family(row, FAR, args_of(row), max_steps=1)
    assert sol.status == Status.MAX_STEPS
    assert sol.steps == 1
    assert not sol.success


@pytest.mark.parametrize("row", OTHERS, ids=str)
def test_start_at_the_root_takes_one_step(row):
    sol = solve_family(row, ROOT, args_of(row))
    assert sol.status == Status.CONVERGED
    assert sol.steps == 1
    np.testing.assert_array_equal(sol.x, ROOT)


@pytest.mark.parametrize("row", BRACKETS, ids=str)
def test_root_at_an_end_is_taken_when_it_is_seen(row):
    fun = lambda x: (x - 1) * (x + 2)
    for bounds, steps in (((1.0, 3.0), 1), ((0.0, 1.0), 2)):
        sol = jol.root(fun, 0.5, bounds=bounds, solver=row.make())
        assert (sol.status, sol.steps, sol.x) == (Status.CONVERGED, steps, 1.0)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_nan_is_nonfinite_under_jit_and_an_error_outside(row):
    run = jax.jit(lambda x0, args: solve_family(row, x0, args))
    weight, centre = args_of(row)
    for sol in [run(FAR, (weight, jnp.nan * centre))] + [
        run(np.array([np.nan, 0.0]), (weight, centre)) for _ in range(not row.bracket)
    ]:
        assert sol.status == Status.NONFINITE
        assert sol.steps == 1
        assert not sol.success
    assert run(FAR, (weight, centre)).status == Status.CONVERGED  # the same program
    # The bracket, made of the centre, says so itself.
    with pytest.raises(ValueError, match=r"finite"):
        solve_family(row, FAR, (weight, jnp.nan * centre))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_jit_equals_eager(row):
    eager = solve_family(row, FAR, args_of(row))
    jitted = jax.jit(lambda x0, args: solve_family(row, x0, args))(FAR, args_of(row))
    same_solution(eager, jitted)
    assert jax.tree.structure(eager) == jax.tree.structure(jitted)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_vmap_equals_loop_lane_by_lane(row):
    roots = [ROOT, NEAR, FAR / 3, np.array([0.0, 1.0]), ROOT]
    weights = [0.2, 0.9, 0.8, 0.5, 0.7]
    centres = [centre_of(row, r, w) for r, w in zip(roots, weights, strict=True)]
    centres[4] = centres[4] * np.nan
    starts = np.stack([FAR, NEAR + 1, np.array([np.nan, 1.0]), roots[3], NEAR])
    weights, centres = jnp.array(weights), jnp.array(centres)

    def run(x0, weight, centre):
        return solve_family(row, x0, (weight, centre))

    batch = jax.jit(jax.vmap(run))(starts, weights, centres)
    one = jax.jit(run)
    lanes = [one(x, w, c) for x, w, c in zip(starts, weights, centres, strict=True)]
    same_solution(batch, jax.tree.map(lambda *leaves: jnp.stack(leaves), *lanes))
    ok, bad = int(Status.CONVERGED), int(Status.NONFINITE)
    # A bracket does not look at the start.
    assert batch.status.tolist() == [ok, ok, ok if row.bracket else bad, ok, bad]
    assert batch.steps[4] == 1
    assert len(set(batch.steps.tolist())) >= 3  # lanes really end at different times
    good = np.asarray(batch.status) == ok
    expected = np.stack([start(row, r) for r in roots])
    np.testing.assert_allclose(batch.x[good], expected[good], atol=10 * TOL)


def _reach(row: Row, **options):
    """(weight, centre) -> v.x + value."""
    v = 0.7 if row.bracket else jnp.array([0.7, -1.3])

    def reach(weight, centre):
        sol = solve_family(row, NEAR, (weight, centre), **{"tol": 1e-12} | options)
        return jnp.sum(v * sol.x) + sol.value

    return reach


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_implicit_derivative_equals_finite_differences(row):
    reach, at = jax.jit(_reach(row)), args_of(row)
    by_weight, by_centre = jax.jit(jax.grad(_reach(row), argnums=(0, 1)))(*at)
    forward = jax.jit(lambda c, v: jax.jvp(lambda c: _reach(row)(at[0], c), (c,), (v,))[1])
    unit = jnp.ones_like(at[1])
    np.testing.assert_allclose(forward(at[1], unit), jnp.sum(by_centre), rtol=1e-9, atol=1e-12)
    # Answers are right to 5e-12; with h = 1e-4 differences are to 1e-7 and h^2.
    h = 1e-4
    slope = (reach(at[0] + h, at[1]) - reach(at[0] - h, at[1])) / (2 * h)
    np.testing.assert_allclose(by_weight, slope, rtol=1e-6, atol=1e-6)
    for i, unit in enumerate(np.eye(by_centre.size)):
        unit = unit.reshape(by_centre.shape)
        slope = (reach(at[0], at[1] + h * unit) - reach(at[0], at[1] - h * unit)) / (2 * h)
        np.testing.assert_allclose(jnp.ravel(by_centre)[i], slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("row", [row for row in ROWS if row.unrolls], ids=str)
def test_unrolled_derivative_equals_implicit(row):
    # The slowest, damped Picard, gains 0.8 a step; and derivatives are as good as their steps.
    options = {"max_steps": 150, "tol": 1e-12}
    unrolled = jax.jit(jax.grad(_reach(row, differentiate="unrolled", **options), argnums=(0, 1)))
    got = unrolled(*args_of(row))
    expected = jax.jit(jax.grad(_reach(row), argnums=(0, 1)))(*args_of(row))
    # A Jacobian that is kept, or a direction learnt from steps, is behind by a step or two.
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("row", [row for row in ROWS if not row.unrolls], ids=str)
def test_unrolled_derivative_is_refused_where_it_does_not_pass(row):
    with pytest.raises(ValueError, match=r"unrolled.*does not pass through.*implicit"):
        _reach(row, differentiate="unrolled", max_steps=5)(*args_of(row))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_float32(row):
    args = jax.tree.map(lambda a: a.astype(jnp.float32), args_of(row))
    x0 = FAR.astype(np.float32)
    sol = solve_family(row, x0, args, tol=2e-6)
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, start(row, ROOT), atol=1e-5)
    floats = {leaf.dtype for leaf in jax.tree.leaves(sol)} - {jnp.dtype("int32"), jnp.dtype("bool")}
    assert floats == {jnp.dtype("float32")}
    # Out of reach: the answer of rounding's size, and no claim.
    hopeless = solve_family(row, x0, args, tol=0.0, max_steps=300)
    assert hopeless.status in (Status.STALLED, Status.MAX_STEPS) or hopeless.residuals.primal == 0
    np.testing.assert_allclose(hopeless.x, start(row, ROOT), atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_state_keeps_structure_shapes_and_dtypes(row, dtype):
    args = jax.tree.map(lambda a: a.astype(dtype), args_of(row))
    solver, problem = row.make(), family(row)
    state = solver.init(problem, start(row, FAR).astype(dtype), args)
    after = jax.eval_shape(lambda s: solver.step(problem, s, args), state)
    before = jax.eval_shape(lambda s: s, state)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
        assert new.dtype in (jnp.dtype(dtype), jnp.dtype("int32"), jnp.dtype("bool"))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_second_call_compiles_nothing(row, compilations):
    traces = []
    function = scalar_displacement if row.bracket else displacement

    def counted(x, weight, centre):
        traces.append(None)
        return function(x, weight, centre)

    def run(x0, args, tol):
        problem = jol.Problem(None, eq=counted, bounds=family(row).bounds)  # built anew each time
        return jol.solve(problem, start(row, x0), args, solver=row.make(), tol=tol)

    first = jax.block_until_ready(run(FAR, args_of(row), 1e-3))
    assert len(traces) == 1
    others = [args_of(row, FAR / 5, 0.5), args_of(row, NEAR, 0.6)]
    with compilations() as count:
        for args in others:
            second = jax.block_until_ready(run(NEAR, args, 1e-4))
    assert count.programs == 0
    assert len(traces) == 1
    assert first.status == second.status == Status.CONVERGED
    assert not np.allclose(first.x, second.x)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_rebuilt_solver_is_equal_and_its_numbers_are_leaves(row):
    args = args_of(row)
    jitted = jax.jit(lambda solver: jol.solve(family(row), start(row, FAR), args, solver=solver).x)
    jitted(row.make())
    jitted(row.make())
    assert jitted._cache_size() == 1
    leaves, treedef = jax.tree.flatten(row.make())
    assert all(isinstance(leaf, (int, float)) for leaf in leaves)
    assert jax.tree.unflatten(treedef, leaves) == row.make()


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_other_kinds_of_problem_are_refused(row):
    name = type(row.make()).__name__
    able = [n for n, cls in TABLE.items() if "objective" in cls.kinds and not cls.accepts]
    with pytest.raises(TypeError, match=rf"{name} solves .*equations.*root\(fun, x0\)") as error:
        jol.minimize(lambda x: jnp.sum(x * x), jnp.ones(1), solver=row.make())
    assert able
    assert all(n in str(error.value) for n in able)
    if not row.bracket:
        with pytest.raises(TypeError, match=rf"{name} takes no bounds.*Bisection, ITP, Brent"):
            jol.root(lambda x: x, 0.5, bounds=(-1.0, 1.0), solver=row.make())
    problem = jol.Problem(None, eq=lambda x: x, ineq=lambda x: x)
    with pytest.raises(TypeError, match=rf"{name} takes no ineq"):
        jol.solve(problem, 0.5, solver=row.make())
    with pytest.raises(ValueError, match=r"as many equations as x has entries, 2, .* returned 3"):
        jol.root(lambda x: jnp.concatenate([x, x[:1]]), jnp.ones(2), solver=row.make())


# -- systems ---------------------------------------------------------------------------------------


@functools.cache
def by_scipy(case: System) -> np.ndarray:
    fun = jax.jit(case.fun)
    found = scipy.optimize.root(lambda x: np.asarray(fun(x)), case.x0, tol=1e-13)
    assert np.max(np.abs(found.fun)) < 1e-10
    return found.x


PAIRS = [(row, system(name)) for row in ROWS for name in row.systems]


@pytest.mark.parametrize(("row", "case"), PAIRS, ids=str)
def test_system(row, case):
    sol = jol.root(case.fun, jnp.asarray(case.x0), solver=row.make(), tol=TOL, max_steps=1000)
    assert sol.status == Status.CONVERGED, sol
    values = np.asarray(case.fun(sol.x))
    # Another program rounds F differently, by eps times its largest terms, 1e2 or so.
    assert abs(np.max(np.abs(values)) - sol.residuals.primal) <= 1e-13
    np.testing.assert_allclose(sol.value, 0.5 * values @ values, rtol=1e-2, atol=1e-24)
    if case.unique:
        root = by_scipy(case) if case.root is None else case.root
        # Jacobians at the roots have no singular value below 0.03; at a singular one x^2 = tol.
        np.testing.assert_allclose(sol.x, root, atol=30 * TOL**0.5 if case.singular else 1e-8)


@pytest.mark.parametrize("case", SYSTEMS, ids=str)
def test_default_for_systems_is_at_least_honest(case):
    sol = jol.root(case.fun, jnp.asarray(case.x0), tol=TOL, max_steps=1000)
    residual = np.max(np.abs(case.fun(sol.x)))
    if case.name == "trigonometric":  # has local minima of |F|, and one is near the start
        assert sol.status == Status.STALLED
        gradient = jax.grad(lambda x: 0.5 * jnp.sum(case.fun(x) ** 2))(sol.x)
        assert np.max(np.abs(gradient)) <= 1e-5 < 1e-3 < residual
    else:
        assert sol.status == Status.CONVERGED
        assert residual <= 2 * TOL


@pytest.mark.parametrize(
    ("name", "most"),
    # Quadratic convergence from the start of these: 1e-1, 1e-2, 1e-4, 1e-8, 1e-16.
    [("discrete_boundary_value", 5), ("discrete_integral_equation", 5), ("broyden_banded", 8)],
)
def test_newton_is_quadratic(name, most):
    case = system(name)
    sol = jol.root(case.fun, jnp.asarray(case.x0), solver=jol.NewtonRoot(), tol=TOL, history=True)
    assert sol.steps <= most
    log = np.asarray(sol.history.residuals.primal)[: int(sol.steps)]
    # |F_k+1| <= C |F_k|^2; C is that of the second-last step, and C |F| < 1 there.
    rates = log[1:] / log[:-1] ** 2
    assert rates[-1] <= 3 * max(rates[-3:-1].max(), 1e-15 / log[-2] ** 2)


def test_newton_at_a_double_root_halves_the_error():
    """F = x^2 has F' = 0 at its root: linear convergence with factor 1/2, exactly."""
    options = {"solver": jol.NewtonRoot(), "tol": 1e-12, "history": "x"}
    sol = jol.root(lambda x: x * x, jnp.array(1.0), **options)
    x = np.asarray(sol.history.x)[: int(sol.steps)]
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(x[1:] / x[:-1], 0.5, rtol=1e-12)
    assert sol.steps == 1 + 20  # 4^-20 = 9e-13


@pytest.mark.parametrize("name", ["NewtonRoot", "Chord", "Broyden"])
def test_linear_systems_take_one_step_after_the_start(name, rng):
    matrix, b = jnp.asarray(rng.normal(size=(8, 8))), jnp.asarray(rng.normal(size=8))
    sol = jol.root(lambda x: matrix @ x - b, jnp.zeros(8), solver=getattr(jol, name)(), tol=TOL)
    assert (sol.status, sol.steps) == (Status.CONVERGED, 2)
    np.testing.assert_allclose(sol.x, np.linalg.solve(matrix, b), rtol=1e-9)


def test_singular_jacobian_at_the_start_is_passed():
    # J = [[1/2, -1], [-1, 2]] at (1/4, 1); roots are (0, 0) and (1, 1).
    fun = lambda x: jnp.stack([x[0] ** 2 - x[1], x[1] ** 2 - x[0]])
    x0 = jnp.array([0.25, 1.0])
    assert np.linalg.det(jax.jacobian(fun)(x0)) == 0
    for solver in (jol.NewtonRoot(), jol.NewtonRoot(linear_solver="gmres"), jol.Broyden()):
        sol = jol.root(fun, x0, solver=solver, tol=TOL)
        assert sol.status == Status.CONVERGED
        assert min(np.abs(sol.x).max(), np.abs(sol.x - 1).max()) <= 10 * TOL


def test_underdetermined_direction_is_left_alone():
    """F = (s, 2 s), s = x_0 + x_1 - 1: a line of roots; the least step goes to the nearest."""
    fun = lambda x: (x[0] + x[1] - 1) * jnp.array([1.0, 2.0])
    sol = jol.root(fun, jnp.array([1.0, 2.0]), solver=jol.NewtonRoot(), tol=TOL)
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, [0.0, 1.0], atol=1e-3)  # eps^(1/4) of the step's length


@pytest.mark.parametrize("row", [row for row in OTHERS if not row.map], ids=str)
@pytest.mark.parametrize("x0", [1.0, 0.3, -7.0])
def test_no_root_is_stalled_at_the_least_residual(row, x0):
    sol = jol.root(lambda x: x**2 + 1, x0, solver=row.make())
    assert sol.status == Status.STALLED
    assert sol.residuals.primal >= 1
    if row.name.startswith("NewtonRoot"):  # x^2 is below the rounding of 1 from 1e-8 on
        np.testing.assert_allclose(sol.x, 0, atol=1e-6)


@pytest.mark.parametrize("row", [row for row in OTHERS if row.map], ids=str)
def test_no_fixed_point_is_never_converged(row):
    sol = jol.fixed_point(lambda x: x + 1 + x**2, 0.3, solver=row.make(), max_steps=3000)
    assert sol.status in (Status.DIVERGED, Status.STALLED)
    sol = jol.fixed_point(lambda x: x + 1, 0.3, solver=row.make(), max_steps=3000)
    assert sol.status in (Status.MAX_STEPS, Status.STALLED)
    np.testing.assert_allclose(sol.residuals.primal, 1, rtol=1e-9)


@pytest.mark.parametrize("row", [row for row in OTHERS if not row.map], ids=str)
def test_a_trial_outside_of_the_domain_is_taken_back(row):
    """Newton's step from 4 goes to 4 - 4 log 4 < 0, where log is NaN."""
    sol = jol.root(lambda x: jnp.log(x), jnp.array([4.0]), solver=row.make(), tol=TOL)
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, 1, atol=1e-9)


def test_matrix_free_newton_above_the_dense_limit():
    n = 1000
    t = np.arange(1, n + 1) / (n + 1)
    sol = jol.root(discrete_integral_equation, jnp.asarray(t * (t - 1)), solver=jol.NewtonRoot())
    assert sol.status == Status.CONVERGED
    assert sol.steps <= 6
    assert np.max(np.abs(discrete_integral_equation(sol.x))) <= 1.5e-8


def test_a_thousand_systems_each_with_its_own_steps(rng):
    starts = jnp.asarray(rng.uniform(-2, 2, (1000, 2)))
    solve = lambda x0: jol.root(system("rosenbrock").fun, x0, solver=jol.NewtonRoot(), tol=TOL)
    batch = jax.jit(jax.vmap(solve))(starts)
    assert np.all(batch.status == Status.CONVERGED)
    np.testing.assert_allclose(batch.x, 1, atol=1e-9)
    steps = np.asarray(batch.steps)
    assert steps.min() < np.median(steps) < steps.max()


# -- Broyden ---------------------------------------------------------------------------------------


def test_compact_form_is_the_recursion(rng):
    n, m = 6, 4
    steps, changes = rng.normal(size=(m, n)), rng.normal(size=(m, n))
    matrix = np.eye(n)
    for s, y in zip(steps, changes, strict=True):
        matrix += np.outer(y - matrix @ s, s) / (s @ s)
    v = rng.normal(size=n)
    padded = [jnp.asarray(np.concatenate([np.zeros((3, n)), rows])) for rows in (steps, changes)]
    np.testing.assert_allclose(
        inverse_product(*padded, jnp.asarray(v)), np.linalg.solve(matrix, v), rtol=1e-9, atol=1e-9
    )


def test_broyden_ends_on_linear_systems_after_twice_as_many_steps_as_unknowns(rng):
    """Theorem of Gay (1979), for unit steps, which a matrix near the identity allows."""
    n = 6
    matrix = jnp.asarray(np.eye(n) + 0.15 * rng.normal(size=(n, n)))
    b = jnp.asarray(rng.normal(size=n))
    solver = jol.Broyden(jacobian="never")
    sol = jol.root(lambda x: matrix @ x - b, jnp.zeros(n), solver=solver, tol=TOL)
    assert sol.status == Status.CONVERGED
    assert n < sol.steps <= 2 * n + 1


def test_broyden_is_superlinear():
    case = system("broyden_tridiagonal")
    solver = jol.Broyden(jacobian="start")
    sol = jol.root(case.fun, jnp.asarray(case.x0), solver=solver, tol=1e-12, history=True)
    chord = jol.root(case.fun, jnp.asarray(case.x0), solver=jol.Chord(), tol=1e-12, history=True)
    rate = lambda s: (lambda r: r[1:] / r[:-1])(np.asarray(s.history.residuals.primal)[: s.steps])
    # The chord's rate is constant, Broyden's goes to zero.
    np.testing.assert_allclose(rate(chord)[-5:], rate(chord)[-1], rtol=0.1)
    assert np.median(rate(sol)[-3:]) < 0.5 * rate(chord)[-1]
    assert 2 * sol.steps <= chord.steps + 2


def test_guarded_lu_is_finite_for_any_matrix():
    for matrix in (jnp.zeros((3, 3)), jnp.ones((3, 3)), jnp.full((3, 3), jnp.nan)):
        lu, pivots, good = guarded_lu(matrix)
        assert not good
        solved = jax.scipy.linalg.lu_solve((lu, pivots), jnp.array([1.0, 2.0, 3.0]))
        assert np.all(np.isfinite(solved))
    assert guarded_lu(jnp.eye(3))[2]


# -- evaluations -----------------------------------------------------------------------------------

DERIVATIVE_FREE = [row for row in ROWS if row.map or row.bracket or row.name == "Broyden-never"]


@pytest.mark.parametrize("row", DERIVATIVE_FREE, ids=str)
def test_one_evaluation_a_step_and_no_derivative(row):
    """The function lives on the host: there is nothing to differentiate, and calls are counted."""
    calls = []

    def on_host(x):
        calls.append(np.asarray(x))
        return np.cos(x) - x

    def fun(x):
        return jax.pure_callback(on_host, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    bounds = {"bounds": (0.0, 1.0)} if row.bracket else {}
    sol = jol.root(fun, jnp.array([0.5]), solver=row.make(), tol=TOL, **bounds)
    np.testing.assert_allclose(sol.x, 0.7390851332151607, atol=TOL)
    assert len(calls) == sol.steps


# -- brackets --------------------------------------------------------------------------------------

# (fun, ends): simple roots, a steep one, one of multiplicity 9, one at the end of a flat.
SCALAR = {
    "cubic": (lambda x: x**3 - 2 * x - 5, 2.0, 3.0),
    "cosine": (lambda x: jnp.cos(x) - x, 0.0, 1.0),
    "exponential": (lambda x: jnp.exp(x) - 2, -4.0, 10.0),
    "lambert": (lambda x: x * jnp.exp(x) - 1, -1.0, 1.0),
    "steep": (lambda x: jnp.tanh(50 * (x - 0.3)) + 1e-3, -1.0, 5.0),
    "power": (lambda x: x**20 - 1, 0.0, 5.0),
    "multiple": (lambda x: x**9, -1.0, 1.7),
    "linear": (lambda x: 1e12 * (x - math.pi), 0.0, 10.0),
}
WIDTH = 1e-10


def _to_width(name: str, solver, width=WIDTH):
    """The solve that ends by the width of the bracket alone."""
    fun, a, b = SCALAR[name]
    return jol.root(fun, 0.5 * (a + b), bounds=(a, b), solver=solver, tol=1e20)


@pytest.mark.parametrize("name", SCALAR)
def test_bisection_takes_exactly_the_steps_of_theory(name):
    _, a, b = SCALAR[name]
    sol = _to_width(name, jol.Bisection(width=WIDTH))
    steps = 2 + math.ceil(math.log2((b - a) / WIDTH))
    hit = sol.residuals.primal == 0  # a midpoint that is the root ends it sooner
    assert sol.steps == steps or (hit and sol.steps < steps)
    assert sol.state.bracket.width <= WIDTH or hit
    assert sol.status == Status.CONVERGED


@pytest.mark.parametrize("width", [1.0, 0.5, 1e-3, 2.0**-20, 1e-12])
@pytest.mark.parametrize("extra", [0.0, 1.0, 3.0])
def test_itp_is_never_slower_than_bisection_by_more_than_extra(width, extra):
    for name, (_, a, b) in SCALAR.items():
        sol = _to_width(name, jol.ITP(width=width, extra=extra))
        assert sol.status == Status.CONVERGED
        theory = 2 + max(0, math.ceil(math.log2((b - a) / width)))
        assert int(sol.steps) <= theory + extra, name


def test_itp_keeps_its_bound_where_interpolation_fails(rng):
    """Odd powers and jumps, which make regula falsi crawl; ten thousand brackets in a batch."""
    n, width = 10_000, 1e-9
    roots, powers = jnp.asarray(rng.uniform(-1, 1, n)), jnp.asarray(rng.integers(0, 12, n))
    lower = roots - jnp.asarray(10 ** rng.uniform(-3, 2, n))
    upper = roots + jnp.asarray(10 ** rng.uniform(-3, 2, n))

    def run(solver, root, power, a, b):
        fun = lambda x: jnp.sign(x - root) * jnp.abs(x - root) ** (1.5 * power.astype(x.dtype))
        return jol.root(fun, a, bounds=(a, b), solver=solver, tol=1e30)

    batch = jax.jit(jax.vmap(run, in_axes=(None, 0, 0, 0, 0)))
    theory = 2 + np.ceil(np.log2(np.asarray(upper - lower) / width))
    itp = batch(jol.ITP(width=width), roots, powers, lower, upper)
    assert np.all(itp.status == Status.CONVERGED)
    assert np.all(np.asarray(itp.steps) <= theory + 2)
    assert np.all(np.abs(itp.x - roots) <= width)
    halving = batch(jol.Bisection(width=width), roots, powers, lower, upper)
    hit = np.asarray(halving.residuals.primal) == 0
    assert np.all((np.asarray(halving.steps) == theory) | hit)
    brent = batch(jol.Brent(width=width), roots, powers, lower, upper)
    assert np.all(brent.status == Status.CONVERGED)
    assert np.all(np.abs(brent.x - roots) <= width)


def test_counts_beside_scipy():
    """Evaluations to a width of 1e-10: as few as Brent's own procedure, and as TOMS 748."""
    counts = {"Brent": [], "ITP": [], "brentq": [], "toms748": []}
    for name, (fun, a, b) in SCALAR.items():
        if name == "multiple":
            continue  # there the stopping rules decide: 99, 38, 99 and 96
        jitted = jax.jit(fun)
        for solver in ("Brent", "ITP"):
            sol = _to_width(name, getattr(jol, solver)(width=WIDTH))
            counts[solver].append(int(sol.steps))
        for peer in ("brentq", "toms748"):
            find, options = getattr(scipy.optimize, peer), {"xtol": WIDTH, "rtol": 1e-15}
            found = find(lambda x, f=jitted: float(f(x)), a, b, full_output=True, **options)[1]
            counts[peer].append(found.function_calls)
    # brentq promises xtol for the better end, we for the width: one more evaluation at times.
    for ours, theirs in zip(counts["Brent"], counts["brentq"], strict=True):
        assert ours <= theirs + 1
    assert sum(counts["Brent"]) <= sum(counts["toms748"])
    assert sum(counts["ITP"]) <= 1.1 * sum(counts["toms748"])


@pytest.mark.parametrize("name", ["cubic", "cosine", "lambert", "exponential"])
def test_brent_and_itp_are_superlinear(name):
    """Six more digits cost two evaluations or three, where bisection needs twenty."""
    fun, a, b = SCALAR[name]
    for solver in (jol.Brent(), jol.ITP()):
        few, many = (
            jol.root(fun, a, bounds=(a, b), solver=solver, tol=tol).steps for tol in (1e-6, 1e-12)
        )
        assert many - few <= 3


# Where there is a change of sign and no root. STALLED is at the place of the change.
NO_ROOT = {
    "pole": (lambda x: 1 / x, -1.0, 2.0, 0.0),
    "pole of tan": (jnp.tan, 1.0, 2.0, math.pi / 2),
    "pole off zero": (lambda x: 1 / (x - 3), 0.0, 5.5, 3.0),
    "jump": (lambda x: jnp.where(x > 0, 1.0, -1.0), -1.0, 2.0, 0.0),
    "jump off zero": (lambda x: jnp.where(x > 0.7, 2.0, -1.0), -1.0, 2.0, 0.7),
    "too steep": (lambda x: 1e20 * (x - math.pi / 3) + 1e3, 0.0, 5.0, math.pi / 3),
}


@pytest.mark.parametrize("row", BRACKETS, ids=str)
@pytest.mark.parametrize("name", NO_ROOT)
def test_change_of_sign_without_a_root_is_stalled(row, name):
    fun, a, b, place = NO_ROOT[name]
    sol = jol.root(fun, a, bounds=(a, b), solver=row.make())
    assert sol.status == Status.STALLED
    assert sol.residuals.primal >= 1
    np.testing.assert_allclose(sol.x, place, rtol=4e-16, atol=1e-300)
    assert bool(jnp.isfinite(sol.value))


@pytest.mark.parametrize("row", BRACKETS, ids=str)
def test_infinite_value_at_an_end_is_a_sign(row):
    sol = jol.root(jnp.log, 1.0, bounds=(0.0, 3.0), solver=row.make(), tol=TOL)
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, 1, atol=1e-9)


@pytest.mark.parametrize("row", BRACKETS, ids=str)
def test_nan_inside_keeps_the_best_point(row):
    fun = lambda x: jnp.where(jnp.abs(x - 0.4) < 0.3, jnp.nan, x - 0.45)
    sol = jol.root(fun, 0.0, bounds=(0.0, 1.0), solver=row.make())
    assert sol.status == Status.NONFINITE
    assert sol.x == 0.0  # of the ends, where |F| is 0.45 and 0.55
    np.testing.assert_allclose(sol.residuals.primal, 0.45)


@pytest.mark.parametrize("row", BRACKETS, ids=str)
def test_bracket_without_change_of_sign(row):
    fun = lambda x: x**2 + 1
    words = r"needs a change of sign.*fun\(-1\.0\) = 2\.0 and fun\(3\.0\) = 10\.0.*NewtonRoot"
    with pytest.raises(ValueError, match=words):
        jol.root(fun, 0.0, bounds=(-1.0, 3.0), solver=row.make())
    sol = jax.jit(lambda a: jol.root(fun, 0.0, bounds=(a, 3.0), solver=row.make()))(-1.0)
    assert (sol.status, sol.steps, sol.x) == (Status.STALLED, 2, -1.0)
    batch = jax.vmap(
        lambda c: jol.root(lambda x: x**2 - c, 0.0, bounds=(0.0, 3.0), solver=row.make(), tol=TOL)
    )(jnp.array([-1.0, 2.0, 10.0, 9.0]))
    stalled, ok = int(Status.STALLED), int(Status.CONVERGED)
    assert batch.status.tolist() == [stalled, ok, stalled, ok]
    np.testing.assert_allclose(batch.x, [0.0, 2**0.5, 3.0, 3.0], atol=TOL)
    assert batch.steps.tolist()[2:] == [2, 2]


@pytest.mark.parametrize("row", BRACKETS, ids=str)
@pytest.mark.parametrize(
    ("x0", "bounds", "kind", "words"),
    [
        (0.0, None, ValueError, "needs a bracket.*bounds=None.*NewtonRoot"),
        (0.0, (0.0, None), ValueError, "both ends are given.*one end came"),
        (0.0, (1.0, 0.0), ValueError, "lower.*upper"),
        (0.0, (-math.inf, 1.0), ValueError, "finite.*-inf"),
        (0.0, (0.0, math.nan), ValueError, "lower.*upper.*nan"),
        (jnp.zeros(2), (0.0, 1.0), ValueError, "one unknown.*2 entries.*vmap"),
        (0.0, (jnp.zeros(2), 1.0), ValueError, "`bounds`.*shapes"),
    ],
    ids=str,
)
def test_bad_brackets(row, x0, bounds, kind, words):
    with pytest.raises(kind, match=rf"(?s){words}"):
        jol.root(lambda x: x - 0.4, x0, bounds=bounds, solver=row.make())


@pytest.mark.parametrize("row", BRACKETS, ids=str)
def test_nan_at_an_end(row):
    for bounds, end in (((-1.0, 2.0), r"-1\.0"), ((0.5, 3.0), r"3\.0")):
        fun = lambda x: jnp.where((x < 0) | (x > 2.5), jnp.nan, x - 1)
        with pytest.raises(ValueError, match=rf"fun\({end}\) is not a number"):
            jol.root(fun, 1.0, bounds=bounds, solver=row.make())


@pytest.mark.parametrize("row", BRACKETS, ids=str)
def test_shapes_of_one_unknown(row):
    expected = 0.7390851332151607
    fun = lambda x: jnp.cos(x) - x
    for x0 in (0.5, jnp.array([0.5]), jnp.array([[0.5]])):
        x = jol.root(fun, x0, bounds=(0.0, 1.0), solver=row.make(), tol=TOL).x
        assert x.shape == jnp.shape(x0)
        np.testing.assert_allclose(x, expected, atol=TOL)
    tree = jol.root(
        lambda x: {"f": fun(x["a"])}, {"a": 0.5}, bounds=(0.0, 1.0), solver=row.make(), tol=TOL
    )
    np.testing.assert_allclose(tree.x["a"], expected, atol=TOL)


def test_ten_thousand_brackets():
    """x^3 + x = c, each in a bracket of its own, against Cardano's formula."""
    n = 10_000
    rng = np.random.default_rng(1)
    c = jnp.asarray(rng.normal(size=n) * 10 ** rng.uniform(-3, 3, n))
    r = np.sqrt((c / 2) ** 2 + 1 / 27)
    expected = np.cbrt(c / 2 + r) + np.cbrt(c / 2 - r)
    lower = jnp.asarray(expected - 10 ** rng.uniform(-4, 2, n))
    upper = jnp.asarray(expected + 10 ** rng.uniform(-4, 2, n))
    for solver in (jol.Bisection(), jol.Brent(), jol.ITP()):

        def run(c, a, b, solver=solver):
            return jol.root(lambda x: x**3 + x - c, a, bounds=(a, b), solver=solver, tol=1e-7)

        batch = jax.jit(jax.vmap(run))(c, lower, upper)
        assert np.all(batch.status == Status.CONVERGED)
        # F' >= 1, so the error is at most 1e-7; Cardano cancels a few digits.
        np.testing.assert_allclose(batch.x, expected, atol=2e-7, rtol=1e-9)
        most = {"Bisection": 60, "Brent": 25, "ITP": 60}[type(solver).__name__]
        steps = np.asarray(batch.steps)
        assert steps.min() < np.median(steps) < steps.max() <= most


# -- fixed points ----------------------------------------------------------------------------------


def equilibrium(x, weights, bias):
    """One layer of a deep equilibrium model."""
    return jnp.tanh(weights @ x + bias)


def layer(n=50, radius=0.9):
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(n, n))
    weights *= radius / np.linalg.norm(weights, 2)
    return jnp.asarray(weights), jnp.asarray(rng.normal(size=n))


@pytest.mark.parametrize(
    "solver", [None, jol.Picard(), jol.NewtonRoot(), jol.Broyden(), jol.Broyden(jacobian="never")]
)
def test_deep_equilibrium_and_its_derivative(solver):
    weights, bias = layer()
    run = jax.jit(
        lambda w, b: jol.fixed_point(equilibrium, jnp.zeros(50), (w, b), solver=solver, tol=1e-12)
    )
    sol = run(weights, bias)
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, equilibrium(sol.x, weights, bias), atol=1e-11)
    # dx/db = (I - D W)^-1 D with D = diag(1 - x^2).
    slopes = np.diag(1 - np.asarray(sol.x) ** 2)
    expected = np.linalg.solve(np.eye(50) - slopes @ weights, slopes)
    for mode in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(mode(lambda b: run(weights, b).x)(bias), expected, atol=1e-9)
    # dx/dW along a direction is (dx/db) (V x), for closed-over weights too.
    direction = jnp.asarray(np.random.default_rng(3).normal(size=(50, 50)))

    def closed(t):
        w = weights + t * direction
        fun = lambda x: equilibrium(x, w, bias)
        return jol.fixed_point(fun, jnp.zeros(50), solver=solver, tol=1e-12).x

    tangent = jax.jvp(closed, (0.0,), (1.0,))[1]
    np.testing.assert_allclose(tangent, expected @ (direction @ sol.x), atol=1e-8)


def test_page_rank():
    """x = d G x + (1 - d)/n, linear: the answer is a linear solve, and dx/dd another."""
    rng, n = np.random.default_rng(4), 200
    links = (rng.random((n, n)) < 0.03) + np.eye(n)
    links = jnp.asarray(links / links.sum(0))
    rank = lambda x, damping: damping * (links @ x) + (1 - damping) / n
    uniform = jnp.full(n, 1 / n)
    solve = lambda damping: jol.fixed_point(rank, uniform, (damping,), tol=1e-13)
    sol, system = solve(0.85), np.eye(n) - 0.85 * np.asarray(links)
    expected = np.linalg.solve(system, np.full(n, 0.15 / n))
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, expected, atol=1e-12)
    np.testing.assert_allclose(jnp.sum(sol.x), 1, atol=1e-12)
    by_damping = np.linalg.solve(system, links @ expected - 1 / n)
    np.testing.assert_allclose(jax.jacfwd(lambda d: solve(d).x)(0.85), by_damping, atol=1e-10)


def test_anderson_ends_on_linear_maps_like_gmres(rng):
    """With memory n, n differences span the space: the start, n + 1 evaluations and the answer."""
    n = 5
    matrix = jnp.asarray(0.2 * rng.normal(size=(n, n)))
    b = jnp.asarray(rng.normal(size=n))
    sol = jol.fixed_point(lambda x: matrix @ x + b, jnp.zeros(n), solver=jol.Anderson(memory=n))
    assert sol.status == Status.CONVERGED
    assert sol.steps <= n + 2
    np.testing.assert_allclose(sol.x, np.linalg.solve(np.eye(n) - matrix, b), rtol=1e-6)


def test_anderson_is_the_least_squares_method_where_no_safeguard_acts():
    """Against Walker and Ni's form, by `numpy.linalg.lstsq`, step by step."""
    weights, bias = layer(radius=0.5)
    m, x, xs, fs = 3, np.zeros(50), [], []
    for _ in range(12):
        f = np.asarray(equilibrium(x, weights, bias)) - x
        xs, fs = [*xs, x][-m - 1 :], [*fs, f][-m - 1 :]
        if len(xs) == 1:
            x = x + f
            continue
        dx, df = np.diff(xs, axis=0).T, np.diff(fs, axis=0).T
        x = x + f - (dx + df) @ np.linalg.lstsq(df, f, rcond=None)[0]
    options = {"tol": 0.0, "max_steps": 13, "history": "x", "solver": jol.Anderson(memory=m)}
    sol = jol.fixed_point(equilibrium, jnp.zeros(50), (weights, bias), **options)
    np.testing.assert_allclose(sol.history.x[12], x, atol=1e-11)


def _maps(rng):
    """(T, x0, contraction factor): smooth, with corners, linear and ill-conditioned."""
    w = rng.normal(size=(20, 20))
    w, b = jnp.asarray(w / np.linalg.norm(w, 2)), jnp.asarray(rng.normal(size=20))
    q = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    flat = jnp.asarray(q @ np.diag(np.linspace(0, 0.98, 20)) @ q.T)
    zero = jnp.zeros(20)
    yield lambda x: 0.9 * jnp.tanh(w @ x) + b, zero
    yield lambda x: 0.95 * jnp.abs(w @ x) + b, zero
    yield lambda x: 0.95 * jnp.maximum(w @ x, 0) - b, 10 + zero
    yield lambda x: 0.6 * jnp.sin(w @ x + b), 5 + zero
    yield lambda x: flat @ x + b, zero
    yield lambda x: 0.5 * jnp.clip(3 * x, -1, 1) * jnp.sign(w[0]) + 0.3 * w @ x, zero + b


@pytest.mark.parametrize("memory", [1, 2, 5, 10])
def test_anderson_is_no_worse_than_picard_by_more_than_stated(memory, rng):
    for fun, x0 in list(_maps(rng))[:5]:
        plain = jol.fixed_point(fun, x0, solver=jol.Picard(), tol=1e-9)
        quick = jol.fixed_point(fun, x0, solver=jol.Anderson(memory=memory), tol=1e-9)
        assert plain.status == quick.status == Status.CONVERGED
        halvings = math.log2(float(jnp.max(jnp.abs(fun(x0) - x0))) * 20**0.5 / 1e-9)
        assert int(quick.steps) <= 2 + (memory + 2) * max(int(plain.steps), halvings)
        # In fact it is never slower here, but for the odd step of safety.
        assert int(quick.steps) <= 1.2 * int(plain.steps) + 3


def test_anderson_gets_where_picard_does_not():
    turn = jnp.array([[0.0, -1.0], [1.0, 0.0]])
    fun = lambda x: turn @ x
    assert jol.fixed_point(fun, jnp.ones(2), solver=jol.Picard(), max_steps=99).status == (
        Status.MAX_STEPS
    )
    assert jol.fixed_point(fun, jnp.ones(2)).status == Status.CONVERGED
    # Averaged it is a contraction with factor |1/2 + i/2|: half the steps of log_2.
    damped = jol.fixed_point(fun, jnp.ones(2), solver=jol.Picard(damping=0.5), tol=1e-9)
    assert damped.status == Status.CONVERGED
    assert damped.steps == 1 + math.ceil(2 * math.log2(2 / 1e-9)) or abs(damped.steps - 63) <= 2


def test_anderson_survives_a_map_that_leaves_its_domain():
    """An extrapolated point below zero gives NaN; the Picard step from the best does not."""
    fun = lambda x: jnp.sqrt(x) * jnp.array([0.01, 1.0]) + jnp.array([0.0, 1.0])
    sol = jol.fixed_point(fun, jnp.array([5.0, 0.1]), tol=1e-12)
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, [1e-4, (3 + 5**0.5) / 2], atol=1e-10)


def test_picard_takes_the_steps_of_theory():
    sol = jol.fixed_point(lambda x: 0.5 * x, jnp.ones(3), solver=jol.Picard(), tol=1e-9)
    # |F_k| = 2^-(k+1), k from 0: the first at most 1e-9 is 2^-30.
    assert (sol.status, sol.steps) == (Status.CONVERGED, 30)
    sol = jol.fixed_point(lambda x: 2 * x, jnp.ones(3), solver=jol.Picard())
    assert sol.status == Status.DIVERGED
    assert not np.any(np.isnan(sol.x))


# -- Kepler's equation -----------------------------------------------------------------------------


def kepler(anomaly, eccentricity, mean):
    return anomaly - eccentricity * jnp.sin(anomaly) - mean


@pytest.mark.parametrize("name", ["default", "NewtonRoot", "Broyden", "Brent", "ITP", "Bisection"])
def test_kepler_in_a_batch_with_its_derivatives(name, rng):
    e = jnp.asarray(rng.uniform(0, 0.95, 2000))
    mean = jnp.asarray(rng.uniform(0, 2 * np.pi, 2000))
    solver = None if name == "default" else getattr(jol, name)()
    brackets = name in ("default", "Brent", "ITP", "Bisection")

    def anomaly(e, m):
        bounds = (m - 1, m + 1) if brackets else None
        return jol.root(kepler, m, (e, m), bounds=bounds, solver=solver, tol=1e-13)

    batch = jax.jit(jax.vmap(anomaly))(e, mean)
    assert np.all(batch.status == Status.CONVERGED)
    x = np.full(2000, np.pi)  # fifty Newton steps from pi always converge
    for _ in range(50):
        x = x - (x - e * np.sin(x) - mean) / (1 - e * np.cos(x))
    np.testing.assert_allclose(batch.x, x, atol=2e-12)  # 1 / (1 - e) times the tolerance
    slopes = jax.jit(jax.vmap(jax.grad(lambda e, m: anomaly(e, m).x, argnums=(0, 1))))(e, mean)
    determinant = 1 - e * np.cos(x)
    np.testing.assert_allclose(slopes[0], np.sin(x) / determinant, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(slopes[1], 1 / determinant, rtol=1e-9)


def test_derivative_of_a_lane_that_failed_is_nan_and_of_no_other():
    def root(c):
        fun = lambda x: x**2 - c
        return jol.root(fun, 1.0, bounds=(0.0, 3.0), solver=jol.Brent(), tol=TOL).x

    slopes = jax.vmap(jax.grad(root))(jnp.array([2.0, -1.0, 4.0]))
    assert np.isnan(slopes[1])
    np.testing.assert_allclose(slopes[jnp.array([0, 2])], [0.5 / 2**0.5, 0.25], rtol=1e-9)
    by_bounds = jax.grad(
        lambda b: jol.root(lambda x: x**2 - 2, 1.0, bounds=(0.0, b), solver=jol.ITP()).x
    )
    assert by_bounds(3.0) == 0


def test_second_derivative():
    root = lambda a: jol.root(lambda x: x**3 + x - a, 0.5, solver=jol.NewtonRoot(), tol=1e-14).x
    x = root(2.0)  # x' = 1 / (3 x^2 + 1), x'' = -6 x x'^3
    slope = 1 / (3 * x**2 + 1)
    np.testing.assert_allclose(jax.grad(jax.grad(root))(2.0), -6 * x * slope**3, rtol=1e-9)
    np.testing.assert_allclose(jax.jacfwd(jax.jacrev(root))(2.0), -6 * x * slope**3, rtol=1e-9)


# -- front doors and bad input ---------------------------------------------------------------------


def test_defaults():
    taken = lambda sol: type(sol.state).__name__
    fun = lambda x: jnp.cos(x) - x
    assert taken(jol.fixed_point(jnp.cos, 0.5)) == "AndersonState"
    assert taken(jol.root(fun, 0.5)) == "TrustRegionState"  # Levenberg-Marquardt
    assert taken(jol.root(fun, 0.5, bounds=(0.0, 1.0))) == "BracketState"
    assert taken(jol.root(fun, 0.5, bounds=(0.0, None))) == "TrustRegionState"
    two = jnp.full(2, 0.5)
    assert taken(jol.root(fun, two, bounds=(0.0, 1.0))) == "TrustRegionState"


def test_pytrees_in_and_out():
    def fun(x, scale):
        return {"one": x["a"] ** 2 - scale, "two": [x["b"] - x["a"], x["b"][:1] * 0 + x["c"] - 1]}

    x0 = {"a": jnp.ones(2), "b": jnp.zeros(2), "c": jnp.zeros(1)}
    for solver in (jol.NewtonRoot(), jol.Broyden(), None):
        x = jol.root(fun, x0, (4.0,), solver=solver, tol=TOL).x
        for name, expected in (("a", 2.0), ("b", 2.0), ("c", 1.0)):
            np.testing.assert_allclose(x[name], np.full(x0[name].shape, expected), atol=1e-9)
    tree = jol.fixed_point(lambda x: jax.tree.map(lambda v: 0.5 * v + 1, x), x0)
    np.testing.assert_allclose(tree.x["b"], 2, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: jol.NewtonRoot(linear_solver="qr"), "linear_solver.*auto, dense, gmres.*'qr'"),
        (lambda: jol.Broyden(memory=0), "memory.*integer >= 1.*0 came"),
        (lambda: jol.Broyden(jacobian="often"), "jacobian.*restarts, start, never.*'often'"),
        (lambda: jol.Anderson(memory=2.5), "memory.*integer >= 1.*2.5"),
        (lambda: jol.Anderson(mixing=0.0), "mixing.*> 0.*0.0 came"),
        (lambda: jol.Anderson(regularization=-1e-9), "regularization.*>= 0.*-1e-09"),
        (lambda: jol.Picard(damping=-1.0), r"damping.*> 0.*-1\.0 came"),
        (lambda: jol.Picard(damping="half"), "damping.*'half'"),
        (lambda: jol.Brent(width=0.0), "Brent.width.*> 0.*0.0 came.*infinity"),
        (lambda: jol.Bisection(width=math.nan), "Bisection.width.*> 0.*nan"),
        (lambda: jol.ITP(extra=-1), "extra.*>= 0.*-1 came"),
        (lambda: jol.ITP(extra=True), "extra.*True"),
    ],
)
def test_fields_out_of_range(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_numbers_can_be_swept():
    run = lambda solver: jol.fixed_point(lambda x: 0.5 * x + 1, 0.0, solver=solver).steps
    steps = jax.vmap(run)(jol.Picard(damping=jnp.array([0.5, 1.0, 2.0])))
    assert steps[2] == 2  # x + 2 (T - x) is exact for T' = 1/2
    assert steps[0] > steps[1] > steps[2]
    widths = jnp.array([1.0, 1e-3, 1e-6])
    bracket = lambda solver: (
        jol.root(lambda x: x - 0.3, 0.0, bounds=(-2.0, 2.0), solver=solver, tol=9.0).steps
    )
    theory = 2 + np.ceil(np.log2(4 / np.asarray(widths)))
    np.testing.assert_array_equal(jax.vmap(bracket)(jol.Bisection(width=widths)), theory)


def test_functions_that_are_no_equations():
    with pytest.raises(TypeError, match=r"`fun` must be a function.*float"):
        jol.root(1.0, 0.5)
    with pytest.raises(TypeError, match=r"fixed point must return the structure of x"):
        jol.fixed_point(lambda x: {"a": x}, jnp.ones(2))
    with pytest.raises(TypeError, match=r"`root` got unknown options lr"):
        jol.root(lambda x: x, 0.5, lr=0.1)
    with pytest.raises(ValueError, match=r"`fun`.*not finite at the start.*domain"):
        jol.root(lambda x: jnp.log(x), -1.0, solver=jol.NewtonRoot())

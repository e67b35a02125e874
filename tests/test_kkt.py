"""Verdicts on constrained problems whose story is known: textbooks and Hock & Schittkowski."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize as so

import jaxopt_lite as jol
from jaxopt_lite import Kind
from jaxopt_lite.linalg import non_negative_least_squares

MIN, MAX, SADDLE = Kind.STRICT_MINIMUM, Kind.STRICT_MAXIMUM, Kind.SADDLE
OPEN, NO, UNQUALIFIED = Kind.DEGENERATE, Kind.NOT_STATIONARY, Kind.UNQUALIFIED
R2, R3, R7 = np.sqrt(2.0), np.sqrt(3.0), np.sqrt(7.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A point and what is known of it; multipliers that are not given are not checked."""

    name: str
    objective: Callable
    x: Any
    kind: Kind
    eq: Callable | None = None
    ineq: Callable | None = None
    bounds: Any = None
    eq_mult: Any = None
    ineq_mult: Any = None
    lower: Any = None
    upper: Any = None
    licq: bool = True
    mfcq: bool = True
    weak: int = 0

    def __str__(self):
        return self.name

    @property
    def problem(self):
        return jol.Problem(self.objective, eq=self.eq, ineq=self.ineq, bounds=self.bounds)


def stack(*parts):
    return jnp.stack(parts)


half_square = lambda x: 0.5 * (x @ x)
sphere = lambda x: x @ x
CASES = (
    # -- textbook ---------------------------------------------------------------------------------
    Case("xy on a line", lambda x: -x[0] * x[1], [5, 5], MIN,
         eq=lambda x: x[0] + x[1] - 10, eq_mult=5),
    Case("xy on a line, downwards", lambda x: x[0] * x[1], [5, 5], MAX,
         eq=lambda x: x[0] + x[1] - 10, eq_mult=-5),
    Case("disk, from outside", lambda x: jnp.sum((x - jnp.array([2.0, 3.0])) ** 2),
         2 * np.array([2, 3]) / np.sqrt(13), MIN, ineq=lambda x: x @ x - 4,
         ineq_mult=np.sqrt(13) / 2 - 1),
    Case("nearest point of a line", sphere, [2, 2], MIN, eq=lambda x: x[0] + x[1] - 4, eq_mult=-4),
    Case("half plane that binds", sphere, [0.5, 0.5], MIN, ineq=lambda x: 1 - x[0] - x[1],
         ineq_mult=1),
    Case("half plane that does not", sphere, [0, 0], MIN, ineq=lambda x: x[0] + x[1] - 1,
         ineq_mult=0),
    Case("SAM: steepest in a ball", lambda x: jnp.array([3.0, 4.0]) @ x, [-0.06, -0.08], MIN,
         ineq=lambda x: x @ x - 0.01, ineq_mult=25),
    Case("least norm, Ax = b", half_square, [1 / 3, 1 / 3, 1 / 3], MIN,
         eq=lambda x: jnp.sum(x) - 1, eq_mult=-1 / 3),
    Case("sum on the circle", lambda x: x[0] + x[1], [-1, -1], MIN, eq=lambda x: x @ x - 2,
         eq_mult=0.5),
    Case("sum on the circle, other end", lambda x: x[0] + x[1], [1, 1], MAX,
         eq=lambda x: x @ x - 2, eq_mult=-0.5),
    Case("sum in the disc", lambda x: x[0] + x[1], [-1, -1], MIN, ineq=lambda x: x @ x - 2,
         ineq_mult=0.5),
    Case("sum in the disc, wrong end", lambda x: x[0] + x[1], [1, 1], NO, ineq=lambda x: x @ x - 2),
    Case("half disc", lambda x: x[0] + x[1], [-R2, 0], MIN,
         ineq=lambda x: stack(x @ x - 2, -x[1]), ineq_mult=[R2 / 4, 1]),
    Case("l1 ball", lambda x: (x[0] - 1.5) ** 2 + (x[1] - 0.5) ** 4, [1, 0], MIN,
         ineq=lambda x: stack(x[0] + x[1], x[0] - x[1], -x[0] + x[1], -x[0] - x[1]) - 1,
         ineq_mult=[0.75, 0.25, 0, 0]),
    Case("quadratic program", lambda x: (x[0] - 1) ** 2 + (x[1] - 2.5) ** 2, [1.4, 1.7], MIN,
         ineq=lambda x: stack(-x[0] + 2 * x[1] - 2, x[0] + 2 * x[1] - 6, x[0] - 2 * x[1] - 2),
         bounds=(0.0, None), ineq_mult=[0.8, 0, 0], lower=[0, 0]),
    Case("one variable", lambda x: x[0] ** 2 + 1, [2], MIN,
         ineq=lambda x: (x[0] - 2) * (x[0] - 4), ineq_mult=2),
    Case("projection on the simplex",
         lambda x: half_square(x - jnp.array([0.5, 0.2, -0.4])), [0.65, 0.35, 0], MIN,
         eq=lambda x: jnp.sum(x) - 1, bounds=(0.0, None), eq_mult=-0.15, lower=[0, 0, 0.25]),
    Case("water filling", lambda x: -jnp.sum(jnp.log(jnp.array([0.8, 1.0, 1.2]) + x)),
         [0.25, 0.05, 0], MIN, eq=lambda x: jnp.sum(x) - 0.3, bounds=(0.0, None),
         eq_mult=1 / 1.05, lower=[0, 0, 1 / 1.05 - 1 / 1.2]),
    Case("nonconvex in the disc", lambda x: x[0] ** 2 - x[1] ** 2, [0, 1], MIN,
         ineq=lambda x: x @ x - 1, ineq_mult=1),
    Case("constrained saddle", lambda x: x[0] ** 2 - x[1] ** 2, [0, 0, 0], SADDLE,
         eq=lambda x: x[2], eq_mult=0),
    Case("saddle inside a disc", lambda x: x[0] ** 2 - x[1] ** 2, [0, 0], SADDLE,
         ineq=lambda x: x @ x - 1),
    Case("on a strongly active wall, down along it", lambda x: x[0] - x[1] ** 2, [0, 0], SADDLE,
         bounds=(np.array([0.0, -1.0]), None), lower=[1, 0]),
    # -- weakly active: the critical cone is smaller than the tangent space ------------------------
    Case("indefinite, positive on the quadrant", lambda x: x @ x + 4 * x[0] * x[1], [0, 0], MIN,
         bounds=(0.0, None), lower=[0, 0], weak=2),
    Case("indefinite, zero on the axes", lambda x: x[0] * x[1], [0, 0], OPEN, bounds=(0.0, None),
         weak=2),
    Case("falls along an axis only", lambda x: 4 * x[0] * x[1] - x[1] ** 2, [0, 0], SADDLE,
         bounds=(0.0, None), weak=2),
    Case("positive on a cone, with one strongly active",
         lambda x: x[0] ** 2 - 3 * x[1] * x[2] + x[1] ** 2 + x[2] ** 2 + x[3], [0, 0, 0, 0], MIN,
         ineq=lambda x: stack(-x[1], x[2]), bounds=(np.array([-9.0, -9, -9, 0]), None),
         lower=[0, 0, 0, 1], weak=2),
    # -- degenerate -------------------------------------------------------------------------------
    Case("x^2 = 0", lambda x: x[0], [0], UNQUALIFIED, eq=lambda x: x[0] ** 2, licq=False,
         mfcq=False),
    Case("cusp", lambda x: -x[0], [1, 0], UNQUALIFIED,
         ineq=lambda x: stack(x[1] - (1 - x[0]) ** 3, -x[1]), licq=False, mfcq=False, weak=2),
    Case("discs that touch", lambda x: x[1], [1, 0], UNQUALIFIED,
         ineq=lambda x: stack((x[0] - 2) ** 2 + x[1] ** 2 - 1, x @ x - 1), licq=False,
         mfcq=False, weak=2),
    Case("HS13, no multiplier", lambda x: (x[0] - 2) ** 2 + x[1] ** 2, [1, 0], UNQUALIFIED,
         ineq=lambda x: x[1] - (1 - x[0]) ** 3, bounds=(0.0, None), licq=False, mfcq=False, weak=2),
    Case("redundant corner", lambda x: -x[0] - x[1], [1, 1], MIN,
         ineq=lambda x: stack(x[0] - 1, x[1] - 1, x[0] + x[1] - 2),
         ineq_mult=[1 / 2, 1 / 2, 1 / 2], licq=False),  # least norm for rows of length 1
    Case("the same equation twice", half_square, [0, 0], MIN, eq=lambda x: stack(x[0], 2 * x[0]),
         licq=False, mfcq=False, eq_mult=[0, 0]),
    Case("the same equation twice, priced", lambda x: half_square(x - 1), [0, 1], MIN,
         eq=lambda x: stack(x[0], 2 * x[0]), licq=False, mfcq=False, eq_mult=[1 / 2, 1 / 4]),
    Case("weakly active bound", lambda x: x[0] ** 2, [0], MIN, bounds=(0.0, None), lower=[0],
         weak=1),
    Case("a fixed variable", lambda x: -(x[0] ** 2), [0], MIN, bounds=(0.0, 0.0), licq=False,
         mfcq=False, weak=1),
    Case("xy in the quadrant", lambda x: x[0] * x[1], [0, 0], OPEN, bounds=(0.0, None),
         lower=[0, 0], weak=2),
    Case("HS26: third order", lambda x: (x[0] - x[1]) ** 2 + (x[1] - x[2]) ** 4, [1, 1, 1], OPEN,
         eq=lambda x: (1 + x[1] ** 2) * x[0] + x[2] ** 4 - 3, eq_mult=0),
    Case("x^4 on a line", lambda x: x[0] ** 4, [0, 0], OPEN, eq=lambda x: x[1]),
    Case("a constraint in tiny units", lambda x: (x[0] - 3) ** 2, [1], MIN,
         eq=lambda x: 1e-8 * (x[0] - 1), eq_mult=4e8),
    Case("tiny units, elsewhere", lambda x: (x[0] - 3) ** 2, [0], Kind.INFEASIBLE,
         eq=lambda x: 1e-8 * (x[0] - 1)),
    Case("outside", sphere, [0, 0], Kind.INFEASIBLE, ineq=lambda x: 1 - x[0] - x[1]),
    # -- Hock & Schittkowski (1981) ---------------------------------------------------------------
    Case("HS4", lambda x: (x[0] + 1) ** 3 / 3 + x[1], [1, 0], MIN,
         bounds=(np.array([1.0, 0.0]), None), lower=[4, 1]),
    Case("HS7", lambda x: jnp.log(1 + x[0] ** 2) - x[1], [0, R3], MIN,
         eq=lambda x: (1 + x[0] ** 2) ** 2 + x[1] ** 2 - 4, eq_mult=1 / (2 * R3)),
    Case("HS10", lambda x: x[0] - x[1], [0, 1], MIN,
         ineq=lambda x: 3 * x[0] ** 2 - 2 * x[0] * x[1] + x[1] ** 2 - 1, ineq_mult=0.5),
    Case("HS12", lambda x: 0.5 * x[0] ** 2 + x[1] ** 2 - x[0] * x[1] - 7 * x[0] - 7 * x[1],
         [2, 3], MIN, ineq=lambda x: 4 * x[0] ** 2 + x[1] ** 2 - 25, ineq_mult=0.5),
    Case("HS14", lambda x: (x[0] - 2) ** 2 + (x[1] - 1) ** 2, [(R7 - 1) / 2, (R7 + 1) / 4], MIN,
         eq=lambda x: x[0] - 2 * x[1] + 1, ineq=lambda x: x[0] ** 2 / 4 + x[1] ** 2 - 1,
         eq_mult=1.59449, ineq_mult=1.84659),
    Case("HS24", lambda x: ((x[0] - 3) ** 2 - 9) * x[1] ** 3 / (27 * R3), [3, R3], MIN,
         ineq=lambda x: stack(x[1] - x[0] / R3, -x[0] - R3 * x[1], x[0] + R3 * x[1] - 6),
         bounds=(0.0, None), ineq_mult=[0.86603, 0, 0.5]),
    Case("HS28", lambda x: (x[0] + x[1]) ** 2 + (x[1] + x[2]) ** 2, [0.5, -0.5, 0.5], MIN,
         eq=lambda x: x[0] + 2 * x[1] + 3 * x[2] - 1, eq_mult=0),
    Case("HS29", lambda x: -x[0] * x[1] * x[2], [4, 2 * R2, 2], MIN,
         ineq=lambda x: x[0] ** 2 + 2 * x[1] ** 2 + 4 * x[2] ** 2 - 48, ineq_mult=0.70711),
    Case("HS35", lambda x: 9 - 8 * x[0] - 6 * x[1] - 4 * x[2] + 2 * x[0] ** 2 + 2 * x[1] ** 2
         + x[2] ** 2 + 2 * x[0] * x[1] + 2 * x[0] * x[2], [4 / 3, 7 / 9, 4 / 9], MIN,
         ineq=lambda x: x[0] + x[1] + 2 * x[2] - 3, bounds=(0.0, None), ineq_mult=2 / 9),
    Case("HS36", lambda x: -x[0] * x[1] * x[2], [20, 11, 15], MIN,
         ineq=lambda x: x[0] + 2 * x[1] + 2 * x[2] - 72, bounds=(0.0, np.array([20.0, 11.0, 42.0])),
         ineq_mult=110, upper=[55, 80, 0]),
    Case("HS37", lambda x: -x[0] * x[1] * x[2], [24, 12, 12], MIN,
         ineq=lambda x: stack(x[0] + 2 * x[1] + 2 * x[2] - 72, -x[0] - 2 * x[1] - 2 * x[2]),
         bounds=(0.0, 42.0), ineq_mult=[144, 0]),
    Case("HS40", lambda x: -x[0] * x[1] * x[2] * x[3],
         2.0 ** np.array([-1 / 3, -1 / 2, -11 / 12, -1 / 4]), MIN,
         eq=lambda x: stack(x[0] ** 3 + x[1] ** 2 - 1, x[0] ** 2 * x[3] - x[2], x[3] ** 2 - x[1]),
         eq_mult=[0.5, -0.47194, 0.35355]),
    Case("HS43", lambda x: x[0] ** 2 + x[1] ** 2 + 2 * x[2] ** 2 + x[3] ** 2 - 5 * x[0] - 5 * x[1]
         - 21 * x[2] + 7 * x[3], [0, 1, 2, -1], MIN,
         ineq=lambda x: stack(
             x @ x + x[0] - x[1] + x[2] - x[3] - 8,
             x @ x + x[1] ** 2 + x[3] ** 2 - x[0] - x[3] - 10,
             x[:3] @ x[:3] + x[0] ** 2 + 2 * x[0] - x[1] - x[3] - 5,
         ), ineq_mult=[1, 0, 2]),
    Case("HS71", lambda x: x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2],
         [1, 4.742999637, 3.821149980, 1.379408294], MIN, eq=lambda x: x @ x - 40,
         ineq=lambda x: 25 - jnp.prod(x), bounds=(1.0, 5.0), eq_mult=0.161469, ineq_mult=0.552294,
         lower=[1.087872, 0, 0, 0]),
)  # fmt: skip


@pytest.fixture(scope="module")
def certified():
    known = {}

    def certify(case):
        if case.name not in known:
            known[case.name] = jol.certify(case.problem, jnp.asarray(case.x, jnp.float64))
        return known[case.name]

    return certify


@pytest.mark.parametrize("case", CASES, ids=str)
def test_verdict_and_prices(case, certified):
    certificate = certified(case)
    report = certificate.constraints
    assert Kind(int(certificate.verdict)) == case.kind, certificate
    assert bool(certificate.certified) == (case.kind == MIN)
    for name, field in (("eq_mult", "eq"), ("ineq_mult", "ineq"), ("lower",) * 2, ("upper",) * 2):
        expected = getattr(case, name)
        if expected is not None:
            got = getattr(report.multipliers, field)
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    if case.kind != Kind.INFEASIBLE:
        assert bool(report.qualification.licq) == case.licq, certificate
        assert bool(report.qualification.mfcq) == case.mfcq, certificate
    if case.kind not in (NO, Kind.INFEASIBLE):
        active, strong = (
            sum(int(np.sum(leaf)) for leaf in jax.tree.leaves(tree))
            for tree in (report.active, report.strong)
        )
        assert active - strong == case.weak
    assert "LICQ" in str(certificate)


def test_there_are_enough_cases():
    assert len(CASES) >= 50
    assert len({case.name for case in CASES}) == len(CASES)


# -- against an independent calculation ------------------------------------------------------------


BORDERED = ("xy on a line", "sum on the circle, other end", "constrained saddle", "HS7", "HS40")


@pytest.mark.parametrize("case", [case for case in CASES if case.name in BORDERED], ids=str)
def test_bordered_hessian_agrees(case, certified):
    """Inertia of [[H, A'], [A, 0]] is that of Z'HZ plus (m, m), for independent equalities."""
    report = certified(case).constraints
    x = jnp.asarray(case.x, jnp.float64)
    eq = lambda y: jnp.atleast_1d(case.eq(y))
    price = jnp.atleast_1d(report.multipliers.eq)
    hessian = jax.hessian(lambda y: case.objective(y) + price @ eq(y))(x)
    a = jax.jacobian(eq)(x)
    a = a / jnp.linalg.norm(a, axis=1, keepdims=True)
    m = a.shape[0]
    bordered = np.block([[np.array(hessian), np.array(a.T)], [np.array(a), np.zeros((m, m))]])
    values = np.linalg.eigvalsh(bordered)
    h, small = report.hessian, 1e-6 * np.max(np.abs(values))
    assert np.sum(values < -small) == int(h.negative) + m
    assert np.sum(values > small) == int(h.positive) + m


def test_saddle_direction_goes_down_and_stays_feasible(certified):
    case = next(c for c in CASES if c.name == "constrained saddle")
    d = certified(case).constraints.hessian.descent
    x = jnp.zeros(3) + 1e-3 * d
    assert case.objective(x) < 0
    assert abs(case.eq(x)) < 1e-12


def test_least_squares_with_signs_is_scipys(rng):
    solve = jax.jit(non_negative_least_squares)
    for rows, columns in ((6, 4), (4, 6), (5, 12)):
        yes = jnp.ones(columns, bool)
        for _ in range(10):
            matrix, rhs = rng.normal(size=(rows, columns)), rng.normal(size=rows)
            matrix /= np.linalg.norm(matrix, axis=0)
            u = np.asarray(solve(jnp.array(matrix), jnp.array(rhs), yes, yes))
            assert np.all(u >= 0)
            assert np.linalg.norm(matrix @ u - rhs) <= so.nnls(matrix, rhs)[1] + 1e-10


# -- with a solver, in batches, given multipliers --------------------------------------------------


SOLVED = ("half disc", "water filling", "HS7", "HS14", "HS43", "HS71")


@pytest.mark.parametrize("case", [case for case in CASES if case.name in SOLVED], ids=str)
def test_solutions_are_certified(case):
    solution = jol.solve(case.problem, jnp.asarray(case.x, jnp.float64) + 0.1)
    certificate = jol.certify(case.problem, solution)
    assert solution.status == jol.Status.CONVERGED
    assert bool(certificate.certified), certificate
    assert certificate.residuals.worst() <= 1e-7


def test_a_gradient_that_vanishes_where_the_constraint_is_met_is_none():
    problem = jol.Problem(lambda x: x[0], eq=lambda x: x[0] ** 2)
    x = jnp.array([-2.5e-10])  # with a price of 2e9, grad L = 0
    for given in (None, jol.Multipliers(eq=jnp.array(2e9))):
        certificate = jol.certify(problem, x, multipliers=given)
        assert Kind(int(certificate.verdict)) == UNQUALIFIED, certificate
        assert not bool(certificate.constraints.qualification.mfcq)


def test_a_batch_of_problems_under_jit():
    problem = jol.Problem(lambda x, p: half_square(x - p), ineq=lambda x, p: jnp.sum(x) - 1)
    p = jnp.array(np.random.default_rng(0).normal(size=(2000, 3)))

    @jax.jit
    @jax.vmap
    def both(p):
        solution = jol.solve(problem, jnp.zeros(3), (p,))
        return solution, jol.certify(problem, solution, (p,))

    solution, certificate = both(p)
    assert np.all(certificate.certified)
    excess = np.maximum(np.sum(np.asarray(p), axis=1) - 1, 0) / 3
    np.testing.assert_allclose(solution.x, np.asarray(p) - excess[:, None], atol=1e-6)
    clear = np.abs(np.sum(np.asarray(p), axis=1) - 1) > 1e-2  # whether it binds
    binds = np.asarray(certificate.constraints.strong.ineq)
    assert np.array_equal(binds[clear], excess[clear] > 0)
    assert "2000 certified" in str(certificate)


def test_wrong_multipliers_are_not_certified():
    case = next(c for c in CASES if c.name == "half plane that binds")
    x = jnp.asarray(case.x, jnp.float64)
    for price in (0.9, -1.0):
        given = jol.Multipliers(ineq=jnp.array(price))
        certificate = jol.certify(case.problem, x, multipliers=given)
        assert Kind(int(certificate.verdict)) == NO
        np.testing.assert_allclose(certificate.residuals.stationarity, abs(1 - price), atol=1e-12)
    right = jol.certify(case.problem, x, multipliers=jol.Multipliers(ineq=jnp.array(1.0)))
    assert bool(right.certified)


def test_pytrees_and_float32():
    problem = jol.Problem(
        lambda x: jnp.sum((x["a"] - 1) ** 2) + (x["b"] - 2) ** 2,
        eq=lambda x: jnp.sum(x["a"]) + x["b"] - 1,
        bounds=(0.0, None),
    )
    x = {"a": jnp.zeros((2, 1), jnp.float32), "b": jnp.ones((), jnp.float32)}
    certificate = jol.certify(problem, x)
    assert bool(certificate.certified), certificate
    report = certificate.constraints
    assert jax.tree.structure(report.multipliers.lower) == jax.tree.structure(x)
    np.testing.assert_allclose(report.multipliers.eq, 2, rtol=1e-5)
    assert bool(jnp.all(report.active.lower["a"]))
    assert not bool(report.active.lower["b"])
    assert report.multipliers.eq.dtype == jnp.float32


def test_bad_input():
    both = jol.Problem(sphere, bounds=(0.0, None), nonsmooth=jol.prox.L1())
    with pytest.raises(TypeError, match="has both"):
        jol.certify(both, jnp.zeros(2))
    with pytest.raises(TypeError, match="no constraints"):
        jol.certify(jol.Problem(sphere), jnp.zeros(2), multipliers=jol.Multipliers(eq=jnp.ones(1)))
    with pytest.raises(ValueError, match="1001 variables"):
        jol.certify(jol.Problem(sphere, eq=lambda x: x[0]), jnp.zeros(1001))

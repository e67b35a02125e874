"""Quadratic and linear programs: known answers, batches with rays, errors, warm starts, duals.

Every answer is judged by `kkt`, in NumPy from the arrays alone. Where programs differ only in their
numbers they share one shape, (n, m, p) = (4, 3, 4), so that one compiled program serves them all.
"""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from jax.experimental import sparse
from scipy.optimize import linprog

import jaxopt_lite as jol
from jaxopt_lite import Multipliers, Point, QuadraticProgram, Status

INF = np.inf
TOL = float(np.sqrt(np.finfo(float).eps))  # the default
N, M, K = 4, 3, 4  # the common shape


# -- tools -----------------------------------------------------------------------------------------


def full(program):
    """The program in NumPy, absent parts as zero matrices, free rows and infinite bounds."""
    P, q, A, b, G, h, lower, upper = program
    n = len(q)
    blank = lambda value, other: other if value is None else np.asarray(value, float)
    return QuadraticProgram(
        blank(P, np.zeros((n, n))), np.asarray(q, float),
        blank(A, np.zeros((0, n))), blank(b, np.zeros(0)),
        blank(G, np.zeros((0, n))), blank(h, np.zeros(0)),
        blank(lower, np.full(n, -INF)) * np.ones(n), blank(upper, np.full(n, INF)) * np.ones(n),
    )  # fmt: skip


def finite(side):
    return np.where(np.isfinite(side), side, 0)


def kkt(program, solution):
    """The worst of stationarity, violation, sign, and of products and gap over 1 + |value|."""
    P, q, A, b, G, h, lower, upper = full(program)
    P = (P + P.T) / 2
    x = np.asarray(solution.x, float)
    given = solution.multipliers
    parts = zip(given, (b, h, lower, upper), strict=True)
    y, z, low, up = (np.zeros(len(s)) if v is None else np.asarray(v, float) for v, s in parts)
    gradient = P @ x + q + A.T @ y + G.T @ z - low + up
    value = x @ P @ x / 2 + q @ x
    slacks = np.concatenate([G @ x - h, lower - x, x - upper])
    prices = np.concatenate([z, low, up])
    there = np.isfinite(slacks)
    dual = -x @ P @ x / 2 - b @ y - finite(h) @ z + finite(lower) @ low - finite(upper) @ up
    products = np.abs(prices * np.where(there, slacks, np.abs(prices)))  # a price of no row counts
    return max(
        np.max(np.abs(gradient)),
        np.max(np.abs(A @ x - b), initial=0),
        np.max(slacks[there], initial=0),
        np.max(-prices, initial=0),
        np.max(products, initial=0) / (1 + abs(value)),
        abs(value - dual) / (1 + abs(value)),
    )


def padded(program, N=N, M=M, K=K):
    """In the common shape: variables that occur nowhere, rows of zeros, free rows, no bounds."""
    P, q, A, b, G, h, lower, upper = full(program)
    n, m, p = len(q), len(b), len(h)
    assert (n <= N, m <= M, p <= K) == (True, True, True)
    grow = lambda a, shape, fill=0.0: np.pad(
        a, [(0, s - k) for s, k in zip(shape, a.shape, strict=True)], constant_values=fill
    )
    zeros_or_free = grow(h, (K,), INF)
    if p < K:
        zeros_or_free[-1] = 0.0  # 0 x <= 0
    return QuadraticProgram(
        grow(P, (N, N)), grow(q, (N,)), grow(A, (M, N)), grow(b, (M,)), grow(G, (K, N)),
        zeros_or_free, grow(lower, (N,), -INF), grow(upper, (N,), INF),
    )  # fmt: skip


def stacked(programs):
    return QuadraticProgram(*(jnp.asarray(np.stack(part)) for part in zip(*programs, strict=True)))


def lane(tree, i):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[i], tree)


# `tol` and programs are data: one compiled program for every batch of a size
batch = jax.jit(jax.vmap(lambda program, tol: jol.solve_qp(*program, tol=tol), in_axes=(0, None)))


# -- known answers ---------------------------------------------------------------------------------

COLUMN = np.array([[1.0, 1.0, 2.0]])
CASES = {
    # Hock & Schittkowski (1981); constants of the objectives left out
    "HS21": (
        QuadraticProgram(
            np.diag([0.02, 2.0]), np.zeros(2), G=np.array([[-10.0, 1.0]]), h=np.array([-10.0]),
            lower=np.array([2.0, -50]), upper=np.array([50.0, 50]),
        ),
        [2, 0], Multipliers(None, [0], [0.04, 0], [0, 0]),
    ),
    "HS35": (
        QuadraticProgram(
            np.array([[4.0, 2, 2], [2, 4, 0], [2, 0, 2]]), np.array([-8.0, -6, -4]),
            G=COLUMN, h=np.array([3.0]), lower=np.zeros(3),
        ),
        [4 / 3, 7 / 9, 4 / 9], Multipliers(None, [2 / 9], [0, 0, 0], None),
    ),
    "HS76": (
        QuadraticProgram(
            np.array([[2.0, 0, -1, 0], [0, 1, 0, 0], [-1, 0, 2, 1], [0, 0, 1, 1]]),
            np.array([-1.0, -3, 1, -1]),
            G=np.array([[1.0, 2, 1, 1], [3, 1, 2, -1], [0, -1, -4, 0]]),
            h=np.array([5.0, 4, -1.5]), lower=np.zeros(4),
        ),
        [3 / 11, 23 / 11, 0, 6 / 11], Multipliers(None, [5 / 11, 0, 0], [0, 0, 19 / 11, 0], None),
    ),
    "HS28, singular P": (
        QuadraticProgram(
            2 * np.array([[1.0, 1, 0], [1, 2, 1], [0, 1, 1]]), np.zeros(3),
            np.array([[1.0, 2, 3]]), np.array([1.0]),
        ),
        [0.5, -0.5, 0.5], Multipliers([0], None, None, None),
    ),
    # Nocedal & Wright (2006), examples 16.2 and 16.4
    "equations only": (
        QuadraticProgram(
            np.array([[6.0, 2, 1], [2, 5, 2], [1, 2, 4]]), np.array([-8.0, -3, -3]),
            np.array([[1.0, 0, 1], [0, 1, 1]]), np.array([3.0, 0]),
        ),
        [2, -1, 1], Multipliers([-3, 2], None, None, None),
    ),
    "five sides": (
        QuadraticProgram(
            2 * np.eye(2), np.array([-2.0, -5]),
            G=np.array([[-1.0, 2], [1, 2], [1, -2]]), h=np.array([2.0, 6, 2]), lower=np.zeros(2),
        ),
        [1.4, 1.7], Multipliers(None, [0.8, 0, 0], [0, 0], None),
    ),
    "unconstrained": (
        QuadraticProgram(np.array([[2.0, 1, 0], [1, 2, 0], [0, 0, 4]]), np.array([-4.0, -5, 8])),
        [1, 2, -2], Multipliers(),
    ),
    # a diet: two nutrients bind, prices 5 z2 + 2 z3 = 0.6 and 5 z2 + 6 z3 = 1
    "diet": (
        QuadraticProgram(
            None, np.array([0.6, 1.0]),
            G=-np.array([[10.0, 4], [5, 5], [2, 6]]), h=-np.array([20.0, 20, 12]),
            lower=np.zeros(2),
        ),
        [3, 1], Multipliers(None, [0, 0.08, 0.1], [0, 0], None),
    ),
    "box of a linear program": (
        QuadraticProgram(None, np.array([1.0, -2, 3]), lower=-1.0, upper=np.array([1.0, 4, 5])),
        [-1, 4, -1], Multipliers(None, None, [1, 0, 3], [0, 2, 0]),
    ),
    "upper bounds only": (
        QuadraticProgram(np.eye(2), np.array([-3.0, 1]), upper=1.0),
        [1, -1], Multipliers(None, None, None, [2, 0]),
    ),
    # x2 is fixed at 1; the sum of its two prices is what -(Px + q)_2 = -1 asks for
    "fixed variable": (
        QuadraticProgram(
            np.eye(3), np.array([1.0, 0, -2]), np.array([[1.0, 1, 1]]), np.array([3.0]),
            lower=np.array([-INF, 1, -INF]), upper=np.array([INF, 1, INF]),
        ),
        [-0.5, 1, 2.5], None,
    ),
    # prices of copies are not unique: only their sum is, 2 x 2/9 for a row doubled
    "copied and doubled rows": (
        QuadraticProgram(
            np.array([[4.0, 2, 2], [2, 4, 0], [2, 0, 2]]), np.array([-8.0, -6, -4]),
            np.array([[1.0, 0, 0], [1, 0, 0], [-3, 0, 0]]), np.array([4 / 3, 4 / 3, -4]),
            np.concatenate([COLUMN, COLUMN, 2 * COLUMN]), np.array([3.0, 3, 6]), np.zeros(3),
        ),
        [4 / 3, 7 / 9, 4 / 9], None,
    ),
    "a point": (
        QuadraticProgram(np.ones((2, 2)), np.ones(2), np.array([[2.0, 1], [1, 1]]), np.ones(2)),
        [0, 1], Multipliers([0, -2], None, None, None),
    ),
}  # fmt: skip
NATURAL = ["HS21", "HS35", "equations only", "unconstrained", "diet", "upper bounds only"]


def close(have, want, name):
    # the answers are O(1) and well conditioned: a residual of 1.5e-8 moves them by a few 1e-8
    np.testing.assert_allclose(have, want, rtol=0, atol=2e-7, err_msg=name)


def check_known(name, program, solution):
    _, x, prices = CASES[name]
    assert solution.status == Status.CONVERGED, Status(int(solution.status)).name
    assert kkt(program, solution) <= TOL
    close(solution.x[: len(x)], x, name)
    for have, want in zip(solution.multipliers, prices or (), strict=prices is not None):
        if want is not None:
            close(have[: len(want)], want, name)
    P, q = full(CASES[name][0])[:2]
    x = np.asarray(x)
    close(solution.value, x @ P @ x / 2 + q @ x, name)


@pytest.mark.parametrize("name", CASES)
def test_known_answers_among_rows_of_zeros_and_free_rows(name):
    program = padded(CASES[name][0])
    solution = jol.solve_qp(*program)
    check_known(name, program, solution)
    worst = float(kkt(program, solution))
    assert solution.residuals.worst() <= TOL * (1 + abs(float(solution.value)))
    assert max(np.asarray(r) for r in solution.residuals[:3]) <= worst + 1e-12


@pytest.mark.parametrize("name", NATURAL)
def test_known_answers_with_parts_absent(name):
    program = CASES[name][0]
    solution = jol.solve_qp(*program)
    check_known(name, program, solution)
    absent = (program.b, program.h, program.lower, program.upper)
    assert [m is None for m in solution.multipliers] == [side is None for side in absent]


def test_solve_lp_is_solve_qp_without_curvature():
    program = CASES["diet"][0]
    solution = jol.solve_lp(program.q, G=program.G, h=program.h, lower=0.0)
    check_known("diet", program, solution)


def test_prices_of_copies_add_up():
    solution = jol.solve_qp(*padded(CASES["copied and doubled rows"][0]))
    z = np.asarray(solution.multipliers.ineq)
    # x1 >= 4/3 as an equation leaves HS35 in (x2, x3), whose optimum it is: the sum is unique
    close(z[0] + z[1] + 2 * z[2], 2 / 9, "sum of prices")


def test_sides_from_1e19_on_are_not_there():
    program = padded(CASES["HS21"][0])
    solution = jol.solve_qp(*program)
    big = program._replace(
        h=np.where(np.isinf(program.h), 1e19, program.h),
        lower=np.where(np.isinf(program.lower), -1e20, program.lower),
        upper=np.where(np.isinf(program.upper), 1e30, program.upper),
    )
    np.testing.assert_array_equal(jol.solve_qp(*big).x, solution.x)


def test_half_of_p_above_the_diagonal_is_the_same_as_all_of_it():
    program = padded(CASES["HS76"][0])
    above = np.triu(program.P, 1) * 2 + np.diag(np.diag(program.P))
    np.testing.assert_allclose(
        jol.solve_qp(*program._replace(P=above)).x, jol.solve_qp(*program).x, rtol=0, atol=1e-14
    )


def test_active_rows_have_slack_zero_and_the_others_price_zero():
    # a row of zeros with right side 0 binds weakly, with any price: a free row in its place
    program = padded(CASES["HS76"][0])
    program.h[-1] = INF
    solution = jol.solve_qp(*program)
    active = solution.state.active
    np.testing.assert_array_equal(active.ineq, [1, 0, 0, 0])
    np.testing.assert_array_equal(active.lower, [0, 0, 1, 0])
    np.testing.assert_array_equal(active.upper, np.zeros(4))
    np.testing.assert_array_equal(solution.multipliers.ineq[1:], np.zeros(3))
    np.testing.assert_array_equal(np.asarray(solution.multipliers.lower)[[0, 1, 3]], np.zeros(3))
    assert solution.x[2] == 0


# -- a batch of everything -------------------------------------------------------------------------

n, m, p = 8, 3, 6


def feasible(rng, rank=8, boxed=False, x=None):
    """A random program with x strictly inside; `rank` of P, all sides finite if `boxed`."""
    F, A, G = (rng.standard_normal((k, n)) for k in (rank, m, p))
    x = rng.standard_normal(n) if x is None else x
    h = G @ x + rng.exponential(1, p)
    lower, upper = x - rng.exponential(1, n), x + rng.exponential(1, n)
    if not boxed:
        h, lower = (
            np.where(rng.random(len(s)) < 0.3, far, s) for s, far in ((h, INF), (lower, -INF))
        )
        upper = np.where(rng.random(n) < 0.7, INF, upper)
    return QuadraticProgram(F.T @ F, rng.standard_normal(n), A, A @ x, G, h, lower, upper)


def linear(rng):
    return feasible(rng, 0, boxed=True)


def degenerate(rng):
    """Rows of A and G twice, an equation as an inequality too, equal sides, P of rank 3."""
    x = rng.standard_normal(n)
    program = feasible(rng, 3, boxed=True, x=x)
    A, b, G, h, lower, upper = program[2:]
    A[1], b[1] = -2 * A[0], -2 * b[0]
    G[1], h[1] = 3 * G[0], 3 * h[0]
    G[2], h[2] = A[2], b[2]
    lower[0] = upper[0] = x[0]
    return program


def steep(rng):
    """Units of rows and columns from 1e-3 to 1e3."""
    program = feasible(rng)
    x, y, z = (10 ** rng.uniform(-1.5, 1.5, k) for k in (n, m, p))
    P, q, A, b, G, h, lower, upper = program
    return QuadraticProgram(
        x[:, None] * P * x, x * q, y[:, None] * A * x, y * b, z[:, None] * G * x, z * h,
        lower / x, upper / x,
    )  # fmt: skip


def infeasible(rng):
    """The last row says that a sum of the others with prices is less than it is, by 1."""
    program = feasible(rng, int(rng.integers(0, n + 1)), boxed=True)
    G, h = program.G.copy(), program.h.copy()
    y, z = rng.standard_normal(m), rng.exponential(1, p - 1) * (rng.random(p - 1) < 0.5)
    G[-1] = -(program.A.T @ y + G[:-1].T @ z)
    h[-1] = -(program.b @ y + h[:-1] @ z) - 1
    return program._replace(G=G, h=h)


def bounds_against_equation(rng):
    """x >= lower and A x = b contradict each other: all entries of a row positive."""
    program = feasible(rng, boxed=True)
    A, b = program.A.copy(), program.b.copy()
    A[0] = rng.uniform(0.5, 1, n)
    b[0] = A[0] @ program.lower - 1
    return program._replace(A=A, b=b)


def unbounded(rng):
    """A direction along which the program is feasible for ever and falls."""
    program = feasible(rng, int(rng.integers(0, n - 1)))
    d = rng.standard_normal(n)
    d /= np.linalg.norm(d)
    off = np.eye(n) - np.outer(d, d)
    x = np.where(np.isfinite(program.upper), program.upper, 0)
    x = np.maximum(x, np.where(np.isfinite(program.lower), program.lower, -INF))
    A, G = program.A @ off, program.G @ off - rng.exponential(1, p)[:, None] * d
    q = off @ program.q - d
    lower, upper = np.where(d > 0, program.lower, -INF), np.where(d < 0, program.upper, INF)
    x = np.where(np.isfinite(lower), lower + 1, np.where(np.isfinite(upper), upper - 1, x))
    h = np.where(np.isfinite(program.h), G @ x + 1, INF)
    return program._replace(
        P=off @ program.P @ off, q=q, A=A, b=A @ x, G=G, h=h, lower=lower, upper=upper
    )


def nonconvex(rng):
    """One eigenvalue of P is negative; the program has an optimum all the same, for it is boxed."""
    program = feasible(rng, boxed=True)
    turn = np.linalg.qr(rng.standard_normal((n, n)))[0]
    values = np.concatenate([[-rng.uniform(0.01, 1)], rng.uniform(0, 1, n - 1)])
    return program._replace(P=turn @ np.diag(values) @ turn.T)


KINDS = {
    Status.CONVERGED: (feasible, linear, degenerate, steep),
    Status.PRIMAL_INFEASIBLE: (infeasible, bounds_against_equation),
    Status.DUAL_INFEASIBLE: (unbounded,),
    Status.NONCONVEX: (nonconvex,),
}
PLAN = [(status, kind) for status, kinds in KINDS.items() for kind in kinds]
LANES = 1600


@pytest.fixture(scope="module")
def everything():
    """1,600 programs of eight kinds in turn, what they are, and what the solver says."""
    rng = np.random.default_rng(0)
    made = [PLAN[i % len(PLAN)] for i in range(LANES)]
    programs = [kind(rng) for _, kind in made]
    return programs, made, batch(stacked(programs), TOL)


def lanes_of(made, status):
    return [i for i, (want, _) in enumerate(made) if want == status]


def test_every_lane_has_its_status(everything):
    _, made, solution = everything
    codes = np.asarray(solution.status)
    wrong = {
        (kind.__name__, Status(int(code)).name)
        for (status, kind), code in zip(made, codes, strict=True)
        if code != status
    }
    assert not wrong


def test_every_answer_satisfies_the_optimality_conditions(everything):
    programs, made, solution = everything
    worst = {}
    for i in lanes_of(made, Status.CONVERGED):
        kind = made[i][1].__name__
        worst[kind] = max(worst.get(kind, 0), kkt(programs[i], lane(solution, i)))
    # asked for 1.5e-8; the active set brings nearly all of them to rounding
    assert max(worst.values()) <= TOL, worst


def test_linear_programs_have_the_value_of_highs(everything):
    programs, made, solution = everything
    checked = 0
    for i in [i for i, (_, kind) in enumerate(made) if kind is linear][:60]:
        _, q, A, b, G, h, lower, upper = programs[i]
        by_highs = linprog(q, G, h, A, b, np.stack([lower, upper], 1), method="highs")
        value = float(solution.value[i])
        assert abs(value - by_highs.fun) <= 1e-8 * (1 + abs(by_highs.fun))
        checked += by_highs.status == 0
    assert checked == 60


def test_every_farkas_ray_proves_that_nothing_is_feasible(everything):
    programs, made, solution = everything
    for i in lanes_of(made, Status.PRIMAL_INFEASIBLE):
        _, _, A, b, G, h, lower, upper = programs[i]
        y, z, low, up = lane(solution.state.proof.farkas, i)
        assert min(z.min(), low.min(), up.min()) >= 0
        # documented: exact to sqrt(eps), so that no point of norm below 6e7 is feasible
        assert np.max(np.abs(A.T @ y + G.T @ z - low + up)) <= TOL
        np.testing.assert_allclose(b @ y + h @ z - lower @ low + upper @ up, -1, rtol=1e-9)
        assert not np.any(lane(solution.state.proof.direction, i))


def test_every_direction_falls_for_ever(everything):
    programs, made, solution = everything
    for i in lanes_of(made, Status.DUAL_INFEASIBLE):
        P, q, A, _, G, h, lower, upper = programs[i]
        d = lane(solution.state.proof.direction, i)
        assert np.max(np.abs(P @ d)) <= TOL
        assert np.max(np.abs(A @ d)) <= TOL
        assert np.max((G @ d)[np.isfinite(h)], initial=0) <= TOL
        assert np.min(d[np.isfinite(lower)], initial=0) >= -TOL
        assert np.max(d[np.isfinite(upper)], initial=0) <= TOL
        np.testing.assert_allclose(q @ d, -1, rtol=1e-9)


def test_the_certificate_checks_rays(everything):
    programs, made, solution = everything
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves[:240]), *programs)
    # Prices that prove nothing, in the last lane that had some, are not to be believed.
    lanes = [i for i in lanes_of(made, Status.PRIMAL_INFEASIBLE) if i < 240]
    farkas = solution.state.proof.farkas
    bent = farkas._replace(eq=farkas.eq.at[lanes[-1]].add(0.1))
    state = solution.state._replace(proof=solution.state.proof._replace(farkas=bent))
    some = jax.tree.map(lambda leaf: leaf[:240], dataclasses.replace(solution, state=state))
    seen = jax.jit(jax.vmap(jol.certify))(jol.QuadraticProgram(*stacked), some)
    verdicts = np.asarray(seen.verdict)
    unbounded = [i for i in lanes_of(made, Status.DUAL_INFEASIBLE) if i < 240]
    assert set(np.flatnonzero(verdicts == jol.Kind.NO_FEASIBLE_POINT)) == set(lanes[:-1])
    assert set(np.flatnonzero(verdicts == jol.Kind.UNBOUNDED)) == set(unbounded)
    assert verdicts[lanes[-1]] == jol.Kind.INFEASIBLE
    assert seen.rays.radius[lanes[-1]] < 1e3
    for i in lanes[:-1]:  # the radius by hand, without what is charged for rounding
        _, _, A, b, G, h, lower, upper = programs[i]
        y, z, low, up = lane(farkas, i)
        length = np.sum(np.abs(A.T @ y + G.T @ z - low + up))
        worth = -(b @ y + h @ z - lower @ low + upper @ up)
        assert 1e5 < seen.rays.radius[i] <= worth / length * (1 + 1e-9)


def test_every_direction_of_negative_curvature_is_one(everything):
    programs, made, solution = everything
    for i in lanes_of(made, Status.NONCONVEX):
        d = lane(solution.state.proof.direction, i)
        assert d @ programs[i].P @ d < -1e-3 * (d @ d)  # eigenvalues go up to 1, the least to -0.01
    assert not np.any(np.asarray(solution.success)[lanes_of(made, Status.NONCONVEX)])


def test_no_lane_has_nan(everything):
    for leaf in jax.tree.leaves((everything[2].x, everything[2].multipliers, everything[2].value)):
        assert np.all(np.isfinite(leaf))


def test_a_lane_of_nan_and_one_with_crossed_bounds_do_not_touch_the_others(everything):
    programs, _, clean = everything
    spoilt = list(programs)
    spoilt[8] = spoilt[8]._replace(P=np.full((n, n), np.nan))
    spoilt[16] = spoilt[16]._replace(q=np.full(n, np.nan))
    spoilt[24] = spoilt[24]._replace(h=np.full(p, np.nan))
    spoilt[32] = spoilt[32]._replace(lower=np.full(n, np.nan))
    spoilt[40] = spoilt[40]._replace(lower=np.ones(n), upper=np.zeros(n))
    solution = batch(stacked(spoilt), TOL)
    others = np.ones(LANES, bool)
    others[[8, 16, 24, 32, 40]] = False
    for have, want in zip(
        jax.tree.leaves((solution.x, solution.multipliers, solution.status)),
        jax.tree.leaves((clean.x, clean.multipliers, clean.status)),
        strict=True,
    ):
        np.testing.assert_array_equal(np.asarray(have)[others], np.asarray(want)[others])
    codes = np.asarray(solution.status)
    assert all(codes[i] == Status.NONFINITE for i in (8, 16, 24, 32)), codes[[8, 16, 24, 32]]
    assert codes[40] == Status.PRIMAL_INFEASIBLE
    assert not np.any(np.asarray(solution.success)[~others])


def test_lanes_take_the_steps_that_they_take_alone(everything):
    programs, _, solution = everything
    alone = jol.solve_qp(*programs[0])
    assert int(alone.steps) == int(solution.steps[0])
    np.testing.assert_allclose(alone.x, solution.x[0], rtol=0, atol=1e-9)


def test_hard_lanes_take_more_steps_than_easy_ones(everything):
    _, made, solution = everything
    steps = np.asarray(solution.steps)[lanes_of(made, Status.CONVERGED)]
    # predictor-corrector methods take 5 to 30 steps, whatever the program (Wright 1997, chapter 1)
    assert steps.max() <= 30
    assert steps.min() < steps.max()


# -- jit, tolerances, precision --------------------------------------------------------------------


jitted = jax.jit(lambda program: jol.solve_qp(*program))


@pytest.mark.parametrize("name", QuadraticProgram._fields)
def test_inside_jit_an_array_that_makes_no_sense_is_a_status(name):
    program = padded(CASES["HS76"][0])
    senseless = -INF if name in ("h", "upper") else INF
    for value in (np.nan, senseless):
        array = np.array(getattr(program, name))
        array.flat[0] = value
        solution = jitted(program._replace(**{name: array}))
        assert solution.status == Status.NONFINITE
        assert not solution.success


def test_jit_is_eager_and_new_numbers_compile_nothing(compilations):
    first, second = (padded(CASES[name][0]) for name in ("HS35", "HS76"))
    inside, eager = jitted(first), jol.solve_qp(*first)
    np.testing.assert_allclose(inside.x, eager.x, rtol=0, atol=1e-12)
    assert int(inside.status) == int(eager.status)
    with compilations() as count:
        again = jol.solve_qp(*second)
        tighter = jol.solve_qp(*second, tol=1e-9)
        jitted(second)
    assert count.programs == 0
    check_known("HS76", second, again)
    assert kkt(second, tighter) <= 1e-9


def test_tolerance_of_1e_minus_9_holds(everything):
    programs, made, _ = everything
    solution = batch(stacked(programs), 1e-9)
    lanes = lanes_of(made, Status.CONVERGED)
    assert np.all(np.asarray(solution.status)[lanes] == Status.CONVERGED)
    assert max(kkt(programs[i], lane(solution, i)) for i in lanes) <= 1e-9


def test_float32_reaches_its_default_tolerance(everything):
    programs, made, _ = everything
    chosen = [i for i in lanes_of(made, Status.CONVERGED) if made[i][1] is not steep][:300]
    some = [jax.tree.map(np.float32, programs[i]) for i in chosen]
    solution = batch(stacked(some), None)
    assert solution.x.dtype == solution.value.dtype == jnp.float32
    assert solution.multipliers.ineq.dtype == jnp.float32
    tol = float(np.sqrt(np.finfo(np.float32).eps))
    codes = np.asarray(solution.status)
    assert np.all(codes == Status.CONVERGED), np.unique(codes, return_counts=True)
    # float32 cannot measure its own residuals better than to eps |P| |x| |prices|, 1e-5 here
    assert max(kkt(program, lane(solution, i)) for i, program in enumerate(some)) <= 1.1 * tol


def test_steps_run_out():
    solution = jol.solve_qp(*padded(CASES["HS76"][0]), max_steps=2)
    assert solution.status == Status.MAX_STEPS
    assert int(solution.steps) == 2
    assert np.all(np.isfinite(solution.x))


def test_history_shows_the_gap_close():
    program = padded(CASES["HS76"][0])
    solution = jol.solve_qp(*program, history=True, max_steps=40)
    steps = int(solution.steps)
    rows = np.asarray(solution.history.value)
    assert rows.shape == (40,)
    assert np.all(np.isfinite(rows[:steps]))
    assert np.all(np.isnan(rows[steps:]))
    for part in solution.history.residuals:
        assert np.all(np.isfinite(np.asarray(part)[:steps]))
    products = np.asarray(solution.history.residuals.complementarity)[:steps]
    gaps = np.asarray(solution.history.gap)[:steps]
    assert products[-1] < 1e-6 * products[0]
    assert abs(gaps[-1]) < 1e-6 * abs(gaps[0])
    close(rows[steps - 1], solution.value, "last value")


# -- sparse ----------------------------------------------------------------------------------------


def test_sparse_matrices_go_to_the_first_order_method():
    program = padded(CASES["HS76"][0])
    spread = program._replace(
        P=sparse.BCOO.fromdense(program.P), G=sparse.BCOO.fromdense(program.G)
    )
    solution = jol.solve_qp(*spread, tol=1e-8)
    assert solution.status == Status.CONVERGED
    np.testing.assert_allclose(solution.x, CASES["HS76"][1], rtol=0, atol=1e-6)


# -- warm start ------------------------------------------------------------------------------------


def test_warm_start_with_the_same_active_set_takes_one_step():
    program = padded(CASES["HS76"][0])
    cold = jol.solve_qp(*program)
    near = program._replace(q=program.q + 0.01, h=program.h + 0.01)
    again, moved = (jol.solve_qp(*data, warm=cold) for data in (program, near))
    for data, solution in ((program, again), (near, moved)):
        assert solution.status == Status.CONVERGED
        assert int(solution.steps) == 1 < int(cold.steps)
        assert kkt(data, solution) <= TOL


def test_warm_start_with_another_active_set_finds_it():
    program = padded(CASES["HS76"][0])
    cold = jol.solve_qp(*program)
    rng = np.random.default_rng(1)
    for scale in (1.0, 10.0, 1e3):
        other = program._replace(
            q=program.q + scale * rng.standard_normal(N), P=program.P + np.eye(N)
        )
        solution = jol.solve_qp(*other, warm=cold)
        assert solution.status == Status.CONVERGED
        assert kkt(other, solution) <= TOL


def test_warm_start_far_off_is_survived():
    program = padded(CASES["HS76"][0])
    for far in (1e8, np.nan):
        start = Point(jnp.full(N, far), Multipliers())
        solution = jol.solve_qp(*program, warm=start)
        assert solution.status == Status.CONVERGED
        close(solution.x, CASES["HS76"][1], f"from {far}")


def test_model_predictive_control_with_warm_start():
    """A double integrator with |u| <= 1 is brought to rest; every program of the scan optimal."""
    move, push, horizon = np.array([[1.0, 0.2], [0, 1]]), np.array([0.02, 0.2]), 10
    # states as affine functions of the inputs, so that the inputs are the only variables
    powers = [np.linalg.matrix_power(move, k) for k in range(horizon + 1)]
    states = np.zeros((horizon, 2, horizon))
    for k in range(horizon):
        for j in range(k + 1):
            states[k, :, j] = powers[k - j] @ push
    S, T = states.reshape(-1, horizon), np.concatenate(powers[1:])
    P, bend = 2 * (S.T @ S + 0.01 * np.eye(horizon)), 2 * S.T @ T

    def control(carry, _):
        state, warm = carry
        solution = jol.solve_qp(P, bend @ state, lower=-1.0, upper=1.0, warm=warm)
        ahead = move @ state + push * solution.x[0]
        return (ahead, Point(solution.x, solution.multipliers)), (state, solution)

    @jax.jit
    def run(state):
        zeros = jnp.zeros(horizon)
        blank = Point(zeros, Multipliers(None, None, zeros, zeros))
        return jax.lax.scan(control, (state, blank), None, length=40)

    (end, _), (path, solutions) = run(jnp.array([3.0, 0.0]))
    assert np.all(np.asarray(solutions.status) == Status.CONVERGED)
    for i, state in enumerate(np.asarray(path)):
        program = QuadraticProgram(P, bend @ state, lower=-1.0, upper=1.0)
        assert kkt(program, lane(solutions, i)) <= TOL
    assert np.abs(np.asarray(solutions.x[0, 0])) == 1  # full force at first, exactly
    assert np.max(np.abs(end)) < 0.02
    steps = np.asarray(solutions.steps)
    assert np.median(steps[10:]) == 1  # no bound is active any more, so nothing changes


# -- the dual --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [feasible, linear])
def test_dual_has_minus_the_value_and_the_prices(kind, everything):
    programs, made, solution = everything
    i = next(i for i, (_, k) in enumerate(made) if k is kind)
    program = jax.tree.map(jnp.asarray, programs[i])
    dual = jol.dual_of(program)
    value = float(solution.value[i])
    # 8 + 3 + 6 + 8 + 8 unknowns, 8 equations; compiled once for both kinds
    answer = jol.solve_qp(*dual)
    assert answer.status == Status.CONVERGED
    assert abs(float(answer.value) + value) <= 1e-7 * (1 + abs(value))
    _, prices = np.split(np.asarray(answer.x), [n])
    y = prices[:m]
    np.testing.assert_allclose(y, solution.multipliers.eq[i], rtol=0, atol=1e-5)
    np.testing.assert_allclose(-answer.multipliers.eq, solution.x[i], rtol=0, atol=1e-5)
    # weak duality: a dual feasible point, not optimal, is below; `dual_value` says by how much
    point = jax.tree.map(lambda leaf: leaf[i], Point(solution.x, solution.multipliers))
    np.testing.assert_allclose(
        program.dual_value(point), value, rtol=0, atol=1e-7 * (1 + abs(value))
    )
    np.testing.assert_allclose(program.gap(point), 0, atol=1e-7 * (1 + abs(value)))


def test_weak_duality_at_points_that_are_only_feasible():
    program = jax.tree.map(jnp.asarray, CASES["five sides"][0])
    best = 1.4**2 - 2 * 1.4 + 1.7**2 - 5 * 1.7
    rng = np.random.default_rng(0)
    below = 0
    for _ in range(300):
        x, z = jnp.asarray(rng.standard_normal(2)), jnp.asarray(rng.exponential(1, 3))
        low = program.P @ x + program.q + program.G.T @ z  # makes the gradient vanish
        point = Point(x, Multipliers(None, z, low, None))
        assert np.max(np.abs(program.gradient(point))) < 1e-12
        if np.min(low) >= 0:
            assert program.dual_value(point) <= best
            below += 1
        if np.all(np.asarray(program.G @ x) <= program.h) and np.min(x) >= 0:
            assert program.value(x) >= best
    assert below >= 5


def test_dual_of_the_dual_has_the_value():
    program = jax.tree.map(jnp.asarray, CASES["diet"][0])
    dual = jol.dual_of(program)
    first = jol.solve_qp(*dual)
    close(first.value, -2.8, "dual")
    second = jol.solve_qp(*jol.dual_of(dual))
    close(second.value, 2.8, "dual of dual")


def test_dual_of_nothing_is_refused():
    with pytest.raises(ValueError, match="neither"):
        jol.dual_of(QuadraticProgram(None, jnp.ones(2)))


# -- what is refused -------------------------------------------------------------------------------

EYE = np.eye(2)
ONES = np.ones(2)
ROWS = np.ones((1, 2))
REFUSED = {
    "crossed bounds": (
        (EYE, ONES, None, None, None, None, [0.0, 1], [1.0, 0]), ValueError,
        ["`lower` must be at most `upper`", "entry 1", "1.0 above 0.0"],
    ),
    "A with b of another length": (
        (EYE, ONES, ROWS, ONES), ValueError, ["`b`", "(2,)", "`A`", "(1, 2)"],
    ),
    "A with columns of another number": (
        (EYE, ONES, np.ones((1, 3)), np.ones(1)), ValueError, ["`A`", "(1, 3)", "`q`", "(2,)"],
    ),
    "G with h of another length": (
        (EYE, ONES, None, None, ROWS, ONES), ValueError, ["`h`", "(2,)", "`G`", "(1, 2)"],
    ),
    "P of another size": ((np.eye(3), ONES), ValueError, ["`P`", "(3, 3)", "`q`", "(2,)"]),
    "P not square": ((np.ones((3, 2)), ONES), ValueError, ["`P`", "(3, 2)"]),
    "lower of another length": (
        (EYE, ONES, None, None, None, None, np.zeros(3)), ValueError, ["`lower`", "(3,)", "(2,)"],
    ),
    "A without b": ((EYE, ONES, ROWS), ValueError, ["`A` came without `b`"]),
    "h without G": ((EYE, ONES, None, None, None, ONES), ValueError, ["`h` came without `G`"]),
    "NaN in q": ((EYE, [1.0, np.nan]), ValueError, ["`q` must be finite", "(1,)", "nan"]),
    "NaN in P": ((EYE * np.nan, ONES), ValueError, ["`P` must be finite", "nan"]),
    "NaN in h": ((EYE, ONES, None, None, ROWS, [np.nan]), ValueError, ["`h`", "not NaN"]),
    "infinite b": ((EYE, ONES, ROWS, [INF]), ValueError, ["`b` must be finite", "inf"]),
    "h that nothing satisfies": (
        (EYE, ONES, None, None, ROWS, [-INF]), ValueError, ["`h` is -inf", "inf"],
    ),
    "lower that nothing satisfies": (
        (EYE, ONES, None, None, None, None, [INF, 0.0]), ValueError, ["`lower` is inf"],
    ),
    "complex P": ((EYE + 0j, ONES), TypeError, ["`P` must be real", "complex128"]),
    "text": ((EYE, "ones"), TypeError, ["`q` must be an array", "str"]),
    "no q": ((EYE, None), TypeError, ["`q` must be an array", "None"]),
    "a batch": ((np.ones((3, 2, 2)), np.ones((3, 2))), ValueError, ["`q`", "jax.vmap"]),
    "no variables": ((np.zeros((0, 0)), np.zeros(0)), ValueError, ["`q`", "n >= 1"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_program_is_refused(name):
    arrays, error, parts = REFUSED[name]
    with pytest.raises(error) as caught:
        jol.solve_qp(*arrays)
    for part in parts:
        assert part in str(caught.value)


def test_wrong_options_are_refused():
    dense = jol.ProximalInteriorPoint()
    with pytest.raises(TypeError, match=r"ProximalInteriorPoint factorises arrays.*todense"):
        jol.solve_qp(sparse.BCOO.fromdense(EYE), ONES, solver=dense)
    with pytest.raises(TypeError, match=r"`solver` must be None or one of .*ProximalInteriorPoint"):
        jol.solve_qp(EYE, ONES, solver=jol.ProximalInteriorPoint)
    with pytest.raises(ValueError, match="`tol`"):
        jol.solve_qp(EYE, ONES, tol=-1.0)
    with pytest.raises(ValueError, match="`relax`"):
        jol.solve_qp(EYE, ONES, relax=0.0)
    with pytest.raises(ValueError, match="`relax` needs `ProximalInteriorPoint`"):
        jol.solve_qp(EYE, ONES, relax=0.1, solver=jol.PDHG())
    with pytest.raises(TypeError, match=r"`warm` must be a Solution or a Point.*ndarray"):
        jol.solve_qp(EYE, ONES, warm=ONES)
    with pytest.raises(ValueError, match=r"`warm` has x of shape \(3,\).*\(2,\)"):
        jol.solve_qp(EYE, ONES, warm=Point(jnp.ones(3), Multipliers()))
    with pytest.raises(TypeError, match="`c` must be an array"):
        jol.solve_lp(None, ROWS, [1.0])


@pytest.mark.parametrize("name", ["P", "A", "G"])
def test_a_scipy_matrix_is_refused_with_the_way_out(name):
    parts = {"P": EYE, "q": ONES, "A": ROWS, "b": [1.0], "G": ROWS, "h": [1.0]}
    parts[name] = scipy.sparse.csr_array(parts[name])
    for solver in (None, jol.PDHG(), jol.ProximalInteriorPoint()):
        with pytest.raises(TypeError, match=rf"`{name}`.*BCOO"):
            jol.solve_qp(**parts, solver=solver)


# -- a standard set --------------------------------------------------------------------------------

FOLDER = pathlib.Path(__file__).parent / "data" / "maros_meszaros"
TINY = ("HS268", "HS35MOD", "HS52", "HS76", "QPTEST", "TAME", "ZECEVIC2")
OTHERS = ("HS118", "LOTSCHD", "QAFIRO", "DUALC2", "PRIMALC2")


def read(name):
    data = scipy.io.loadmat(FOLDER / f"{name}.mat")
    dense = lambda part: np.asarray(part.todense() if scipy.sparse.issparse(part) else part, float)
    side = {name: dense(data[name]).ravel() for name in ("q", "l", "u")}
    A = dense(data["A"])
    size = len(side["q"])
    assert np.array_equal(A[-size:], np.eye(size))  # bounds are the last rows
    rows = slice(None, -size)
    return QuadraticProgram.from_rows(
        dense(data["P"]), side["q"], A[rows], side["l"][rows], side["u"][rows],
        side["l"][-size:], side["u"][-size:],
    )  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_maros_meszaros(name):
    program = read(name)
    solution = jol.solve_qp(*program, tol=1e-6)
    assert solution.status == Status.CONVERGED
    assert kkt(program, solution) <= 1e-6


def test_the_smallest_of_maros_meszaros_in_one_batch():
    programs = [padded(read(name), 5, 3, 5) for name in TINY]
    solution = batch(stacked(programs), 1e-6)
    for i, (name, program) in enumerate(zip(TINY, programs, strict=True)):
        assert solution.status[i] == Status.CONVERGED, name
        assert kkt(program, lane(solution, i)) <= 1e-6, name

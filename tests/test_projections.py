"""Projections: a table of sets, and what must hold of every one of them.

p = P(x) is the projection on a closed convex set C if and only if p is in C and <x - p, y - p> <= 0
for all y in C. Both are checked without knowing how p was computed.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree

from jaxopt_lite import projections as on
from jaxopt_lite.prox import dykstra, polyhedra
from jaxopt_lite.prox import transport as transport_module

EPS = float(np.finfo(float).eps)
N = 6


@dataclasses.dataclass(frozen=True)
class Row:
    """A set: its projection, parameters that may be traced, points, members, distance."""

    name: str
    project: Callable
    args: tuple
    draw: Callable[[np.random.Generator], Any]
    member: Callable[[np.random.Generator], Any]
    outside: Callable[[Any], float]
    # Directions of the parameters that keep the set nonempty; None: any.
    moves: Callable[[np.random.Generator], tuple] | None = None
    tol: float = 1e-13  # of membership and of the inequality, for numbers of size 1

    def __str__(self):
        return self.name


def vector(rng):
    return 2 * rng.normal(size=N)


def pair(rng):
    return {"a": 2 * rng.normal(size=4), "b": 2 * rng.normal(size=(2, 1))}


def vec(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def like(tree, flat):
    return ravel_pytree(jax.tree.map(jnp.asarray, tree))[1](jnp.asarray(flat))


LOWER, UPPER = (
    np.array([-1.0, -0.5, 0.0, -np.inf, 0.3, -2.0]),
    np.array([1, 0.5, np.inf, 0, 0.4, 2]),
)
NORMAL = {"a": np.array([1.0, -2.0, 0.5, 0.0]), "b": np.array([[3.0], [1.0]])}
CAPS = np.array([0.5, 1.0, 0.3, 2.0, np.inf, 0.1])
MATRIX = np.array([[1.0, 2, 0, -1, 0.5, 1], [0, 1, 1, 1, -1, 2]])
ROW, COL = np.array([1.0, 0.5, 1.5]), np.array([0.7, 0.8, 0.9, 0.6])
CENTRE = {"a": np.array([0.3, -0.2, 0.1, 0.0]), "b": np.array([[0.1], [0.2]])}


def in_caps(rng):
    """Fill the entries in random order: a vertex; then a mean of vertices."""

    def vertex():
        p, left = np.zeros(N), 1.7
        for i in rng.permutation(N):
            p[i] = min(left, CAPS[i])
            left -= p[i]
        return p

    weights = rng.dirichlet(np.ones(4))
    return sum(w * vertex() for w in weights)


def a_plan(rng):
    """The north-west corner rule in random order: a vertex; then a mean of vertices."""

    def vertex():
        P, r, c = np.zeros((3, 4)), ROW.copy(), COL.copy()
        for i in rng.permutation(3):
            for j in rng.permutation(4):
                P[i, j] = min(r[i], c[j])
                r[i] -= P[i, j]
                c[j] -= P[i, j]
        return P

    return sum(w * vertex() for w in rng.dirichlet(np.ones(4)))


def ball(norm, reach):
    def member(rng):
        x = vec(pair(rng))
        return like(CENTRE, vec(CENTRE) + x * rng.uniform() * reach / norm(x))

    return member, lambda p: norm(vec(p) - vec(CENTRE)) - reach


def norm1(v):
    return np.sum(np.abs(v))


def in_plane(rng):
    x = vec(pair(rng))
    a = vec(NORMAL)
    return like(NORMAL, x - (a @ x - 0.7) / (a @ a) * a)


def in_half_space(rng):
    return like(NORMAL, vec(in_plane(rng)) - rng.exponential() * vec(NORMAL))


def in_affine(rng):
    x = vector(rng)
    return x - np.linalg.pinv(MATRIX) @ (MATRIX @ x - [1.0, 2.0])


def in_cone(rng):
    v = rng.normal(size=3)
    return (np.linalg.norm(v) + rng.exponential(), v)


def psd(rng):
    half = rng.normal(size=(4, rng.integers(1, 5)))
    return half @ half.T


def symmetric(rng):
    half = rng.normal(size=(4, 4))
    return half + half.T


def simplex_outside(p, total):
    return max(-np.min(p), abs(np.sum(p) - total))


def caps_and_sum(x, total):
    """The capped simplex as a box and a plane."""
    return on.intersection(
        x,
        [
            lambda x: on.box(x, 0.0, jnp.asarray(CAPS, x.dtype)),
            lambda x: on.hyperplane(x, jnp.ones_like(x), total),
        ],
    )


def ball_and_half_space(x, radius, normal):
    return on.intersection(
        x, [lambda x: on.l2_ball(x, radius), lambda x: on.half_space(x, normal, 0.3)]
    )


def in_both(rng):
    x = vector(rng)
    x = x / np.linalg.norm(x)
    return x if np.sum(x) <= 0.3 else -x


L2, LINF = np.linalg.norm, lambda v: np.max(np.abs(v))
TABLE = [
    Row(
        "box", on.box, (LOWER, UPPER), vector,
        lambda rng: np.clip(3 * rng.normal(size=N), LOWER, UPPER),
        lambda p: max(np.max(LOWER - p), np.max(p - UPPER)),
        moves=lambda rng: tuple(
            np.where(np.isfinite(b), rng.normal(size=N), 0.0) for b in (LOWER, UPPER)
        ),
    ),
    Row("non_negative", on.non_negative, (), pair,
        lambda rng: jax.tree.map(np.abs, pair(rng)), lambda p: -np.min(vec(p))),
    Row("l2_ball", on.l2_ball, (1.3, CENTRE), pair, *ball(L2, 1.3)),
    Row("l1_ball", on.l1_ball, (1.3, CENTRE), pair, *ball(norm1, 1.3)),
    Row("linf_ball", on.linf_ball, (1.3, CENTRE), pair, *ball(LINF, 1.3)),
    Row("simplex", on.simplex, (2.5,), vector, lambda rng: 2.5 * rng.dirichlet(np.ones(N)),
        lambda p: simplex_outside(p, 2.5)),
    Row(
        "capped_simplex", on.capped_simplex, (1.7, CAPS), vector, in_caps,
        lambda p: max(simplex_outside(p, 1.7), np.max(p - CAPS)),
        moves=lambda rng: (rng.normal(), np.where(np.isfinite(CAPS), rng.normal(size=N), 0.0)),
    ),
    Row("hyperplane", on.hyperplane, (NORMAL, 0.7), pair, in_plane,
        lambda p: abs(vec(NORMAL) @ vec(p) - 0.7)),
    Row("half_space", on.half_space, (NORMAL, 0.7), pair, in_half_space,
        lambda p: vec(NORMAL) @ vec(p) - 0.7),
    Row("affine", on.affine, (MATRIX, np.array([1.0, 2.0])), vector, in_affine,
        lambda p: np.max(np.abs(MATRIX @ p - [1.0, 2.0]))),
    Row("second_order_cone", on.second_order_cone, (),
        lambda rng: (2 * rng.normal(), rng.normal(size=3)), in_cone,
        lambda p: np.linalg.norm(p[1]) - p[0]),
    Row("psd_cone", on.psd_cone, (), symmetric, psd,
        lambda p: max(-np.min(np.linalg.eigvalsh(p)), np.max(np.abs(p - p.T)))),
    Row(
        "transport", on.transport, (ROW, COL), lambda rng: rng.normal(size=(3, 4)), a_plan,
        lambda p: max(-p.min(), *np.abs(p.sum(1) - ROW), *np.abs(p.sum(0) - COL)),
        moves=lambda rng: (ROW * 0 + [1.0, -2.0, 1.5], COL * 0 + [0.3, 0.1, 0.7, -0.6]),
    ),
    # Dykstra stops at changes of 2e-12 (1 + |x|); with a rate of 0.9 that is an error of 1e-10.
    Row("box and plane", caps_and_sum, (1.7,), vector, in_caps,
        lambda p: max(simplex_outside(p, 1.7), np.max(p - CAPS)), tol=1e-10),
    Row("ball and half space", ball_and_half_space, (1.0, np.ones(N)), vector, in_both,
        lambda p: max(np.linalg.norm(p) - 1, np.sum(p) - 0.3), tol=1e-10),
]  # fmt: skip
each = pytest.mark.parametrize("row", TABLE, ids=str)
_compiled: dict[str, Callable] = {}


def run(row, x, args=None):
    """The projection, compiled once for all tests of a row."""
    project = _compiled.setdefault(row.name, jax.jit(row.project))
    return project(as_arrays(x), *as_arrays(row.args if args is None else args))


def as_arrays(tree, dtype=float):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


@each
def test_result_is_in_the_set_and_nearest(row, rng):
    for size in (1e-3, 1.0, 1.0, 30.0):
        x = jax.tree.map(lambda leaf, size=size: size * leaf, row.draw(rng))
        p = run(row, x)
        scale = 1 + np.max(np.abs(vec(x)))
        assert row.outside(jax.tree.map(np.asarray, p)) <= row.tol * scale
        for _ in range(20):
            y = vec(row.member(rng))
            assert (vec(x) - vec(p)) @ (y - vec(p)) <= 10 * row.tol * scale**2 * (1 + L2(y))


@each
def test_members_stay_and_projecting_twice_changes_nothing(row, rng):
    y = row.member(rng)
    np.testing.assert_allclose(vec(run(row, y)), vec(y), atol=10 * row.tol * (1 + L2(vec(y))))
    p = run(row, row.draw(rng))
    np.testing.assert_allclose(vec(run(row, p)), vec(p), atol=10 * row.tol)


@each
def test_no_two_points_move_apart(row, rng):
    for _ in range(10):
        x, y = row.draw(rng), row.draw(rng)
        apart = L2(vec(run(row, x)) - vec(run(row, y)))
        assert apart <= L2(vec(x) - vec(y)) + 10 * row.tol


def directions(row, x, rng):
    """A direction for x and for all parameters."""
    moves = (
        row.moves(rng)
        if row.moves
        else jax.tree.map(lambda leaf: rng.normal(size=np.shape(leaf)), row.args)
    )
    return as_arrays((jax.tree.map(lambda leaf: rng.normal(size=np.shape(leaf)), x), *moves))


def inner(one, two):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    return sum(jnp.sum(a * b) for a, b in pairs)


@each
def test_derivatives_equal_finite_differences_in_both_modes_and_twice(row, rng):
    @jax.jit
    def everything(primals, tangents, weights):
        """P, dP, the reverse <w, P>' d, d^2 P, and <w, P>'' by reverse over reverse."""
        where = tuple(range(len(primals)))
        push = lambda *p: jax.jvp(row.project, p, tangents)
        (p, derivative), (_, second) = jax.jvp(push, primals, tangents)
        gradient = jax.grad(lambda *p: inner(row.project(*p), weights), where)
        slope, pull = jax.vjp(lambda *p: inner(gradient(*p), tangents), *primals)
        return p, derivative, slope, second, inner(pull(jnp.ones(())), tangents)

    h = 1e-5
    for _ in range(4):
        x = row.draw(rng)
        primals, tangents = as_arrays((x, *row.args)), directions(row, x, rng)
        shape = run(row, x)
        weights = as_arrays(jax.tree.map(lambda leaf: rng.normal(size=np.shape(leaf)), shape))

        def at(t, primals=primals, tangents=tangents, weights=weights):
            moved = jax.tree.map(lambda p, d: p + t * d, primals, tangents)
            return everything(moved, tangents, weights)

        _, derivative, slope, second, curvature = at(0.0)
        ahead, behind = at(h), at(-h)
        # Central differences: h^2 times a third derivative of up to 10, and row.tol / h
        difference = (vec(ahead[0]) - vec(behind[0])) / (2 * h)
        error = 1e-8 * (1 + L2(vec(derivative))) + 10 * row.tol / h
        np.testing.assert_allclose(vec(derivative), difference, atol=error)
        np.testing.assert_allclose(slope, inner(weights, derivative), rtol=1e-9, atol=1e-9)
        difference = (vec(ahead[1]) - vec(behind[1])) / (2 * h)
        np.testing.assert_allclose(vec(second), difference, atol=1e-6 * (1 + L2(vec(second))))
        np.testing.assert_allclose(curvature, inner(weights, second), rtol=1e-8, atol=1e-8)


@each
def test_a_batch_of_5000_equals_the_loop_and_nan_stays_in_its_lane(row, rng):
    lanes, broken = 5000, 1234
    sizes = np.geomspace(1e-2, 1e2, lanes)  # inside and far outside, few steps and many

    def batched(leaf):
        values = rng.normal(size=(lanes, *np.shape(leaf)))
        values *= sizes.reshape(-1, *[1] * np.ndim(leaf))
        values[broken] = np.nan
        return jnp.asarray(values)

    x, args = jax.tree.map(batched, row.draw(rng)), as_arrays(row.args)
    batch = jax.jit(jax.vmap(row.project, (0, *[None] * len(args))))(x, *args)
    for lane in range(0, lanes, 500):
        alone = run(row, jax.tree.map(lambda leaf, lane=lane: leaf[lane], x))
        here = jax.tree.map(lambda leaf, lane=lane: leaf[lane], batch)
        np.testing.assert_allclose(vec(here), vec(alone), atol=row.tol * (1 + sizes[lane]))
    leaves = jax.tree.leaves(batch)
    finite = np.concatenate([np.isfinite(leaf).reshape(lanes, -1) for leaf in leaves], axis=1)
    assert np.array_equal(np.flatnonzero(~np.all(finite, axis=1)), [broken])
    assert not np.any(finite[broken])


@each
def test_float32_stays_float32_and_is_as_accurate_as_it_can_be(row, rng):
    for _ in range(3):
        x = row.draw(rng)
        low = as_arrays((x, *row.args), np.float32)
        p = jax.jit(row.project)(*low)
        assert {leaf.dtype for leaf in jax.tree.leaves(p)} == {np.dtype(np.float32)}
        # A projection does not enlarge the 6e-8 of rounding; Dykstra adds its tol of 6e-6.
        error = 1e-4 if row.tol > 1e-12 else 20 * np.finfo(np.float32).eps * (1 + L2(vec(x)))
        np.testing.assert_allclose(vec(p), vec(run(row, x)), atol=error)


# -- references ------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [r for r in TABLE if r.name in (
    "simplex", "capped_simplex", "transport", "l1_ball")], ids=str)  # fmt: skip
def test_equals_a_general_solver(row, rng):
    x = vec(row.draw(rng))
    n = x.size
    kinds = {
        "simplex": ([(0, None)] * n, lambda p: np.array([np.sum(p) - 2.5]), "eq"),
        "capped_simplex": ([(0, u) for u in CAPS], lambda p: np.array([np.sum(p) - 1.7]), "eq"),
        "transport": (
            [(0, None)] * n,
            lambda p: np.concatenate(
                [p.reshape(3, 4).sum(1) - ROW, p.reshape(3, 4).sum(0)[:3] - COL[:3]]
            ),
            "eq",
        ),
        "l1_ball": ([(None, None)] * n, lambda p: 1.3 - norm1(p - vec(CENTRE)), "ineq"),
    }
    bounds, constraint, kind = kinds[row.name]
    if row.name == "l1_ball":  # p = centre + a - b, a, b >= 0: smooth constraints
        answer = scipy.optimize.minimize(
            lambda z: 0.5 * np.sum((z[:n] - z[n:] - x + vec(CENTRE)) ** 2),
            np.full(2 * n, 0.1), bounds=[(0, None)] * (2 * n), method="SLSQP",
            constraints={"type": "ineq", "fun": lambda z: 1.3 - np.sum(z)},
            options={"ftol": 1e-15, "maxiter": 500},
        ).x  # fmt: skip
        answer = vec(CENTRE) + answer[:n] - answer[n:]
    else:
        answer = scipy.optimize.minimize(
            lambda p: 0.5 * np.sum((p - x) ** 2), np.full(n, 0.3), jac=lambda p: p - x,
            bounds=bounds, constraints={"type": kind, "fun": constraint}, method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 500},
        ).x  # fmt: skip
    shaped = like(row.draw(rng), x)
    # SLSQP takes forward differences of the constraints: seven digits
    np.testing.assert_allclose(vec(run(row, shaped)), answer, atol=1e-6)


def test_known_answers():
    # Boyd and Vandenberghe, by hand: t = 0.05 (0.15 is the multiplier of the third).
    p = on.simplex(jnp.array([0.5, 0.2, -0.4]))
    np.testing.assert_allclose(p, [0.65, 0.35, 0.0], atol=1e-15)
    np.testing.assert_allclose(
        on.capped_simplex(jnp.array([3.0, 2.0, 0.0, -1.0]), 2.0), [1, 1, 0, 0], atol=1e-15
    )
    np.testing.assert_allclose(on.l1_ball(jnp.array([3.0, -1.0])), [1.0, 0.0], atol=1e-15)
    t, v = on.second_order_cone((0.0, jnp.array([3.0, 4.0])))
    np.testing.assert_allclose([t, *v], [2.5, 1.5, 2.0], atol=1e-15)
    swap = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(on.psd_cone(swap), [[0.5, 0.5], [0.5, 0.5]], atol=1e-15)
    np.testing.assert_allclose(on.psd_cone(jnp.array([[1.0, 1.0], [-1.0, 1.0]])), np.eye(2))
    # Far from the polytope the projection is the best assignment.
    C = np.random.default_rng(0).normal(size=(7, 7))
    rows, columns = scipy.optimize.linear_sum_assignment(-C)
    P = on.transport(1e3 * jnp.asarray(C))
    np.testing.assert_allclose(P[rows, columns], 1.0, atol=1e-12)


def test_sets_that_are_the_same_have_the_same_projection(rng):
    x = jnp.asarray(vector(rng))
    same = [
        (on.simplex(x, 2.0), on.capped_simplex(x, 2.0, jnp.inf)),
        (on.simplex(x, 2.0), on.transport(x[None], 2.0 * jnp.ones(1), 1.0)[0])
        if N == 2 else (on.hyperplane(x, jnp.ones(N), 1.0), on.affine(x, jnp.ones((1, N)), 1.0)),
        (on.capped_simplex(x, 1.7, jnp.asarray(CAPS)), caps_and_sum(x, 1.7)),
        (on.linf_ball(x, 0.3), on.box(x, -0.3, 0.3)),
        (on.l2_ball(x, jnp.inf), x),
        (on.l1_ball(x, jnp.inf), x),
        (on.affine(x, jnp.asarray(MATRIX), jnp.ones(2)),
         on.affine(x, jnp.asarray(MATRIX[[0, 1, 1, 0]] * [[1], [2], [1], [3]]),
                   jnp.array([1.0, 2.0, 1.0, 3.0]))),
    ]  # fmt: skip
    for one, other in same:
        np.testing.assert_allclose(one, other, atol=1e-10)


def test_sums_are_exact_for_numbers_of_any_size():
    rng = np.random.default_rng(1)
    for dtype in (np.float32, np.float64):
        eps = np.finfo(dtype).eps
        for shift in (0.0, 1e6):
            x = jnp.asarray(rng.normal(size=1000) + shift, dtype)
            assert abs(jnp.sum(on.simplex(x)) - 1) < 10 * eps
            p = on.capped_simplex(x, 300.0)
            # entries are differences of numbers of size 1 + shift / 1e6 that were rounded in x
            assert abs(jnp.sum(p) - 300) < 300 * 10 * eps
            assert jnp.min(p) >= 0
            assert jnp.max(p) <= 1
    huge = on.l2_ball(jnp.array([3e30, 4e30], jnp.float32))
    np.testing.assert_allclose(huge, [0.6, 0.8], rtol=1e-6)
    tiny = on.half_space(jnp.array([1.0, 1.0]), jnp.array([1e-200, 0.0]), 0.0)
    np.testing.assert_allclose(tiny, [0.0, 1.0], atol=1e-15)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((5, 5), np.float64), ((20, 30), np.float64), ((20, 30), np.float32), ((30, 12), np.float32)],
)
def test_transport_needs_few_steps_whatever_the_spread(shape, dtype, rng):
    m, n = shape
    row = rng.dirichlet(np.ones(m)) * m
    col = rng.dirichlet(np.ones(n)) * m
    row, col = jnp.asarray(row, dtype), jnp.asarray(col * row.sum() / col.sum(), dtype)

    @jax.jit
    def both(C, row, col):
        count = transport_module._dual(C, row, col)[1] if m <= n else 0
        return on.transport(C, row, col), count

    for spread in (1e-2, 1.0, 1e1, 1e2, 1e3):
        C = jnp.asarray(spread * rng.normal(size=shape), dtype)
        P, count = map(np.asarray, both(C, row, col))
        sums = max(abs(P.sum(1) - row).max(), abs(P.sum(0) - col).max())
        assert sums <= 50 * np.finfo(dtype).eps * row.max()
        assert count <= 60, spread


def test_capped_sums_are_met_also_where_the_threshold_is_not_unique(rng):
    find = jax.jit(polyhedra._cap_threshold)
    x = np.array([3.0, 3, 0, -1, 0, 2])
    for total in range(N + 1):
        t = find(*as_arrays((x, total, np.ones(N))))
        assert np.sum(np.clip(x - t, 0, 1)) == pytest.approx(total, abs=1e-14)
    # Two entries are full for t in [1, 2], where no other has begun: the middle.
    assert find(*as_arrays((np.array([3.0, 3, 1, 0]), 2.0, np.ones(4)))) == pytest.approx(1.5)


# -- kinks -----------------------------------------------------------------------------------------


def proj(*v):
    """I - vv'/v'v."""
    v = np.asarray(v, float)
    return np.eye(v.size) - np.outer(v, v) / (v @ v)


KINKS = [
    # On the set, boundary included: the identity, or that on the directions of its affine hull.
    ("box at its bounds", lambda x: on.box(x, 0.0, 1.0), [0.0, 1.0], np.eye(2)),
    ("box without an interior", lambda x: on.box(x, 1.0, 1.0), [1.0, 2.0], np.zeros((2, 2))),
    ("zero", on.non_negative, [0.0, -1.0], np.diag([1.0, 0.0])),
    ("centre of the ball", on.l2_ball, [0.0, 0.0], np.eye(2)),
    ("sphere", on.l2_ball, [0.6, 0.8], np.eye(2)),
    ("ball of radius 0", lambda x: on.l2_ball(x, 0.0), [0.0, 0.0], np.zeros((2, 2))),
    ("l1 sphere", on.l1_ball, [0.25, -0.75], np.eye(2)),
    ("l1 corner", on.l1_ball, [0.0, 1.0], np.eye(2)),
    ("l1 ball of radius 0", lambda x: on.l1_ball(x, 0.0), [0.0, 0.0], np.zeros((2, 2))),
    ("linf sphere", on.linf_ball, [1.0, -1.0], np.eye(2)),
    ("simplex with zeros", on.simplex, [0.5, 0.5, 0.0], proj(1, 1, 1)),
    ("simplex corner", on.simplex, [1.0, 0.0, 0.0], proj(1, 1, 1)),
    ("simplex of one point", lambda x: on.simplex(x, 0.0), [1.0, 1.0], np.zeros((2, 2))),
    ("capped simplex at bounds", lambda x: on.capped_simplex(x, 1.0), [1.0, 0.0], proj(1, 1)),
    ("no caps to fill", lambda x: on.capped_simplex(x, 0.0), [1.0, 1.0], np.zeros((2, 2))),
    # t may be anything in (0, 2): x moves nothing
    ("full caps", lambda x: on.capped_simplex(x, 2.0), [3.0, 3.0, 0.0], np.zeros((3, 3))),
    ("half space", lambda x: on.half_space(x, jnp.array([3.0, 4.0]), 5.0), [0.6, 0.8], np.eye(2)),
    ("half of a cone", lambda x: cone(x), [0.0, 0.0, 0.0], np.eye(3)),
    ("cone's boundary", lambda x: cone(x), [5.0, 3.0, 4.0], np.eye(3)),
    # The polar's boundary: the rank-one projection on (1, -v / t) / sqrt(2).
    ("polar's boundary", lambda x: cone(x), [-5.0, 3.0, 4.0],
     0.5 * np.outer([1, 0.6, 0.8], [1, 0.6, 0.8])),
    ("polar cone", lambda x: cone(x), [-1.0, 0.0, 0.0], np.zeros((3, 3))),
    ("cone axis", lambda x: cone(x), [1.0, 0.0, 0.0], np.eye(3)),
]  # fmt: skip


def cone(x):
    t, v = on.second_order_cone((x[0], x[1:]))
    return jnp.concatenate([t[None], v])


@pytest.mark.parametrize(("name", "project", "x", "expected"), KINKS, ids=[k[0] for k in KINKS])
def test_kinks_give_the_documented_derivative(name, project, x, expected):
    @jax.jit
    def derivatives(x):
        slope = jax.grad(lambda x: jnp.sum(jnp.sin(project(x))))
        bent = jax.jvp(slope, (x,), (jnp.arange(1.0, x.size + 1),))[1]
        return jax.jacfwd(project)(x), jax.jacrev(project)(x), bent

    forward, reverse, second = derivatives(jnp.array(x))
    np.testing.assert_allclose(forward, expected, atol=1e-14)
    np.testing.assert_allclose(reverse, expected, atol=1e-14)
    assert np.all(np.isfinite(second))


def test_repeated_and_zero_eigenvalues():
    rng = np.random.default_rng(2)
    E = jnp.asarray(symmetric(rng))
    V = np.linalg.qr(rng.normal(size=(4, 4)))[0]

    def push(values):
        X = jnp.asarray(V @ np.diag(values) @ V.T)
        return np.asarray(jax.jvp(on.psd_cone, (X,), (E,))[1]), X

    # Positive definite or singular in the cone: the identity.
    for values in ([1.0, 1, 1, 1], [2.0, 2, 0, 0], [0.0, 0, 0, 0]):
        np.testing.assert_allclose(push(values)[0], E, atol=1e-13)
    np.testing.assert_allclose(push([-1.0, -1, -1, -1])[0], 0, atol=1e-15)
    # Twofold on both sides: finite differences hold, and so does the second derivative.
    derivative, X = push([2.0, 2, -1, -1])
    h = 1e-6
    difference = (on.psd_cone(X + h * E) - on.psd_cone(X - h * E)) / (2 * h)
    np.testing.assert_allclose(derivative, difference, atol=1e-8)
    second = jax.jvp(lambda X: jax.jvp(on.psd_cone, (X,), (E,))[1], (X,), (E,))[1]
    pushed = lambda X: jax.jvp(on.psd_cone, (X,), (E,))[1]
    np.testing.assert_allclose(second, (pushed(X + h * E) - pushed(X - h * E)) / (2 * h), atol=1e-7)
    # The derivative is a symmetric map, G with entries l+ / (l+ + |l-|) = 2/3 across the signs.
    inside = V.T @ derivative @ V
    G = np.array([[1, 1, 2 / 3, 2 / 3]] * 2 + [[2 / 3, 2 / 3, 0, 0]] * 2)
    np.testing.assert_allclose(inside, G * (V.T @ np.asarray(E) @ V), atol=1e-13)


def test_transport_at_a_vertex_and_with_empty_sums():
    @jax.jit
    def everything(C, row, col):
        P, pull = jax.vjp(on.transport, C, row, col)
        return P, jax.jacfwd(on.transport)(C, row, col), pull(jnp.ones_like(C))

    ones = jnp.ones(3)
    P, jacobian, _ = everything(10.0 * jnp.eye(3), ones, ones)
    np.testing.assert_allclose(P, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(jacobian, 0, atol=1e-12)
    sums = jnp.array([1.0, 0.0, 1.0]), jnp.array([2.0, 0.0, 0.0])
    P, jacobian, cotangents = everything(jnp.ones((3, 3)), *sums)
    np.testing.assert_allclose(P, [[1, 0, 0], [0, 0, 0], [1, 0, 0]], atol=1e-14)
    np.testing.assert_allclose(jacobian, 0, atol=1e-12)
    assert all(np.all(np.isfinite(ct)) for ct in cotangents)
    P, jacobian, _ = everything(jnp.arange(9.0).reshape(3, 3) ** 2, 0 * ones, 0 * ones)
    assert np.all(P == 0)
    assert np.all(jacobian == 0)


def test_dependent_rows_have_derivatives(rng):
    """b moves in the range of A, and A is multiplied by a number: the set stays nonempty."""
    A = jnp.asarray(np.vstack([MATRIX, MATRIX[0] + MATRIX[1]]))
    shift = jnp.asarray(vector(rng))
    x = jnp.asarray(vector(rng))
    family = lambda s: on.affine(x, A * jnp.exp(s), A @ shift * (jnp.exp(s) + s))
    moved = jax.jit(jax.jacfwd(family))(0.0)
    np.testing.assert_allclose(A @ moved, A @ shift, atol=1e-12)
    np.testing.assert_allclose(moved, np.linalg.pinv(A) @ (A @ shift), atol=1e-12)
    jacobian = jax.jit(jax.jacrev(on.affine))(x, A, A @ shift)
    np.testing.assert_allclose(jacobian, np.eye(N) - np.linalg.pinv(A) @ A, atol=1e-13)


# -- intersections ---------------------------------------------------------------------------------


def test_intersection_of_a_pytree_is_differentiable_in_what_is_closed_over():
    x = {"a": jnp.array([2.0, -1.0]), "b": jnp.array([[3.0]])}

    def largest(radius):
        sets = [on.non_negative, lambda x: on.l2_ball(x, radius)]
        return on.intersection(x, sets)

    p = jax.jit(largest)(1.0)  # here P of the cone, then of the ball
    np.testing.assert_allclose(vec(p), np.array([2, 0, 3]) / np.sqrt(13), atol=1e-10)
    both = jax.jit(lambda radius: (jax.jacfwd(largest)(radius), jax.jacrev(largest)(radius)))
    for jacobian in both(1.0):
        np.testing.assert_allclose(vec(jacobian), np.array([2, 0, 3]) / np.sqrt(13), atol=1e-9)


def test_matrix_free_derivatives_equal_dense_ones(monkeypatch, rng):
    x = jnp.asarray(vector(rng))
    derivatives = lambda x, total: jax.jacrev(caps_and_sum, (0, 1))(x, total)
    dense = jax.jit(derivatives)(x, 1.7)
    monkeypatch.setattr(dykstra, "DENSE_LIMIT", 0)
    free = jax.jit(lambda x, total: derivatives(x, total))(x, 1.7)  # a new function: traced anew
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-8), dense, free)


def test_an_empty_or_unfinished_intersection_shows():
    apart = [lambda x: on.box(x, 0.0, 1.0), lambda x: on.box(x, 2.0, 3.0)]

    @jax.jit
    def everything(x):
        total = lambda x: jnp.sum(on.intersection(x, apart, max_rounds=50))
        p = on.intersection(x, apart, max_rounds=50)
        last = on.intersection(x, apart, max_rounds=50, unfinished="allow")
        return p, jax.grad(total)(x), jax.grad(masked)(x), last

    def masked(x):
        p = jax.vmap(lambda x: on.intersection(x, apart, max_rounds=50))(x[None])[0]
        return jnp.sum(jnp.where(jnp.isnan(p), 0.0, p)) + jnp.sum(x)

    p, slope, rest, last = everything(jnp.array([1.0, 2.0]))
    assert np.all(np.isnan(p))
    assert np.all(np.isnan(slope))
    np.testing.assert_allclose(rest, 1.0)
    assert np.all(np.isfinite(last))


def test_momentum_saves_rounds_far_from_the_sets():
    """The plain method needs 1,124 rounds here, nearly all of them standing still in x."""
    x = 1e3 * np.random.default_rng(3).normal(size=50)
    sets = [on.non_negative, lambda x: on.hyperplane(x, jnp.ones_like(x), 1.0)]
    p = jax.jit(lambda x: on.intersection(x, sets, max_rounds=300))(x)
    # One entry of 50 is free: the error falls by c = 1 - 1/50 a round, tol / (1 - c) is left of it.
    tol = EPS**0.75 * (1 + np.max(np.abs(x)))
    np.testing.assert_allclose(p, on.simplex(x), atol=50 * tol)


# -- bad input -------------------------------------------------------------------------------------

X = jnp.array([1.0, 2.0])
BAD = [
    (lambda: on.box(X, 1.0, 0.0), ValueError, "`lower` must not be above `upper`"),
    (lambda: on.box(X, {"a": 1.0}, 2.0), ValueError, "`lower` must be a number or a pytree like x"),
    (lambda: on.box(X, jnp.zeros(3), 2.0), ValueError, r"`lower` must have shape \(2,\)"),
    (lambda: on.non_negative(jnp.array([1, 2])), TypeError, r"it is int32|it is int64"),
    (lambda: on.non_negative({"a": jnp.array([1j])}), TypeError, r"`x`\['a'\] must be real"),
    (lambda: on.non_negative(["text"]), TypeError, "must be a floating array, but a str came"),
    (lambda: on.non_negative([]), ValueError, "must hold at least one array"),
    (lambda: on.l2_ball(X, -1.0), ValueError, "`radius` must be a number >= 0, but -1.0 came"),
    (lambda: on.l1_ball(X, -1.0), ValueError, "`radius` must be a number >= 0"),
    (lambda: on.linf_ball(X, -1.0), ValueError, "`radius` must be a number >= 0"),
    (lambda: on.l2_ball(X, jnp.ones(2)), ValueError, "`radius` must have shape"),
    (lambda: on.l2_ball(X, "1"), TypeError, "`radius` must be an array or a number, but a str"),
    (lambda: on.simplex(X[None]), ValueError, r"shape is \(1, 2\).*jax.vmap"),
    (lambda: on.simplex([1.0]), TypeError, "must be one array, but a list came"),
    (lambda: on.simplex(X, -1.0), ValueError, "`total` must be a number >= 0, but -1.0"),
    (lambda: on.capped_simplex(X, 3.0), ValueError, "`total` is 3.0, sum.upper. is 2.0"),
    (lambda: on.capped_simplex(X, 1.0, -1.0), ValueError, "`upper` must be >= 0"),
    (lambda: on.hyperplane(X, np.zeros(2), 1.0), ValueError, "must be finite and not zero"),
    (lambda: on.half_space(X, np.zeros(2), 1.0), ValueError, "leave the constraint out"),
    (lambda: on.affine(X, jnp.ones((2, 3)), 1.0), ValueError, "a column for each of the 2 entries"),
    (lambda: on.affine(X, jnp.ones((2, 2)), X), ValueError, "must have a solution"),
    (lambda: on.second_order_cone(X), TypeError, r"must be a pair \(t, v\)"),
    (lambda: on.second_order_cone((X, X)), ValueError, "`t` in .* must be a number"),
    (lambda: on.psd_cone(jnp.ones((2, 3))), ValueError, "must be a square matrix"),
    (lambda: on.transport(jnp.ones((2, 3))), ValueError, "their sums are 2.0 and 3.0"),
    (lambda: on.transport(jnp.ones((2, 2)), -1.0, -1.0), ValueError, "must be >= 0, finite"),
    (lambda: on.intersection(X, []), TypeError, "`projections` must be a nonempty list"),
    (lambda: on.intersection(X, [lambda x: x[0]]), ValueError, "must return a pytree like x"),
    (lambda: on.intersection(X, [on.simplex], max_rounds=0), ValueError, "`max_rounds` must be"),
    (lambda: on.intersection(X, [on.simplex], unfinished="?"), ValueError, "`unfinished` must be"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[b[2][:40] for b in BAD])
def test_bad_input_is_refused_also_under_jit(call, error, message):
    for attempt in (call, lambda: jax.jit(call)()):
        if message == "must have a solution" and attempt is not call:
            continue  # known only after the solve: NaN, see below
        with pytest.raises(error, match=message):
            attempt()


EMPTY = [
    ("box", lambda s: on.box(X, 1.0, s), -1.0),
    ("l2_ball", lambda s: on.l2_ball(X, s), -1.0),
    ("l1_ball", lambda s: on.l1_ball(X, s), -1.0),
    ("linf_ball", lambda s: on.linf_ball(X, s), -1.0),
    ("simplex", lambda s: on.simplex(X, s), -1.0),
    ("capped_simplex", lambda s: on.capped_simplex(X, s), 3.0),
    ("capped_simplex caps", lambda s: on.capped_simplex(X, 0.5, jnp.stack([s, 2.0 * s])), -1.0),
    ("hyperplane", lambda s: on.hyperplane(X, s * X, 1.0), 0.0),
    ("affine", lambda s: on.affine(X, jnp.ones((2, 2)), jnp.stack([s, 2.0 * s])), 1.0),
    ("transport", lambda s: on.transport(jnp.ones((2, 2)), s, 1.0), 1.5),
]


@pytest.mark.parametrize(("name", "project", "value"), EMPTY, ids=[e[0] for e in EMPTY])
def test_traced_empty_sets_give_nan_in_value_and_derivative(name, project, value):
    def masked(s):  # a lane whose cotangent is zero does not spoil the others
        p = project(s)
        return jnp.sum(jnp.where(jnp.isnan(p), 0.0, p)) + s

    @jax.jit
    def everything(s):
        value, push = jax.jvp(project, (s,), (jnp.ones_like(s),))
        return value, push, jax.grad(lambda s: jnp.sum(project(s)))(s), jax.grad(masked)(s)

    value, push, pull, rest = everything(jnp.asarray(value))
    assert np.all(np.isnan(value))
    assert np.all(np.isnan(push))
    assert np.isnan(pull)
    np.testing.assert_allclose(rest, 1.0)


def test_numbers_and_arrays_are_the_same_and_dtypes_follow_x():
    x = jnp.array([3.0, -1.0], jnp.float32)
    for p in (
        on.box(x, np.array([0, 0]), 1), on.l2_ball(x, np.float64(1.0)),
        on.simplex(x, jnp.asarray(1)), on.half_space(x, jnp.array([1.0, 0.0]), 1),
        on.affine(x, jnp.ones((1, 2)), 1.0), on.non_negative(x.astype(jnp.bfloat16)),
    ):  # fmt: skip
        assert p.dtype == jnp.float32
    mixed = on.l1_ball({"a": x, "b": jnp.array(2.0)})
    assert (mixed["a"].dtype, mixed["b"].dtype) == (jnp.float32, jnp.float64)


def test_a_second_call_compiles_nothing(compilations, rng):
    for row in TABLE:
        run(row, row.draw(rng))
    x = [as_arrays(row.draw(rng)) for row in TABLE]
    args = [as_arrays(row.args) for row in TABLE]
    with compilations() as count:
        for row, point, values in zip(TABLE, x, args, strict=True):
            _compiled[row.name](point, *values)
    assert count.programs == 0

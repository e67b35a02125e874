"""The first-order method for large programs: known answers, matrices of any kind, rays, batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO
from scipy.optimize import linprog

from jaxopt_lite.core import Multipliers, Point, QuadraticProgram, Status, iterate
from jaxopt_lite.core.solver import with_tolerance
from jaxopt_lite.solvers.conic.first_order import PDHG

from .eight_devices import told_by

TOL = 1e-7


def start(program):
    zeros = lambda side: None if side is None else jnp.zeros_like(side)
    p = program
    prices = Multipliers(zeros(p.b), zeros(p.h), zeros(p.lower), zeros(p.upper))
    return Point(jnp.zeros_like(p.q), prices)


@functools.partial(jax.jit, static_argnames=("max_steps",))
def solved(program, tol=TOL, point=None, max_steps=2000):
    """Status, steps, report and proof."""
    point = start(program) if point is None else point
    tol = jnp.asarray(tol, program.q.dtype)
    solver = with_tolerance(PDHG(), tol)
    run, report = iterate(None, solver, point, program, tol=tol, max_steps=max_steps)
    return run.status, run.steps, report, solver.proof(None, run.state, program)


def linear(seed=0, n=30, m=8, p=20):
    """A linear program built from its answer: a non-degenerate pair (x, prices)."""
    rng = np.random.default_rng(seed)
    A, G = rng.standard_normal((m, n)), rng.standard_normal((p, n))
    free = rng.random(n) < 0.5
    active = rng.random(p) < 0.4
    x, y = rng.uniform(0.5, 1, n) * free, rng.standard_normal(m)
    z = rng.uniform(0.5, 1, p) * active
    q = -(A.T @ y + G.T @ z) + rng.uniform(0.5, 1, n) * ~free
    h = G @ x + rng.uniform(0.5, 1, p) * ~active
    arrays = map(jnp.asarray, (q, A, A @ x, G, h, np.zeros(n)))
    return QuadraticProgram(None, *arrays)


def quadratic(seed=0, n=30, m=8, p=20, rank=20):
    """A convex program and its answer x."""
    rng = np.random.default_rng(seed)
    A, G, F = (rng.standard_normal((k, n)) for k in (m, p, rank))
    x, active = rng.standard_normal(n), rng.random(p) < 0.4
    P = F.T @ F / rank + 0.1 * np.eye(n)
    q = -(P @ x + A.T @ rng.standard_normal(m) + G.T @ (rng.random(p) * active))
    h = G @ x + rng.uniform(0.5, 1, p) * ~active
    return QuadraticProgram(*map(jnp.asarray, (P, q, A, A @ x, G, h))), x


@pytest.mark.parametrize("seed", range(3))
def test_linear_programs_have_the_value_that_highs_finds(seed):
    program = linear(seed)
    _, q, A, b, G, h, *_ = (None if a is None else np.asarray(a) for a in program)
    known = linprog(q, G, h, A, b, (0, None)).fun
    status, _, report, _ = solved(program)
    assert status == Status.CONVERGED
    # The duality gap relative to 1 + |p| + |d| is within the tolerance, and so are both violations.
    assert abs(report.value - known) <= 10 * TOL * (1 + 2 * abs(known))
    slacks = program.slacks(report.point.x)
    size = 1 + max(np.max(np.abs(b)), np.max(np.abs(h)))
    assert jnp.max(jnp.abs(slacks.eq)) <= TOL * size
    assert jnp.max(slacks.ineq) <= TOL * size
    assert jnp.min(report.point.x) >= 0
    assert jnp.min(report.point.multipliers.ineq) >= 0
    assert jnp.max(jnp.abs(program.gradient(report.point))) <= TOL * (1 + np.max(np.abs(q)))


def test_quadratic_program_has_the_answer_that_it_was_built_from():
    program, x = quadratic()
    status, _, report, _ = solved(program)
    assert status == Status.CONVERGED
    # Strongly convex with 0.1: the distance is at most the residual, of about TOL times the size
    # of the data (10), over 0.1.
    assert np.max(np.abs(report.point.x - x)) <= 1e3 * TOL


def test_diagonal_curvature_is_taken_exactly_by_the_proximal_step():
    centre = jnp.array([0.5, 0.2, -0.4])
    simplex = QuadraticProgram(
        jnp.eye(3), -centre, jnp.ones((1, 3)), jnp.ones(1), lower=jnp.zeros(3)
    )
    status, steps, report, _ = solved(simplex)
    assert status == Status.CONVERGED
    np.testing.assert_allclose(report.point.x, [0.65, 0.35, 0.0], atol=1e-6)
    np.testing.assert_allclose(report.point.multipliers.eq, [-0.15], atol=1e-6)
    np.testing.assert_allclose(report.point.multipliers.lower, [0, 0, 0.25], atol=1e-6)
    assert steps <= 10


def test_bounds_alone_and_nothing_at_all():
    P, q = jnp.diag(jnp.array([1.0, 2.0])), jnp.array([-3.0, 2.0])
    boxed = QuadraticProgram(P, q, lower=jnp.zeros(2), upper=jnp.ones(2))
    status, _, report, _ = solved(boxed)
    assert status == Status.CONVERGED
    np.testing.assert_allclose(report.point.x, [1, 0], atol=1e-6)
    np.testing.assert_allclose(report.point.multipliers.upper, [2, 0], atol=1e-5)
    status, _, report, _ = solved(QuadraticProgram(P, q))
    assert status == Status.CONVERGED
    np.testing.assert_allclose(report.point.x, [3, -1], atol=1e-6)


@jax.tree_util.register_pytree_node_class
class Operator:
    """A matrix that only multiplies."""

    def __init__(self, matrix):
        self.matrix = matrix

    shape = property(lambda self: self.matrix.shape)
    T = property(lambda self: Operator(self.matrix.T))

    def __matmul__(self, x):
        return self.matrix @ x

    def tree_flatten(self):
        return (self.matrix,), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)


def test_sparse_matrices_and_operators_give_the_answer_of_arrays():
    program, x = quadratic(1, n=12, m=3, p=6, rank=12)
    for kind in (functools.partial(BCOO.fromdense, nse=200), Operator):
        P, A, G = (kind(matrix) for matrix in (program.P, program.A, program.G))
        status, _, report, _ = solved(program._replace(P=P, A=A, G=G))
        assert status == Status.CONVERGED
        assert np.max(np.abs(report.point.x - x)) <= 1e3 * TOL  # as above


def test_scaling_of_rows_and_columns_costs_no_steps():
    program = linear(3)
    rng = np.random.default_rng(0)
    columns, rows = 10 ** rng.uniform(-2, 2, 30), 10 ** rng.uniform(-2, 2, 8)
    worse = program._replace(
        q=program.q * columns,
        A=program.A * rows[:, None] * columns,
        b=program.b * rows,
        G=program.G * columns,
    )
    _, steps, *_ = solved(program, 1e-4)
    status, more, *_ = solved(worse, 1e-4)
    assert status == Status.CONVERGED
    # Residuals are measured unscaled, so counts differ; without scaling it takes over 2,000.
    assert more <= 10 * steps


def test_warm_start_takes_fewer_steps():
    program = linear(1)
    _, cold, report, _ = solved(program)
    nearby = program._replace(q=program.q * 1.001)
    status, warm, *_ = solved(nearby, point=report.point)
    assert status == Status.CONVERGED
    assert warm < cold


def test_farkas_ray_proves_that_nothing_is_feasible():
    program = linear(0)
    rows = jnp.concatenate([program.G, -program.G[:1]])
    program = program._replace(G=rows, h=jnp.append(program.h, -program.h[0] - 1))
    status, _, _, proof = solved(program)
    assert status == Status.PRIMAL_INFEASIBLE
    ray = proof.farkas
    assert min(jnp.min(ray.ineq), jnp.min(ray.lower)) >= 0
    assert jnp.max(jnp.abs(program.pull(ray))) <= 1e-8
    worth = program.b @ ray.eq + program.h @ ray.ineq  # lower is 0
    np.testing.assert_allclose(worth, -1, rtol=1e-12)
    assert jnp.all(proof.direction == 0)


@pytest.mark.parametrize("curved", [False, True])
def test_direction_proves_that_the_value_has_no_end(curved):
    program = linear(0)
    P = jnp.zeros((30, 30)).at[0, 0].set(1.0) if curved else None
    program = program._replace(
        P=P, q=program.q - 3, A=program.A[:2], b=program.b[:2], G=None, h=None
    )
    status, _, _, proof = solved(program)
    assert status == Status.DUAL_INFEASIBLE
    d = proof.direction
    np.testing.assert_allclose(program.q @ d, -1, rtol=1e-12)
    assert jnp.min(d) >= 0
    assert jnp.max(jnp.abs(program.A @ d)) <= 1e-8
    assert P is None or jnp.max(jnp.abs(P @ d)) <= 1e-8


def test_lanes_have_their_own_status():
    program = linear(0)
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), program)
    h = batch.h.at[1, 0].set(-1e3).at[1, 1].set(-1e3)
    G = batch.G.at[1, 1].set(-batch.G[1, 0])  # lane 1: g'x <= -1000 and -g'x <= -1000
    q = batch.q.at[2].add(-100.0).at[3, 0].set(jnp.nan)
    A, b = batch.A.at[2].set(0.0), batch.b.at[2].set(0.0)
    G = G.at[2].set(0.0)  # lane 2: nothing but x >= 0
    batch = batch._replace(q=q, A=A, b=b, G=G, h=h.at[2].set(1.0))
    status, _, report, _ = jax.vmap(solved)(batch)
    expected = [
        Status.CONVERGED,
        Status.PRIMAL_INFEASIBLE,
        Status.DUAL_INFEASIBLE,
        Status.NONFINITE,
    ]
    assert status.tolist() == expected
    assert jnp.all(jnp.isfinite(report.point.x))
    alone = solved(program)[2]
    np.testing.assert_allclose(report.point.x[0], alone.point.x, atol=1e-9)


def test_float32_reaches_1e_minus_4_and_stalls_below_its_precision():
    program = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), linear(2))
    status, _, report, _ = solved(program, 1e-4)
    assert status == Status.CONVERGED
    assert report.point.x.dtype == jnp.float32
    status, steps, report, _ = solved(program, 1e-9)
    assert status == Status.STALLED
    assert steps < 2000
    assert report.worst() <= 1e-4


SHARDED = """
import json
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
from jax.sharding import Mesh, NamedSharding, PartitionSpec as Spec
from tests.test_pdhg import linear, solved

program = linear(0, n=32, m=8, p=24)
alone = solved(program, 1e-6)
mesh = Mesh(np.array(jax.devices()), ("parts",))
put = lambda leaf, *spec: jax.device_put(leaf, NamedSharding(mesh, Spec(*spec)))
q, A, b, G, h, lower = program[1:7]
by_rows = program._replace(G=put(G, "parts"), h=put(h, "parts"), q=put(q), A=put(A), b=put(b),
                           lower=put(lower))
by_columns = program._replace(G=put(G, None, "parts"), A=put(A, None, "parts"), q=put(q, "parts"),
                              lower=put(lower, "parts"), b=put(b), h=put(h))
found = [solved(spread, 1e-6) for spread in (by_rows, by_columns)]
print(json.dumps({
    "devices": len(jax.devices()),
    "shards": len(found[1][2].point.x.sharding.device_set),
    "statuses": [int(f[0]) for f in (alone, *found)],
    "steps": [int(f[1]) for f in (alone, *found)],
    "difference": max(float(abs(np.asarray(f[2].point.x) - np.asarray(alone[2].point.x)).max())
                      for f in found),
}))
"""


def test_rows_or_columns_over_eight_devices_give_the_same():
    told = told_by(SHARDED)
    assert told["devices"] == told["shards"] == 8
    assert told["statuses"] == [Status.CONVERGED] * 3
    assert max(told["steps"]) - min(told["steps"]) <= 1  # sums in another order
    assert told["difference"] <= 1e-5  # both within the tolerance of one vertex

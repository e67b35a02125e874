"""Infeasible, unbounded and solvable programs in one batch: who is told apart, and proved so."""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jol

from ..harness import benchmark, table
from .peers import CLARABEL, OSQP, PIQP, Peer
from .programs import Program

EACH = 1000
LOOPS = (CLARABEL, PIQP, OSQP)
N, M, P = 12, 4, 15  # variables, equations, inequalities
RAY_TOL = 1e-7  # of what should be zero, where the proof's value is -1

NOTES = """\
{each} programs of each kind in one `vmap`, ({n}, {m}, {p}) with bounds on about half of the variables, half of them
linear, the others with a P of half rank; each with one possible verdict by construction.

- Infeasible: the last inequality contradicts a random combination of the others by a margin in [0.1, 1]; the dual is feasible.
- Unbounded: a random direction keeps all constraints and has no curvature, its slope is in [-1, -0.1]; a point is feasible.
- Solvable: a point is feasible, and so are prices.
- *Proved*: the ray that comes with the verdict, put into the data in NumPy, has no entry off by more than {tol:g}, with the value
  that proves it scaled to -1. Solvable programs are proved by a KKT residual of at most 1e-6."""  # noqa: E501  # lines of Markdown


class Batch(NamedTuple):
    """Programs of one shape, the arguments of `solve_qp`."""

    P: np.ndarray
    q: np.ndarray
    A: np.ndarray
    b: np.ndarray
    G: np.ndarray
    h: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


# -- programs whose verdict is known ---------------------------------------------------------------


def _parts(rng, linear: bool):
    """A feasible program without q: curvature, rows, sides around a point, bounds on a half."""
    half = rng.standard_normal((N, N // 2)) * (0 if linear else 1)
    A, G, x = rng.standard_normal((M, N)), rng.standard_normal((P, N)), rng.standard_normal(N)
    low = np.where(rng.uniform(size=N) < 0.5, x - rng.uniform(0, 2, N), -np.inf)
    high = np.where(rng.uniform(size=N) < 0.5, x + rng.uniform(0, 2, N), np.inf)
    return half, A, G, G @ x + rng.uniform(0, 2, P), low, high, x


def _prices(rng, low, high, size):
    """Prices of inequalities and bounds, about half of them zero."""
    draw = lambda k: rng.uniform(0, 1, k) * (rng.uniform(size=k) < 0.5)
    return draw(size), draw(N) * np.isfinite(low), draw(N) * np.isfinite(high)


def _dual_feasible(rng, half, A, G, low, high):
    """A q for which some prices are feasible."""
    z, below, above = _prices(rng, low, high, P)
    w = rng.standard_normal(N)
    return -(half @ (half.T @ w) + A.T @ rng.standard_normal(M) + G.T @ z - below + above)


def solvable(rng, linear: bool) -> tuple:
    half, A, G, h, low, high, x = _parts(rng, linear)
    return half @ half.T, _dual_feasible(rng, half, A, G, low, high), A, A @ x, G, h, low, high


def infeasible(rng, linear: bool) -> tuple:
    half, A, G, h, low, high, x = _parts(rng, linear)
    y, (z, below, above) = rng.standard_normal(M), _prices(rng, low, high, P - 1)
    G[-1] = -(A.T @ y + G[:-1].T @ z - below + above)
    finite = lambda side: np.where(np.isfinite(side), side, 0)
    total = (A @ x) @ y + h[:-1] @ z - finite(low) @ below + finite(high) @ above
    h[-1] = -total - rng.uniform(0.1, 1)
    return half @ half.T, _dual_feasible(rng, half, A, G, low, high), A, A @ x, G, h, low, high


def unbounded(rng, linear: bool) -> tuple:
    half, A, G, h, low, high, x = _parts(rng, linear)
    d = rng.standard_normal(N)
    d /= np.linalg.norm(d)
    low, high = np.where(d > 0, low, -np.inf), np.where(d < 0, high, np.inf)
    half, A = half - np.outer(d, d @ half), A - np.outer(A @ d, d)
    along = G @ d
    wanted = np.where(rng.uniform(size=P) < 0.5, 0, -np.abs(along))
    G = G + np.outer(wanted - along, d)
    h = G @ x + rng.uniform(0, 2, P)
    q = rng.standard_normal(N)
    q = q - (q @ d + rng.uniform(0.1, 1)) * d
    return half @ half.T, q, A, A @ x, G, h, low, high


KINDS = {
    solvable: jol.Status.CONVERGED,
    infeasible: jol.Status.PRIMAL_INFEASIBLE,
    unbounded: jol.Status.DUAL_INFEASIBLE,
}


def draw(each: int, seed: int = 0) -> tuple[Batch, np.ndarray]:
    """The batch, shuffled, and the right status of each lane."""
    rng = np.random.default_rng(seed)
    drawn = [(make(rng, i % 2 == 0), status) for make, status in KINDS.items() for i in range(each)]
    order = rng.permutation(len(drawn))
    programs = zip(*(drawn[i][0] for i in order), strict=True)
    return Batch(*(np.array(part) for part in programs)), np.array([drawn[i][1] for i in order])


# -- the proofs, checked in NumPy ------------------------------------------------------------------


def farkas_error(p: Batch, y, z, below, above) -> np.ndarray:
    """How far prices are from a proof that nothing is feasible; infinite where they prove nothing.

    A'y + G'z - below + above = 0, all but y >= 0, none of an infinite side, and
    b'y + h'z - lower'below + upper'above = -1.
    """
    finite = lambda side: np.where(np.isfinite(side), side, 0)
    dot = lambda a, b: np.einsum("ki,ki->k", a, b)
    total = dot(y, p.b) + dot(z, p.h) - dot(below, finite(p.lower)) + dot(above, finite(p.upper))
    combined = np.einsum("ki,kij->kj", y, p.A) + np.einsum("ki,kij->kj", z, p.G) - below + above
    wrong = [
        np.abs(combined), np.maximum(-z, 0), np.maximum(-below, 0), np.maximum(-above, 0),
        np.abs(below) * np.isinf(p.lower), np.abs(above) * np.isinf(p.upper),
    ]  # fmt: skip
    return _relative(wrong, total)


def direction_error(p: Batch, d) -> np.ndarray:
    """How far d is from a proof that the value falls for ever: Pd = Ad = 0, Gd <= 0, q'd = -1."""
    times = lambda matrix: np.einsum("kij,kj->ki", matrix, d)
    wrong = [
        np.abs(times(p.P)), np.abs(times(p.A)), np.maximum(times(p.G), 0),
        np.maximum(-d, 0) * np.isfinite(p.lower), np.maximum(d, 0) * np.isfinite(p.upper),
    ]  # fmt: skip
    return _relative(wrong, np.einsum("ki,ki->k", p.q, d))


def _relative(wrong: list, value: np.ndarray) -> np.ndarray:
    worst = np.max([part.max(axis=1) for part in wrong], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(value < 0, worst / -value, np.inf)
    return np.where(np.isfinite(error), error, np.inf)


def kkt_error(p: Batch, x, m: jol.Multipliers) -> np.ndarray:
    """The KKT residual of each lane."""
    times = lambda matrix, vector: np.einsum("kij,kj->ki", matrix, vector)
    back = lambda matrix, vector: np.einsum("kij,ki->kj", matrix, vector)
    sided = lambda value: np.where(np.isfinite(value), value, -1)
    slacks = [times(p.G, x) - p.h, sided(p.lower - x), sided(x - p.upper)]
    prices = [np.asarray(part) for part in m[1:]]
    gradient = times(p.P, x) + p.q + back(p.A, np.asarray(m.eq)) + back(p.G, prices[0])
    parts = [np.abs(gradient - prices[1] + prices[2]), np.abs(times(p.A, x) - p.b)]
    for slack, price in zip(slacks, prices, strict=True):
        parts += [np.maximum(slack, 0), np.maximum(-price, 0), np.abs(slack * price)]
    return np.max([part.max(axis=1) for part in parts], axis=0)


# -- the tables ------------------------------------------------------------------------------------

WORDS = (  # how peers say it, in the order of KINDS
    ("solved", "piqp_solved", "proxqp_solved", "optimal"),
    ("primalinfeasible", "piqp_primal_infeasible", "proxqp_primal_infeasible", "infeasible",
     "primal infeasible"),
    ("dualinfeasible", "piqp_dual_infeasible", "proxqp_dual_infeasible", "unbounded",
     "dual infeasible"),
)  # fmt: skip
HEADER = (
    "solver", *(f"{make.__name__}, right" for make in KINDS),
    *(f"{make.__name__}, proved" for make in KINDS), "most steps", "ms a program",
)  # fmt: skip


@benchmark("infeasible", "3,000 programs in one batch: infeasible, unbounded, solvable")
def infeasible_programs(quick: bool) -> list[str]:
    each = 50 if quick else EACH
    batch, right = draw(each)
    rows = [_ours(batch, right), *(_peer(peer, batch, right) for peer in LOOPS)]
    return [NOTES.format(each=each, n=N, m=M, p=P, tol=RAY_TOL), table(HEADER, rows)]


def _ours(batch: Batch, right: np.ndarray) -> list:
    solve = jax.jit(jax.vmap(lambda *program: _proved(jol.QuadraticProgram(*program))))
    data = tuple(map(jnp.asarray, batch))
    jax.block_until_ready(solve(*data))
    begin = time.perf_counter()
    told = jax.block_until_ready(solve(*data))
    spent = time.perf_counter() - begin
    x, multipliers, status, steps, proof = jax.device_get(told)
    errors = {
        solvable: kkt_error(batch, x, multipliers) / 10,
        infeasible: farkas_error(batch, *proof.farkas),
        unbounded: direction_error(batch, proof.direction),
    }
    counts = [int(np.sum((right == code) & (status == code))) for code in KINDS.values()]
    proved = [
        int(np.sum((right == code) & (errors[make] <= RAY_TOL))) for make, code in KINDS.items()
    ]
    return ["ours", *counts, *proved, int(steps.max()), 1e3 * spent / len(right)]


def _proved(program):
    s = jol.solve_qp(*program)
    return s.x, s.multipliers, s.status, s.steps, s.state.proof


def _peer(peer: Peer, batch: Batch, right: np.ndarray) -> list:
    said, runs, steps = [], [], 0
    for curvature, q, A, b, G, h, lower, upper in zip(*batch, strict=True):
        least = np.concatenate([b, np.full(P, -np.inf)])
        sides = (least, np.concatenate([b, h]), lower, upper)
        runs.append(peer.make(Program(curvature, q, np.vstack([A, G]), *sides), 1e-8))
    begin = time.perf_counter()
    for run in runs:
        answer = run()
        said.append(answer.status.lower())
        steps = max(steps, answer.steps)
    spent = time.perf_counter() - begin
    meant = [next((k for k, words in enumerate(WORDS) if word in words), -1) for word in said]
    codes = np.array([*KINDS.values(), -1])[meant]
    counts = [int(np.sum((right == code) & (codes == code))) for code in KINDS.values()]
    return [peer.name, *counts, None, None, None, steps, 1e3 * spent / len(right)]

"""Batches of random strictly convex QPs: ours and peers in one `vmap`, C++ solvers in a loop."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jol

from ..harness import benchmark, compile_cpu_seconds, interleaved, ratio, show, table
from . import peers
from .programs import Program

SIZES = ((10, 5, 10), (20, 10, 20), (50, 10, 50), (100, 20, 100))  # variables, equations, rows
LANES = (256, 4096, 16384)
TOL = 1e-8
ASKED_OF_LOOPS = 1e-9  # of what has a tolerance, that all lanes get there
CAP = 40.0  # seconds: what would take longer is not run at that size
MEMORY = 4e9  # bytes: larger data are not made
LOOPS = (peers.PIQP, peers.DAQP, peers.QUADPROG, peers.PROXQP)

NOTES = """\
P = MM'/n + I/10 with normal M, normal q, A, G; b and h from a normal point, with slacks uniform in [0, 1].

- Everybody is asked for {tol:g}, the C++ solvers, which measure otherwise, for {asked:g} (quadprog has no tolerance). *Lanes*: share with a KKT residual of at most {tol:g}, the largest
  of stationarity, violation, negative multipliers and |multiplier slack|, absolute, recomputed outside.
- *us*: microseconds an instance in batches of {lanes}, medians; data are arguments. *Ratio*: to ours, the median of samples
  taken side by side. C++ solvers run over {first} instances in a Python loop, the data in their form before. A dash: more than
  {cap:.0f} s a batch, by the time an instance of the batch before, or data of more than {memory:.0f} GB.
- *Gradient*: of w'x, w normal, with respect to P, q, A, b, G and h, time with the solve. *Error*: median over 64 lanes of the
  largest error over the largest entry, against the KKT system of quadprog's active constraints. qpax differentiates at a
  relaxed point, `target_kappa`, 1e-3 by default; here {tol:g}. What its explicit back end gets wrong is the gradient in G."""  # noqa: E501
HEADER = (
    "solver", "lanes", "us", "ratio", "compile CPU-s", "with gradient, us", "ratio",
    "error", "compile CPU-s",
)  # fmt: skip


class Data(NamedTuple):
    """A batch of programs without bounds."""

    P: Any
    q: Any
    A: Any
    b: Any
    G: Any
    h: Any

    def bytes(self) -> int:
        return sum(part.nbytes for part in self)


def draw(lanes: int, n: int, m: int, p: int, seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    M, A, G = (rng.standard_normal((lanes, k, n)) for k in (n, m, p))
    P = M @ np.swapaxes(M, 1, 2) / n + 0.1 * np.eye(n)
    q, x = rng.standard_normal((2, lanes, n))
    h = np.einsum("kij,kj->ki", G, x) + rng.uniform(size=(lanes, p))
    return Data(P, q, A, np.einsum("kij,kj->ki", A, x), G, h)


def kkt(data: Data, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The KKT residual of each lane; NaN counts as infinite."""
    times = lambda matrix, vector: np.einsum("kij,kj->ki", matrix, vector)
    back = lambda matrix, vector: np.einsum("kij,ki->kj", matrix, vector)
    slack = times(data.G, x) - data.h
    gradient = times(data.P, x) + data.q + back(data.A, y) + back(data.G, z)
    parts = (gradient, times(data.A, x) - data.b, np.maximum(slack, 0), np.minimum(z, 0), z * slack)
    worst = np.max([np.abs(part).max(axis=1) for part in parts], axis=0)
    return np.where(np.isfinite(worst), worst, np.inf)


# -- who takes part -------------------------------------------------------------------------------


class Batched(NamedTuple):
    """`solve(*data)` -> x, y, z and `primal(*data)` -> x, differentiable, of one lane."""

    name: str
    solve: Callable
    primal: Callable


def _ours() -> Batched:
    def solve(*data):
        s = jol.solve_qp(*data, tol=TOL)
        return s.x, s.multipliers.eq, s.multipliers.ineq

    return Batched("ours", solve, lambda *data: jol.solve_qp(*data, tol=TOL).x)


def _qpax(backend: str, name: str) -> Batched:
    import qpax

    def solve(*data):
        x, _, z, y, _, _ = qpax.solve_qp(*data, backend=backend, solver_tol=TOL)
        return x, y, z

    def primal(*data):
        options = {"solver_tol": TOL, "target_kappa": TOL}
        return qpax.solve_qp_primal(*data, backend=backend, **options)

    return Batched(name, solve, primal)


def _jaxopt(linear: str) -> Batched:
    import jaxopt

    solver = jaxopt.OSQP(tol=TOL, maxiter=40_000, eq_qp_solve=linear)

    def run(P, q, A, b, G, h):
        answer = solver.run(None, (P, q), (A, b), (G, h)).params
        return answer.primal, answer.dual_eq, answer.dual_ineq

    return Batched(f"JAXopt OSQP {linear}", run, lambda *data: run(*data)[0])


def _contestants() -> list[Batched]:
    return [
        _ours(), _qpax("e", "qpax explicit"), _qpax("i", "qpax implicit"), _jaxopt("cg"),
    ]  # fmt: skip


def _gradient(primal: Callable) -> Callable:
    """(w, *data) -> x and the gradient of w'x, of one lane."""

    def both(w, *data):
        def scalar(data):
            x = primal(*data)
            return w @ x, x

        (_, x), slope = jax.value_and_grad(scalar, has_aux=True)(data)
        return x, slope

    return both


# -- loops ----------------------------------------------------------------------------------------


def _runs(peer: peers.Peer, data: Data) -> list[Callable]:
    """A call for each lane, its data in the form of the solver."""
    nothing = np.full(data.q.shape[1], np.inf)
    runs = []
    for P, q, A, b, G, h in zip(*data, strict=True):
        least = np.concatenate([b, np.full(len(h), -np.inf)])
        sides = (least, np.concatenate([b, h]), -nothing, nothing)
        runs.append(peer.make(Program(P, q, np.vstack([A, G]), *sides), ASKED_OF_LOOPS))
    return runs


def _loop(peer: peers.Peer, data: Data) -> Callable:
    runs = _runs(peer, data)
    return lambda: [run() for run in runs]


def _lanes_of_loop(data: Data, answers: list) -> float:
    m = data.b.shape[1]
    x, y = np.array([a.x for a in answers]), np.array([a.y for a in answers])
    return float(np.mean(kkt(data, x, y[:, :m], y[:, m:]) <= TOL))


# -- the tables -----------------------------------------------------------------------------------


@benchmark("qp_batches", "Batches of random QPs, solved and differentiated")
def qp_batches(quick: bool) -> list[str]:
    lanes = LANES[:1] if quick else LANES
    shown = " / ".join(f"{k:,}" for k in lanes)
    told = {
        "tol": TOL,
        "asked": ASKED_OF_LOOPS,
        "lanes": shown,
        "first": lanes[0],
        "cap": CAP,
        "memory": MEMORY / 1e9,
    }
    return [NOTES.format(**told)] + [
        _of_size(size, lanes) for size in (SIZES[:2] if quick else SIZES)
    ]


class Record:
    """What is known of a solver: seconds an instance and ratios by lanes, the rest once."""

    def __init__(self) -> None:
        self.seconds: list[float | None] = []
        self.ratios: list[float | None] = []
        self.worth: float | None = None  # share of lanes, or error of the gradient
        self.compile: float | None = None

    def cells(self) -> list[str]:
        micro = [None if s is None else 1e6 * s for s in self.seconds]
        return [" / ".join(map(show, column)) for column in (micro, self.ratios)]


def _of_size(size: tuple[int, int, int], lanes: tuple[int, ...]) -> str:
    contestants = _contestants()
    names = [c.name for c in contestants]
    solved = {name: Record() for name in [*names, *(peer.name for peer in LOOPS)]}
    sloped = {name: Record() for name in names}
    for c in contestants:
        few, weight = draw(4, *size), np.ones((4, size[0]))
        solved[c.name].compile = _compile(c.solve, few)
        sloped[c.name].compile = _compile(_gradient(c.primal), (weight, *few))
    for count in lanes:
        if count * draw(1, *size).bytes() > MEMORY:
            for record in (*solved.values(), *sloped.values()):
                record.seconds.append(None)
                record.ratios.append(None)
            continue
        data = draw(count, *size)
        weight = np.random.default_rng(1).standard_normal((count, size[0]))
        there = jax.device_put((weight, *data))
        calls: dict[tuple[str, bool], Callable] = {}
        for c in contestants:
            if _affordable(solved[c.name], count):
                run = jax.jit(jax.vmap(c.solve))
                calls[c.name, False] = functools.partial(run, *there[1:])
                answer = jax.device_get(calls[c.name, False]())
                solved[c.name].worth = float(np.mean(kkt(data, *answer) <= TOL))
            if _affordable(sloped[c.name], count):
                run = jax.jit(jax.vmap(_gradient(c.primal)))
                calls[c.name, True] = functools.partial(run, *there)
                if sloped[c.name].worth is None:
                    slope = jax.device_get(calls[c.name, True]()[1])
                    sloped[c.name].worth = _error(data, weight, slope)
        if count == lanes[0]:
            for peer in LOOPS:
                calls[peer.name, False] = loop = _loop(peer, data)
                solved[peer.name].worth = _lanes_of_loop(data, loop())
        times = interleaved(calls, samples=5, repeat=1, cap=2.0)
        for gradient, records in enumerate((solved, sloped)):
            ours = times["ours", bool(gradient)]
            for name, record in records.items():
                spent = times.get((name, bool(gradient)))
                record.seconds.append(None if spent is None else np.median(spent) / count)
                record.ratios.append(None if spent is None else ratio(spent, ours))
    lines = []
    for name, record in solved.items():
        line = [name, record.worth, *record.cells(), record.compile]
        slope = sloped.get(name)
        tail = [*slope.cells(), slope.worth, slope.compile] if slope else [None] * 4
        lines.append([*line, *tail])
    return table(HEADER, lines, f"n = {size[0]}, {size[1]} equations, {size[2]} inequalities")


def _affordable(record: Record, count: int) -> bool:
    """Whether a batch of `count` stays within the cap, by what an instance took before."""
    return not record.seconds or (
        record.seconds[-1] is not None and record.seconds[-1] * count <= CAP
    )


def _compile(fun: Callable, few: tuple) -> float:
    return compile_cpu_seconds(lambda: jax.vmap(fun), *map(jnp.asarray, few), samples=1)


def _error(data: Data, weight: np.ndarray, slope: tuple, lanes: int = 64) -> float:
    """Median over `lanes` of the relative error of the gradient of w'x, at the exact active set."""
    errors = []
    runs = _runs(peers.QUADPROG, Data(*(part[:lanes] for part in data)))
    for i, run in enumerate(runs):
        P, _, A, _, G, _ = (part[i] for part in data)
        answer, m, n = run(), A.shape[0], A.shape[1]
        active = answer.y[m:] > 1e-9
        C = np.vstack([A, G[active]])
        price = np.concatenate([answer.y[:m], answer.y[m:][active]])
        system = np.block([[P, C.T], [C, np.zeros((len(C), len(C)))]])
        u = np.linalg.solve(system, np.concatenate([weight[i], np.zeros(len(C))]))
        ux, uy = u[:n], u[n:]
        of_rows = -np.outer(price, ux) - np.outer(uy, answer.x)
        of_G, of_h = np.zeros_like(G), np.zeros(len(G))
        of_G[active], of_h[active] = of_rows[m:], uy[m:]
        of_P = -0.5 * (np.outer(ux, answer.x) + np.outer(answer.x, ux))
        exact = (of_P, -ux, of_rows[:m], uy[:m], of_G, of_h)
        found = [np.asarray(part[i]) for part in slope]
        found[0] = 0.5 * (found[0] + found[0].T)
        most = max(np.abs(part).max() for part in exact)
        gap = max(np.abs(a - b).max() for a, b in zip(found, exact, strict=True))
        errors.append(gap / most)
    return float(np.median(errors))

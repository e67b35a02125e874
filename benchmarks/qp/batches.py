"""Batches of random strictly convex QPs: ours and peers in one `vmap`, C++ solvers in a loop.

Each solver lives in a process of its own and is timed in turns with the others: independent batched
LAPACK calls in one program can deadlock jaxlib's threads, and a process can be killed.
"""

import contextlib
import multiprocessing
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jol

from ..harness import benchmark, compile_cpu_seconds, ratio, show, table
from . import peers
from .programs import Program

SIZES = ((10, 5, 10), (20, 10, 20), (50, 10, 50), (100, 20, 100))  # variables, equations, rows
LANES = (256, 4096, 16384)
TOL = 1e-8
ASKED_OF_LOOPS = 1e-9  # of what has a tolerance, that all lanes get there
SAMPLES = 5
CAP = 10.0  # seconds: what would take longer is not run at that size
LIMIT = 90.0  # seconds after which a call counts as hung
MEMORY = 1e9  # bytes: larger data are not made

NOTES = """\
P = MM'/n + I/10 with normal M, normal q, A, G; b and h from a normal point, with slacks uniform in [0, 1].

- Everybody is asked for {tol:g}, the C++ solvers, which measure otherwise, for {asked:g} (quadprog has no tolerance). *Lanes*: share
  with a KKT residual of at most {tol:g}, the largest of stationarity, violation, negative multipliers and |multiplier slack|,
  absolute, recomputed outside.
- *us*: microseconds an instance in batches of {lanes}, medians; data are arguments. *Ratio*: to ours, the median of samples
  taken in turns. C++ solvers run over {first} instances in a Python loop, the data in their form before. A dash: more than
  {cap:.0f} s a batch, by the time an instance of the batch before, or data of more than {memory:.0f} GB.
- *Gradient*: of w'x, w normal, with respect to P, q, A, b, G and h, time with the solve. *Error*: median over 64 lanes of the
  largest error over the largest entry, against the KKT system of quadprog's active constraints. qpax differentiates at a
  relaxed point, `target_kappa`, 1e-3 by default; here {tol:g}. What its explicit back end gets wrong is the gradient in G.
- Compile times are CPU-seconds. Solvers run in processes of their own: batched LAPACK calls can deadlock in jaxlib; a hung
  call is killed after {limit:.0f} s and begun anew, twice at most."""  # noqa: E501  # lines of Markdown
HEADER = (
    "solver", "lanes", "us", "ratio", "compile", "with gradient, us", "ratio", "error", "compile",
)  # fmt: skip


class Data(NamedTuple):
    """A batch of programs without bounds."""

    P: Any
    q: Any
    A: Any
    b: Any
    G: Any
    h: Any


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


def gradient_error(data: Data, weight: np.ndarray, slope: tuple, lanes: int = 64) -> float:
    """Median over `lanes` of the relative error of the gradient of w'x, at the exact active set."""
    errors = []
    few = Data(*(np.array(part[:lanes]) for part in data))
    for i, run in enumerate(_loop(peers.QUADPROG, few)):
        P, _, A, _, G, _ = (part[i] for part in few)
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


# -- who takes part -------------------------------------------------------------------------------


class Traced:
    """`solve(*data)` -> x, y, z and `primal(*data)` -> x, differentiable, of one lane."""

    def __init__(self, solve: Callable, primal: Callable | None = None, chunk: int | None = None):
        primal = primal or (lambda *data: solve(*data)[0])

        def slope(w, *data):
            def scalar(data):
                x = primal(*data)
                return w @ x, x

            (_, x), found = jax.value_and_grad(scalar, has_aux=True)(data)
            return x, found

        self._funs = (lambda w, *data: solve(*data), slope)
        self._batched = [_mapped(fun, chunk) if chunk else jax.vmap(fun) for fun in self._funs]
        self._jitted = [jax.jit(fun) for fun in self._batched]

    def load(self, count: int, size: tuple[int, int, int]) -> None:
        self.data = Data(*map(jnp.asarray, draw(count, *size)))
        self.weight = jnp.asarray(np.random.default_rng(1).standard_normal((count, size[0])))

    def compile(self, gradient: bool) -> float:
        few = tuple(part[:4] for part in (self.weight, *self.data))
        return compile_cpu_seconds(lambda: self._batched[gradient], *few, samples=1)

    def _run(self, gradient: bool) -> Any:
        return jax.block_until_ready(self._jitted[gradient](self.weight, *self.data))

    def seconds(self, gradient: bool) -> float:
        begin = time.perf_counter()
        self._run(gradient)
        return time.perf_counter() - begin

    def worth(self, gradient: bool) -> float:
        """The share of lanes that are solved, or the error of the gradient."""
        answer, data = jax.device_get(self._run(gradient)), Data(*map(np.asarray, self.data))
        if gradient:
            return gradient_error(data, np.asarray(self.weight), answer[1])
        return float(np.mean(kkt(data, *answer) <= TOL))


def _mapped(fun: Callable, chunk: int) -> Callable:
    """`fun` over lanes, `chunk` of them at once: their data stay in cache."""
    return lambda *data: jax.lax.map(lambda lane: fun(*lane), data, batch_size=chunk)


def _ours(chunk: int | None = None) -> Traced:
    def solve(*data):
        s = jol.solve_qp(*data, tol=TOL)
        return s.x, s.multipliers.eq, s.multipliers.ineq

    return Traced(solve, chunk=chunk)


def _qpax(backend: str) -> Traced:
    import qpax

    def solve(*data):
        x, _, z, y, _, _ = qpax.solve_qp(*data, backend=backend, solver_tol=TOL)
        return x, y, z

    def primal(*data):
        options = {"solver_tol": TOL, "target_kappa": TOL}
        return qpax.solve_qp_primal(*data, backend=backend, **options)

    return Traced(solve, primal)


def _jaxopt() -> Traced:
    import jaxopt

    solver = jaxopt.OSQP(tol=TOL, maxiter=40_000, eq_qp_solve="cg")

    def solve(P, q, A, b, G, h):
        answer = solver.run(None, (P, q), (A, b), (G, h)).params
        return answer.primal, answer.dual_eq, answer.dual_ineq

    return Traced(solve)


class Looped:
    """A C++ solver, one instance after the other; always the smallest batch."""

    def __init__(self, peer: peers.Peer):
        self._peer = peer

    def load(self, count: int, size: tuple[int, int, int]) -> None:
        self.data = draw(count, *size)
        self._runs = _loop(self._peer, self.data)

    def compile(self, gradient: bool) -> None:
        return None

    def seconds(self, gradient: bool) -> float:
        begin = time.perf_counter()
        for run in self._runs:
            run()
        return time.perf_counter() - begin

    def worth(self, gradient: bool) -> float:
        answers, m = [run() for run in self._runs], self.data.b.shape[1]
        x, y = np.array([a.x for a in answers]), np.array([a.y for a in answers])
        return float(np.mean(kkt(self.data, x, y[:, :m], y[:, m:]) <= TOL))


def _loop(peer: peers.Peer, data: Data) -> list[Callable]:
    """A call for each lane, its data in the form of the solver."""
    nothing = np.full(data.q.shape[1], np.inf)
    runs = []
    for P, q, A, b, G, h in zip(*data, strict=True):
        least = np.concatenate([b, np.full(len(h), -np.inf)])
        sides = (least, np.concatenate([b, h]), -nothing, nothing)
        runs.append(peer.make(Program(P, q, np.vstack([A, G]), *sides), ASKED_OF_LOOPS))
    return runs


CONTESTANTS: dict[str, Callable[[], Any]] = {
    "ours": _ours,
    "ours, chunks of 256": lambda: _ours(256),
    "qpax explicit": lambda: _qpax("e"),
    "qpax implicit": lambda: _qpax("i"),
    "JAXopt OSQP cg": _jaxopt,
    "PIQP dense": lambda: Looped(peers.PIQP),
    "DAQP": lambda: Looped(peers.DAQP),
    "quadprog": lambda: Looped(peers.QUADPROG),
    "ProxQP dense": lambda: Looped(peers.PROXQP),
}
DIFFERENTIABLE = ("ours", "ours, chunks of 256", "qpax explicit", "qpax implicit", "JAXopt OSQP cg")


# -- a process for each ----------------------------------------------------------------------------


def _serve(name: str, pipe: Any) -> None:
    jax.config.update("jax_enable_x64", True)
    contestant = CONTESTANTS[name]()
    while True:
        method, *operands = pipe.recv()
        try:
            pipe.send(getattr(contestant, method)(*operands))
        except Exception as error:
            pipe.send(RuntimeError(f"{name}: {method}: {type(error).__name__}: {error}"))


class Remote:
    """A contestant in a process of its own; what hangs is killed and begun anew."""

    def __init__(self, name: str, size: tuple[int, int, int]):
        self.name, self.size, self.hung = name, size, 0
        self._count = 0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(self.name, there), daemon=True)
        self._process.start()
        there.close()

    def load(self, count: int) -> None:
        self._count = count
        self.ask("load", count, self.size)

    def ask(self, *request: Any) -> Any:
        """The reply; None when the third attempt hangs or dies as well."""
        for _ in range(3):
            self._pipe.send(request)
            with contextlib.suppress(EOFError):
                if self._pipe.poll(LIMIT):
                    reply = self._pipe.recv()
                    if isinstance(reply, RuntimeError):
                        raise reply
                    return reply
            self.hung += 1
            self.close()
            self._start()
            if request[0] != "load":
                self.load(self._count)
        return None

    def close(self) -> None:
        self._process.kill()
        self._process.join()


# -- the tables -----------------------------------------------------------------------------------


@benchmark("qp_batches", "Batches of random QPs, solved and differentiated")
def qp_batches(quick: bool) -> list[str]:
    lanes, sizes = (LANES[:1], SIZES[:2]) if quick else (LANES, SIZES)
    notes = NOTES.format(
        tol=TOL, asked=ASKED_OF_LOOPS, lanes=" / ".join(f"{k:,}" for k in lanes),
        first=lanes[0], cap=CAP, memory=MEMORY / 1e9, limit=LIMIT,
    )  # fmt: skip
    return [notes, *(of_size(size, lanes, tuple(CONTESTANTS)) for size in sizes)]


class Record:
    """What is known of a solver, with gradient or without; by lanes, None where it was not run."""

    def __init__(self) -> None:
        self.seconds: list[float | None] = []  # an instance
        self.ratios: list[float | None] = []
        self.worth: float | None = None
        self.compile: float | None = None

    def affordable(self, count: int) -> bool:
        """Whether a batch of `count` stays within the cap, by what an instance took before."""
        if not self.seconds:
            return True
        return self.seconds[-1] is not None and self.seconds[-1] * count <= CAP

    def cells(self) -> list[Any]:
        micro = [None if s is None else 1e6 * s for s in self.seconds]
        by_lanes = [" / ".join(map(show, column)) for column in (micro, self.ratios)]
        return [self.worth, *by_lanes, self.compile]


def of_size(size: tuple[int, int, int], lanes: tuple[int, ...], names: tuple[str, ...]) -> str:
    """The table of one size of programs."""
    remotes = [Remote(name, size) for name in names]
    records = {(name, gradient): Record() for name in names for gradient in (False, True)}
    try:
        for remote in remotes:
            remote.load(4)
            for gradient in (False, True):
                if not gradient or remote.name in DIFFERENTIABLE:
                    records[remote.name, gradient].compile = remote.ask("compile", gradient)
        for count in lanes:
            _fill(remotes, records, count, first=count == lanes[0])
    finally:
        for remote in remotes:
            remote.close()
    lines = []
    for name in names:
        worth, us, ratios, compiling = records[name, False].cells()
        slope = [None] * 4
        if name in DIFFERENTIABLE:
            error, slope_us, slope_ratios, slope_compiling = records[name, True].cells()
            slope = [slope_us, slope_ratios, error, slope_compiling]
        lines.append([name, worth, us, ratios, compiling, *slope])
    hung = [f"{remote.name} {remote.hung}" for remote in remotes if remote.hung]
    title = f"n = {size[0]}, {size[1]} equations, {size[2]} inequalities"
    return table(HEADER, lines, title) + (f"\n\nHung calls: {', '.join(hung)}." if hung else "")


def _fill(remotes: list[Remote], records: dict, count: int, first: bool) -> None:
    """Time batches of `count`: every solver warm, then samples in turns."""
    turns = []
    n, m, p = remotes[0].size
    fits = count * 8 * (n * n + (m + p + 1) * n + m + p) <= MEMORY
    for remote in remotes:
        traced = remote.name in DIFFERENTIABLE
        chosen = [g for g in ((False, True) if traced else (False,)) if first or traced]
        chosen = [g for g in chosen if fits and records[remote.name, g].affordable(count)]
        if chosen:
            remote.load(count)
        for gradient in chosen:
            worth = remote.ask("worth", gradient)
            if worth is not None:
                records[remote.name, gradient].worth = worth
                turns.append((remote, gradient))
    times: dict[tuple[str, bool], list] = {(r.name, gradient): [] for r, gradient in turns}
    for sample in range(SAMPLES):
        first_up = sample % max(len(turns), 1)
        for remote, gradient in turns[first_up:] + turns[:first_up]:
            spent = times[remote.name, gradient]
            again = len(spent) < 1 or spent[0] < CAP / SAMPLES
            spent.append(remote.ask("seconds", gradient) if again else spent[0])
    for (name, gradient), record in records.items():
        spent = np.array(times.get((name, gradient), [np.nan]), float)
        ours = np.array(times.get(("ours", gradient), [np.nan]), float)
        known = bool(np.isfinite(spent).all())
        record.seconds.append(float(np.median(spent)) / count if known else None)
        compared = known and np.isfinite(ours).all()
        record.ratios.append(ratio(spent, ours) if compared else None)

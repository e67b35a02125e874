"""A hundred linear programs, random and structured, against HiGHS."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..harness import benchmark, interleaved, ratio, table
from .peers import HIGHS, OURS
from .programs import Program, judge

EACH = 5  # programs of a family and size
TOL = 1e-9
AGREE = 1e-8  # of values, relative to 1 + |value|
INF = np.inf

NOTES = """\
Families of two or three sizes, {each} programs each. *Same value*: within {agree:g} (1 + |value|) of that of HiGHS. *Residual*: the
largest of primal and dual residual and gap over 1 + |value|, recomputed in extended precision. Both are asked for
{tol:g}, HiGHS for the smallest it takes, 1e-10. *ms*: median of warm solves, ours one at a time; *ratio*: HiGHS / ours, the
median of samples taken side by side."""  # noqa: E501  # lines of Markdown


def _program(c, rows, least, most, lower=0.0, upper=INF) -> Program:
    wide = lambda side, size: np.broadcast_to(np.asarray(side, float), (size,)).copy()
    n, m = len(c), len(rows)
    sides = (wide(least, m), wide(most, m), wide(lower, n), wide(upper, n))
    return Program(None, np.asarray(c, float), np.asarray(rows, float), *sides)


def _sums(k: int, m: int) -> np.ndarray:
    """Rows and columns of a k x m matrix summed, (k + m, k m); their rank is one less."""
    return np.vstack([np.kron(np.eye(k), np.ones(m)), np.kron(np.ones(k), np.eye(m))])


def transport(rng, k: int, m: int) -> Program:
    """Ship from k places to m at least cost; supply equals demand."""
    supply, demand = rng.uniform(1, 2, k), rng.uniform(1, 2, m)
    sides = np.concatenate([supply, demand * supply.sum() / demand.sum()])
    return _program(rng.uniform(1, 10, k * m), _sums(k, m), sides, sides)


def assignment(rng, k: int) -> Program:
    """One to one at least cost: every vertex is degenerate."""
    return _program(rng.integers(1, 50, k * k), _sums(k, k), 1, 1)


def diet(rng, n: int, m: int) -> Program:
    """Foods with nutrients between limits, at most five of each, at least cost."""
    content = rng.uniform(0, 1, (m, n)) * (rng.uniform(size=(m, n)) < 0.5)
    eaten = rng.uniform(0, 2, n)
    return _program(
        rng.uniform(1, 5, n), content, content @ eaten * 0.8, content @ eaten * 1.6, 0, 5
    )


def basis_pursuit(rng, n: int, m: int) -> Program:
    """The x of least 1-norm with Ax = b, as x between -t and t."""
    A = rng.standard_normal((m, n))
    x = rng.standard_normal(n) * (rng.uniform(size=n) < 0.1)
    eye = np.eye(n)
    rows = np.block([[A, np.zeros((m, n))], [eye, -eye], [-eye, -eye]])
    least = np.concatenate([A @ x, np.full(2 * n, -INF)])
    c = np.concatenate([np.zeros(n), np.ones(n)])
    return _program(c, rows, least, np.concatenate([A @ x, np.zeros(2 * n)]), -INF)


def chebyshev_centre(rng, n: int, m: int) -> Program:
    """The largest ball within a polyhedron that is bounded by a box."""
    normals = rng.standard_normal((m, n))
    normals = np.vstack([normals, np.eye(n), -np.eye(n)])
    offsets = np.concatenate([rng.uniform(0.5, 2, m), np.full(2 * n, 3.0)])
    rows = np.column_stack([normals, np.linalg.norm(normals, axis=1)])
    lower = np.append(np.full(n, -INF), 0)
    return _program(np.append(np.zeros(n), -1), rows, -INF, offsets, lower)


def max_flow(rng, nodes: int, edges: int) -> Program:
    """From the first node to the last; integral capacities, a path and random edges."""
    path = np.stack([np.arange(nodes - 1), np.arange(1, nodes)], axis=1)
    others = np.array([rng.choice(nodes, 2, replace=False) for _ in range(edges - len(path))])
    tail, head = np.vstack([path, others]).T
    incidence = np.zeros((nodes, edges))
    incidence[tail, np.arange(edges)] -= 1
    incidence[head, np.arange(edges)] += 1
    capacity = rng.integers(1, 10, edges)
    return _program(incidence[0], incidence[1:-1], 0, 0, 0, capacity)


def random(rng, n: int, m: int) -> Program:
    """Two-sided rows and bounds of all kinds, built around an optimal vertex or face."""
    rows = rng.standard_normal((m, n)) * (rng.uniform(size=(m, n)) < 0.3)
    x = rng.standard_normal(n)
    sides, prices = [], []
    for at in (rows @ x, x):
        size = len(at)
        kind = np.arange(size) % 4  # binding below, binding above, between, one side only
        least, most = at - rng.uniform(0.1, 2, size), at + rng.uniform(0.1, 2, size)
        least, most = np.where(kind == 0, at, least), np.where(kind == 1, at, most)
        sides += [np.where(kind == 3, -INF, least), most]
        price = rng.uniform(0.1, 2, size)
        prices.append(np.where(kind == 0, -price, np.where(kind == 1, price, 0)))
    c = -(rows.T @ prices[0] + prices[1])
    return _program(c, rows, *sides)


FAMILIES: tuple[tuple[Callable, tuple[tuple[int, ...], ...]], ...] = (
    (transport, ((5, 8), (10, 15), (20, 25))),
    (assignment, ((5,), (10,), (20,))),
    (diet, ((10, 5), (50, 20), (100, 40))),
    (basis_pursuit, ((40, 15), (100, 40), (150, 60))),
    (chebyshev_centre, ((5, 20), (20, 100), (50, 200))),
    (max_flow, ((10, 30), (30, 100))),
    (random, ((20, 15), (60, 40), (150, 100))),
)
HEADER = (
    "family", "variables x rows", "same value", "largest difference", "residual, ours",
    "residual, HiGHS", "median steps", "ours ms", "HiGHS ms", "ratio",
)  # fmt: skip


@benchmark("lp", "A hundred linear programs against HiGHS")
def lp(quick: bool) -> list[str]:
    rows = [
        _row(make, size) for make, sizes in FAMILIES for size in (sizes[:1] if quick else sizes)
    ]
    return [NOTES.format(each=EACH, agree=AGREE, tol=TOL), table(HEADER, rows)]


def _row(make: Callable, size: tuple[int, ...]) -> list[Any]:
    rng = np.random.default_rng(0)
    programs = [make(rng, *size) for _ in range(EACH)]
    runs = {
        peer.name: [peer.make(program, tol) for program in programs]
        for peer, tol in ((OURS, TOL), (HIGHS, 1e-10))
    }
    answers = {name: [run() for run in of] for name, of in runs.items()}
    verdicts = {
        name: [judge(*pair) for pair in zip(programs, of, strict=True)]
        for name, of in answers.items()
    }
    ours, highs = verdicts[OURS.name], verdicts[HIGHS.name]
    gaps = [abs(a.value - b.value) / (1 + abs(b.value)) for a, b in zip(ours, highs, strict=True)]
    times = interleaved(
        {name: functools.partial(_all, of) for name, of in runs.items()}, samples=5, cap=2.0
    )
    spent = {name: 1e3 * float(np.median(t)) / EACH for name, t in times.items()}
    n, m = len(programs[0].q), len(programs[0].rows)
    return [
        make.__name__.replace("_", " "), f"{n} x {m}",
        f"{sum(gap <= AGREE for gap in gaps)} of {EACH}", max(gaps),
        max(v.worst for v in ours), max(v.worst for v in highs),
        int(np.median([a.steps for a in answers[OURS.name]])),
        spent[OURS.name], spent[HIGHS.name], ratio(times[HIGHS.name], times[OURS.name]),
    ]  # fmt: skip


def _all(runs: list[Callable]) -> None:
    for run in runs:
        run()

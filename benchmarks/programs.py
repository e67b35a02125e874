"""A thousand instances of each of ten constrained problems at once, against IPOPT in a loop."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jol

from . import ipopt
from .harness import benchmark, compile_cpu_seconds, interleaved, table

LANES, TOL = 1000, 1e-8


class Family(NamedTuple):
    """Functions of (x, data), bounds, a start, and `draw(rng, lanes)` -> data."""

    name: str
    objective: Callable
    eq: Callable | None
    ineq: Callable | None
    lower: np.ndarray
    upper: np.ndarray
    start: np.ndarray
    draw: Callable

    @property
    def problem(self) -> jol.Problem:
        """As a problem of ours."""
        bounded = np.isfinite(self.lower).any() or np.isfinite(self.upper).any()
        bounds = (self.lower, self.upper) if bounded else None
        return jol.Problem(self.objective, eq=self.eq, ineq=self.ineq, bounds=bounds)


def _family(name, n, objective, draw, eq=None, ineq=None, lower=-np.inf, upper=np.inf, start=0.0):
    wide = lambda value: np.broadcast_to(np.asarray(value, float), (n,)).copy()
    return Family(name, objective, eq, ineq, wide(lower), wide(upper), wide(start), draw)


def hs43(x):
    return x @ (jnp.array([1.0, 1, 2, 1]) * x) + jnp.array([-5.0, -5, -21, 7]) @ x


def hs43_rows(x, limit):
    a, b, c, d = x
    return jnp.stack([
        x @ x + a - b + c - d, a**2 + 2 * b**2 + c**2 + 2 * d**2 - a - d,
        2 * a**2 + b**2 + c**2 + 2 * a - b - d,
    ]) - limit  # fmt: skip


def hs100(x):
    return (
        (x[0] - 10) ** 2 + 5 * (x[1] - 12) ** 2 + x[2] ** 4 + 3 * (x[3] - 11) ** 2
        + 10 * x[4] ** 6 + 7 * x[5] ** 2 + x[6] ** 4 - 4 * x[5] * x[6] - 10 * x[5] - 8 * x[6]
    )  # fmt: skip


def hs100_rows(x, limit):
    return jnp.stack([
        2 * x[0] ** 2 + 3 * x[1] ** 4 + x[2] + 4 * x[3] ** 2 + 5 * x[4],
        7 * x[0] + 3 * x[1] + 10 * x[2] ** 2 + x[3] - x[4],
        23 * x[0] + x[1] ** 2 + 6 * x[5] ** 2 - 8 * x[6],
        4 * x[0] ** 2 + x[1] ** 2 - 3 * x[0] * x[1] + 2 * x[2] ** 2 + 5 * x[5] - 11 * x[6],
    ]) - limit  # fmt: skip


RISK = np.random.default_rng(1).standard_normal((15, 15)) / 4
COVARIANCE = RISK @ RISK.T + 0.05 * np.eye(15)
HORIZON = 10
TILT = np.linspace(0.5, 3.0, 5)
GRID = np.linspace(-1, 1, 20)


def dynamics(z, position):
    """A cart: x' = x + v / 4, v' = v + u / 4 - v |v| / 20 with |v| rounded, in z = (x, v, u)."""
    x, v, u = z.reshape(3, HORIZON)
    x0, v0 = jnp.concatenate([position[None], x[:-1]]), jnp.concatenate([jnp.ones(1), v[:-1]])
    drag = v0 * jnp.sqrt(v0 * v0 + 1e-2) / 20
    return jnp.concatenate([x - x0 - v0 / 4, v - v0 - u / 4 + drag])


def control(z, position):
    x, v, u = z.reshape(3, HORIZON)
    return jnp.sum(x * x) + 0.1 * jnp.sum(v * v) + 0.01 * jnp.sum(u * u)


FAMILIES = (
    _family(
        "HS71, its two limits", 4, lambda x, d: x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2],
        lambda rng, k: np.stack([rng.uniform(15, 30, k), rng.uniform(35, 50, k)], 1),
        eq=lambda x, d: x @ x - d[1], ineq=lambda x, d: d[0] - jnp.prod(x), lower=1, upper=5,
        start=[1, 5, 5, 1],
    ),
    _family(
        "HS43, its limits", 4, lambda x, d: hs43(x),
        lambda rng, k: np.array([8, 10, 5]) * rng.uniform(0.7, 1.3, (k, 3)), ineq=hs43_rows,
    ),
    _family(
        "HS100, its limits", 7, lambda x, d: hs100(x),
        lambda rng, k: np.array([127, 282, 196, 1.0]) * rng.uniform(0.7, 1.3, (k, 4)),
        ineq=hs100_rows, start=[1, 2, 0, 4, 0, 1, 1],
    ),
    _family(
        "projection on a simplex", 20, lambda x, p: 0.5 * jnp.sum((x - p) ** 2),
        lambda rng, k: rng.standard_normal((k, 20)), eq=lambda x, p: jnp.sum(x) - 1, lower=0,
        start=0.05,
    ),
    _family(
        "water filling", 20, lambda x, d: -jnp.sum(jnp.log(d[1:] + x)),
        lambda rng, k: rng.uniform(0.2, 2, (k, 21)),
        eq=lambda x, d: jnp.sum(x) - d[0], lower=0, start=0.05,
    ),
    _family(
        "portfolio", 15, lambda x, m: 0.5 * x @ COVARIANCE @ x,
        lambda rng, k: 0.1 * rng.standard_normal((k, 15)), eq=lambda x, m: jnp.sum(x) - 1,
        ineq=lambda x, m: 0.5 * jnp.max(m) - m @ x, lower=0, start=1 / 15,
    ),
    _family(
        "maximum entropy, two moments", 20, lambda x, d: jnp.sum(x * jnp.log(x)),
        lambda rng, k: np.stack([rng.uniform(-0.5, 0.5, k), rng.uniform(0.3, 0.5, k)], 1),
        eq=lambda x, d: jnp.stack([
            jnp.sum(x) - 1, GRID @ x - d[0],
            GRID**2 @ x - d[0] ** 2 - 0.5 * d[1] * (1 - d[0] ** 2),
        ]), lower=1e-12, start=0.05,
    ),
    _family(
        "nearest point of a disk", 2, lambda x, p: jnp.sum((x - p) ** 2),
        lambda rng, k: 3 * rng.standard_normal((k, 2)), ineq=lambda x, p: x @ x - 4,
    ),
    _family(
        "nearest point of an ellipsoid", 5, lambda x, p: jnp.sum((x - p) ** 2),
        lambda rng, k: 3 * rng.standard_normal((k, 5)), eq=lambda x, p: TILT @ (x * x) - 1,
        start=[1, 0.1, 0.1, 0.1, 0.1],
    ),
    _family(
        "a cart with drag, ten steps", 3 * HORIZON, control,
        lambda rng, k: rng.uniform(-2, 2, k), eq=dynamics,
        lower=np.concatenate([np.full(2 * HORIZON, -np.inf), np.full(HORIZON, -1.0)]),
        upper=np.concatenate([np.full(2 * HORIZON, np.inf), np.full(HORIZON, 1.0)]),
    ),
)  # fmt: skip


HEADER = (
    "problem", "variables", "compile CPU-s", "ours ms an instance", "IPOPT ms an instance",
    "throughput ratio", "solved, ours / IPOPT", "lower value", "median steps", "most steps",
    "price of long lanes",
)  # fmt: skip


@benchmark("programs", "1,000 instances of each of ten constrained problems, against IPOPT")
def programs(quick: bool) -> list[str]:
    lanes = 20 if quick else LANES
    rows = [_row(family, lanes) for family in (FAMILIES[:2] if quick else FAMILIES)]
    note = (
        f"{lanes} lanes of different data in one `vmap`, solved to {TOL:g} from one start, against "
        "a loop over IPOPT with jitted exact derivatives. *Lower value*: both claim a solution, "
        "and ours / theirs is lower by 1e-5. *Price of long lanes*: the time of the batch over "
        "that of as many copies of a lane of average length."
    )
    return [note, table(HEADER, rows)]


def _row(family: Family, lanes: int) -> list[Any]:
    import cyipopt

    data = jnp.asarray(family.draw(np.random.default_rng(0), lanes))
    problem, x0 = family.problem, jnp.asarray(family.start)
    one = lambda d: _told(jol.solve(problem, x0, (d,), tol=TOL))
    run = jax.jit(jax.vmap(one))
    compiling = compile_cpu_seconds(lambda: lambda d: one(d), data[0], samples=1)
    success, steps, values = jax.device_get(run(data))
    average = int(np.argmin(np.abs(steps - np.mean(steps))))
    alike = jnp.broadcast_to(data[average], data.shape)
    times = interleaved(
        {"all": lambda: run(data), "alike": lambda: run(alike)}, samples=3, repeat=1
    )
    ours, same = (float(np.median(times[name])) for name in ("all", "alike"))

    peer, host = ipopt.runner(cyipopt.Problem, family, 3000, (data[0],)), np.asarray(data)
    peer(x0, host[0])
    begin = time.perf_counter()
    answers = [peer(x0, d) for d in host]
    theirs = time.perf_counter() - begin
    value = jax.jit(family.objective)
    found = np.array([value(y, d) for (y, _), d in zip(answers, host, strict=True)])
    claims = np.array([info.claims for _, info in answers])
    gap = np.where(success & claims, (values - found) / np.maximum(1, np.abs(found)), 0)
    iterations = np.median([info.iterations for _, info in answers])
    return [
        family.name, len(x0), compiling, 1e3 * ours / lanes, 1e3 * theirs / lanes, theirs / ours,
        f"{success.sum()} / {claims.sum()}", f"{(gap < -1e-5).sum()} / {(gap > 1e-5).sum()}",
        f"{np.median(steps):.0f} / {iterations:.0f}", int(steps.max()), ours / same,
    ]  # fmt: skip


def _told(s: jol.Solution) -> tuple[Any, ...]:
    return s.success, s.steps, s.value

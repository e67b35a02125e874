"""L-BFGS where it earns its living: logistic regression and a small network, to one gradient norm.

Every contestant is given the loosest tolerance of its own with which its answer passes the outside
test ||grad f||_inf <= tol, so that nobody is timed on digits that were not asked for.
"""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from . import peers
from .data import logistic, logistic_data
from .harness import benchmark, interleaved, ratio, table

CONTESTANTS = (
    peers.LBFGS,
    peers.JAXOPT_ZOOM,
    peers.JAXOPT_BACKTRACKING,
    peers.OPTIMISTIX_LBFGS,
    peers.OPTAX_LBFGS,
    peers.SCIPY_LBFGSB,
)
LADDER = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
PENALTY, MAX_STEPS = 1e-3, 2000


@dataclasses.dataclass(frozen=True)
class Task:
    """`fun(x, *args)` from `x0` to a gradient of `tol`; lanes of a batch differ in `lanes`."""

    name: str
    fun: object
    x0: jax.Array
    args: tuple
    tol: float
    lanes: jax.Array | None  # batched in place of the last argument


def regression(m: int, n: int, lanes: int) -> Task:
    """Features of scales 1 to 1/3, and penalties a hundredfold apart in a batch."""
    data = logistic_data(m, n, 3.0)
    penalties = PENALTY * jnp.logspace(-1, 1, lanes) if lanes else None
    name = f"logistic regression, {m:,} x {n:,}"
    return Task(name, logistic, jnp.zeros(n), (*data, jnp.asarray(PENALTY)), 1e-6, penalties)


def network(images: int, lanes: int) -> Task:
    """64-16-10 on scikit-learn's digits; a batch has starts of its own, as shifts of x0."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = jnp.asarray(digits.data[:images] / 16)
    labels = jnp.asarray(digits.target[:images])
    keys = jax.random.split(jax.random.key(0), 2)
    w0 = {
        "a": jax.random.normal(keys[0], (64, 16)) / 8, "b": jnp.zeros(16),
        "c": jax.random.normal(keys[1], (16, 10)) / 4, "d": jnp.zeros(10),
    }  # fmt: skip
    flat, unravel = ravel_pytree(w0)

    def loss(v, x, labels, shift):
        w = unravel(v + shift)
        logits = jnp.tanh(x @ w["a"] + w["b"]) @ w["c"] + w["d"]
        fit = -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1))
        return fit + 1e-3 * jnp.sum((v + shift) ** 2)

    shifts = 0.1 * jax.random.normal(jax.random.key(1), (lanes, flat.size)) if lanes else None
    args = (x, labels, jnp.zeros(flat.size))
    return Task(f"network 64-16-10, {images} digits", loss, flat, args, 1e-5, shifts)


@benchmark("training", "L-BFGS on logistic regression and a network, to the same gradient norm")
def training(quick: bool) -> list[str]:
    contestants = CONTESTANTS[:2] if quick else CONTESTANTS
    tasks = [regression(500, 20, 4), network(100, 0)] if quick else [
        regression(10_000, 100, 0), regression(10_000, 100, 256), regression(100_000, 1_000, 0),
        network(1797, 0), network(400, 256),
    ]  # fmt: skip
    return [_table(task, contestants) for task in tasks]


def _table(task: Task, contestants) -> str:
    batched = task.lanes is not None
    gradient = jax.grad(task.fun)
    size = lambda x, args: jnp.max(jnp.abs(gradient(x, *args)))
    args = (*task.args[:-1], task.lanes) if batched else task.args
    axes = (0, (*(None,) * (len(args) - 1), 0))
    measure = jax.jit(jax.vmap(size, in_axes=axes) if batched else size)
    calls, rows = {}, {}
    for peer in contestants:
        if batched and not peer.traceable:
            continue
        rows[peer.name] = [None, None, None]
        for factor in LADDER:
            run = _program(peer, task, factor * task.tol, batched)
            start = time.perf_counter()
            x, info = jax.block_until_ready(run(task.x0, *args))
            reached = np.max(measure(jnp.asarray(x), args))
            print(f"{task.name}: {peer.name}, {factor:g} tol: {reached:.1e}, "
                  f"{time.perf_counter() - start:.1f} s", flush=True)  # fmt: skip
            if reached <= task.tol:
                evaluations = int(np.max(info.evaluations))
                rows[peer.name] = [factor, evaluations, float(reached)]
                calls[peer.name] = lambda run=run: run(task.x0, *args)
                break
    times = interleaved(calls, samples=5, cap=5.0)
    base = next(iter(times))
    header = ["solver", "own tolerance / tol", "evaluations", "gradient reached", "ms", "ratio"]
    body = []
    for name, row in rows.items():
        timed = [np.median(times[name]) * 1e3, ratio(times[name], times[base])]
        body.append([name, *row, *(timed if name in times else [None, None])])
    lanes = f", batch of {len(task.lanes)}" if batched else ""
    return table(header, body, f"{task.name}{lanes}, to {task.tol:g}")


def _program(peer, task: Task, tol: float, batched: bool):
    run = peer.make(task.fun, tol, MAX_STEPS)
    if not peer.traceable:
        return run
    if batched:
        run = jax.vmap(run, in_axes=(None, *(None,) * (len(task.args) - 1), 0))
    return jax.jit(run)

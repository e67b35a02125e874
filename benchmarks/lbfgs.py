"""Rosenbrock-20: what a solver costs to trace, to compile, to run once and to run in a batch."""

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np

import jaxopt_lite as jol

from . import peers
from .harness import (
    Judge,
    benchmark,
    compile_cpu_seconds,
    interleaved,
    ratio,
    table,
    traces_and_lines,
)

TOL, MAX_STEPS, LANES = 1e-6, 5000, 256
MINIMA = (0.0, 3.986623854261)
CONTESTANTS = (
    peers.LBFGS,
    peers.JAXOPT_ZOOM,
    peers.JAXOPT_BACKTRACKING,
    peers.JAXOPT_HAGER_ZHANG,
    peers.JAXOPT_BFGS,
    peers.OPTIMISTIX_BFGS,
    peers.OPTIMISTIX_LBFGS,
    peers.OPTAX_LBFGS,
    peers.JAX_SCIPY_BFGS,
    peers.SCIPY_LBFGSB,
)


def rosenbrock(x):
    """Chained: sum of 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2."""
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def whole(problem):
    """Ours as a user calls it: the program returns the `Solution` with all of its state."""
    return jax.jit(lambda x: jol.solve(problem, x, solver=jol.LBFGS(), tol=TOL))


@benchmark("lbfgs", "a limited-memory solver on Rosenbrock-20")
def lbfgs(quick: bool) -> list[str]:
    contestants = CONTESTANTS[:3:2] if quick else CONTESTANTS
    traceable = [peer for peer in contestants if peer.traceable]
    x0 = jnp.full(20, -1.2)
    lanes = x0 + 0.1 * jax.random.normal(jax.random.key(0), (16 if quick else LANES, 20))

    program, seconds = {}, {}
    for peer in traceable:
        program[peer.name] = traces_and_lines(
            lambda fun, peer=peer: peer.make(fun, TOL, MAX_STEPS), rosenbrock, x0
        )
        # A fresh function each time: solvers cache their programs by the objective.
        seconds[peer.name] = compile_cpu_seconds(
            lambda peer=peer: peer.make(lambda x: rosenbrock(x), TOL, MAX_STEPS), x0,
            samples=1 if quick else 3,
        )  # fmt: skip

    single = {peer.name: peer.compiled(rosenbrock, TOL, MAX_STEPS) for peer in contestants}
    batch = {
        peer.name: jax.jit(jax.vmap(peer.make(rosenbrock, TOL, MAX_STEPS))) for peer in traceable
    }
    samples = 3 if quick else 40
    calls = {name: lambda run=run: run(x0) for name, run in single.items()}
    everything = {
        "ours": whole(jol.Problem(rosenbrock)),
        "JAXopt": jax.jit(jaxopt.LBFGS(rosenbrock, tol=TOL, linesearch="backtracking").run),
    }
    calls |= {name: lambda run=run: run(x0) for name, run in everything.items()}
    one = interleaved(calls, samples=samples, repeat=None if quick else 20, cap=0.05)
    many = interleaved(
        {name: lambda run=run: run(lanes) for name, run in batch.items()},
        samples=samples // 2, repeat=1,
    )  # fmt: skip

    judge, judges = Judge(rosenbrock, MINIMA), Judge(rosenbrock, MINIMA, batched=True)
    rows = []
    base = contestants[0].name
    for peer in contestants:
        name = peer.name
        x, info = single[name](x0)
        row = [name, *program.get(name, (None, None)), seconds.get(name)]
        row += [int(info.iterations), int(info.evaluations)]
        row += [bool(judge(x, x0).solved(TOL))]
        row += [np.median(one[name]) * 1e3, ratio(one[name], one[base])]
        if name in batch:
            verdict = judges(batch[name](lanes)[0], lanes)
            row += [np.median(many[name]) * 1e3, ratio(many[name], many[base])]
            row += [float(np.mean(verdict.solved(TOL)))]
        else:
            row += [None] * 3
        rows.append(row)
    header = [
        "solver", "traces", "lines", "compile CPU-s", "iterations", "evaluations", "solved",
        "ms", "ratio", f"ms, {len(lanes)} lanes", "ratio", "lanes solved",
    ]  # fmt: skip
    note = (
        "Programs timed here return x, a status and the counts. Returning all they have, "
        f"{len(jax.tree.leaves(everything['ours'](x0)))} arrays, ours takes "
        f"{np.median(one['ours']) * 1e3:.3f} ms; JAXopt's backtracking LBFGS, "
        f"{len(jax.tree.leaves(everything['JAXopt'](x0)))} arrays, "
        f"{np.median(one['JAXopt']) * 1e3:.3f} ms."
    )
    return [table(header, rows), note]

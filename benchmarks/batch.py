"""10,000 small problems in one `vmap`, and the same over eight devices by sharding."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jol

from . import peers
from .harness import Judge, benchmark, interleaved, ratio, table

LANES, TOL, MAX_STEPS, DEVICES = 10_000, 1e-6, 300, 8
SOLVERS = {"default": None, "LBFGS": jol.LBFGS()}
CONTESTANTS = (
    peers.DEFAULT,
    peers.LBFGS,
    peers.JAXOPT_ZOOM,
    peers.JAXOPT_BACKTRACKING,
    peers.OPTIMISTIX_BFGS,
    peers.OPTIMISTIX_LBFGS,
)


def valley(x, a, b):
    """Rosenbrock with its minimum at (a, a^2) and a valley of steepness b."""
    return (a - x[0]) ** 2 + b * (x[1] - x[0] ** 2) ** 2


def lanes(count: int):
    """Starts (count, 2) and parameters (count,) each, the same everywhere."""
    rng = np.random.default_rng(0)
    starts = 2 * rng.standard_normal((count, 2))
    a, b = rng.uniform(0.5, 1.5, count), np.exp(rng.uniform(np.log(10), np.log(200), count))
    return jnp.asarray(starts), jnp.asarray(a), jnp.asarray(b)


@benchmark("batch", "10,000 two-dimensional problems at once")
def batch(quick: bool) -> list[str]:
    count = 200 if quick else LANES
    contestants = CONTESTANTS[1:2] if quick else CONTESTANTS
    data = lanes(count)
    runs = {peer.name: jax.jit(jax.vmap(peer.make(valley, TOL, MAX_STEPS))) for peer in contestants}
    for name in () if quick else SOLVERS:
        make = getattr(peers, name.upper()).make(valley, TOL, MAX_STEPS)
        runs[f"ours {name}, lax.map"] = jax.jit(
            lambda *operands, make=make: jax.lax.map(lambda lane: make(*lane), operands)
        )
    calls = {name: lambda run=run: run(*data) for name, run in runs.items()}
    times = interleaved(calls, samples=3 if quick else 7, repeat=1, cap=10.0)
    judge = Judge(valley, (0.0,), batched=True)
    rows, first = [], contestants[0].name
    for name, run in runs.items():
        x, info = run(*data)
        verdict = judge(x, *data)
        solved, claims = verdict.solved(TOL), np.asarray(info.claims)
        rows.append(
            [name, count / np.median(times[name]), ratio(times[name], times[first]),
             f"{solved.sum()}", f"{(claims & ~solved).sum()}", f"{(~claims & solved).sum()}",
             float(np.median(info.evaluations)), int(np.max(info.evaluations))]
        )  # fmt: skip
    header = [
        "solver (vmap)", "problems a second", "time ratio", "solved", "false claims",
        "solved, not claimed", "median evaluations", "most",
    ]  # fmt: skip
    return [table(header, rows, f"{count} lanes"), statuses(data), *sharded(count)]


def _solve(solver):
    problem = jol.Problem(valley)

    def one(x0, *args):
        s = jol.solve(problem, x0, args, solver=solver, tol=TOL, max_steps=MAX_STEPS)
        return s.x, s.status

    return jax.jit(jax.vmap(one))


def statuses(data) -> str:
    """How our lanes ended."""
    lines = []
    for name, solver in SOLVERS.items():
        codes, counts = np.unique(_solve(solver)(*data)[1], return_counts=True)
        ends = (f"{n} {jol.Status(int(c)).name}" for c, n in zip(codes, counts, strict=True))
        lines.append(f"- ours {name}: {', '.join(ends)}")
    return "\n".join(lines)


def sharded(count: int) -> list[str]:
    """The same lanes over eight host devices, in a process of its own."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"
    command = [sys.executable, "-m", "benchmarks.batch", str(count)]
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_ENABLE_X64": "1"}
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    rows = json.loads(out.stdout.splitlines()[-1])
    header = [
        "solver", "devices of the answer", "largest difference in x", "equal statuses",
        "one device ms", f"{DEVICES} devices ms",
    ]  # fmt: skip
    title = f"jax.sharding over {DEVICES} host devices ({os.cpu_count()} cores) against one"
    return [table(header, rows, title)]


def _compare(count: int) -> list[list]:
    """Run on one device and on all, and compare; called where there are eight."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("lanes",))  # axes of type Auto
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("lanes"))
    data = lanes(count)
    rows = []
    for name, solver in SOLVERS.items():
        run = _solve(solver)
        found, seconds = [], []
        for operands in (data, jax.device_put(data, spread)):
            found.append(jax.block_until_ready(run(*operands)))
            times = interleaved({name: lambda run=run, o=operands: run(*o)}, samples=5, repeat=1)
            seconds.append(float(np.median(times[name])))
        (x, status), (y, other) = found
        difference = float(np.max(np.abs(np.asarray(x) - np.asarray(y))))
        same = bool(np.all(np.asarray(status) == np.asarray(other)))
        devices = len(y.sharding.device_set)
        rows.append([f"ours {name}", devices, difference, same, *(1e3 * s for s in seconds)])
    return rows


if __name__ == "__main__":
    print(json.dumps(_compare(int(sys.argv[1]))))

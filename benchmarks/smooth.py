"""The whole table of test problems: who solves it, who only says so, and how fast."""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from . import peers
from .harness import Judge, benchmark, interleaved, table

TOL, MAX_STEPS = 1e-6, 5000
CONTESTANTS = (
    peers.DEFAULT,
    peers.LBFGS,
    peers.GRADIENT_DESCENT,
    peers.TRUST_REGION_CG,
    peers.JAXOPT_ZOOM,
    peers.JAXOPT_BACKTRACKING,
    peers.JAXOPT_BFGS,
    peers.OPTIMISTIX_BFGS,
    peers.OPTIMISTIX_LBFGS,
    peers.OPTAX_LBFGS,
    peers.JAX_SCIPY_BFGS,
    peers.SCIPY_LBFGSB,
    peers.SCIPY_BFGS,
    peers.SCIPY_TRUST_EXACT,
)
RELIABLE = 0.8  # a solver below this success rate does not shrink the commonly solved set


@benchmark("smooth", "the test problems of tests/problems.py")
def smooth(quick: bool) -> list[str]:
    from tests.problems import CASES

    contestants = CONTESTANTS[1:2] if quick else CONTESTANTS
    cases = CASES[::15] if quick else CASES
    names = [peer.name for peer in contestants]
    shape = (len(cases), len(names))
    absolute, scaled, claims = np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape, bool)
    seconds, evaluations = np.full(shape, np.nan), np.full(shape, np.nan)
    compiling = np.zeros(len(names))
    for i, case in enumerate(cases):
        x0, args = jnp.asarray(case.x0), jax.tree.map(jnp.asarray, case.args)
        judge = Judge(case.objective, case.minima)
        runs = {}
        for j, peer in enumerate(contestants):
            run = peer.compiled(case.objective, TOL, MAX_STEPS)
            start = time.process_time()
            try:
                x, info = jax.block_until_ready(run(x0, *args))
            except ValueError as error:  # SciPy's trust-exact meets a NaN
                print(f"{case.name}: {peer.name}: {error}", file=sys.stderr)
                continue
            compiling[j] += time.process_time() - start
            verdict = judge(x, x0, *args)
            absolute[i, j], scaled[i, j] = verdict.solved(TOL), verdict.solved_scaled(TOL)
            claims[i, j], evaluations[i, j] = bool(info.claims), int(info.evaluations)
            if absolute[i, j] or scaled[i, j]:
                runs[peer.name] = lambda run=run, x0=x0, args=args: run(x0, *args)
        times = interleaved(runs, samples=3 if quick else 7, cap=0.1)
        for name, column in times.items():
            seconds[i, names.index(name)] = np.median(column)
        jax.clear_caches()

    reliable = scaled.mean(axis=0) >= RELIABLE
    common = scaled[:, reliable].all(axis=1)
    base = names.index(peers.LBFGS.name)
    rows = []
    for j, name in enumerate(names):
        both = scaled[:, j] & scaled[:, base]
        factor = np.exp(np.nanmean(np.log(seconds[both, j] / seconds[both, base])))
        shared = common if reliable[j] else common & scaled[:, j]
        counted = np.where(evaluations[shared, j] >= 0, evaluations[shared, j], np.nan)
        rows.append(
            [name, f"{absolute[:, j].sum()}", f"{scaled[:, j].sum()}",
             f"{(claims & ~absolute)[:, j].sum()}", f"{(claims & ~scaled)[:, j].sum()}",
             f"{(~claims & absolute)[:, j].sum()}",
             np.median(seconds[shared, j]) * 1e3,
             seconds[shared, j].sum() * 1e3 if reliable[j] else None, factor,
             np.median(counted), compiling[j] / len(cases)]
        )  # fmt: skip
    header = [
        "solver", "solved", "solved (relative)", "false claims", "false claims (relative)",
        "solved, not claimed", "median ms", "total ms", "time / our LBFGS",
        "median evaluations", "first call CPU-s",
    ]  # fmt: skip
    title = f"{len(cases)} problems; times over the {common.sum()} that every solver with at least "
    title += f"{RELIABLE:.0%} solves"
    return [table(header, rows, title), _failures(cases, names, absolute, scaled, claims)]


def _failures(cases, names, absolute, scaled, claims) -> str:
    """Which problems each of our solvers does not solve, and how it says so."""
    lines = []
    for j, name in enumerate(names):
        if not name.startswith("ours"):
            continue
        missed = [
            f"{case.name}{' (relative: solved)' * bool(scaled[i, j])}"
            f"{' (**claimed**)' * bool(claims[i, j])}"
            for i, case in enumerate(cases)
            if not absolute[i, j]
        ]
        lines.append(f"- {name} misses: {', '.join(missed) or 'none'}")
    for i, case in enumerate(cases):
        if not scaled[i].any():
            lines.append(f"- Solved by none: {case.name}")
    return "\n".join(lines)

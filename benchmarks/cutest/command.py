"""The benchmark, and the command for work on one solver."""

import argparse
import importlib.metadata
from collections.abc import Sequence

import jax
import numpy as np

from ..harness import benchmark
from . import __doc__ as description
from .contestants import contestants
from .problems import FAMILIES, Entry, catalogue, half
from .report import Results, draw, failures, missed, summary
from .rows import CACHE, MAX_STEPS, SOLVE_CAP, Study, collect

SMALL, LARGE = 50, 1000  # variables; least squares only to SMALL
TITLES = {
    "unconstrained": "Unconstrained",
    "equations": "Nonlinear least squares, as residuals",
    "bounded": "Bounds",
    "constrained": "Constraints",
}
NOTES = """\
All unconstrained problems of [sif2jax](https://github.com/johannahaffner/sif2jax) with up to {small} variables and those up to {large};
its nonlinear equations without bounds, up to {small} variables and with at least as many equations, as residuals;
all problems with bounds or constraints up to {small} variables.

- Everybody is asked for ||grad f||_inf <= 1e-6 (Optimistix for changes of 1e-10), with {steps} steps and {cap:.0f} CPU-seconds.
- *Gradient test*: ||grad f(x)||_inf <= 1e-6 max(1, ||grad f(x0)||_inf). *Success*: also f within 1e-4 max(1, |best|) of
  the best found by anybody, or of the published optimum. *(absolute)*: with ||grad f||_inf <= 1e-6.
  *Claims elsewhere*: converged, passes the gradient test, at a higher value (another local minimum, a saddle, a plateau).
- With bounds or constraints the gradient is the error of `programs.judge`, asked to be 1e-6: violation, and the KKT
  conditions over max(1, ||grad f||) with the multipliers that make them small. The best value is that of a KKT point.
  IPOPT and POUNCE are asked for their default, 1e-8 scaled, without relaxing bounds; senses of inequalities are of an independent translation.
- Problems were put in two halves at random; ours were tuned on one only.
- Evaluations are of f with its gradient, or of the residuals; Hessians and Jacobians, and products with them, are not
  counted. JAXopt's Levenberg-Marquardt reports iterations. In SciPy's times, most is Python between evaluations."""  # noqa: E501


def _entries(family: str, most: int) -> list[Entry]:
    return [entry for entry in catalogue(family, CACHE) if entry.n <= most]


@benchmark("cutest", "CUTEst problems: who gets there, who only says so, how fast")
def cutest(quick: bool) -> list[str]:
    blocks = [NOTES.format(small=SMALL, large=LARGE, steps=MAX_STEPS, cap=SOLVE_CAP)]
    for family in FAMILIES:
        entries = _entries(family, LARGE if family == "unconstrained" else SMALL)
        peers = contestants(family, "ours default, SciPy BFGS, Optimistix Lev" if quick else "")
        entries = entries[::40] if quick else entries
        study = Study(family)
        collect(study, entries, peers)
        results = Results(study, entries, [peer.name for peer in peers])
        title = TITLES[family]
        for part, keep in (
            (f"{title}, up to {SMALL} variables", results.size <= SMALL),
            (f"{title}, {SMALL + 1} to {LARGE} variables", results.size > SMALL),
        ):
            if not keep.any():
                continue
            blocks.append(summary(results, keep, part))
            ours = [name for name in results.names if name.startswith("ours")][:1]
            notes = [missed(results, keep, name) for name in ours]
            none = keep & ~results.success.any(axis=1)
            names = ", ".join(results.entries[i].name for i in np.flatnonzero(none))
            notes.append(f"- Solved by none: {names or 'none of them'}")
            blocks.append("\n".join(notes))
        if results.left_out:
            lines = [f"{name} ({why})" for name, why in results.left_out.items()]
            blocks.append(f"Left out: {', '.join(lines)}.")
        if stale := results.stale():
            blocks.append(f"{stale} rows of ours are from another state of the package.")
        if not quick:
            keep = np.ones(len(results.entries), bool)
            blocks.append(draw(results, keep, title, f"cutest_{family}.png"))
    blocks.append(f"sif2jax {importlib.metadata.version('sif2jax')}.")
    return blocks


def main(argv: Sequence[str] | None = None) -> None:
    """Run, print, and leave README.md alone."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cutest",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--family", choices=list(FAMILIES), default="unconstrained")
    parser.add_argument("--ask", choices=("absolute", "relative"), default="absolute")
    parser.add_argument("--only", default="", help="solvers: comma-separated parts of names")
    parser.add_argument("--again", default="", help="the same, and run them anew")
    parser.add_argument("--problems", default="", help="names, space-separated")
    parser.add_argument("--half", choices=("tuned", "held out"), help="one half of the problems")
    parser.add_argument("--largest", type=int, default=SMALL, help="most variables")
    parser.add_argument("--failures", action="store_true", help="list what each fails on, and how")
    parser.add_argument("--no-run", action="store_true", help="only show what the cache has")
    options = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    entries = _entries(options.family, options.largest)
    if options.problems:
        entries = [e for e in entries if e.name in options.problems.split()]
    if options.half:
        entries = [e for e in entries if half(e.name) == options.half]
    study = Study(options.family, options.ask)
    peers = contestants(options.family, options.again or options.only)
    if options.again:
        for entry in entries:
            for peer in peers:
                study.path(entry.name, peer.name).unlink(missing_ok=True)
    if not options.no_run:
        collect(study, entries, peers)
    results = Results(study, entries, [peer.name for peer in peers])
    print(summary(results, np.ones(len(results.entries), bool), TITLES[options.family]))
    if options.failures:
        for peer in peers:
            print(failures(results, peer.name))
    for name, reason in results.left_out.items():
        print(f"left out: {name}: {reason}")

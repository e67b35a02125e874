"""The Maros-Meszaros test set (1999): who solves it to 1e-6 and to 1e-9, and how fast."""

import argparse
import json
import multiprocessing
import os
import pathlib
import re
import time
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..harness import benchmark, table
from . import __doc__ as description
from .peers import EVERYONE, OURS, Peer
from .programs import folder, judge, load, with_bounds

TOLS = (1e-6, 1e-9)
CAP = 60.0  # seconds for a solve, and for getting ready for it
SHIFT = 1.0  # ms, of the geometric mean
CACHE = pathlib.Path(__file__).parents[2] / "build" / "maros"

NOTES = """\
{count} of the Maros-Meszaros QPs ([maros_meszaros_qpbenchmark](https://github.com/qpsolvers/maros_meszaros_qpbenchmark)), least <= Ax <= most.

- *Solved to tol*: asked for tol, absolute and without relative part, the answer has primal and dual residual of at
  most tol, both absolute, and a gap of at most tol (1 + |value|), recomputed in extended precision from the rows of
  the file. A multiplier that leans on an infinite side counts as dual residual.
- Rows with one entry are passed as bounds to everybody, the other rows as they are. Ours, qpax, JAXopt, PIQP dense,
  ProxQP, DAQP and quadprog get dense matrices, the others sparse ones.
- *ms*: shifted geometric mean of {count} warm solves (shift {shift:g} ms), {cap:.0f} s for what is not solved; getting ready and
  compiling apart, at most {cap:.0f} s too."""  # noqa: E501  # lines of Markdown


class Job(NamedTuple):
    """A peer on a problem with a tolerance: a row, and a file."""

    problem: str
    peer: str
    tol: float

    def path(self) -> pathlib.Path:
        peer = next(p for p in EVERYONE if p.name == self.peer)
        slug = re.sub(r"[^a-zA-Z0-9.-]+", "_", f"{peer.name}-{peer.version}-{self.tol:g}")
        return CACHE / self.problem / f"{slug}.json"


def read(job: Job) -> dict | None:
    path = job.path()
    return json.loads(path.read_text()) if path.exists() else None


def _write(job: Job, record: dict) -> None:
    path = job.path()
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(record))
    os.replace(scratch, path)


# -- the worker, and the parent that kills it ------------------------------------------------------


def _work(jobs: Sequence[Job], home: pathlib.Path, tell: Any) -> None:
    """Do the jobs, telling before each phase of one, so that the parent can time it."""
    import jax

    warnings.simplefilter("ignore")
    jax.config.update("jax_enable_x64", True)
    everyone = {peer.name: peer for peer in EVERYONE}
    for before, job in zip([None, *jobs], jobs, strict=False):
        if before is not None and before[:2] != job[:2]:
            jax.clear_caches()
        tell.send((job, "getting ready"))
        try:
            _write(job, _solved(job, everyone[job.peer], home, tell))
        except BrokenPipeError:  # the parent is gone
            raise
        except Exception as error:  # what a peer raises on a problem is its answer
            _write(job, {"failure": f"{type(error).__name__}: {error}"[:200]})
    tell.send(None)


def _solved(job: Job, peer: Peer, home: pathlib.Path, tell: Any) -> dict:
    raw = load(home / f"{job.problem}.mat")
    program, back = with_bounds(raw)
    begin = time.perf_counter()
    run = peer.make(program, job.tol)
    ready = time.perf_counter() - begin
    tell.send((job, "solve"))
    spent = []  # of at least two calls where they are short
    while (len(spent) < 2 and sum(spent) < 2) or (sum(spent) < 0.1 and len(spent) < 5):
        begin = time.perf_counter()
        answer = run()
        spent.append(time.perf_counter() - begin)
    verdict = judge(raw, back(answer))
    return {
        **verdict._asdict(), "status": answer.status, "steps": answer.steps,
        "seconds": min(spent), "ready": ready,
    }  # fmt: skip


def collect(jobs: Sequence[Job], home: pathlib.Path) -> None:
    """Fill the cache: workers, one after the other, until no row is missing."""
    context = multiprocessing.get_context("spawn")
    while missing := [job for job in jobs if read(job) is None]:
        print(f"{len(missing)} rows are missing", flush=True)
        here, there = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(missing, home, there), daemon=True)
        worker.start()
        there.close()
        try:
            _watch(worker, here)
        finally:
            worker.kill()
            worker.join()


def _watch(worker: Any, here: Any) -> None:
    """Follow a worker until it is done, dies, or takes too long; then write the row it owes."""
    job, phase, cap = None, "start", 2 * CAP
    while True:
        reason = f"more than {cap:.0f} s"
        try:
            news = here.recv() if here.poll(cap) else ()
        except EOFError:
            worker.join(5)
            news, reason = (), f"crash, exit code {worker.exitcode}"
        if news is None:
            return
        if news:
            (job, phase), cap = news, CAP
            continue
        if job is None:
            raise RuntimeError(f"the worker failed before its first problem: {reason}")
        print(f"  {job.problem}: {job.peer}: {phase}: {reason}", flush=True)
        _write(job, {"failure": f"{phase}: {reason}"})
        return


# -- the table -------------------------------------------------------------------------------------


def _passed(row: dict | None, tol: float) -> bool:
    return bool(row) and max(row.get(k, np.inf) for k in ("primal", "dual", "gap")) <= tol


def summary(names: Sequence[str], peers: Sequence[Peer]) -> str:
    header = ["solver"]
    for tol in TOLS:
        header += [f"solved to {tol:g}", "ms"]
    header += ["false claims", "ready s, median"]
    lines = []
    for peer in peers:
        line, false, ready = [peer.name], [], []
        for tol in TOLS:
            rows = [read(Job(name, peer.name, tol)) or {} for name in names]
            fine = [_passed(row, tol) for row in rows]
            pairs = zip(rows, fine, strict=True)
            ms = np.array([1e3 * (row["seconds"] if ok else CAP) for row, ok in pairs])
            line += [f"{sum(fine)} of {len(names)}", np.exp(np.log(ms + SHIFT).mean()) - SHIFT]
            claims = [_claims(row.get("status", "")) for row in rows]
            false.append(sum(c and not ok for c, ok in zip(claims, fine, strict=True)))
            ready += [row["ready"] for row in rows if "ready" in row]
        lines.append([*line, " / ".join(map(str, false)), np.median(ready) if ready else None])
    return table(header, lines)


def _claims(status: str) -> bool:
    """Whether a solver says that this is a solution, whatever its words for it."""
    words = ("solved", "piqp_solved", "proxqp_solved", "optimal", "exit 1", "exit 2", "converged")
    return status.lower() in words


def failures(names: Sequence[str], peer: Peer, tol: float) -> str:
    """Line by line, what is not solved to `tol`, and how it is said."""
    lines = []
    for name in names:
        row = read(Job(name, peer.name, tol)) or {"failure": "not run"}
        if _passed(row, tol):
            continue
        if "failure" in row:
            lines.append(f"  {name:10} {row['failure']}")
            continue
        lines.append(
            f"  {name:10} {row['status']:20} {row['steps']:6} steps  primal {row['primal']:.1e}  "
            f"dual {row['dual']:.1e}  gap {row['gap']:.1e}  value {row['value']:.12g}"
        )
    return "\n".join([f"{peer.name} at {tol:g}: {len(lines)} of {len(names)} not solved", *lines])


@benchmark("maros", "The Maros-Meszaros QPs: who solves them, and how fast")
def maros(quick: bool) -> list[str]:
    home = folder()
    names = sorted(path.stem for path in home.glob("*.mat"))[:: 4 if quick else 1]
    _forget(Job(name, OURS.name, tol) for name in names for tol in TOLS)
    collect([Job(name, p.name, tol) for name in names for p in EVERYONE for tol in TOLS], home)
    lacks = {
        tol: [n for n in names if not _passed(read(Job(n, OURS.name, tol)), tol)] for tol in TOLS
    }
    missed = [f"- Ours misses at {tol:g}: {', '.join(lacks[tol]) or 'none'}" for tol in TOLS]
    versions = {p.package: p.version for p in EVERYONE if p.package}
    made = ", ".join(f"{package} {version}" for package, version in versions.items())
    notes = NOTES.format(count=len(names), cap=CAP, shift=SHIFT)
    return [notes, summary(names, EVERYONE), "\n".join(missed), f"{made}."]


def _forget(jobs: Any) -> None:
    for job in jobs:
        job.path().unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Run, print, and leave README.md alone."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.qp",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default="", help="solvers: comma-separated parts of names")
    parser.add_argument("--again", default="", help="the same, and run them anew")
    parser.add_argument("--problems", default="", help="names, space-separated")
    parser.add_argument("--failures", action="store_true", help="list what each fails on, and how")
    parser.add_argument("--no-run", action="store_true", help="only show what the cache has")
    options = parser.parse_args(argv)
    home = folder()
    names = sorted(path.stem for path in home.glob("*.mat"))
    names = [n for n in names if not options.problems or n in options.problems.split()]
    words = [w.strip().lower() for w in (options.again or options.only).split(",") if w.strip()]
    peers = [p for p in EVERYONE if not words or any(word in p.name.lower() for word in words)]
    jobs = [Job(name, p.name, tol) for name in names for p in peers for tol in TOLS]
    if options.again:
        _forget(jobs)
    if not options.no_run:
        collect(jobs, home)
    print(summary(names, peers))
    if options.failures:
        for peer in peers:
            for tol in TOLS:
                print(failures(names, peer, tol))

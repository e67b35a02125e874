"""Rows: run a solver on a problem in a process of its own, judge the answer, keep it on disk."""

import functools
import hashlib
import json
import multiprocessing
import os
import pathlib
import re
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jol

from ..harness import interleaved
from ..peers import Peer
from . import programs
from .contestants import contestants
from .problems import PROGRAMS, Entry, load

TOL, MAX_STEPS = 1e-6, 10_000
COMPILE_CAP, SOLVE_CAP = 60.0, 20.0  # CPU-seconds
CACHE = pathlib.Path(__file__).parents[2] / "build" / "cutest"

# -- the cache ------------------------------------------------------------------------------------


class Study(NamedTuple):
    """Which problems, and what is asked of the solvers: `absolute` or `relative`."""

    family: str
    ask: str = "absolute"

    def path(self, problem: str, peer: str = "") -> pathlib.Path:
        """The file of a row, or without `peer` of what is known of the problem."""
        slug = f"{self.ask}-{re.sub(r'[^a-zA-Z0-9_.-]+', '_', peer)}" if peer else "problem"
        return CACHE / self.family / problem / f"{slug}.json"


def read(path: pathlib.Path) -> dict | None:
    """A record, None if there is none."""
    return json.loads(path.read_text()) if path.exists() else None


def _write(path: pathlib.Path, record: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(record))
    os.replace(scratch, path)


@functools.cache
def source() -> str:
    """A digest of the package, to notice rows of ours that an older one made."""
    root = pathlib.Path(jol.__file__).parent
    text = b"".join(path.read_bytes() for path in sorted(root.rglob("*.py")))
    return hashlib.sha256(text).hexdigest()[:12]


# -- the worker: one process that solves, writes rows, and may be killed ---------------------------


def _work(study: Study, jobs: list[tuple[Entry, list[str]]], tell: Any) -> None:
    """Do the `jobs`, telling before each phase what it is, so that the parent can time it."""
    warnings.simplefilter("ignore")
    jax.config.update("jax_enable_x64", True)
    everyone = {peer.name: peer for peer in contestants(study.family)}
    for entry, names in jobs:

        def say(peer: str, phase: str, problem: str = entry.name) -> None:
            tell.send((problem, peer, phase))

        say("", "judge")
        fun, x0 = load(study.family, entry)
        judge = _judge(study.family, fun)
        start, steepness = judge(x0)
        if study.family in PROGRAMS and np.isfinite(steepness):
            steepness = 1.0  # the error is relative already
        record = read(study.path(entry.name)) or {}
        record |= {"start": start, "gradient": steepness, "n": entry.n, "m": entry.m}
        if not np.isfinite(start + steepness):
            record["left_out"] = "not finite at x0"
        _write(study.path(entry.name), record)
        if "left_out" in record:
            continue
        accepted = TOL * max(1.0, steepness)
        tol = TOL if study.ask == "absolute" else accepted
        rows, calls = {}, {}
        for name in names:
            row, call = _one(everyone[name], fun, x0, tol, judge, say)
            row["problem"], row["solver"], row["source"] = entry.name, name, source()
            row["timed"] = call is not None and row["gradient"] <= accepted
            _write(study.path(entry.name, name), row)
            rows[name] = row
            if row["timed"]:
                calls[name] = call
        say("", "time")
        _time(rows, calls)
        for name, row in rows.items():
            _write(study.path(entry.name, name), row)
        jax.clear_caches()
    tell.send(None)


def _judge(family: str, fun: Callable) -> Callable[[Any], tuple[float, float]]:
    """X -> (f, ||grad f||_inf), from the function alone; for programs (f, KKT error).

    Forward mode for residuals, as in all contestants: in reverse, that of CERI651C is NaN.
    """
    if family in PROGRAMS:
        return programs.judge(fun)

    def half_square(x):
        r = fun(x)
        return 0.5 * jnp.sum(r**2), r @ jax.jacfwd(fun)(x)

    measure = jax.jit(half_square if family == "equations" else jax.value_and_grad(fun))

    def judge(x):
        value, gradient = measure(jnp.asarray(x, jnp.float64))
        return float(value), float(np.max(np.abs(gradient)))

    return judge


def _one(peer: Peer, fun, x0, tol, judge, tell) -> tuple[dict, Callable | None]:
    """The row of one solver, and the call that made it."""
    begin = time.process_time()
    try:
        run = peer.make(fun, tol, MAX_STEPS)
        if peer.traceable:
            tell(peer.name, "compile")
            run = jax.jit(run).lower(x0).compile()
            compiling = time.process_time() - begin
        tell(peer.name, "solve")
        start = time.perf_counter()
        x, info = jax.block_until_ready(run(x0))
        seconds = time.perf_counter() - start
        if not peer.traceable:
            compiling = time.process_time() - begin
            start = time.perf_counter()
            run(x0)
            seconds = time.perf_counter() - start
            compiling = max(compiling - seconds, 0.0)
    except BrokenPipeError:  # the parent is gone
        raise
    except Exception as error:  # a peer may raise on a NaN, or fail to compile
        return {"failure": f"{type(error).__name__}: {error}"[:200]}, None
    value, gradient = judge(x)
    row = {
        "x": np.asarray(x).tolist(), "value": value, "gradient": gradient,
        "claims": bool(info.claims), "iterations": int(info.iterations),
        "evaluations": int(info.evaluations), "status": int(getattr(info, "status", -1)),
        "compile": compiling, "once": seconds,
    }  # fmt: skip
    return row, lambda: run(x0)


def _time(rows: dict[str, dict], calls: dict[str, Callable]) -> None:
    """Add `seconds` to the rows, and `yard`: those of a fixed program, timed in turns with them.

    Rows made in different hours are compared by the ratio of the two.
    """
    brief = {name: call for name, call in calls.items() if rows[name]["once"] < 1}
    times = interleaved({**brief, "": _yardstick()}, samples=3, cap=0.1)
    yard = float(np.median(times.pop("")))
    for name in calls:
        once = rows[name]["once"]
        rows[name]["seconds"] = float(np.median(times[name])) if name in times else once
        rows[name]["yard"] = yard


@functools.cache
def _yardstick() -> Callable[[], jax.Array]:
    """A fixed program of small dependent operations, some 2 ms."""
    matrix = jnp.cos(jnp.arange(400.0)).reshape(20, 20) / 20
    loop = jax.jit(
        lambda x: jax.lax.fori_loop(0, 2000, lambda _, y: jnp.sin(matrix @ y) + 0.1 * x, x)
    )
    x = jnp.ones(20)
    compiled = loop.lower(x).compile()
    return lambda: compiled(x)


# -- the parent -----------------------------------------------------------------------------------


def collect(study: Study, entries: Sequence[Entry], peers: Sequence[Peer]) -> None:
    """Fill the cache: workers, one after the other, until no row is missing."""
    context = multiprocessing.get_context("spawn")
    while jobs := _missing(study, entries, peers):
        total = sum(len(names) for _, names in jobs)
        print(
            f"{study.family}, {study.ask}: {total} rows on {len(jobs)} problems are missing",
            flush=True,
        )
        here, there = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(study, jobs, there), daemon=True)
        worker.start()
        there.close()
        try:
            _watch(study, worker, here, len(jobs))
        finally:
            worker.kill()
            worker.join()


def _missing(study, entries, peers) -> list[tuple[Entry, list[str]]]:
    jobs = []
    for entry in entries:
        about = read(study.path(entry.name)) or {}
        if "left_out" in about:
            continue
        names = [p.name for p in peers if _lacks(study.path(entry.name, p.name), about)]
        if names:
            jobs.append((entry, names))
    return jobs


def _lacks(path: pathlib.Path, about: dict) -> bool:
    """Whether there is no row, or one whose worker was killed before it was timed."""
    row = read(path)
    return row is None or (
        row.get("timed", False) and "seconds" not in row and "untimed" not in about
    )


def _watch(study: Study, worker: Any, here: Any, jobs: int) -> None:
    """Follow one worker until it is done, dies, or exceeds a cap; in that case write the row."""
    problem, peer, phase, done = "", "", "start", 0
    cpu, wall = _cpu_seconds(worker.pid), time.perf_counter()
    while True:
        try:
            news = here.recv() if here.poll(0.2) else ()
        except EOFError:
            news, reason = (), "crash"
        else:
            reason = ""
        if news is None:
            return
        if news:
            problem, peer, phase = news
            if phase == "judge":
                done += 1
                print(f"  {done}/{jobs} {problem}", flush=True)
            cpu, wall = _cpu_seconds(worker.pid), time.perf_counter()
            continue
        cap = {"compile": COMPILE_CAP, "judge": COMPILE_CAP, "solve": SOLVE_CAP}.get(phase, 300.0)
        if phase == "solve" and peer.startswith("SciPy"):
            cap += COMPILE_CAP  # its derivatives are compiled on the way
        used = _cpu_seconds(worker.pid) - cpu
        if not reason and (used > cap or time.perf_counter() - wall > 5 * cap):
            reason = f"more than {cap:.0f} CPU-s"
        if reason:
            reason = f"{phase}: {reason}"
            print(f"    {problem}: {peer or 'the judge'}: {reason}", flush=True)
            if peer:
                row = {"problem": problem, "solver": peer, "source": source(), "failure": reason}
                _write(study.path(problem, peer), row)
            elif phase == "judge":
                _write(study.path(problem), {"left_out": reason})
            elif phase == "time":
                _write(study.path(problem), (read(study.path(problem)) or {}) | {"untimed": reason})
            elif phase == "start":
                raise RuntimeError("the worker died before its first problem")
            return


def _cpu_seconds(pid: int) -> float:
    """What a process has used; where /proc is missing, the wall clock."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return time.perf_counter()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

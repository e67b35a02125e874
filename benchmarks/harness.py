"""Timing, the judge, tables, and the README: all that a benchmark needs besides its problem.

@benchmark("name", "what it asks")        # a row in TABLE; picked up by `python -m benchmarks`
def name(quick: bool) -> list[str]: ...   # Markdown blocks, written between its markers
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import os
import pathlib
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

README = pathlib.Path(__file__).with_name("README.md")
VERSIONS = ("jax", "jaxopt", "optimistix", "optax", "scipy")
TABLE: dict[str, tuple[str, Callable[[bool], list[str]]]] = {}


def benchmark(name: str, title: str) -> Callable:
    """Register a function `(quick) -> blocks of Markdown`."""

    def register(function: Callable[[bool], list[str]]) -> Callable[[bool], list[str]]:
        TABLE[name] = (title, function)
        return function

    return register


def main(argv: Sequence[str]) -> int:
    """Run the benchmarks named in `argv`, or all; a quick run is printed and not written."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TABLE)}")
    parser.add_argument("--quick", action="store_true", help="small smoke run; README untouched")
    options = parser.parse_args(argv)
    unknown = sorted(set(options.names) - set(TABLE))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(TABLE)}")
    warnings.simplefilter("ignore")  # deprecations inside peers
    failed = 0
    for name in options.names or TABLE:
        title, function = TABLE[name]
        print(f"== {name}: {title}", flush=True)
        start = time.perf_counter()
        try:
            blocks = function(options.quick)
        except Exception:
            traceback.print_exc()
            failed += 1
            continue
        seconds = time.perf_counter() - start
        text = "\n\n".join([*blocks, f"{provenance()}; {seconds:.0f} s."])
        print(text, flush=True)
        if not options.quick:
            write(name, title, text)
    return failed


# -- the README -----------------------------------------------------------------------------------


def provenance() -> str:
    """The machine, the day and the versions, in one line."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS)
    day = datetime.date.today().isoformat()
    return f"*{_cpu()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {day}; {versions}*"


def _cpu() -> str:
    """The name of the processor, where Linux says it."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return "unknown CPU"


def write(name: str, title: str, text: str) -> None:
    """Put `text` between the markers of `name` in the README, which are appended if missing."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    old = README.read_text() if README.exists() else "# Benchmarks\n"
    if begin not in old:
        old = f"{old.rstrip()}\n\n## {name}: {title}\n\n{begin}\n{end}\n"
    head, rest = old.split(begin, 1)
    tail = rest.split(end, 1)[1]
    README.write_text(f"{head}{begin}\n{text}\n{end}{tail}")


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> str:
    """A Markdown table; numbers get three digits, None a dash."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    lines += [[show(cell) for cell in row] for row in rows]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"**{title}**\n\n{body}" if title else body


def show(cell: Any) -> str:
    """A cell as text."""
    if cell is None:
        return "-"
    if isinstance(cell, (bool, np.bool_)):
        return "yes" if cell else "no"
    if isinstance(cell, (int, np.integer)):
        return str(cell)
    if isinstance(cell, (float, np.floating)):
        if cell != 0 and not 1e-3 <= abs(cell) < 1e5:
            return f"{cell:.1e}"
        digits = 3 - len(str(int(abs(cell))))
        return f"{cell:.{max(digits, 0) + (abs(cell) < 1) * 1}f}"
    return str(cell)


# -- time -----------------------------------------------------------------------------------------


def interleaved(
    calls: Mapping[str, Callable[[], Any]],
    samples: int = 30,
    repeat: int | None = None,
    cap: float = float("inf"),
) -> dict[str, np.ndarray]:
    """Seconds a call, `samples` of each, taken in turns so that noise hits all alike.

    Each call is made once before, to compile. A sample is the mean of `repeat` calls; None: as
    many as fill 5 ms, at most 20. A call that takes `cap` seconds or more is not repeated.
    """
    once = {}
    for name, call in calls.items():
        jax.block_until_ready(call())
        once[name] = _mean_time(call, 1)
    again = {name: repeat or int(np.clip(0.005 / t, 1, 20)) for name, t in once.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for row in range(samples):
        for name in order[row % len(order) :] + order[: row % len(order)]:
            slow = once[name] >= cap
            times[name].append(once[name] if slow else _mean_time(calls[name], again[name]))
    return {name: np.array(column) for name, column in times.items()}


def _mean_time(call: Callable[[], Any], repeat: int) -> float:
    start = time.perf_counter()
    for _ in range(repeat):
        jax.block_until_ready(call())
    return (time.perf_counter() - start) / repeat


def ratio(times: np.ndarray, base: np.ndarray) -> float:
    """Median of the ratios of samples taken side by side."""
    return float(np.median(times / base))


def compile_cpu_seconds(make: Callable[[], Callable], *inputs: Any, samples: int = 3) -> float:
    """CPU-seconds of a first call of `jax.jit(make())`, minus a warm one; caches empty."""
    found = []
    for _ in range(samples):
        jax.clear_caches()
        function = jax.jit(make())
        times = []
        for _ in range(2):
            start = time.process_time()
            jax.block_until_ready(function(*inputs))
            times.append(time.process_time() - start)
        found.append(times[0] - times[1])
    return float(np.median(found))


def traces_and_lines(make: Callable, fun: Callable, *inputs: Any) -> tuple[int, int]:
    """Python calls of `fun` while `make(fun)` is lowered, and the lines of its StableHLO."""
    calls = 0

    def counted(*operands):
        nonlocal calls
        calls += 1
        return fun(*operands)

    jax.clear_caches()
    text = jax.jit(make(counted)).lower(*inputs).as_text()
    return calls, len(text.splitlines())


# -- the judge ------------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """What is true of an answer, whatever its solver says.

    `gradient` is ||grad f||_inf and `start` the same at x0; `near` whether f is within
    1e-6 max(1, |f*|) of a known local minimum f*, `near_scaled` within
    1e-6 max(1, |f*|, f(x0) - f*).
    Where no minimum is known both are True.
    """

    gradient: np.ndarray
    start: np.ndarray
    value: np.ndarray
    near: np.ndarray
    near_scaled: np.ndarray

    def solved(self, tol: float) -> np.ndarray:
        """||grad f||_inf <= tol, at a known minimum."""
        return (self.gradient <= tol) & self.near

    def solved_scaled(self, tol: float) -> np.ndarray:
        """||grad f||_inf <= tol max(1, ||grad f(x0)||_inf), at a known minimum."""
        return (self.gradient <= tol * np.maximum(1, self.start)) & self.near_scaled


class Judge:
    """Recomputes f and its gradient in float64 from the objective alone; one lane or a batch."""

    def __init__(self, fun: Callable, minima: Sequence[float] = (), batched: bool = False):
        def measure(x, *args):
            value, gradient = jax.value_and_grad(fun)(x, *args)
            return value, jnp.max(jnp.abs(gradient))

        self._measure = jax.jit(jax.vmap(measure) if batched else measure)
        self._minima = np.array(minima, dtype=float)

    def __call__(self, x: Any, x0: Any, *args: Any) -> Verdict:
        """The verdict on x, reached from x0."""
        x, x0 = jnp.asarray(x, jnp.float64), jnp.asarray(x0, jnp.float64)
        value, gradient = map(np.asarray, self._measure(x, *args))
        first, start = map(np.asarray, self._measure(x0, *args))
        if not self._minima.size:
            fine = np.isfinite(value)
            return Verdict(gradient, start, value, fine, fine)
        gap = np.abs(value[..., None] - self._minima)
        scale = np.maximum(1, np.abs(self._minima))
        near = np.any(gap <= 1e-6 * scale, axis=-1)
        fall = np.maximum(scale, first[..., None] - self._minima)
        return Verdict(gradient, start, value, near, np.any(gap <= 1e-6 * fall, axis=-1))

"""Import time against `import jax`: what a user waits for before the first line runs."""

import os
import resource
import subprocess
import sys
import time

import numpy as np

from .harness import benchmark, ratio, table

MODULES = ("jax", "jaxopt_lite", "optax", "jaxopt", "optimistix")


def _seconds(module: str) -> tuple[float, float]:
    """CPU (user + system) and wall seconds of a fresh interpreter that imports `module`."""
    # As installed: pip writes byte code, and so does Python where it is not told otherwise.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-c", f"import {module}"]
    subprocess.run(command, check=True, env=environment)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


@benchmark("import", "import time, fresh interpreters in turns")
def imports(quick: bool) -> list[str]:
    modules = MODULES[:2] if quick else MODULES
    for module in modules:
        _seconds(module)  # byte code and disk caches
    times = np.array([[_seconds(m) for m in modules] for _ in range(2 if quick else 10)])
    rows = []
    for column, module in enumerate(modules):
        cpu, wall = times[:, column].T
        rows.append(
            [module, np.median(cpu), ratio(cpu, times[:, 0, 0]), np.median(wall),
             ratio(wall, times[:, 0, 1])]
        )  # fmt: skip
    return [table(["import", "CPU-s", "ratio to jax", "wall s", "ratio to jax"], rows)]

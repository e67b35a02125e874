"""Float64, strict promotion and the CPU, for the whole suite; and the counters that tests share."""

import contextlib
import gc
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Batched LAPACK calls wait inside the pool of XLA's CPU threads for others of that pool. Where it
# has two, a program with two such calls at once can wait for ever: ours are ordered by their data,
# and test_regressions.py runs one with the pool that users have, but a suite must not hang.
os.environ.setdefault("PJRT_NPROC", "8")
# Nearly all the time goes into compiling programs that run for a millisecond: do not optimise them.
# Without fusion emitters, jaxlib 0.10 compiles in 2/5 of the CPU time, and 0.7 in 9/10; a release
# that does not know the flag would refuse to start, so that later ones do not get it unseen.
# `XLA_FLAGS= make test` runs the suite as users compile, in three to six times the time.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false"
    * version("jaxlib").startswith(("0.7.", "0.8.", "0.9.", "0.10.")),
)

import jax
import numpy as np
import pytest

# Tracing makes and drops millions of objects: looking through them less often saves 6% of the time.
gc.freeze()
gc.set_threshold(200_000, 20, 100)

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")

_COMPILE = "/jax/core/compile/backend_compile_duration"
_compiled = 0


def _listen(event: str, duration: float, **_: object) -> None:
    global _compiled
    _compiled += event == _COMPILE


jax.monitoring.register_event_duration_secs_listener(_listen)


_MAPS = 30_000  # memory maps kept at once; Linux allows a process 65,530 and ends it beyond
_EVERY = 50  # programs between two looks; each takes 10 to 30 maps, by the release of jaxlib
_looked_at = 0


def _memory_maps() -> int:
    maps = Path("/proc/self/maps")
    return maps.read_bytes().count(b"\n") if maps.exists() else 0


ALONE = {"test_notebooks", "test_readme", "test_cli", "test_projections", "test_prox"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one file share programs and answers: with `--dist loadgroup` one worker has them.

    Those of ALONE share nothing, and fill the gaps.
    """
    for item in items:
        name = item.path.stem
        if name not in ALONE:
            item.add_marker(pytest.mark.xdist_group(name))


def pytest_runtest_teardown() -> None:
    """Forget compiled programs before their memory maps are too many, which crashes the process."""
    global _looked_at
    if _compiled - _looked_at > _EVERY:
        _looked_at = _compiled
        if _memory_maps() > _MAPS:
            jax.clear_caches()
            gc.collect()


class Count:
    """How many programs XLA compiled inside the block."""

    def __init__(self) -> None:
        self.start = _compiled
        self.end: int | None = None

    @property
    def programs(self) -> int:
        return (_compiled if self.end is None else self.end) - self.start


@pytest.fixture
def compilations():
    """`with compilations() as count: ...; assert count.programs == 0`."""

    @contextlib.contextmanager
    def counting() -> Iterator[Count]:
        count = Count()
        yield count
        count.end = _compiled

    return counting


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)

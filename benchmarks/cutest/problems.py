"""CUTEst problems in JAX (sif2jax): what there is, and each without importing all the others.

`import sif2jax` builds every problem, which takes a minute; here empty packages stand in for its
`__init__` files, and the one module that is wanted is imported, in some 20 ms.
"""

import ast
import importlib
import importlib.util
import json
import pathlib
import sys
import types
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .programs import UNKNOWN_SENSE, Program, program

FAMILIES = {
    "unconstrained": ("_unconstrained_minimisation",),
    "equations": ("_nonlinear_equations",),
    "bounded": ("_bounded_minimisation", "_quadratic_problems"),
    "constrained": ("_constrained_minimisation", "_quadratic_problems"),
}
PROGRAMS = ("bounded", "constrained")
SLOW = ("CLEUVEN7",)  # a minute to build
SEED = 20261122


class Entry(NamedTuple):
    """A line of the catalogue: how to import a problem, its size, and m residuals if it has."""

    name: str
    module: str
    cls: str
    n: int
    m: int
    published: float | None  # the optimum its authors give


def half(name: str) -> str:
    """`tuned` or `held out`, drawn at random by problem; ROSENBR and ROSENBRNE go together."""
    stem = name.removesuffix("LS").removesuffix("NE")
    return ("tuned", "held out")[zlib.crc32(f"{SEED}{stem}".encode()) & 1]


def catalogue(family: str, cache: pathlib.Path) -> list[Entry]:
    """The problems of a family; of `equations` those without bounds and with m >= n."""
    path = cache / f"catalogue_{family}.json"
    if not path.exists():
        found = {entry.name: entry for entry in _survey(family)}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([found[name] for name in sorted(found)], indent=0))
    return [Entry(*fields) for fields in json.loads(path.read_text())]


def _survey(family: str) -> list[Entry]:
    return [entry for package in _packages(family) for entry in _listed(package, family)]


def _listed(package: types.ModuleType, family: str) -> Iterator[Entry]:
    tree = ast.parse(pathlib.Path(package.__path__[0], "__init__.py").read_text())
    home, listed = {}, []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            home |= {alias.asname or alias.name: node.module for alias in node.names}
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            calls = [item for item in node.value.elts if isinstance(item, ast.Call)]
            listed += [call.func.id for call in calls if isinstance(call.func, ast.Name)]
    for cls in dict.fromkeys(listed):
        if cls not in home or cls in SLOW:
            continue
        problem = getattr(importlib.import_module(f"{package.__name__}.{home[cls]}"), cls)()
        n, m = int(np.size(problem.y0)), 0
        if family in PROGRAMS and hasattr(problem, "constraint") != (family == "constrained"):
            continue
        if problem.name in UNKNOWN_SENSE:
            continue
        if family == "equations":
            bounds = problem.bounds
            bounded = bounds is not None and any(np.any(np.abs(b) < 1e20) for b in bounds)
            equations = jax.eval_shape(lambda y, p=problem: p.constraint(y)[0], problem.y0)
            m = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(equations))
            if bounded or m < n:
                continue
        yield Entry(problem.name, home[cls], cls, n, m, _published(problem, family))


def _published(problem: Any, family: str) -> float | None:
    if family == "equations":  # there the objective is a constant
        return None
    try:
        value = problem.expected_objective_value
    except NotImplementedError:
        return None
    return None if value is None else float(np.asarray(value))


def load(family: str, entry: Entry) -> tuple[Callable | Program, jax.Array]:
    """`(function, x0)`: the objective of one flat vector; the residuals; or a `Program`."""
    package = next(p for p in _packages(family) if _has(p, entry.module))
    problem = getattr(importlib.import_module(f"{package.__name__}.{entry.module}"), entry.cls)()
    if family in PROGRAMS:
        return program(problem, entry.name)
    x0 = jnp.asarray(problem.y0, jnp.float64)
    if family == "equations":

        def residuals(x):
            return jnp.concatenate(
                [jnp.ravel(r) for r in jax.tree.leaves(problem.constraint(x)[0])]
            )

        return residuals, x0
    args = problem.args
    return lambda x: jnp.reshape(problem.objective(x, args), ()), x0


def _has(package: types.ModuleType, module: str) -> bool:
    return pathlib.Path(package.__path__[0], f"{module}.py").exists()


def _packages(family: str) -> list[types.ModuleType]:
    """The packages of a family, imported without running any `__init__` of sif2jax."""
    if "sif2jax" not in sys.modules:
        spec = importlib.util.find_spec("sif2jax")
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError("the benchmark `cutest` needs `pip install sif2jax`")
        root = pathlib.Path(spec.submodule_search_locations[0])
        for name in ("sif2jax", "sif2jax.cutest"):
            _stub(name, root.joinpath(*name.split(".")[1:]))
        # some modules take the base classes from there
        bases = vars(importlib.import_module("sif2jax._problem"))
        vars(sys.modules["sif2jax"]).update({k: v for k, v in bases.items() if k[:8] == "Abstract"})
    for folder in FAMILIES[family]:
        name = f"sif2jax.cutest.{folder}"
        if name not in sys.modules:
            _stub(name, pathlib.Path(sys.modules["sif2jax.cutest"].__path__[0], folder))
    return [sys.modules[f"sif2jax.cutest.{folder}"] for folder in FAMILIES[family]]


def _stub(name: str, folder: pathlib.Path) -> None:
    module = types.ModuleType(name)
    module.__path__ = [str(folder)]
    sys.modules[name] = module

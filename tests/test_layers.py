"""Imports go down only, siblings do not import each other, and the public names are listed once."""

import ast
import pathlib

import pytest

import jaxopt_lite as jol

ROOT = pathlib.Path(jol.__file__).parent
# shared/DESIGN.md, "Layers". What is not here yet is checked from the day it is.
LAYERS = {
    "linalg": 0, "prox": 0.5,  # both L0; projections stand on linear algebra
    "core": 1,
    "solvers": 2, "certify": 2, "convexity": 2, "curvature": 2, "estimators": 2,
    "learning": 3, "landscape": 3,
    "plotting": 4, "tour": 4, "__main__": 4,
}  # fmt: skip
# Modules of the root that only hand on names from below.
DOORS = {"__init__", "implicit"}
FAMILIES = ("smooth", "equations", "stochastic", "proximal", "constrained", "conic")
ALLOWED = {("constrained", "smooth"), ("proximal", "smooth"), ("constrained", "conic")}
RUNTIME = {"jax", "jaxlib", "optax", "chex", "numpy"}
EXTRAS = {"matplotlib", "tqdm", "sklearn", "highspy"}
FILES = sorted(ROOT.rglob("*.py"))


def unit(path: pathlib.Path) -> str:
    """The part of the package that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: pathlib.Path) -> list[tuple[str, bool]]:
    """(dotted name, whether at the top of the module) of every import; ours as jaxopt_lite.x.y."""
    tree = ast.parse(path.read_text())
    package = ["jaxopt_lite", *path.relative_to(ROOT).parent.parts]
    top = set(map(id, tree.body))
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            names += [(".".join([*base, alias.name]), id(node) in top) for alias in node.names]
    return names


def ours(path: pathlib.Path) -> set[tuple[str, ...]]:
    split = (tuple(name.split(".")) for name, _ in imported(path))
    return {parts[1:] for parts in split if parts[0] == "jaxopt_lite" and len(parts) > 1}


def test_the_parser_sees_imports():
    found = ours(ROOT / "solvers" / "smooth" / "lbfgs.py")
    assert {parts[0] for parts in found} == {"core", "linalg", "solvers"}


def test_every_unit_has_a_layer():
    units = {unit(path) for path in FILES} - DOORS
    assert units <= set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path):
    here = unit(path)
    if here == "__init__":
        return_to = {parts[0] for parts in ours(path)}
        assert "__main__" not in return_to
        return
    level = LAYERS.get(here, 2)  # doors stand above core
    wrong = {
        ".".join(parts)
        for parts in ours(path)
        if parts[0] != here
        and parts[0] in LAYERS
        and LAYERS[parts[0]] >= level
        # The top layer is one place: the command line shows pictures.
        and not (level == 4 and LAYERS[parts[0]] == 4)
    }
    assert not wrong, f"{path} imports {wrong} from its own layer or above"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_but_the_command_line_imports_pictures(path):
    if unit(path) in ("plotting", "tour", "__main__", "__init__"):
        level = LAYERS.get(unit(path), 4)
        assert level == 4
        return
    assert not [parts for parts in ours(path) if parts[0] in ("plotting", "tour", "__main__")]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "solvers").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_solver_families_do_not_import_each_other(path):
    family = path.relative_to(ROOT / "solvers").parts[0]
    others = {
        parts[1]
        for parts in ours(path)
        if parts[0] == "solvers" and len(parts) > 1 and parts[1] in FAMILIES
    }
    if family not in FAMILIES:  # the list of all, and the default's choice
        assert family in ("__init__.py", "default.py")
        return
    assert not {(family, other) for other in others - {family}} - ALLOWED


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_declared_dependencies_and_extras_where_they_are_used(path):
    import sys

    for name, at_top in imported(path):
        head = name.split(".")[0]
        if head in sys.stdlib_module_names or head == "jaxopt_lite" or head in RUNTIME:
            continue
        assert head in EXTRAS, f"{path} imports {head}"
        # An extra at the top of a module would make `import jaxopt_lite` need it.
        assert not at_top or unit(path) == "plotting", f"{path} imports {head} at its top"


def test_import_needs_no_extra():
    """Only what lies below the root's own imports is loaded, and that has no extra at its top."""
    import subprocess
    import sys

    program = (
        "import sys\n"
        f"for name in {sorted(EXTRAS)!r}: sys.modules[name] = None\n"
        "import jaxopt_lite as jol, jax.numpy as jnp\n"
        "print(jol.minimize(lambda x: jnp.sum(x * x), jnp.ones(2)).raise_for_status().steps)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


def test_public_names_exist_and_are_documented():
    for name in jol.__all__:
        thing = getattr(jol, name)
        assert thing.__doc__, name
        assert not name.startswith("_")
    assert len(set(jol.__all__)) == len(jol.__all__)

"""What is public is listed, documented, in the README, and cheap to import."""

import inspect
import pathlib
import subprocess
import sys

import pytest

import jaxopt_lite as jol
from jaxopt_lite import curvature, implicit, learning, plotting, projections, prox

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()


@pytest.mark.parametrize("name", jol.__all__)
def test_public_name_exists_and_is_documented(name):
    thing = getattr(jol, name)
    assert inspect.getdoc(thing)


@pytest.mark.parametrize(
    "module",
    [
        curvature,
        implicit,
        learning,
        learning.estimators,
        learning.kernels,
        plotting,
        projections,
        prox,
    ],
    ids=lambda module: module.__name__,
)
def test_public_module_lists_documented_names(module):
    for name in module.__all__:
        assert inspect.getdoc(getattr(module, name)), name


def test_every_solver_is_public_and_in_the_readme():
    from jaxopt_lite.core import TABLE

    for name in TABLE:
        assert name in jol.__all__
        assert f"`{name}(" in README


@pytest.mark.parametrize(
    "name", ["solve", "minimize", "certify", "classify", "find_critical_points"]
)
def test_every_argument_is_documented(name):
    function = getattr(jol, name)
    text = inspect.getdoc(function) or ""
    for parameter in inspect.signature(function).parameters.values():
        if name == "minimize":  # refers to `solve` and `Problem`
            continue
        assert f"{parameter.name}:" in text, parameter.name


def test_import_pulls_in_nothing_heavy():
    code = (
        "import sys, jaxopt_lite; "
        "heavy = {'optax', 'chex', 'matplotlib', 'sklearn', 'tqdm', 'scipy.optimize'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        jol.nothing  # noqa: B018

"""Every notebook runs from the top, and its committed outputs are not older than its code."""

import nbformat
import pytest

from tests.run_notebooks import execute, notebooks


def test_there_are_notebooks():
    assert [path.name for path in notebooks()][:1] == ["01_first_solve.ipynb"]


@pytest.mark.filterwarnings("ignore")  # those of the kernel's own libraries
@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_notebook_runs_and_is_committed_with_outputs(path):
    committed = nbformat.read(path, as_version=4)
    fresh = execute(path)
    for old, new in zip(committed.cells, fresh.cells, strict=True):
        if new.cell_type == "code":
            assert old.source == new.source
            assert [o.output_type for o in old.outputs] == [o.output_type for o in new.outputs]
            assert all(o.output_type != "error" for o in new.outputs)
    pictures = [
        o for c in fresh.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    assert pictures

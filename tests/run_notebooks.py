"""Execute notebooks: `python -m tests.run_notebooks` in place; the tests use `execute`."""

import pathlib
import sys

import nbformat
from nbclient import NotebookClient

FOLDER = pathlib.Path(__file__).parent.parent / "notebooks"


def notebooks() -> list[pathlib.Path]:
    return sorted(FOLDER.glob("*.ipynb"))


def execute(path: pathlib.Path) -> nbformat.NotebookNode:
    """The notebook with fresh outputs; raises where a cell does."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", coalesce_streams=True)
    client.execute(cwd=str(path.parent))
    for cell in notebook.cells:  # what differs from run to run does not belong into the file
        cell.metadata.pop("execution", None)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


if __name__ == "__main__":
    for path in notebooks():
        nbformat.write(execute(path), path)
        print(path.name)
    sys.exit(0)

"""Every notebook runs from top to bottom, is short, and is kept without outputs."""

import pathlib

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted(pathlib.Path(__file__).parents[1].joinpath("notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@each
def test_it_is_short_and_holds_no_output(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= 10
    for cell in notebook.cells:
        assert max(map(len, cell.source.splitlines())) <= 120
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.slow
@each
# What the kernel's client warns of is not ours.
@pytest.mark.filterwarnings("ignore")
def test_it_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    assert any(
        "image/svg+xml" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ())
    )


def test_there_is_one():
    assert NOTEBOOKS

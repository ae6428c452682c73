"""Notebooks of `examples/`, executed cell by cell in an empty folder."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.command_line import ROOT
from tests.followed import Cell, follow

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_code_of_a_notebook_runs_on_little_data(notebook: Path, tmp_path: Path) -> None:
    cells = nbformat.read(notebook, as_version=4)["cells"]
    code = [Cell(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 1
    follow(code, tmp_path)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_notebook_runs_from_its_first_cell_to_its_last(notebook: Path, tmp_path: Path) -> None:
    content = nbformat.read(notebook, as_version=4)
    NotebookClient(content, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert all(cell["execution_count"] for cell in content["cells"] if cell["cell_type"] == "code")

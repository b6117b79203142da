"""What is stored in the notebooks: outputs of a run from top to end, without paths or errors, and not much of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
STORED = sorted((DOCS / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def problems():
    pytest.importorskip("nbclient", reason="the extra `docs` is not installed")
    sys.path.insert(0, str(DOCS))
    try:
        from run_notebooks import problems
    finally:
        sys.path.remove(str(DOCS))
    return problems


def test_there_are_six():
    assert len(STORED) == 6


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_notebook_was_stored_as_it_ran(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell["outputs"] for cell in cells)


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_nothing_is_stored_that_should_not_be(path, problems):
    assert problems(path.read_text()) == []


def test_a_path_an_error_and_a_large_notebook_are_found(problems):
    import nbformat

    def stored(**output):
        cell = nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output(**output)])
        return nbformat.writes(nbformat.v4.new_notebook(cells=[cell]))

    assert problems(stored(output_type="stream", name="stdout", text="fine")) == []
    assert "the path /tmp/" in problems(stored(output_type="stream", name="stdout", text="in /tmp/abc/runs"))
    assert problems(stored(output_type="stream", name="stderr", text="a warning")) == ["something printed as an error"]
    assert problems(stored(output_type="error", ename="E", evalue="", traceback=[])) == ["a cell that failed"]
    assert len(problems(stored(output_type="stream", name="stdout", text="x" * 600_000))) == 1

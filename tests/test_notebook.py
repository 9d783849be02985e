"""jobs/weigh_and_train.ipynb runs from top to bottom, as a reader would run it."""

import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

JOBS = Path(__file__).parent.parent / "jobs"


@pytest.mark.drill
@pytest.mark.timeout(1800)
def test_the_notebook_runs_from_top_to_bottom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(JOBS.parent))
    book = nbformat.read(JOBS / "weigh_and_train.ipynb", as_version=4)
    # A cell that raises an error ends it with that error.
    nbclient.NotebookClient(book, timeout=None, resources={"metadata": {"path": str(JOBS)}}).execute()
    shown = "\n".join(shown_of(one) for cell in book.cells if cell.cell_type == "code" for one in cell.outputs)
    for pattern in (
        r"<Weighed: 96 questions, 768 responses; \d\d kept as examples; discarded: \d+ all_wrong",
        r"<th>is_correct</th>",
        r"\['\\\\frac\{1\}\{2\}', '0.5', '3'\], True, \[0, 0, 1\], 0.636",
        r"'completion': \[\{'role': 'assistant',\s+'content': '",
    ):
        assert re.search(pattern, shown), (pattern, shown)
    before, after = map(float, re.findall(r"([\d.]+)% (?:before|after)", shown))
    assert 60 < before < after <= 100, shown


def shown_of(output: Any) -> str:
    found = output.get("data", {})
    return found.get("text/html") or found.get("text/plain") or output.get("text", "")


def test_the_notebook_is_kept_without_outputs() -> None:
    book = nbformat.read(JOBS / "weigh_and_train.ipynb", as_version=4)
    assert not any(cell.outputs or cell.execution_count for cell in book.cells if cell.cell_type == "code")

"""The line of a stage, as it stands in a terminal or in the log of a job."""

import time

import pytest

from east_ray.console import StageLine


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> StageLine:
    """The line of a stage that began ten seconds ago."""
    begin = time.monotonic()
    line = StageLine("samples", 4000, "questions")
    monkeypatch.setattr(line, "_begin", begin - 10.0)
    monkeypatch.setattr("time.monotonic", lambda: begin)
    return line


def test_a_line_has_what_is_done_at_which_rate(line: StageLine) -> None:
    assert line.render().plain == "samples     0/4,000 questions \u00b7 0:10"
    line.advance(20, "640 responses")
    assert line.render().plain == "samples     20/4,000 questions \u00b7 2.0/s \u00b7 640 responses \u00b7 0:10"


def test_what_an_interrupted_run_has_done_counts_but_not_for_the_rate(line: StageLine) -> None:
    line.go_on(2200)
    assert line.render().plain == "samples     2,200/4,000 questions \u00b7 0:10"
    line.advance(20)
    assert line.render().plain == "samples     2,220/4,000 questions \u00b7 2.0/s \u00b7 0:10"

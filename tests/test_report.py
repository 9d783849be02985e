"""What a person reads of a run: true to its files, careful in its words, harmless with hostile text."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from east_ray.config_file import resolve
from east_ray.records import DISCARDED, EXAMPLES
from east_ray.report import describe, print_summary, summarize, write_report
from east_ray.storage import RunDirectory

HOSTILE = "<script>alert(1)</script>"


def accuracy(share: float) -> dict[str, Any]:
    return {"num_questions": 100, "accuracy": share, "low": share - 0.1, "high": share + 0.1, "num_unanswered": 1,
            "num_truncated": 2}  # fmt: skip


def difference(first: str, second: str, value: float, low: float, high: float, p_value: float) -> dict[str, Any]:
    return {"first": first, "second": second, "difference": value, "low": low, "high": high, "p_value": p_value}


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    config = resolve(
        {
            "model": HOSTILE,
            "description": HOSTILE,
            "run_dir": str(tmp_path / "run"),
            "questions": {"path": "q.jsonl"},
            "variants": {"uniform": {"weighting.signal": "uniform"}},
        }
    )
    run = RunDirectory(config)
    row = {"question_id": "a", "question": HOSTILE, "reference_answer": "1", "num_responses": 8, "num_truncated": 1,
           "entropy": 0.5, "pass_rate": 0.5, "rejected_rate": 0.25, "clusters": []}  # fmt: skip
    example = row | {"signal": 0.5, "chosen": HOSTILE, "chosen_finish_reason": "stop"}
    for stages in (run.round(0), run.round(0).learner("uniform")):
        rows = [example | {"question_id": str(i), "entropy": 0.5 * i, "weight": 0.5 * i} for i in range(3)]
        (stages / "examples").replace(pa.Table.from_pylist(rows, EXAMPLES))
        (stages / "discarded").replace(pa.Table.from_pylist([row | {"reason": "all_wrong"}], DISCARDED))
        stages.folder.write_text("training.jsonl", json.dumps({"loss": 1.0}) + "\n" + json.dumps({"loss": 0.5}) + "\n")
        with stages.recording("examples") as record:
            record.counts = {"kept": 3, "discarded": {"all_wrong": 1}}
    with run.round(0).recording("questions") as record:
        record.counts = {"asked": 4, "set_aside": {HOSTILE: 2}}
    metrics = {
        "accuracy": {"base": accuracy(0.5), "trained": accuracy(0.7), "uniform": accuracy(0.6)},
        "differences": [
            difference("trained", "base", 0.2, 0.1, 0.3, 0.001),
            difference("uniform", "base", 0.1, -0.1, 0.3, 0.3),
            difference("uniform", "trained", -0.1, -0.15, -0.05, 0.004),
        ],
    }
    (run.round(0) / "evaluation").write_text("metrics.json", json.dumps(metrics))
    return run


def shown(directory: RunDirectory) -> str:
    console = Console(file=io.StringIO(), width=100)
    print_summary(summarize(directory), console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_the_terminal_tables(directory: RunDirectory) -> None:
    text = shown(directory)
    assert "kept as examples" in text and "discarded: all_wrong" in text and "EAST (entropy, a = 1)" in text
    assert "+20.0 (+10.0, +30.0)" in text
    assert (
        "EAST (entropy, a = 1) minus uniform: +10.0 points, paired 95 % interval +5.0 to +15.0, exact p = 0.004: "
        "EAST (entropy, a = 1) answers more of these questions"
    ) in text


@pytest.mark.parametrize(
    ("value", "low", "high", "p_value", "verdict"),
    [
        (-0.1, -0.15, -0.05, 0.004, "EAST (entropy, a = 1) answers more of these questions"),
        (0.1, 0.05, 0.15, 0.004, "uniform answers more of these questions"),
        (0.1, -0.01, 0.15, 0.2, "no difference is shown"),
        (0.004, 0.001, 0.007, 0.07, "no difference is shown"),  # the interval alone would have said otherwise
    ],
)
def test_no_winner_is_named_that_the_numbers_do_not_show(
    directory: RunDirectory, value: float, low: float, high: float, p_value: float, verdict: str
) -> None:
    folder = directory.round(0) / "evaluation"
    metrics = json.loads(folder.read_text("metrics.json") or "")
    metrics["differences"][2] = difference("uniform", "trained", value, low, high, p_value)
    folder.write_text("metrics.json", json.dumps(metrics))
    assert verdict in shown(directory)


def test_hostile_text_stays_text(directory: RunDirectory) -> None:
    html = Path(write_report(directory)).read_text()
    assert "<script" not in html and "&lt;script&gt;alert(1)" in html
    assert html.count("<svg") == 6 and html.count('role="img"') == 6


def test_weightings_in_a_few_words() -> None:
    def words(**weighting: object) -> str:
        values = {"model": "m", "run_dir": "r", "questions": {"path": "q"}, "weighting": weighting}
        return describe(resolve(values))

    assert words(signal="uniform") == "uniform"
    assert words(signal="accuracy", exponent=2.0, mapping="sigmoid") == "accuracy, a = 2, sigmoid"

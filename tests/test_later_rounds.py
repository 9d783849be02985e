"""What sets later rounds apart from the first: their questions, and whether there are any."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from east_ray.config import Config
from east_ray.config.files import resolve
from east_ray.console import Progress
from east_ray.evaluation.stage import has_gained
from east_ray.questions.stage import ask_questions
from east_ray.records import QUESTIONS
from east_ray.storage import RunDirectory
from east_ray.storage.rounds import Round


def config(folder: Path, *overrides: str) -> Config:
    rows = [{"question": f"{number} + 1?", "reference_answer": str(number + 1)} for number in range(7)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"path": str(folder / "questions.jsonl"), "max_questions": 2, "skip": 1}
    return resolve({"model": "m", "run_dir": str(folder / "run"), "questions": source, "rounds": 3}, overrides)


def round_of(config: Config, number: int) -> Round:
    return Round(config, RunDirectory(config), number, "before", "initial", Progress(Console(quiet=True)))


@pytest.mark.parametrize(("setting", "asked"), [("same", ["1 + 1?", "2 + 1?"]), ("fresh", ["5 + 1?", "6 + 1?"])])
def test_the_third_round_asks_the_same_questions_or_those_after_the_second_s(
    tmp_path: Path, setting: str, asked: list[str]
) -> None:
    third = round_of(config(tmp_path, f"questions_per_round={setting}"), 2)
    ask_questions(third, lambda config, model: None)
    assert (third.stages / "questions").read(QUESTIONS)["question"].to_pylist() == asked


@pytest.mark.parametrize(("low", "goes_on"), [(0.002, True), (-0.002, False)])
def test_the_rounds_go_on_after_a_significant_gain_alone(tmp_path: Path, low: float, goes_on: bool) -> None:
    validation = f"early_stopping={{questions: {{path: {tmp_path}/questions.jsonl}}}}"
    first = round_of(config(tmp_path, validation), 0)
    with first.stages.recording("validation") as record:
        record.counts["gain"] = {"difference": 0.01, "low": low, "high": 0.02}
    assert has_gained(first) == goes_on
    assert has_gained(round_of(config(tmp_path, f"run_dir={tmp_path}/other"), 0))

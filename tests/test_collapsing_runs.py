"""Runs that learn from majority answers, with planted answers of their models: what collapses stops, and nothing else.

A backend says what each model answers, by how many rounds it has learned. So the trainings leave models untrained.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from json_records import checked
from rich.console import Console

from east_ray import compare, pipeline
from east_ray.config import InputError
from east_ray.config.files import MODULE_FOLDERS, load
from east_ray.console import Progress
from east_ray.records import ArmComparison, Collapse, Diversity
from east_ray.storage import RunDirectory

pytestmark = pytest.mark.usefixtures("untrained")

PLANTED = '''
"""What the models of a run answer."""
import re
from concurrent.futures import Future

from east_ray.sampling.backends import Backend, Response


class Planted(Backend):
    """Of the model after k rounds, `right[k]` of ten questions have the right answer as the commonest, others 7.

    Five of its eight sampled responses say that; the others say `others[k]` further answers in turn. In a comparison,
    only the arms whose names have "majority" in them do so after the first round.
    """

    prompt_form = "messages"

    def ask(self, model, prompt, decoding, first=0, alone=None):
        found = re.search(r"round_(\\d+)/(?:variants/([^/]+)/)?model", model)
        rounds = int(found[1]) + 1 if found and "majority" in (found[2] or "majority") else 0
        right, others = self.args["right"][rounds], self.args["others"][rounds]
        number = int(prompt[-1]["content"].split("+ ")[1].rstrip("?"))
        answer = 2 * number if number % 10 < right else 7
        places = range(first, first + decoding.responses_per_question)
        answers = [1000 + place // 2 % others if place % 8 in (3, 5, 7) and others else answer for place in places]
        future = Future()
        given = answers if decoding.temperature else [answer]
        future.set_result([Response(f"\\\\boxed{{{one}}}", "stop", 4) for one in given])
        return future
'''


def configuration(folder: Path, model: Path, right: list[int], others: list[int], **changes: Any) -> dict[str, Any]:
    """Three rounds of 20 questions without references, and 50 held-out ones with them."""
    (folder / "planted.py").write_text(PLANTED)
    for name, numbers in {"questions": range(20), "held_out": range(100, 150)}.items():
        rows = [{"question": f"How much is {n} + {n}?", "reference_answer": str(2 * n)} for n in numbers]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "run_dir": str(folder / "run"),
        "model": str(model),
        "rounds": 3,
        "questions": {"path": str(folder / "questions.jsonl")},
        "sampling": {
            "backend": "planted:Planted",
            "backend_args": {"right": right, "others": others},
            "responses_per_question": 8,
            "max_tokens": 16,
        },
        "engines": {"num_cpus_per_engine": 0.5},
        "labels": {"source": "majority", "min_share": 0.4},
        "weighting": {"signal": "uniform"},
        "training": {"epochs": 1, "examples_per_step": 20, "precision": "float32", "num_cpus_per_worker": 0.5,
                     "deepspeed": {"zero_stage": 0}, "max_length": 128},
        "evaluation": {"questions": {"path": str(folder / "held_out.jsonl")}, "max_tokens": 16},
        "cluster": {"num_cpus": 2},
    } | changes  # fmt: skip


def run(folder: Path, values: dict[str, Any], *overrides: str) -> tuple[RunDirectory, list[str]]:
    """The run's directory, and the lines that it has said. Raises InputError where the run stops."""
    (folder / "run.yaml").write_text(json.dumps(values))
    config = load(folder / "run.yaml", overrides)
    console = Console(quiet=True, record=True, width=2000)
    said: list[str] = []
    progress = Progress(console)
    progress.say = said.append  # type: ignore[method-assign]
    (compare.compare if config.compare else pipeline.run)(config, progress)
    return RunDirectory(config, only_read=True), said


@pytest.fixture(autouse=True)
def _no_folders_of_others() -> None:
    MODULE_FOLDERS.clear()


def test_a_healthy_run_loses_entropy_and_goes_on(tmp_path: Path, quickstart: Path, local_ray: None) -> None:
    directory, said = run(tmp_path, configuration(tmp_path, quickstart / "model", [4, 6, 8, 9], [4, 1, 0, 0]))
    found = [checked(Diversity, directory.round(number).folder.read_text("diversity.json")) for number in range(3)]
    # Of eight responses five are alike and three differ, from each other or not; then all are alike.
    assert [round(one["entropy"]["now"], 4) for one in found] == [1.0735, 0.6616, 0]
    assert [one["num_answers"]["now"] for one in found] == [4, 2, 1]
    assert all(one["num_questions"] == 20 and one["entropy"]["before"] == found[0]["entropy"]["now"] for one in found)
    assert not any(directory.round(number).folder.has("collapse.json") for number in range(3))
    assert not [line for line in said if "collapsing" in line]
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Answers to a question in each round" in report and "collapsing" not in report


def test_a_run_whose_answers_become_wrong_stops_and_goes_on_if_it_is_told_to(
    tmp_path: Path, quickstart: Path, local_ray: None
) -> None:
    values = configuration(tmp_path, quickstart / "model", [5, 6, 0, 0], [4, 1, 0, 0])
    with pytest.raises(InputError) as error:
        run(tmp_path, values)
    sentence = str(error.value)
    assert sentence == (
        "labels.collapse: the run is collapsing: accuracy on 50 held-out questions fell from 60.0 % (the model of "
        "round 0) to 0.0 % (the model of round 1), p = 2e-09; the best model is the model of round 0, in "
        f"{tmp_path}/run/round_0/model; raise labels.min_share (0.4 now), run fewer rounds (rounds: 1), or give "
        "references (labels.source: reference), in another run_dir; labels.collapse: warn goes on in this one"
    )
    report = tmp_path / "run" / "report.html"
    assert "The run is collapsing: accuracy on 50 held-out questions fell" in report.read_text()
    stages = RunDirectory(load(tmp_path / "run.yaml"), only_read=True).round(1)
    assert checked(Collapse, stages.folder.read_text("collapse.json"))["best"] == 0
    assert (stages / "model").has("config.json") and (stages / "evaluation").has("metrics.json")

    with pytest.raises(InputError) as again:
        run(tmp_path, values)
    assert str(again.value) == sentence
    assert not (tmp_path / "run" / "round_2").exists()

    directory, said = run(tmp_path, values, "labels.collapse=warn")
    assert directory.round(2).record("evaluation") is not None
    assert [line for line in said if line.startswith("warning: the run is collapsing: accuracy")]


def test_a_run_with_nothing_left_to_learn_from_stops_before_it_trains(
    tmp_path: Path, quickstart: Path, local_ray: None
) -> None:
    values = configuration(tmp_path, quickstart / "model", [6, 6, 6, 6], [4, 0, 0, 0])
    with pytest.raises(InputError, match=r"from round 0 to round 1 the entropy .* fell from 1\.07 to 0\.00 nats"):
        run(tmp_path, values | {"weighting": {"signal": "entropy"}})
    round_ = RunDirectory(load(tmp_path / "run.yaml"), only_read=True).round(1)
    assert round_.record("answers") is not None and round_.record("examples") is None
    assert "has not risen: 60.0 % (the model before training), 60.0 %" in (tmp_path / "run/report.html").read_text()


def test_without_held_out_questions_a_run_can_only_warn(tmp_path: Path, quickstart: Path, local_ray: None) -> None:
    values = configuration(tmp_path, quickstart / "model", [6, 6, 0], [4, 0, 0], rounds=2, evaluation={})
    directory, said = run(tmp_path, values)
    (warning,) = [line for line in said if line.startswith("warning: from round 0 to round 1 the entropy")]
    assert warning.endswith("give questions with references in evaluation.questions")
    assert directory.round(1).record("training") is not None
    assert "Is this run collapsing?" in (tmp_path / "run" / "report.html").read_text()


def test_an_arm_that_collapses_is_marked_and_stops_no_other(tmp_path: Path, quickstart: Path, local_ray: None) -> None:
    grids = [
        {"signals": ["uniform"], "overrides": {"labels.source": source}, "suffix": f"-{source}"}
        for source in ("reference", "majority")
    ]
    values = configuration(tmp_path, quickstart / "model", [5, 6, 0], [4, 1, 0], rounds=2, labels={"min_share": 0.4})
    directory, _ = run(
        tmp_path, values | {"compare": {"seeds": [0], "grids": grids, "baseline": "sft-uniform-reference"}}
    )
    written = checked(ArmComparison, directory.round(1).folder.read_text("comparison.json"))
    found = {arm["name"]: arm.get("collapse") for arm in written["arms"]}
    assert found["sft-uniform-reference"] is None
    assert found["sft-uniform-majority"].startswith(
        "1 of 1 trainings collapsing; sft-uniform-majority-seed-0: accuracy on 50 held-out questions fell from 60.0 %"
    )
    report = (tmp_path / "run" / "report.html").read_text()
    assert "1 of 1 trainings collapsing" in report and "Answers to a question in each round" in report

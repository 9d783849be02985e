"""The whole loop with a scripted backend, and with parts of a user's own at all the doors.

Training is real and small; nothing is sampled by a model, so a run takes seconds where the quick start takes minutes.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from json_records import checked
from rich.console import Console

from east_ray import compare, pipeline
from east_ray.config import InputError
from east_ray.config.files import MODULE_FOLDERS, load
from east_ray.console import Progress
from east_ray.records import (
    ANSWERS,
    DISCARDED,
    EXAMPLES,
    GREEDY_ANSWERS,
    QUESTIONS,
    SAMPLED_ANSWERS,
    SAMPLES,
    ArmComparison,
    EvaluationMetrics,
)
from east_ray.storage import RunDirectory

#: Six questions; responses are the reference answer and others, in given numbers.
QUESTIONS_ASKED = {f"How much is {number} + {number}?": str(2 * number) for number in range(6)}
NUM_RESPONSES = 8
KEPT_AND_DROPPED = (("examples", EXAMPLES), ("discarded", DISCARDED))

PARTS = '''
"""A user's own parts."""
from concurrent.futures import Future

from east_ray.sampling.backends import Backend, Response
from east_ray.training.objectives import Objective


class LastWord:
    """Reads the last word; words are equal whatever their case."""

    def __init__(self, strip):
        self.strip = strip

    def read(self, response, question):
        assert question.extra == {"teacher": "Ada"}
        return response.split()[-1].strip(self.strip) if response else None

    def keys(self, answers, question):
        return [answer.casefold() for answer in answers]


def doubt(question):
    """Half a point for every cluster beside the largest."""
    return (len(question.clusters) - 1) / 2


def plus_one(signals, settings):
    return (signals + 1) ** settings.exponent


def quiz(row, settings):
    return {"question": row["ask"], "reference_answer": row["solution"], "level": row["difficulty"]}


class Echo(Backend):
    """Says the number after "+" twice, at a temperature also one more, for every other response."""

    prompt_form = "messages"

    def ask(self, model, prompt, decoding, first=0, alone=None):
        number = int(prompt[-1]["content"].split("+ ")[1].rstrip("?"))
        wrong = number % 3 if decoding.temperature else 0
        future = Future()
        future.set_result([
            Response(f"That makes {2 * number + (index if index <= wrong else 0)}.", "stop", 4)
            for index in range(first, first + decoding.responses_per_question)
        ])
        return future


class HalfLikelihood(Objective):
    """Half of supervised fine-tuning."""

    def loss(self, batch):
        total = (batch.weights * batch.logprobs["chosen"]).sum()
        return -total / batch.num_step_tokens["chosen"] / 2
'''


def configuration(folder: Path, model: Path, **changes: Any) -> dict[str, Any]:
    """A run of one round, one small training and an evaluation, all of it answered by a table."""
    rows = [{"question": text, "reference_answer": answer} for text, answer in QUESTIONS_ASKED.items()]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = [
        {"question": text, "responses": [f"\\boxed{{{answer}}}"] + [f"\\boxed{{{place}}}" for place in range(number)]}
        for number, (text, answer) in enumerate(QUESTIONS_ASKED.items())
    ]
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    return {
        "run_dir": str(folder / "run"),
        "model": str(model),
        "questions": {"path": str(folder / "questions.jsonl")},
        "sampling": {
            "backend": "scripted",
            "backend_args": {"table": str(folder / "table.jsonl")},
            "responses_per_question": NUM_RESPONSES,
            "max_tokens": 16,
        },
        "engines": {"num_cpus_per_engine": 0.5},
        "training": {"epochs": 1, "examples_per_step": 3, "precision": "float32", "num_cpus_per_worker": 0.5,
                     "deepspeed": {"zero_stage": 0}, "max_length": 128},
        "evaluation": {"questions": {"path": str(folder / "questions.jsonl")}, "max_tokens": 16},
    } | changes  # fmt: skip


def run(folder: Path, values: dict[str, Any], *overrides: str) -> RunDirectory:
    (folder / "run.yaml").write_text(json.dumps(values))
    config = load(folder / "run.yaml", overrides)
    console = Console(quiet=True)
    (compare.compare if config.compare else pipeline.run)(config, Progress(console))
    return RunDirectory(config, only_read=True)


def rows(directory: RunDirectory, folder: str, schema: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (directory.round(0) / folder).read(schema).sort_by("question_id").to_pylist()
    return found


@pytest.fixture(autouse=True)
def _no_folders_of_others() -> None:
    MODULE_FOLDERS.clear()


def test_the_loop_runs_on_a_table_and_a_second_round_asks_fresh_questions_of_the_first_rounds_model(
    tmp_path: Path, quickstart: Path, local_ray: None
) -> None:
    """The run directory is given as an address, so the second round's model is fetched as from remote storage.

    The model has no chat template: it is trained on a text without the worked question that the table was asked with.
    """
    model = tmp_path / "base"
    shutil.copytree(quickstart / "model", model, ignore=shutil.ignore_patterns("chat_template*"))
    prompt = {"template": "Q: {question}", "examples": {"questions": [{"question": "1?", "solution": "\\boxed{1}"}]}}
    source = {"path": str(tmp_path / "questions.jsonl"), "max_questions": 3}
    values = configuration(tmp_path, model, questions=source, rounds=2, questions_per_round="fresh", prompt=prompt)
    values["evaluation"] |= {"responses_per_question": 4, "prompt": {"examples": None}, "stop": ["Q: "]}
    values["training"] |= {"prompt": "plain"}
    values |= {"run_dir": f"file://{tmp_path / 'run'}"}
    directory = run(tmp_path, values)
    samples, asked, models = [], [], []
    for round_ in (directory.round(0), directory.round(1)):
        found, answers = (
            (round_ / name).read(schema).sort_by("question_id").to_pylist()
            for name, schema in (("samples", SAMPLES), ("answers", ANSWERS))
        )
        assert [len(row["responses"]) for row in found] == [NUM_RESPONSES] * 3
        for sample, answer in zip(found, answers, strict=True):
            assert [f"\\boxed{{{one['answer']}}}" for one in answer["responses"]] == [
                response["text"] for response in sample["responses"]
            ]
            assert sum(one["num_responses"] for one in answer["clusters"]) == NUM_RESPONSES
        kept, dropped = ((round_ / name).read(schema).to_pylist() for name, schema in KEPT_AND_DROPPED)
        assert len(kept) + len(dropped) == 3 and np.mean([row["weight"] for row in kept]) == pytest.approx(1)
        assert all(row["chosen"] == f"\\boxed{{{row['reference_answer']}}}" for row in kept)
        metrics = checked(EvaluationMetrics, (round_ / "evaluation").read_text("metrics.json"))
        assert metrics["accuracy"]["trained"]["accuracy"] == 1.0  # the first response of the table
        assert [row["k"] for row in metrics["sampled"]["trained"]["pass_at"]] == [1, 2, 4]
        for row in (round_ / "evaluation" / "sampled_answers").read(SAMPLED_ANSWERS).to_pylist():
            assert row["num_responses"] == 4 == sum(cluster["num_responses"] for cluster in row["clusters"])
        assert (round_ / "model").has("README.md") and not (round_ / "model").has("chat_template.jinja")
        record = round_.record("training")
        assert record is not None and record.counts["prompt"] == "plain"
        samples.append({row["model"] for row in found})
        asked.append({row["question_id"] for row in found})
        models.append(Path(f"{round_ / 'model'}/model.safetensors").read_bytes())
    assert samples == [{"base"}, {"trained"}] and not asked[0] & asked[1] and models[0] != models[1]
    assert directory.folder.has("report.html")
    before = rows(directory, "examples", EXAMPLES)
    again = run(tmp_path, values)  # everything is there already
    assert rows(again, "examples", EXAMPLES) == before


def test_rounds_end_when_nothing_is_gained(
    tmp_path: Path, quickstart: Path, local_ray: None, untrained: list[int]
) -> None:
    validation = {"questions": {"path": str(tmp_path / "questions.jsonl")}}
    directory = run(tmp_path, configuration(tmp_path, quickstart / "model", rounds=2, early_stopping=validation))
    assert untrained == [1]
    assert not directory.round(1).folder.exists  # the table answers alike for both models


def test_a_user_s_own_part_at_every_door(tmp_path: Path, quickstart: Path, local_ray: None) -> None:
    (tmp_path / "my_parts.py").write_text(PARTS)
    quiz = [
        {"ask": text, "solution": answer, "difficulty": "easy", "teacher": "Ada"}
        for text, answer in QUESTIONS_ASKED.items()
    ]
    (tmp_path / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in quiz))
    source = {"path": str(tmp_path / "quiz.jsonl"), "format": "my_parts:quiz", "extra_columns": ["teacher"]}
    values = configuration(tmp_path, quickstart / "model", questions=source)
    values |= {
        "answers": {"grader": "my_parts:LastWord", "grader_args": {"strip": "."}},
        "weighting": {"signal": "my_parts:doubt", "mapping": "my_parts:plus_one", "exponent": 2},
        "evaluation": {"questions": source, "max_tokens": 16},
    }
    values["sampling"] |= {"backend": "my_parts:Echo", "backend_args": {}}
    values["training"] |= {"objective": "my_parts:HalfLikelihood"}
    directory = run(tmp_path, values)
    questions, kept = rows(directory, "questions", QUESTIONS), rows(directory, "examples", EXAMPLES)
    assert [(row["level"], json.loads(row["extra"])) for row in questions] == [("easy", {"teacher": "Ada"})] * 6
    # number % 3 of the responses are wrong, each in its own way
    assert [len(row["clusters"]) for row in kept] == [1, 2, 3, 1, 2, 3]
    assert [row["signal"] for row in kept] == [0, 0.5, 1, 0, 0.5, 1]
    mapped = np.array([1, 1.5, 2, 1, 1.5, 2]) ** 2
    np.testing.assert_allclose([row["weight"] for row in kept], mapped / mapped.mean())
    assert [row["chosen"] for row in kept] == [f"That makes {answer}." for answer in QUESTIONS_ASKED.values()]
    steps = [json.loads(line) for line in (directory.round(0).folder.read_text("training.jsonl") or "").splitlines()]
    assert len(steps) == 2 and all(step["loss"] > 0 for step in steps)
    metrics = checked(EvaluationMetrics, (directory.round(0) / "evaluation").read_text("metrics.json"))
    effective = metrics["weights"]["trained"]["effective_examples"]
    assert effective == pytest.approx(mapped.sum() ** 2 / (mapped**2).sum())
    answers = rows(directory, "evaluation/answers", GREEDY_ANSWERS)
    assert len(answers) == 12 and all(row["is_correct"] for row in answers)

    (tmp_path / "my_parts.py").write_text(PARTS.replace("/ 2\n\n\ndef plus", "/ 4\n\n\ndef plus"))
    with pytest.raises(InputError, match="another source of the module") as error:
        run(tmp_path, values)
    assert "\n" not in str(error.value)


def test_arms_may_use_fewer_responses_and_any_arm_may_be_the_baseline(
    tmp_path: Path, quickstart: Path, local_ray: None, untrained: list[int]
) -> None:
    grids = [
        {"signals": ["entropy"], "suffix": "-all"},
        {"signals": ["entropy"], "suffix": "-4", "overrides": {"answers.responses": 4}},
    ]
    comparison = {"seeds": [0], "grids": grids, "baseline": "sft-entropy-a1-all", "max_concurrent": 1}
    values = configuration(tmp_path, quickstart / "model", compare=comparison)
    directory = run(tmp_path, values)
    found = {}
    for name in ("sft-entropy-a1-all", "sft-entropy-a1-4"):
        examples = directory.round(0).learner(f"{name}-seed-0") / "examples"
        found[name] = examples.read(EXAMPLES).sort_by("question_id").to_pylist()
    sizes: dict[str, Sequence[int]] = {name: [row["num_responses"] for row in kept] for name, kept in found.items()}
    assert set(sizes["sft-entropy-a1-all"]) == {8} and set(sizes["sft-entropy-a1-4"]) == {4}
    record = directory.round(0).record("answers")
    assert record is not None and record.counts["num_questions"] == 6  # graded once for both
    written = checked(ArmComparison, directory.round(0).folder.read_text("comparison.json"))
    for arm in written["arms"]:
        weights = np.array([row["weight"] for row in found[arm["name"]]])
        assert arm["num_examples"] == len(weights) > arm["effective_examples"]
        assert 0.01 <= arm["top_share"] <= 1
        assert (arm["disagreement"] is None) == (arm["baseline"] is None)
        assert arm["seed_spread"] is None, "one seed does not tell it"
        assert arm["effective_examples"] == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    baselines = {arm["name"]: arm["baseline"] for arm in written["arms"]}
    assert baselines == {"sft-entropy-a1-all": None, "sft-entropy-a1-4": "sft-entropy-a1-all"}


def test_arms_may_treat_references_that_are_contradicted_in_their_own_ways(
    tmp_path: Path, quickstart: Path, local_ray: None, untrained: list[int]
) -> None:
    grids = [
        {"signals": ["uniform"], "overrides": {"labels.policy": policy}, "suffix": f"-{policy}"}
        for policy in ("keep", "drop", "relabel", "downweight")
    ]
    grids.append({"signals": ["uniform"], "overrides": {"labels.source": "majority"}, "suffix": "-majority"})
    pairs = [["sft-uniform-drop", "sft-uniform-keep"], ["sft-uniform-majority", "sft-uniform-keep"]]
    comparison = {"seeds": [0, 1], "grids": grids, "pairs": pairs, "max_concurrent": 1}
    values = configuration(tmp_path, quickstart / "model", compare=comparison)
    table = [json.loads(line) for line in (tmp_path / "table.jsonl").read_text().splitlines()]
    table[3]["responses"] = [r"\boxed{7}"] * 3 + [r"\boxed{6}"]  # 6 is the reference
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    round_ = run(tmp_path, values).round(0)
    found = {}
    for name in ("keep", "drop", "relabel", "downweight", "majority"):
        stages = round_.learner(f"sft-uniform-{name}-seed-1")
        examples, discarded = ((stages / kind).read(schema).to_pylist() for kind, schema in KEPT_AND_DROPPED)
        (row,) = (one for one in examples + discarded if one["question"] == "How much is 3 + 3?")
        found[name] = (row["reference_answer"], row["pass_rate"], row.get("weight"), row.get("reason"))
        assert (stages / "labels").exists == (name != "keep")
    assert found == {
        "keep": ("6", 0.25, 1.0, None),
        "drop": ("6", 0.25, None, "contradicted_reference"),
        "relabel": ("7", 0.75, 1.0, None),
        "downweight": ("6", 0.25, pytest.approx(0.5 / (5.5 / 6)), None),
        "majority": ("7", 0.75, pytest.approx(1), None),
    }
    written = checked(ArmComparison, round_.folder.read_text("comparison.json"))
    assert [(pair["name"], pair["baseline"]) for pair in written["pairs"]] == [tuple(pair) for pair in pairs]
    assert {pair["difference"] for pair in written["pairs"]} == {0.0} and written["num_comparisons"] == 2
    assert "Further differences in points" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_without_any_reference_but_the_held_out_ones(
    tmp_path: Path, quickstart: Path, local_ray: None, untrained: list[int]
) -> None:
    values = configuration(tmp_path, quickstart / "model", labels={"source": "majority", "min_share": 0.3})
    values["sampling"]["responses_per_question"] = 7
    (tmp_path / "bare.jsonl").write_text("".join(json.dumps({"question": one}) + "\n" for one in QUESTIONS_ASKED))
    bare = {"path": str(tmp_path / "bare.jsonl")}
    with pytest.raises(InputError, match=r"questions\.reference_answer_column: null"):
        run(tmp_path, values | {"questions": bare})
    directory = run(tmp_path, values | {"questions": bare | {"reference_answer_column": None}})
    kept, dropped = (rows(directory, name, schema) for name, schema in KEPT_AND_DROPPED)
    # Seven responses to question n are its answer and 0 to n - 1, in turn: 7 of 7, 4 of 7, 3 of 7, ties, 2 of 7.
    assert [(row["question"], row["reference_answer"]) for row in kept] == list(QUESTIONS_ASKED.items())[:3]
    assert {row["reason"] for row in dropped} == {"no_majority"} and len(dropped) == 3
    assert all(row["label"]["action"] == "majority" and row["label"]["agrees"] is None for row in kept)
    assert all(row["chosen"] == f"\\boxed{{{row['reference_answer']}}}" for row in kept)
    metrics = checked(EvaluationMetrics, (directory.round(0) / "evaluation").read_text("metrics.json"))
    assert metrics["accuracy"]["trained"]["accuracy"] == 1.0


@pytest.mark.parametrize(("max_concurrent", "groups"), [(1, [3]), (2, [1, 2])])
def test_a_comparison_trains_as_many_at_once_as_it_may_and_keeps_models_if_it_is_told_to(
    tmp_path: Path, quickstart: Path, local_ray: None, untrained: list[int], max_concurrent: int, groups: list[int]
) -> None:
    keep_models = max_concurrent == 2
    comparison = {"seeds": [0, 1, 2], "grids": [{"signals": ["entropy"]}], "max_concurrent": max_concurrent,
                  "keep_models": keep_models}  # fmt: skip
    round_ = run(tmp_path, configuration(tmp_path, quickstart / "model", compare=comparison)).round(0)
    assert sorted(untrained) == groups
    trainings = [round_.learner(f"sft-entropy-a1-seed-{seed}") for seed in range(3)]
    assert [(one / "model").exists for one in trainings] == [keep_models] * 3
    (arm,) = json.loads(round_.folder.read_text("comparison.json") or "")["arms"]
    weights = (trainings[0] / "examples").read(EXAMPLES, ["weight"])["weight"].to_numpy()
    assert arm["num_examples"] == len(weights)
    assert arm["effective_examples"] == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert arm["effective_examples"] < len(weights) - 1

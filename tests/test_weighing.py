"""Weighing as a stage on Ray: the same examples from any split of the samples into parts, each question once."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from east_ray import weighting
from east_ray.answers.graders import MathGrader
from east_ray.answers.stage import write_answers
from east_ray.config import WeightingConfig
from east_ray.records import DISCARDED, EXAMPLES, SAMPLES
from east_ray.selection import SelectionRules, judge_samples, read_judged
from east_ray.storage import Folder, Stages, locate, tasks
from east_ray.weighting import entropy_signal, uniform_signal, write_examples

RULES = SelectionRules()
NUM_QUESTIONS = 90


def sampled_rows() -> list[dict[str, Any]]:
    rng = random.Random(0)
    rows = []
    for number in range(NUM_QUESTIONS):
        spread = rng.choice([[4], [4, 5], [4, "8/2", 5, 6], ["4.0", 1, 2, 3, "\\frac{1}{2}", "0.5"], [7, 8]])
        found = [rng.choice(spread) for _ in range(16)]
        rows.append(
            {
                **dict.fromkeys(SAMPLES.names),
                "question_id": f"q{number:03}",
                "question": f"{number}?",
                "reference_answer": "4",
                "model": "base",
                "responses": [
                    {"text": f"\\boxed{{{a}}}", "num_tokens": 3, "finish_reason": "stop", "logprob": None}
                    for a in found
                ],
            }
        )
    return rows


def weighed(folder: Folder, parts: list[list[dict[str, Any]]]) -> tuple[pa.Table, pa.Table]:
    """examples/ and discarded/ of samples that lie in these parts."""
    for number, part in enumerate(parts):
        (folder / "samples").write_part(pa.Table.from_pylist(part, SAMPLES), f"part-{number:03}.parquet")
    judged = judged_by(folder, [(RULES, entropy_signal, folder / "judged")])
    mapped = weighting.mapped(judged.signals, WeightingConfig(exponent=1.5))
    write_examples(Stages(folder), judged.split(mapped / weighting.normalizer(mapped)))
    assert not (folder / "judged").exists
    kept, discarded = (folder / "examples").read(EXAMPLES), (folder / "discarded").read(DISCARDED)
    assert kept.schema.equals(EXAMPLES) and discarded.schema.equals(DISCARDED)
    assert Counter(discarded["reason"].to_pylist()) == judged.reasons
    return kept.sort_by("question_id"), discarded.sort_by("question_id")


def judged_by(folder: Folder, trainings: list[Any]) -> Any:
    """Grade the samples and judge them for some trainings; what became of the first one's questions."""
    list(write_answers(folder / "samples", folder / "answers", MathGrader()))
    counts = list(judge_samples(folder / "samples", folder / "answers", trainings))
    assert sum(one["num_questions"] for one in counts) == NUM_QUESTIONS
    judged = read_judged(Stages(folder))
    assert len(judged.signals) + sum(judged.reasons.values()) == NUM_QUESTIONS
    return judged


def test_splits_and_shuffles_of_the_questions_change_nothing(
    tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = sampled_rows()
    whole = weighed(Folder(*locate(str(tmp_path / "whole"))), [rows])
    shuffled = random.Random(1).sample(rows, len(rows))
    split = weighed(Folder(*locate(str(tmp_path / "split"))), [shuffled[i::7] for i in range(7)])  # one task
    monkeypatch.setattr(tasks, "_MIN_TASK_BYTES", 1)
    folder = Folder(*locate(str(tmp_path / "tasks")))
    on_cluster = weighed(folder, [shuffled[i::7] for i in range(7)])
    assert len(tasks.part_groups(folder / "samples")) == 7
    assert len((folder / "examples").parts()) > 1
    for other in (split, on_cluster):
        assert [table.equals(first) for table, first in zip(other, whole, strict=True)] == [True, True]
    kept = whole[0].to_pylist()
    assert sum(row["weight"] for row in kept) == pytest.approx(len(kept))


def test_one_pass_judges_for_several_trainings(tmp_path: Path, local_ray: None) -> None:
    folder = Folder(*locate(str(tmp_path)))
    (folder / "samples").write_part(pa.Table.from_pylist(sampled_rows(), SAMPLES))
    strict = SelectionRules(needs_rejected=True, num_responses=4, seed=3)
    others = [
        (RULES, uniform_signal, folder / "uniform" / "judged"),
        (strict, entropy_signal, folder / "dpo" / "judged"),
    ]
    entropy = judged_by(folder, [(RULES, entropy_signal, folder / "judged"), *others])
    uniform, dpo = (read_judged(Stages(folder / name)) for name in ("uniform", "dpo"))
    assert set(uniform.signals) == {1.0} and uniform.reasons == entropy.reasons
    assert dpo.reasons["no_wrong_answer"] > 0 and len(dpo.signals) < len(entropy.signals)
    assert len(set(entropy.signals)) > 3


def test_a_task_that_runs_again_replaces_its_part(tmp_path: Path, local_ray: None) -> None:
    folder = Folder(*locate(str(tmp_path)))
    first = weighed(folder, [sampled_rows()])
    again = weighed(folder, [sampled_rows()])
    assert [table.equals(one) for table, one in zip(again, first, strict=True)] == [True, True]


def test_without_a_kept_question_all_are_discarded(tmp_path: Path, local_ray: None) -> None:
    folder = Folder(*locate(str(tmp_path)))
    rows = [row | {"reference_answer": "99"} for row in sampled_rows()]
    (folder / "samples").write_part(pa.Table.from_pylist(rows, SAMPLES))
    judged = judged_by(folder, [(RULES, entropy_signal, folder / "judged")])
    assert judged.signals.size == 0 and judged.reasons == {"all_wrong": NUM_QUESTIONS}
    write_examples(Stages(folder), judged.split(judged.signals))
    assert (folder / "examples").parts() == []
    assert (folder / "discarded").read(DISCARDED).num_rows == NUM_QUESTIONS

"""Weighing as a stage on Ray: the same examples from any split of the samples into parts, each question once."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from east_ray import examples, weighting
from east_ray.examples import judge_samples, weigh_judged
from east_ray.records import DISCARDED, EXAMPLES, SAMPLES
from east_ray.selection import SelectionRules, judge
from east_ray.storage import Folder, locate

RULES = SelectionRules("sft", "entropy", "keep", True, 1, "math", "cluster", False, 0)
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
    signals, reasons, num_questions = [], Counter[str](), 0
    for counts in judge_samples(folder / "samples", folder / "judged", RULES):
        signals += list(counts["signals"])
        reasons.update(counts["reasons"])
        num_questions += counts["num_questions"]
    assert num_questions == NUM_QUESTIONS == len(signals) + reasons.total()
    normalizer = weighting.normalizer(signals, 1.5)
    assert sum(weigh_judged(folder / "judged", folder / "examples", folder / "discarded", normalizer)) == NUM_QUESTIONS
    kept, discarded = (folder / "examples").read(EXAMPLES), (folder / "discarded").read(DISCARDED)
    assert kept.schema.equals(EXAMPLES) and discarded.schema.equals(DISCARDED)
    assert Counter(discarded["reason"].to_pylist()) == reasons
    return kept.sort_by("question_id"), discarded.sort_by("question_id")


def test_splits_and_shuffles_of_the_questions_change_nothing(
    tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = sampled_rows()
    whole = weighed(Folder(*locate(str(tmp_path / "whole"))), [rows])
    shuffled = random.Random(1).sample(rows, len(rows))
    split = weighed(Folder(*locate(str(tmp_path / "split"))), [shuffled[i::7] for i in range(7)])  # one task
    monkeypatch.setattr(examples, "_MIN_TASK_BYTES", 1)
    folder = Folder(*locate(str(tmp_path / "tasks")))
    tasks = weighed(folder, [shuffled[i::7] for i in range(7)])
    assert len(examples.part_groups(folder / "samples")) == len((folder / "judged").parts()) == 7
    for other in (split, tasks):
        assert [table.equals(first) for table, first in zip(other, whole, strict=True)] == [True, True]
    kept = whole[0].to_pylist()
    assert sum(row["weight"] for row in kept) == pytest.approx(len(kept))
    alone = {row["question_id"]: judge(row, RULES) for row in rows}
    assert all(row["entropy"] == alone[row["question_id"]]["entropy"] for row in kept)


def test_a_task_that_runs_again_replaces_its_part(tmp_path: Path, local_ray: None) -> None:
    folder = Folder(*locate(str(tmp_path)))
    first = weighed(folder, [sampled_rows()])
    again = weighed(folder, [sampled_rows()])
    assert [table.equals(one) for table, one in zip(again, first, strict=True)] == [True, True]


def test_without_a_kept_question_all_are_discarded(tmp_path: Path, local_ray: None) -> None:
    folder = Folder(*locate(str(tmp_path)))
    rows = [row | {"reference_answer": "99"} for row in sampled_rows()]
    (folder / "samples").write_part(pa.Table.from_pylist(rows, SAMPLES))
    (counts,) = judge_samples(folder / "samples", folder / "judged", RULES)
    assert list(counts["signals"]) == []
    assert sum(weigh_judged(folder / "judged", folder / "examples", folder / "discarded", None)) == NUM_QUESTIONS
    assert (folder / "examples").parts() == []
    assert (folder / "discarded").read(DISCARDED).num_rows == NUM_QUESTIONS

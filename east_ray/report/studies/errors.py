"""Stubborn and diverse errors: are the wrong answers to a question one and the same?"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from east_ray.records import Reason, StudyPage
from east_ray.report.studies.shares import ByEntropy, by_entropy, quartile_table
from east_ray.storage import Folder, Stages

ErrorKind = Literal["none", "few", "stubborn", "diverse"]

_QUESTIONS_AT_ONCE = 1024


def kind_of_errors(clusters: Iterable[Mapping[str, Any]], min_wrong: int = 5) -> ErrorKind:
    """What the wrong answers to a question (records.CLUSTER) are like.

    none: no answer is wrong. few: fewer than `min_wrong` are, too few to tell. stubborn: at least half of the wrong
    answers are one and the same. diverse: no wrong answer is that common. No answer at all is not a wrong answer.
    """
    wrong = [c["num_responses"] for c in clusters if not c["is_correct"] and c["answer"] is not None]
    if not wrong:
        return "none"
    if sum(wrong) < min_wrong:
        return "few"
    return "stubborn" if 2 * max(wrong) >= sum(wrong) else "diverse"


@dataclass(frozen=True)
class ErrorStudy:
    """Kinds of errors of all sampled questions, kept or discarded, and the stubborn among stubborn and diverse."""

    num_questions: dict[ErrorKind, int]
    stubborn: ByEntropy


def errors_by_entropy(examples: Folder, discarded: Folder, min_wrong: int = 5) -> ErrorStudy:
    """Stubborn against diverse errors: at equal pass rates, entropy is what tells them apart.

    Questions without a usable reference answer, or without samples, are left out.
    """
    kinds: dict[ErrorKind, int] = {"none": 0, "few": 0, "stubborn": 0, "diverse": 0}
    entropies: list[float] = []
    is_stubborn: list[bool] = []
    for folder in (examples, discarded):
        # examples/ has no column `reason`; a column that is not there is not read
        for batch in folder.batches(["entropy", "clusters", "reason"], max_rows=_QUESTIONS_AT_ONCE):
            for row in batch.to_pylist():
                if row["clusters"] is None or row.get("reason") == Reason.UNPARSABLE_REFERENCE:
                    continue
                kind = kind_of_errors(row["clusters"], min_wrong)
                kinds[kind] += 1
                if kind in ("stubborn", "diverse"):
                    entropies.append(row["entropy"])
                    is_stubborn.append(kind == "stubborn")
    return ErrorStudy(kinds, by_entropy(np.array(entropies, np.float64), np.array(is_stubborn, np.bool_)))


def errors_page(weighed: Stages) -> StudyPage:
    """How many questions have which kind of errors, and at which entropies."""
    found = errors_by_entropy(weighed / "examples", weighed / "discarded")
    kinds = found.num_questions
    return {
        "title": "Stubborn and diverse errors",
        "text": "Stubborn: at least half of the wrong answers to a question are one and the same; diverse: they are "
        "not. At equal pass rates entropy tells the two apart.",
        "tables": [
            {
                "caption": "Questions by kind of error",
                "columns": ["no wrong answer", "too few to tell", "stubborn", "diverse"],
                "rows": [[f"{kinds[kind]:,}" for kind in ("none", "few", "stubborn", "diverse")]],
            },
            quartile_table("Stubborn questions among those with wrong answers, by entropy", found.stubborn),
        ],
        "curves": [],
        "texts": [],
    }

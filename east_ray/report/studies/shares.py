"""Shares of questions by their entropy, and what they tell of errors: stubborn ones, wrong steps, wrong majorities."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from east_ray.config import BASE, TRAINED
from east_ray.evaluation.estimators import Selective, majority_answers, selective_prediction, wilson_interval
from east_ray.records import Reason, StudyPage, StudyTable
from east_ray.storage import Folder, Stages

ErrorKind = Literal["none", "few", "stubborn", "diverse"]
Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)

_QUESTIONS_AT_ONCE = 1024
#: Percent of the questions, surest first, whose share of wrong answers is in the table.
_SUREST = (25, 50, 75)


@dataclass(frozen=True)
class Share:
    """The share of some questions that something is true of."""

    num_questions: int
    num_true: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Quartile:
    """The share among the questions whose entropy, in nats, lies between these two, both included."""

    min_entropy: float
    max_entropy: float
    share: Share


@dataclass(frozen=True)
class ByEntropy:
    """A share among all questions (None without questions) and by quartile of their entropies."""

    overall: Share | None
    quartiles: list[Quartile]


def by_entropy(questions: Sequence[tuple[float, bool]]) -> ByEntropy:
    """The entropy of each question in nats, and whether something is true of it -> shares.

    Equal entropies stay in one quartile, so quartiles differ in size where many are equal, and there may be fewer.
    """
    if not questions:
        return ByEntropy(None, [])
    entropies, is_true = (np.array(column) for column in zip(*questions, strict=True))
    quartile = np.searchsorted(np.quantile(entropies, [0.25, 0.5, 0.75]), entropies)
    groups = [quartile == number for number in np.unique(quartile)]
    parts = [Quartile(float(entropies[g].min()), float(entropies[g].max()), share_of(is_true[g])) for g in groups]
    return ByEntropy(share_of(is_true), parts)


def share_of(is_true: NDArray[np.bool_]) -> Share:
    """(Q,) of which questions something is true, at least one -> their share."""
    num_true = int(is_true.sum())
    low, high = wilson_interval(num_true, is_true.size)
    return Share(is_true.size, num_true, num_true / is_true.size, low, high)


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Spearman's; None if either is constant."""
    from scipy.stats import spearmanr

    if first.size < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first, second).statistic)


def only_sampled(batch: Rows) -> Rows:
    """The rows of ``examples/`` whose questions were sampled."""
    return batch.filter(pc.is_valid(batch["entropy"]))


def share_words(share: Share | None) -> str:
    """A share in percent with its interval, e.g. ``25.0 (8.9 to 53.2)``; empty for None."""
    if share is None:
        return ""
    return f"{100 * share.share:.1f} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def number_words(value: float | None, form: str) -> str:
    """A number in this format; empty for None."""
    return "" if value is None else format(value, form)


def quartile_table(caption: str, found: ByEntropy) -> StudyTable:
    """A share by quartile of entropy."""
    cells = [
        [f"{part.min_entropy:.2f} to {part.max_entropy:.2f}", f"{part.share.num_questions:,}", share_words(part.share)]
        for part in found.quartiles
    ]
    if found.overall is not None:
        cells.append(["all", f"{found.overall.num_questions:,}", share_words(found.overall)])
    columns = ["entropy (nats)", "questions", "share, % (95 % interval)"]
    return {"caption": caption, "columns": columns, "rows": cells}


# -------------------------------------------------------------------------------------------- stubborn and diverse


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


def errors_by_entropy(examples: Folder, discarded: Folder) -> ErrorStudy:
    """Stubborn against diverse errors: at equal pass rates, entropy is what tells them apart.

    Questions without a usable reference answer, or without samples, are left out.
    """
    kinds: dict[ErrorKind, int] = {"none": 0, "few": 0, "stubborn": 0, "diverse": 0}
    found: list[tuple[float, bool]] = []
    for folder in (examples, discarded):
        # examples/ has no column `reason`; a column that is not there is not read
        for batch in folder.batches(["entropy", "clusters", "reason"], max_rows=_QUESTIONS_AT_ONCE):
            for row in batch.to_pylist():
                if row["clusters"] is None or row.get("reason") == Reason.UNPARSABLE_REFERENCE:
                    continue
                kind = kind_of_errors(row["clusters"])
                kinds[kind] += 1
                if kind in ("stubborn", "diverse"):
                    found.append((row["entropy"], kind == "stubborn"))
    return ErrorStudy(kinds, by_entropy(found))


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
    }


# ------------------------------------------------------------------------------------------------------ wrong steps


def steps_by_entropy(examples: Folder, steps_are_right: Callable[[Mapping[str, Any]], bool | None]) -> ByEntropy:
    """Among the chosen responses, which have the right answer, the share of those that reach it by wrong steps.

    Rows of records.EXAMPLES without samples are left out. `steps_are_right` is given a row's question_id, question,
    reference_answer and chosen; rows for which it gives None, because it cannot be told, are not counted.
    """
    columns = ["question_id", "question", "reference_answer", "entropy", "chosen"]
    found = [
        (row["entropy"], not is_right)
        for batch in examples.batches(columns, max_rows=_QUESTIONS_AT_ONCE)
        for row in only_sampled(batch).to_pylist()
        if (is_right := steps_are_right(row)) is not None
    ]
    return by_entropy(found)


# -------------------------------------------------------------------------------------------- wrong majority answers


def selective_page(sampled: pa.Table, no_answer: Literal["cluster", "exclude"], seed: int) -> StudyPage:
    """records.SAMPLED_ANSWERS of several models -> whether entropy tells their wrong majority answers from right ones.

    It shows what a server gains that withholds answers (`abstain_above` of /v1/solve).
    """
    models = sorted(pc.unique(sampled["model"]).to_pylist(), key=lambda name: (name != BASE, name != TRAINED, name))
    found = {
        name: selective_prediction(
            *majority_answers(sampled.filter(pc.equal(sampled["model"], name)), no_answer=no_answer), seed=seed
        )
        for name in models
    }
    surest = [f"wrong of the surest {share} %, % (95 % interval)" for share in _SUREST]
    columns = ["model", "questions", "wrong, %", "AUROC (95 % interval)", *surest]
    rows = [_cells(name, one) for name, one in found.items()]
    return {
        "title": "Does entropy tell which answers are wrong",
        "text": "The answer of most responses, against the entropy of all their answers, on held-out questions. AUROC "
        "is the chance that a wrong answer has a higher entropy than a right one: 0.5 says nothing, 1 separates them "
        "completely. The curve shows the share of wrong answers among the surest questions, if only these are "
        "answered; no answer at all counts as wrong.",
        "tables": [{"caption": "Entropy as a predictor of wrong answers", "columns": columns, "rows": rows}],
        "curves": [
            {
                "title": "Risk and coverage",
                "x_label": "share of questions answered, surest first",
                "y_label": "share of these answered wrongly",
                "series": [
                    {"label": name, "x": one.coverages, "y": one.risks, "low": one.risks_low, "high": one.risks_high}
                    for name, one in found.items()
                ],
            }
        ],
    }


def _cells(name: str, one: Selective) -> list[str]:
    wrong = f"{100 * one.num_wrong / one.num_questions:.1f}"
    return [name, f"{one.num_questions:,}", wrong, _auroc(one), *(_risk(one, share / 100) for share in _SUREST)]


def _auroc(one: Selective) -> str:
    if one.auroc is None:
        return "none: all alike"
    return f"{one.auroc:.3f} ({one.auroc_low:.3f} to {one.auroc_high:.3f})"


def _risk(one: Selective, coverage: float) -> str:
    at = one.coverages.index(coverage)
    return f"{100 * one.risks[at]:.1f} ({100 * one.risks_low[at]:.1f} to {100 * one.risks_high[at]:.1f})"

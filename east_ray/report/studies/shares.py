"""Shares of questions: those with stubborn errors, wrong steps or wrong majorities, by entropy; those of weight 0."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from east_ray.config import BASE, TRAINED
from east_ray.evaluation.abstention import Selective, majority_answers, selective_prediction
from east_ray.evaluation.estimators import wilson_interval
from east_ray.records import EXAMPLES, Reason, StudyPage, StudyTable
from east_ray.report.summary import QUANTILES, quantiles
from east_ray.report.wording import number_words, percent, with_interval
from east_ray.storage import Folder, Stages
from east_ray.storage.rounds import Round

ErrorKind = Literal["none", "few", "stubborn", "diverse"]

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


def share_words(share: Share | None) -> str:
    """A share in percent with its interval, e.g. ``25.0 (8.9 to 53.2)``; empty for None."""
    return with_interval(None if share is None else vars(share), "share")


# ------------------------------------------------------------------------------------------------- stubborn and diverse


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


def errors_by_entropy(examples: Folder, discarded: Folder) -> tuple[dict[ErrorKind, int], ByEntropy]:
    """Numbers of questions by kind of error, and the share of stubborn ones among the stubborn and diverse.

    Counted are all sampled questions, kept or discarded, of which a right answer is known. At equal pass rates, entropy
    tells stubborn and diverse errors apart.
    """
    kinds: dict[ErrorKind, int] = {"none": 0, "few": 0, "stubborn": 0, "diverse": 0}
    found: list[tuple[float, bool]] = []
    for folder in (examples, discarded):
        # examples/ has no column `reason`; a column that is not there is not read
        for batch in folder.batches(["entropy", "clusters", "reason"], max_rows=_QUESTIONS_AT_ONCE):
            for row in batch.to_pylist():
                no_right = (Reason.UNPARSABLE_REFERENCE, Reason.NO_MAJORITY)
                if row["clusters"] is None or row.get("reason") in no_right:
                    continue
                kind = kind_of_errors(row["clusters"])
                kinds[kind] += 1
                if kind in ("stubborn", "diverse"):
                    found.append((row["entropy"], kind == "stubborn"))
    return kinds, by_entropy(found)


def errors_page(weighed: Stages) -> StudyPage:
    """How many questions have which kind of errors, and at which entropies."""
    kinds, stubborn = errors_by_entropy(weighed / "examples", weighed / "discarded")
    shares = [(f"{part.min_entropy:.2f} to {part.max_entropy:.2f}", part.share) for part in stubborn.quartiles]
    if stubborn.overall is not None:
        shares.append(("all", stubborn.overall))
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
            {
                "caption": "Stubborn questions among those with wrong answers, by entropy",
                "columns": ["entropy (nats)", "questions", "share, % (95 % interval)"],
                "rows": [[name, f"{share.num_questions:,}", share_words(share)] for name, share in shares],
            },
        ],
    }


# ---------------------------------------------------------------------------------------------------------- wrong steps


def steps_by_entropy(examples: Folder, steps_are_right: Callable[[Mapping[str, Any]], bool | None]) -> ByEntropy:
    """Among the chosen responses, which have the right answer, the share of those that reach it by wrong steps.

    Rows of records.EXAMPLES without samples are left out. `steps_are_right` is given a row's question_id, question,
    reference_answer and chosen; rows for which it gives None, because it cannot be told, are not counted.
    """
    columns = ["question_id", "question", "reference_answer", "entropy", "chosen"]
    found = [
        (row["entropy"], not is_right)
        for batch in examples.batches(columns, max_rows=_QUESTIONS_AT_ONCE)
        for row in batch.to_pylist()
        if row["entropy"] is not None and (is_right := steps_are_right(row)) is not None
    ]
    return by_entropy(found)


# ----------------------------------------------------------------------------------------------- wrong majority answers


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
    rows = [_selective_cells(name, one) for name, one in found.items()]
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


def _selective_cells(name: str, one: Selective) -> list[str]:
    auroc = "none: all alike"
    if one.auroc is not None:
        auroc = f"{one.auroc:.3f} ({one.auroc_low:.3f} to {one.auroc_high:.3f})"
    at = [one.coverages.index(share / 100) for share in _SUREST]
    risks = [{"risk": one.risks[i], "low": one.risks_low[i], "high": one.risks_high[i]} for i in at]
    wrong = percent(one.num_wrong / one.num_questions)
    return [name, f"{one.num_questions:,}", wrong, auroc, *(with_interval(risk, "risk") for risk in risks)]


# ------------------------------------------------------------------------------------------------------ over the rounds


@dataclass(frozen=True)
class RoundWeights:
    """The weights of one round's examples. What is said of the round before is None in the first round."""

    num_questions: int
    quantiles: list[float]  # minimum, quartiles and maximum; empty without questions
    is_zero: Share | None
    num_kept_in_both: int | None = None  # by the round before and by this one
    rank_correlation: float | None = None  # Spearman's, of the weights of the questions kept in both
    became_zero: Share | None = None  # the share with weight 0 now, of those kept in both whose weight was positive


def weights_over_rounds(rounds: Sequence[pa.Table]) -> list[RoundWeights]:
    """The columns question_id and weight of each round's ``examples/``, in order -> how the weights move."""
    studied = []
    for number, table in enumerate(rounds):
        weights = table["weight"].to_numpy()
        here = (weights.size, quantiles(weights) if weights.size else [], _zero_share(weights))
        if number == 0:
            studied.append(RoundWeights(*here))
            continue
        before = rounds[number - 1]
        position = pc.index_in(before["question_id"], value_set=table["question_id"].combine_chunks())
        old = before["weight"].filter(pc.is_valid(position)).to_numpy()
        new = table["weight"].take(position.drop_null()).to_numpy()
        since = (old.size, rank_correlation(old, new), _zero_share(new[old > 0]))
        studied.append(RoundWeights(*here, *since))
    return studied


def _zero_share(weights: NDArray[np.float64]) -> Share | None:
    return share_of(weights == 0) if weights.size else None


def rounds_page(round_: Round) -> StudyPage:
    """The weights of a run up to this round; of a comparison, those of the first training of each arm."""
    compare, learners = round_.config.compare, round_.config.learners()
    names = [next(iter(learners))]
    if compare is not None:  # the arms whose weights are not all 1
        of_arms = [f"{arm}-seed-{compare.seeds[0]}" for arm in compare.arms()]
        names = [name for name in of_arms if learners[name].weighting.signal != "uniform"]
    return {
        "title": "Weights over the rounds",
        "text": "How the weights move from round to round. Where a weight falls to 0, all responses to the question "
        "now give the same answer.",
        "tables": [_round_table(round_, name, "" if compare is None else f": {name}") for name in names],
    }


def _round_table(round_: Round, name: str, suffix: str) -> StudyTable:
    folders = [round_.directory.round(number).learner(name) / "examples" for number in range(round_.number + 1)]
    studied = weights_over_rounds([folder.read(EXAMPLES, ["question_id", "weight"]) for folder in folders])
    columns = ["round", "questions", *QUANTILES, "weight 0, %"]
    return {
        "caption": f"Weights of each round{suffix}",
        "columns": [*columns, "also in the round before", "rank correlation with it", "fell to 0, %"],
        "rows": [_round_cells(number, one) for number, one in enumerate(studied)],
    }


def _round_cells(number: int, one: RoundWeights) -> list[str]:
    return [
        f"{number}",
        f"{one.num_questions:,}",
        *(f"{value:.2f}" for value in one.quantiles),
        share_words(one.is_zero),
        number_words(one.num_kept_in_both, ","),
        number_words(one.rank_correlation, ".2f"),
        share_words(one.became_zero),
    ]

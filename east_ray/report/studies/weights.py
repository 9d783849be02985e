"""The questions on which weights by entropy and weights by accuracy differ most."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from east_ray import weighting
from east_ray.records import EXAMPLES, StudyBlock, StudyPage, StudyText
from east_ray.report.questions import fetch_responses, rows_at
from east_ray.report.studies.shares import ErrorKind, kind_of_errors, rank_correlation
from east_ray.report.wording import number_words
from east_ray.storage import Folder

#: Questions of each direction that the page shows.
_SHOWN = 5


@dataclass(frozen=True)
class Disagreement:
    """A question that the two signals weight differently. Both weights have exponent 1 and mean 1."""

    question_id: str
    question: str
    reference_answer: str | None
    entropy: float
    pass_rate: float
    entropy_weight: float
    accuracy_weight: float
    errors: ErrorKind
    clusters: list[tuple[dict[str, Any], str | None]]
    """The largest (records.CLUSTER), and that of the reference answer, each with one of its responses."""


@dataclass(frozen=True)
class Disagreements:
    """The kept questions that differ most, in both directions, and how far the two weightings agree on all."""

    num_questions: int
    rank_correlation: float | None
    mean_difference: float  # mean over the questions of the absolute difference of the two weights
    heavier_by_entropy: list[Disagreement]
    heavier_by_accuracy: list[Disagreement]


def disagreements(
    examples: Folder,
    samples: Folder,
    answers: Folder,
    *,
    num_responses: int | None = None,
    max_questions: int = 50,
    max_clusters: int = 4,
) -> Disagreements:
    """Where entropy and 1 - pass rate weight the kept questions of a round most differently.

    `num_responses` is `answers.responses` of their training. `max_questions` are shown for each direction, each with
    `max_clusters` besides that of the reference answer. Raises ValueError, as `weighting.weights`, if the questions
    have no weights, e.g. because all entropies are 0.
    """
    read = examples.read(EXAMPLES, ["entropy", "pass_rate"])
    sampled = np.flatnonzero(read["entropy"].is_valid().to_numpy())
    entropies, pass_rates = (read[name].take(sampled).to_numpy() for name in ("entropy", "pass_rate"))
    entropy_weights = weighting.weights(entropies.tolist(), 1)
    accuracy_weights = weighting.weights((1.0 - pass_rates).tolist(), 1)
    difference = entropy_weights - accuracy_weights
    order = np.argsort(-difference, kind="stable")
    heavier = [int(i) for i in order[:max_questions] if difference[i] > 0]
    lighter = [int(i) for i in order[::-1][:max_questions] if difference[i] < 0]

    shown = np.array(sorted([*heavier, *lighter]), dtype=np.intp)
    names = ["question_id", "question", "reference_answer", "entropy", "pass_rate"]
    rows = list(rows_at(examples, EXAMPLES, [*names, "clusters"], sampled[shown]))
    wanted = {
        row["question_id"]: [p for p, one in enumerate(row["clusters"]) if p < max_clusters or one["is_correct"]]
        for row in rows
    }
    responses = fetch_responses(samples, answers, wanted, num_responses=num_responses)
    found = {}
    for position, row in zip(shown.tolist(), rows, strict=True):
        places = wanted[row["question_id"]]
        texts = responses.get(row["question_id"], [None] * len(places))
        found[position] = Disagreement(
            **{name: row[name] for name in names},
            entropy_weight=float(entropy_weights[position]),
            accuracy_weight=float(accuracy_weights[position]),
            errors=kind_of_errors(row["clusters"]),
            clusters=[(row["clusters"][place], text) for place, text in zip(places, texts, strict=True)],
        )
    return Disagreements(
        entropies.size,
        rank_correlation(entropy_weights, accuracy_weights),
        float(np.abs(difference).mean()),
        [found[position] for position in heavier],
        [found[position] for position in lighter],
    )


def disagreements_page(examples: Folder, samples: Folder, answers: Folder, num_responses: int | None) -> StudyPage:
    """How far the two weightings agree, and the questions where they differ most."""
    title = "Entropy against accuracy"
    try:
        found = disagreements(examples, samples, answers, num_responses=num_responses, max_questions=_SHOWN)
    except ValueError as error:  # e.g. every question has one answer only
        return {"title": title, "text": f"There are no two weightings to compare: {error}."}
    correlation = number_words(found.rank_correlation, ".2f") or "none"
    return {
        "title": title,
        "text": f"Over {found.num_questions:,} kept questions the weights by entropy and by 1 - pass rate (exponent 1) "
        f"have a rank correlation of {correlation} and differ by {found.mean_difference:.2f} on average. The questions "
        "below are those where they differ most.",
        "texts": [
            *(_folded("heavier by entropy", one) for one in found.heavier_by_entropy),
            *(_folded("heavier by accuracy", one) for one in found.heavier_by_accuracy),
        ],
    }


def _folded(direction: str, one: Disagreement) -> StudyText:
    title = (
        f"{direction}: weight {one.entropy_weight:.2f} by entropy ({one.entropy:.2f} nats), {one.accuracy_weight:.2f} "
        f"by accuracy (pass rate {one.pass_rate:.2f}); errors: {one.errors}"
    )
    label = f"question {one.question_id}, reference {one.reference_answer}"
    blocks: list[StudyBlock] = [{"label": label, "text": one.question}]
    for cluster, text in one.clusters:
        answer = "no answer" if cluster["answer"] is None else cluster["answer"]
        label = f"{cluster['num_responses']} × {answer}" + (", correct" if cluster["is_correct"] else "")
        blocks.append({"label": label, "text": text or ""})
    return {"title": title, "blocks": blocks}

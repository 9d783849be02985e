"""Where weights by entropy and by accuracy differ most, and whether the weights settle, round after round."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from east_ray import weighting
from east_ray.records import EXAMPLES, StudyBlock, StudyPage, StudyTable, StudyText
from east_ray.report.questions import fetch_responses
from east_ray.report.studies.shares import (
    ErrorKind,
    Share,
    kind_of_errors,
    number_words,
    only_sampled,
    rank_correlation,
    share_of,
    share_words,
)
from east_ray.report.summary import QUANTILES, quantiles
from east_ray.storage import Folder
from east_ray.storage.rounds import Round

_QUESTIONS_AT_ONCE = 1024
#: Questions of each direction that the page shows.
_SHOWN = 5


@dataclass(frozen=True)
class ShownCluster:
    """A cluster with one of its responses; answer None: no answer was found."""

    answer: str | None
    num_responses: int
    is_correct: bool
    response: str | None


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
    clusters: list[ShownCluster]  # the largest ones, and that of the reference answer, largest first


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
    read = only_sampled(examples.read(EXAMPLES, ["entropy", "pass_rate"]))
    entropies, pass_rates = read["entropy"].to_numpy(), read["pass_rate"].to_numpy()
    entropy_weights = weighting.weights(entropies.tolist(), 1)
    accuracy_weights = weighting.weights((1.0 - pass_rates).tolist(), 1)
    difference = entropy_weights - accuracy_weights
    order = np.argsort(-difference, kind="stable")
    heavier = [int(i) for i in order[:max_questions] if difference[i] > 0]
    lighter = [int(i) for i in order[::-1][:max_questions] if difference[i] < 0]

    rows = _rows_at(examples, {*heavier, *lighter}, max_clusters)
    wanted = {row["question_id"]: row["places"] for row in rows.values()}
    responses = fetch_responses(samples, answers, wanted, num_responses=num_responses)

    def shown(position: int) -> Disagreement:
        row = rows[position]
        texts = responses.get(row["question_id"], [None] * len(row["places"]))
        clusters = [row["clusters"][place] for place in row["places"]]
        return Disagreement(
            **{name: row[name] for name in ("question_id", "question", "reference_answer", "entropy", "pass_rate")},
            entropy_weight=float(entropy_weights[position]),
            accuracy_weight=float(accuracy_weights[position]),
            errors=kind_of_errors(row["clusters"]),
            clusters=[ShownCluster(**one, response=text) for one, text in zip(clusters, texts, strict=True)],
        )

    return Disagreements(
        entropies.size,
        rank_correlation(entropy_weights, accuracy_weights),
        float(np.abs(difference).mean()),
        [shown(position) for position in heavier],
        [shown(position) for position in lighter],
    )


def _rows_at(examples: Folder, positions: set[int], max_clusters: int) -> dict[int, dict[str, Any]]:
    """The rows at these positions among the sampled questions; `places` are those of the clusters to show."""
    names = ["question_id", "question", "reference_answer", "entropy", "pass_rate", "clusters"]
    rows, begin = dict[int, dict[str, Any]](), 0
    for batch in examples.batches(names, max_rows=_QUESTIONS_AT_ONCE):
        sampled = only_sampled(batch)
        inside = sorted(position for position in positions if begin <= position < begin + sampled.num_rows)
        taken = sampled.take(pa.array([position - begin for position in inside], pa.int64())).to_pylist()
        for position, row in zip(inside, taken, strict=True):
            places = [p for p, c in enumerate(row["clusters"]) if p < max_clusters or c["is_correct"]]
            rows[position] = row | {"places": places}
        begin += sampled.num_rows
    return rows


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
    for cluster in one.clusters:
        answer = "no answer" if cluster.answer is None else cluster.answer
        label = f"{cluster.num_responses} × {answer}" + (", correct" if cluster.is_correct else "")
        blocks.append({"label": label, "text": cluster.response or ""})
    return {"title": title, "blocks": blocks}


# ----------------------------------------------------------------------------------------------- over the rounds


@dataclass(frozen=True)
class Since:
    """What became of the questions that the round before kept."""

    num_kept_in_both: int
    num_gone: int  # kept in the round before and not in this one: discarded, or not asked again
    rank_correlation: float | None  # Spearman's, of the weights of the questions kept in both
    became_zero: Share | None  # the share with weight 0 now, of the questions kept in both whose weight was positive


@dataclass(frozen=True)
class RoundWeights:
    """The weights of one round's examples."""

    num_questions: int
    quantiles: list[float]  # minimum, quartiles and maximum; empty without questions
    is_zero: Share | None
    since_previous: Since | None  # None in the first round


def weights_over_rounds(rounds: Sequence[pa.Table]) -> list[RoundWeights]:
    """The columns question_id and weight of each round's ``examples/``, in order -> how the weights move."""
    studied = []
    for number, table in enumerate(rounds):
        weights = table["weight"].to_numpy()
        spread, is_zero = (quantiles(weights), share_of(weights == 0)) if weights.size else ([], None)
        since = _since(rounds[number - 1], table) if number else None
        studied.append(RoundWeights(weights.size, spread, is_zero, since))
    return studied


def _since(before: pa.Table, now: pa.Table) -> Since:
    position = pc.index_in(before["question_id"], value_set=now["question_id"].combine_chunks())
    is_in_both = pc.is_valid(position)
    old = before["weight"].filter(is_in_both).to_numpy()
    new = now["weight"].take(position.filter(is_in_both)).to_numpy()
    is_zero = np.asarray(new == 0)[old > 0]
    became_zero = share_of(is_zero) if is_zero.size else None
    return Since(old.size, before.num_rows - old.size, rank_correlation(old, new), became_zero)


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
        "tables": [_table(round_, name, "" if compare is None else f": {name}") for name in names],
    }


def _table(round_: Round, name: str, suffix: str) -> StudyTable:
    folders = [round_.directory.round(number).learner(name) / "examples" for number in range(round_.number + 1)]
    studied = weights_over_rounds([folder.read(EXAMPLES, ["question_id", "weight"]) for folder in folders])
    columns = ["round", "questions", *QUANTILES, "weight 0, %"]
    return {
        "caption": f"Weights of each round{suffix}",
        "columns": [*columns, "also in the round before", "rank correlation with it", "fell to 0, %"],
        "rows": [_cells(number, one) for number, one in enumerate(studied)],
    }


def _cells(number: int, one: RoundWeights) -> list[str]:
    since = one.since_previous
    return [
        f"{number}",
        f"{one.num_questions:,}",
        *(f"{value:.2f}" for value in one.quantiles),
        share_words(one.is_zero),
        f"{since.num_kept_in_both:,}" if since else "",
        number_words(since.rank_correlation if since else None, ".2f"),
        share_words(since.became_zero) if since else "",
    ]

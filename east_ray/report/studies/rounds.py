"""Do the weights settle, round after round?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from east_ray.records import EXAMPLES, StudyPage, StudyTable
from east_ray.report.studies.shares import Share, number_words, rank_correlation, share_of, share_words
from east_ray.report.summary import QUANTILES, quantiles
from east_ray.storage.rounds import Round


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
        studied.append(
            RoundWeights(
                weights.size,
                quantiles(weights) if weights.size else [],
                share_of(weights == 0) if weights.size else None,
                _since(rounds[number - 1], table) if number else None,
            )
        )
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

#!/usr/bin/env python3
"""On which questions do the signals differ, and what mistakes does the model make there? A page in the run's report.

    python jobs/diverging_signals.py RUN_DIR

Works on any run or comparison that has weighed its questions, at any time; nothing is sampled or trained. All signals
are computed from the clusters of the kept questions, whichever one the run was weighted by. Signals are compared by
their ranks among these questions, so neither unit nor exponent matters. The page has what kinds of questions there are,
with the weight that each signal gives them, and the questions whose ranks differ most, with their clusters.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pages import add_page

import east_ray
from east_ray.records import StudyPage, StudyTable
from east_ray.report.questions import cluster_words
from east_ray.report.studies.shares import rank_correlation
from east_ray.report.wording import number_words, percent

Kind = Literal["stubborn", "scattered", "slips", "mostly solved"]
#: What each kind of question is, as the page tells it.
KINDS: Mapping[Kind, str] = {
    "stubborn": "mostly wrong, low entropy: one and the same wrong answer, or a wrong reference",
    "scattered": "mostly wrong, high entropy: many answers, guesses",
    "slips": "mostly right, high entropy: different mistakes around one right answer",
    "mostly solved": "mostly right, low entropy",
}
#: Each pair has the signal that the paper argues for, and the one that it is compared with.
PAIRS = (("entropy", "accuracy"), ("entropy", "rejection"))
_SHOWN_CLUSTERS, _MAX_CHARS = 4, 300


def signals_of(examples: pa.Table) -> dict[str, NDArray[np.float64]]:
    """Signal -> (Q,) its values for rows of records.EXAMPLES: entropy in nats, the others in [0, 1]."""
    entropy, pass_rate, rejected_rate = (
        examples[name].to_numpy() for name in ("entropy", "pass_rate", "rejected_rate")
    )
    return {"entropy": entropy, "accuracy": 1.0 - pass_rate, "rejection": rejected_rate}


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(Q,) the share of the questions with a smaller value, in [0, 1]; equal values have their mean rank.

    >>> ranks(np.array([0.3, 0.1, 0.3, 0.9])).tolist()
    [0.5, 0.125, 0.5, 0.875]
    """
    from scipy.stats import rankdata

    return (np.asarray(rankdata(values), np.float64) - 0.5) / max(1, values.size)


def kinds_of(entropies: NDArray[np.float64], pass_rates: NDArray[np.float64]) -> list[Kind]:
    """The kind of each question. Mostly right: at least half of the responses are right.

    A high entropy is one above the median of the questions that are mostly right, or mostly wrong, as well: a low pass
    rate alone makes a high entropy, so one median of all would find few slips.

    >>> kinds_of(np.array([0.8, 1.9, 0.7, 0.2]), np.array([0.1, 0.2, 0.7, 0.9]))
    ['stubborn', 'scattered', 'slips', 'mostly solved']
    """
    is_right = pass_rates >= 0.5
    is_high = np.zeros_like(is_right)
    for side in (is_right, ~is_right):
        if side.any():
            is_high[side] = entropies[side] > np.median(entropies[side])
    names: Mapping[tuple[bool, bool], Kind] = {
        (False, False): "stubborn",
        (False, True): "scattered",
        (True, True): "slips",
        (True, False): "mostly solved",
    }
    return [names[bool(right), bool(high)] for right, high in zip(is_right, is_high, strict=True)]


def weight_shares(values: NDArray[np.float64], kinds: Sequence[Kind]) -> dict[Kind, float | None]:
    """The share of the total weight (exponent 1) on each kind; None where a signal that is 0 everywhere has none."""
    total = float(values.sum())
    of_kind = {kind: float(values[[one == kind for one in kinds]].sum()) for kind in KINDS}
    return {kind: weight / total if total > 0 else None for kind, weight in of_kind.items()}


def kinds_table(examples: pa.Table) -> StudyTable:
    """A row for each kind: how many questions, what they are like, and how much weight each signal gives them."""
    signals, pass_rates = signals_of(examples), examples["pass_rate"].to_numpy()
    kinds = kinds_of(signals["entropy"], pass_rates)
    shares = {name: weight_shares(values, kinds) for name, values in signals.items()}
    rows: list[list[str | int | float | None]] = []
    for kind, meaning in KINDS.items():
        members = np.array([one == kind for one in kinds])
        means = [
            number_words(float(values[members].mean()) if members.any() else None, ".2f")
            for values in (pass_rates, signals["entropy"])
        ]
        of_weight = [percent(shares[name][kind]) for name in signals]
        rows.append([kind, meaning, int(members.sum()), percent(float(members.mean())), *means, *of_weight])
    columns = ["kind", "what it is", "questions", "% = uniform weight", "mean pass rate", "mean entropy"]
    return {
        "caption": "Kinds of kept questions, and the share of the weight that each signal gives them (exponent 1)",
        "columns": [*columns, *(f"weight by {name}, %" for name in signals)],
        "rows": rows,
    }


def divergence_table(examples: pa.Table, pair: tuple[str, str], max_questions: int) -> StudyTable:
    """The questions whose ranks by the two signals differ most: first those that the first signal ranks higher."""
    signals = signals_of(examples)
    first, second = (ranks(signals[name]) for name in pair)
    difference = first - second
    order = np.argsort(-difference, kind="stable")
    higher = [int(place) for place in order[:max_questions] if difference[place] > 0]
    lower = [int(place) for place in order[::-1][:max_questions] if difference[place] < 0]
    kinds = kinds_of(signals["entropy"], examples["pass_rate"].to_numpy())
    columns = ["question_id", "question", "reference_answer", "entropy", "pass_rate", "clusters"]
    found = examples.select(columns).take(pa.array([*higher, *lower], pa.int64())).to_pylist()
    rows: list[list[str | int | float | None]] = [
        [
            row["question_id"],
            _short(row["question"]),
            row["reference_answer"],
            "; ".join(_words(row["clusters"])),
            kinds[place],
            f"{row['entropy']:.2f}",
            f"{row['pass_rate']:.2f}",
            f"{first[place]:.2f}",
            f"{second[place]:.2f}",
        ]
        for place, row in zip([*higher, *lower], found, strict=True)
    ]
    correlation = number_words(rank_correlation(first, second), ".2f") or "none"
    return {
        "caption": f"Where {pair[0]} and {pair[1]} differ most (rank correlation of all: {correlation})",
        "columns": [
            *("question_id", "question", "reference", "answers × responses", "kind", "entropy (nats)", "pass rate"),
            *(f"rank by {name}" for name in pair),
        ],
        "rows": rows,
    }


def _words(clusters: Iterable[Mapping[str, Any]]) -> list[str]:
    """The largest clusters and that of the reference, in words."""
    return [
        cluster_words(cluster)
        for place, cluster in enumerate(clusters)
        if place < _SHOWN_CLUSTERS or cluster["is_correct"]
    ]


def _short(question: str) -> str:
    return question if len(question) <= _MAX_CHARS else f"{question[:_MAX_CHARS]} …"


def diverging_page(examples: pa.Table, max_questions: int = 8) -> StudyPage:
    """The page, from rows of records.EXAMPLES; `max_questions` are listed for each pair and direction."""
    examples = examples.filter(examples["entropy"].is_valid())
    title = "Where the signals differ"
    if examples.num_rows < 2:
        return {"title": title, "text": "Fewer than two kept questions were sampled, so no signals can be compared."}
    return {
        "title": title,
        "text": "Low pass rates with a low entropy are stubborn errors, or wrong references; high pass rates with a "
        "high entropy are slips. A rank is the share of the kept questions with a smaller signal. Mostly right "
        "means half of the responses or more; a high entropy is one above the median of the questions that are mostly "
        "right, or mostly wrong, as well.",
        "tables": [
            kinds_table(examples),
            *(divergence_table(examples, pair, max_questions) for pair in PAIRS),
        ],
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run directory, or the YAML file of a run")
    parser.add_argument("--round", type=int, default=0, help="the round, counted from 0")
    parser.add_argument("--questions", type=int, default=8, help="how many are listed for each pair and direction")
    arguments = parser.parse_args()
    try:
        page = diverging_page(east_ray.read_run(arguments.run).examples(arguments.round), arguments.questions)
        print(f"report: {add_page(arguments.run, '7_diverging_signals', page, arguments.round)}")
    except east_ray.InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

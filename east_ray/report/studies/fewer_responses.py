"""How many responses per question are enough: entropies and weights from the first of them, against those from all.

Axes in shapes: Q questions, S sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from east_ray.answers.grading import Graded, measured
from east_ray.answers.stage import paired
from east_ray.labels.deciding import labelled
from east_ray.records import StudyFigure, StudyPage
from east_ray.report.studies.shares import Share, rank_correlation, share_of, share_words
from east_ray.report.wording import number_words
from east_ray.selection import SelectionRules, reason_to_discard
from east_ray.storage import Folder
from east_ray.storage.tasks import part_groups, run_tasks
from east_ray.weighting import corrected_entropy

_QUESTIONS_AT_ONCE = 64


class Prefix(NamedTuple):
    """What the first so many responses of a question would have given. Entropies in nats."""

    entropy: float
    corrected_entropy: float
    pass_rate: float
    is_kept: bool
    num_tokens: float  # of all these responses; NaN if whoever sampled did not say


def entropies_of_first(
    question_id: str, graded: Graded, num_tokens: Sequence[int | None], sizes: Sequence[int], rules: SelectionRules
) -> list[Prefix]:
    """For each size what `selection.judge` would give for that many first responses, of all those in `graded`.

    Clusters are those of all responses, so two rounded decimals may be equal because of a later response. Raises
    ValueError if there are fewer responses than the largest size.
    """
    if len(graded.cluster) < max(sizes):
        raise ValueError(f"{question_id}: expected {max(sizes)} responses, found {len(graded.cluster)}")
    tokens = [np.nan if count is None else float(count) for count in num_tokens]
    prefixes = []
    for size in sizes:
        first, label = labelled(question_id, None, graded, size, rules.labels)
        seen = measured(question_id, first.clusters, rules.no_answer)
        is_kept = reason_to_discard(first, label, rules) is None
        prefixes.append(
            Prefix(seen.entropy, corrected_entropy(seen.counted), seen.pass_rate, is_kept, sum(tokens[:size]))
        )
    return prefixes


def measure_prefixes(
    samples: Folder, answers: Folder, sizes: Sequence[int], rules: SelectionRules
) -> NDArray[np.float64]:
    """`entropies_of_first` of all questions with enough responses -> (Q, S, fields of Prefix).

    These are tasks over the cluster, from which only numbers travel, 40 bytes a size. `sizes` grow, and the last is the
    number of responses to compare with. Raises ValueError if they do not grow.
    """
    if not sizes or any(size < 1 for size in sizes) or sorted(set(sizes)) != list(sizes):
        raise ValueError(f"sizes: expected growing numbers of responses, found {list(sizes)}")
    columns = ["question_id", "responses.list.element.num_tokens"]

    def work(parts: Sequence[str]) -> dict[str, Any]:
        values: list[float] = []
        for batch, graded in paired(samples, answers, parts, columns, max_rows=_QUESTIONS_AT_ONCE):
            for row, one in zip(batch.to_pylist(), graded, strict=True):
                if len(one.cluster) >= sizes[-1]:
                    tokens = [response["num_tokens"] for response in row["responses"]]
                    prefixes = entropies_of_first(row["question_id"], one, tokens, sizes, rules)
                    values += [float(value) for prefix in prefixes for value in prefix]
        return {"values": values}

    found = [np.asarray(row["values"], np.float64) for row in run_tasks(work, part_groups(samples))]
    return np.asarray(np.concatenate([np.empty(0), *found]).reshape(-1, len(sizes), len(Prefix._fields)))


@dataclass(frozen=True)
class SizeSummary:
    """What so many responses per question would have given, against the largest number. Entropies in nats."""

    num_responses: int
    mean_entropy: float
    mean_corrected_entropy: float
    rank_correlation: float | None  # Spearman's, of the entropies with those of the largest number
    num_kept_at_both: int
    mean_weight_difference: float | None  # absolute; of weights by entropy with mean 1 over the questions kept at both
    decision_changes: Share  # questions that only one of the two numbers keeps
    num_tokens: int | None  # of these responses of all questions; None if not all are known


def fewer_responses(sizes: Sequence[int], measures: NDArray[np.float64]) -> list[SizeSummary]:
    """What `measure_prefixes` gives for these sizes -> a summary of each. Raises ValueError without a question."""
    if measures.shape[0] == 0:
        raise ValueError(f"no question has {sizes[-1]} responses, so fewer cannot be compared with them")
    entropies, corrected, _, kept, tokens = np.moveaxis(measures, 2, 0)
    is_kept = kept > 0
    summaries = []
    for index, size in enumerate(sizes):
        both = is_kept[:, index] & is_kept[:, -1]
        here, full = entropies[both, index], entropies[both, -1]
        # Without a positive entropy there are no weights to compare.
        comparable = bool(np.any(here > 0) and np.any(full > 0))
        num_tokens = float(tokens[:, index].sum())
        summaries.append(
            SizeSummary(
                size,
                float(entropies[:, index].mean()),
                float(corrected[:, index].mean()),
                rank_correlation(entropies[:, index], entropies[:, -1]),
                int(both.sum()),
                float(np.abs(here / here.mean() - full / full.mean()).mean()) if comparable else None,
                share_of(is_kept[:, index] != is_kept[:, -1]),
                None if np.isnan(num_tokens) else int(num_tokens),
            )
        )
    return summaries


def fewer_responses_page(samples: Folder, answers: Folder, wanted: Sequence[int], rules: SelectionRules) -> StudyPage:
    """The wanted numbers of responses against the largest one that the questions have."""
    # The least number that a question of the first part has; the other parts differ in few questions.
    first = samples.batches(["responses.list.element.num_tokens"], samples.parts()[:1], max_rows=1024)
    found = [pc.min_max(batch["responses"].value_lengths()).as_py() for batch in first]
    most = min((one["min"] for one in found), default=0)
    most = min(most, rules.num_responses or most)
    is_unequal = any(one["max"] > most for one in found) and rules.num_responses != most
    sizes = sorted({*(size for size in wanted if size < most), most})
    summaries = fewer_responses(sizes, measure_prefixes(samples, answers, sizes, rules))
    columns = ["responses", "tokens", "mean entropy", "corrected", "rank correlation", "mean weight difference"]
    columns.append("kept or not differs, % (95 % interval)")
    figure: StudyFigure = {
        "title": "Mean entropy from the first responses",
        "x_label": "responses a question",
        "y_label": "entropy (nats)",
        "series": [
            {"label": "plain", "x": sizes, "y": [one.mean_entropy for one in summaries]},
            {"label": "corrected", "x": sizes, "y": [one.mean_corrected_entropy for one in summaries]},
        ],
    }
    return {
        "title": "How many responses are enough",
        "text": "Entropies and weights from the first responses to each question against those from "
        + (f"the {most} that every question has; some have more. " if is_unequal else "all. ")
        + "The plain estimate of an entropy is too low with few responses; the corrected one is that of Chao, Wang and "
        "Jost (2013). Weights are by the plain one, whatever weighting.entropy_estimator is.",
        "tables": [{"caption": "From the first responses", "columns": columns, "rows": list(map(_cells, summaries))}],
        "curves": [figure],
    }


def _cells(one: SizeSummary) -> list[str]:
    return [
        f"{one.num_responses}",
        number_words(one.num_tokens, ",.0f"),
        f"{one.mean_entropy:.3f}",
        f"{one.mean_corrected_entropy:.3f}",
        number_words(one.rank_correlation, ".3f"),
        number_words(one.mean_weight_difference, ".3f"),
        share_words(one.decision_changes),
    ]

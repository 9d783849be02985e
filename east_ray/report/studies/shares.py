"""Shares of questions, over all of them and by quartile of their entropy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from east_ray.evaluation.estimators import wilson_interval
from east_ray.records import StudyTable

Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)


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


# ----------------------------------------------------------------------------------------------------------- for pages


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

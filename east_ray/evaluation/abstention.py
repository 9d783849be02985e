"""Selective prediction: does the entropy of the answers tell which majority answers are wrong?

A server may withhold its answer where the entropy is above a bound. The share of the questions that it answers is its
coverage, and the share of wrong ones among these answers is its risk (El-Yaniv and Wiener, JMLR 11, 2010). Over all
bounds they form the risk-coverage curve. The area under the ROC curve (AUROC) is the chance that a wrong answer has a
higher entropy than a right one, equal ones counting half (Hanley and McNeil, Radiology 143, 1982): at 0.5 the entropy
says nothing, at 1 it separates wrong from right answers completely.

Pure functions of arrays and of records.SAMPLED_ANSWERS; axes in shapes: Q questions, G distinct entropies, R resamples,
C coverages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from east_ray import weighting
from east_ray.evaluation.estimators import PERCENTILES, wilson_interval

#: Shares of the questions at which the curve is given.
COVERAGES = tuple(round(0.05 * step, 2) for step in range(1, 21))


@dataclass(frozen=True)
class Selective:
    """How well entropy tells wrong majority answers from right ones; intervals are 95 % percentile bootstrap.

    Where none or all of the answers are wrong, every resample has the same share; there the intervals are Wilson's.
    """

    num_questions: int
    num_wrong: int
    coverages: tuple[float, ...]
    risks: tuple[float, ...]  # share of wrong answers among the questions of lowest entropy, at each coverage
    risks_low: tuple[float, ...]
    risks_high: tuple[float, ...]
    auroc: float | None  # None if all answers are right, or all are wrong
    auroc_low: float | None
    auroc_high: float | None


def majority_answers(
    sampled: pa.Table, *, no_answer: Literal["cluster", "exclude"] = "cluster"
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """records.SAMPLED_ANSWERS of one model -> (Q,) entropy in nats and (Q,) whether the majority answer is wrong.

    The majority answer is that of serving: the answer of the largest cluster that has one, the first of equal clusters.
    No answer at all counts as wrong. With `no_answer: exclude` the entropy ignores responses without an answer.
    """
    entropies, is_wrong = [], []
    for clusters in sampled["clusters"].to_pylist():
        answered = [cluster for cluster in clusters if cluster["answer"] is not None]
        counted = clusters if no_answer == "cluster" else answered
        entropies.append(weighting.entropy([cluster["num_responses"] for cluster in counted]))
        is_wrong.append(not (answered and answered[0]["is_correct"]))
    return np.array(entropies, dtype=np.float64), np.array(is_wrong, dtype=np.bool_)


def selective_prediction(
    entropies: NDArray[np.float64],
    is_wrong: NDArray[np.bool_],
    *,
    coverages: Sequence[float] = COVERAGES,
    seed: int = 0,
    num_resamples: int = 2000,
) -> Selective:
    """(Q,) entropies and whether the answers are wrong -> risk-coverage curve and AUROC, with bootstrap intervals.

    A risk is the mean over all orders of the questions with equal entropy. Resamples are drawn as by
    `paired_difference`, from the counts of right and wrong answers at each distinct entropy; the interval of the AUROC
    leaves out those without both kinds of answers. Raises ValueError for arrays that differ in length or are empty, and
    for coverages outside (0, 1].

    >>> found = selective_prediction(np.array([0.0, 0.5, 1.0, 1.5]), np.array([False, False, True, True]))
    >>> found.auroc, found.risks[9], found.risks[-1]  # half of the questions; all of them
    (1.0, 0.0, 0.5)
    """
    if entropies.shape != is_wrong.shape or entropies.ndim != 1 or entropies.size == 0:
        shapes = f"{entropies.shape}, {is_wrong.shape}"
        raise ValueError(f"expected two equally long arrays of at least one question, got {shapes}")
    if not all(0 < coverage <= 1 for coverage in coverages):
        raise ValueError(f"coverages must be above 0 and at most 1, found {list(coverages)}")
    # Entropies of equal cluster sizes in another order may differ in their last digits.
    _, group = np.unique(np.round(entropies, 12), return_inverse=True)
    num_groups = int(group.max()) + 1
    counts = np.bincount(2 * group + is_wrong, minlength=2 * num_groups)  # for each entropy right, then wrong
    drawn = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=num_resamples)
    (risks,), (auroc,) = _risks(counts[None], coverages), _auroc(counts[None])
    low, high = np.percentile(_risks(drawn, coverages), PERCENTILES, axis=0)
    for at in np.flatnonzero((risks == 0) | (risks == 1)):
        num_answered = max(1, int(coverages[at] * entropies.size))
        low[at], high[at] = wilson_interval(int(risks[at]) * num_answered, num_answered)
    curve, lows, highs = (tuple(values.tolist()) for values in (risks, low, high))
    area: tuple[float | None, float | None, float | None] = (None, None, None)
    if not np.isnan(auroc):
        bottom, top = np.nanpercentile(_auroc(drawn), PERCENTILES).tolist()
        area = (float(auroc), bottom, top)
    return Selective(entropies.size, int(is_wrong.sum()), tuple(coverages), curve, lows, highs, *area)


def _risks(counts: NDArray[np.int64], coverages: Sequence[float]) -> NDArray[np.float64]:
    """(R, 2 G) counts of right and wrong answers by rising entropy -> (R, C) risks.

    The mean number of wrong answers among the first m questions is linear in m within a group of equal entropies.
    """
    wrong = counts[:, 1::2]
    num_asked = np.pad(np.cumsum(counts[:, ::2] + wrong, axis=1), ((0, 0), (1, 0)))
    num_wrong = np.pad(np.cumsum(wrong, axis=1), ((0, 0), (1, 0)))
    sizes = np.asarray(coverages) * num_asked[0, -1]
    rows = [np.interp(sizes, asked, errors) for asked, errors in zip(num_asked, num_wrong, strict=True)]
    return np.asarray(np.stack(rows) / sizes)


def _auroc(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(R, 2 G) counts of right and wrong answers by rising entropy -> (R,) areas, NaN without both kinds."""
    right, wrong = counts[:, ::2].astype(np.float64), counts[:, 1::2].astype(np.float64)
    right_below = np.cumsum(right, axis=1) - right
    pairs = right.sum(axis=1) * wrong.sum(axis=1)
    ordered = np.sum(wrong * (right_below + right / 2), axis=1)
    return np.asarray(np.divide(ordered, pairs, out=np.full(len(counts), np.nan), where=pairs > 0))

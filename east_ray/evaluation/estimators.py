"""What models can do on held-out questions, with intervals, and the paired difference of two models.

    accuracy    share of questions answered correctly at temperature 0
    pass@k      chance that at least one of k sampled responses is correct (Chen et al., 2021, arXiv 2107.03374)
    maj@k       chance that the commonest answer of k sampled responses is correct (Wang et al., 2022, arXiv 2203.11171)

Pure functions of arrays. The intervals speak of the questions drawn, for the models as they are; significance.py is
about what other seeds would give.

Axes in shapes: Q questions, V values of a question, K values of k, N examples, R resamples.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from east_ray.records import Accuracy, PairedDifference, WeightSpread

#: Ends of a 95 % interval among resamples, in percent.
PERCENTILES = (2.5, 97.5)
#: Counts of questions in memory at a time, over all resamples of a part.
_MAX_COUNTS = 1 << 22
#: Beyond this many responses 2**-n leaves floating point.
MAX_RESPONSES_VOTING = 1000


def pass_at_k(num_responses: NDArray[np.int64], num_correct: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """(Q,) responses n and correct ones c -> (Q,) unbiased estimates of pass@k.

    1 - C(n - c, k) / C(n, k): the share of all draws of k from the n responses that hold a correct one (Chen et al.,
    2021, equation 1), as a product of k factors of at most 1, which neither overflows nor loses digits. Raises
    ValueError if k is not between 1 and every n.

    >>> pass_at_k(np.array([4, 4]), np.array([1, 3]), k=2)
    array([0.5, 1. ])
    """
    if not 1 <= k <= np.min(num_responses):
        raise ValueError(f"pass@{k}: k must be from 1 to the number of responses, {np.min(num_responses)}")
    all_wrong = np.ones(len(num_responses))
    num_wrong = num_responses - num_correct
    for drawn in range(k):
        all_wrong *= np.maximum(num_wrong - drawn, 0) / (num_responses - drawn)
    return 1.0 - all_wrong


@lru_cache(maxsize=4)
def _binomials(num_responses: int) -> NDArray[np.float64]:
    """C(s, i) / 2**s in row s, column i, for s up to `num_responses`: binomial coefficients that do not overflow."""
    rows = np.zeros((num_responses + 1, num_responses + 1))
    rows[0, 0] = 1.0
    for size in range(1, num_responses + 1):
        rows[size] = rows[size - 1] / 2
        rows[size, 1:] += rows[size - 1, :-1] / 2
    return rows


def maj_at_k(
    num_responses_per_cluster: Sequence[int],
    correct_cluster_index: int | None,
    k: Sequence[int],
    num_answerless: int = 0,
) -> NDArray[np.float64]:
    """Clusters of one question's n answers -> (K,) estimates of maj@k, one for each k.

    The mean over all draws of k of the n responses, an unbiased estimate of the vote of k fresh ones: a draw counts 1
    if the correct cluster alone has the most votes and 1 / num_tied if it shares them. Responses without an answer
    (`num_answerless`, in no cluster) may be drawn and do not vote. Without a correct cluster every value is 0. k = 1
    gives the pass rate, k = n the vote of all responses.

    The result is exact up to rounding (below 1e-12), for all k in one pass. Suppose that the correct cluster has v
    votes. The number of ways in which no rival has more, by responses drawn and rivals tied, is a product of
    polynomials. Clusters of fewer than v responses are no rivals; they count as one with the answerless responses
    (Vandermonde). Raises ValueError if a k is not from 1 to n, or n is over MAX_RESPONSES_VOTING.

    >>> maj_at_k([2, 1, 1], 0, k=[1, 2, 4])
    array([0.5, 0.5, 1. ])
    """
    total = sum(num_responses_per_cluster) + num_answerless
    if not all(1 <= drawn <= total for drawn in k):
        raise ValueError(f"maj@k: each k must be from 1 to the number of responses, {total}; found {list(k)}")
    if total > MAX_RESPONSES_VOTING:
        raise ValueError(f"maj@k: at most {MAX_RESPONSES_VOTING} responses per question can vote, found {total}")
    if correct_cluster_index is None:
        return np.zeros(len(k))
    wrong = list(num_responses_per_cluster)
    correct = wrong.pop(correct_cluster_index)
    binomials = _binomials(total)
    won = np.zeros(total + 1)  # by responses drawn
    for votes in range(1, min(correct, max(k)) + 1):
        rivals = [size for size in wrong if size >= votes]
        others = total - correct - sum(rivals)
        # Rows: rivals tied; columns: responses drawn, total + 1 of them. Flat, a product with a polynomial is one
        # convolution, and no row runs into the next, since the sizes of all clusters add up to no more than `total`.
        ways = np.zeros((len(rivals) + 1) * (total + 1))
        ways[votes : votes + others + 1] = binomials[correct, votes] * binomials[others, : others + 1]
        tie = total + 1 + votes  # one row down, `votes` columns on
        for size in rivals:
            tied = binomials[size, votes] * ways[:-tie]
            ways[:] = np.convolve(ways, binomials[size, :votes])[: ways.size]
            ways[tie:] += tied
        won += np.sum(ways.reshape(-1, total + 1) / np.arange(1, len(rivals) + 2)[:, None], axis=0)
    return np.asarray(won[list(k)] / binomials[total, list(k)])


def wilson_interval(num_correct: int, num_questions: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson, 1927); it stays in [0, 1] and keeps its coverage near both ends."""
    from scipy.stats import binomtest

    interval = binomtest(num_correct, num_questions).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def accuracy(is_correct: NDArray[np.bool_], num_unanswered: int, num_truncated: int) -> Accuracy:
    """(Q,) correctness of one model -> its accuracy. Raises ValueError without questions."""
    if is_correct.size == 0:
        raise ValueError("accuracy needs at least one question")
    low, high = wilson_interval(int(is_correct.sum()), is_correct.size)
    size, share = is_correct.size, float(is_correct.mean())
    return Accuracy(
        num_questions=size,
        accuracy=share,
        low=low,
        high=high,
        num_unanswered=num_unanswered,
        num_truncated=num_truncated,
    )


def paired_difference(
    first: NDArray[np.bool_], second: NDArray[np.bool_], *, seed: int = 0, num_resamples: int = 10_000
) -> PairedDifference:
    """(Q,) correctness of two models on the same questions, in the same order -> first minus second.

    A resample of Q questions depends only on how many of them each model alone answers correctly, so it is drawn from
    the multinomial distribution of those counts: the exact bootstrap distribution, at a cost that does not grow with Q.
    Raises ValueError if the arrays differ in length or are empty.
    """
    from scipy.stats import binomtest

    if first.shape != second.shape or first.size == 0:
        shapes = f"{first.shape}, {second.shape}"
        raise ValueError(f"expected two equally long arrays of at least one question, got {shapes}")
    size, only_first, only_second = first.size, int(np.sum(first & ~second)), int(np.sum(second & ~first))
    shares = np.array([only_first, only_second, size - only_first - only_second]) / size
    draws = np.random.default_rng(seed).multinomial(size, shares, size=num_resamples)
    low, high = np.percentile((draws[:, 0] - draws[:, 1]) / size, PERCENTILES).tolist()
    discordant, difference = only_first + only_second, (only_first - only_second) / size
    p = float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
    return PairedDifference(
        difference=difference, low=low, high=high, p_value=p, num_only_first=only_first, num_only_second=only_second
    )


def mean_interval(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(Q, V) values in [0, 1] of questions -> (2, V) low and high ends of the 95 % intervals of their means.

    Wilson's interval for as many questions as would tell as much if each value were 0 or 1: Q p (1 - p) / variance, the
    effective sample size of survey statistics (Kish, 1965). Near 0 and 1, where pass@k often is, it covers better than
    the percentile bootstrap. Known limit: it is too narrow where the whole distance from 0 or 1 is due to a few
    questions that the sample may miss (86 % in a simulation of pass@8 = 0.994 with 200 questions).
    """
    mean = values.mean(axis=0)
    binary_variance = mean * (1 - mean)
    is_known = binary_variance > 1e-9  # below it is rounding error: all values are 0, or all are 1
    variance_ratio = np.divide(values.var(axis=0), binary_variance, out=np.ones_like(mean), where=is_known)
    room = 1.959963984540054**2 * variance_ratio / len(values)  # the normal distribution's 97.5 % quantile, squared
    half_width = np.sqrt(room * (binary_variance + room / 4))
    centre = mean + room / 2
    return np.asarray(np.clip(np.stack([centre - half_width, centre + half_width]) / (1 + room), 0, 1))


def bootstrap_means(values: NDArray[np.float64], *, seed: int = 0, num_resamples: int = 2000) -> NDArray[np.float64]:
    """(Q, V) values of questions -> (num_resamples, V) means over Q questions drawn with replacement.

    All columns share the draws, so the difference of two columns is that of a paired bootstrap. A resample is a row of
    counts, and the means of many resamples are one matrix product, in parts of bounded memory.
    """
    size, rng, parts = len(values), np.random.default_rng(seed), []
    rows_per_part = max(1, _MAX_COUNTS // size)
    for start in range(0, num_resamples, rows_per_part):
        rows = min(rows_per_part, num_resamples - start)
        drawn = rng.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        parts.append(counts @ values / size)
    return np.concatenate(parts)


def percentile_interval(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """(num_resamples, V) bootstrap means -> (2, V) low and high ends of the 95 % percentile intervals."""
    return np.asarray(np.percentile(means, PERCENTILES, axis=0))


def effective_examples(weights: NDArray[np.float64]) -> float:
    """(N,) weights -> Kish's effective sample size: as many examples of equal weight would leave as much noise.

    >>> effective_examples(np.array([2.0, 2.0, 0.0, 0.0]))
    2.0
    """
    return float(weights.sum() ** 2 / (weights**2).sum())


def top_share(weights: NDArray[np.float64], heaviest: float = 0.01) -> float:
    """(N,) weights -> the share of their sum that lies on the `heaviest` part of the examples; equal weights give that.

    Where this part is no whole number of examples, the last of them counts in proportion.

    >>> top_share(np.array([4.0, 2.0, 1.0, 1.0]), 0.375)
    0.625
    """
    sums = np.concatenate([[0.0], np.cumsum(np.sort(weights)[::-1])])
    return float(np.interp(heaviest * weights.size, np.arange(sums.size), sums) / sums[-1])


def weight_spread(weights: NDArray[np.float64]) -> WeightSpread:
    """(N,) weights of a training's examples -> how they spread."""
    return WeightSpread(
        num_examples=weights.size, effective_examples=effective_examples(weights), top_share=top_share(weights)
    )

r"""Signal -> mapping -> weight: how much a question counts, from the spread of its answers.

For a question x whose n responses fall into clusters with shares p_j (EAST, arXiv 2503.23913, section 3):

    entropy  H(x) = - sum_j p_j ln p_j                       nats, 0 <= H <= ln(number of clusters)
    signal   s(x) = H(x) | 1 - pass_rate(x) | rejected_rate(x) | 1              entropy | accuracy | rejection | uniform
                  | pass_rate (1 - pass_rate) | p_1 - p_2 | 1 - p_1             variance | margin | disagreement
                  | entropy of the wrong clusters' shares of the wrong answers  wrong_entropy
    mapping  g(s) = s ** a   (power)   |   1 / (1 + exp(-a (s - mean) / std))   (sigmoid, smooth and bounded)
                  | (rank(s) / Q) ** a   (rank)   |   min(c s ** a, max_weight), c such that its mean is 1  (clip)
    weight   w(x) = g(s(x)) / normalizer                     the normalizer is the mean of g(s) over the kept questions

so that the mean weight is 1. The base of the logarithm cancels in w. An exponent a > 1 sharpens, one in (0, 1)
flattens, 0 is uniform, and a < 0 prefers the questions with a small signal. The shares are p_1 >= p_2 >= ..., so that
a large margin means that the model is sure, and a > 0 prefers such questions; disagreement is the opposite. Like the
entropy, these two and wrong_entropy leave out responses without an answer with `answers.no_answer: exclude`. The rank
is the place among the Q signals in ascending order; equal signals share the mean of theirs.

H(x) is that of the shares themselves (the plug-in estimate), which is too low on average, and more so for few responses
and many answers. `weighting.entropy_estimator` takes `corrected_entropy` or `smoothed_entropy` in its place.

Degenerate cases, by rule and never as inf or NaN:

* exponent 0 gives weight 1 to every question, also where the signal is 0;
* a negative exponent with a signal of 0 has no weight: an error that says so;
* all signals 0 with a positive exponent leave nothing to weight by: an error that says so;
* equal signals (std 0) give every question weight 1 under the sigmoid, and equal ranks do;
* too few signals above 0 for a mean of 1 below `max_weight` leave no clipped weights: an error that says so.

>>> entropy([2, 1, 1]) == 1.5 * math.log(2)
True
>>> weights([0.0, 1.0, 2.0], exponent=1)
array([0., 1., 2.])
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from east_ray import doors
from east_ray.answers.grading import entropy
from east_ray.config import InputError, WeightingConfig
from east_ray.config.base import validated
from east_ray.records import DISCARDED, EXAMPLES, JUDGED, GradedQuestion
from east_ray.selection import Signal
from east_ray.storage import Stages
from east_ray.storage.tasks import run_tasks

__all__ = ["ESTIMATORS", "MAPPINGS", "SIGNALS", "corrected_entropy", "entropy", "load_mapping", "load_signal", "mapped"]
__all__ += ["normalizer", "smoothed_entropy", "weighted", "weights"]

#: Responses with an answer that was not seen, as `smoothed_entropy` counts them.
UNSEEN = 0.08

#: A signal is a function of one graded question that returns a number of at least 0.
SIGNALS = {
    "entropy": "east_ray.weighting:entropy_signal",
    "accuracy": "east_ray.weighting:accuracy_signal",
    "rejection": "east_ray.weighting:rejection_signal",
    "variance": "east_ray.weighting:variance_signal",
    "margin": "east_ray.weighting:margin_signal",
    "wrong_entropy": "east_ray.weighting:wrong_entropy_signal",
    "disagreement": "east_ray.weighting:disagreement_signal",
    "uniform": "east_ray.weighting:uniform_signal",
}
#: The signal entropy, by how it is estimated.
ESTIMATORS = {
    "plug_in": "east_ray.weighting:entropy_signal",
    "chao_wang_jost": "east_ray.weighting:corrected_entropy_signal",
    "smoothed": "east_ray.weighting:smoothed_entropy_signal",
}
#: A mapping is a function of the signals of all kept questions, (Q,), and the section `weighting`; it returns g, (Q,).
MAPPINGS = {
    "power": "east_ray.weighting:power",
    "sigmoid": "east_ray.weighting:sigmoid",
    "rank": "east_ray.weighting:rank",
    "clip": "east_ray.weighting:clip",
}

Mapped = Callable[[NDArray[np.float64], WeightingConfig], NDArray[np.float64]]


def entropy_signal(question: GradedQuestion) -> float:
    """Entropy of the answers, in nats."""
    return question.entropy


def corrected_entropy(counts: Sequence[int]) -> float:
    """An estimate, in nats, of the entropy of the distribution that clusters of these sizes were drawn from.

    The entropy of the shares themselves is too low on average, by about (clusters - 1) / 2n, and by more where many
    answers are still unseen. Chao, Wang and Jost (2013, Methods in Ecology and Evolution 4, 1091-1100) estimate the
    unseen part from the answers seen once and twice. It is 0 for one cluster, and may exceed ln(clusters).
    """
    from scipy.special import digamma

    sizes = np.array([count for count in counts if count > 0], dtype=np.float64)
    n = float(sizes.sum())
    if n < 2:
        return 0.0
    # sum_{k=x}^{n-1} 1/k = digamma(n) - digamma(x)
    seen = float(np.sum(sizes / n * (digamma(n) - digamma(sizes))))
    once, twice = int(np.sum(sizes == 1)), int(np.sum(sizes == 2))
    if once == 0 or (once == 1 and twice == 0):
        return seen  # a = 1: nothing unseen is estimated
    a = 2 * twice / ((n - 1) * once + 2 * twice) if twice else 2 / ((n - 1) * (once - 1) + 2)
    # The paper's (1-a)^(1-n) (-ln a - sum_{r<n} (1-a)^r / r) equals sum_{j>=1} (1-a)^j / (n+j-1). The closed form loses
    # all digits where (1-a)^n is tiny, the series needs about 40 / a terms; each is used where it has O(n) terms.
    if n * a < 10:
        r = np.arange(1, n)
        tail = (1 - a) ** (1 - n) * (-np.log(a) - np.sum((1 - a) ** r / r))
    else:
        j = np.arange(1, 40 / a)
        tail = np.sum((1 - a) ** j / (n + j - 1))
    return seen + once / n * float(tail)


def corrected_entropy_signal(question: GradedQuestion) -> float:
    """The entropy as Chao, Wang and Jost estimate it, in nats."""
    return corrected_entropy(question.counted)


def smoothed_entropy(counts: Sequence[int]) -> float:
    """The entropy, in nats, of clusters of these sizes and one more, of `UNSEEN` responses with another answer.

    A question whose few responses agree is then not taken for one that the model is always sure of: the fewer they are,
    the more is left open. Where all questions have equally many responses, this changes their weights little. Where
    those that agree were asked less often (`sampling.adaptive`), it takes away most of the error that comes from having
    stopped there. 0.08 was best for the mean absolute error of the weights on other questions than those that it is
    measured with (tests/benchmarks/adaptive.py). The estimate is above 0 for every question with an answer.

    >>> round(smoothed_entropy([16]), 3), round(smoothed_entropy([128]), 3), round(smoothed_entropy([64, 64]), 3)
    (0.031, 0.005, 0.698)
    """
    sizes = [float(count) for count in counts if count] + [UNSEEN]
    total = math.fsum(sizes)
    return -math.fsum(size / total * math.log(size / total) for size in sizes) + 0.0


def smoothed_entropy_signal(question: GradedQuestion) -> float:
    """The smoothed entropy of the answers, in nats."""
    return smoothed_entropy(question.counted)


def accuracy_signal(question: GradedQuestion) -> float:
    """Share of the responses that are not correct."""
    return 1.0 - question.pass_rate


def rejection_signal(question: GradedQuestion) -> float:
    """Share of the commonest wrong answer."""
    return question.rejected_rate


def variance_signal(question: GradedQuestion) -> float:
    """Variance of a response's correctness, p (1 - p): greatest where half of the responses are correct.

    From whole numbers, so that it is the same to the last digit for p and 1 - p, and ranks have their ties.
    """
    correct = sum(one.num_responses for one in question.clusters if one.is_correct)
    return correct * (question.num_responses - correct) / max(1, question.num_responses) ** 2


def margin_signal(question: GradedQuestion) -> float:
    """Share of the largest cluster minus that of the second; 1 where all agree."""
    largest, second = sorted([0, 0, *question.counted])[:-3:-1]
    return (largest - second) / max(1, sum(question.counted))


def wrong_entropy_signal(question: GradedQuestion) -> float:
    """Entropy, in nats, of the answers that are not correct, among themselves; 0 where none or only one is wrong.

    It is the size of the spread that EAST argues with: a question whose wrong answers all differ is one that the model
    has no misconception of. How often the model is right does not matter.
    """
    wrong = list(question.counted)
    for cluster in question.clusters:
        if cluster.is_correct:  # it has an answer, so it was counted
            wrong.remove(cluster.num_responses)
    return entropy(wrong)


def disagreement_signal(question: GradedQuestion) -> float:
    """Share of the responses outside the largest cluster."""
    total = sum(question.counted)
    return (total - max(question.counted, default=0)) / max(1, total)


def uniform_signal(question: GradedQuestion) -> float:
    """1 for every question."""
    return 1.0


def load_signal(settings: WeightingConfig) -> Signal:
    """The signal that the settings name. Raises InputError if it cannot be loaded or is no function."""
    if settings.signal == "entropy":
        return _function("weighting.entropy_estimator", settings.entropy_estimator, ESTIMATORS)
    return _function("weighting.signal", settings.signal, SIGNALS)


def load_mapping(settings: WeightingConfig) -> Mapped:
    """The mapping that the settings name. Raises InputError if it cannot be loaded or is no function."""
    return _function("weighting.mapping", settings.mapping, MAPPINGS)


def _function(key: str, spelled: str, built_in: Mapping[str, str]) -> Callable[..., Any]:
    found: Callable[..., Any] = doors.load(key, spelled, built_in)
    if not callable(found):
        raise InputError(f"{key}: {spelled} is {type(found).__name__}; expected a function")
    return found


def power(signals: NDArray[np.float64], settings: WeightingConfig) -> NDArray[np.float64]:
    """s ** exponent, up to a constant factor that the normalizer cancels. Raises InputError where it is not defined."""
    exponent, mean = settings.exponent, math.fsum(signals) / signals.size
    zeros = int(np.count_nonzero(signals == 0))
    if exponent < 0 and zeros:
        raise InputError(
            f"exponent {exponent:g} is not defined for the {zeros} of {signals.size} kept questions whose signal is 0; "
            "drop them (selection.all_correct: drop), or use an exponent of at least 0 or the sigmoid mapping"
        )
    if exponent > 0 and zeros == signals.size:
        raise InputError(
            f"the signal of all {signals.size} kept questions is 0, so there is nothing to weight by; "
            "use weighting.signal: uniform, or sample more responses per question"
        )
    # Relative to the mean, a large exponent neither overflows nor underflows where the weights themselves do not.
    with np.errstate(over="ignore", divide="ignore"):
        return np.asarray((signals / mean) ** exponent if mean > 0 else np.ones_like(signals))


def sigmoid(signals: NDArray[np.float64], settings: WeightingConfig) -> NDArray[np.float64]:
    """1 / (1 + exp(-exponent (s - mean) / std)), with the population's standard deviation; 1 where it is 0."""
    mean = math.fsum(signals) / signals.size
    std = math.sqrt(math.fsum((signals - mean) ** 2) / signals.size)
    # Rounding leaves a std of about 1e-17 for equal signals; below this the difference is noise, not information.
    if std <= 1e-12 * max(mean, 1e-300):
        return np.ones_like(signals)
    scaled = settings.exponent * (signals - mean) / std
    # The logistic function without overflow: exp of a negative number only.
    exp = np.exp(-np.abs(scaled))
    return np.asarray(np.where(scaled >= 0, 1.0, exp) / (1.0 + exp))


def rank(signals: NDArray[np.float64], settings: WeightingConfig) -> NDArray[np.float64]:
    """(rank / Q) ** exponent. Equal signals share the mean of their ranks, so that no order of the rows matters."""
    from scipy.stats import rankdata

    with np.errstate(over="ignore"):
        return np.asarray((rankdata(signals) / signals.size) ** settings.exponent)


def clip(signals: NDArray[np.float64], settings: WeightingConfig) -> NDArray[np.float64]:
    """The power mapping g with weights of at most `max_weight`: min(c g, max_weight), c such that the mean is 1.

    With k weights at the bound, c = (Q - k max_weight) / (sum of the other g); k is the smallest number for which none
    of these exceeds it. Raises InputError where `power` does, and where too few g are above 0 for a mean of 1.
    """
    bound, g = settings.max_weight, power(signals, settings)
    g = g / normalizer(g)
    num_positive = int(np.count_nonzero(g))
    if bound * num_positive < g.size:
        least = math.ceil(100 * g.size / num_positive) / 100
        raise InputError(
            f"max_weight {bound:g} is too small: {num_positive} of {g.size} kept questions have a signal above 0, so "
            f"for a mean of 1 a weight must reach {least:.2f}; set weighting.max_weight to at least {least:.2f}"
        )
    descending = np.sort(g)[::-1]
    at_bound = np.arange(num_positive)  # the k that may be the solution; at the last one, all signals above 0
    left = g.size - at_bound * bound
    others = np.cumsum(descending[::-1])[::-1][:num_positive]
    fits = left * descending[:num_positive] <= bound * others
    fits[-1] = True  # but for rounding
    k = int(np.argmax(fits))
    return np.asarray(np.minimum(left[k] / others[k] * g, bound))


def mapped(signals: Sequence[float] | NDArray[np.float64], settings: WeightingConfig) -> NDArray[np.float64]:
    """(Q,) signals of the kept questions -> (Q,) g of them, not normalized; an array of doubles is not copied.

    Raises InputError if there is no signal, one is negative, infinite or NaN, or no weights exist (see above).
    """
    try:
        values = np.asarray(signals, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"signals must be numbers ({error})") from error
    if values.size == 0:
        raise InputError("there is no kept question to weight")
    if not np.all(np.isfinite(values)) or np.any(values < 0):
        bad = values[~np.isfinite(values) | (values < 0)][0]
        raise InputError(f"a signal must be a finite number of at least 0, found {bad}")
    try:
        result = np.asarray(load_mapping(settings)(values, settings), dtype=np.float64)
    except ValueError:  # an InputError is one
        raise
    except Exception as error:  # of a user's own function
        raise InputError(f"the mapping {settings.mapping} raised {type(error).__name__}: {error}") from error
    if result.shape != values.shape:
        raise InputError(f"the mapping gave an array of shape {result.shape}, expected {values.shape}")
    if settings.mapping not in MAPPINGS and not (np.all(np.isfinite(result)) and np.all(result >= 0) and result.any()):
        raise InputError("the mapping must give finite numbers of at least 0, not all of them 0")
    return result


def normalizer(values: NDArray[np.float64]) -> float:
    """(Q,) mapped signals of all kept questions -> their mean, the one global quantity of a round.

    The sum is rounded once (math.fsum), so it does not depend on the order of the questions or on how they were split.
    Raises InputError if it is not a positive number.
    """
    mean = math.fsum(values) / values.size
    if not (math.isfinite(mean) and mean > 0 and np.all(np.isfinite(values))):
        raise InputError("the exponent takes the signals beyond floating point; use a smaller one")
    return mean


def weights(
    signals: Sequence[float] | NDArray[np.float64], exponent: float, mapping: str = "power"
) -> NDArray[np.float64]:
    """(Q,) signals of the kept questions -> (Q,) weights with mean 1. Raises InputError as `mapped` does.

    >>> weights([0.5, 1.0, 1.5], exponent=2).round(3).tolist()
    [0.214, 0.857, 1.929]
    """
    settings = {"exponent": exponent, "mapping": mapping}
    values = mapped(signals, validated(WeightingConfig, settings))
    return values / normalizer(values)


def weighted(judged: pa.Table, weights_of_kept: Sequence[float] | NDArray[np.float64]) -> tuple[pa.Table, pa.Table]:
    """Rows of records.JUDGED, and the weights of those that are kept, in order -> EXAMPLES and DISCARDED."""
    is_kept = pc.is_null(judged["reason"])
    kept = judged.filter(is_kept).append_column("weight", pa.array(weights_of_kept, pa.float64()))
    discarded = judged.filter(pc.invert(is_kept))
    return kept.select(EXAMPLES.names).cast(EXAMPLES), discarded.select(DISCARDED.names).cast(DISCARDED)


# -------------------------------------------------------------------------------------------------------------- on Ray


def write_examples(stages: Stages, weights_of: Mapping[str, NDArray[np.float64]]) -> None:
    """Write each question of ``judged/`` into ``examples/``, with its weight, or into ``discarded/``; then remove it.

    weights_of: part of ``judged/`` -> the weights of the questions that are kept, in order.
    """
    judged, examples, discarded = stages / "judged", stages / "examples", stages / "discarded"
    examples.clear()
    discarded.clear()

    def work(task: Mapping[str, Any]) -> dict[str, int]:
        part, name = task["part"], task["part"].rpartition("/")[2]
        table = judged.read(JUDGED, parts=[part])
        for folder, rows in zip((examples, discarded), weighted(table, task["weights"]), strict=True):
            if rows.num_rows:
                folder.write_part(rows, name)
        return {"num_questions": table.num_rows}

    list(run_tasks(work, [{"part": part, "weights": weights.tolist()} for part, weights in weights_of.items()]))
    judged.clear()

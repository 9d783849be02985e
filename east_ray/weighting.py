r"""Signal -> mapping -> weight: how much a question counts, from the spread of its answers.

For a question x whose n responses fall into clusters with shares p_j (EAST, arXiv 2503.23913, section 3):

    entropy  H(x) = - sum_j p_j ln p_j                       nats, 0 <= H <= ln(number of clusters)
    signal   s(x) = H(x) | 1 - pass_rate(x) | rejected_rate(x) | 1
    mapping  g(s) = s ** a   (power)   |   1 / (1 + exp(-a (s - mean) / std))   (sigmoid, smooth and bounded)
    weight   w(x) = g(s(x)) / mean over the kept questions of g(s)

so that the mean weight is 1. The base of the logarithm cancels in w. An exponent a > 1 sharpens, one in (0, 1)
flattens, 0 is uniform, and a < 0 prefers the questions that the model is sure of.

Degenerate cases, by rule and never as inf or NaN:

* exponent 0 gives weight 1 to every question, also where the signal is 0;
* a negative exponent with a signal of 0 has no weight: an error that says so;
* all signals 0 with a positive exponent leave nothing to weight by: an error that says so;
* equal signals (std 0) give every question weight 1 under the sigmoid.

>>> entropy([2, 1, 1]) == 1.5 * math.log(2)
True
>>> weights([0.0, 1.0, 2.0], exponent=1)
array([0., 1., 2.])
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Signal = Literal["entropy", "accuracy", "rejection", "uniform"]
Mapping = Literal["power", "sigmoid"]


def entropy(counts: Sequence[int]) -> float:
    """Entropy in nats of clusters of these sizes: 0 for one cluster, ln k for k equal ones.

    Sizes of 0 add nothing, and no responses at all have entropy 0. Raises ValueError for a negative size.
    """
    if any(count < 0 for count in counts):
        raise ValueError(f"cluster sizes must not be negative: {list(counts)}")
    total = sum(counts)
    if total == 0:
        return 0.0
    # fsum rounds once, so the order of the clusters cannot show in the last digit; + 0.0 turns -0.0 into 0.0.
    return -math.fsum(count / total * math.log(count / total) for count in counts if count) + 0.0


def signal(name: Signal, *, entropy: float, pass_rate: float, rejected_rate: float) -> float:
    """The number that a question's weight grows with; see the head of this module."""
    match name:
        case "entropy":
            return entropy
        case "accuracy":
            return 1.0 - pass_rate
        case "rejection":
            return rejected_rate
        case "uniform":
            return 1.0


@dataclass(frozen=True)
class Normalizer:
    """What the weights need to know of all kept questions: the one global quantity of a round.

    `signal_mean` and `signal_std` (population) serve the sigmoid; `mapped_mean` is the mean of g(s). All three are
    sums rounded once (math.fsum), so they do not depend on the order of the questions or on how they were split.
    """

    exponent: float
    mapping: Mapping
    signal_mean: float
    signal_std: float
    mapped_mean: float

    def weight(self, signals: NDArray[np.float64]) -> NDArray[np.float64]:
        """(Q,) signals of kept questions -> (Q,) weights."""
        return _mapped(signals, self.exponent, self.mapping, self.signal_mean, self.signal_std) / self.mapped_mean


def normalizer(signals: Sequence[float], exponent: float, mapping: Mapping = "power") -> Normalizer:
    """The normalizer of the kept questions' signals, (Q,); an array of doubles is not copied.

    Raises ValueError if there is no signal, one is negative, infinite or NaN, or no weights exist (see above).
    """
    values = np.asarray(signals, dtype=np.float64)
    if values.size == 0:
        raise ValueError("there is no kept question to weight")
    if not np.all(np.isfinite(values)) or np.any(values < 0):
        bad = values[~np.isfinite(values) | (values < 0)][0]
        raise ValueError(f"a signal must be a finite number of at least 0, found {bad}")
    zeros = int(np.count_nonzero(values == 0))
    if mapping == "power" and exponent < 0 and zeros:
        raise ValueError(
            f"exponent {exponent:g} is not defined for the {zeros} of {values.size} kept questions whose signal is 0; "
            "drop them (selection.all_correct: drop), or use an exponent of at least 0 or the sigmoid mapping"
        )
    if mapping == "power" and exponent > 0 and zeros == values.size:
        raise ValueError(
            f"the signal of all {values.size} kept questions is 0, so there is nothing to weight by; "
            "use weighting.signal: uniform, or sample more responses per question"
        )
    mean = math.fsum(values) / values.size
    std = math.sqrt(math.fsum((values - mean) ** 2) / values.size)
    mapped = _mapped(values, exponent, mapping, mean, std)
    mapped_mean = math.fsum(mapped) / values.size
    if not (math.isfinite(mapped_mean) and mapped_mean > 0 and np.all(np.isfinite(mapped))):
        raise ValueError(f"exponent {exponent:g} takes the signals beyond floating point; use a smaller one")
    return Normalizer(exponent, mapping, mean, std, mapped_mean)


def weights(signals: Sequence[float], exponent: float, mapping: Mapping = "power") -> NDArray[np.float64]:
    """(Q,) signals of the kept questions -> (Q,) weights with mean 1. Raises ValueError as `normalizer` does."""
    return normalizer(signals, exponent, mapping).weight(np.asarray(signals, dtype=np.float64))


def _mapped(
    signals: NDArray[np.float64], exponent: float, mapping: Mapping, mean: float, std: float
) -> NDArray[np.float64]:
    """g(s) up to a constant factor, which the normalizer cancels."""
    if mapping == "power":
        # Relative to the mean, a large exponent neither overflows nor underflows where the weights themselves do not.
        with np.errstate(over="ignore", divide="ignore"):
            return np.asarray((signals / mean) ** exponent if mean > 0 else np.ones_like(signals))
    # Rounding leaves a std of about 1e-17 for equal signals; below this the difference is noise, not information.
    if std <= 1e-12 * max(mean, 1e-300):
        return np.ones_like(signals)
    scaled = exponent * (signals - mean) / std
    # The logistic function without overflow: exp of a negative number only.
    exp = np.exp(-np.abs(scaled))
    return np.asarray(np.where(scaled >= 0, 1.0, exp) / (1.0 + exp))

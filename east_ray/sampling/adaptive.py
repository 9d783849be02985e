"""How many responses a question gets, from the sizes of the clusters of the answers that it has so far.

No rule sees a reference or what is correct. Rules are deterministic, so a run that was killed plans as before.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from east_ray.config.adaptive import AdaptiveConfig, BudgetConfig, PrecisionConfig, UnanimousConfig


class Step(NamedTuple):
    """What follows for a question: more responses, or the reason why there are none."""

    num_more: int
    stopped_because: str | None
    """all: the most was reached; unanimous; precise; budget. None while there are more."""


class LocalRule(Protocol):
    """Decides for each question alone, in the actor that asks it."""

    first: int
    """Responses that every question gets."""

    def next_step(self, sizes: Sequence[int]) -> Step:
        """What follows after responses whose answers fall into clusters of these sizes."""
        ...


def local_rule(settings: AdaptiveConfig | None, most: int) -> LocalRule:
    """The rule by which an actor decides; with a budget, that of the pilot's wave is the plan's."""
    raise NotImplementedError  # replaced by parts A and B


def standard_error(sizes: Sequence[int]) -> float:
    """Standard error, in nats, of the plug-in entropy of n responses in clusters of these sizes, by the delta method:

    the square root of (sum_j p_j (ln p_j)^2 - H^2) / n. It is 0 where all answers agree or are equally frequent.
    """
    counts = np.array([size for size in sizes if size > 0], dtype=np.float64)
    n = counts.sum()
    logs = np.log(counts / n)
    entropy = -float(np.sum(counts / n * logs))
    return math.sqrt(max(0.0, float(np.sum(counts / n * logs**2)) - entropy**2) / n)


def allocate(sizes: Sequence[Sequence[int]], num_left: int, most: int) -> NDArray[np.int64]:
    """(Q,) how many more responses each question gets of the `num_left` in the next wave; all 0 ends the sampling."""
    raise NotImplementedError  # replaced by part A


_ = (BudgetConfig, PrecisionConfig, UnanimousConfig)

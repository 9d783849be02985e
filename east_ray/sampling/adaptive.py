"""How many responses a question gets, from the sizes of the clusters of the answers that it has so far.

No rule sees a reference or what is correct. Rules are deterministic, so a run that was killed plans as before.

Two kinds. A local rule (`local_rule`) decides for each question alone, as soon as its responses are there. The budget
goes in waves: every question gets the pilot, then `allocate` says what each gets in the next wave, until it gives
nothing more. Before the first question is asked, `check_budget` says whether the budget is enough for the pilot.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from east_ray.config import InputError
from east_ray.config.adaptive import AdaptiveConfig, BudgetConfig
from east_ray.records import Stopped


class Step(NamedTuple):
    """What follows for a question: more responses, or the reason why there are none."""

    num_more: int
    stopped_because: str | None
    """A value of records.Stopped; None while there are more."""


class LocalRule(Protocol):
    """Decides for each question alone, in the actor that asks it."""

    @property
    def first(self) -> int:
        """Responses that every question gets."""
        ...

    def next_step(self, sizes: Sequence[int]) -> Step:
        """What follows after responses whose answers fall into clusters of these sizes."""
        ...


@dataclass(frozen=True)
class Unanimous:
    """A question whose first responses agree gets no more; every other one gets the most."""

    first: int
    most: int

    def next_step(self, sizes: Sequence[int]) -> Step:
        """The rest at once where two answers differ."""
        num_responses = sum(sizes)
        if num_responses >= self.most:
            return Step(0, Stopped.ALL)
        if max(sizes, default=0) == num_responses:
            return Step(0, Stopped.UNANIMOUS)
        return Step(self.most - num_responses, None)


@dataclass(frozen=True)
class Precision:
    """The responses to a question are doubled until the standard error of its entropy is at most a bound, in nats."""

    first: int
    most: int
    bound: float

    def next_step(self, sizes: Sequence[int]) -> Step:
        """As many again where the entropy is not yet known well enough."""
        num_responses = sum(sizes)
        if num_responses >= self.most:
            return Step(0, Stopped.ALL)
        if standard_error(sizes) <= self.bound:
            return Step(0, Stopped.PRECISE)
        return Step(min(num_responses, self.most - num_responses), None)


def local_rule(settings: AdaptiveConfig, most: int) -> LocalRule | None:
    """The rule by which an actor decides, where `most` is `sampling.responses_per_question`; None with a budget."""
    if settings.unanimous is not None:
        return Unanimous(settings.unanimous.first, most)
    if settings.precision is not None:
        return Precision(settings.precision.first, most, settings.precision.standard_error)
    return None


def check_budget(budget: BudgetConfig, num_questions: int) -> int:
    """The responses that so many questions get of a budget: all of it, unless that is more than the most for each.

    Raises InputError if it is not enough for the pilot.
    """
    if budget.total < budget.pilot * num_questions:
        raise InputError(
            f"sampling.adaptive.budget.total: {budget.total:,} responses are not enough for a pilot of {budget.pilot} "
            f"to each of {num_questions:,} questions; give at least {budget.pilot * num_questions:,}"
        )
    return min(budget.total, budget.max * num_questions)


#: So many responses are counted with each question as if they had given one more answer. Without them a pilot that
#: agrees would be known to the last digit, and get nothing more however short it was.
_UNSEEN = 0.05
#: If what is left is at most this share of what was spent, it is spent in one wave; else half of it is.
_LAST_WAVE = 0.12


def standard_error(sizes: Sequence[int]) -> float:
    """Standard error, in nats, of the plug-in entropy of n responses in clusters of these sizes: sigma / sqrt(n).

    sigma is that of `deviations`, so it is not 0 where all answers agree:

    >>> round(standard_error([24, 8]), 3), round(standard_error([32]), 3), round(standard_error([8]), 3)
    (0.094, 0.045, 0.141)
    """
    return float(deviations([sizes])[0]) / math.sqrt(sum(sizes))


def deviations(sizes: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """(Q,) standard deviation sigma of -ln p(answer), in nats, of questions whose clusters have these sizes.

    By the delta method the plug-in entropy H of n responses has the standard error sigma / sqrt(n), with

        sigma^2 = sum_j p_j (ln p_j)^2 - H^2

    (Basharin, 1959, Theory of Probability and Its Applications 4, 333-336). The p_j are the shares of the clusters and
    of `_UNSEEN` responses with an answer of their own. Raises ValueError for a question without responses.
    """
    lengths = np.fromiter((len(of_one) + 1 for of_one in sizes), np.int64, len(sizes))
    flat = itertools.chain.from_iterable((*of_one, _UNSEEN) for of_one in sizes)
    counts = np.fromiter(flat, np.float64, int(lengths.sum()))
    if not lengths.size:
        return np.empty(0)
    begins = np.cumsum(lengths) - lengths
    totals = np.add.reduceat(counts, begins)
    if np.any(totals < 1):
        raise ValueError("a question has no responses")
    shares = counts / np.repeat(totals, lengths)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    mean = np.add.reduceat(shares * logs, begins)
    return np.asarray(np.sqrt(np.maximum(0.0, np.add.reduceat(shares * logs**2, begins) - mean**2)))


def allocate(sizes: Sequence[Sequence[int]], num_left: int, most: int) -> NDArray[np.int64]:
    """(Q,) how many more responses each question gets of the `num_left` in the next wave; all 0 ends the sampling.

    `sizes` are those of the clusters of each question's responses so far, `most` is the most that a question gets. A
    wave gets half of what is left, the last one all, so that later waves mend what a short pilot misjudged. Of
    questions that are alike the first get more, by one response at most.

    >>> allocate([[16], [15, 1], [8, 8], [9, 4, 2, 1]], num_left=128, most=256)
    array([ 4, 29,  2, 29])
    """
    num_responses = np.fromiter(map(sum, sizes), np.int64, len(sizes))
    wave = num_left if num_left <= _LAST_WAVE * num_responses.sum() else (num_left + 1) // 2
    return shared_out(wave, deviations(sizes), num_responses, most)


def shared_out(
    total: int, deviations: NDArray[np.float64], num_responses: NDArray[np.int64], most: int
) -> NDArray[np.int64]:
    """(Q,) the `total` more responses that reduce sum_i deviation_i^2 / n_i most, where n_i is at most `most`.

    That is Neyman's allocation (1934), n_i proportional to deviation_i, in whole numbers: one response after the other
    goes where deviation / sqrt(n (n + 1)) is largest, which is exact (Wright, 2012, The American Statistician 66,
    217-224). All that are worth more than a threshold are found at once, by bisection.

    For a mean absolute error, n_i proportional to deviation_i^(2/3) would be best if the error were deviation / sqrt(n)
    for any n. It is less where other answers are rare: there the entropy is near 0, and so is its estimate. Neyman's
    allocation gives these questions less, and is no worse by that measure (tests/benchmarks/README.md, what was tried).
    """
    total = min(total, int(np.sum(most - num_responses)))

    def given(threshold: float) -> NDArray[np.int64]:
        # The response after the n-th is worth more than the threshold if n (n + 1) < (deviation / threshold)^2.
        until = np.ceil(np.sqrt(0.25 + np.minimum(deviations / threshold, most) ** 2) - 0.5)
        return np.clip(until.astype(np.int64), num_responses, most) - num_responses

    low, high = 1e-12, 1.0 + float(np.max(deviations, initial=0.0))  # `high` gives nothing
    for _ in range(100):  # more than enough for the last digit of a double
        middle = math.sqrt(low * high)
        low, high = (middle, high) if given(middle).sum() > total else (low, middle)
    more = given(high)
    while (rest := total - int(more.sum())) > 0:  # questions that reach the threshold together, and those worth nothing
        n = num_responses + more
        worth = np.where(n < most, deviations / np.sqrt(n * (n + 1.0)), -1.0)
        more[np.argsort(-worth, kind="stable")[: min(rest, int(np.sum(n < most)))]] += 1
    return more

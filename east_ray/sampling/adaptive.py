"""How many responses a question gets, from the sizes of the clusters of the answers that it has so far.

No rule sees a reference or what is correct. Rules are deterministic, so a run that was killed plans as before.

Two kinds. A local rule (`local_rule`) decides for each question alone, as soon as its responses are there. The budget
goes in waves: every question gets the pilot, then `allocate` says what each gets in the next wave, until it gives
nothing more. Before the first question is asked, `check_budget` says whether the budget is enough for the pilot.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from east_ray.config import InputError
from east_ray.config.adaptive import AdaptiveConfig, BudgetConfig


class Step(NamedTuple):
    """What follows for a question: more responses, or the reason why there are none."""

    num_more: int
    stopped_because: str | None
    """all: the most was reached; unanimous; precise; budget. None while there are more."""


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
class Fixed:
    """Every question gets `first` responses, whatever it answers: all of them, or the pilot of a budget."""

    first: int
    most: int

    def next_step(self, sizes: Sequence[int]) -> Step:
        """No more: `all` if these are the most, else `budget`, and `allocate` may still give more."""
        return Step(0, "all" if self.first >= self.most else "budget")


@dataclass(frozen=True)
class Unanimous:
    """A question whose first responses agree gets no more; every other one gets the most."""

    first: int
    most: int

    def next_step(self, sizes: Sequence[int]) -> Step:
        """The rest at once where two answers differ."""
        num_responses = sum(sizes)
        if num_responses >= self.most:
            return Step(0, "all")
        if max(sizes, default=0) == num_responses:
            return Step(0, "unanimous")
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
            return Step(0, "all")
        if standard_error(sizes) <= self.bound:
            return Step(0, "precise")
        return Step(min(num_responses, self.most - num_responses), None)


def local_rule(settings: AdaptiveConfig | None, most: int) -> LocalRule:
    """The rule by which an actor decides. `most` is `sampling.responses_per_question`; under a budget, `budget.max` is.

    Without settings every question gets the most. With a budget this is the pilot: what follows is `allocate`'s.
    """
    if settings is None:
        return Fixed(most, most)
    if settings.unanimous is not None:
        return Unanimous(settings.unanimous.first, most)
    if settings.precision is not None:
        return Precision(settings.precision.first, most, settings.precision.standard_error)
    assert settings.budget is not None
    return Fixed(settings.budget.pilot, settings.budget.max)


def check_budget(budget: BudgetConfig, num_questions: int) -> None:
    """Raises InputError if the budget is not enough for the pilot of so many questions."""
    if budget.total < budget.pilot * num_questions:
        raise InputError(
            f"sampling.adaptive.budget.total: {budget.total:,} responses are not enough for a pilot of {budget.pilot} "
            f"to each of {num_questions:,} questions; give at least {budget.pilot * num_questions:,}"
        )


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
    """(Q,) how many more responses each question gets of the `num_left` in the next wave; all 0 ends the sampling.

    `sizes` are those of the clusters of each question's responses so far, `most` is the most that a question gets.
    """
    num_responses = np.array([sum(of_one) for of_one in sizes], dtype=np.int64)
    deviations = np.array([standard_error([*of_one, 1]) * math.sqrt(sum(of_one) + 1) for of_one in sizes])
    wave = num_left if num_left <= _LAST_WAVE * num_responses.sum() else (num_left + 1) // 2
    return _spread(deviations, num_responses, wave, most)


#: If what is left is at most this share of what was spent, it is spent in one wave; else half of it is.
_LAST_WAVE = 0.2


def _spread(deviations: NDArray[np.float64], counts: NDArray[np.int64], total: int, most: int) -> NDArray[np.int64]:
    """(Q,) how `total` more responses reduce sum_i deviation_i / sqrt(n_i) most, with n_i between counts_i and most.

    One response after the other would go where deviation (1 / sqrt(n) - 1 / sqrt(n + 1)) is largest. All that are worth
    more than a threshold are found by bisection, and the few between two thresholds one by one.
    """
    total = min(total, int(np.sum(most - counts)))

    def numbers(threshold: float) -> NDArray[np.int64]:
        # deviation / (2 n^1.5) is the worth of a response between n and n + 1, up to O(1 / n).
        wanted = np.floor(np.minimum((deviations / (2 * threshold)) ** (2 / 3), most))
        return np.clip(wanted.astype(np.int64), counts, most) - counts

    low, high = 1e-12, 1e6  # a threshold of `low` asks for too many, one of `high` for none
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if numbers(middle).sum() > total else (low, middle)
    given = numbers(high)
    # Questions of equal worth pass the threshold together; the first of them get what is left, then any with room.
    rest = total - int(given.sum())
    order = np.argsort(-deviations / np.maximum(counts + given, 1) ** 1.5, kind="stable")
    while rest > 0:
        room = order[(counts + given)[order] < most][:rest]
        given[room] += 1
        rest -= len(room)
    return given

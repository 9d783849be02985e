"""How far weights are off with so many responses a question: the same for each, or by the rules of `sampling.adaptive`.

The shares of a run's clusters are taken for the truth, and responses are drawn from them again. This leaves out the
error of the shares themselves, which is that of the run's own number of responses. The truth has a small share for
answers that were not seen: without it the questions whose responses all agree would be known to have no other answer,
and an estimate that leaves this open would look worse than it is. The share is a guess, the one of that estimate, and
too small: from 128 responses a question the rules and the estimate save about half of what they do by a truth of 512.

Axes in shapes: Q questions, K clusters, R responses.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from east_ray.records import EXAMPLES, StudyFigure, StudyPage, StudySeries
from east_ray.report.wording import number_words
from east_ray.sampling.adaptive import LocalRule, Precision, Unanimous, allocate
from east_ray.storage import Folder
from east_ray.weighting import UNSEEN

#: A study draws this often, for at most so many questions.
_REPETITIONS, _MAX_QUESTIONS = 40, 1000
#: Of the rules that a study tries: the first responses and standard errors (nats) of the local ones, and a budget's.
_FIRST, _BOUNDS = 32, (0.1, 0.08, 0.05)
_PILOT, _MOST = 16, 256
_QUESTIONS_AT_ONCE = 64

NoAnswer = Literal["cluster", "exclude"]
#: (Q, K) sizes of clusters -> (Q,) entropies.
Estimate = Callable[[NDArray[np.int64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Truth:
    """What the answers to the questions are distributed like, and which questions the weights are for."""

    shares: NDArray[np.float64]
    """(Q, K) of the clusters of each question, filled up with 0."""
    is_kept: NDArray[np.bool_]
    """(Q,) whether the question is trained on."""

    @classmethod
    def of(cls, sizes: Sequence[Sequence[int]], is_kept: Sequence[bool], unseen: float = 0.0) -> "Truth":
        """From the sizes of the clusters, and of one more for the answers that were not seen.

        Raises ValueError if no kept question has two answers.
        """
        counts = np.zeros((len(sizes), max(map(len, sizes), default=0) + 1))
        for row, of_one in zip(counts, sizes, strict=True):
            row[: len(of_one)] = of_one
        kept = np.array(is_kept, dtype=np.bool_)
        if not np.any(np.count_nonzero(counts[kept], axis=1) > 1):
            raise ValueError("no kept question has two answers, so there are no weights to compare")
        counts[:, -1] = unseen
        return cls(counts / counts.sum(axis=1, keepdims=True), kept)

    def weights(self, entropies: NDArray[np.float64]) -> NDArray[np.float64]:
        """(Q,) entropies -> weights of the kept questions, with mean 1; all 0 if no entropy is above 0."""
        kept = entropies[self.is_kept]
        return np.asarray(kept / (kept.mean() or 1.0))

    def deviations(self) -> NDArray[np.float64]:
        """(Q,) true standard deviations of -ln p(answer), in nats, which no rule knows."""
        logs = np.log(self.shares, out=np.zeros_like(self.shares), where=self.shares > 0)
        return np.asarray(np.sqrt(np.maximum(0.0, (self.shares * logs**2).sum(axis=1) - entropies(self.shares) ** 2)))


class Draw:
    """Fresh responses to every question, in the order in which they would come."""

    def __init__(self, truth: Truth, most: int, rng: np.random.Generator) -> None:
        self.num_questions, self.num_clusters = truth.shares.shape
        self.most = most
        ends = np.cumsum(truth.shares, axis=1)
        drawn = rng.random((self.num_questions, most)) * ends[:, -1:]  # ends that are a digit off are never exceeded
        found = [np.searchsorted(row, one, side="right") for row, one in zip(ends, drawn, strict=True)]
        self._places = np.stack(found) + self.num_clusters * np.arange(self.num_questions)[:, None]

    def sizes(self, num_responses: NDArray[np.int64]) -> NDArray[np.int64]:
        """(Q, K) sizes of the clusters of the first responses, (Q,) of them to each question."""
        is_there = np.arange(self.most) < num_responses[:, None]
        counts = np.bincount(self._places[is_there], minlength=self.num_questions * self.num_clusters)
        return counts.reshape(self.num_questions, self.num_clusters)


#: A rule: how many responses each question gets, (Q,).
Rule = Callable[[Draw], NDArray[np.int64]]


def fixed(number: int) -> Rule:
    """The same number for each question."""
    return lambda draw: np.full(draw.num_questions, number)


def local(rule: LocalRule) -> Rule:
    """What a rule gives that decides for each question alone."""

    def numbers(draw: Draw) -> NDArray[np.int64]:
        found = np.full(draw.num_questions, rule.first)
        while True:
            more = np.array([rule.next_step(sizes).num_more for sizes in draw.sizes(found).tolist()])
            if not more.any():
                return found
            found += more

    return numbers


def budget(mean: int, pilot: int, most: int) -> Rule:
    """What a budget of so many responses a question on average gives, wave after wave."""

    def numbers(draw: Draw) -> NDArray[np.int64]:
        found = np.full(draw.num_questions, min(pilot, mean))
        while True:
            more = allocate(draw.sizes(found).tolist(), mean * draw.num_questions - int(found.sum()), most)
            if not more.any():
                return found
            found += more

    return numbers


class Outcome(NamedTuple):
    """What a rule comes to, on average over the draws."""

    num_responses: float
    """To a question."""
    error: float
    """Mean |weight - true weight| over the kept questions; the mean weight is 1."""
    standard_error: float
    """Of `error`, over the draws."""


def entropies(sizes: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """(Q, K) sizes or shares of clusters -> (Q,) entropies of the shares, in nats."""
    logs = np.log(sizes, out=np.zeros(sizes.shape), where=sizes > 0)
    totals = sizes.sum(axis=1)
    return np.asarray(np.maximum(0.0, np.log(totals) - (sizes * logs).sum(axis=1) / totals))


def smoothed(sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """(Q, K) sizes of clusters -> (Q,) `weighting.smoothed_entropy`, in nats."""
    return entropies(np.column_stack([sizes, np.full(len(sizes), UNSEEN)]))


#: By the names of `weighting.entropy_estimator`.
ESTIMATES: Mapping[str, Estimate] = {"plug_in": entropies, "smoothed": smoothed}


def outcomes(
    truth: Truth, rules: Mapping[str, Rule], most: int, repetitions: int, seed: int
) -> dict[str, dict[str, Outcome]]:
    """Estimator -> rule -> what it comes to. All see the same draws of `most` responses a question."""
    rng = np.random.default_rng(seed)
    right = truth.weights(entropies(truth.shares))
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _ in range(repetitions):
        draw = Draw(truth, most, rng)
        for rule, numbers_of in rules.items():
            sizes = draw.sizes(numbers := numbers_of(draw))
            for estimator, estimate in ESTIMATES.items():
                error = np.abs(truth.weights(estimate(sizes)) - right).mean()
                found.setdefault((estimator, rule), []).append((float(numbers.mean()), float(error)))
    return {name: {rule: _outcome(found[name, rule]) for rule in rules} for name in ESTIMATES}


def _outcome(rows: Sequence[tuple[float, float]]) -> Outcome:
    numbers, errors = np.array(rows).T
    return Outcome(float(numbers.mean()), float(errors.mean()), float(errors.std() / math.sqrt(len(rows))))


def equal_number(same: Sequence[Outcome], error: float) -> float | None:
    """The fixed number of responses that is off by as much: between those of `same`, on logarithmic axes, or None.

    `same` are outcomes of fixed numbers, which grow; an error that is larger than with fewer responses is chance.
    """
    numbers = np.log([one.num_responses for one in same])
    errors = np.log(np.minimum.accumulate([one.error for one in same]))
    if not errors[-1] <= math.log(error) <= errors[0]:
        return None
    return float(np.exp(np.interp(-math.log(error), -errors, numbers)))


# -------------------------------------------------------------------------------------------------------- for a report


def adaptive_page(
    examples: Folder, discarded: Folder, numbers: Sequence[int], num_responses: int, no_answer: NoAnswer, seed: int
) -> StudyPage:
    """What these numbers of responses, and the rules, would have come to for the questions of a training.

    `num_responses` is `sampling.responses_per_question`, the most that a question gets from the local rules.
    """
    title = "How many responses to ask for"
    stride = -(-sum(folder.read(EXAMPLES, ["entropy"]).num_rows for folder in (examples, discarded)) // _MAX_QUESTIONS)
    kept, dropped = (list(_sizes(folder, no_answer, stride)) for folder in (examples, discarded))
    try:
        truth = Truth.of([*kept, *dropped], [True] * len(kept) + [False] * len(dropped), UNSEEN)
    except ValueError as error:
        return {"title": title, "text": f"There is nothing to compare: {error}."}
    wanted = sorted(set(numbers))
    most = max(_MOST, num_responses, *wanted)
    grid = sorted({*wanted, *(int(_FIRST * 2 ** (step / 2)) for step in range(-4, 7))})
    groups = {
        "the same for each": {str(number): fixed(number) for number in grid if number <= most},
        "budget": {f"budget, mean {number}": budget(number, _PILOT, _MOST) for number in wanted},
        "precision": {
            f"precision, {bound:g} nats": local(Precision(_FIRST, num_responses, bound)) for bound in _BOUNDS
        },
        "unanimous": {f"unanimous, first {_FIRST}": local(Unanimous(_FIRST, num_responses))},
    }
    if num_responses <= _FIRST:
        del groups["precision"], groups["unanimous"]
    every = {name: rule for rules in groups.values() for name, rule in rules.items()}
    found = outcomes(truth, every, most, _REPETITIONS, seed)
    same = [*groups["the same for each"]]
    shown = {f"{number} for each": str(number) for number in wanted}
    shown |= {name: name for name in every if name not in same}
    rows = [[label, *_cells(name, found, same)] for label, name in shown.items()]
    figure: StudyFigure = {
        "title": "Error of the weights against their cost",
        "x_label": "responses a question",
        "y_label": "mean |weight - true weight|",
        "series": [
            _series(f"{label}, {estimator}", [outcome[name] for name in rules])
            for estimator, outcome in found.items()
            for label, rules in groups.items()
        ],
    }
    return {
        "title": title,
        "text": f"The shares of the answers of {len(truth.shares):,} questions are taken for the truth, with "
        f"{UNSEEN} of a response for answers that were not seen, and responses are drawn from them again, "
        f"{_REPETITIONS} times. The error is that of the weights by entropy (exponent 1, mean 1) of the kept "
        "questions. How far the shares themselves are off is left out. Where all responses to a question agree, this "
        "takes other answers for rarer than they are, so it understates what the rules and the smoothed estimate save: "
        "by about half from 128 responses a question, and from fewer it is not to be relied upon. plug_in and smoothed "
        "are values of weighting.entropy_estimator.",
        "tables": [{"caption": "By rule of sampling.adaptive", "columns": _COLUMNS, "rows": rows}],
        "curves": [figure],
    }


_COLUMNS = ["rule", "responses a question"] + [
    f"{estimator}: {column}" for estimator in ESTIMATES for column in ("error", "as good as", "saved, %")
]


def _cells(name: str, found: Mapping[str, Mapping[str, Outcome]], same: Sequence[str]) -> Iterator[str]:
    """For each estimator the error, the fixed number that is off by as much, and the share of responses saved."""
    yield f"{found['plug_in'][name].num_responses:.1f}"
    for outcome in found.values():
        one = outcome[name]
        as_good = None if name in same else equal_number([outcome[number] for number in same], one.error)
        saved = None if as_good is None else 100 * (1 - one.num_responses / as_good)
        yield f"{one.error:.3f} ± {one.standard_error:.3f}"
        yield number_words(as_good, ".0f")
        yield number_words(saved, ".0f")


def _series(label: str, rows: Sequence[Outcome]) -> StudySeries:
    rows = sorted(rows)
    return {"label": label, "x": [one.num_responses for one in rows], "y": [one.error for one in rows]}


def _sizes(folder: Folder, no_answer: NoAnswer, stride: int) -> Iterator[list[int]]:
    """Sizes of the clusters that count in the entropy, of every `stride`-th question that was sampled."""
    place = 0
    for batch in folder.batches(["clusters"], max_rows=_QUESTIONS_AT_ONCE):
        for clusters in batch["clusters"][-place % stride :: stride].to_pylist():
            counted = [one for one in clusters or [] if no_answer == "cluster" or one["answer"] is not None]
            if counted:
                yield [one["num_responses"] for one in counted]
        place += batch.num_rows

r"""Responses to one question -> clusters of equal answers. This is the only module that reads and compares responses.

A grader says what the answer of a response is and which answers are equal. Clusters follow from these two:

>>> from east_ray.answers.graders import MathGrader
>>> texts = [r"\boxed{1/2}", r"\boxed{3}", r"So \boxed{0.5}"]
>>> graded = clustered(texts, Question("q1", "What is one half?", "0.5"), MathGrader())
>>> graded.cluster, [(cluster.answer, cluster.is_correct) for cluster in graded.clusters]
([0, 1, 0], [('1/2', True), ('3', False)])
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from east_ray.config import InputError
from east_ray.records import Cluster, GradedQuestion, Question


@dataclass(frozen=True, slots=True)
class Reading:
    """The final answer of a response as a grader reads it."""

    answer: str | None
    """None: the response has no answer."""
    is_boxed: bool = False
    """The answer stood in \\boxed{}, as `selection.require_boxed` demands."""
    rule: str = ""
    """The rule that found the answer, in the grader's own words, e.g. last_number."""


class Grader(Protocol):
    """The interface of a grader. `answers.grader` names its class, made with `answers.grader_args` as keywords.

    A grader may also have a method ``can_use(reference_answer) -> bool``: whether responses can be compared with this
    reference answer. Without this method, every reference answer that is not None can be used.
    """

    def read(self, response: str, question: Question) -> Reading | str | None:
        """The final answer of a response, or None if it has none."""

    def keys(self, answers: Sequence[str], question: Question) -> Sequence[Hashable]:
        """A hashable key for each answer, the same for equal answers. The reference answer, if any, comes first."""


@dataclass(frozen=True, slots=True)
class Graded:
    """The responses to a question with their clusters. The lists have one entry per response, in sampling order."""

    answers: list[str | None]
    is_boxed: list[bool]
    cluster: list[int]
    """The index in `clusters`."""
    clusters: list[Cluster]
    """Largest first. Clusters of equal size are in the order of their first responses."""
    can_use_reference: bool
    """False: responses cannot be compared with the reference answer, so none is correct."""

    @property
    def correct_cluster(self) -> int | None:
        """The index of the cluster that has the reference answer. None: no response is correct."""
        return next((place for place, one in enumerate(self.clusters) if one.is_correct), None)

    def first(self, num_responses: int | None) -> "Graded":
        """The grading of the first `num_responses` responses alone. No response is read again. None: all responses."""
        if num_responses is None or num_responses >= len(self.cluster):
            return self
        answers, cluster = self.answers[:num_responses], self.cluster[:num_responses]
        correct = self.correct_cluster
        return _ordered(answers, self.is_boxed[:num_responses], cluster, correct, self.can_use_reference)


def entropy(counts: Sequence[int]) -> float:
    """The entropy, in nats, of clusters of these sizes: 0 for one cluster, ln k for k clusters of equal size.

    Sizes of 0 add nothing, and without responses the entropy is 0. Raises ValueError for a negative size.

    >>> entropy([2, 1, 1]) == 1.5 * math.log(2)
    True
    """
    if any(count < 0 for count in counts):
        raise ValueError(f"cluster sizes must not be negative: {list(counts)}")
    total = sum(counts)
    if total == 0:
        return 0.0
    # fsum rounds once, so the order of the clusters does not change the last digit; + 0.0 turns -0.0 into 0.0.
    return -math.fsum(count / total * math.log(count / total) for count in counts if count) + 0.0


def measured(
    question_id: str, clusters: Sequence[Cluster], no_answer: Literal["cluster", "exclude"] = "cluster"
) -> GradedQuestion:
    """A question as a signal sees it. Rates are shares of all responses, including those without an answer.

    With ``no_answer: exclude``, only the entropy leaves out responses without an answer. Such a response is never
    correct, and never counts as the commonest wrong answer. Without responses, every number is 0.
    """
    num_responses = sum(one.num_responses for one in clusters)
    counted = [one.num_responses for one in clusters if no_answer == "cluster" or one.answer is not None]
    correct = sum(one.num_responses for one in clusters if one.is_correct)
    wrong = max((one.num_responses for one in clusters if not one.is_correct and one.answer is not None), default=0)
    rates = correct / max(1, num_responses), wrong / max(1, num_responses)
    return GradedQuestion(question_id, clusters, num_responses, entropy(counted), *rates)


def clustered(responses: Sequence[str], question: Question, grader: Grader) -> Graded:
    """Read the responses to a question and cluster their answers. Raises InputError if the grader fails."""
    tally = Tally(question, grader)
    tally.add(responses)
    return tally.graded()


class Tally:
    """`clustered` for responses that arrive bit by bit. Each is read once; keys are made only for new answers."""

    def __init__(self, question: Question, grader: Grader) -> None:
        self._question, self._grader = question, grader
        self._texts: list[str] = []
        self._readings: dict[str, Reading] = {}  # by distinct text
        self._keys: dict[str, Hashable] = {}  # by answer
        self._can_use_reference = reference_check(grader)(question.reference_answer)

    def add(self, responses: Sequence[str]) -> None:
        """Read further responses, in sampling order. Raises InputError if the grader fails."""
        self._texts += responses
        for text in dict.fromkeys(responses):
            if text not in self._readings:
                self._readings[text] = self._read(text)

    def graded(self) -> Graded:
        """The clusters of all responses so far. Raises InputError if the grader fails."""
        reference = self._question.reference_answer if self._can_use_reference else None
        found = {text: reading.answer for text, reading in self._readings.items()}
        known = dict.fromkeys(answer for answer in (reference, *found.values()) if answer is not None)
        if len(known) > len(self._keys):
            self._keys = dict(zip(known, self._compared(list(known)), strict=True))
        numbers: dict[Hashable, int] = {}  # a tuple around each key, since a key may be None
        cluster_of = {
            text: numbers.setdefault(answer if answer is None else (self._keys[answer],), len(numbers))
            for text, answer in found.items()
        }
        correct = None if reference is None else numbers.get((self._keys[reference],))
        is_boxed = {text: reading.is_boxed for text, reading in self._readings.items()}
        # Responses are many and distinct texts are often few, so these lists are built by look-ups alone.
        answers, boxed = list(map(found.__getitem__, self._texts)), list(map(is_boxed.__getitem__, self._texts))
        cluster = list(map(cluster_of.__getitem__, self._texts))
        return _ordered(answers, boxed, cluster, correct, self._can_use_reference)

    def _read(self, text: str) -> Reading:
        try:
            found = self._grader.read(text, self._question)
        except Exception as error:
            raise self._failed("read", f"raised {type(error).__name__}: {error}") from error
        if isinstance(found, Reading):
            return found
        if found is None or isinstance(found, str):
            return Reading(found)
        raise self._failed("read", f"returned {type(found).__name__}; expected a string, None or a Reading")

    def _compared(self, answers: list[str]) -> Sequence[Hashable]:
        try:
            keys = list(self._grader.keys(answers, self._question))
            hash(tuple(keys))
        except Exception as error:
            raise self._failed("keys", f"raised {type(error).__name__}: {error}") from error
        if len(keys) != len(answers):
            raise self._failed("keys", f"returned {len(keys)} keys for {len(answers)} answers")
        return keys

    def _failed(self, method: str, problem: str) -> InputError:
        name = type(self._grader).__qualname__
        return InputError(f"answers.grader: {name}.{method} {problem} (question {self._question.question_id})")


def reference_check(grader: Grader) -> Callable[[str | None], bool]:
    """The grader's ``can_use``, or its default: every reference answer that is not None can be used."""
    check: Callable[[str | None], bool] = getattr(
        grader, "can_use", lambda reference_answer: reference_answer is not None
    )
    return check


def _ordered(
    answers: list[str | None], is_boxed: list[bool], cluster: list[int], correct: int | None, can_use_reference: bool
) -> Graded:
    """Clusters with any numbers -> Graded, with the largest cluster first. `correct` is one of the numbers, or None."""
    sizes = Counter(cluster)
    order = sorted(sizes, key=sizes.__getitem__, reverse=True)  # stable: equal sizes keep their order
    places = {number: place for place, number in enumerate(order)}
    clusters = [Cluster(answers[cluster.index(number)], sizes[number], number == correct) for number in order]
    return Graded(answers, is_boxed, list(map(places.__getitem__, cluster)), clusters, can_use_reference)

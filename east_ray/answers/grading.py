r"""Responses to one question -> clusters of equal answers. Every response of a run is read and compared here, and only here.

A grader says what the answer of a response is and which answers are equal. Clusters follow from that:

>>> from east_ray.answers.graders import MathGrader
>>> texts = [r"\boxed{1/2}", r"\boxed{3}", r"So \boxed{0.5}"]
>>> graded = clustered(texts, Question("q1", "What is one half?", "0.5"), MathGrader())
>>> graded.cluster, [(cluster.answer, cluster.is_correct) for cluster in graded.clusters]
([0, 1, 0], [('1/2', True), ('3', False)])
"""

import math
from collections.abc import Hashable, Sequence
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
    """The answer stood in \\boxed{}; `selection.require_boxed` asks for it."""
    rule: str = ""
    """How the answer was found, in the grader's own words, e.g. last_number."""


class Grader(Protocol):
    """What `answers.grader` names: made with `answers.grader_args` as keyword arguments.

    A grader may also have ``can_use(reference_answer) -> bool``: whether responses can be compared with this reference
    answer. Without this method every reference answer that is not None can be used.
    """

    def read(self, response: str, question: Question) -> Reading | str | None:
        """The final answer of a response, or None if it has none."""

    def keys(self, answers: Sequence[str], question: Question) -> Sequence[Hashable]:
        """A key for each answer; equal answers have equal keys. The reference answer, if there is one, comes first."""


@dataclass(frozen=True, slots=True)
class Graded:
    """The responses to a question with their clusters. The lists have one entry per response, in sampling order."""

    answers: list[str | None]
    is_boxed: list[bool]
    cluster: list[int]
    """Place in `clusters`."""
    clusters: list[Cluster]
    """Largest first; of equal size, the one whose first response comes first."""
    can_use_reference: bool
    """False: responses cannot be compared with the reference answer, so none is correct."""

    def first(self, num_responses: int | None) -> "Graded":
        """The same of the first so many responses alone, nothing read or compared again; None: of all."""
        if num_responses is None or num_responses >= len(self.cluster):
            return self
        answers, cluster = self.answers[:num_responses], self.cluster[:num_responses]
        correct = {place for place, one in enumerate(self.clusters) if one.is_correct}
        return _ordered(answers, self.is_boxed[:num_responses], cluster, correct, self.can_use_reference)


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


def measured(
    question_id: str, clusters: Sequence[Cluster], no_answer: Literal["cluster", "exclude"] = "cluster"
) -> GradedQuestion:
    """What a signal sees of a question. Rates are shares of all responses, those without an answer included.

    With ``no_answer: exclude`` the entropy alone leaves them out. A response without an answer is never correct, and it
    is never the commonest wrong answer. Without responses all of it is 0.
    """
    num_responses = sum(one.num_responses for one in clusters)
    counted = [one.num_responses for one in clusters if no_answer == "cluster" or one.answer is not None]
    correct = sum(one.num_responses for one in clusters if one.is_correct)
    wrong = max((one.num_responses for one in clusters if not one.is_correct and one.answer is not None), default=0)
    rates = correct / max(1, num_responses), wrong / max(1, num_responses)
    return GradedQuestion(question_id, clusters, num_responses, entropy(counted), *rates)


def clustered(responses: Sequence[str], question: Question, grader: Grader) -> Graded:
    """The clusters of the responses to a question."""
    tally = Tally(question, grader)
    tally.add(responses)
    return tally.graded()


class Tally:
    """The same while responses arrive: each is read once, and keys are made again only for a new answer."""

    def __init__(self, question: Question, grader: Grader) -> None:
        can_use = getattr(grader, "can_use", _is_there)
        self._question, self._grader = question, grader
        self._readings: list[Reading] = []
        self._by_text: dict[str, Reading] = {}
        self._keys: dict[str, Hashable] = {}
        self._can_use_reference: bool = can_use(question.reference_answer)

    def add(self, responses: Sequence[str]) -> None:
        """Read further responses, in sampling order. Raises InputError if the grader fails."""
        for text in responses:
            reading = self._by_text.get(text)
            if reading is None:
                reading = self._by_text[text] = self._read(text)
            self._readings.append(reading)

    def graded(self) -> Graded:
        """The clusters of all responses so far. Raises InputError if the grader fails."""
        reference = self._question.reference_answer if self._can_use_reference else None
        answers = [reading.answer for reading in self._readings]
        known = dict.fromkeys([*([] if reference is None else [reference]), *(a for a in answers if a is not None)])
        if len(known) > len(self._keys):
            self._keys = dict(zip(known, self._compared(list(known)), strict=True))
        numbers: dict[Hashable, int] = {}  # a tuple around each key, since a key may be None
        cluster = [numbers.setdefault(a if a is None else (self._keys[a],), len(numbers)) for a in answers]
        correct = None if reference is None else numbers.get((self._keys[reference],))
        boxed = [reading.is_boxed for reading in self._readings]
        return _ordered(answers, boxed, cluster, {correct} - {None}, self._can_use_reference)

    def _read(self, text: str) -> Reading:
        try:
            found = self._grader.read(text, self._question)
        except Exception as error:
            raise self._failed("read", f"raised {type(error).__name__}: {error}") from error
        if isinstance(found, Reading):
            return found
        if found is None or isinstance(found, str):
            return Reading(found)
        raise self._failed("read", f"gave {type(found).__name__}; expected text, None or a Reading")

    def _compared(self, answers: list[str]) -> Sequence[Hashable]:
        try:
            keys = list(self._grader.keys(answers, self._question))
            hash(tuple(keys))
        except Exception as error:
            raise self._failed("keys", f"raised {type(error).__name__}: {error}") from error
        if len(keys) != len(answers):
            raise self._failed("keys", f"gave {len(keys)} keys for {len(answers)} answers")
        return keys

    def _failed(self, method: str, problem: str) -> InputError:
        name = type(self._grader).__qualname__
        return InputError(f"answers.grader: {name}.{method} {problem} (question {self._question.question_id})")


def _is_there(reference_answer: str | None) -> bool:
    return reference_answer is not None


def _ordered(
    answers: list[str | None], is_boxed: list[bool], cluster: list[int], correct: set[int], can_use_reference: bool
) -> Graded:
    """Clusters numbered in any way -> Graded, with the largest cluster first."""
    first: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for index, number in enumerate(cluster):
        first.setdefault(number, index)
        sizes[number] = sizes.get(number, 0) + 1
    order = sorted(sizes, key=lambda number: (-sizes[number], first[number]))
    places = {number: place for place, number in enumerate(order)}
    clusters = [Cluster(answers[first[number]], sizes[number], number in correct) for number in order]
    return Graded(answers, is_boxed, [places[number] for number in cluster], clusters, can_use_reference)

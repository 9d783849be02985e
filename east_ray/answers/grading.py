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
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

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


class GraderError(Exception):
    """A grader failed on a response or a question. What stands before the first ": " has nothing of their texts."""


class Grader(Protocol):
    """The interface of a grader. `answers.grader` names its class, made with `answers.grader_args` as keywords.

    A grader may also have a method ``can_use(reference_answer) -> bool``: whether responses can be compared with this
    reference answer. Without this method, every reference answer that is not None can be used. A method
    ``read_each(responses, question)`` reads several responses at once; in place of a Reading it may give a GraderError.
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
    num_failed: int = 0
    """Responses that have no answer because the grader failed on them. It is not stored in ``answers/``."""
    error: str | None = None
    """How the grader failed first."""

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

    Sizes of 0 add nothing, and without responses the entropy is 0. Raises InputError for a size that is negative or
    not finite.

    >>> entropy([4]), entropy([2, 2]) == math.log(2)
    (0.0, True)
    """
    if not all(0 <= count < math.inf for count in counts):
        raise InputError(f"cluster sizes must be finite and not negative: {list(counts)}")
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
    return GradedQuestion(question_id, clusters, num_responses, entropy(counted), *rates, counted)


def clustered(responses: Sequence[str], question: Question, grader: Grader) -> Graded:
    """Read the responses to a question and cluster their answers. Where the grader fails there is no answer."""
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
        self._can_use_reference: bool | None = None  # not yet asked
        self._failed_on = set[str]()  # texts on which the grader failed
        self._error: str | None = None
        self._failure: str | None = None  # on the question, which is not tried again

    def add(self, responses: Sequence[str]) -> None:
        """Read further responses, in sampling order."""
        self._texts += responses
        new = [text for text in dict.fromkeys(responses) if text not in self._readings]
        if self._failure:
            self._fail(self._failure, *new)
            return
        for text, found in zip(new, read_each(self._grader, new, self._question), strict=True):
            if isinstance(found, GraderError):
                self._fail(str(found), text)
            else:
                self._readings[text] = found

    def graded(self) -> Graded:
        """The clusters of all responses so far."""
        try:
            reference = self._compare()
        except GraderError as error:  # which response is to blame cannot be told
            self._failure = str(error)
            self._fail(self._failure, *(text for text, reading in self._readings.items() if reading.answer is not None))
            reference = None
        found = {text: reading.answer for text, reading in self._readings.items()}
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
        graded = _ordered(answers, boxed, cluster, correct, bool(self._can_use_reference))
        if self._failed_on:
            num_failed = sum(map(self._failed_on.__contains__, self._texts))
            graded = replace(graded, num_failed=num_failed, error=self._error)
        return graded

    def _compare(self) -> str | None:
        """Make the keys of all answers. The reference answer, if responses can be compared with it."""
        if self._failure:
            raise GraderError(self._failure)
        if self._can_use_reference is None:
            self._can_use_reference = can_use(self._grader, self._question.reference_answer)
        reference = self._question.reference_answer if self._can_use_reference else None
        answers = [reference, *(reading.answer for reading in self._readings.values())]
        known = list(dict.fromkeys(answer for answer in answers if answer is not None))
        if len(known) > len(self._keys):
            self._keys = dict(zip(known, compared(self._grader, known, self._question), strict=True))
        return reference

    def _fail(self, error: str, *texts: str) -> None:
        self._readings |= dict.fromkeys(texts, Reading(None))
        self._failed_on.update(texts)
        self._error = self._error or f"{error} (question {self._question.question_id})"


def read_each(grader: Grader, responses: Sequence[str], question: Question) -> Iterator[Reading | GraderError]:
    """The reading of each response, or how the grader failed on it."""
    if at_once := getattr(grader, "read_each", None):
        yield from at_once(responses, question)
        return
    for text in responses:
        try:
            yield read(grader, text, question)
        except GraderError as error:
            yield error


def read(grader: Grader, response: str, question: Question) -> Reading:
    """The reading of a response. Raises GraderError."""
    try:
        found = grader.read(response, question)
    except Exception as error:
        raise failure(grader, "read", error) from error
    if isinstance(found, Reading):
        return found
    if found is None or isinstance(found, str):
        return Reading(found)
    raise failure(grader, "read", f"returned {type(found).__name__}; expected a string, None or a Reading")


def compared(grader: Grader, answers: Sequence[str], question: Question) -> list[Hashable]:
    """The grader's key for each answer. Raises GraderError."""
    try:
        keys = list(grader.keys(answers, question))
        hash(tuple(keys))
    except Exception as error:
        raise failure(grader, "keys", error) from error
    if len(keys) != len(answers):
        raise failure(grader, "keys", f"returned {len(keys)} keys for {len(answers)} answers")
    return keys


def can_use(grader: Grader, reference_answer: str | None) -> bool:
    """The grader's ``can_use``, or its default: every reference answer that is not None. Raises GraderError."""
    check = getattr(grader, "can_use", None)
    try:
        return bool(check(reference_answer)) if check else reference_answer is not None
    except Exception as error:
        raise failure(grader, "can_use", error) from error


def failure(grader: Grader, method: str, problem: BaseException | str) -> GraderError:
    """The error of a grader's method that raised an error, or did what `problem` says."""
    if isinstance(problem, GraderError):
        return problem
    said = problem if isinstance(problem, str) else f"raised {type(problem).__name__}: {problem}"
    name = getattr(grader, "called_as", f"{type(grader).__name__}.{method}")
    return GraderError(f"{name} {said.splitlines()[0][:500]}")


@dataclass
class Failures:
    """On how many responses the grader failed, and how first. Such responses have no answer."""

    num_responses: int = 0
    error: str | None = None

    def add(self, num_responses: int, error: str | None) -> None:
        """Count further responses."""
        self.num_responses += num_responses
        self.error = self.error or error

    @property
    def counts(self) -> dict[str, Any]:
        """For the record of a stage: nothing if the grader never failed."""
        if self.num_responses == 0:
            return {}
        return {"num_grader_failures": self.num_responses, "first_grader_failure": self.error}

    def report(self, say: Callable[[str], None], num_all: int) -> None:
        """Say how many of all responses have no answer because of failures, if any."""
        if self.num_responses:
            said = (
                f"the grader failed on {self.num_responses:,} of {num_all:,} responses, which have no answer therefore"
            )
            say(f"{'':<12}{said}; the first error: {self.error}")


def reference_check(grader: Grader) -> Callable[[str | None], bool]:
    """`can_use` of a grader. Where the grader fails the reference answer counts as usable, and the answers tell."""

    def check(reference_answer: str | None) -> bool:
        try:
            return can_use(grader, reference_answer)
        except GraderError:
            return reference_answer is not None

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

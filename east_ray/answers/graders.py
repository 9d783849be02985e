"""The built-in graders of `answers.grader`, and the function that loads a grader."""

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from east_ray import doors
from east_ray.answers.equality import Equivalence, answer_keys, as_options_text, is_parsable_reference
from east_ray.answers.extraction import Extraction, extract
from east_ray.answers.grading import Grader, Reading
from east_ray.answers.isolation import Isolated
from east_ray.answers.thinking import UnclosedThinking
from east_ray.config import AnswersConfig, InputError
from east_ray.config.base import compiled_pattern
from east_ray.records import Question

GRADERS = {
    "math": "east_ray.answers.graders:MathGrader",
    "choice": "east_ray.answers.short_answers:ChoiceGrader",
    "text": "east_ray.answers.short_answers:TextGrader",
    "number": "east_ray.answers.short_answers:NumberGrader",
}
READ_WITH = ("last_number", "unclosed_thinking", "announcements", "pattern")
"""The settings of `answers` that are arguments of every built-in grader."""


class MarkedAnswers:
    """Finds the answer that a response marks: the first half of every built-in grader.

    Args:
        last_number, unclosed_thinking, announcements, pattern: the settings of these names in `answers`.
    """

    def __init__(
        self,
        last_number: bool = False,
        unclosed_thinking: UnclosedThinking = "count",
        announcements: Sequence[str] = (),
        pattern: str | None = None,
    ) -> None:
        self._last_number, self._unclosed_thinking = last_number, unclosed_thinking
        self._announcements = tuple(announcements)
        self._pattern = None if pattern is None else compiled_pattern(pattern)

    def found(self, response: str) -> Extraction:
        """The answer of a response, the rule that found it and where, or why there is none."""
        return extract(
            response,
            last_number=self._last_number,
            unclosed_thinking=self._unclosed_thinking,
            announcements=self._announcements,
            pattern=self._pattern,
        )

    def read(self, response: str, question: Question) -> Reading:
        """The answer in the last box, else after "####", in tags, or after words such as "the answer is"."""
        found = self.found(response)
        return Reading(found.answer, found.boxed, found.rule)


class MathGrader(MarkedAnswers):
    """The grader for mathematical questions. Equal answers follow the conventions of equality.py.

    Args:
        equivalence: the setting `answers.equivalence`, math or string.
        how_read: see `MarkedAnswers`.
    """

    def __init__(self, equivalence: Equivalence = "math", **how_read: Any) -> None:
        super().__init__(**how_read)
        self._equivalence = equivalence

    def keys(self, answers: Sequence[str], question: Question) -> Sequence[Hashable]:
        """The same key for mathematically equal answers or, with `equivalence: string`, for equal texts.

        "(B) 12" is read as the letter B if the reference answer is a letter, as 12 if it is something else.
        """
        if self._equivalence == "math" and question.reference_answer is not None:
            answers = as_options_text(answers, question.reference_answer)
        return answer_keys(answers, self._equivalence)

    def can_use(self, reference_answer: str | None) -> bool:
        """Whether responses can be compared with the reference answer (see `is_parsable_reference`)."""
        return is_parsable_reference(reference_answer)


class FunctionGrader:
    """A user's function of (response, question): the answer's text, or None. Equal texts are equal answers."""

    def __init__(self, function: Callable[..., str | None], arguments: Mapping[str, Any]) -> None:
        self.called_as = getattr(function, "__name__", type(function).__name__)
        self._function = functools.partial(function, **arguments)

    def read(self, response: str, question: Question) -> str | None:
        """What the function returns."""
        return self._function(response, question)

    def keys(self, answers: Sequence[str], question: Question) -> Sequence[Hashable]:
        """The answers themselves."""
        return answers


def load(settings: AnswersConfig) -> Grader:
    """The grader that the settings name; a user's own runs in a process of its own.

    Raises InputError if it cannot be made or does not fit.
    """
    spelled, made_with = settings.grader, settings.grader_args
    kind = doors.load("answers.grader", spelled, GRADERS)
    if spelled in GRADERS:
        names = (*READ_WITH, "equivalence") if spelled == "math" else READ_WITH
        made_with = {name: getattr(settings, name) for name in names} | made_with
    elif callable(kind) and not inspect.isclass(kind):
        kind, made_with = FunctionGrader, {"function": kind, "arguments": made_with}
    try:
        grader: Grader = kind(**made_with)
    except Exception as error:
        raise InputError(f"answers.grader_args: {spelled} cannot be made with them ({error})") from error
    missing = [name for name in ("read", "keys") if not callable(getattr(grader, name, None))]
    if missing:
        raise InputError(f"answers.grader: {spelled} has no method {missing[0]}; expected read and keys, or a function")
    return grader if spelled in GRADERS else Isolated(grader, spelled, settings.grader_timeout_s)

"""A row of a questions file -> a question: one function for each layout, and the door for layouts of a user's own.

A format is a function of a row and the `questions` section. It returns a mapping with `question` and
`reference_answer`, and optionally `reference_solution`, `level`, `subject` and `question_id`; None stands for what the
row does not have. To add one, write such a function and name it in `FORMATS`, or in a configuration
(`questions.format: my_module:my_format`).

>>> def quiz(row: Mapping[str, Any], settings: QuestionsConfig) -> dict[str, Any]:
...     return {"question": row["ask"], "reference_answer": str(row["key"]), "level": row["stars"]}
>>> normalized(quiz, {"ask": "1 + 1?", "key": 2, "stars": 3}, QuestionsConfig(path="quiz.jsonl"))["reference_answer"]
'2'
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from east_ray import answers, doors
from east_ray.config import InputError, QuestionsConfig
from east_ray.config.base import hint

Format = Callable[[Mapping[str, Any], QuestionsConfig], Mapping[str, Any]]

#: The built-in formats: `module:name` of a function, or of a class that is instantiated once for each file.
FORMATS = {
    "auto": "east_ray.questions.formats:Auto",
    "gsm8k": "east_ray.questions.formats:gsm8k",
    "math": "east_ray.questions.formats:math",
    "columns": "east_ray.questions.formats:columns",
}

#: GSM8K's calculator annotations, <<48/2=24>>, which no model should learn to write.
_CALCULATOR = re.compile(r"<<[^<>]*>>")

_TEXT = (str,)
_LABEL = (str, int, float)
#: What a format returns: each key with the types of its value, which may also be None.
_FIELDS = {
    "question": _TEXT,
    "reference_answer": _TEXT,
    "reference_solution": _TEXT,
    "level": _LABEL,
    "subject": _LABEL,
    "question_id": _LABEL,
}
_REQUIRED = ("question", "reference_answer")


def load(settings: QuestionsConfig) -> Format:
    """The format that `questions.format` names. Raises InputError if it cannot be loaded or is no function."""
    found = doors.load("questions.format", settings.format, FORMATS)
    if isinstance(found, type):
        found = found()
    if not callable(found):
        raise InputError(
            f"questions.format: {settings.format} is of type {type(found).__name__}; expected a function of a row and "
            "the section questions"
        )
    read: Format = found
    return read


def normalized(read: Format, row: Mapping[str, Any], settings: QuestionsConfig) -> dict[str, str | None]:
    """What a format makes of a row, checked: every field as text or None.

    Raises InputError, which says what is wrong with the row or with the result of a user's format.
    """
    try:
        result = read(row, settings)
    except InputError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise InputError(f"{settings.format} failed with {type(error).__name__}: {error}".splitlines()[0]) from error
    if not isinstance(result, Mapping):
        raise InputError(f"{settings.format} returned {_kind(result)}; expected a mapping of {', '.join(_FIELDS)}")
    if missing := [key for key in _REQUIRED if key not in result]:
        raise InputError(f"{settings.format} returned no {missing[0]!r}; found {', '.join(map(repr, sorted(result)))}")
    for key, value in result.items():
        if key not in _FIELDS:
            near = hint(str(key), list(_FIELDS)) or f"; expected some of {', '.join(_FIELDS)}"
            raise InputError(f"{settings.format} returned the unknown key {key!r}{near}")
        if isinstance(value, bool) or not isinstance(value, _FIELDS[key] + (type(None),)):
            expected = "text" if _FIELDS[key] is _TEXT else "text or a number"
            raise InputError(f"{settings.format} returned {_kind(value)} as {key!r}; expected {expected}")
    return {key: _label(result.get(key)) for key in _FIELDS}


def cell(row: Mapping[str, Any], column: str) -> Any:
    """The value in a column. Raises InputError naming the columns of the row if this one is missing."""
    if column not in row:
        raise InputError(f"column {column!r} is missing; found {', '.join(map(repr, sorted(row)))}")
    return row[column]


# -------------------------------------------------------------------------------------------------- built-in formats


class Auto:
    """Reads a whole file as the layout that its first row has."""

    def __init__(self) -> None:
        self._read: Format | None = None

    def __call__(self, row: Mapping[str, Any], settings: QuestionsConfig) -> Mapping[str, Any]:
        """The question of a row. Raises InputError if the first row has none of the known layouts."""
        if self._read is None:
            self._read = _format_of(row)
        return self._read(row, settings)


def _format_of(row: Mapping[str, Any]) -> Format:
    if {"problem", "solution"} <= row.keys():
        return math
    if {"question", "answer"} <= row.keys() and "####" in str(row["answer"]):
        return gsm8k
    if {"question", "reference_answer"} <= row.keys():
        return columns
    raise InputError(
        f"the columns {sorted(row)} are neither GSM8K's (question, answer with ####) nor MATH's (problem, solution); "
        "set questions.format: columns and name them"
    )


def gsm8k(row: Mapping[str, Any], settings: QuestionsConfig) -> Mapping[str, Any]:
    """GSM8K: {question, answer}, where the answer is a worked solution that ends in "#### 72"."""
    solution, marker, answer = (_text(row, "answer") or "").rpartition("####")
    reference = answer.strip() if marker else None
    return {
        "question": _text(row, "question"),
        "reference_answer": reference,
        "reference_solution": _boxed_solution(_CALCULATOR.sub("", solution).strip(), reference),
        **_labels(row),
    }


def math(row: Mapping[str, Any], settings: QuestionsConfig) -> Mapping[str, Any]:
    """MATH: {problem, solution}, with the answer in the solution's last box unless a column `answer` gives it."""
    solution = _text(row, "solution") or ""
    given = row.get("answer")
    return {
        "question": _text(row, "problem"),
        "reference_answer": str(given) if given is not None else answers.extract_answer(solution),
        "reference_solution": solution or None,
        "question_id": _label(row.get("unique_id")),
        **_labels(row),
    }


def columns(row: Mapping[str, Any], settings: QuestionsConfig) -> Mapping[str, Any]:
    """Any layout whose columns `questions.question_column` and its like name."""
    reference = _text(row, settings.reference_answer_column)
    column = settings.reference_solution_column
    return {
        "question": _text(row, settings.question_column),
        "reference_answer": reference,
        "reference_solution": _boxed_solution(_text(row, column) or "", reference) if column else None,
        **_labels(row),
    }


def _text(row: Mapping[str, Any], column: str) -> str | None:
    value = cell(row, column)
    return None if value is None else str(value).strip()


def _labels(row: Mapping[str, Any]) -> dict[str, str | None]:
    return {"level": _label(row.get("level")), "subject": _label(row.get("subject", row.get("type")))}


def _label(value: Any) -> str | None:
    """A value as text, whatever type the source has (MATH-500's levels are numbers)."""
    return None if value is None else str(value)


def _boxed_solution(solution: str, reference: str | None) -> str | None:
    """The worked solution, ending in the reference answer in a box, as the prompt asks of a response."""
    if not solution or "\\boxed" in solution or reference is None:
        return solution or None
    return f"{solution}\nThe answer is \\boxed{{{reference}}}."


def _kind(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"

"""A row of a questions file -> a question: one function for each layout, and the door for layouts of a user's own.

A format is a function of a row and the `questions` section. It returns a mapping with `question` and
`reference_answer`, and optionally `reference_solution`, `level`, `subject` and `question_id`; None stands for what the
row does not have. A user's own is named in a configuration (`questions.format: my_module:my_format`).

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
FORMATS = {"auto": f"{__name__}:Auto"} | {name: f"{__name__}:{name}" for name in ("gsm8k", "math", "columns")}

#: What a format returns: texts, of which the first two are required, and labels, which may also be numbers.
_TEXTS = ("question", "reference_answer", "reference_solution")
_LABELS = ("level", "subject", "question_id")


def load(settings: QuestionsConfig) -> Format:
    """The format that `questions.format` names. Raises InputError if it cannot be loaded or is no function."""
    found = doors.load("questions.format", settings.format, FORMATS)
    read: Format = found() if isinstance(found, type) else found
    if not callable(read):
        raise InputError(
            f"questions.format: {settings.format} is of type {type(read).__name__}; expected a function of a row and "
            "the section questions"
        )
    return read


def normalized(read: Format, row: Mapping[str, Any], settings: QuestionsConfig) -> dict[str, str | None]:
    """What a format makes of a row, checked: every field as text or None.

    Raises InputError, which says what is wrong with the row or with the result of a user's format.
    """
    name, fields = settings.format, (*_TEXTS, *_LABELS)
    try:
        result = read(row, settings)
    except InputError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise InputError(f"{name} failed with {type(error).__name__}: {error}".splitlines()[0]) from error
    if not isinstance(result, Mapping):
        raise InputError(f"{name} returned {_kind(result)}; expected a mapping of {', '.join(fields)}")
    for key in ("question", "reference_answer"):
        if key not in result:
            raise InputError(f"{name} returned no {key!r}; found {', '.join(map(repr, sorted(result)))}")
    for key, value in result.items():
        if key not in fields:
            near = hint(str(key), list(fields)) or f"; expected some of {', '.join(fields)}"
            raise InputError(f"{name} returned the unknown key {key!r}{near}")
        if isinstance(value, bool) or not isinstance(value, str | None if key in _TEXTS else str | int | float | None):
            expected = "text" if key in _TEXTS else "text or a number"
            raise InputError(f"{name} returned {_kind(value)} as {key!r}; expected {expected}")
    return {key: _label(result.get(key)) for key in fields}


def cell(row: Mapping[str, Any], column: str) -> Any:
    """The value in a column. Raises InputError naming the columns of the row if this one is missing."""
    if column not in row:
        raise InputError(f"column {column!r} is missing; found {', '.join(map(repr, sorted(row)))}")
    return row[column]


class Auto:
    """Reads a whole file as the layout that its first row has."""

    _read: Format | None = None

    def __call__(self, row: Mapping[str, Any], settings: QuestionsConfig) -> Mapping[str, Any]:
        """The question of a row. Raises InputError if the first row has none of the known layouts."""
        if self._read is None:
            if {"problem", "solution"} <= row.keys():
                self._read = math
            elif {"question", "answer"} <= row.keys() and "####" in str(row["answer"]):
                self._read = gsm8k
            elif {"question", "reference_answer"} <= row.keys():
                self._read = columns
            else:
                raise InputError(
                    f"the columns {sorted(row)} are neither GSM8K's (question, answer with ####) nor MATH's (problem, "
                    "solution); set questions.format: columns and name them"
                )
        return self._read(row, settings)


def gsm8k(row: Mapping[str, Any], settings: QuestionsConfig) -> Mapping[str, Any]:
    """GSM8K: {question, answer}, where the answer is a worked solution that ends in "#### 72"."""
    solution, marker, answer = (_text(row, "answer") or "").rpartition("####")
    # Without the calculator annotations, <<48/2=24>>, which no model should learn to write.
    worked = re.sub(r"<<[^<>]*>>", "", solution).strip()
    return _asked(row, "question", answer.strip() if marker else None, worked)


def math(row: Mapping[str, Any], settings: QuestionsConfig) -> Mapping[str, Any]:
    """MATH: {problem, solution}, with the answer in the solution's last box unless a column `answer` gives it."""
    solution = _text(row, "solution") or ""
    given = row.get("answer")
    return {
        "question": _text(row, "problem"),
        "reference_answer": str(given) if given is not None else answers.extract_answer(solution),
        "reference_solution": solution or None,
        "question_id": _label(row.get("unique_id")),
        **level_and_subject(row),
    }


def columns(row: Mapping[str, Any], settings: QuestionsConfig) -> Mapping[str, Any]:
    """Any layout whose columns `questions.question_column` and its like name."""
    column, reference = settings.reference_solution_column, _text(row, settings.reference_answer_column)
    return _asked(row, settings.question_column, reference, (column and _text(row, column)) or "")


def _text(row: Mapping[str, Any], column: str) -> str | None:
    value = cell(row, column)
    return None if value is None else str(value).strip()


def level_and_subject(row: Mapping[str, Any]) -> dict[str, str | None]:
    """`level` and `subject` of a row, in the columns that MATH and this package name them by."""
    return {"level": _label(row.get("level")), "subject": _label(row.get("subject", row.get("type")))}


def _label(value: Any) -> str | None:
    return None if value is None else str(value)  # MATH-500's levels are numbers


def _asked(row: Mapping[str, Any], column: str, reference: str | None, solution: str) -> dict[str, str | None]:
    """A question; its worked solution ends in the reference answer in a box, as the prompt asks of a response."""
    if solution and "\\boxed" not in solution and reference is not None:
        solution = f"{solution}\nThe answer is \\boxed{{{reference}}}."
    asked = {"question": _text(row, column), "reference_answer": reference, "reference_solution": solution or None}
    return asked | level_and_subject(row)


def _kind(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"

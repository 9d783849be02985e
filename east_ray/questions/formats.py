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
from typing import Any, TypeVar

from east_ray import answers, doors
from east_ray.config import InputError, QuestionsConfig
from east_ray.config.base import hint
from east_ray.reading.fields import answer_text, field, is_missing, prompt_text, response_text

Format = Callable[[Mapping[str, Any], QuestionsConfig], Mapping[str, Any]]

#: The built-in formats: `module:name` of a function, or of a class that is instantiated once for each file.
FORMATS = {"auto": f"{__name__}:Auto"} | {name: f"{__name__}:{name}" for name in ("gsm8k", "math", "columns")}

#: What a format returns: texts, of which the first two are required, and labels, which may also be numbers.
_TEXTS = ("question", "reference_answer", "reference_solution")
_LABELS = ("level", "subject", "question_id")
#: A text of more words is a worked solution, in which the words before the answer announce it.
_ANSWER_WORDS = 3

_Value = TypeVar("_Value")


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
    found = {key: _label(result.get(key)) for key in fields}
    try:
        "".join(filter(None, found.values())).encode()
    except UnicodeEncodeError:
        raise InputError("half of a surrogate pair, which is not text") from None
    return found


def reference_answer(value: Any) -> str | None:
    r"""A reference answer, as text; of a worked solution that marks one (#### 72, \boxed{72}, the answer is 72) that.

    None: there is none. Raises InputError, which says what was found, for anything but a text or a number, or a list of
    one.

    >>> reference_answer([72]), reference_answer("2 * 36 = 72\n#### 72"), reference_answer("1/2")
    ('72', '72', '1/2')
    """
    text = answer_text(value)
    if text is None or not ("####" in text or "\\boxed" in text or len(text.split()) > _ANSWER_WORDS):
        return text
    found = answers.extract_answer(text)
    return text if found is None and "####" not in text and "\\boxed" not in text else found


class Auto:
    """Reads all rows as the layout that the first one with a known layout has."""

    _read: Format | None = None

    def __call__(self, row: Mapping[str, Any], settings: QuestionsConfig) -> Mapping[str, Any]:
        """The question of a row. Raises InputError if no row before it and not this one has a known layout."""
        if self._read is None:
            self._read = layout(row, settings)
        if self._read is None:
            raise InputError(
                f"the columns {sorted(map(str, row))} are neither GSM8K's (question, answer with ####) nor MATH's "
                "(problem, solution or answer); set questions.format: columns and name them; where no question has a "
                "reference answer, questions.reference_answer_column: null"
            )
        return self._read(row, settings)


def layout(row: Mapping[str, Any], settings: QuestionsConfig) -> Format | None:
    """The format that the columns of a row say; None: no known one. Raises InputError for an answer that is none."""
    if "problem" in row and ("solution" in row or "answer" in row):
        return math
    if {"question", "answer"} <= row.keys():
        if "####" in str(row["answer"]):
            return gsm8k
        if len((_read(row, "answer", reference_answer) or "").split()) <= _ANSWER_WORDS:
            return _question_and_answer
    if {"question", "reference_answer"} <= row.keys() or settings.reference_answer_column is None:
        return columns
    return None


def gsm8k(row: Mapping[str, Any], settings: QuestionsConfig) -> Mapping[str, Any]:
    """GSM8K: {question, answer}, where the answer is a worked solution that ends in "#### 72"."""
    solution, marker, answer = (_read(row, "answer", response_text) or "").rpartition("####")
    # Without the calculator annotations, <<48/2=24>>, which no model should learn to write.
    worked = re.sub(r"<<[^<>]*>>", "", solution).strip()
    return _asked(row, "question", answer.strip() if marker else None, worked)


def math(row: Mapping[str, Any], settings: QuestionsConfig) -> Mapping[str, Any]:
    """MATH: {problem, solution}, with the answer in the solution's last box unless a column `answer` gives it."""
    answer = _read(row, "answer", reference_answer) if "answer" in row else None
    solution = (_read(row, "solution", response_text) if "solution" in row or "answer" not in row else None) or ""
    return {
        "question": _question(row, "problem"),
        "reference_answer": answer or answers.extract_answer(solution),
        "reference_solution": solution.strip() or None,
        "question_id": _label(row.get("unique_id")),
        **level_and_subject(row),
    }


def columns(row: Mapping[str, Any], settings: QuestionsConfig) -> Mapping[str, Any]:
    """Any layout whose columns `questions.question_column` and its like name."""
    column, of_answer = settings.reference_solution_column, settings.reference_answer_column
    reference = None if of_answer is None else _read(row, of_answer, reference_answer)
    return _asked(row, settings.question_column, reference, (column and _read(row, column, response_text)) or "")


def _question_and_answer(row: Mapping[str, Any], settings: QuestionsConfig) -> Mapping[str, Any]:
    return _asked(row, "question", _read(row, "answer", reference_answer), "")


def _question(row: Mapping[str, Any], name: str) -> str | None:
    text = _read(row, name, prompt_text)
    return None if text is None else text.strip()


def _read(row: Mapping[str, Any], name: str, reader: Callable[[Any], _Value]) -> _Value:
    """What a reader makes of a value. Raises InputError, which begins with the name, if it cannot be read."""
    value = field(row, name)
    try:
        return reader(value)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def level_and_subject(row: Mapping[str, Any]) -> dict[str, str | None]:
    """`level` and `subject` of a row, in the columns that MATH and this package name them by."""
    return {"level": _label(row.get("level")), "subject": _label(row.get("subject", row.get("type")))}


def _label(value: Any) -> str | None:
    return None if is_missing(value) else str(value)  # MATH-500's levels are numbers


def _asked(row: Mapping[str, Any], column: str, reference: str | None, solution: str) -> dict[str, str | None]:
    """A question; its worked solution ends in the reference answer in a box, as the prompt asks of a response."""
    if solution and "\\boxed" not in solution and reference is not None:
        solution = f"{solution}\nThe answer is \\boxed{{{reference}}}."
    asked = {"question": _question(row, column), "reference_answer": reference}
    return asked | {"reference_solution": solution.strip() or None, **level_and_subject(row)}


def _kind(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"

"""A row of given samples -> a row of ``samples/``, or the reason why it cannot be used."""

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from east_ray import answers
from east_ray.config import SamplesConfig
from east_ray.records import SetAside

#: The column ``model`` of given samples.
GIVEN = "given"
_MAX_NUM_TOKENS = 2**31 - 1

Row = Mapping[str, Any]

#: What other servers call the two ways in which a response ends.
_FINISH_REASONS = dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence", "completed"), "stop") | (
    dict.fromkeys(("length", "max_tokens", "max_length"), "length")
)


class MalformedRowError(ValueError):
    """A row of given samples cannot be read; the message says what was expected."""


def kind_of(value: Any) -> str:
    """The type of a value, for a message."""
    return "null" if value is None else type(value).__name__


def cell(row: Row, column: str) -> Any:
    """The value in a column. Raises MalformedRowError naming the columns of the row if this one is missing."""
    if column not in row:
        raise MalformedRowError(f"column {column!r} is missing; found {', '.join(map(repr, sorted(row)))}")
    return row[column]


def given_sample(row: Row, columns: SamplesConfig, question_id: str) -> dict[str, Any]:
    """A row of a file, with the columns that the configuration names -> a row of records.SAMPLES.

    A response that is null has no text; a missing number of tokens stays null. Raises MalformedRowError.
    """
    question = cell(row, columns.question_column)
    reference = cell(row, columns.reference_answer_column)
    responses = cell(row, columns.responses_column)
    if question is not None and not isinstance(question, str):
        raise MalformedRowError(f"{columns.question_column}: expected text, found {kind_of(question)}")
    if responses is not None and not isinstance(responses, list):
        raise MalformedRowError(f"{columns.responses_column}: expected a list of responses, found {kind_of(responses)}")
    if columns.id_column is not None:
        given_id = cell(row, columns.id_column)
        if given_id is None or isinstance(given_id, dict | list):
            raise MalformedRowError(f"{columns.id_column}: expected a name, found {kind_of(given_id)}")
        question_id = str(given_id)
    sample = {
        "question_id": question_id,
        "question": (question or "").strip(),
        "reference_answer": _reference_answer(reference),
        "reference_solution": None,
        "level": _label(row.get("level")),
        "subject": _label(row.get("subject", row.get("type"))),
        "extra": _extra(row.get("extra")),
        "model": GIVEN,
        "prompt": None,
        "num_prompt_tokens": None,
        "responses": [_response(value, columns, number) for number, value in enumerate(responses or [], start=1)],
    }
    _check_text(sample)
    return sample


def set_aside_reason(
    sample: Row, can_use: Callable[[str | None], bool] = answers.is_parsable_reference
) -> SetAside | None:
    """Why the responses to a question cannot be graded; None if they can. `can_use` takes the reference answer."""
    if not sample["question"]:
        return SetAside.EMPTY_QUESTION
    if not can_use(sample["reference_answer"]):
        return SetAside.UNPARSABLE_REFERENCE
    return None if sample["responses"] else SetAside.NO_RESPONSES


def _label(value: Any) -> str | None:
    return None if value is None else str(value)


def _extra(value: Any) -> str | None:
    """The column `extra` of samples that a run of ours made: a JSON object. Anything else is another's, and is left."""
    try:
        return value if isinstance(value, str) and isinstance(json.loads(value), dict) else None
    except ValueError:
        return None


def _reference_answer(value: Any) -> str | None:
    if value is None or value != value:  # noqa: PLR0124 - NaN, as pandas writes what is missing
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise MalformedRowError(f"reference answer: expected text or a number, found {kind_of(value)}")
    text = str(value).strip()
    return answers.extract_answer(text) if "####" in text or "\\boxed" in text else text


def _response(value: Any, columns: SamplesConfig, number: int) -> dict[str, Any]:
    where = f"{columns.responses_column}, response {number}"
    num_tokens = finish_reason = None
    if isinstance(value, dict):
        num_tokens, finish_reason = value.get(columns.num_tokens_field), value.get(columns.finish_reason_field)
        value = _field(value, columns.text_field, where)
    if value is not None and not isinstance(value, str):
        raise MalformedRowError(f"{where}: expected text, found {kind_of(value)}")
    known = isinstance(num_tokens, int) and not isinstance(num_tokens, bool) and 0 <= num_tokens <= _MAX_NUM_TOKENS
    reason = finish_reason if isinstance(finish_reason, str) else "stop"
    return {
        "text": value or "",
        "num_tokens": num_tokens if known else None,
        "finish_reason": _FINISH_REASONS.get(reason.casefold(), reason),
        "logprob": None,
    }


def _field(response: Row, path: str, where: str) -> Any:
    """The value at a dotted path; None where the way there is null, as in a request that failed."""
    value: Any = response
    for name in path.split("."):
        if value is None:
            return None
        if not isinstance(value, dict) or name not in value:
            there = ", ".join(map(repr, sorted(value))) if isinstance(value, dict) else kind_of(value)
            raise MalformedRowError(f"{where}: field {path!r} is missing; found {there}")
        value = value[name]
    return value


def _check_text(sample: Row) -> None:
    texts = [sample[name] or "" for name in ("question_id", "question", "reference_answer", "level", "subject")]
    texts += [response[name] for response in sample["responses"] for name in ("text", "finish_reason")]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise MalformedRowError("half of a surrogate pair, which is not text") from None

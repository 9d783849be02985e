"""A row of another sampler's file -> a row of records.SAMPLES: a question, its reference, one or all responses."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from east_ray.config import InputError, SamplesConfig
from east_ray.config.base import together
from east_ray.questions import stage as questions
from east_ray.questions.formats import level_and_subject, reference_answer
from east_ray.reading.fields import (
    MISSING,
    answer_text,
    comes_from_assistant,
    field,
    from_json,
    is_conversation,
    is_error,
    is_missing,
    is_parts,
    kind,
    only,
    optional,
    printed_length,
    prompt_text,
    response_text,
)
from east_ray.records import SetAside
from east_ray.sampling.backends import FINISH_REASONS

Row = Mapping[str, Any]

#: The name that `samples.finish_reason_field` has by default, which need not be there, and another for the same.
_USUAL, _ALSO_USUAL = "finish_reason", "stop_reason"
_AS_PRINTED = "found a list as Python prints it; write it as JSON"


def given_sample(row: Row, columns: SamplesConfig, question_id: str) -> dict[str, Any]:
    """A row of a file, with the columns that the configuration names -> a row of records.SAMPLES.

    `question_id` is the question's name if the row gives none. Further keys, which records.SAMPLES does not have, are
    num_dropped, the number of responses that are none: errors, and nulls without a finish reason; and
    num_finish_reasons and num_num_tokens, for how many responses the row has these. With `samples.questions` the
    question and its reference are left empty.

    Raises InputError, which says all that was expected and not found, if the row cannot be read.
    """
    problems = list[str]()

    def of(name: str) -> str:
        return "id_column: " if name == columns.id_column else ""

    def read(name: str, value_of: Callable[[Any], Any]) -> Any:
        try:
            value = field(row, name)
        except InputError as error:
            elsewhere = "; if the references are in another file, name it by samples.questions; if there are none, "
            elsewhere += "samples.reference_answer_column: null and labels.source: majority"
            problems.append(f"{of(name)}{error}{elsewhere if name == columns.reference_answer_column else ''}")
            return None
        try:
            return value_of(value)
        except InputError as error:
            problems.append(f"{of(name)}{name}: {error}")
            return None

    question = reference = None
    if columns.questions is None:
        question = read(columns.question_column, prompt_text)
        if columns.reference_answer_column is not None:
            reference = read(columns.reference_answer_column, reference_answer)
    if columns.id_column is not None:
        question_id = read(columns.id_column, _name)
    kept = {name: read(name, lambda value: value) for name in columns.extra_columns}
    try:
        found = _responses(row, columns)
    except InputError as error:
        problems.append(str(error))
    if problems:
        raise InputError(together(problems))
    asked = {"question_id": question_id, "question": (question or "").strip(), "reference_answer": reference}
    asked |= level_and_subject(row)
    texts = [*asked.values(), *(response[name] for response in found.responses for name in ("text", "finish_reason"))]
    try:
        "".join(filter(None, texts)).encode()
    except UnicodeEncodeError:
        raise InputError("half of a surrogate pair, which is not text") from None
    extra = json.dumps(kept, default=str) if kept else _extra(row.get("extra"))
    asked |= {"extra": extra, "model": "given", "responses": found.responses, "num_responses": len(found.responses)}
    return asked | found.counts


def why_set_aside(sample: Row, can_use: questions.CanUse = questions.HAS_REFERENCE) -> SetAside | None:
    """Why the responses to a question cannot be graded; None if they can."""
    return questions.set_aside_reason(sample, can_use) or (None if sample["responses"] else SetAside.NO_RESPONSES)


def is_wanted(row: Row, where: Mapping[str, Any]) -> bool:
    """Whether a row has these values in its columns, of a list one. A number equals its text, as a CSV file has it."""
    return all(any(_equal(optional(row, name), one) for one in one_of(value)) for name, value in where.items())


def one_of(value: Any) -> list[Any]:
    """The values of `samples.where` of which a row has to have one."""
    return value if isinstance(value, list) else [value]


def group_of(row: Row, sample: Row, columns: SamplesConfig) -> str:
    """What is the same in all rows of a question. Raises InputError if the row lacks a column of `samples.group_by`."""
    if columns.group_by is not None:
        names = [columns.group_by] if isinstance(columns.group_by, str) else columns.group_by
        return json.dumps([_named(row, name) for name in names])
    if columns.id_column is not None:
        return str(sample["question_id"])
    return json.dumps([sample["question"], sample["reference_answer"]])


def needed_columns(columns: SamplesConfig) -> set[str]:
    """The columns that a row is read by; of a table, no others need to be read."""
    names = [columns.question_column] if columns.questions is None else []
    names += [columns.reference_answer_column] if columns.questions is None and columns.reference_answer_column else []
    for one in (columns.response_column or columns.responses_column, columns.finish_reasons_column, columns.group_by):
        names += [one] if isinstance(one, str) else one or []
    if columns.response_column is not None:
        names += [columns.finish_reason_field, _ALSO_USUAL, columns.num_tokens_field, "error"]
    names += [*columns.where, *columns.extra_columns, *filter(None, [columns.id_column])]
    return {*names, "level", "subject", "type", "extra"}


def optional_names(columns: SamplesConfig) -> Iterator[tuple[str, str, str]]:
    """(setting, name, key of `given_sample`) of each name that not every row must have, but some row.

    The usual names, which are the defaults, need not be there.
    """
    if columns.finish_reasons_column is None and columns.finish_reason_field != _USUAL:
        yield "finish_reason_field", columns.finish_reason_field, "num_finish_reasons"
    if columns.num_tokens_field != "num_tokens":
        yield "num_tokens_field", columns.num_tokens_field, "num_num_tokens"


def _equal(found: Any, wanted: Any) -> bool:
    if isinstance(found, bool) == isinstance(wanted, bool) and found == wanted:
        return True
    return isinstance(found, str) != isinstance(wanted, str) and None not in (found, wanted) and _as_text(found, wanted)


def _as_text(found: Any, wanted: Any) -> bool:
    return str(found).casefold() == str(wanted).casefold()


def _name(value: Any) -> str:
    """A value that names a question or a group."""
    try:
        name = answer_text(value)
    except InputError:
        name = None
    if name is None:
        raise InputError(f"expected a name, found {kind(value)}")
    return name


def _named(row: Row, column: str) -> str:
    try:
        return _name(field(row, column))
    except InputError as error:
        message = str(error)
    raise InputError(message if message.startswith(("column ", "field ")) else f"{column}: {message}")


def _extra(value: Any) -> str | None:
    """The column `extra` of samples that a run of ours made: a JSON object. Anything else is another's, and is left."""
    try:
        return value if isinstance(value, str) and isinstance(json.loads(value), dict) else None
    except ValueError:
        return None


# --------------------------------------------------------------------------------------------------------- responses


class _Found(NamedTuple):
    """The responses of a row, and the counts that `given_sample` adds."""

    responses: list[dict[str, Any]]
    counts: Counter[str]


def _responses(row: Row, columns: SamplesConfig) -> _Found:
    single, several = columns.response_column, columns.responses_column
    values = [field(row, single)] if single is not None else _listed(row, several, "responses")
    values = [only(value) for value in values]
    if single is not None:
        _check_single(values[0], single)
    reasons = _finish_reasons(row, columns, len(values))
    found, lacking = _Found([], Counter(num_dropped=0, num_finish_reasons=0, num_num_tokens=0)), list[str]()
    for number, (value, reason) in enumerate(zip(values, reasons, strict=True), start=1):
        at = single or (f"{several}, response {number}" if isinstance(several, str) else several[number - 1])
        holders = [value] if single is None else [value, row]
        try:
            text = response_text(value, columns.text_field)
        except InputError as error:
            if not _lacks_text(value, columns.text_field):
                raise InputError(f"{at}: {error}") from None
            lacking.append(f"{at}: {error}; text_field says where the text of a response is, e.g. message.content")
            continue
        response = _response(text, _reason_of(holders, reason, columns), holders, columns, at, found.counts)
        found.responses.extend([] if response is None else [response])
    if lacking and not found.responses:  # none has the field, so its name may be wrong
        raise InputError(lacking[0])
    found.counts["num_dropped"] += len(lacking)
    return found


def _response(
    text: str | None, reason: Any, holders: Sequence[Any], columns: SamplesConfig, at: str, counts: Counter[str]
) -> dict[str, Any] | None:
    """A response of records.SAMPLES; None if it is none: null without a finish reason, or what came before an error."""
    counts["num_finish_reasons"] += reason is not MISSING
    try:
        said = _finish_reason(reason)
    except InputError as error:
        raise InputError(f"{at}, finish reason: {error}") from None
    has_error = any(isinstance(holder, Mapping) and is_error(holder.get("error")) for holder in holders)
    if has_error or (text is None and said is None) or (said or "").casefold() == "error":
        counts["num_dropped"] += 1
        return None
    num_tokens = _first(holders, columns.num_tokens_field)
    counts["num_num_tokens"] += num_tokens is not MISSING
    return {
        "text": text or "",
        "num_tokens": num_tokens if type(num_tokens) is int and 0 <= num_tokens < 1 << 31 else None,
        "finish_reason": FINISH_REASONS.get(said.casefold(), said) if said else "stop",
        "logprob": None,
    }


def _reason_of(holders: Sequence[Any], reason: Any, columns: SamplesConfig) -> Any:
    """The finish reason that a column of its own has, or else a field of the response, or of its row; or MISSING."""
    if reason is MISSING:
        reason = _first(holders, columns.finish_reason_field)
    if reason is MISSING and columns.finish_reason_field == _USUAL:
        also = _first(holders, _ALSO_USUAL)  # in vLLM's outputs, it is the number of the token that ended it
        reason = also if isinstance(also, str) else MISSING
    return reason


def _listed(row: Row, columns: str | Sequence[str], what: str) -> list[Any]:
    """The list in a column, or of the values of several columns. A list in JSON is read; null is an empty list."""
    if not isinstance(columns, str):
        return [field(row, name) for name in columns]
    value = field(row, columns)
    value = None if is_missing(value) else from_json(value)  # text that is no JSON is refused below
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        if is_conversation(value[0]) or is_parts(value[0]):
            break
        value = value[0]
    if printed_length(value):
        raise InputError(f"{columns}: expected a list of {what}, {_AS_PRINTED}")
    if value is not None and not isinstance(value, list):
        expected = f"a list of {what}; if a row is one response, name it by response_column"
        raise InputError(f"{columns}: expected {expected}, found {kind(value)}")
    found: list[Any] = value or []
    if is_conversation(found) and not comes_from_assistant(found):
        raise InputError(
            f"{columns}: expected a list of {what}, found a conversation; response_column takes its last turn"
        )
    return found


def _check_single(value: Any, name: str) -> None:
    """Raises InputError if the text of a response is a list of several, which would be weighed as one."""
    if printed_length(value) > 1:
        raise InputError(f"{name}: expected one response, {_AS_PRINTED}")
    if not isinstance(value, str) or value is (found := from_json(value)) or is_conversation(found):
        return
    if len(found) > 1 and any(all(isinstance(one, of) for one in found) for of in (str, Mapping)):
        what = "texts" if isinstance(found[0], str) else "objects"
        raise InputError(
            f"{name}: expected one response, found a list of {len(found)} {what} in JSON; name it by responses_column"
        )


def _finish_reasons(row: Row, columns: SamplesConfig, num_responses: int) -> list[Any]:
    """The finish reason of each response, as a column of its own gives it, or MISSING."""
    name = columns.finish_reasons_column
    if name is None:
        return [MISSING] * num_responses
    value = field(row, name) if isinstance(name, str) else None
    if isinstance(value, str) and columns.response_column is not None:
        return [value]
    found = _listed(row, name, "finish reasons")
    if isinstance(name, str) and value is None:  # as in a data set whose rows come from several sources
        return [None] * num_responses
    if len(found) != num_responses:
        raise InputError(f"{name}: {len(found)} finish reasons for {num_responses} responses")
    return found


def _finish_reason(value: Any) -> str | None:
    """A finish reason as text; None if it is not known."""
    if value is MISSING or is_missing(value):
        return None
    if not isinstance(value, str):
        inside = f" with {', '.join(map(repr, value))}; a dotted name leads into it" if isinstance(value, dict) else ""
        inside = "; finish_reasons_column names a list of one for each response" if isinstance(value, list) else inside
        raise InputError(f"expected text such as stop or length, found {kind(value)}{inside}")
    return value or None


def _lacks_text(value: Any, name: str) -> bool:
    """Whether a response is an object that has not the field of the text, and is no message."""
    if not isinstance(value, Mapping) or optional(value, name) is not MISSING:
        return False
    return not is_conversation([value])


def _first(holders: Sequence[Any], name: str) -> Any:
    """The value of this name in the first object that has it."""
    found = (optional(holder, name) for holder in holders if isinstance(holder, Mapping))
    return next((value for value in found if value is not MISSING), MISSING)

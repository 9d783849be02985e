"""Columns by their names and by their values: which of those that could be meant is meant."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from east_ray.config import InputError
from east_ray.reading.fields import (
    answer_text,
    comes_from_assistant,
    from_json,
    is_conversation,
    is_parts,
    kind,
    opened,
    printed_length,
    prompt_text,
    response_text,
)

Kind = Callable[[Any], bool]
One = TypeVar("One")

#: Of columns that are numbered, r1_solution_1, r1_solution_2: what their common name has to speak of.
_NUMBERED = re.compile(
    r"(.*(?:solution|response|generation|output|completion|sample|rollout|candidate).*?)[_. -]?(\d+)", re.IGNORECASE
)


def fields_of(rows: Sequence[Any], max_depth: int = 4) -> dict[str, list[Any]]:
    """Dotted name -> its values in the rows, without nulls and empty lists; the columns first, then what is in them."""
    found: dict[str, list[Any]] = {}
    level: list[tuple[str, Any]] = [("", row) for row in rows]
    for _ in range(max_depth):
        level = [
            (f"{path}.{name}" if path else str(name), value)
            for path, values in level
            if isinstance(values, Mapping)
            for name, value in values.items()
        ]
        for path, value in level:
            found.setdefault(path, []).extend([] if value is None or value == [] else [value])
    return found


def best(
    fields: Mapping[str, list[Any]], groups: Sequence[str], fits: Kind, avoid: Sequence[str] = (), share: float = 0.5
) -> str | None:
    """The name that ends as one of the first possible group, least nested; more than a `share` of its values fit.

    One that is in few rows is passed over for one that is in many: see `first_common`.
    """
    found = list[tuple[str, int]]()
    for group in groups:
        ranks = {name: rank for rank, name in enumerate(group.split())}
        known = [
            (name.count("."), ranks[ending], name) for name in fields for ending in _endings(name) if ending in ranks
        ]
        for *_, name in sorted(known):
            num_fit = sum(map(fits, fields[name]))
            if name not in avoid and num_fit > share * len(fields[name]):
                found.append((name, num_fit))
    return first_common(found)


def first_common(found: Sequence[tuple[One, int]]) -> One | None:
    """The first of several that are each in a number of rows, but none in half as many as another is, or in fewer.

    >>> first_common([("gold", 1), ("answer", 3), ("label", 3)])
    'answer'
    """
    most = max((number for _, number in found), default=0)
    return next((one for one, number in found if 2 * number > most), None)


def _endings(name: str) -> Iterator[str]:
    """The last part of a name and the last two, as the tables above have them: Model-Output is model_output."""
    parts = [re.sub(r"[^a-z0-9]+", "_", part.casefold()) for part in name.split(".")]
    yield parts[-1]
    yield ".".join(parts[-2:])


def numbered(fields: Mapping[str, list[Any]]) -> list[str]:
    """Columns of texts that only a number tells apart, in its order; none if there are fewer than two."""
    stems: dict[str, list[tuple[int, str]]] = {}
    for name, values in fields.items():
        if (found := _NUMBERED.fullmatch(name)) and any(map(is_response, values)):
            stems.setdefault(found[1], []).append((int(found[2]), name))
    longest = max(stems.values(), key=len, default=[])
    return [name for _, name in sorted(longest)] if len(longest) > 1 else []


# ----------------------------------------------------------------------------------------------------- kinds of values


def is_prompt(value: Any) -> bool:
    """Whether a value can be a question: a text, a list of one, or messages with a user's turn."""
    with suppress(InputError):
        return bool((prompt_text(value) or "").strip())
    return False


def is_reference(value: Any) -> bool:
    """Whether a value can be a reference answer: a text or a number, or a list of one."""
    with suppress(InputError):
        return bool(answer_text(value))
    return False


def are_flags(name: str, values: Sequence[Any]) -> bool:
    """Whether a column called label has only 0 and 1, which say whether something holds, and answer no question."""
    return "label" in _endings(name) and all(str(value) in ("0", "1", "0.0", "1.0") for value in values)


def held(values: Sequence[Any]) -> str:
    """What a column holds, for a message, by its first value: ``bool``, ``a list of texts``, …"""
    value = values[0]
    if not isinstance(value, list) or not value:
        return kind(value)
    kinds = (("texts", str), ("numbers", int | float), ("lists", list), ("objects", Mapping))
    return "a list of " + next(
        (name for name, of in kinds if all(isinstance(one, of) for one in value)), "several kinds"
    )


def is_response(value: Any) -> bool:
    """Whether a value can be one response: a text, a message, or a conversation with an assistant's turn."""
    with suppress(InputError):
        return bool((response_text(value) or "").strip()) and not is_responses(value) and not printed_length(value)
    return False


def is_responses(value: Any) -> bool:
    """Whether a value can be a list of responses: texts or objects, some of them null, and no conversation."""
    value = flat(value)
    if not isinstance(value, list) or not (there := [one for one in value if one is not None]):
        return False
    if is_parts(there) or (is_conversation(there) and (len(there) == 1 or not comes_from_assistant(there))):
        return False
    return all(isinstance(one, Mapping | str) for one in there)


def has_user(value: Any) -> bool:
    """Whether a value is a conversation in which not only an assistant speaks."""
    return holds_conversation(value) and not comes_from_assistant(opened(value))


def holds_conversation(value: Any) -> bool:
    """Whether a value is a conversation, or a text of JSON with one."""
    with suppress(InputError):
        return is_conversation(opened(value))
    return False


def flat(value: Any) -> Any:
    """The list in a list of one list, as lm-evaluation-harness has it, or in a text of JSON, as tables have it."""
    value = from_json(value)
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    return value


def is_parallel(value: Any, lengths: set[int]) -> bool:
    """Whether a value is a list of texts and nulls, as long as one of the lists of responses."""
    return isinstance(value, list) and len(value) in lengths and all(isinstance(one, str | None) for one in value)


def is_count(value: Any) -> bool:
    """Whether a value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)

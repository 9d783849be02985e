r"""Values in a row by their dotted names, and the text of a prompt, a response or a reference in whatever holds it.

>>> row = {"doc": {"question": "1 + 1?"}, "resps": [["2"]], "chat": [{"role": "user", "content": "1 + 1?"}]}
>>> field(row, "doc.question"), field(row, "resps.0"), prompt_text(row["chat"])
('1 + 1?', ['2'], '1 + 1?')
>>> response_text({"message": {"content": "It is 2.", "reasoning_content": "1, 2"}}, "message.content")
'<think>\n1, 2\n</think>\n\nIt is 2.'
"""

import difflib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

from east_ray.config import InputError
from east_ray.config.base import hint
from east_ray.reading.rendered import user_turn

#: What `optional` gives for a value that is not there.
MISSING = object()
#: Who speaks in a turn of a conversation, by the names that formats have for it.
_USER, _ASSISTANT = ("user", "human"), ("assistant", "gpt", "model", "chatbot", "bot")
#: Names that are looked through for the nearest one, and how deep they may lie.
_MAX_NAMES, _MAX_DEPTH = 500, 6


#: A conversation as Python prints it, which no JSON is.
_PRINTED = re.compile(r"\[\s*\{\s*'(?:role|content|from|value)'\s*:")
#: What Python prints for a text in a list, and a list of such as Python prints it, or numpy, without commas. Nothing is
#: tried twice in them, so that the time is linear.
_PRINTED_TEXT = r"""(?:'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+"|None|nan)"""
_PRINTED_LIST = re.compile(rf"\[\s*+{_PRINTED_TEXT}(?:\s*+,?\s*+(?:{_PRINTED_TEXT}|\.\.\.))*+\s*+\]", re.DOTALL)
_PRINTED_OBJECTS = re.compile(r"\[\s*+\{\s*+'[^']++'\s*+:.*\}\s*\]", re.DOTALL)


def is_missing(value: Any) -> bool:
    """Whether a value is none: null, or what programs write for one: NaN, and NA and NaT of pandas."""
    if isinstance(value, float | Decimal):
        return value.is_nan() if isinstance(value, Decimal) else math.isnan(value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def is_error(value: Any) -> bool:
    """Whether the value of an `error` tells of one. An object whose values are all null does not, nor does a number."""
    if isinstance(value, Mapping):
        return not all(map(is_missing, value.values()))
    return value is True or (isinstance(value, str | list) and bool(value))


def kind(value: Any) -> str:
    """What a value is, for a message: ``null``, ``str``, ``list``, …"""
    return "null" if value is None else type(value).__name__


def field(row: Mapping[str, Any], name: str) -> Any:
    """The value with this name: a column, or what dots and indices lead to, e.g. ``doc.choices.0``.

    A key that has the dots itself comes first. The value is None where the way to it ends in null, or in an object with
    an `error`, as in a request that failed. Raises InputError, which names what is there, if there is no such value.
    """
    if (value := optional(row, name)) is not MISSING:
        return value
    if _ends_in_error(row, name.split(".")):
        return None
    names = list(itertools.islice(names_in(row), _MAX_NAMES))
    ending = [one for one in names if one.endswith(f".{name}")]
    near = _list_with(row, name, ending[0]) if ending else hint(name, names) or _hint_of_last(name, names)
    near = near or "".join(f"; did you mean {one!r}?" for one in row if _plainly(one) == _plainly(name))
    what = "field" if "." in name else "column"
    raise InputError(f"{what} {name!r} is missing; found {', '.join(map(repr, sorted(map(str, row))))}{near}")


def optional(row: Mapping[str, Any], name: str) -> Any:
    """As `field`, but MISSING if there is no such value."""
    return row[name] if name in row else next(_values(row, name.split(".")), MISSING)


def _plainly(name: Any) -> str:
    return str(name).strip().casefold()


def _list_with(row: Mapping[str, Any], name: str, nested: str) -> str:
    """Where the name is found instead: in a list of several objects, none of which is meant, or elsewhere."""
    path = nested.split(".")
    for end in (number for number, key in enumerate(path) if number and key == "0"):
        inside = optional(row, ".".join(path[:end]))
        if isinstance(inside, list) and len(inside) > 1:
            return (
                f"; {'.'.join(path[:end])} is a list of {len(inside)} objects that have {'.'.join(path[end + 1 :])!r}"
            )
    return f"; did you mean {nested}?"


def _hint_of_last(name: str, names: Sequence[str]) -> str:
    """The name whose last part is nearest to that of the missing one: ``target`` for ``doc.targte``."""
    last = {one.rpartition(".")[2]: one for one in reversed(names)}
    near = difflib.get_close_matches(name.rpartition(".")[2], last, n=1, cutoff=0.75)
    return f"; did you mean {last[near[0]]}?" if near else ""


def _values(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """The values that a path leads to, those of the longest keys first."""
    if not path or value is None:
        yield value
    elif isinstance(value, Mapping):
        for length in range(len(path), 0, -1):
            if (key := ".".join(path[:length])) in value:
                yield from _values(value[key], path[length:])
    elif isinstance(value, list) and path[0].isdecimal() and int(path[0]) < len(value):
        yield from _values(value[int(path[0])], path[1:])


def _ends_in_error(value: Any, path: Sequence[str]) -> bool:
    """Whether a path ends in an object that has an `error` in place of what comes next."""
    for key in path:
        if not isinstance(value, Mapping):
            return False
        if key not in value:
            return is_error(value.get("error"))
        value = value[key]
    return False


def names_in(value: Any, prefix: str = "", depth: int = _MAX_DEPTH) -> Iterator[str]:
    """The names of all that is in a row, e.g. ``doc``, ``doc.choices``, ``doc.choices.0``; of a list, the first."""
    inside: Iterator[tuple[Any, Any]] = iter(())
    if depth and isinstance(value, Mapping):
        inside = iter(value.items())
    elif depth and isinstance(value, list) and not _is_text_list(value):
        inside = iter(enumerate(value[:1]))
    for key, inner in inside:
        yield f"{prefix}{key}"
        yield from names_in(inner, f"{prefix}{key}.", depth - 1)


def _is_text_list(value: list[Any]) -> bool:
    return bool(value) and isinstance(value[0], str)


# ------------------------------------------------------------------------------------------------------------- texts


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages: {role, content} or {from, value}."""
    return isinstance(value, list) and bool(value) and all(map(_is_message, value))


def comes_from_assistant(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all messages are an assistant's, so that each of them is a response."""
    return all(_role(message) in _ASSISTANT for message in messages)


def prompt_text(value: Any) -> str | None:
    """The question in a prompt: a text, a list of one text, or the last turn of the user in a conversation.

    A conversation may be a text of JSON, as tables have it, or one that a chat template has rendered.
    Raises InputError, which says what was found, for anything else.
    """
    value = opened(value)
    if is_conversation(value):
        return _last_turn(value, _USER, "user")
    if isinstance(value, Mapping) and _is_message(value):
        return _last_turn([value], _USER, "user")
    if is_parts(value):
        return _joined_parts(value, _USER)
    if value is not None and not isinstance(value, str):
        raise InputError(f"expected text or messages, found {kind(value)}{_names_inside(value)}")
    return value and user_turn(value)


def response_text(value: Any, name: str = "text") -> str | None:
    """The text of a response: a text, a list of one, the last turn of the assistant, or the field `name` of an object.

    Parts of a content are joined, and `reasoning_content` comes before the content in <think> tags, which stay open if
    there is no content. None: there is no text. Raises InputError, which says what was found, for anything else.
    """
    value = opened(value)
    if is_conversation(value):
        return _last_turn(value, _ASSISTANT, "assistant")
    if isinstance(value, Mapping):
        if _is_message(value) and name.partition(".")[0] not in value:
            return _last_turn([value], _ASSISTANT, "assistant")
        text = opened(field(value, name))
        holder = field(value, name.rpartition(".")[0]) if "." in name and name not in value else value
        if isinstance(text, Mapping | list) and not is_parts(text):
            return response_text(text)
        return _with_thinking(holder, text, _ASSISTANT)
    if is_parts(value):
        return _joined_parts(value, _ASSISTANT)
    if value is not None and not isinstance(value, str):
        raise InputError(f"expected text, found {kind(value)}")
    return value


def answer_text(value: Any) -> str | None:
    """A reference answer as text: a text, a number without exponent, or a list of one of these; NaN is missing.

    Raises InputError, which says what was found, for anything else.
    """
    value = only(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        found = "an empty list" if value == [] else f"{kind(value)}{_names_inside(value)}"
        raise InputError(f"expected text or a number, found {found}")
    if isinstance(value, str | int) or not Decimal(value).is_finite():
        return str(value).strip()
    exact = value if isinstance(value, Decimal) else Decimal(repr(value))
    return format(exact.to_integral_value() if exact == exact.to_integral_value() else exact, "f")


def only(value: Any) -> Any:
    """The value itself, or the one element of a list of one, of a list of a list of one, …; None if it is missing.

    A message stays in its list, and so does a part of a content.
    """
    while isinstance(value, list) and len(value) == 1 and not is_conversation(value) and not is_parts(value):
        value = value[0]
    return None if is_missing(value) else value


def from_json(value: Any) -> Any:
    """The list in a text of JSON, as tables have it; any other value as it is."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def printed_length(value: Any) -> int:
    r"""How many texts or objects are in a list that Python or numpy has printed, as far as is seen; 0: it is none.

    >>> printed_length("['a', \"it's b\"]"), printed_length("['a'\n 'b']"), printed_length('["a", "b"]')
    (2, 2, 0)
    """
    if not isinstance(value, str) or from_json(value) is not value:
        return 0
    if _PRINTED_LIST.fullmatch(value.strip()):
        return len(re.findall(_PRINTED_TEXT, value, re.DOTALL))
    return value.count("{'") if _PRINTED_OBJECTS.fullmatch(value.strip()) else 0


def opened(value: Any) -> Any:
    """As `only`, and the conversation in a text of JSON. Raises InputError for one that Python has printed."""
    value = only(value)
    if isinstance(value, str) and re.match(r"\s*\[\s*\{", value):
        with suppress(ValueError, RecursionError):
            inside = json.loads(value)
            return inside if is_conversation(inside) else value
        if _PRINTED.match(value.lstrip()):
            raise InputError("expected text or messages, found messages as Python prints them; write them as JSON")
    return value


def _names_inside(value: Any) -> str:
    """The names inside an object, of which one may be meant."""
    if not isinstance(value, Mapping) or not value:
        return ""
    return f" with {', '.join(map(repr, sorted(map(str, value))))}; a dotted name leads into it"


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(_role(value), str) and ("content" in value or "value" in value)


def _role(message: Mapping[str, Any]) -> Any:
    role = message.get("role", message.get("from"))
    return role.casefold() if isinstance(role, str) else None


def _last_turn(conversation: Sequence[Mapping[str, Any]], roles: Sequence[str], name: str) -> str | None:
    for message in reversed(conversation):
        if _role(message) in roles:
            content = message["content"] if "content" in message else message.get("value")
            return _with_thinking(message, content, roles)
    there = ", ".join(dict.fromkeys(repr(_role(message)) for message in conversation))
    raise InputError(f"expected a conversation with a turn of the {name}, found turns of {there}")


def _with_thinking(message: Any, content: Any, roles: Sequence[str]) -> str | None:
    """The content of a message, after the thinking that a server keeps beside it."""
    content = only(content)
    if is_parts(content):
        content = _joined_parts(content, roles)
    if content is not None and not isinstance(content, str):
        raise InputError(f"expected text, found {kind(content)}{_names_inside(content)}")
    names = ("reasoning_content", "reasoning") if _is_message(message) else ("reasoning_content",)
    thoughts = [message.get(name) for name in names] if isinstance(message, Mapping) else []
    thought = next((one for one in thoughts if isinstance(one, str) and one.strip()), None)
    return content if thought is None else _thinking(thought, content)


def _thinking(thought: str, content: str | None) -> str:
    begun = f"<think>\n{thought.strip()}\n"
    return begun if content is None else f"{begun}</think>\n\n{content}"


def is_parts(value: Any) -> bool:
    """Whether a value is the content of a message in parts: {type, text}."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) and "type" in one for one in value)


def _joined_parts(parts: Sequence[Mapping[str, Any]], roles: Sequence[str]) -> str | None:
    """The texts of the parts, after their thinking. Raises InputError for a part that is neither, such as an image.

    Beside a text of the assistant such parts are left out: thinking that is not shown, or calls of tools.
    """
    texts, thoughts, others = list[str](), list[str](), list[Any]()
    for part in parts:
        name = str(part["type"]).removeprefix("input_").removeprefix("output_")
        text = part.get(name) if name in ("text", "thinking", "reasoning") else None
        if isinstance(text, str):
            (texts if name == "text" else thoughts).append(text)
        else:
            others.append(part["type"])
    if others and (not texts or roles != _ASSISTANT):
        raise InputError(f"expected content parts of type 'text', found one of type {others[0]!r}")
    content = "".join(texts) if texts else None
    return _thinking("\n".join(thoughts), content) if thoughts else content

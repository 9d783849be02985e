"""What every section of the settings is made of: strict fields, names of parts, dotted keys."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


class InputError(ValueError):
    """Something that a user gave cannot be used. The message is one sentence: which file, row or key; what to give."""


class Section(BaseModel):
    """A section of the settings: unknown keys and other types are refused, and nothing can be changed later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class Part:
    """Marks a string that names a built-in part, or a user's own as ``package.module:name``; checks the spelling.

    The room that the part belongs to loads it with `doors.load`.
    """

    def __init__(self, *names: str) -> None:
        self.names = names

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, spelled: str) -> str:
        if spelled in self.names or is_own_part(spelled):
            return spelled
        raise ValueError(
            f"{spelled!r} given, expected {', '.join(self.names)} or module:name{hint(spelled, self.names)}"
        )


def is_own_part(spelled: str) -> bool:
    """Whether a setting names a user's own part: ``package.module:name``."""
    module, colon, name = spelled.partition(":")
    return bool(colon) and name.isidentifier() and all(map(str.isidentifier, module.split(".")))


def hint(given: str, known: Sequence[str]) -> str:
    """``; did you mean …?`` with the nearest known name, or nothing if none is near."""
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def section_type(annotation: Any) -> type[BaseModel] | None:
    """The section in an annotation, e.g. in ``LoraConfig | None`` or ``list[GridConfig]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := section_type(inner))), None)


def check_name(key: str, name: str) -> None:
    """Raises ValueError for a name that cannot be the name of a folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(f"{key}: a name consists of letters, digits, '.', '_' and '-'")


def set_dotted(values: dict[str, Any], dotted_key: str, value: Any) -> None:
    """Put a value at its dotted key, e.g. weighting.exponent; missing sections are added."""
    *parents, last = dotted_key.split(".")
    for parent in parents:
        child = values.get(parent)
        if not isinstance(child, dict):
            child = values[parent] = {}
        values = child
    values[last] = value


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each value with its dotted key."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

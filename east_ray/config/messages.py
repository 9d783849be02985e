"""What pydantic finds wrong with a configuration, each in a sentence that names the key and what was expected."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


def sentences(error: ValidationError, root: type[BaseModel]) -> Iterator[str]:
    """``key: what is wrong`` for each error of a model of type `root`."""
    return (_sentence(details, root) for details in error.errors())


def _sentence(details: ErrorDetails, root: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in details["loc"])
    match details["type"]:
        case "extra_forbidden":
            known = list(_fields_at(details["loc"][:-1], root))
            near = difflib.get_close_matches(str(details["loc"][-1]), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
            return f"{path}: unknown key; {hint}"
        case "missing":
            return f"{path}: missing; this key is required"
        case "value_error":
            message = details["msg"].removeprefix("Value error, ")
            return f"{path}: {message}" if path else message
    expected = details["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"{path}: {details['input']!r} given, expected {expected}"


def _fields_at(location: Sequence[int | str], root: type[BaseModel]) -> Iterator[str]:
    """The keys that a section knows; numbers in its location are places in a list of sections."""
    section = root
    for part in location:
        if isinstance(part, str):
            section = _section_type(section.model_fields[part].annotation) or section
    yield from section.model_fields


def _section_type(annotation: Any) -> type[BaseModel] | None:
    """The section in an annotation, e.g. in ``LoraConfig | None`` or ``list[GridConfig]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _section_type(inner))), None)

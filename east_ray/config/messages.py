"""The errors that pydantic finds in a configuration, as sentences that name the key and what was expected."""

from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from east_ray.config.base import hint, section_type


def sentences(error: ValidationError, root: type[BaseModel]) -> Iterator[str]:
    """``key: what is wrong`` for each error of a model of type `root`."""
    return (_sentence(details, root) for details in error.errors())


def _sentence(details: ErrorDetails, root: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in details["loc"])
    match details["type"]:
        case "extra_forbidden":
            known = list(_fields_at(details["loc"][:-1], root))
            return f"{path}: unknown key{hint(str(details['loc'][-1]), known) or '; known here: ' + ', '.join(known)}"
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
            section = section_type(section.model_fields[part].annotation) or section
    yield from section.model_fields

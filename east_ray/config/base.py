"""What every section of the settings is made of: strict fields, marks on them, dotted keys, and messages of errors.

A field without a `MayChange` is fixed once anything was sampled. A mark on a section holds for the settings in it that
have none of their own. `storage.rounds` asks `differences` whether a stored run may go on.
"""

import difflib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, ErrorDetails, core_schema


class InputError(ValueError):
    """Something that a user gave cannot be used. The message is one sentence: which file, row or key; what to give."""


class Section(BaseModel):
    """A section of the settings: unknown keys and other types are refused, and nothing can be changed later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        """What does not fit together in the section, a sentence each. The first is raised as a ValueError."""
        yield from ()


class Part:
    """Marks a string that names a built-in part or a user's own ``package.module:name``, which `doors.load` loads."""

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


def leaves(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, FieldInfo, Any]]:
    """(dotted key, field, value) of each setting in a section and in the sections inside it."""
    for name, field in type(section).model_fields.items():
        if isinstance(value := getattr(section, name), BaseModel):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, field, value


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError("a name consists of letters, digits, '.', '_' and '-'")
    return name


#: A string that can be the name of a folder.
Name = Annotated[str, AfterValidator(_check_name)]


@functools.lru_cache(maxsize=16)
def compiled_pattern(pattern: str) -> re.Pattern[str]:
    """A regular expression with one group, compiled by RE2, whose time is linear. Raises ValueError if it is none."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        compiled: re.Pattern[str] = re2.compile(pattern, options)  # has the methods of a pattern of re
    except re2.error as error:
        detail = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"{pattern!r} is no regular expression of RE2: {detail}") from error
    if compiled.groups != 1:
        raise ValueError(f"{pattern!r} has {compiled.groups} groups; expected one, around the answer")
    return compiled


def _as_digits(name: Any) -> Any:
    return str(name) if type(name) is int else name


#: The name of a column. YAML takes one of digits for a number.
Column = Annotated[str, BeforeValidator(_as_digits)]


def _check_pattern(pattern: str) -> str:
    compiled_pattern(pattern)
    return pattern


#: A regular expression of RE2 with one group.
Pattern = Annotated[str, AfterValidator(_check_pattern)]


def _check_encoding(name: str) -> str:
    try:
        "".encode(name)
    except LookupError:
        raise ValueError(f"{name!r} is no encoding of text; expected e.g. utf-8, utf-16 or cp1252") from None
    return name


#: The encoding of a text file, by the name that Python has for it.
Encoding = Annotated[str, AfterValidator(_check_encoding)]


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


@dataclass(frozen=True)
class MayChange:
    """A mark: the setting may differ from the stored one, and the run goes on."""

    until: tuple[str, ...] = ()  # until one of these stages of round 0 is done, for any of its trainings
    always: bool = False  # at any time, because no result depends on it
    keys: frozenset[str] = frozenset()  # of a dictionary: these keys may change at any time
    if_empty: bool = False  # at any time if the stored value is empty
    remakes: tuple[str, ...] = ()  # the stages that are done again after the change


#: No result depends on the setting: more workers, another cluster.
ANY_TIME = MayChange(always=True)
_FIXED = MayChange()


def mark_of(section: type[BaseModel], dotted_key: str) -> MayChange:
    """The mark that holds for a setting. Below a field that is no section, e.g. in `variants`, the field's holds."""
    mark, inside = _FIXED, section
    for name in dotted_key.split("."):
        if (field := inside.model_fields.get(name)) is None:  # a name in a mapping of sections
            continue
        mark = next((one for one in field.metadata if isinstance(one, MayChange)), mark)
        if (found := section_type(field.annotation)) is None:
            break
        inside = found
    return mark


def changes(stored: BaseModel, given: BaseModel) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (stored value, given value) of each difference that can change a result."""
    old, new = dict(_results_keys(stored)), dict(_results_keys(given))
    return {key: (old.get(key), new.get(key)) for key in old | new if old.get(key) != new.get(key)}


def differences(stored: BaseModel, given: BaseModel, is_done: Callable[[str], bool] = lambda stage: True) -> list[str]:
    """What forbids that a stored run goes on, as ``key: 1 there, 2 now``. `is_done`: of a stage; by default all are."""
    return [
        f"{key}: {_shown(before)} there, {_shown(now)} now"
        for key, (before, now) in changes(stored, given).items()
        if not may_change(mark_of(type(stored), key), before, is_done)
    ]


def _shown(value: object) -> str:
    """A value in a message, which worked questions would make unreadable."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def may_change(mark: MayChange, before: object, is_done: Callable[[str], bool]) -> bool:
    """Whether a setting with this mark and the stored value `before` may have another one now."""
    return mark.always or (mark.if_empty and not before) or (bool(mark.until) and not any(map(is_done, mark.until)))


def _results_keys(root: BaseModel) -> Iterator[tuple[str, Any]]:
    """The settings that results depend on, by dotted key; a dictionary with free keys is taken apart."""
    for key, _, value in leaves(root):
        mark = mark_of(type(root), key)
        if isinstance(value, dict) and any(isinstance(inner, BaseModel) for inner in value.values()):
            sections = ((f"{key}.{name}", section) for name, section in value.items())
            yield from ((f"{at}.{inner}", found) for at, section in sections for inner, found in _results_keys(section))
        elif mark.keys:
            yield from ((f"{key}.{inner}", value[inner]) for inner in value if inner not in mark.keys)
        elif not mark.always:
            yield key, value


def sentences(error: ValidationError, root: type[BaseModel]) -> Iterator[str]:
    """``key: what is wrong`` for each error of a model of type `root`."""
    return (_sentence(details, root) for details in error.errors())


_Model = TypeVar("_Model", bound=BaseModel)


def together(said: Iterable[str]) -> str:
    """Sentences in one: a semicolon is between them, except after a question mark."""
    return "; ".join(said).replace("?; ", "? ")


def validated(root: type[_Model], values: Any, source: str | Callable[[str], str] = "") -> _Model:
    """The checked values. Raises InputError, with `source`, or what it makes of a sentence, before each."""
    try:
        return root.model_validate(values)
    except ValidationError as error:
        before = source if callable(source) else lambda said: source
        raise InputError(together(before(said) + said for said in sentences(error, root))) from None


def _sentence(details: ErrorDetails, root: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in details["loc"] if part != "[key]")
    match details["type"]:
        case "extra_forbidden":
            section = root
            for part in details["loc"][:-1]:
                # Numbers are places in a list of sections, and names that are no field are those in a mapping.
                if (field := section.model_fields.get(str(part))) is not None:
                    section = section_type(field.annotation) or section
            known = list(section.model_fields)
            return f"{path}: unknown key{hint(str(details['loc'][-1]), known) or '; known here: ' + ', '.join(known)}"
        case "missing":
            return f"{path}: missing; this key is required"
        case "value_error":
            message = details["msg"].removeprefix("Value error, ")
            return f"{path}: {message}" if path else message
    expected = details["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"{path}: {details['input']!r} given, expected {expected}"

"""All settings with their documentation as Markdown tables, for east_ray/README.md."""

from collections.abc import Iterator, Sequence
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from east_ray.config import Config
from east_ray.config.base import MayChange, Part, mark_of, section_type

_TYPES = {str: "text", int: "integer", float: "number", bool: "true or false", dict: "mapping", Any: "any"}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def settings_tables(root: type[BaseModel] = Config) -> str:
    """Markdown: a table for each section, a row for each setting."""
    return "\n".join(_tables(root, root, "", {})).rstrip() + "\n"


def _tables(
    root: type[BaseModel], section: type[BaseModel], prefix: str, titles: dict[type[BaseModel], str]
) -> Iterator[str]:
    """The table of a section and those of the sections in it; one that occurs again is referred to by its title."""
    marked = any(isinstance(mark, MayChange) for field in root.model_fields.values() for mark in field.metadata)
    yield f"### {prefix.rstrip('.')}\n\n{section.__doc__}\n" if prefix else ""
    yield "| setting | type | default | meaning |" + (" may change |" if marked else "")
    yield "|---|---|---|---|" + ("---|" if marked else "")
    new = {}
    for name, field in section.model_fields.items():
        key, found = prefix + name, section_type(field.annotation)
        if found is not None and found not in titles:
            new[key], titles[found] = found, key
        kind = _type(field.annotation, field.metadata) if found is None else f"section {titles[found]}"
        cells = [f"`{key}`", kind, _default(field), " ".join((field.description or "").split())]
        cells += [_when(mark_of(root, key))] if marked else []
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""
    for key, found in new.items():
        yield from _tables(root, found, f"{key}.", titles)


def _type(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    if part := next((mark for mark in metadata if isinstance(mark, Part)), None):
        return ", ".join(f"`{name}`" for name in part.names) + " or `module:name`"
    bounds = " and ".join(
        f"{sign} {bound:,}" if isinstance(bound := getattr(mark, name), int) else f"{sign} {bound:g}"
        for mark in metadata
        if isinstance(mark, annotated_types.BaseMetadata)
        for name, sign in _BOUNDS.items()
        if hasattr(mark, name)
    )
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        constraints = [part for mark in arguments[1:] for part in getattr(mark, "metadata", [mark])]
        kind = _type(arguments[0], constraints)
    elif origin is Literal:
        kind = ", ".join(f"`{value}`" for value in arguments)
    elif origin is list:
        kind = f"list of {_type(arguments[0])}"
    elif origin is not dict and arguments:
        kind = " or ".join(_type(one) for one in arguments if one is not NoneType)
    else:
        kind = _TYPES.get(origin or annotation, "section")
    return f"{kind} {bounds}".rstrip()


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if isinstance(field.default, BaseModel) or (section_type(field.annotation) and field.default is not None):
        return ""
    if field.default is None or field.default == "":
        return "none"
    shown = yaml.safe_dump(field.default, default_flow_style=True).split("\n...")[0].strip()
    return f"`{shown}`"


def _when(mark: MayChange) -> str:
    if mark.until:
        return "until " + " or ".join(f"`{stage}`" for stage in mark.until)
    if mark.always:
        return "at any time"
    return "if it was empty" if mark.if_empty else "speed and memory: at any time" if mark.keys else ""

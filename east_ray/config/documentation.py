"""The settings with their documentation: as commented YAML of one run, and as Markdown tables of all settings."""

from collections.abc import Iterator, Sequence
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from east_ray.config.base import Part, section_type
from east_ray.config.resuming import MayChange, mark_of
from east_ray.config.settings import Config

_TYPES = {str: "text", int: "integer", float: "number", bool: "true or false", dict: "mapping", Any: "any"}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def dump_documented(config: Config) -> str:
    """The configuration as YAML with each field's documentation as a comment above it."""
    return "\n".join(_documented_lines(config, "")) + "\n"


def settings_tables(root: type[BaseModel] = Config) -> str:
    """Markdown: a table for each section, a row for each setting."""
    return "\n".join(_tables(root, root, "", {})).rstrip() + "\n"


def _documented_lines(section: BaseModel, indent: str) -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        for line in (field.description or "").splitlines():
            yield f"{indent}# {line.strip()}"
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:"
            yield from _documented_lines(value, indent + "  ")
        else:
            plain = section.model_dump(include={name})
            shown = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=10_000).rstrip()
            yield from (indent + line for line in shown.splitlines())


def _tables(
    root: type[BaseModel], section: type[BaseModel], prefix: str, titles: dict[type[BaseModel], str]
) -> Iterator[str]:
    """The table of a section and those of the sections in it; one that occurs again is referred to by its title."""
    with_marks = any(isinstance(mark, MayChange) for field in root.model_fields.values() for mark in field.metadata)
    yield f"### {prefix.rstrip('.')}\n\n{section.__doc__}\n" if prefix else ""
    yield "| setting | type | default | meaning |" + (" may change |" if with_marks else "")
    yield "|---|---|---|---|" + ("---|" if with_marks else "")
    inner = {f"{prefix}{name}": section_type(field.annotation) for name, field in section.model_fields.items()}
    new = {key: found for key, found in inner.items() if found is not None and found not in titles}
    titles |= {found: key for key, found in reversed(new.items())}
    for name, field in section.model_fields.items():
        found = inner[key := prefix + name]
        kind = _type(field.annotation, field.metadata) if found is None else f"section {titles[found]}"
        cells = [f"`{key}`", kind, _default(field), " ".join((field.description or "").split())]
        cells += [_when(mark_of(root, key))] if with_marks else []
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""
    for key, found in new.items():
        if titles[found] == key:
            yield from _tables(root, found, f"{key}.", titles)


def _type(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    for mark in metadata:
        if isinstance(mark, Part):
            return ", ".join(f"`{name}`" for name in mark.names) + " or `module:name`"
    bounds = " and ".join(
        f"{sign} {getattr(mark, name):g}"
        for mark in metadata
        if isinstance(mark, annotated_types.BaseMetadata)
        for name, sign in _BOUNDS.items()
        if hasattr(mark, name)
    )
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if origin is Annotated:
        constraints = [part for mark in arguments[1:] for part in getattr(mark, "metadata", [mark])]
        kind = _type(arguments[0], constraints)
    elif origin is Literal:
        kind = ", ".join(f"`{value}`" for value in arguments)
    elif origin is list:
        kind = f"list of {_type(arguments[0])}"
    elif NoneType in arguments:
        kind = " or ".join(_type(one) for one in arguments if one is not NoneType)
    elif origin is not dict and arguments:
        kind = " or ".join(map(_type, arguments))
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
    """When a setting may change although the run has begun."""
    if mark.always:
        return "at any time"
    if mark.until:
        return "until " + " or ".join(f"`{stage}`" for stage in mark.until)
    return "if it was empty" if mark.if_empty else "speed and memory: at any time" if mark.keys else ""

"""When a setting may change although its run has begun: marks on the fields, and the comparison that reads them.

A field without a mark is fixed once anything was sampled. A mark on a section holds for the settings in it that have
none of their own. `storage.run_directory` asks `differences` whether a stored run may go on.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from east_ray.config.base import section_type


@dataclass(frozen=True)
class MayChange:
    """A mark: the setting may differ from the stored one, and the run goes on."""

    until: tuple[str, ...] = ()
    """Until one of these stages of round 0 is done, for any of its trainings. None named: the setting is fixed."""
    always: bool = False
    """At any time, because no result depends on it."""
    keys: frozenset[str] = frozenset()
    """Of a dictionary: these keys may change at any time."""
    if_empty: bool = False
    """At any time if the stored value is empty."""
    remakes: str | None = None
    """The stage that is done again after the change."""


#: No result depends on the setting: more workers, another cluster.
ANY_TIME = MayChange(always=True)
#: The setting decides what is made of the samples.
UNTIL_WEIGHED = MayChange(until=("examples",))
#: The setting also decides how models are measured; "base" is the evaluation of the base model in a comparison.
UNTIL_MEASURED = MayChange(until=("examples", "evaluation", "base"))
#: The same, and the stage `answers` has used it.
UNTIL_ANSWERS_USED = MayChange(until=UNTIL_MEASURED.until, remakes="answers")
_FIXED = MayChange()


def mark_of(section: type[BaseModel], dotted_key: str) -> MayChange:
    """The mark that holds for a setting. Below a field that is no section, e.g. in `variants`, the field's holds."""
    mark, inside = _FIXED, section
    for name in dotted_key.split("."):
        field = inside.model_fields[name]
        mark = next((one for one in field.metadata if isinstance(one, MayChange)), mark)
        found = section_type(field.annotation)
        if found is None:
            break
        inside = found
    return mark


def changes(stored: BaseModel, given: BaseModel) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (stored value, given value) of each difference that can change a result."""
    old, new = dict(_results_keys(stored)), dict(_results_keys(given))
    return {key: (old.get(key), new.get(key)) for key in old | new if old.get(key) != new.get(key)}


def differences(stored: BaseModel, given: BaseModel, is_done: Callable[[str], bool] = lambda stage: True) -> list[str]:
    """What forbids that a stored run goes on with the given settings, as ``key: 1 there, 2 now``.

    `is_done` says whether a stage is done; by default all are.
    """
    return [
        f"{key}: {before!r} there, {now!r} now"
        for key, (before, now) in changes(stored, given).items()
        if not may_change(mark_of(type(stored), key), before, is_done)
    ]


def may_change(mark: MayChange, before: object, is_done: Callable[[str], bool]) -> bool:
    """Whether a setting with this mark and the stored value `before` may have another one now."""
    return mark.always or (mark.if_empty and not before) or (bool(mark.until) and not any(map(is_done, mark.until)))


def _results_keys(section: BaseModel, prefix: str = "", inherited: MayChange = _FIXED) -> Iterator[tuple[str, Any]]:
    """The settings that results depend on, by dotted key; a dictionary with free keys is taken apart."""
    for name, field in type(section).model_fields.items():
        mark = next((one for one in field.metadata if isinstance(one, MayChange)), inherited)
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _results_keys(value, f"{prefix}{name}.", mark)
        elif mark.keys:
            yield from ((f"{prefix}{name}.{key}", value[key]) for key in value if key not in mark.keys)
        elif not mark.always:
            yield f"{prefix}{name}", value

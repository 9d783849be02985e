"""A run's YAML file with dotted overrides -> a checked configuration, and back.

>>> settings = {"model": "m", "run_dir": "r", "questions": {"path": "q.jsonl"}}
>>> resolve(settings, ["weighting.exponent=1.5"]).weighting.exponent
1.5
"""

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from east_ray.config.base import InputError, flatten, set_dotted, validated
from east_ray.config.settings import Config

#: The folder of the YAML file that was read last, where `doors` looks for a user's modules; empty: none was read.
MODULE_FOLDERS: list[Path] = []


#: Dotted keys of settings that older files and runs have -> their keys now.
MOVED = {"studies.min_share": "labels.min_share"}


class _Loader(yaml.SafeLoader):
    """Reads 2e-6 as a number, as YAML 1.2 does; in YAML 1.1 it is a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML file with overrides (``key.path=value``, the value as YAML). Raises InputError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; expected a run directory or the YAML file of a run") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read the configuration ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the configuration is not UTF-8 text") from error
    MODULE_FOLDERS[:] = [Path(path).absolute().parent]
    return parse(text, str(path), overrides)


def parse(text: str, source: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration in the text of a YAML file; messages call the file `source`."""
    values = _parse_yaml(text, source)
    if values is None:
        raise InputError(f"{source}: the file is empty; expected keys with values (model: …, run_dir: …)")
    if not isinstance(values, dict):
        raise InputError(f"{source}: expected keys with values (model: …, run_dir: …), found {type(values).__name__}")
    return resolve(values, overrides, source=f"{source}: ")


def resolve(values: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "") -> Config:
    """A checked configuration from plain values and dotted overrides; raises InputError.

    Its message calls the values `source`, and the overrides the command line.
    """
    given = [MOVED.get(key, key) for key, _ in map(key_and_value, overrides)]

    def before(said: str) -> str:
        key = said.partition(":")[0]
        is_override = any(f"{key}.".startswith(f"{one}.") for one in given)
        return "command line: " if source and is_override else source

    return validated(Config, _with_new_keys(merge(values, overrides)), before)


def _with_new_keys(values: dict[str, Any]) -> dict[str, Any]:
    """The settings with the keys that they have now. A new key that is given too has precedence."""
    for old, new in MOVED.items():
        section, _, name = old.rpartition(".")
        if isinstance(inside := values.get(section), dict) and name in inside:
            moved = inside.pop(name)
            if new not in dict(flatten(values)):
                set_dotted(values, new, moved)
    return values


def merge(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of plain values with dotted overrides applied, not checked. Raises InputError if one is not key=value."""
    merged = copy.deepcopy(dict(values))
    for override in overrides:
        set_dotted(merged, *key_and_value(override))
    return merged


def key_and_value(override: str) -> tuple[str, Any]:
    """The dotted key of an override and its value, read as YAML. Raises InputError if it is not key=value."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"{override!r} is not an override: expected key=value, e.g. weighting.exponent=1.5")
    return key, _parse_yaml(text, override)


def dump(config: Config) -> str:
    """The configuration as YAML with every key; `load` reads an equal configuration from it."""
    return as_yaml(config.model_dump())


def as_yaml(values: Mapping[str, Any]) -> str:
    """Plain settings as YAML, in their order."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def dump_documented(section: BaseModel, indent: str = "") -> str:
    """A configuration as YAML with each field's documentation as a comment above it."""
    lines = []
    for name, field in type(section).model_fields.items():
        lines += [f"{indent}# {line.strip()}\n" for line in (field.description or "").splitlines()]
        if isinstance(value := getattr(section, name), BaseModel):
            lines += [f"{indent}{name}:\n", dump_documented(value, indent + "  ")]
        else:
            plain = section.model_dump(include={name})
            shown = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=10_000).rstrip()
            lines += [f"{indent}{line}\n" for line in shown.splitlines()]
    return "".join(lines)


def _parse_yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise InputError(f"{source}: not valid YAML{where}: {getattr(error, 'problem', error)}") from error

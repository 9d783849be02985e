"""A run's YAML file plus dotted overrides -> a checked configuration, and back.

>>> resolve({"model": "m", "run_dir": "r", "questions": {"path": "q.jsonl"}}, ["weighting.exponent=1.5"]).weighting
WeightingConfig(signal='entropy', mapping='power', exponent=1.5)
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from east_ray.config.settings import Config, InputError, flatten, set_dotted, validate

#: vLLM engine arguments that spend memory or devices differently and leave the responses' distribution as it is.
_FREE_ENGINE_ARGS = {
    "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization", "kv_cache_memory_bytes", "tensor_parallel_size",
    "pipeline_parallel_size", "distributed_executor_backend", "enforce_eager", "enable_prefix_caching",
    "enable_chunked_prefill", "disable_log_stats", "download_dir", "load_format", "swap_space", "cpu_offload_gb",
    "block_size",
}  # fmt: skip


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 2e-6 as a string; users mean the number, as YAML 1.2 has it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML file, with dotted overrides (``key.path=value``, the value read as YAML).

    Raises InputError naming the file, the key, the value and what was expected.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot read the configuration ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the configuration is not UTF-8 text") from error
    return parse(text, str(path), overrides)


def parse(text: str, source: str, overrides: Sequence[str] = ()) -> Config:
    """As `load`, from the text of a YAML file; `source` names it in messages."""
    values = _parse_yaml(text, source)
    if not isinstance(values, dict):
        raise InputError(f"{source}: expected keys with values (model: …, run_dir: …), found {type(values).__name__}")
    return resolve(values, overrides, source=f"{source}: ")


def resolve(values: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "") -> Config:
    """A checked configuration from plain values and dotted overrides; raises InputError."""
    return validate(merge(values, overrides), source)


def merge(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of plain values with dotted overrides put into it, not checked; raises InputError for what is none."""
    merged = _copy(values)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise InputError(f"{override!r} is not an override: expected key=value, e.g. weighting.exponent=1.5")
        set_dotted(merged, key, _parse_yaml(text, override))
    return merged


def dump(config: Config) -> str:
    """The configuration as YAML, every key written out; `load` reads it back to an equal one."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True, width=120)


def flat(config: Config) -> dict[str, Any]:
    """Every setting by its dotted key, e.g. {"weighting.exponent": 1.5}."""
    return dict(flatten(config.model_dump()))


def dump_documented(config: Config) -> str:
    """The configuration as YAML with each field's documentation as a comment above it."""
    return "\n".join(_documented_lines(config, "")) + "\n"


def differences(stored: Config, given: Config, *, ignored_sections: Sequence[str] = ()) -> list[str]:
    """Keys in which two configurations differ and whose change would change results, as ``key: stored -> given``.

    Sections in `ignored_sections` are passed over.
    """
    old, new = dict(_results_keys(stored, "")), dict(_results_keys(given, ""))
    if not old["model"]:  # samples were weighed without one, and now they are trained on
        new["model"] = ""
    return [
        f"{key}: {old.get(key)!r} there, {new.get(key)!r} now"
        for key in old | new
        if old.get(key) != new.get(key) and key.partition(".")[0] not in ignored_sections
    ]


def _parse_yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise InputError(f"{source}: not valid YAML{where}: {getattr(error, 'problem', error)}") from error


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _results_keys(section: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if (isinstance(extra, dict) and extra.get("free")) or (prefix == "" and name == "run_dir"):
            continue
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _results_keys(value, f"{prefix}{name}.")
        elif name == "engine_args":
            yield from ((f"{prefix}{name}.{key}", value[key]) for key in value if key not in _FREE_ENGINE_ARGS)
        else:
            yield f"{prefix}{name}", value


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

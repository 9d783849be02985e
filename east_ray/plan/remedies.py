"""Settings to change where something does not fit: each with a value, tried out by computing again, cheapest first."""

import json
import math
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from east_ray.config import Config, InputError, TrainingConfig
from east_ray.config.base import set_dotted, validated
from east_ray.config.sections import DEFAULT_MICRO_BATCH_SIZE
from east_ray.plan.cards import Device
from east_ray.plan.estimate import Plan, device_of, engine_memory_of, largest_worker

#: Suggestions that are shown, at most, of each kind.
_MAX_SHOWN = 4
_CHECKPOINTS, _STAGE = "training.gradient_checkpointing", "training.deepspeed.zero_stage"
_MICRO_BATCH, _TOKENS = "training.micro_batch_size", "training.tokens_per_micro_batch"
_OFFLOAD = "training.deepspeed.offload_optimizer"
_OFFLOAD_PARAMETERS, _WORKERS = "training.deepspeed.offload_parameters", "training.num_workers"


@dataclass(frozen=True)
class Remedy:
    """Settings with which it fits; `needed` of `available` bytes (of an engine: of the tokens of its cache)."""

    changes: Mapping[str, Any]
    needed: float
    available: float

    def __str__(self) -> str:
        """As overrides of the command line."""
        return " ".join(shlex.quote(f"{key}={_as_yaml(value)}") for key, value in self.changes.items())


def _as_yaml(value: Any) -> str:
    """A value as YAML in one line; a text in quotes where it would be read as a number."""
    if isinstance(value, str):
        return value if yaml.safe_load(value) == value else json.dumps(value)
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()


def remedies(config: Config, plan: Plan) -> list[Remedy]:
    """What makes the training's workers fit, then what makes the engines fit; nothing for what fits or is not known."""
    found: list[Remedy] = []
    if plan.worker is not None and plan.worker.fits is False:
        found += _first(_of_worker(config, plan))
    if plan.engine is not None and not plan.engine.fits:
        found += _first(_of_engine(config, plan))
    return found


def _first(every: Iterator[Remedy]) -> list[Remedy]:
    found: list[Remedy] = []
    for remedy in every:
        if len(found) < _MAX_SHOWN and remedy not in found:
            found.append(remedy)
    return found


def _of_worker(config: Config, plan: Plan) -> Iterator[Remedy]:
    """The first value of each list that fits; a later list is a stronger medicine."""
    training = config.training
    half = list(_smaller_micro_batches(training))
    stages = (
        [{_STAGE: stage} for stage in range(training.deepspeed.zero_stage + 1, 4)] if training.num_workers > 1 else []
    )
    on_gpu = training.num_gpus_per_worker > 0
    checkpoints: list[dict[str, Any]] = [] if training.gradient_checkpointing else [{_CHECKPOINTS: True}]
    if on_gpu and training.gradient_checkpointing != "offload":
        checkpoints.append({_CHECKPOINTS: "offload"})
    all_of = {key: value for one in (*half[-1:], *checkpoints, *stages[-1:]) for key, value in one.items()}
    together = [{**one, **other} for one in checkpoints for other in (*half, *stages)] + [all_of]
    offload = [{**all_of, _OFFLOAD: True}, {**all_of, _STAGE: 3, _OFFLOAD: True, _OFFLOAD_PARAMETERS: True}]
    more = [{**all_of, _STAGE: 3, _WORKERS: training.num_workers * 2**k} for k in range(1, 7)]
    fewer = [{_WORKERS: count} for count in range(training.num_workers - 1, 0, -1)]
    adapters = [{"training.lora": {"rank": 16}}, {**all_of, "training.lora": {"rank": 16}}]
    shorter = [{"training.max_length": length} for length in _shorter(training.max_length)]
    tried = [half, checkpoints, stages, together, *([offload, more] if on_gpu else [fewer]), adapters, shorter]
    for values in tried:
        yield from _first_that_fits(config, plan, [one for one in values if one])


def _smaller_micro_batches(training: TrainingConfig) -> Iterator[dict[str, Any]]:
    """Halves of it, by tokens or by number, the largest first."""
    if (tokens := training.tokens_per_micro_batch) is not None:
        yield from ({_TOKENS: tokens // 2**k} for k in range(1, tokens.bit_length() - 8))
    else:
        size = training.micro_batch_size or DEFAULT_MICRO_BATCH_SIZE
        yield from ({_MICRO_BATCH: size // 2**k} for k in range(1, size.bit_length()))


def _shorter(length: int) -> list[int]:
    """Shorter limits, the longest first: halves, as multiples of 8."""
    return [length // 2**k // 8 * 8 for k in range(1, length.bit_length() - 3)]


def _first_that_fits(config: Config, plan: Plan, tried: list[dict[str, Any]]) -> Iterator[Remedy]:
    for changes in tried:
        changed = _changed(config, changes)
        if changed is None:
            continue
        worker = largest_worker(changed, plan.size, plan.facts)  # of all trainings: arms may need more than the run's
        if worker.fits and worker.available is not None:
            yield Remedy(changes, worker.at_most.peak, worker.available)
            return


def _changed(config: Config, changes: Mapping[str, Any]) -> Config | None:
    """The configuration with these settings; None where they do not go together."""
    values = config.model_dump()
    for key, value in changes.items():
        set_dotted(values, key, value)
    try:
        return validated(Config, values)
    except InputError:  # a stage that cannot offload, more workers than examples in a step: no suggestion
        return None


def _of_engine(config: Config, plan: Plan) -> Iterator[Remedy]:
    """Shorter sequences, more of the memory, another number type, more GPUs."""
    assert plan.engine is not None
    pool, device = config.engines, device_of(config, config.engines.num_gpus_per_engine)
    key, longest = "engines.engine_args", plan.engine.longest
    needed = math.ceil((2 * (plan.facts.prompt_tokens.value or 0) + config.sampling.max_tokens) / 256) * 256
    tried: list[list[dict[str, Any]]] = []
    if needed < longest:
        tried.append([{f"{key}.max_model_len": needed}])
    if device is not None and device.is_gpu:
        tried.append([{f"{key}.gpu_memory_utilization": 0.95}])
        split = [{f"{key}.tensor_parallel_size": k, "engines.num_gpus_per_engine": k} for k in (2, 4, 8)]
        tried.append(split)
    else:
        gib = math.ceil(longest * plan.engine.memory.bytes_per_token / 2**30)
        tried.append([{"engines.env.VLLM_CPU_KVCACHE_SPACE": str(gib)}])
    if pool.engine_args.get("dtype") == "float32":
        tried.append([{f"{key}.dtype": "bfloat16"}])
    for values in tried:
        yield from _first_engine_that_fits(config, plan, device, values)


def _first_engine_that_fits(
    config: Config, plan: Plan, device: Device | None, tried: list[dict[str, Any]]
) -> Iterator[Remedy]:
    assert plan.engine is not None
    for changes in tried:
        changed = _changed(config, changes)
        memory = None if changed is None else engine_memory_of(changed, plan.size, device)
        if changed is None or memory is None:
            continue
        longest = int(changed.engines.engine_args.get("max_model_len", plan.engine.longest))
        if memory.fits(longest):
            yield Remedy(changes, longest, memory.max_tokens)
            return

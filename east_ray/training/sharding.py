"""DeepSpeed's configuration of a training: what its settings say, buckets that fit the model, and a user's own keys."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from east_ray.config import InputError, TrainingConfig
from east_ray.config.base import sentences

#: A bucket holds this share of the parameters, within limits: what still keeps a network busy (8 MiB in bf16), and
#: DeepSpeed's own default (1 GB in bf16), which models of 8e9 parameters and more get.
_SHARE, _SMALLEST, _LARGEST = 1 / 16, 1 << 22, 500_000_000
#: DeepSpeed's own prefetch: more parameters than this in flight do not hide more of the communication.
_LARGEST_PREFETCH = 50_000_000


class ModelSize(NamedTuple):
    """Numbers of elements of a model's parameters."""

    num_parameters: int
    num_trained: int


def size_of(model: Any) -> ModelSize:
    """The size of a model, whole or sharded by ZeRO-3."""
    counts = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    return ModelSize(sum(count for count, _ in counts), sum(count for count, is_trained in counts if is_trained))


def bucket_sizes(size: ModelSize) -> dict[str, int]:
    """ZeRO's buffers in elements. They are fractions of the model, where DeepSpeed's defaults are fixed numbers.

    Those are meant for models of many billions. A smaller one fits into them as a whole, and a worker would hold all
    gradients, all gathered parameters and a second copy of its shard at once, which sharding is to avoid.
    """
    gradients, parameters = (
        min(max(int(count * _SHARE), _SMALLEST), _LARGEST) for count in (size.num_trained, size.num_parameters)
    )
    return {
        "reduce_bucket_size": gradients,
        "allgather_bucket_size": gradients,
        "sub_group_size": gradients,  # of ZeRO-3: what the optimizer updates at once, with temporaries of that size
        "stage3_prefetch_bucket_size": min(parameters, _LARGEST_PREFETCH),
        # Gathered parameters that are kept for later use. A layer that is larger is gathered all the same.
        "stage3_max_live_parameters": 2 * parameters,
        "stage3_max_reuse_distance": 2 * parameters,
    }


def deepspeed_config(
    settings: TrainingConfig, world_size: int, *, on_gpu: bool, size: ModelSize | None = None
) -> dict[str, Any]:
    """The DeepSpeed configuration of these settings; with the size of the model, its buckets too.

    DeepSpeed counts one micro-batch as one step here: the loop sets the accumulation boundary itself and the losses
    have the denominators of the global step, so DeepSpeed averages over the workers only. bf16 gradients accumulate in
    float32; otherwise the result would depend on the micro-batch size.
    """
    is_bf16, sharding = settings.precision == "bf16", settings.deepspeed
    # DeepSpeed's bf16 optimizer of stage 0 makes a step with zero gradients before the first; that of stage 1 does not.
    zero: dict[str, Any] = {"stage": max(1, sharding.zero_stage) if is_bf16 else sharding.zero_stage}
    if sharding.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    if sharding.offload_parameters:
        zero["offload_param"] = {"device": "cpu"}
    given = sharding.extra.get("zero_optimization", {})
    if size is not None:
        # Each has a name with stage3_ and one without.
        zero |= {key: count for key, count in bucket_sizes(size).items() if key.removeprefix("stage3_") not in given}
    adamw: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay, "torch_adam": True}
    if not (on_gpu and sharding.offload_optimizer):
        adamw["fused"] = True  # without temporaries of the size of a worker's shard
    config = {
        "train_batch_size": world_size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.max_grad_norm,
        "bf16": {"enabled": is_bf16},
        **({"data_types": {"grad_accum_dtype": "fp32"}} if is_bf16 else {}),
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "optimizer": {"type": "AdamW", "params": adamw},
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
    return _merged(config, sharding.extra)


def _merged(config: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with further keys, also in the mappings inside it."""
    merged = dict(config)
    for key, value in extra.items():
        inside = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if inside else value
    return merged


def check_extra(settings: TrainingConfig) -> None:
    """Raise InputError, one sentence, if DeepSpeed refuses keys or values of `training.deepspeed.extra`."""
    from deepspeed.comm.config import CommsLoggerConfig
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from pydantic import ValidationError

    config = deepspeed_config(settings, settings.num_workers, on_gpu=False)
    for section, kind in (("zero_optimization", DeepSpeedZeroConfig), ("comms_logger", CommsLoggerConfig)):
        try:
            kind(**config.get(section, {}))
        except ValidationError as error:
            raise InputError(f"training.deepspeed.extra.{section}.{next(sentences(error, kind))}") from None

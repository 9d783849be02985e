"""The section of DeepSpeed, and which keys of its own configuration `training.deepspeed.extra` may have."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from east_ray.config.base import Section, flatten, hint

#: Keys that may be given. The keys inside them are checked by DeepSpeed itself before training starts.
FREE = (
    *("zero_optimization", "communication_data_type", "comms_logger", "flops_profiler"),
    *("wall_clock_breakdown", "memory_breakdown", "dump_state", "steps_per_print", "timers", "disable_python_gc"),
)
#: Keys of which a setting decides: key -> that setting.
SETTING_OF = {
    "train_batch_size": "training.examples_per_step",
    "train_micro_batch_size_per_gpu": "training.micro_batch_size",
    "gradient_accumulation_steps": "training.micro_batch_size",
    "managed_gradient_accumulation": "training.micro_batch_size",
    "gradient_clipping": "training.max_grad_norm",
    "optimizer": "training.learning_rate and training.weight_decay",
    "zero_allow_untested_optimizer": "training.learning_rate and training.weight_decay",
    "scheduler": "training.schedule and training.warmup_ratio",
    **dict.fromkeys(("bf16", "fp16", "bfloat16", "amp", "torch_autocast", "data_types"), "training.precision"),
    "activation_checkpointing": "training.gradient_checkpointing",
    "zero_optimization.stage": "training.deepspeed.zero_stage",
    "zero_optimization.cpu_offload": "training.deepspeed.offload_optimizer",
    "zero_optimization.cpu_offload_param": "training.deepspeed.offload_parameters",
    "zero_optimization.offload_optimizer.device": "training.deepspeed.offload_optimizer",
    "zero_optimization.offload_optimizer.nvme_path": "training.deepspeed.offload_optimizer",
    "zero_optimization.offload_param.device": "training.deepspeed.offload_parameters",
    "zero_optimization.offload_param.nvme_path": "training.deepspeed.offload_parameters",
    "zero_optimization.compute_grad_norm": "training.max_grad_norm",
    "elasticity": "training.num_workers",
    **dict.fromkeys(("tensorboard", "wandb", "csv_monitor", "comet", "monitor_config"), "training.tracker"),
    **dict.fromkeys(("checkpoint", "load_universal_checkpoint", "nebula"), "training.checkpoint_every_steps"),
}
_DENOMINATORS = "it would change what losses and gradients are divided by, which is fixed by the whole optimizer step"
_SHARDS = "a checkpoint needs each parameter in one piece after the other, spread over all workers"
_OPTIMIZER = "it would update some parameters with another optimizer, whose state no checkpoint has"
#: Keys that no setting replaces: key -> why they are refused.
REFUSED = {
    "prescale_gradients": _DENOMINATORS,
    "gradient_predivide_factor": _DENOMINATORS,
    "gradient_allreduce_op": _DENOMINATORS,
    "sparse_gradients": _DENOMINATORS,
    "zero_optimization.zenflow": "it would apply gradients of an earlier step",
    "zero_optimization.round_robin_gradients": _SHARDS,
    "zero_optimization.parameter_alignment": _SHARDS,
    "zero_optimization.offload_optimizer.super_offload": _OPTIMIZER,
    "zero_optimization.offload_optimizer.ratio": _OPTIMIZER,
    "zero_optimization.legacy_stage1": "DeepSpeed has removed it",
}


def problems_of_extra(extra: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with these further keys of DeepSpeed, a sentence each, as far as it is known without DeepSpeed."""
    for key, _ in flatten(extra):
        steps = key.split(".")
        for outer in (".".join(steps[: end + 1]) for end in range(len(steps))):
            if outer in SETTING_OF:
                yield f"extra.{outer}: {SETTING_OF[outer]} decides this; set that instead"
            if outer in REFUSED:
                yield f"extra.{outer}: {REFUSED[outer]}; leave it out"
        if (name := steps[0]) not in FREE:
            known = [*FREE, *SETTING_OF, *REFUSED]
            yield f"extra.{name}: no key of DeepSpeed that has an effect here" + hint(name, known)
    if not isinstance(zero := extra.get("zero_optimization", {}), Mapping):
        yield f"extra.zero_optimization: {zero!r} given, expected a mapping"
    if (kind := extra.get("communication_data_type", "fp32")) not in ("fp32", "fp16", "bf16"):
        yield f"extra.communication_data_type: {kind!r} given, expected fp32, fp16 or bf16"


class DeepSpeedConfig(Section):
    """How the model is sharded over the workers."""

    zero_stage: Literal[0, 1, 2, 3] = 2
    """What the workers shard: 0 nothing, 1 optimizer state, 2 and gradients, 3 and parameters."""
    offload_optimizer: bool = False
    """Keep the optimizer's state in CPU memory (stages 1 to 3)."""
    offload_parameters: bool = False
    """Keep the parameters in CPU memory (stage 3)."""
    extra: dict[str, Any] = {}
    """Further keys of DeepSpeed's own configuration, e.g. {zero_optimization: {reduce_bucket_size: 50000000},
    communication_data_type: fp32}. Keys that one of our settings decides are refused. Bucket sizes follow from the
    number of parameters by default."""

    def _problems(self) -> Iterator[str]:
        if self.offload_optimizer and self.zero_stage == 0:
            yield "offload_optimizer needs zero_stage 1, 2 or 3"
        if self.offload_parameters and self.zero_stage != 3:
            yield "offload_parameters needs zero_stage 3"
        yield from problems_of_extra(self.extra)

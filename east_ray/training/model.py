"""The model to train: loading, packed attention, adapters, and DeepSpeed's configuration."""

from typing import Any

from east_ray.config import InputError, TrainingConfig


def load_model(settings: TrainingConfig, model_path: str, seed: int, sharded_over: int = 0) -> Any:
    """The model to train, with packed attention and adapters if the settings ask for them.

    `seed` fixes the adapters' initial values. With ZeRO-3 and `sharded_over` workers each parameter is split when it is
    created, so that no worker ever holds the whole model. Raises InputError if packing or the adapters do not fit it.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from east_ray.training import packing

    options: dict[str, Any] = {"dtype": torch.bfloat16 if settings.precision == "bf16" else torch.float32}
    if settings.packing:
        packing.register_attention()
        options["attn_implementation"] = packing.PACKED_ATTENTION
    sharding = None  # takes effect while this object exists
    if sharded_over and settings.deepspeed.zero_stage == 3:
        from transformers.integrations import HfDeepSpeedConfig

        sharding = HfDeepSpeedConfig(deepspeed_config(settings, sharded_over, on_gpu=torch.cuda.is_available()))
    try:
        model = AutoModelForCausalLM.from_pretrained(model_path, **options)
    except (ValueError, KeyError) as error:
        if not settings.packing:
            raise
        hint = f"training.packing: this model's attention cannot be packed ({error}); set it to false"
        raise InputError(hint) from None
    del sharding
    if settings.packing and not packing.supports(model):
        raise InputError(
            "training.packing: this model has layers that would see the previous example, or transforms its logits "
            "after the head; set packing to false"
        )
    if (lora := settings.lora) is None:
        return model
    import peft

    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    adapters = peft.LoraConfig(**sizes, target_modules=lora.target_modules, task_type="CAUSAL_LM")
    try:
        # Adapters of bf16 models stay in bf16, like all that DeepSpeed shards; its optimizer keeps float32 copies.
        model = peft.get_peft_model(model, adapters, autocast_adapter_dtype=False)
    except ValueError as error:
        raise InputError(f"training.lora.target_modules: {error}") from None
    if settings.packing and not packing.supports(model):
        raise InputError("training.lora.target_modules: adapters on the head need training.packing: false")
    return model


def deepspeed_config(settings: TrainingConfig, world_size: int, *, on_gpu: bool) -> dict[str, Any]:
    """The DeepSpeed configuration of these settings.

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
    adamw: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay, "torch_adam": True}
    if on_gpu and not sharding.offload_optimizer:
        adamw["fused"] = True
    return {
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

"""The model to train: loading, packed attention, adapters, and DeepSpeed's configuration."""

from typing import Any

from east_ray.config import InputError, LoraConfig, TrainingConfig


def load_model(settings: TrainingConfig, model_path: str, seed: int, sharded_over: int = 0) -> Any:
    """The model to train, with packed attention and adapters if the settings ask for them.

    `seed` fixes the adapters' initial values. With ZeRO-3 and `sharded_over` workers each parameter is split when it is
    created, so that no worker ever holds the whole model. Raises InputError if packing or the adapters do not fit it.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from east_ray.training import packing

    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    attention = {}
    if settings.packing:
        packing.register_attention()
        attention = {"attn_implementation": packing.PACKED_ATTENTION}
    sharding = None
    if sharded_over and settings.deepspeed.zero_stage == 3:
        from transformers.integrations import HfDeepSpeedConfig

        sharding = HfDeepSpeedConfig(
            deepspeed_config(settings, sharded_over, on_gpu=torch.cuda.is_available())
        )  # it takes effect while this object exists
    try:
        model = AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype, **attention)
    except (ValueError, KeyError) as error:
        if not settings.packing:
            raise
        raise InputError(
            f"training.packing: this model's attention cannot be packed ({error}); set it to false"
        ) from None
    del sharding
    if settings.packing and not packing.supports(model):
        raise InputError(
            "training.packing: this model has layers that would see the previous example, or transforms its logits "
            "after the head; set packing to false"
        )
    if settings.lora is None:
        return model
    torch.manual_seed(seed)
    model = _with_adapters(model, settings.lora)
    if settings.packing and not packing.supports(model):
        raise InputError("training.lora.target_modules: adapters on the head need training.packing: false")
    return model


def _with_adapters(model: Any, lora: LoraConfig) -> Any:
    import peft

    # Adapters of bf16 models stay in bf16, like all that DeepSpeed shards; its optimizer keeps float32 copies.
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    try:
        return peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    except ValueError as error:
        raise InputError(f"training.lora.target_modules: {error}") from None


def deepspeed_config(settings: TrainingConfig, world_size: int, *, on_gpu: bool) -> dict[str, Any]:
    """The DeepSpeed configuration of these settings.

    DeepSpeed counts one micro-batch as one step here: the loop sets the accumulation boundary itself and the losses
    have the denominators of the global step, so DeepSpeed averages over the workers only. bf16 gradients accumulate in
    float32; otherwise the result would depend on the micro-batch size.
    """
    is_bf16 = settings.precision == "bf16"
    # DeepSpeed's bf16 optimizer of stage 0 makes a step with zero gradients before the first; that of stage 1 does not.
    zero: dict[str, Any] = {
        "stage": max(1, settings.deepspeed.zero_stage) if is_bf16 else settings.deepspeed.zero_stage
    }
    if settings.deepspeed.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    if settings.deepspeed.offload_parameters:
        zero["offload_param"] = {"device": "cpu"}
    return {
        "train_batch_size": world_size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.max_grad_norm,
        "bf16": {"enabled": is_bf16},
        **({"data_types": {"grad_accum_dtype": "fp32"}} if is_bf16 else {}),
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": settings.learning_rate,
                "weight_decay": settings.weight_decay,
                "torch_adam": True,
                **({"fused": True} if on_gpu and not settings.deepspeed.offload_optimizer else {}),
            },
        },
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }

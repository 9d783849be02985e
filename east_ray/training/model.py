"""The model to train: loading, packed attention, adapters, and compiled layers."""

import functools
from collections.abc import Callable
from typing import Any

from east_ray.config import InputError, TrainingConfig
from east_ray.training.sharding import deepspeed_config


def load_model(settings: TrainingConfig, model_path: str, seed: int, sharded_over: int = 0) -> Any:
    """The model to train, with packed attention and adapters if the settings ask for them.

    `seed` fixes the adapters' initial values. With ZeRO-3 and `sharded_over` workers each parameter is split when it is
    created, so that no worker ever holds the whole model. Raises InputError if packing or the adapters do not fit it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from east_ray.training import attention, packing

    options: dict[str, Any] = {"dtype": torch.bfloat16 if settings.precision == "bf16" else torch.float32}
    if settings.packing:
        attention.register()
        kernel = attention.kernel_for(AutoConfig.from_pretrained(model_path), settings.precision)
        options["attn_implementation"] = attention.IMPLEMENTATIONS[kernel]
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


def is_compiled(settings: TrainingConfig, *, on_gpu: bool) -> bool:
    """Whether the layers are compiled, as the settings say or, for auto, where it is faster and known to work."""
    if settings.compile != "auto":
        return settings.compile
    # The hooks of ZeRO-3 gather each parameter where it is used, which a compiled layer would not see.
    return on_gpu and settings.packing and settings.deepspeed.zero_stage < 3


def compile_layers(model: Any, backend: Any = "inductor") -> None:
    """Let torch compile each layer of a model when it is first used: fused norms, rotations and activations.

    All layers of a class share one compiled function for any number of tokens; a whole model would compile for minutes.
    """
    import torch
    from transformers.modeling_layers import GradientCheckpointingLayer  # what transformers calls a layer

    compiled: dict[type, Any] = {}
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            kind = type(layer)
            if kind not in compiled:
                # transformers wraps a layer's forward in its checkpoint. What a checkpoint does, above all with
                # offload, cannot be compiled, so only what it recomputes is.
                forward = getattr(kind.forward, "__wrapped__", kind.forward)
                compiled[kind] = torch.compile(forward, dynamic=True, backend=backend)
            layer.forward = functools.partial(_forward, layer, compiled[kind])


def _forward(layer: Any, compiled: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """As a layer's own forward, with the part inside of the checkpoint compiled."""
    if layer.gradient_checkpointing and layer.training:
        return layer._gradient_checkpointing_func(functools.partial(compiled, layer, **kwargs), *args)
    return compiled(layer, *args, **kwargs)

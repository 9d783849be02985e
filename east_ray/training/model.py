"""The model to train: loading, packed attention, adapters, and writing the result."""

from typing import TYPE_CHECKING, Any

from east_ray.config import InputError, TrainingConfig
from east_ray.training.sharding import deepspeed_config

if TYPE_CHECKING:
    from east_ray.training.compute import Compute

#: How far the logits of the written model may differ from the trained one's, relative to the largest of them: another
#: attention kernel rounds differently, and so does merging adapters.
_TOLERANCE_FLOAT32, _TOLERANCE_BF16 = 1e-3, 0.1


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


def is_compiled(settings: TrainingConfig) -> bool:
    """Whether the layers are compiled, as the settings say or, for auto, where it is faster and known to work."""
    import torch

    if settings.compile != "auto":
        return settings.compile
    # The hooks of ZeRO-3 gather each parameter where it is used, which a compiled layer would not see.
    return torch.cuda.is_available() and settings.packing and settings.deepspeed.zero_stage < 3


def compile_layers(model: Any) -> None:
    """Let torch compile each layer of a model when it is first used: fused norms, rotations and activations.

    All layers share one compiled function for any number of tokens; a whole model would compile for minutes.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer  # what transformers calls a layer

    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.compile(dynamic=True)


def export_and_end(engine: Any, compute: "Compute", settings: TrainingConfig, model_path: str, folder: str) -> None:
    """Write the trained model to a folder, and end its engine; to be called on every worker. Raises RuntimeError."""
    compute.remove_head()
    _export(engine, settings, model_path, folder)
    engine.destroy()  # its hooks would keep the model's memory from the next training of this process


def _export(engine: Any, settings: TrainingConfig, model_path: str, folder: str) -> None:
    """Write the model in Hugging Face format from rank 0, read it back, and compare parameters and some logits.

    Must be called on every worker. Adapters are merged. Raises RuntimeError if they differ.
    """
    import torch
    import torch.distributed as dist
    from transformers import AutoModelForCausalLM

    from east_ray.training.attention import Segments

    engine.eval()
    # Any text serves: here the first tokens of the vocabulary.
    ids = torch.arange(min(16, engine.module.config.vocab_size), device=engine.device)[None]
    packed = {"segments": Segments.of([ids.shape[1]], engine.device)} if settings.packing else {}
    with torch.no_grad():
        expected = engine(input_ids=ids, use_cache=False, **packed).logits.float().cpu()
    if engine.zero_optimization_partition_weights():
        state = engine._zero3_consolidated_16bit_state_dict()
    else:
        state = engine.module.state_dict() if dist.get_rank() == 0 else None
    if dist.get_rank() != 0:
        return
    assert state is not None
    state = {name: tensor.detach().cpu() for name, tensor in state.items()}
    model = engine.module
    if settings.lora is not None:
        model = load_model(settings, model_path, seed=0)
        model.load_state_dict(state)
        model = model.merge_and_unload()
        state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    model.config.use_cache = True
    model.save_pretrained(folder, state_dict=state, safe_serialization=True)
    dtype = next(iter(state.values())).dtype
    read = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    written = read.state_dict()
    differing = [name for name, tensor in state.items() if not torch.equal(written[name], tensor)]
    if differing:
        raise RuntimeError(f"{folder}: {len(differing)} parameters differ from the trained ones, first {differing[0]}")
    with torch.no_grad():
        found = read(input_ids=ids.cpu()).logits.float()
    relative = _TOLERANCE_FLOAT32 if dtype == torch.float32 else _TOLERANCE_BF16
    tolerance = relative * max(1.0, float(expected.abs().max()))
    if not torch.allclose(found, expected, rtol=0, atol=tolerance):
        difference = float((found - expected).abs().max())
        raise RuntimeError(
            f"{folder}: the written model's logits differ from the trained one's by up to {difference:g}"
        )

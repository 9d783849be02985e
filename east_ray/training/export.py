"""Writing a trained model, and checking what was written."""

from typing import TYPE_CHECKING, Any

from east_ray.config import TrainingConfig
from east_ray.training.model import load_model

if TYPE_CHECKING:
    from east_ray.training.loop import _Compute


def export_and_end(engine: Any, compute: "_Compute", settings: TrainingConfig, model_path: str, folder: str) -> None:
    """Export the model as `_export` does, and end its engine."""
    _export(engine, compute, settings, model_path, folder)
    engine.destroy()  # its hooks would keep the model's memory from the next training of this process


def _export(engine: Any, compute: "_Compute", settings: TrainingConfig, model_path: str, folder: str) -> None:
    """Write the model in Hugging Face format from rank 0, read it back and compare every parameter and some logits.

    Called on every worker; adapters are merged. Raises RuntimeError if what was written is not what was trained.
    """
    import torch
    import torch.distributed as dist
    from transformers import AutoModelForCausalLM

    compute.remove_head()
    engine.eval()
    # Any text will do: the first tokens of the vocabulary.
    ids = torch.arange(min(16, engine.module.config.vocab_size), device=engine.device)[None]
    packed = {"segments": [ids.shape[1]]} if settings.packing else {}
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
    # Another attention kernel and the merging of adapters round differently, by less than this.
    tolerance = (1e-3 if dtype == torch.float32 else 0.1) * max(1.0, float(expected.abs().max()))
    if not torch.allclose(found, expected, rtol=0, atol=tolerance):
        difference = float((found - expected).abs().max())
        raise RuntimeError(
            f"{folder}: the written model's logits differ from the trained one's by up to {difference:g}"
        )

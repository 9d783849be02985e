"""Writing a trained model, and checking what was written."""

from collections.abc import Callable
from typing import Any

from east_ray.config import TrainingConfig
from east_ray.training.model import load_model

#: How far the logits of the written model may differ from the trained one's, relative to the largest of them: another
#: attention kernel rounds differently, and so does merging adapters.
_TOLERANCE_FLOAT32, _TOLERANCE_BF16 = 1e-3, 0.1


def export_and_end(
    engine: Any, remove_head: Callable[[], None], settings: TrainingConfig, model_path: str, folder: str
) -> None:
    """Write the model in Hugging Face format from rank 0, read it back, and compare parameters and some logits.

    Must be called on every worker; ends the engine. `remove_head` makes the model give logits again. Adapters are
    merged. Raises RuntimeError if what was written is not what was trained.
    """
    remove_head()
    _export(engine, settings, model_path, folder)
    engine.destroy()  # its hooks would keep the model's memory from the next training of this process


def _export(engine: Any, settings: TrainingConfig, model_path: str, folder: str) -> None:
    import torch
    import torch.distributed as dist
    from transformers import AutoModelForCausalLM

    engine.eval()
    # Any text serves: here the first tokens of the vocabulary.
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
    relative = _TOLERANCE_FLOAT32 if dtype == torch.float32 else _TOLERANCE_BF16
    tolerance = relative * max(1.0, float(expected.abs().max()))
    if not torch.allclose(found, expected, rtol=0, atol=tolerance):
        difference = float((found - expected).abs().max())
        raise RuntimeError(
            f"{folder}: the written model's logits differ from the trained one's by up to {difference:g}"
        )

"""The trained model -> a folder in Hugging Face format, and its adapters -> one in peft's, compared with the engine.

No host holds the model a second time. The workers gather one parameter at a time (one layer, for the architectures
whose files have other parameters than the model, as mixtures of experts do). Rank 0 merges it with its adapter and
writes it to its place. Then every parameter is read back and compared by its hash, and the written model computes
logits that must be the engine's, with its layers read from the files one after the other.
"""

import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from east_ray.config import TrainingConfig
from east_ray.training.compute import Compute
from east_ray.training.dataset import ExportedModel
from east_ray.training.parameter_files import ParameterFiles

if TYPE_CHECKING:
    from torch import Tensor

#: How far the logits of the written model may differ from the trained one's, relative to their spread over the
#: vocabulary: another attention kernel rounds differently, and so does merging adapters.
_TOLERANCE_FLOAT32, _TOLERANCE_BF16 = 1e-3, 0.1


@dataclass(frozen=True)
class Source:
    """A parameter to write: a placeholder with its shape and type, what must be gathered for it, and its value then."""

    like: "Tensor"
    parts: "tuple[Tensor, ...]"
    value: "Callable[[], Tensor]"


def export_and_end(
    engine: Any, compute: Compute, settings: TrainingConfig, folder: str, adapter_folder: str | None = None
) -> ExportedModel | None:
    """Write the trained model to `folder`, its adapters to `adapter_folder` if there is one, and end the engine.

    To be called on every worker; rank 0 writes and returns what it wrote. Raises RuntimeError if a file has other
    parameters than the engine, or the written model gives other logits.
    """
    import torch
    import torch.distributed as dist

    compute.remove_head()
    begin = time.monotonic()
    is_writer, model = dist.get_rank() == 0, engine.module
    base = model if settings.lora is None else model.get_base_model()
    with torch.no_grad():
        ids, expected = _engine_logits(engine, settings)
        sources = parameters_of(base)
        if is_writer:
            _write_configuration(base, sources, folder)
        files = [write(sources, groups_of(base, sources), folder, is_writer, convert=_converter(base))]
        if adapter_folder is not None:
            adapter = adapters_of(model)
            files.append(write(adapter, [[name] for name in adapter], adapter_folder, is_writer, "adapter_model"))
            if is_writer:
                _write_adapter_configuration(model, adapter_folder)
        engine.destroy()  # its hooks would keep the model's memory from the next training of this process
        if not is_writer:
            return None
        for one in files:
            assert one is not None
            one.check()
        assert files[0] is not None
        difference = compare_logits(folder, ids, expected)
    seconds = round(time.monotonic() - begin, 3)
    return ExportedModel(len(files[0].paths), files[0].num_bytes, difference, seconds)


def _engine_logits(engine: Any, settings: TrainingConfig) -> "tuple[Tensor, Tensor]":
    """(1, T) token ids and the (1, T, V) logits that the engine computes for them; on every worker."""
    import torch

    from east_ray.training.attention import Segments

    engine.eval()
    is_sharded = engine.zero_optimization_partition_weights()
    if is_sharded:
        # Knowing the order of the layers, DeepSpeed would keep gathered what it uses again soon: up to 1e9 parameters.
        coordinator = engine.optimizer._get_param_coordinator()
        coordinator.reset_step()
        if coordinator.is_complete_trace():
            coordinator._invalidate_trace()
    # Any text serves: here the first tokens of the vocabulary.
    ids = torch.arange(min(16, engine.module.config.vocab_size), device=engine.device)[None]
    packed = {"segments": Segments.of([ids.shape[1]], engine.device)} if settings.packing else {}
    logits = engine(input_ids=ids, use_cache=False, **packed).logits.float().cpu()
    if is_sharded:
        engine.optimizer.checkpoint_event_prologue()  # nothing stays gathered
    return ids.cpu(), logits


def parameters_of(model: Any) -> dict[str, Source]:
    """Name -> source of each parameter and buffer of a transformers model, merged with the adapters that are in it.

    Tied parameters appear once, under the name that transformers loads them from, unless adapters have set them apart.
    """
    from peft.tuners.lora import LoraLayer

    layers: dict[str, Any] = {name: one for name, one in model.named_modules() if isinstance(one, LoraLayer)}
    inside = {f"{name}.{inner}" for name, layer in layers.items() for inner in layer.state_dict()}
    found: dict[str, Source] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        layer, _, inner = name.rpartition(".base_layer.")
        if layer in layers:
            found[f"{layer}.{inner}"] = _merged(layers[layer], tensor) if inner == "weight" else _plain(tensor)
        elif name not in inside:
            found[name] = _plain(tensor)
    for name, other in model.all_tied_weights_keys.items():
        if name in found and other in found and _is_same(found[name], found[other]):
            del found[name]
    return {name: source for name, source in found.items() if name not in (model._keys_to_ignore_on_save or ())}


def adapters_of(model: Any) -> dict[str, Source]:
    """Name in peft's format -> source of each parameter of a model's adapters."""
    import peft

    state = model.state_dict(keep_vars=True)
    adapters = peft.get_peft_model_state_dict(model, state_dict=state, save_embedding_layers=False)
    return {name: _plain(tensor) for name, tensor in adapters.items()}


def _plain(tensor: "Tensor") -> Source:
    return Source(_like(tensor), (tensor,), lambda: tensor)


def _merged(layer: Any, weight: "Tensor") -> Source:
    """The weight of a layer with adapters, merged as peft does it, but not in the layer itself."""
    parts = tuple(tensor for name, tensor in layer.named_parameters() if not name.startswith("base_layer."))
    names = layer.active_adapters
    return Source(_like(weight), (weight, *parts), lambda: sum(map(layer.get_delta_weight, names), start=weight))


def _like(tensor: "Tensor") -> "Tensor":
    """A placeholder of the shape that a parameter has when it is gathered."""
    import torch

    return torch.empty(tuple(getattr(tensor, "ds_shape", tensor.shape)), dtype=tensor.dtype, device="meta")


def _is_same(one: Source, other: Source) -> bool:
    return len(one.parts) == len(other.parts) == 1 and one.parts[0] is other.parts[0]


def _converter(model: Any) -> "Callable[[dict[str, Tensor]], dict[str, Tensor]]":
    """What turns parameters as the model has them into those that its architecture has in files."""
    from transformers.core_model_loading import revert_weight_conversion

    return lambda parameters: revert_weight_conversion(model, parameters)


def groups_of(model: Any, sources: Mapping[str, Source]) -> list[list[str]]:
    """The names of the parameters that must be converted together, so gathered together.

    Each alone if their files have the same parameters; else layer by layer (a name with a number in it is of a layer),
    or all together where layers cannot be converted each for itself.
    """
    convert, likes = _converter(model), {name: source.like for name, source in sources.items()}
    whole = convert(dict(likes))
    if _shapes(whole) == _shapes(likes):
        return [[name] for name in likes]
    layers: dict[str, list[str]] = defaultdict(list)
    for name in likes:
        layer = re.match(r".*?\.\d+\.", name)
        layers[layer.group() if layer else name].append(name)
    of_layers = [convert({name: likes[name] for name in layer}) for layer in layers.values()]
    joined = {name: tensor for converted in of_layers for name, tensor in converted.items()}
    is_possible = _shapes(joined) == _shapes(whole) and sum(map(len, of_layers)) == len(whole)
    return list(layers.values()) if is_possible else [list(likes)]


def _shapes(parameters: "Mapping[str, Tensor]") -> dict[str, Any]:
    return {name: tensor.shape for name, tensor in parameters.items()}


def write(
    sources: Mapping[str, Source],
    groups: Iterable[list[str]],
    folder: str,
    is_writer: bool,
    stem: str = "model",
    convert: "Callable[[dict[str, Tensor]], dict[str, Tensor]]" = lambda parameters: parameters,
) -> ParameterFiles | None:
    """Write parameters to a folder, a group at a time. To be called on every worker; the writer returns the files."""
    import deepspeed

    groups = list(groups)
    files = None
    if is_writer:
        planned = [convert({name: sources[name].like for name in group}) for group in groups]
        shapes = {name: like for group in planned for name, like in group.items()}
        files = ParameterFiles(Path(folder), shapes, stem)
    for group in groups:
        sharded = [part for name in group for part in sources[name].parts if hasattr(part, "ds_id")]
        with deepspeed.zero.GatheredParameters(sharded):
            if files is not None:
                files.write(convert({name: sources[name].value() for name in group}))
    return files


def _write_configuration(model: Any, sources: Mapping[str, Source], folder: str) -> None:
    """Write all but the parameters: configuration, settings of generation, code of the model's own."""
    model.config.use_cache = True
    if sources.keys() & model.all_tied_weights_keys.keys():  # set apart by adapters
        model.config.tie_word_embeddings = False
    model.save_pretrained(folder, state_dict={})


def _write_adapter_configuration(model: Any, folder: str) -> None:
    config = model.peft_config["default"]
    config.inference_mode = True
    config.save_pretrained(folder)


def compare_logits(folder: str, ids: "Tensor", expected: "Tensor") -> float:
    """How far the written model's logits are from the expected (1, T, V): root mean square, relative to their spread.

    Each layer is read from the files when its turn comes, so that no more than one is in memory. Raises RuntimeError if
    the difference is more than rounding.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    dtype = AutoConfig.from_pretrained(folder).dtype
    # Parameters that the model has in another form than its files are kept in a folder of their own meanwhile.
    with torch.no_grad(), tempfile.TemporaryDirectory(dir=Path(folder).parent) as scratch:
        read = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, device_map={"": "disk"}, offload_folder=scratch
        )
        found = read(input_ids=ids, use_cache=False).logits.float()
    spread = (expected - expected.mean(-1, keepdim=True)).norm().clamp(min=torch.finfo(torch.float32).tiny)
    difference = float((found - expected).norm() / spread)
    if not difference <= (_TOLERANCE_FLOAT32 if dtype == torch.float32 else _TOLERANCE_BF16):
        raise RuntimeError(
            f"{folder}: the written model's logits differ from the trained one's, by {difference:.2g} of their spread"
        )
    return difference

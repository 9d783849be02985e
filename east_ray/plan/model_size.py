"""The sizes of a model, from its config.json and the headers of its safetensors files. No parameter is read."""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from east_ray.config import InputError
from east_ray.storage import resolve_model

#: A longer header is none, as the format has it; seconds that the hub may take to answer.
_LONGEST_HEADER, _HUB_TIMEOUT_S = 100 << 20, 5.0


@dataclass(frozen=True)
class ModelSize:
    """What memory and time depend on. Numbers of parameters, and the model's shape."""

    num_parameters: int
    num_active: int  # of them, those that a token is multiplied with: no embedding table, of experts only those chosen
    largest_parameter: int  # elements of the largest tensor
    num_layers: int
    hidden: int  # size of a token's vector
    intermediate: int  # size inside the feed-forward part, of all experts that a token goes through
    attention: int  # heads * head size of the queries
    key_values: int  # heads * head size of the keys, the same of the values
    vocabulary: int
    context: int  # longest sequence that the model takes; 0: not known
    cache_per_token_layer: int  # elements that an engine keeps for each token and layer
    linear_sizes: int  # inputs + outputs of all linear layers but the head, summed: times the rank, the adapters


def model_size(model: str, *, may_download: bool) -> ModelSize:
    """The sizes of a model: a local folder, or a hub name if it is in the local cache or `may_download`.

    Raises InputError if it is neither, or its files are not those of a model.
    """
    folder = Path(resolve_model(model))
    if folder.is_dir():
        config = _read_json(folder / "config.json", model)
        tensors = dict(_of_files(folder))
    else:
        config, tensors = _from_hub(model, may_download=may_download)
    return size_of(config, tensors, model)


def size_of(config: Mapping[str, Any], tensors: Mapping[str, int], model: str) -> ModelSize:
    """The sizes from a config.json and the elements of each tensor. Without tensors a Llama-shaped model is assumed.

    Raises InputError if the configuration lacks a size.
    """
    config = {**config, **(config.get("text_config") or {})}  # of models that also see images

    def read(*names: str, default: int | None = None) -> int:
        for name in names:
            if isinstance(config.get(name), int):
                return int(config[name])
        if default is None:
            raise InputError(f"model: the config.json of {model} has no {names[0]}, so its size is not known")
        return default

    layers, hidden = read("num_hidden_layers", "n_layer"), read("hidden_size", "n_embd")
    heads, vocabulary = read("num_attention_heads", "n_head"), read("vocab_size")
    head_size = read("head_dim", default=hidden // heads)
    attention, key_values = heads * head_size, read("num_key_value_heads", default=heads) * head_size
    inner = read("intermediate_size", "n_inner", default=4 * hidden)
    experts = read("num_local_experts", "num_experts", "n_routed_experts", default=0)
    chosen = read("num_experts_per_tok", default=1) if experts else 1
    of_expert = read("moe_intermediate_size", default=inner) if experts else inner
    linear = layers * (2 * hidden + 2 * attention + 2 * (hidden + key_values) + 3 * chosen * (hidden + of_expert))
    tied = bool(config.get("tie_word_embeddings"))
    if not tensors:
        tensors = _llama_shaped(layers, hidden, attention, key_values, max(1, experts) * of_expert, vocabulary, tied)
    total = sum(tensors.values())
    of_experts = sum(size for name, size in tensors.items() if ".experts." in name)
    idle = int(of_experts * (1 - chosen / experts)) if experts else 0
    # An embedding table that is the head too is multiplied with; another one is only looked up.
    has_head = any("lm_head" in name for name in tensors)
    looked_up = vocabulary * hidden if has_head and not tied else 0
    compressed = config.get("kv_lora_rank")  # multi-head latent attention keeps one vector for keys and values
    return ModelSize(
        num_parameters=total,
        num_active=total - idle - looked_up,
        largest_parameter=max(tensors.values()),
        num_layers=layers,
        hidden=hidden,
        intermediate=chosen * of_expert,
        attention=attention,
        key_values=key_values,
        vocabulary=vocabulary,
        context=read("max_position_embeddings", default=0),
        cache_per_token_layer=compressed + read("qk_rope_head_dim", default=0) if compressed else 2 * key_values,
        linear_sizes=linear,
    )


def _llama_shaped(
    layers: int, hidden: int, attention: int, key_values: int, inner: int, vocabulary: int, tied: bool
) -> dict[str, int]:
    """Name -> elements of each tensor of a Llama-shaped model, for models whose files say nothing of them."""
    found = {"model.embed_tokens.weight": vocabulary * hidden, "model.norm.weight": hidden}
    if not tied:
        found["lm_head.weight"] = vocabulary * hidden
    of_layer = {"q": hidden * attention, "o": hidden * attention, "k": hidden * key_values, "v": hidden * key_values}
    of_layer |= {"gate": hidden * inner, "up": hidden * inner, "down": hidden * inner, "norms": 2 * hidden}
    return found | {f"layers.{n}.{name}": size for n in range(layers) for name, size in of_layer.items()}


def _of_files(folder: Path) -> Iterator[tuple[str, int]]:
    """(name, elements) of each tensor in a folder's safetensors files, of those that transformers loads."""
    index = folder / "model.safetensors.index.json"
    listed = set(_read_json(index, str(folder)).get("weight_map", {}).values()) if index.is_file() else None
    for file in sorted(folder.glob("model*.safetensors")):
        if listed is not None and file.name not in listed:
            continue
        with file.open("rb") as content:
            try:
                (length,) = struct.unpack("<Q", content.read(8))
                if length > _LONGEST_HEADER:
                    raise ValueError(f"a header of {length} bytes")
                header = json.loads(content.read(length))
            except (struct.error, ValueError) as error:
                raise InputError(f"model: {file} is no safetensors file ({error})") from error
        yield from _elements(header)


def _elements(header: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name, described in header.items():
        if name != "__metadata__":
            elements = 1
            for length in described["shape"]:
                elements *= length
            yield name, elements


def _read_json(path: Path, model: str) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"model: {model} has no config.json; expected a model in Hugging Face format") from None
    except ValueError as error:
        raise InputError(f"model: {path} is not valid JSON ({error})") from error
    if not isinstance(read, dict):
        raise InputError(f"model: {path} is not the configuration of a model")
    return read


def _from_hub(model: str, *, may_download: bool) -> tuple[dict[str, Any], dict[str, int]]:
    """config.json and the tensors of a hub model. Of its parameters only the headers are fetched."""
    import huggingface_hub as hub

    reach = "neither a folder nor a hub model that can be reached"
    missing = f"model: {model!r} is {reach}; a folder with its config.json alone is sufficient"
    try:
        cached = hub.try_to_load_from_cache(model, "config.json")
    except hub.errors.HFValidationError:  # no name of the hub
        raise InputError(missing) from None
    if isinstance(cached, str):
        found = Path(cached)
        tensors = dict(_of_files(found.parent))
        if tensors or not may_download:
            return _read_json(found, model), tensors
    if not may_download:
        raise InputError(missing)
    try:
        hub.model_info(model, timeout=_HUB_TIMEOUT_S)  # asks once; a download would try for half a minute
        config = _read_json(Path(hub.hf_hub_download(model, "config.json")), model)
        metadata = hub.get_safetensors_metadata(model)
    except hub.errors.NotASafetensorsRepoError:
        return config, {}
    except Exception as error:  # of many kinds, those of the network library among them
        raise InputError(missing) from error
    headers = metadata.files_metadata.values()
    return config, dict(pair for one in headers for pair in _elements({n: vars(t) for n, t in one.tensors.items()}))

"""Export of trained models: files written a parameter at a time, by real DeepSpeed engines of two gloo workers."""

import ctypes
import gc
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from east_ray.config import TrainingConfig
from east_ray.training import objectives, parameter_files
from east_ray.training.export import compare_logits
from east_ray.training.loop import train
from east_ray.training.parameter_files import ParameterFiles

SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MODELS = {
    "llama": transformers.LlamaConfig(**SMALL),
    "tied": transformers.LlamaConfig(**SMALL, tie_word_embeddings=True),
    "experts": transformers.Qwen3MoeConfig(
        **SMALL, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
    ),
}
#: name -> model, precision and other settings of a training; `max_bytes` of a file of the exported model.
CASES: dict[str, dict[str, Any]] = {
    "plain": {"model": "llama", "precision": "float32", "deepspeed": {"zero_stage": 0}},
    "tied": {"model": "tied", "deepspeed": {"zero_stage": 2}},
    "sharded": {"model": "llama", "deepspeed": {"zero_stage": 3}, "max_bytes": 10_000},
    "tied and sharded": {"model": "tied", "deepspeed": {"zero_stage": 3}, "max_bytes": 10_000},
    "experts": {"model": "experts", "deepspeed": {"zero_stage": 3}, "packing": False},
    "adapters": {"model": "llama", "deepspeed": {"zero_stage": 2}, "lora": {"save_adapter": True}},
    "adapters, sharded": {"model": "tied", "deepspeed": {"zero_stage": 3}, "lora": {"save_adapter": True}},
    "adapter of a tied head": {
        "model": "tied", "precision": "float32", "deepspeed": {"zero_stage": 3}, "packing": False,
        "lora": {"save_adapter": True, "target_modules": ["lm_head"]},
    },
}  # fmt: skip


def in_two_workers(work: Callable[..., None], folder: Path, *arguments: Any) -> None:
    """Call work(rank, …) in two new processes, the members of a torch.distributed group."""
    store = folder / "store"
    torch.multiprocessing.spawn(_begin, (str(store), work, *arguments), nprocs=2)  # type: ignore[no-untyped-call]


def _begin(rank: int, store: str, work: Callable[..., None], *arguments: Any) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "DS_ACCELERATOR": "cpu"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", store=torch.distributed.FileStore(store, 2), rank=rank, world_size=2)
    work(rank, *arguments)
    torch.distributed.destroy_process_group()


def trained(model: str, case: Mapping[str, Any], num_examples: int) -> Callable[..., Any]:
    """What exports a model after a step on some examples. Without examples it stays as it was."""
    values = {"learning_rate": 0.05, "warmup_ratio": 0.0, "examples_per_step": max(2, num_examples)}
    changes = {name: value for name, value in case.items() if name not in ("model", "max_bytes")}
    settings = TrainingConfig.model_validate(values | {"epochs": 1, "num_workers": 2} | changes)
    row = {"epoch": 0, "question_id": "q", "weight": 1.0, "prompt": [5, 6], "chosen": [7, 8, 9]}
    rows = [row] * num_examples
    return train(settings, objectives.load(settings), model, lambda: rows, num_examples, lambda metrics: None,
                 lambda step, write: None)  # fmt: skip


def export_cases(rank: int, models: str, folder: str) -> None:
    told = {}
    for name, case in CASES.items():
        parameter_files.MAX_FILE_BYTES = case.get("max_bytes", 4 << 30)
        lora = "lora" in case
        export = trained(f"{models}/{name}", case, num_examples=2 if lora else 0)
        made = export(f"{folder}/{name}/model", f"{folder}/{name}/adapter" if lora else None)
        told[name] = vars(made) if made is not None else None
    Path(folder, f"told_{rank}.json").write_text(json.dumps(told))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders with the model of each case before its training, and with what was exported."""
    models, folder = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("exported")
    for name, case in CASES.items():
        torch.manual_seed(1)
        dtype = torch.float32 if case.get("precision") == "float32" else torch.bfloat16
        AutoModelForCausalLM.from_config(MODELS[case["model"]], dtype=dtype).save_pretrained(models / name)
    in_two_workers(export_cases, tmp_path_factory.mktemp("group"), str(models), str(folder))
    return models, folder


def parameters(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "lora" not in case])
def test_what_was_not_trained_is_exported_bit_by_bit_under_the_same_names(
    name: str, exported: tuple[Path, Path]
) -> None:
    models, folder = exported
    before, after = parameters(models / name), parameters(folder / name / "model")
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert tensor.dtype == after[key].dtype and torch.equal(tensor, after[key]), key
    one, two = (json.loads((path / "config.json").read_text()) for path in (models / name, folder / name / "model"))
    assert one == two
    loaded = AutoModelForCausalLM.from_pretrained(folder / name / "model")
    assert loaded.dtype == next(iter(before.values())).dtype
    ids = torch.arange(9)[None]
    original = AutoModelForCausalLM.from_pretrained(models / name)
    torch.testing.assert_close(loaded(input_ids=ids).logits, original(input_ids=ids).logits, rtol=0, atol=0)


def test_the_record_says_what_was_written_and_compared(exported: tuple[Path, Path]) -> None:
    _, folder = exported
    told, other = (json.loads((folder / f"told_{rank}.json").read_text()) for rank in (0, 1))
    assert set(other.values()) == {None}
    for name, made in told.items():
        files = sorted((folder / name / "model").glob("*.safetensors"))
        assert made["num_files"] == len(files) and (len(files) > 1) == ("max_bytes" in CASES[name]), name
        assert made["num_bytes"] == sum(one.nbytes for one in parameters(folder / name / "model").values())
        assert 0 <= made["logits_difference"] < (1e-5 if CASES[name].get("precision") == "float32" else 0.05), name
    index = json.loads((folder / "sharded" / "model" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == told["sharded"]["num_bytes"]
    assert index["weight_map"].keys() == parameters(folder / "sharded" / "model").keys()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "lora" in case])
def test_adapters_are_merged_and_kept_apart(name: str, exported: tuple[Path, Path]) -> None:
    import peft

    models, folder = exported
    base = AutoModelForCausalLM.from_pretrained(models / name)
    apart = peft.PeftModel.from_pretrained(base, folder / name / "adapter", autocast_adapter_dtype=False)
    merged = AutoModelForCausalLM.from_pretrained(folder / name / "model")
    ids = torch.arange(9)[None]
    with torch.no_grad():
        before = AutoModelForCausalLM.from_pretrained(models / name)(input_ids=ids).logits
        one, two = (model(input_ids=ids).logits for model in (apart, merged))
    assert (one - before).abs().max() > 0.05, "the adapters were not trained"
    exact = CASES[name].get("precision") == "float32"
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5 if exact else 0.05 * float(one.abs().max()))
    # What peft itself merges into a copy of the base model; it would merge into both of two tied parameters.
    if name != "adapter of a tied head":
        expected = apart.merge_and_unload().state_dict()
        for key, tensor in merged.state_dict().items():
            assert torch.equal(tensor, expected[key]), key
    else:
        assert not merged.config.tie_word_embeddings
        assert torch.equal(merged.get_input_embeddings().weight, base.get_input_embeddings().weight)


def random_parameters() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return {
        "a": torch.randn(3, 5).bfloat16(), "b": torch.randn(7), "count": torch.tensor(4), "d": torch.randn(2, 3, 2),
        "mask": torch.tensor([True, False, True]), "e": torch.randn(5, 3).t(),
    }  # fmt: skip


@pytest.mark.parametrize(("max_bytes", "num_files"), [(1 << 20, 1), (100, 3), (1, 6)])
def test_files_hold_the_parameters_whatever_their_order(max_bytes: int, num_files: int, tmp_path: Path) -> None:
    values = random_parameters()
    files = ParameterFiles(tmp_path, values, max_bytes=max_bytes)
    for name in reversed(values):
        files.write({name: values[name]})
    files.check()
    assert len(files.paths) == len(list(tmp_path.glob("*.safetensors"))) == num_files
    found = parameters(tmp_path)
    assert found.keys() == values.keys() and all(torch.equal(found[name], values[name]) for name in values)
    assert (tmp_path / "model.safetensors.index.json").exists() == (num_files > 1)
    for path in files.paths:
        assert path.stat().st_size <= max(max_bytes, 60) + 8 + 6 * 90


def test_what_differs_from_what_was_written_is_an_error(tmp_path: Path) -> None:
    values = random_parameters()
    files = ParameterFiles(tmp_path, values)
    files.write(dict(list(values.items())[1:]))
    with pytest.raises(RuntimeError, match=r"model.safetensors: 1 parameters differ from the trained ones, first a"):
        files.check()
    files.write({"a": values["a"]})
    files.check()
    with pytest.raises(RuntimeError, match=r"a is torch.float32 of shape \(3, 5\), not torch.bfloat16 of shape"):
        files.write({"a": values["a"].float()})
    content = bytearray(files.paths[0].read_bytes())
    content[-1] ^= 1
    files.paths[0].write_bytes(content)
    with pytest.raises(RuntimeError, match=r"1 parameters differ"):
        files.check()
    files.paths[0].write_bytes(content[:40])
    with pytest.raises(RuntimeError, match=r"model.safetensors: cannot be read again"):
        files.check()


def test_parameters_under_each_other_s_names_are_found_by_the_logits(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(MODELS["llama"], dtype=torch.float32)
    ids = torch.arange(16)[None]
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        model.save_pretrained(tmp_path / "right")
        assert compare_logits(str(tmp_path / "right"), ids, expected) < 1e-6
        one, two = (layer.self_attn.k_proj.weight for layer in model.model.layers)
        one.data, two.data = two.data, one.data
        model.save_pretrained(tmp_path / "wrong")
        with pytest.raises(RuntimeError, match=r"wrong: the written model's logits differ from the trained one's"):
            compare_logits(str(tmp_path / "wrong"), ids, expected)


def export_and_measure(rank: int, model: str, case: Mapping[str, Any], folder: str) -> None:
    """Write down the memory of this process before the export, and at its highest during it; in bytes."""

    def bytes_of(name: str) -> int:
        fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields[name].split()[0]) << 10

    export = trained(model, case, num_examples=2)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # else the export would use again what loading has left
    torch.distributed.barrier()
    Path("/proc/self/clear_refs").write_text("5")  # the highest from here on
    before = bytes_of("VmRSS")
    made = export(f"{folder}/model")
    told = {"before": before, "peak": bytes_of("VmHWM"), "model": made.num_bytes if made else None}
    Path(folder, f"memory_{rank}.json").write_text(json.dumps(told))


@pytest.mark.drill
def test_export_takes_less_memory_than_the_model_and_a_half(tmp_path: Path) -> None:
    """208 million parameters in bf16, sharded over two workers of this machine: what both take while they export."""
    config = transformers.LlamaConfig(
        vocab_size=24_000, hidden_size=1024, intermediate_size=2816, num_hidden_layers=14, num_attention_heads=16,
        num_key_value_heads=4, max_position_embeddings=2048,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path / "before")
    case = {"deepspeed": {"zero_stage": 3}}
    in_two_workers(export_and_measure, tmp_path, str(tmp_path / "before"), case, str(tmp_path))
    writer, other = (json.loads((tmp_path / f"memory_{rank}.json").read_text()) for rank in (0, 1))
    extra = sum(told["peak"] - told["before"] for told in (writer, other))
    print(f"export took {extra / writer['model']:.2f} of the model's {writer['model'] / 2**20:,.0f} MiB")
    assert extra < 1.6 * writer["model"]

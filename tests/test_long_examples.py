"""Examples of tens of thousands of tokens: what a training of them holds in memory.

As a script, `python tests/test_long_examples.py FOLDER false|true|offload`, it trains one step on 32,768 tokens and
prints the peak of its memory.
"""

import json
import os
import random
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.autograd.graph import saved_tensors_hooks

from east_ray.training import attention
from east_ray.training.packing import LogprobHead, packed_logprobs

NUM_TOKENS, NUM_RESPONSE_TOKENS = 32_768, 32_000
#: Without recomputation its layers keep about 38 KiB for each token and layer: 4.6 GiB for the example.
WIDE = transformers.LlamaConfig(
    vocab_size=8192, hidden_size=128, intermediate_size=2048, num_hidden_layers=4, num_attention_heads=2,
    num_key_value_heads=1, head_dim=16, max_position_embeddings=NUM_TOKENS,
)  # fmt: skip


SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip
FAMILIES = ("Llama", "Qwen2", "Qwen3", "Mistral", "Phi3")


def logprobs_of(model: Any) -> torch.Tensor:
    """Of four responses, packed; 60 tokens with their prompts."""
    rng = random.Random(3)
    tokens = [rng.randrange(97) for _ in range(60)]
    pairs = [(tokens[begin : begin + 5], tokens[begin + 5 : begin + 15]) for begin in range(0, 60, 15)]
    return packed_logprobs(model, LogprobHead(model), pairs, "cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_layers_start_from_is_moved_and_nothing_else(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, so the move is counted and not made. The tensors themselves must be free after the forward pass."""
    attention.register()
    model, plain = (_model(family) for _ in range(2))
    moved: list[tuple[torch.Size, weakref.ref[Any]]] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        moved.append((tensor.shape, weakref.ref(tensor.untyped_storage())))
        return tensor.clone()

    def count_in_place_of_moving(**options: Any) -> saved_tensors_hooks:
        assert options["pin_memory"], "a copy from other memory would stop the GPU"
        return saved_tensors_hooks(pack, lambda packed: packed)

    monkeypatch.setattr(transformers.modeling_utils, "save_on_cpu", count_in_place_of_moving)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False}, offload=True)
    model.train()
    logprobs = logprobs_of(model)
    hidden = torch.Size([1, 60, SMALL["hidden_size"]])
    assert [shape for shape, _ in moved] == [hidden] * SMALL["num_hidden_layers"]
    assert [kept() for _, kept in moved] == [None] * len(moved)
    logprobs.sum().backward()
    logprobs_of(plain).sum().backward()
    for parameter, reference in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, reference.grad, rtol=1e-12, atol=1e-12)


def _model(family: str) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SMALL)
    options = {"dtype": torch.float64, "attn_implementation": attention.IMPLEMENTATIONS["loop"]}
    return transformers.AutoModelForCausalLM.from_config(config, **options)


@pytest.mark.drill
def test_32k_tokens_are_trained_on_in_less_than_3_gib(tmp_path: Path) -> None:
    """Measured: 2.5 GiB with all that Python and DeepSpeed hold; without recomputation more than 6 GiB."""
    said = subprocess.run(
        [sys.executable, __file__, str(tmp_path), "offload"], capture_output=True, text=True, check=True
    )  # fmt: skip
    step = json.loads(said.stdout.splitlines()[-1])
    assert step["num_tokens"] == NUM_TOKENS and step["loss"] == pytest.approx(step["log_vocabulary"], rel=0.05)
    assert step["gradient_norm"] > 0
    assert step["memory_gib"] < 3


def main(folder: str, gradient_checkpointing: str) -> None:
    """Train one step on one example, with an untrained model: the loss is the logarithm of its vocabulary."""
    import math

    import torch.distributed as dist

    from east_ray.config import TrainingConfig
    from east_ray.training import objectives
    from east_ray.training.loop import train

    os.environ.update({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": "cpu"})
    torch.manual_seed(0)
    torch.set_num_threads(1)  # others would wait for each other in the small products of attention
    transformers.LlamaForCausalLM(WIDE).save_pretrained(folder)
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", 1), rank=0, world_size=1)
    settings = TrainingConfig(
        gradient_checkpointing={"false": False, "true": True}.get(gradient_checkpointing, "offload"),
        tokens_per_micro_batch=8192, epochs=1, max_length=NUM_TOKENS, precision="float32",
    )  # fmt: skip
    tokens = [random.Random(0).randrange(WIDE.vocab_size) for _ in range(NUM_TOKENS)]
    prompt, chosen = tokens[:-NUM_RESPONSE_TOKENS], tokens[-NUM_RESPONSE_TOKENS:]
    row = {"question_id": "q", "epoch": 0, "weight": 1.0, "prompt": prompt, "chosen": chosen}
    steps: list[dict[str, float]] = []
    train(settings, objectives.load(settings), folder, lambda: [row], 1, steps.append, lambda step, write: None)
    dist.destroy_process_group()
    print(json.dumps(steps[0] | {"log_vocabulary": math.log(WIDE.vocab_size)}))


if __name__ == "__main__":
    main(*sys.argv[1:])

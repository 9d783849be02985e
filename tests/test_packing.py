"""Sequences packed end to end give what each gives alone: log-probabilities and gradients, of several models."""

import copy
import random
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from east_ray.training import attention, batches
from east_ray.training.packing import LogprobHead, packed_logprobs, supports

Sequences = list[tuple[list[int], list[int]]]
VOCABULARY = 97
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
ARCHITECTURES = {
    "llama": transformers.LlamaConfig(**SMALL),
    "llama, tied": transformers.LlamaConfig(**SMALL, tie_word_embeddings=True),
    "qwen2, sliding window": transformers.Qwen2Config(
        **SMALL, use_sliding_window=True, sliding_window=8, max_window_layers=1
    ),
    "qwen3": transformers.Qwen3Config(**SMALL, head_dim=8),
    "mistral, sliding window": transformers.MistralConfig(**SMALL, sliding_window=6),
    "phi3": transformers.Phi3Config(**SMALL),
}


def sequences(rng: random.Random, count: int) -> Sequences:
    def tokens(most: int) -> list[int]:
        return [rng.randrange(VOCABULARY) for _ in range(rng.randint(1, most))]

    return [(tokens(12), tokens(25)) for _ in range(count)]


def models(name: str) -> tuple[Any, Any]:
    """The same float64 model twice: with packed attention, and as transformers has it."""
    attention.register()
    torch.manual_seed(0)
    plain = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(ARCHITECTURES[name]), dtype=torch.float64)
    packed = transformers.AutoModelForCausalLM.from_config(
        copy.deepcopy(ARCHITECTURES[name]), dtype=torch.float64, attn_implementation=attention.IMPLEMENTATIONS["loop"]
    )
    packed.load_state_dict(plain.state_dict())
    return packed, plain


def alone(model: Any, pairs: Sequences) -> Tensor:
    """One sequence at a time through the whole softmax."""
    found = []
    for prompt, response in pairs:
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        found.append(logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None]).sum())
    return torch.stack(found)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("max_chunk_logits", [1 << 26, 7 * VOCABULARY])
def test_packed_is_each_alone(name: str, max_chunk_logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_CHUNK_LOGITS", max_chunk_logits)
    packed, plain = models(name)
    assert supports(packed)
    pairs = sequences(random.Random(1), 6)
    weights = torch.linspace(0.5, 2, len(pairs), dtype=torch.float64)
    found = packed_logprobs(packed, LogprobHead(packed), pairs, "cpu")
    expected = alone(plain, pairs)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    (weights * found).sum().backward()
    (weights * expected).sum().backward()
    for parameter, reference in zip(packed.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, reference.grad, rtol=1e-10, atol=1e-12)


def test_neighbours_change_nothing() -> None:
    packed, _ = models("llama")
    head = LogprobHead(packed)
    rng = random.Random(2)
    first, *others = sequences(rng, 4)
    with torch.no_grad():
        value = packed_logprobs(packed, head, [first], "cpu")[0]
        for neighbours in (others, others[::-1], others[:1]):
            assert packed_logprobs(packed, head, [*neighbours, first], "cpu")[-1] == pytest.approx(
                float(value), abs=1e-12
            )


def test_gradient_checkpointing_of_the_layers_goes_together_with_packing() -> None:
    packed, plain = models("llama")
    packed.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    packed.train()
    pairs = sequences(random.Random(3), 3)
    packed_logprobs(packed, LogprobHead(packed), pairs, "cpu").sum().backward()
    alone(plain, pairs).sum().backward()
    for parameter, reference in zip(packed.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, reference.grad, rtol=1e-10, atol=1e-12)


def test_the_whole_logits_are_never_there(monkeypatch: pytest.MonkeyPatch) -> None:
    packed, _ = models("llama")
    monkeypatch.setattr(batches, "MAX_CHUNK_LOGITS", 5 * VOCABULARY)
    largest = 0
    original = torch.nn.functional.cross_entropy

    def watched(logits: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        nonlocal largest
        largest = max(largest, logits.numel())
        return original(logits, *arguments, **keywords)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", watched)
    packed_logprobs(packed, LogprobHead(packed), sequences(random.Random(4), 8), "cpu").sum().backward()
    assert 0 < largest <= 5 * VOCABULARY


def test_the_head_gives_logits_again_when_it_is_removed() -> None:
    packed, plain = models("llama")
    head = LogprobHead(packed)
    head.remove()
    ids = torch.arange(9)[None]
    torch.testing.assert_close(
        packed(input_ids=ids, segments=attention.Segments.of([9], "cpu")).logits, plain(input_ids=ids).logits
    )
    assert list(packed.state_dict()) == list(plain.state_dict())


def test_models_that_change_their_logits_are_not_supported() -> None:
    config = transformers.Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=30.0)
    assert not supports(transformers.AutoModelForCausalLM.from_config(config))
    granite = transformers.GraniteConfig(**SMALL, logits_scaling=4.0)
    assert not supports(transformers.AutoModelForCausalLM.from_config(granite))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("GptOss", {"num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 8}),  # attention sinks
        ("Bloom", {"n_layer": 1, "n_head": 2}),  # a bias by distance
        ("Mamba2", {"num_heads": 4, "head_dim": 16, "state_size": 4, "n_groups": 1}),  # a state along the row
        ("Gemma2", {"head_dim": 8}),  # logits that change after the head
    ],
)
def test_what_packing_would_do_wrong_is_not_supported(name: str, changes: dict[str, Any]) -> None:
    small = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
             "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
    config = getattr(transformers, f"{name}Config")(**small | changes)
    assert not supports(getattr(transformers, f"{name}ForCausalLM")(config))

"""Packed sequences: a micro-batch as one row without padding.

A batch of (prompt, response) pairs is one row of T tokens; positions start from 0 in each sequence. Attention runs over
each sequence alone (torch's own fused kernel), so no token attends to another example and no time goes into masked
products. The head returns the log-probability of each label in place of V logits. It works chunk by chunk and computes
a chunk again in the backward pass, so logits need memory for (chunk, V) values and not for (T, V).

This works with every transformers model that uses the attention interface and ``logits_to_keep``; see `supports`.
Axes: T tokens, P positions that predict a response's token, D hidden size, V vocabulary.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from east_ray.training.logprobs import token_logprobs

#: The name under which this module registers its attention with transformers.
PACKED_ATTENTION = "east_ray_packed"
#: Most logits in a chunk of the head: 2^26 take 256 MiB in float32.
MAX_CHUNK_LOGITS = 1 << 26
#: Settings of models that transform their logits after the head. A head that returns no logits cannot do that.
_CHANGED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "output_multiplier_scale")


def register_attention() -> None:
    """Register PACKED_ATTENTION with transformers; may be called any number of times."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(PACKED_ATTENTION, packed_attention)
    AttentionMaskInterface.register(PACKED_ATTENTION, lambda *args, **kwargs: None)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    segments: Sequence[int],
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each segment of the row: query, key, value (1, heads, T, D) -> (1, T, heads, D).

    segments: lengths of the sequences, T in total. A sliding window applies within each sequence.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    assert attention_mask is None and sum(segments) == query.shape[2], (segments, query.shape)
    parts: list[Tensor] = []
    start = 0
    for length in segments:
        here = slice(start, start + length)
        start += length
        mask = None
        if sliding_window is not None and length > sliding_window:
            position = torch.arange(length, device=query.device)
            distance = position[:, None] - position[None, :]
            mask = ((distance >= 0) & (distance < sliding_window))[None, None]
        output, _ = sdpa_attention_forward(
            module, query[:, :, here], key[:, :, here], value[:, :, here], mask, is_causal=mask is None, **kwargs
        )
        parts.append(output)
    return torch.cat(parts, dim=1), None


def supports(model: Any) -> bool:
    """Whether `packed_attention` and `LogprobHead` compute what this model's own attention and head compute.

    They do not for layers that carry a state or a convolution along the row, for attention that torch's kernel lacks
    (sinks, chunks, biases), for logits that are transformed after the head, and for a head that is not plainly linear.
    """
    config, find_head = getattr(model, "config", None), getattr(model, "get_output_embeddings", lambda: None)
    layer_types = getattr(config, "layer_types", None) or []
    return (
        isinstance(find_head(), nn.Linear)
        and bool(getattr(model, "_supports_sdpa", False))
        and not getattr(model, "_is_stateful", False)
        and set(layer_types) <= {"full_attention", "sliding_attention"}
        and "logits_to_keep" in inspect.signature(_inner(model).forward).parameters
        and not any(getattr(config, name, None) for name in _CHANGED_LOGITS)
    )


def _inner(model: Any) -> Any:
    """The transformers model inside a model with adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class LogprobHead:
    """The forward of a head while it trains: hidden states (1, P, D) -> log-probabilities (1, P, 1) of `labels`.

    It replaces only the head module's ``forward``, so parameters, their names and DeepSpeed's hooks stay.
    """

    def __init__(self, model: Any) -> None:
        self._head: nn.Linear = model.get_output_embeddings()
        self.labels: Tensor | None = None
        self._head.forward = self._forward

    def remove(self) -> None:
        """Restore the head's own forward."""
        del self._head.forward

    def _forward(self, hidden: Tensor) -> Tensor:
        assert self.labels is not None and hidden.shape[:2] == (1, len(self.labels)), (hidden.shape, self.labels)
        size = max(1, MAX_CHUNK_LOGITS // self._head.weight.shape[0])
        chunks = list(zip(torch.split(hidden[0], size), torch.split(self.labels, size), strict=True))
        if len(chunks) == 1:
            return self._logprobs(hidden[0], self.labels)[None, :, None]
        parts = [checkpoint(self._logprobs, part, labels, use_reentrant=False) for part, labels in chunks]
        return torch.cat(parts)[None, :, None]

    def _logprobs(self, hidden: Tensor, labels: Tensor) -> Tensor:
        return token_logprobs(nn.functional.linear(hidden, self._head.weight, self._head.bias), labels)


def packed_logprobs(
    model: Any, head: LogprobHead, sequences: Sequence[tuple[Sequence[int], Sequence[int]]], device: Any
) -> Tensor:
    """(S,) log-probability of the response of each of S (prompt, response) pairs, token ids, in one forward pass."""
    ids = [token for prompt, response in sequences for token in (*prompt, *response)]
    segments = [len(prompt) + len(response) for prompt, response in sequences]
    positions = torch.cat([torch.arange(length) for length in segments])
    predicting: list[int] = []  # position t predicts token t + 1
    owners: list[int] = []
    start = 0
    for number, ((prompt, response), length) in enumerate(zip(sequences, segments, strict=True)):
        predicting += range(start + len(prompt) - 1, start + length - 1)
        owners += [number] * len(response)
        start += length
    head.labels = torch.tensor([token for _, response in sequences for token in response], device=device)
    logprobs = model(
        input_ids=torch.tensor([ids], device=device),
        position_ids=positions[None].to(device),
        logits_to_keep=torch.tensor(predicting, device=device),
        segments=segments,
        use_cache=False,
    ).logits[0, :, 0]
    total = torch.zeros(len(sequences), dtype=logprobs.dtype, device=device)
    return total.index_add(0, torch.tensor(owners, device=device), logprobs)

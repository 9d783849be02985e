"""Log-probabilities of responses, from a padded batch or from packed sequences: one row without padding.

A packed batch of (prompt, response) pairs is one row of T tokens; positions start from 0 in each sequence. Attention
runs over each sequence alone (attention.py), so no token attends to another example and no time goes into masked
products. The head returns the log-probability of each label in place of V logits. It works chunk by chunk and
computes a chunk again in the backward pass, so logits need memory for (chunk, V) values and not for (T, V).

This works with every transformers model that uses the attention interface and ``logits_to_keep``; see `supports`.
Axes: B or S sequences, T tokens, P positions that predict a response's token, D hidden size, V vocabulary.
"""

import inspect
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from east_ray.training.attention import Segments, on_device
from east_ray.training.batches import max_chunk_logits

#: A (prompt, response) pair of token ids.
Pair = tuple[Sequence[int], Sequence[int]]
#: Positions with this label count nowhere: prompt and padding.
IGNORED = -100
#: Settings of models that transform their logits after the head. A head that returns no logits cannot do that.
_CHANGED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "output_multiplier_scale")


def _token_logprobs(logits: Tensor, labels: Tensor) -> Tensor:
    """(P, V) logits and (P,) labels -> (P,) log-probabilities in nats, float32 (float64 for float64 logits)."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return -nn.functional.cross_entropy(logits, labels, reduction="none")


def response_logprobs(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of each response under the model, summed over its tokens.

    logits (B, T, V); labels (B, T) with IGNORED where a token does not belong to the response. Position t of the logits
    predicts token t + 1 of the labels. Returns (B,) in nats, float32 (float64 for float64 logits).
    """
    logits, labels = logits[:, :-1], labels[:, 1:]
    counted = labels != IGNORED
    logprobs = _token_logprobs(logits[counted], labels[counted])  # only the response's positions go through the softmax
    rows = counted.nonzero(as_tuple=True)[0]
    return torch.zeros(logits.shape[0], dtype=logprobs.dtype, device=logprobs.device).index_add(0, rows, logprobs)


def padded_logprobs(model: Any, sequences: Sequence[Pair], pad: int, device: Any) -> Tensor:
    """(S,) log-probability of the response of each pair, in one forward pass over rows padded to the longest."""
    shape = (len(sequences), max(len(prompt) + len(response) for prompt, response in sequences))
    ids, labels, mask = (torch.full(shape, value, dtype=torch.long) for value in (pad, IGNORED, 0))
    for index, (prompt, response) in enumerate(sequences):
        end = len(prompt) + len(response)
        ids[index, :end] = torch.tensor([*prompt, *response])
        labels[index, len(prompt) : end] = torch.tensor(list(response))
        mask[index, :end] = 1
    logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
    return response_logprobs(logits, labels.to(device))


def supports(model: Any) -> bool:
    """Whether packed attention and `LogprobHead` compute what this model's own attention and head compute.

    They do not for layers that carry a state or a convolution along the row, for attention that torch's kernel lacks
    (sinks, chunks, biases), for logits that are transformed after the head, and for a head that is not plainly linear.
    """
    config, find_head = getattr(model, "config", None), getattr(model, "get_output_embeddings", lambda: None)
    layer_types = getattr(config, "layer_types", None) or []
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # of a model with adapters
    return (
        isinstance(find_head(), nn.Linear)
        and bool(getattr(model, "_supports_sdpa", False))
        and not getattr(model, "_is_stateful", False)
        and set(layer_types) <= {"full_attention", "sliding_attention"}
        and "logits_to_keep" in inspect.signature(inner.forward).parameters
        and not any(getattr(config, name, None) for name in _CHANGED_LOGITS)
    )


class LogprobHead:
    """The forward of a head while it trains: hidden states (1, P, D) -> log-probabilities (1, P, 1) of `labels`.

    It replaces only the head module's ``forward``, so parameters, their names and DeepSpeed's hooks stay.
    """

    def __init__(self, model: Any, is_compiled: bool = False) -> None:
        self._head: nn.Linear = model.get_output_embeddings()
        self._token_logprobs = torch.compile(_token_logprobs, dynamic=True) if is_compiled else _token_logprobs
        self.labels: Tensor | None = None
        self._head.forward = self._forward

    def remove(self) -> None:
        """Restore the head's own forward."""
        del self._head.forward

    def _forward(self, hidden: Tensor) -> Tensor:
        assert self.labels is not None and hidden.shape[:2] == (1, len(self.labels)), (hidden.shape, self.labels)
        on_gpu = hidden.device.type == "cuda"
        memory = torch.cuda.get_device_properties(hidden.device).total_memory if on_gpu else None
        size = max(1, max_chunk_logits(memory) // self._head.weight.shape[0])
        chunks = list(zip(torch.split(hidden[0], size), torch.split(self.labels, size), strict=True))
        if len(chunks) == 1:
            return self._logprobs(hidden[0], self.labels)[None, :, None]
        parts = [checkpoint(self._logprobs, part, labels, use_reentrant=False) for part, labels in chunks]
        return torch.cat(parts)[None, :, None]

    def _logprobs(self, hidden: Tensor, labels: Tensor) -> Tensor:
        return self._token_logprobs(nn.functional.linear(hidden, self._head.weight, self._head.bias), labels)


def packed_logprobs(model: Any, head: LogprobHead, sequences: Sequence[Pair], device: Any) -> Tensor:
    """(S,) log-probability of the response of each pair, in one forward pass."""
    ids = [token for prompt, response in sequences for token in (*prompt, *response)]
    lengths = [len(prompt) + len(response) for prompt, response in sequences]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    predicting: list[int] = []  # position t predicts token t + 1
    for end, (_, response) in zip(itertools.accumulate(lengths), sequences, strict=True):
        predicting += range(end - 1 - len(response), end - 1)
    owners = [number for number, (_, response) in enumerate(sequences) for _ in response]
    head.labels = on_device([token for _, response in sequences for token in response], device)
    logprobs = model(
        input_ids=on_device([ids], device),
        position_ids=on_device(positions, device),
        logits_to_keep=on_device(predicting, device),
        segments=Segments.of(lengths, device),
        use_cache=False,
    ).logits[0, :, 0]
    total = torch.zeros(len(sequences), dtype=logprobs.dtype, device=device)
    return total.index_add(0, on_device(owners, device), logprobs)

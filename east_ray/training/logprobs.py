"""Log-probabilities of responses from logits. Torch only. Axes: B responses, P positions, T tokens, V vocabulary."""

import torch
import torch.nn.functional as F
from torch import Tensor

#: Positions with this label count nowhere: prompt and padding.
IGNORED = -100


def token_logprobs(logits: Tensor, labels: Tensor) -> Tensor:
    """(P, V) logits and (P,) labels -> (P,) log-probabilities in nats, float32 (float64 for float64 logits)."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return -F.cross_entropy(logits, labels, reduction="none")


def response_logprobs(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of each response under the model, summed over its tokens.

    logits (B, T, V); labels (B, T) with IGNORED where a token does not belong to the response. Position t of the logits
    predicts token t + 1 of the labels. Returns (B,) in nats, float32 (float64 for float64 logits).
    """
    logits, labels = logits[:, :-1], labels[:, 1:]
    counted = labels != IGNORED
    logprobs = token_logprobs(logits[counted], labels[counted])  # only the response's positions go through the softmax
    rows = counted.nonzero(as_tuple=True)[0]
    return torch.zeros(logits.shape[0], dtype=logprobs.dtype, device=logprobs.device).index_add(0, rows, logprobs)

r"""Weighted SFT, DPO and KTO: the loss of one global optimizer step. Torch only.

Each function returns the part that the given examples contribute to the loss of the whole step. The denominators are
of the *global* step and are passed in, so that the sum of the parts, over micro-batches and workers alike, is exact
whatever the split:

    SFT   L = sum_i w_i * sum_t nll(y+_it)  /  sum_i T_i
    DPO   L = 1/N sum_i w_i * -log sigmoid(beta * [(logpi - logref)(y+_i) - (logpi - logref)(y-_i)])
    KTO   L = 1/N sum_i w_i * v(y_i)

An average over a micro-batch that is multiplied by the mean of its weights is something else: inside the micro-batch
the weights cancel. With w = 1 each is the unweighted loss to the last digit, and each gradient is linear in w.

Axes: B examples (or responses), T tokens, V vocabulary.
"""

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

    logits (B, T, V); labels (B, T) with IGNORED where a token is not of the response. Position t of the logits
    predicts token t + 1 of the labels. Returns (B,) in nats, float32 (float64 for float64 logits).
    """
    logits, labels = logits[:, :-1], labels[:, 1:]
    counted = labels != IGNORED
    logprobs = token_logprobs(logits[counted], labels[counted])  # only the response's positions go through the softmax
    rows = counted.nonzero(as_tuple=True)[0]
    return torch.zeros(logits.shape[0], dtype=logprobs.dtype, device=logprobs.device).index_add(0, rows, logprobs)


def sft(logprobs: Tensor, weights: Tensor, num_step_tokens: int) -> Tensor:
    """Weighted negative log-likelihood per token of the step.

    logprobs (B,) of the chosen responses, weights (B,), num_step_tokens: response tokens of the whole step.
    """
    return -(weights * logprobs).sum() / num_step_tokens


def dpo(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    weights: Tensor,
    beta: float,
    num_step_examples: int,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Weighted direct preference optimization (Rafailov et al., 2023, equation 7).

    chosen, rejected (B,): log-probabilities under the trained model, of whole responses or per token; reference_*:
    under the model that training began with; weights (B,); num_step_examples: pairs of the whole step;
    label_smoothing: probability that the two of a pair are the wrong way round (Mitchell, 2023, "conservative DPO").
    """
    margins = (chosen - reference_chosen) - (rejected - reference_rejected)
    as_labelled, otherwise = F.logsigmoid(beta * margins), F.logsigmoid(-beta * margins)
    terms = (1 - label_smoothing) * as_labelled + label_smoothing * otherwise if label_smoothing else as_labelled
    return -(weights * terms).sum() / num_step_examples


def kto(
    logprobs: Tensor,
    reference_logprobs: Tensor,
    desirable: Tensor,
    reference_point: Tensor,
    weights: Tensor,
    beta: float,
    num_step_responses: int,
    desirable_factor: float = 1.0,
    undesirable_factor: float = 1.0,
) -> Tensor:
    """Weighted Kahneman-Tversky optimization (Ethayarajh et al., 2024, equation 8).

    logprobs, reference_logprobs, weights (B,); desirable (B,) bool: a chosen response, else a rejected one;
    reference_point: scalar z0 >= 0 in nats, an estimate of the KL divergence over the whole step, never weighted and
    never differentiated; num_step_responses: responses of the whole step, chosen and rejected.
    """
    rewards = beta * (logprobs - reference_logprobs - reference_point.detach())
    losses = torch.where(
        desirable, desirable_factor * torch.sigmoid(-rewards), undesirable_factor * torch.sigmoid(rewards)
    )
    return (weights * losses).sum() / num_step_responses

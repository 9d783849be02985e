r"""Weighted supervised fine-tuning.

    L = sum_i w_i * sum_t nll(y+_it)  /  sum_i T_i

The denominator is the number of response tokens of the global step. The mean loss of a micro-batch times the mean of
its weights would be something else: inside the micro-batch the weights would cancel. With w = 1 this is the
unweighted loss to the last digit.
"""

from typing import TYPE_CHECKING

from east_ray.training.objectives import MicroBatch, Objective

if TYPE_CHECKING:
    from torch import Tensor


class SFT(Objective):
    """Supervised fine-tuning on the chosen responses."""

    def loss(self, batch: MicroBatch) -> "Tensor":
        """`sft` of these examples."""
        return sft(batch.logprobs["chosen"], batch.weights, batch.num_step_tokens["chosen"])


def sft(logprobs: "Tensor", weights: "Tensor", num_step_tokens: int) -> "Tensor":
    """Weighted negative log-likelihood per token of the step.

    logprobs (B,) of the chosen responses; weights (B,); num_step_tokens: their tokens in the whole step.
    """
    return -(weights * logprobs).sum() / num_step_tokens

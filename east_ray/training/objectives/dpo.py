r"""Weighted direct preference optimization (Rafailov et al., 2023, equation 7).

    L = 1/N sum_i w_i * -log sigmoid(beta * [(logpi - logref)(y+_i) - (logpi - logref)(y-_i)])

N is the number of examples of the global step.
"""

from typing import TYPE_CHECKING

from east_ray.training.objectives import MicroBatch, Objective

if TYPE_CHECKING:
    from torch import Tensor


class DPO(Objective):
    """Direct preference optimization on pairs of a chosen and a rejected response."""

    responses = ("chosen", "rejected")
    reference_responses = ("chosen", "rejected")
    reads = ("label_smoothing", "length_normalized")

    def loss(self, batch: MicroBatch) -> "Tensor":
        """`dpo` of these examples, with log-probabilities per token if the settings say so."""
        logprobs, references = dict(batch.logprobs), dict(batch.references)
        if self.settings.length_normalized:
            logprobs = {name: logprobs[name] / batch.num_tokens[name] for name in self.responses}
            references = {name: references[name] / batch.num_tokens[name] for name in self.responses}
        return dpo(
            logprobs["chosen"],
            logprobs["rejected"],
            references["chosen"],
            references["rejected"],
            batch.weights,
            self.settings.beta,
            batch.num_step_examples,
            self.settings.label_smoothing,
        )

    def metrics(self, batch: MicroBatch) -> "dict[str, Tensor]":
        """Rewards of the responses."""
        return reward_sums(batch, self.settings.beta)


def dpo(
    chosen: "Tensor",
    rejected: "Tensor",
    reference_chosen: "Tensor",
    reference_rejected: "Tensor",
    weights: "Tensor",
    beta: float,
    num_step_examples: int,
    label_smoothing: float = 0.0,
) -> "Tensor":
    """The weighted loss of B pairs.

    chosen, rejected (B,): log-probabilities under the trained model, of whole responses or per token; reference_*
    (B,): under the initial model; weights (B,); num_step_examples: pairs of the whole step; label_smoothing: the
    probability that a pair is labelled the wrong way round (Mitchell, 2023, "conservative DPO").
    """
    import torch.nn.functional as F

    margins = (chosen - reference_chosen) - (rejected - reference_rejected)
    as_labelled, otherwise = F.logsigmoid(beta * margins), F.logsigmoid(-beta * margins)
    terms = (1 - label_smoothing) * as_labelled + label_smoothing * otherwise if label_smoothing else as_labelled
    return -(weights * terms).sum() / num_step_examples


def reward_sums(batch: MicroBatch, beta: float) -> "dict[str, Tensor]":
    """The metrics of DPO and KTO, by the implicit rewards beta * (log pi - log ref) of the two responses.

    Sums over the examples: both rewards, their margin, and how often the chosen response has the larger one.
    """
    chosen, rejected = (
        (beta * (batch.logprobs[name] - batch.references[name])).double() for name in ("chosen", "rejected")
    )
    return {
        "chosen_reward": chosen.sum(),
        "rejected_reward": rejected.sum(),
        "reward_margin": (chosen - rejected).sum(),
        "reward_accuracy": (chosen > rejected).double().sum(),
    }

r"""Weighted Kahneman-Tversky optimization (Ethayarajh et al., 2024, equation 8).

    L = 1/N sum_i w_i * v(y_i)

v(y) is factor * (1 - sigmoid(r)) of a chosen response and factor * (1 - sigmoid(-r)) of a rejected one, with
r = beta * (log pi(y) - log ref(y) - z0). N is the number of responses of the global step. z0, the reference point,
estimates the KL divergence of the trained from the initial model: the mean of log pi - log ref over mismatched pairs
of prompt and response, at least 0. It is never weighted and never differentiated.
"""

from typing import TYPE_CHECKING

from east_ray.training.objectives import MicroBatch, Objective
from east_ray.training.objectives.dpo import reward_sums

if TYPE_CHECKING:
    from torch import Tensor


class KTO(Objective):
    """Kahneman-Tversky optimization on chosen (desirable) and rejected (undesirable) responses."""

    responses = ("chosen", "rejected")
    reference_responses = ("chosen", "rejected", "mismatched")
    measured_responses = ("mismatched",)
    min_examples = 2  # a mismatched response is of another example

    def loss(self, batch: MicroBatch) -> "Tensor":
        """`kto` of these examples, each of which is one chosen and one rejected response."""
        import torch

        logprobs = torch.cat([batch.logprobs[name] for name in self.responses])
        desirable = torch.tensor([True, False], device=logprobs.device).repeat_interleave(len(batch.weights))
        return kto(
            logprobs,
            torch.cat([batch.references[name] for name in self.responses]),
            desirable,
            _reference_point(batch),
            batch.weights.repeat(2),
            self.settings.beta,
            2 * batch.num_step_examples,
            self.settings.desirable_factor,
            self.settings.undesirable_factor,
        )

    def metrics(self, batch: MicroBatch) -> "dict[str, Tensor]":
        """Rewards of the responses, and the reference point, which is the same for every example of the step."""
        return reward_sums(batch, self.settings.beta) | {"kl": _reference_point(batch).double() * len(batch.weights)}

    def measure(self, batch: MicroBatch) -> "dict[str, Tensor]":
        """log pi - log ref of the mismatched responses."""
        return {"divergence": (batch.logprobs["mismatched"] - batch.references["mismatched"]).double().sum()}


def _reference_point(batch: MicroBatch) -> "Tensor":
    return batch.measured["divergence"].clamp(min=0).float()


def kto(
    logprobs: "Tensor",
    reference_logprobs: "Tensor",
    desirable: "Tensor",
    reference_point: "Tensor",
    weights: "Tensor",
    beta: float,
    num_step_responses: int,
    desirable_factor: float = 1.0,
    undesirable_factor: float = 1.0,
) -> "Tensor":
    """The weighted loss of B responses.

    logprobs, reference_logprobs, weights (B,); desirable (B,) bool: true for a chosen response, false for a rejected
    one; reference_point: the scalar z0 >= 0 in nats; num_step_responses: responses of the whole step of both kinds.
    """
    import torch

    rewards = beta * (logprobs - reference_logprobs - reference_point.detach())
    losses = torch.where(
        desirable, desirable_factor * torch.sigmoid(-rewards), undesirable_factor * torch.sigmoid(rewards)
    )
    return (weights * losses).sum() / num_step_responses

"""Implicit rewards beta * (log pi - log ref) of chosen and rejected responses: the metrics of DPO and KTO."""

from typing import TYPE_CHECKING

from east_ray.training.objectives import MicroBatch

if TYPE_CHECKING:
    from torch import Tensor


def reward_sums(batch: MicroBatch, beta: float) -> "dict[str, Tensor]":
    """Sums over the examples: both rewards, their margin, and how often the chosen response has the larger one."""
    chosen, rejected = (
        (beta * (batch.logprobs[name] - batch.references[name])).double() for name in ("chosen", "rejected")
    )
    return {
        "chosen_reward": chosen.sum(),
        "rejected_reward": rejected.sum(),
        "reward_margin": (chosen - rejected).sum(),
        "reward_accuracy": (chosen > rejected).double().sum(),
    }

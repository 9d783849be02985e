"""Training objectives, and the door `training.objective`: a name in OBJECTIVES, or `package.module:name`.

An objective says which responses it trains on, which of them it compares with the initial model, and the loss of a
micro-batch. Write a new one as a subclass of `Objective`, in one file:

    class Unlikelihood(Objective):
        responses = ("chosen", "rejected")

        def loss(self, batch):
            terms = batch.logprobs["rejected"].exp() - batch.logprobs["chosen"]
            return (batch.weights * terms).sum() / batch.num_step_examples

torch is imported inside functions, because rooms that only ask which responses an objective needs run without it.
Axes: B examples of a micro-batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from east_ray import doors
from east_ray.config import InputError, TrainingConfig

if TYPE_CHECKING:
    from torch import Tensor

#: The built-in objectives: `module:name` of a class.
OBJECTIVES = {name: f"{__name__}:{name.upper()}" for name in ("sft", "dpo", "kto")}

#: Responses of an example. `mismatched` is the chosen response of another question.
RESPONSES = ("chosen", "rejected", "mismatched")

#: Settings of the training section that are refused unless the objective declares them in `Objective.reads`.
_DECLARED_SETTINGS = ("label_smoothing", "length_normalized")


@dataclass(frozen=True)
class MicroBatch:
    """Examples that one worker computes at once, and the size of the optimizer step that they belong to.

    B is 0 on a worker that has run out of examples. Denominators must be the step's, not the micro-batch's: then the
    losses of all micro-batches add up to the loss of the step, whatever the split.
    """

    logprobs: Mapping[str, "Tensor"]
    """Response -> (B,) log-probability under the trained model in nats, summed over the response's tokens."""
    references: Mapping[str, "Tensor"]
    """Response of `reference_responses` -> (B,) the same under the model that training began with."""
    num_tokens: Mapping[str, "Tensor"]
    """Response -> (B,) its number of tokens, in the type of `logprobs`."""
    weights: "Tensor"
    """(B,) weight of each example."""
    num_step_examples: int
    """Examples of the whole step, over all workers."""
    num_step_tokens: Mapping[str, int]
    """Response -> its tokens in the whole step, over all workers."""
    measured: Mapping[str, "Tensor"] = field(default_factory=dict)
    """Means over the examples of the whole step (scalars, float64) of what `Objective.measure` returned."""


class Objective(ABC):
    """What training minimizes. Made with the `training` section of the configuration."""

    #: Responses that are trained on: of "chosen" and "rejected".
    responses: tuple[str, ...] = ("chosen",)
    #: Responses that need a log-probability under the initial model: of RESPONSES.
    reference_responses: tuple[str, ...] = ()
    #: Responses that `measure` needs in a pass without gradients before each step: of RESPONSES. None: no such pass.
    measured_responses: tuple[str, ...] = ()
    #: The fewest examples that can be trained on.
    min_examples: int = 1
    #: Settings that no other objective reads: of label_smoothing and length_normalized.
    reads: tuple[str, ...] = ()

    def __init__(self, settings: TrainingConfig) -> None:
        """Raises ValueError for settings that this objective cannot use."""
        self.settings = settings
        if settings.examples == "reference_solutions" and "rejected" in self.required_responses:
            raise ValueError(f"examples: reference_solutions needs objective sft, not {settings.objective}")
        if any(getattr(settings, name) for name in _DECLARED_SETTINGS if name not in self.reads):
            raise ValueError(f"label_smoothing and length_normalized need objective dpo, not {settings.objective}")

    @property
    def required_responses(self) -> tuple[str, ...]:
        """Every response that an example must have, in the order of RESPONSES."""
        required = {*self.responses, *self.reference_responses, *self.measured_responses}
        return tuple(name for name in RESPONSES if name in required)

    @abstractmethod
    def loss(self, batch: MicroBatch) -> "Tensor":
        """The part of the step's loss that these examples contribute: a scalar, linear in `batch.weights`."""

    def metrics(self, batch: MicroBatch) -> "dict[str, Tensor]":
        """Name -> sum over these examples (a scalar). Each step reports the means over its examples."""
        return {}

    def measure(self, batch: MicroBatch) -> "dict[str, Tensor]":
        """Name -> sum over these examples (a scalar), in a pass without gradients over the step before its losses.

        `batch` has the log-probabilities of `measured_responses`. `MicroBatch.measured` has the means over the step.
        """
        return {}


class SFT(Objective):
    r"""Weighted supervised fine-tuning on the chosen responses.

        L = sum_i w_i * sum_t nll(y+_it)  /  sum_i T_i

    The denominator is the number of response tokens of the global step: with the mean loss of a micro-batch times the
    mean of its weights, the weights would cancel inside it. With w = 1 this is the unweighted loss to the last digit.
    """

    def loss(self, batch: MicroBatch) -> "Tensor":
        """The part of L that these examples contribute."""
        return -(batch.weights * batch.logprobs["chosen"]).sum() / batch.num_step_tokens["chosen"]


class _Preference(Objective):
    responses = RESPONSES[:2]
    reference_responses: tuple[str, ...] = RESPONSES[:2]

    def metrics(self, batch: MicroBatch) -> "dict[str, Tensor]":
        """The implicit rewards beta * (log pi - log ref), and how often the chosen response has the larger one."""
        chosen, rejected = (
            (self.settings.beta * (batch.logprobs[name] - batch.references[name])).double() for name in self.responses
        )
        return {
            "chosen_reward": chosen.sum(),
            "rejected_reward": rejected.sum(),
            "reward_margin": (chosen - rejected).sum(),
            "reward_accuracy": (chosen > rejected).double().sum(),
        }


class DPO(_Preference):
    r"""Weighted direct preference optimization (Rafailov et al., 2023, equation 7) on pairs of responses.

        L = 1/N sum_i w_i * -log sigmoid(beta * [(logpi - logref)(y+_i) - (logpi - logref)(y-_i)])

    N is the number of pairs of the global step; with `length_normalized`, log-probabilities are per token.
    `label_smoothing` is the probability that a pair is labelled the wrong way round (Mitchell, 2023, "conservative
    DPO").
    """

    reads = ("label_smoothing", "length_normalized")

    def loss(self, batch: MicroBatch) -> "Tensor":
        """The part of L that these examples contribute."""
        import torch.nn.functional as F

        logprobs, references = batch.logprobs, batch.references
        if self.settings.length_normalized:
            logprobs = {name: logprobs[name] / batch.num_tokens[name] for name in self.responses}
            references = {name: references[name] / batch.num_tokens[name] for name in self.responses}
        chosen, rejected = (logprobs[name] - references[name] for name in self.responses)
        margins, beta, smoothing = chosen - rejected, self.settings.beta, self.settings.label_smoothing
        as_labelled, otherwise = F.logsigmoid(beta * margins), F.logsigmoid(-beta * margins)
        terms = (1 - smoothing) * as_labelled + smoothing * otherwise if smoothing else as_labelled
        return -(batch.weights * terms).sum() / batch.num_step_examples


class KTO(_Preference):
    r"""Weighted Kahneman-Tversky optimization (Ethayarajh et al., 2024, equation 8).

        L = 1/N sum_i w_i * v(y_i)

    v(y) is factor * (1 - sigmoid(r)) of a chosen response and factor * (1 - sigmoid(-r)) of a rejected one, with
    r = beta * (log pi(y) - log ref(y) - z0). N is the number of responses of the global step. z0, the reference point
    in nats, estimates the KL divergence of the trained from the initial model: the mean of log pi - log ref over
    mismatched pairs of prompt and response, at least 0. It is never weighted and never differentiated.
    """

    reference_responses = RESPONSES
    measured_responses = ("mismatched",)
    min_examples = 2  # a mismatched response is of another example

    def loss(self, batch: MicroBatch) -> "Tensor":
        """The part of L that these examples contribute."""
        import torch

        logprobs, references = (
            torch.cat([values[name] for name in self.responses]) for values in (batch.logprobs, batch.references)
        )
        desirable = torch.tensor([True, False], device=logprobs.device).repeat_interleave(len(batch.weights))
        rewards = self.settings.beta * (logprobs - references - _reference_point(batch).detach())
        losses = torch.where(
            desirable,
            self.settings.desirable_factor * torch.sigmoid(-rewards),
            self.settings.undesirable_factor * torch.sigmoid(rewards),
        )
        return (batch.weights.repeat(2) * losses).sum() / (2 * batch.num_step_examples)

    def metrics(self, batch: MicroBatch) -> "dict[str, Tensor]":
        """The rewards, and the reference point, which is the same for every example of the step."""
        return super().metrics(batch) | {"kl": _reference_point(batch).double() * len(batch.weights)}

    def measure(self, batch: MicroBatch) -> "dict[str, Tensor]":
        """log pi - log ref of the mismatched responses."""
        return {"divergence": (batch.logprobs["mismatched"] - batch.references["mismatched"]).double().sum()}


def _reference_point(batch: MicroBatch) -> "Tensor":
    return batch.measured["divergence"].clamp(min=0).float()


def load(settings: TrainingConfig) -> Objective:
    """The objective that the settings name. Raises InputError if it cannot be loaded or cannot use these settings."""
    found: type[Objective] = doors.load("training.objective", settings.objective, OBJECTIVES)
    for problem in _misfits(found):
        raise InputError(f"training.objective: {settings.objective} {problem}")
    try:
        return found(settings)
    except ValueError as error:
        raise InputError(f"training: {error}") from error


def _misfits(found: Any) -> Iterator[str]:
    if not (isinstance(found, type) and issubclass(found, Objective)):
        yield f"is not a subclass of {__name__}.Objective"
        return
    if found.loss is Objective.loss:
        yield "does not define loss(batch)"
    if found.measured_responses and found.measure is Objective.measure:
        yield "has measured_responses, and does not define measure(batch)"
    known_names = {"responses": RESPONSES[:2], "reference_responses": RESPONSES, "measured_responses": RESPONSES}
    for attribute, known in known_names.items():
        names = getattr(found, attribute)
        if not isinstance(names, tuple) or not set(names) <= set(known):
            yield f"has {attribute} {names!r}; expected a tuple of {', '.join(known)}"
    if not found.responses:
        yield "has no responses to train on"
    least = 2 if "mismatched" in (*found.reference_responses, *found.measured_responses) else 1
    if found.min_examples < least:
        yield f"has min_examples {found.min_examples}; expected at least {least}"

"""Training objectives, and the door `training.objective`: a name in OBJECTIVES, or `package.module:name`.

An objective says which responses it trains on, which of them it compares with the initial model, and the loss of a
micro-batch. Write a new one as a subclass of `Objective`, in one file:

    class Unlikelihood(Objective):
        responses = ("chosen", "rejected")

        def loss(self, batch):
            terms = batch.logprobs["rejected"].exp() - batch.logprobs["chosen"]
            return (batch.weights * terms).sum() / batch.num_step_examples

Modules of this package import torch inside functions: the rooms that only ask which responses an objective needs run
without it. Axes: B examples of a micro-batch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from east_ray import doors
from east_ray.config import InputError, TrainingConfig

if TYPE_CHECKING:
    from torch import Tensor

#: The built-in objectives. The names are those that config knows.
OBJECTIVES = {
    "sft": "east_ray.training.objectives.sft:SFT",
    "dpo": "east_ray.training.objectives.dpo:DPO",
    "kto": "east_ray.training.objectives.kto:KTO",
}

#: Responses that an example has. `mismatched` is the chosen response of another question.
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


class Objective:
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

    def loss(self, batch: MicroBatch) -> "Tensor":
        """The part of the step's loss that these examples contribute: a scalar, linear in `batch.weights`."""
        raise NotImplementedError

    def metrics(self, batch: MicroBatch) -> "dict[str, Tensor]":
        """Name -> sum over these examples (a scalar). Each step reports the means over its examples."""
        return {}

    def measure(self, batch: MicroBatch) -> "dict[str, Tensor]":
        """Name -> sum over these examples (a scalar), in a pass without gradients over the step before its losses.

        `batch` has the log-probabilities of `measured_responses`. `MicroBatch.measured` has the means over the step.
        """
        raise NotImplementedError


def load(settings: TrainingConfig) -> Objective:
    """The objective that the settings name. Raises InputError if it cannot be loaded or cannot use these settings."""
    found = doors.load("training.objective", settings.objective, OBJECTIVES)
    for problem in _misfits(found):
        raise InputError(f"training.objective: {settings.objective} {problem}")
    try:
        objective: Objective = found(settings)
    except ValueError as error:
        raise InputError(f"training: {error}") from error
    return objective


def _misfits(found: Any) -> Iterator[str]:
    """Why something cannot serve as an objective."""
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

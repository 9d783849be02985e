"""The section `sampling.adaptive`: which questions get how many responses."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from east_ray.config.base import Section


class UnanimousConfig(Section):
    """A question whose first responses agree gets no more; every other one gets them all."""

    first: Annotated[int, Field(ge=2)] = 32
    """Responses that every question gets."""


class PrecisionConfig(Section):
    """A question gets responses until its entropy is known well enough."""

    first: Annotated[int, Field(ge=2)] = 32
    """Responses that every question gets; then their number is doubled."""
    standard_error: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Largest standard error of a question's entropy, in nats."""


class BudgetConfig(Section):
    """A number of responses for all questions together, spent where the weights gain most from them."""

    pilot: Annotated[int, Field(ge=2)] = 16
    """Responses that every question gets, before the others are planned."""
    total: Annotated[int, Field(ge=1)]
    """Responses to all questions together, the pilot's included."""
    max: Annotated[int, Field(ge=2, le=16384)] = 256
    """The most responses that a question gets."""

    def _problems(self) -> Iterator[str]:
        if self.pilot > self.max:
            yield f"pilot {self.pilot} is greater than max {self.max}"


class AdaptiveConfig(Section):
    """An adaptive number of responses: give exactly one of the rules. None looks at a reference. Responses without an
    answer count as an answer of their own, whatever `answers.no_answer` says."""

    unanimous: UnanimousConfig | None = None
    """Stop where the first responses agree."""
    precision: PrecisionConfig | None = None
    """Stop where the entropy is known well enough."""
    budget: BudgetConfig | None = None
    """Spend a fixed number of responses where they tell most."""

    def _problems(self) -> Iterator[str]:
        if sum(rule is not None for rule in (self.unanimous, self.precision, self.budget)) != 1:
            yield "give exactly one of unanimous, precision and budget with its settings, e.g. unanimous: {first: 32}"

    def problems_with(self, most: int) -> Iterator[str]:
        """What does not fit with the most that a question gets, a sentence each."""
        for name, rule in (("unanimous", self.unanimous), ("precision", self.precision)):
            if rule is not None and rule.first > most:
                yield f"adaptive.{name}.first {rule.first} is greater than responses_per_question {most}"

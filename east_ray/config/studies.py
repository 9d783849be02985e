"""The section `studies`: further analyses of the samples."""

from typing import Annotated

from pydantic import Field

from east_ray.config.base import Section


class StudiesConfig(Section):
    """Further analyses of the samples, for the report."""

    fewer_responses: list[Annotated[int, Field(ge=2)]] = []
    """Measure how well entropies and weights from the first 8, 16, … responses agree with those from all responses."""
    max_suspects: Annotated[int, Field(ge=1)] = 1000
    """The audit of the reference answers lists at most this many questions."""
    adaptive: list[Annotated[int, Field(ge=8, le=16384)]] = []
    """Measure how far weights are off with 32, 48, 64, … responses a question, the same number for each or as many on
    average by the rules of `sampling.adaptive`. Responses are drawn again from those that are there, whose own error
    this leaves out: with 128 responses the rules save about twice what it says."""

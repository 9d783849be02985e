"""Settings of what is measured: evaluation, studies of the samples, the end of the rounds."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from east_ray.config.base import Section, check_name
from east_ray.config.questions import QuestionsConfig


class EvaluationConfig(Section):
    """How models are measured."""

    questions: QuestionsConfig | None = None
    """Held-out questions; without them nothing is evaluated."""
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    """Longest response, in tokens. Accuracy is measured with greedy decoding."""
    responses_per_question: Annotated[int, Field(ge=0, le=1000)] = 0
    """Also sample this many responses of each question, for pass@k and maj@k with k up to this; 0: none."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Sampling temperature of these responses."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling of these responses."""
    models: dict[str, str] = {}
    """Other models to measure too: name -> folder or hub name. Their architectures may differ."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        for name in self.models:
            check_name(f"models.{name}", name)
        return self


class StudiesConfig(Section):
    """Further analyses of the samples, for the report."""

    fewer_responses: list[Annotated[int, Field(ge=2)]] = []
    """Measure how well entropies and weights from the first 8, 16, … responses agree with those from all responses."""
    max_suspects: Annotated[int, Field(ge=1)] = 1000
    """The audit of the reference answers lists at most this many questions."""
    min_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A question is suspect if at least this share of its responses agrees on another answer than the reference."""


class EarlyStoppingConfig(Section):
    """Ends the run when further rounds no longer help."""

    questions: QuestionsConfig
    """A validation split, disjoint from the questions that are trained on and from those of `evaluation`."""

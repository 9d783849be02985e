"""The section `plan`: what `east-ray plan` and `east-ray compare --plan` reckon with where nothing is measured."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from east_ray.config.base import Section


class CardConfig(Section):
    """A GPU, as its data sheet has it."""

    memory_gib: Annotated[float, Field(gt=0)]
    """Memory that programs can use, in GiB."""
    bf16_tflops: Annotated[float, Field(gt=0)]
    """Peak of dense bf16 products, in 10^12 FLOP/s."""
    bandwidth_gb_s: Annotated[float, Field(gt=0)]
    """Peak bandwidth of the memory, in 10^9 bytes/s."""


class PlanConfig(Section):
    """What `east-ray plan` and `east-ray compare --plan` reckon with. It changes no result."""

    gpu: str | None = None
    """The GPU's name, of those in `east_ray/plan/cards.py` or in `cards`; by default that of this machine, if any."""
    gpus: Annotated[int, Field(ge=1)] | None = None
    """GPUs in all; by default as many as the engines or the workers use, whichever are more."""
    price_per_gpu_hour: Annotated[float, Field(ge=0)] | None = None
    """Price of a GPU for an hour, in any currency."""
    cards: dict[str, CardConfig] = {}
    """Further GPUs, or other figures for a known one, e.g. {MY-GPU: {memory_gib: 79, bf16_tflops: 989,
    bandwidth_gb_s: 3350}}."""
    mfu: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Share of the peak FLOP/s that training reaches, what checkpoints compute again counted as work."""
    micro_batch_s: Annotated[float, Field(ge=0)] = 0.05
    """Seconds that a micro-batch takes besides, whatever its size: launching kernels, the latency of communication, the
    optimizer."""
    engine_efficiency: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the peak bandwidth and FLOP/s that an engine reaches."""
    engine_token_us: Annotated[float, Field(ge=0)] = 25.0
    """Microseconds that an engine needs for each token besides: scheduling, drawing, text. They add up over the
    responses in flight."""
    stage_start_s: Annotated[float, Field(ge=0)] = 60.0
    """Seconds until the engines or the workers of a stage have started and loaded the model."""
    prompt_tokens: Annotated[float, Field(gt=0)] | None = None
    """Mean tokens of a prompt. By default measured in the run directory, else a token for 4 characters of a local
    questions file and 40 for the template, else 150."""
    response_tokens: Annotated[float, Field(gt=0)] | None = None
    """Mean tokens of a response. By default measured in the run directory, else a quarter of `sampling.max_tokens`."""
    kept_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the questions that become examples. By default measured in the run directory, else 0.8."""
    num_questions: Annotated[int, Field(ge=1)] | None = None
    """Questions of a round. By default those of the run directory, else those of a local file."""
    num_held_out: Annotated[int, Field(ge=1)] | None = None
    """Questions of the evaluation. By default those of a local file."""
    disagreement: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the held-out questions that one of two arms answers correctly and the other does not. By default
    measured in the run directory's comparison.json, as the next two, else 0.1. In jobs/compare_labels.yaml it was 0.002
    to 0.06 (median 0.016), as the model there answers 83 % already; a model that answers half has more."""
    seed_spread: Annotated[float, Field(ge=0, le=1)] | None = None
    """Standard deviation over seeds of an arm's difference in accuracy, apart from that disagreement; else 0.005. In
    jobs/compare_labels.yaml it was 0 to 0.015 (median 0.008)."""
    repeated: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of that disagreement that is the same with every seed; else 0.2. In jobs/compare_labels.yaml it was 0.06
    to 0.8 (median 0.35)."""

    def _problems(self) -> Iterator[str]:
        if self.price_per_gpu_hour is not None and self.gpus is None and self.gpu is None:
            yield "price_per_gpu_hour needs gpu or gpus: the price is that of GPUs"

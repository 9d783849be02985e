"""Settings of what becomes of the responses: answers, selection, weights."""

from typing import Annotated, Any, Literal

from pydantic import Field

from east_ray.config.base import Part, Section

SignalName = Annotated[str, Part("entropy", "accuracy", "rejection", "uniform")]
MappingName = Annotated[str, Part("power", "sigmoid")]


class AnswersConfig(Section):
    """How final answers are found and compared."""

    grader: Annotated[str, Part("math")] = "math"
    """What reads an answer from a response and compares answers: math, or a class of your own (module:name)."""
    grader_args: dict[str, Any] = {}
    """Arguments of a grader of your own. The settings of math are `equivalence` and `last_number`."""
    equivalence: Literal["math", "string"] = "math"
    """math: mathematically equal answers share a cluster; string: only equal strings do, as in the authors' code."""
    no_answer: Literal["cluster", "exclude"] = "cluster"
    """Responses without an answer: one cluster of their own, as in the authors' code, or excluded from the entropy."""
    last_number: bool = False
    """Take the last number of a response that states no answer explicitly."""
    responses: Annotated[int, Field(ge=1)] | None = None
    """Use only the first so many responses of each question; by default all."""


class SelectionConfig(Section):
    """Which questions become examples."""

    all_correct: Literal["keep", "drop"] = "keep"
    """Questions that every response answers correctly. SFT keeps them by default (entropy gives them weight 0);
    DPO and KTO always drop them, because there is no wrong response."""
    require_boxed: bool = True
    """A chosen response must have its answer in \\boxed{}, as in the paper. false: any correct response can be chosen,
    responses with a box first; for samples of models that were not asked for one."""
    responses_per_question_trained: Annotated[int, Field(ge=1)] = 1
    """At most this many correct responses of a question are trained on; they share the question's weight."""


class WeightingConfig(Section):
    """How an example's weight comes from its question's responses."""

    signal: SignalName = "entropy"
    """The weight grows with it: entropy of the answers, 1 - pass_rate (accuracy), share of the commonest wrong answer
    (rejection), a constant (uniform), or a function of your own (module:name)."""
    mapping: MappingName = "power"
    """power: signal ** exponent, the paper's; sigmoid: 1 / (1 + exp(-exponent * (signal - mean) / std)), bounded;
    module:name: a function of your own."""
    exponent: Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)] = 1.0
    """> 1 sharpens, between 0 and 1 flattens, 0 is uniform, < 0 prefers questions that the model is sure of."""

"""The section `weighting`: signal, mapping and exponent."""

from typing import Annotated, Literal

from pydantic import Field

from east_ray.config.base import Part, Section

_SIGNALS = ("entropy", "accuracy", "rejection", "variance", "margin", "wrong_entropy", "disagreement", "uniform")
SignalName = Annotated[str, Part(*_SIGNALS)]
MappingName = Annotated[str, Part("power", "sigmoid", "rank", "clip")]


class WeightingConfig(Section):
    """How an example's weight comes from its question's responses."""

    signal: SignalName = "entropy"
    """The weight grows with it: entropy of the answers, 1 - pass_rate (accuracy), share of the commonest wrong answer
    (rejection), pass_rate * (1 - pass_rate) (variance), share of the largest cluster minus that of the second, which
    prefers sure questions (margin), entropy of the wrong answers alone (wrong_entropy), share outside the largest
    cluster (disagreement), a constant (uniform), or a function of your own (module:name)."""
    mapping: MappingName = "power"
    """power: signal ** exponent, the paper's; sigmoid: 1 / (1 + exp(-exponent * (signal - mean) / std)), bounded; rank:
    (rank of the signal / number of questions) ** exponent; clip: power with no weight above `max_weight`; module:name:
    a function of your own."""
    exponent: Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)] = 1.0
    """> 1 sharpens, between 0 and 1 flattens, 0 is uniform, < 0 prefers questions with a small signal: with entropy,
    those that the model is sure of."""
    max_weight: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 4.0
    """Of the mapping clip: the largest weight. What is cut off there goes to the other questions in proportion, so that
    the mean weight stays 1. `labels.factor` changes weights after it."""
    entropy_estimator: Literal["plug_in", "chao_wang_jost", "smoothed"] = "plug_in"
    """Of the signal entropy. plug_in: that of the clusters' shares, as in the paper; smoothed: leaves open that other
    answers were not seen, which is better where `sampling.adaptive` asks some questions less; chao_wang_jost: a
    correction of the bias, which changes weights little."""

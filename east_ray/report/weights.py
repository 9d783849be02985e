"""The section on a round's weights: how they spread over the kept questions, and how much of the data they use."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from east_ray.evaluation.estimators import weight_spread
from east_ray.report import plots
from east_ray.report.page import Block, Table
from east_ray.report.summary import QUANTILES, Numbers, RoundSummary, arm_labels, quantiles
from east_ray.report.wording import percent, waste


def weight_blocks(summary: RoundSummary) -> Iterator[Block]:
    """Entropies and weights of the kept questions."""
    if not summary.trainings or not summary.trainings[0].entropies.size:
        return
    first, shown_as = summary.trainings[0], arm_labels(summary)
    yield weights_table(summary)
    yield (
        "Effective: as many examples of equal weight would leave as much noise, (sum w)² / sum w², in % of all. On top "
        "1 %: the share of the total weight, in %, on the heaviest hundredth of the examples."
    )
    yield from waste_of(summary)
    entropies = {"entropy": first.entropies}
    yield plots.histogram("Entropy of the answers to kept questions", entropies, "entropy (nats)")
    if unequal := {shown_as[one.arm]: one.weights for one in summary.arms if np.unique(one.weights).size > 1}:
        title = "Weights" if len(unequal) > 1 else f"Weights: {next(iter(unequal))}"
        yield plots.histogram(title, unequal, "weight")
    title = "Entropy against pass rate"
    density = plots.density(title, first.pass_rates, first.entropies, "pass rate", "entropy (nats)")
    yield replace(density, caption=f"{title}; a larger dot is more questions")


def weights_table(summary: RoundSummary) -> Table:
    """How the entropies and the weights of the kept questions spread."""
    shown_as, entropies = arm_labels(summary), summary.trainings[0].entropies
    rows = [["entropy (nats)", *_quantiles(entropies), "", ""]] if entropies.size else []
    for one in summary.arms:
        if one.weights.size:
            spread = weight_spread(one.weights)
            used = percent(spread["effective_examples"] / spread["num_examples"]), percent(spread["top_share"])
            rows.append([f"weight: {shown_as[one.arm]}", *_quantiles(one.weights), *used])
    return Table("Over the kept questions", ["", *QUANTILES, "effective %", "on top 1 %"], rows)


def _quantiles(values: Numbers) -> list[str]:
    return [f"{value:.2f}" for value in quantiles(values)]


def waste_of(summary: RoundSummary) -> list[str]:
    """The warning on weights that waste the data, if an arm has such."""
    shown_as = arm_labels(summary)
    return waste({shown_as[one.arm]: one.weights for one in summary.arms if one.weights.size})

"""How accuracies and weights move from round to round."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from east_ray.report import plots
from east_ray.report.page import Block, Figure, Table
from east_ray.report.plots import Series
from east_ray.report.sections.rows import MAX_CURVES, band, first_of
from east_ray.report.summary import RoundSummary, labels, quantiles
from east_ray.report.wording import QUANTILES, with_interval


def over_rounds(rounds: Sequence[RoundSummary]) -> Iterator[Block]:
    """Nothing for a run of one round."""
    if len(rounds) > 1:
        yield from _accuracies(rounds)
        yield from _weights(rounds)


def _accuracies(rounds: Sequence[RoundSummary]) -> Iterator[Block]:
    by_model: dict[str, dict[int, Mapping[str, Any]]] = {}
    for summary in rounds:
        for name, row in (summary.metrics["accuracy"] if summary.metrics else {}).items():
            by_model.setdefault(labels(summary)[name], {})[summary.number] = row
        for arm in summary.comparison["arms"] if summary.comparison else []:
            by_model.setdefault(arm["label"], {})[summary.number] = {**arm, "accuracy": arm["mean"]}
    if not by_model:
        return
    numbers = sorted({number for rows in by_model.values() for number in rows})
    cells = [
        [model, *(with_interval(rows.get(number), "accuracy") for number in numbers)]
        for model, rows in by_model.items()
    ]
    caption = "Accuracy % after each round, with 95 % intervals"
    yield Table(caption, ["model", *(f"round {number}" for number in numbers)], cells)
    drawn = list(by_model.items())[:MAX_CURVES]
    curves = [band(model, list(rows), list(rows.values()), "accuracy") for model, rows in drawn]
    title = "Accuracy over the rounds, with 95 % intervals" + first_of(drawn, by_model)
    yield Figure(title, plots.curves(title, curves, "round", "accuracy (%)"))


def _weights(rounds: Sequence[RoundSummary]) -> Iterator[Block]:
    weighed = [summary for summary in rounds if summary.trainings and summary.trainings[0].weights.size]
    if len(weighed) > 1:
        numbers = [summary.number for summary in weighed]
        of_rounds = np.array([quantiles(summary.trainings[0].weights) for summary in weighed]).T
        title = "Quantiles of the weights over the rounds"
        curves = [Series(name, numbers, row.tolist()) for name, row in zip(QUANTILES, of_rounds, strict=True)]
        yield Figure(title, plots.curves(title, curves, "round", "weight"))

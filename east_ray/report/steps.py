"""The section on training: loss, learning rate, gradient norm and speed, by step, of all trainings of a round."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from east_ray import records
from east_ray.report import plots
from east_ray.report.page import Block
from east_ray.report.plots import MAX_CURVES
from east_ray.report.summary import RoundSummary, TrainingResults, arm_labels, labels

#: Metrics after the losses, with title and unit.
_METRICS = {
    "learning_rate": ("Learning rate", "learning rate"),
    "gradient_norm": ("Gradient norm", "norm before clipping"),
    "tokens_per_s": ("Training speed", "tokens/s"),
}


def step_blocks(summary: RoundSummary) -> Iterator[Block]:
    """Loss, learning rate, gradient norm and speed by step."""
    trained = [one for one in summary.trainings if one.steps.get("loss") is not None]
    if not trained:
        return
    yield from _losses(summary, trained)
    for metric, (title, y_label) in _METRICS.items():
        yield from _figure(summary, trained, metric, title, y_label)


def _losses(summary: RoundSummary, trained: Sequence[TrainingResults]) -> Iterator[Block]:
    """The losses of all trainings of an objective in one figure: first without weights, then as it was minimized."""
    objectives = list(dict.fromkeys(one.objective for one in trained))
    are_weighted = any(
        not np.array_equal(one.steps["loss"], one.steps.get("unweighted_loss", np.empty(0))) for one in trained
    )
    if len(trained) > 1 and are_weighted:
        yield (
            "The losses without weights are the same measure for every training, so these curves can be compared. The "
            "weighted loss is what each training minimizes, by weights of its own: a lower curve is no better model."
        )
    if len(objectives) > 1:
        yield "Losses of different objectives cannot be compared; each objective has figures of its own."
    for objective in objectives:
        of_objective = [one for one in trained if one.objective == objective]
        suffix = f", {objective.upper()}" if len(objectives) > 1 else ""
        if are_weighted:
            yield from _figure(summary, of_objective, "unweighted_loss", f"Loss, without weights{suffix}", "loss")
        yield from _figure(summary, of_objective, "loss", f"Loss, weighted{suffix}", "loss")


def _figure(
    summary: RoundSummary, trained: Sequence[TrainingResults], metric: str, title: str, y_label: str
) -> Iterator[Block]:
    """A metric of these trainings in one figure; none if no training has it."""
    if curves := training_curves(summary, metric, trained):
        figure = plots.curves(title, curves, "step", y_label)
        by_arm = f"{title}: mean of each arm, band from least to greatest"
        yield figure if len(trained) <= MAX_CURVES else replace(figure, caption=by_arm)


def training_curves(
    summary: RoundSummary, metric: str, trainings: Sequence[TrainingResults]
) -> list[records.StudySeries]:
    """A metric of the steps of each training; of more than six, of each arm: the mean over its seeds and their range.

    The curve of an arm that is still in training is as long as its shortest training.
    """
    trained = [one for one in trainings if metric in one.steps]
    by_arm = len(trained) > MAX_CURVES
    steps: dict[str, list[NDArray[np.float64]]] = {}
    for one in trained:
        steps.setdefault(one.arm if by_arm else one.name, []).append(one.steps[metric])
    shown_as = arm_labels(summary) if by_arm else labels(summary)
    series = []
    for name, arrays in steps.items():
        length = min(len(array) for array in arrays)
        stacked = np.stack([array[:length] for array in arrays])
        curve: records.StudySeries = {"label": shown_as[name], "x": range(1, length + 1), "y": stacked.mean(0).tolist()}
        if len(arrays) > 1:
            curve |= {"low": stacked.min(0).tolist(), "high": stacked.max(0).tolist()}
        series.append(curve)
    return series

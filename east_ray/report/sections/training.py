"""The steps of a round's trainings."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from east_ray.report import plots
from east_ray.report.page import Block, Figure
from east_ray.report.plots import Series
from east_ray.report.sections.rows import MAX_CURVES
from east_ray.report.summary import RoundSummary, arm_labels, labels


def training(summary: RoundSummary) -> Iterator[Block]:
    """Loss, learning rate, gradient norm and speed by step."""
    trained = [one for one in summary.trainings if one.steps.get("loss") is not None]
    if not trained:
        return
    unit = "loss (nats/token)" if all(one.objective == "sft" for one in trained) else "loss"
    metrics = {
        "loss": ("Loss, weighted", unit),
        "unweighted_loss": ("Loss, without weights", unit),
        "learning_rate": ("Learning rate", "learning rate"),
        "gradient_norm": ("Gradient norm", "norm before clipping"),
        "tokens_per_s": ("Training speed", "tokens/s"),
    }
    if all(np.array_equal(one.steps["loss"], one.steps.get("unweighted_loss", np.empty(0))) for one in trained):
        del metrics["unweighted_loss"]  # all weights are 1
    for metric, (title, y_label) in metrics.items():
        if curves := training_curves(summary, metric):
            is_every = len(trained) <= MAX_CURVES
            caption = title if is_every else f"{title}: mean of each arm, band from least to greatest"
            yield Figure(caption, plots.curves(title, curves, "step", y_label))


def training_curves(summary: RoundSummary, metric: str) -> list[Series]:
    """A metric of the steps of each training; of more than six, of each arm: the mean over its seeds and their range.

    The curve of an arm that is still in training is as long as its shortest training.
    """
    trained = [one for one in summary.trainings if metric in one.steps]
    by_arm = len(trained) > MAX_CURVES
    steps: dict[str, list[NDArray[np.float64]]] = {}
    for one in trained:
        steps.setdefault(one.arm if by_arm else one.name, []).append(one.steps[metric])
    shown_as = arm_labels(summary) if by_arm else labels(summary)
    series = []
    for name, arrays in steps.items():
        length = min(len(array) for array in arrays)
        stacked = np.stack([array[:length] for array in arrays])
        bounds = (stacked.min(0).tolist(), stacked.max(0).tolist()) if len(arrays) > 1 else (None, None)
        series.append(Series(shown_as[name], list(range(1, length + 1)), stacked.mean(0).tolist(), *bounds))
    return series

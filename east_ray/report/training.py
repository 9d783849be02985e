"""Sections on training: questions asked and kept, their entropies and weights, some to look at; the steps."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from east_ray.report import plots
from east_ray.report.page import Block, Figure, Paragraph, Questions, Table
from east_ray.report.plots import MAX_CURVES, Series
from east_ray.report.questions import shown_questions
from east_ray.report.summary import QUANTILES, RoundSummary, arm_labels, labels, quantiles
from east_ray.report.wording import percent_of
from east_ray.storage import RunDirectory
from east_ray.storage.rounds import listed


def funnel_blocks(summary: RoundSummary) -> Iterator[Block]:
    """What became of the questions that were asked."""
    if not summary.trainings:
        return
    first, counts = summary.trainings[0], summary.outcomes
    rows = [[name, f"{count:,}", percent_of(count, summary.asked)] for name, count in counts.items()]
    yield Table("Every question by its outcome", ["", "questions", "% of asked"], rows)
    yield Figure("From asked to kept", plots.bars("Questions asked, set aside, kept and discarded", counts))
    if first.num_responses:
        share = percent_of(first.num_truncated, first.num_responses)
        yield Paragraph(
            f"Responses: {first.num_responses:,}, of which {first.num_truncated:,} ({share} %) were truncated."
        )
    if differing := [one for one in summary.arms if (one.kept, one.discarded) != (first.kept, first.discarded)]:
        shown_as = arm_labels(summary)
        rows = [[shown_as[one.arm], f"{one.kept:,}", listed(one.discarded)] for one in [first, *differing]]
        yield Table("Trainings that keep other questions", ["training", "kept", "discarded"], rows)


def weight_blocks(summary: RoundSummary) -> Iterator[Block]:
    """Entropies and weights of the kept questions."""
    if not summary.trainings or not summary.trainings[0].entropies.size:
        return
    first, shown_as = summary.trainings[0], arm_labels(summary)
    weighted = {shown_as[one.arm]: one.weights for one in summary.arms if one.weights.size}
    arrays = {"entropy (nats)": first.entropies} | {f"weight: {label}": array for label, array in weighted.items()}
    rows = [[name, *(f"{value:.2f}" for value in quantiles(array))] for name, array in arrays.items()]
    yield Table("Over the kept questions", ["", *QUANTILES], rows)
    title = "Entropy of the answers to kept questions"
    yield Figure(title, plots.histogram(title, {"entropy": first.entropies}, "entropy (nats)"))
    if unequal := {label: array for label, array in weighted.items() if np.ptp(array) > 0}:
        title = "Weights" if len(unequal) > 1 else f"Weights: {next(iter(unequal))}"
        yield Figure(title, plots.histogram(title, unequal, "weight"))
    title = "Entropy against pass rate"
    svg = plots.density(title, first.pass_rates, first.entropies, "pass rate", "entropy (nats)")
    yield Figure(f"{title}; a larger dot is more questions", svg)


def question_blocks(directory: RunDirectory, summary: RoundSummary) -> Iterator[Block]:
    """A table of some questions with examples of their responses."""
    if not summary.trainings:
        return
    first, config = summary.trainings[0], directory.config
    # From the second round on, each training of a comparison has samples of its own.
    has_own = config.compare is not None and summary.number > 0
    stages = first.stages if has_own else directory.round(summary.number)
    num_responses = config.learners()[first.name].answers.responses
    found = shown_questions(first, stages / "samples", stages / "answers", num_responses=num_responses)
    if found:
        yield Questions(
            f"{len(found):,} of {summary.asked:,} questions: kept ones with the least and the greatest entropies and a "
            "spread between them, and discarded ones. Open a question to read its responses.",
            found,
        )


def step_blocks(summary: RoundSummary) -> Iterator[Block]:
    """Loss, learning rate, gradient norm and speed by step."""
    trained = [one for one in summary.trainings if one.steps.get("loss") is not None]
    if not trained:
        return
    metrics = {
        "loss": ("Loss, weighted", "loss"),
        "unweighted_loss": ("Loss, without weights", "loss"),
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

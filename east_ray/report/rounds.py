"""How various the answers of each round are, beside the accuracies before and after it: what shows a collapse."""

from collections.abc import Iterator, Sequence

from east_ray import records
from east_ray.config import BASE
from east_ray.report import plots
from east_ray.report.page import Block, Table
from east_ray.report.plots import MAX_CURVES
from east_ray.report.summary import RoundSummary, TrainingResults, arm_labels
from east_ray.report.wording import percent

#: Rows of the table; a comparison of many arms has more.
_MAX_ROWS = 60
_QUANTITIES = {"entropy": "Entropy of the answers (nats)", "num_answers": "Distinct answers to a question"}


def diversity_blocks(rounds: Sequence[RoundSummary]) -> Iterator[Block]:
    """Entropy and distinct answers of each round, of each arm the mean over its seeds; nothing for one round."""
    asked = [summary for summary in rounds if any(one.diversity for one in summary.trainings)]
    if len(asked) < 2:
        return
    names = list(dict.fromkeys(one.arm for summary in asked for one in _shown(summary)))
    rows = [row for name in names for row in _rows(asked, name)]
    columns = ["", "round", "entropy, nats", "% of round 0's", "distinct answers", "accuracy % before", "and after"]
    left_out = f"; {len(rows) - _MAX_ROWS:,} more rows in diversity.json" if len(rows) > _MAX_ROWS else ""
    first = 0 if len(names) > 1 else 1
    caption = "Answers to a question in each round, beside the accuracies before and after it"
    yield Table(caption + left_out, columns[first:], [row[first:] for row in rows[:_MAX_ROWS]])
    for name, title in _QUANTITIES.items():
        series = [_curve(asked, arm, name) for arm in names[:MAX_CURVES]]
        yield plots.curves(f"{title} over the rounds", series, "round", title.lower())


def _shown(summary: RoundSummary) -> list[TrainingResults]:
    """The trainings with responses of their own: all of a comparison, or the run's own, whose variants share its."""
    return summary.trainings if summary.comparison else summary.trainings[:1]


def _means(summary: RoundSummary, arm: str) -> dict[str, tuple[float, float]]:
    """Quantity -> its mean in round 0 and now, over the seeds of an arm that have got so far."""
    found = [one.diversity for one in _shown(summary) if one.arm == arm and one.diversity is not None]
    changes: dict[str, list[records.Change]] = {
        "entropy": [one["entropy"] for one in found],
        "num_answers": [one["num_answers"] for one in found],
    }
    return {
        name: (sum(one["before"] for one in each) / len(each), sum(one["now"] for one in each) / len(each))
        for name, each in changes.items()
        if each
    }


def _rows(rounds: Sequence[RoundSummary], arm: str) -> Iterator[list[str]]:
    accuracy = _accuracy(rounds[0], BASE)
    for summary in rounds:
        before, accuracy = accuracy, _accuracy(summary, arm)
        if means := _means(summary, arm):
            (first, now), (_, num_answers) = means["entropy"], means["num_answers"]
            left = percent(now / first) if first else ""
            label = arm_labels(summary)[arm]
            numbers = [f"{now:.2f}", left, f"{num_answers:.1f}", percent(before), percent(accuracy)]
            yield [label, str(summary.number), *numbers]


def _accuracy(summary: RoundSummary, name: str) -> float | None:
    """Of the model before training, or of the one that the round's training, or arm, has made."""
    if (found := summary.comparison) is not None:
        base = {BASE: found["base"]["accuracy"]} if "base" in found else {}
        return (base | {arm["name"]: arm["mean"] for arm in found["arms"]}).get(name)
    row = summary.metrics["accuracy"].get(name) if summary.metrics else None
    return row and row["accuracy"]


def _curve(rounds: Sequence[RoundSummary], arm: str, quantity: str) -> records.StudySeries:
    found = {summary.number: means[quantity][1] for summary in rounds if (means := _means(summary, arm))}
    return {"label": arm_labels(rounds[0])[arm], "x": list(found), "y": list(found.values())}

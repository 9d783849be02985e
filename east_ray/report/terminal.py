"""What a run came to, as tables on the terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from east_ray.config import BASE
from east_ray.records import ArmComparison, EvaluationMetrics, SampledMetrics
from east_ray.report.html import printable
from east_ray.report.summary import BASE_LABEL, RoundSummary, arm_labels, labels, quantiles, summarize
from east_ray.report.wording import QUANTILES, difference_of, interval, percent, signed, verdicts

__all__ = ["print_summary", "summarize"]

#: Models in the table of sampled responses; the report has all of them.
_MAX_SAMPLED = 12


def print_summary(rounds: Sequence[RoundSummary], console: Console) -> None:
    """Print the tables at the end of a run: questions kept and discarded, entropies and weights, accuracies."""
    for summary in rounds:
        title = f"round {summary.number}" if len(rounds) > 1 else None
        console.print()
        if summary.trainings:
            console.print(_questions_table(summary, title))
        if any(training.entropies.size for training in summary.trainings):
            console.print(_weights_table(summary))
        if summary.comparison:
            console.print(_comparison_table(summary.comparison))
        elif summary.metrics:
            console.print(_accuracy_table(summary, summary.metrics))
        if summary.metrics and (sampled := summary.metrics.get("sampled")):
            console.print(_sampled_table(summary, sampled))
        for line in verdicts(summary):
            console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


def _questions_table(summary: RoundSummary, title: str | None) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("questions")
    table.add_column("", justify="right")
    table.add_row("asked", f"{summary.asked:,}")
    for reason, count in summary.set_aside.items():
        table.add_row(_plain(f"set aside: {reason}"), f"{count:,}")
    first = summary.trainings[0]
    table.add_row("kept as examples", f"{first.kept:,}")
    for reason, count in first.discarded.items():
        table.add_row(f"discarded: {reason}", f"{count:,}")
    return table


def _weights_table(summary: RoundSummary) -> Table:
    table = Table(header_style="bold")
    table.add_column("over the kept questions")
    for name in QUANTILES:
        table.add_column(name, justify="right")
    shown_as = arm_labels(summary)
    arrays = {"entropy (nats)": summary.trainings[0].entropies} | {
        f"weight: {shown_as[training.arm]}": training.weights for training in summary.arms
    }
    for name, array in arrays.items():
        if array.size:
            table.add_row(_plain(name), *(f"{value:.2f}" for value in quantiles(array)))
    return table


def _accuracy_table(summary: RoundSummary, metrics: EvaluationMetrics) -> Table:
    shown_as, accuracies = labels(summary), metrics["accuracy"]
    num_questions = next(iter(accuracies.values()))["num_questions"]
    table = Table(header_style="bold")
    table.add_column(f"{num_questions:,} held-out questions", no_wrap=True)
    table.add_column("accuracy %", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("against base", justify="right")
    against_base = {row["first"]: row for row in metrics["differences"] if row["second"] == BASE}
    for name, row in accuracies.items():
        gain = against_base.get(name)
        table.add_row(shown_as[name], percent(row["accuracy"]), interval(row), signed(gain) if gain else "")
    return table


def _sampled_table(summary: RoundSummary, sampled: Mapping[str, SampledMetrics]) -> Table:
    """pass@k and maj@k at one response, at all of them and at one number between."""
    shown_as = labels(summary)
    every = [point["k"] for point in next(iter(sampled.values()))["pass_at"]]
    ks = sorted({every[0], every[len(every) // 2], every[-1]})
    table = Table(header_style="bold")
    table.add_column("sampled responses, %")
    for name in ("pass", "maj"):
        for k in ks:
            table.add_column(f"{name}@{k}", justify="right", no_wrap=True)
    for model, row in list(sampled.items())[:_MAX_SAMPLED]:
        of_metrics = [{point["k"]: point["value"] for point in row[name]} for name in ("pass_at", "maj_at")]
        table.add_row(shown_as[model], *(percent(values.get(k)) for values in of_metrics for k in ks))
    return table


def _comparison_table(comparison: ArmComparison) -> Table:
    table = Table(header_style="bold")
    table.add_column(f"{len(comparison['seeds'])} seeds, {comparison['num_questions']:,} questions", overflow="fold")
    for name in ("accuracy %", "95 % interval", "against baseline"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    if base := comparison.get("base"):
        table.add_row(BASE_LABEL, percent(base["accuracy"]), interval(base), "", "")
    for arm in comparison["arms"]:
        difference = difference_of(arm)
        gain = signed(difference) if difference else ""
        table.add_row(_plain(arm["label"]), percent(arm["mean"]), interval(arm), gain, arm["verdict"])
    return table


def _plain(text: str) -> str:
    """Text of any origin as a table shows it."""
    return escape(printable(text))

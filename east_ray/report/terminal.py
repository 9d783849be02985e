"""What a run came to, as tables on the terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from east_ray.config import BASE
from east_ray.records import ArmComparison, EvaluationMetrics, SampledMetrics
from east_ray.report.html import printable
from east_ray.report.summary import BASE_LABEL, QUANTILES, RoundSummary, arm_labels, labels, quantiles, summarize
from east_ray.report.wording import difference_of, interval, percent, signed, verdicts

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
    return _table(["questions", ""], [[name, f"{count:,}"] for name, count in summary.outcomes.items()], title)


def _weights_table(summary: RoundSummary) -> Table:
    shown_as = arm_labels(summary)
    arrays = {"entropy (nats)": summary.trainings[0].entropies}
    arrays |= {f"weight: {shown_as[training.arm]}": training.weights for training in summary.arms}
    rows = [[name, *(f"{value:.2f}" for value in quantiles(array))] for name, array in arrays.items() if array.size]
    return _table(["over the kept questions", *QUANTILES], rows)


def _accuracy_table(summary: RoundSummary, metrics: EvaluationMetrics) -> Table:
    shown_as, accuracies = labels(summary), metrics["accuracy"]
    num_questions = next(iter(accuracies.values()))["num_questions"]
    gains = {row["first"]: signed(row) for row in metrics["differences"] if row["second"] == BASE}
    rows = [
        [shown_as[one], percent(row["accuracy"]), interval(row), gains.get(one, "")] for one, row in accuracies.items()
    ]
    return _table([f"{num_questions:,} held-out questions", "accuracy %", "95 % interval", "against base"], rows)


def _sampled_table(summary: RoundSummary, sampled: Mapping[str, SampledMetrics]) -> Table:
    """pass@k and maj@k at one response, at all of them and at one number between."""
    shown_as = labels(summary)
    every = [point["k"] for point in next(iter(sampled.values()))["pass_at"]]
    ks = sorted({every[0], every[len(every) // 2], every[-1]})
    rows = []
    for model, row in list(sampled.items())[:_MAX_SAMPLED]:
        of_metrics = [{point["k"]: point["value"] for point in row[name]} for name in ("pass_at", "maj_at")]
        rows.append([shown_as[model], *(percent(values.get(k)) for values in of_metrics for k in ks)])
    return _table(["sampled responses, %", *(f"{name}@{k}" for name in ("pass", "maj") for k in ks)], rows)


def _comparison_table(comparison: ArmComparison) -> Table:
    columns = [f"{len(comparison['seeds'])} seeds, {comparison['num_questions']:,} questions"]
    columns += ["accuracy %", "95 % interval", "against baseline", "verdict"]
    base = comparison.get("base")
    rows = [[BASE_LABEL, percent(base["accuracy"]), interval(base), "", ""]] if base else []
    for arm in comparison["arms"]:
        rows.append([arm["label"], percent(arm["mean"]), interval(arm), signed(difference_of(arm)), arm["verdict"]])
    return _table(columns, rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> Table:
    """Text of any origin in columns; the first gives way where the terminal is narrow, the numbers do not."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for index, name in enumerate(columns):
        is_text = index == 0 or name == "verdict"
        table.add_column(name, justify="left" if is_text else "right", no_wrap=index > 0, overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    return table

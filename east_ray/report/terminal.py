"""What a run came to, for people: the tables on the terminal, the HTML report, and the card of a model."""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from east_ray.config import Config, InputError
from east_ray.config.files import dump
from east_ray.report.page import render
from east_ray.report.plots import printable
from east_ray.report.sections import sections
from east_ray.report.summary import (
    BASE_LABEL,
    RoundSummary,
    arm_difference,
    arm_labels,
    describe,
    interval,
    labels,
    quantiles,
    signed,
    summarize,
    verdicts,
)
from east_ray.storage import Folder, RunDirectory, Stages, locate

__all__ = ["describe", "model_card", "print_summary", "summarize", "write_report", "write_side_by_side"]


def print_summary(rounds: Sequence[RoundSummary], console: Console) -> None:
    """The tables at the end of a run: questions kept and discarded, entropies and weights, accuracies."""
    for summary in rounds:
        title = f"round {summary.number}" if len(rounds) > 1 else None
        console.print()
        if summary.learners:
            console.print(_questions_table(summary, title))
        if any(learner.entropies.size for learner in summary.learners):
            console.print(_weights_table(summary))
        if summary.comparison:
            console.print(_comparison_table(summary.comparison))
        elif summary.metrics:
            console.print(_accuracy_table(summary, summary.metrics))
        if summary.metrics and summary.metrics.get("sampled"):
            console.print(_sampled_table(summary, summary.metrics["sampled"]))
        for line in verdicts(summary):
            console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


def _questions_table(summary: RoundSummary, title: str | None) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("questions")
    table.add_column("", justify="right")
    table.add_row("asked", f"{summary.asked:,}")
    for reason, count in summary.set_aside.items():
        table.add_row(_plain(f"set aside: {reason}"), f"{count:,}")
    first = summary.learners[0]
    table.add_row("kept as examples", f"{first.kept:,}")
    for reason, count in first.discarded.items():
        table.add_row(f"discarded: {reason}", f"{count:,}")
    return table


def _weights_table(summary: RoundSummary) -> Table:
    table = Table(header_style="bold")
    table.add_column("over the kept questions")
    for name in ("min", "25 %", "50 %", "75 %", "max"):
        table.add_column(name, justify="right")
    shown_as = arm_labels(summary)
    arrays = {"entropy (nats)": summary.learners[0].entropies} | {
        f"weight: {shown_as[learner.arm]}": learner.weights for learner in summary.arms
    }
    for name, array in arrays.items():
        if array.size:
            table.add_row(_plain(name), *(f"{value:.2f}" for value in quantiles(array)))
    return table


def _accuracy_table(summary: RoundSummary, metrics: dict[str, Any]) -> Table:
    shown_as, accuracies = labels(summary), metrics["accuracy"]
    num_questions = next(iter(accuracies.values()))["num_questions"]
    table = Table(header_style="bold")
    table.add_column(f"{num_questions:,} held-out questions", no_wrap=True)
    table.add_column("accuracy %", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("against base", justify="right")
    against_base = {row["first"]: row for row in metrics["differences"] if row["second"] == "base"}
    for name, row in accuracies.items():
        gain = against_base.get(name)
        table.add_row(shown_as[name], f"{100 * row['accuracy']:.1f}", interval(row), signed(gain) if gain else "")
    return table


def _sampled_table(summary: RoundSummary, sampled: dict[str, Any]) -> Table:
    """pass@k and maj@k at one response, at all of them and at one number between."""
    shown_as = labels(summary)
    every = [int(point["k"]) for point in next(iter(sampled.values()))["pass_at"]]
    ks = sorted({every[0], every[len(every) // 2], every[-1]})
    table = Table(header_style="bold")
    table.add_column("sampled responses, %")
    for name in ("pass", "maj"):
        for k in ks:
            table.add_column(f"{name}@{k}", justify="right", no_wrap=True)
    for model, row in list(sampled.items())[:12]:  # the report has them all
        values = {
            (name, int(point["k"])): f"{100 * point['value']:.1f}"
            for name in ("pass", "maj")
            for point in row[f"{name}_at"]
        }
        cells = (values.get((name, k), "") for name in ("pass", "maj") for k in ks)
        table.add_row(shown_as[model], *cells)
    return table


def _comparison_table(comparison: dict[str, Any]) -> Table:
    table = Table(header_style="bold")
    table.add_column(f"{len(comparison['seeds'])} seeds, {comparison['num_questions']:,} questions", overflow="fold")
    for name in ("accuracy %", "95 % interval", "against baseline"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    if base := comparison.get("base"):
        table.add_row(BASE_LABEL, f"{100 * base['accuracy']:.1f}", interval(base), "", "")
    for arm in comparison["arms"]:
        cells = (_plain(arm["label"]), f"{100 * arm['mean']:.1f}", interval(arm), arm_difference(arm), arm["verdict"])
        table.add_row(*cells)
    return table


def _plain(text: str) -> str:
    """Text of a file as a table shows it, whatever is in it."""
    return escape(printable(text))


def write_report(directory: RunDirectory) -> str:
    """Write ``report.html`` into the run directory and return its path. It opens from disk and asks no network."""
    directory.folder.write_text("report.html", render({directory.uri: sections(directory)}))
    return directory.address(directory.folder / "report.html")


def write_side_by_side(directories: Sequence[RunDirectory], path: str) -> str:
    """Write one HTML file with the tables and figures of several runs in columns; returns its path.

    `path` may be local or an address. Raises InputError for fewer than two runs, or for one that is named twice.
    """
    names = [directory.uri for directory in directories]
    if len(set(names)) != len(names) or len(names) < 2:
        raise InputError(f"side by side: expected at least two different runs, found {', '.join(names) or 'none'}")
    filesystem, inner = locate(path, is_output=True)
    file = PurePosixPath(inner)
    page = render({directory.uri: sections(directory, in_full=False) for directory in directories})
    return Folder(filesystem, str(file.parent)).write_text(file.name, page)


def model_card(config: Config, stages: Stages, number: int, name: str, initial_model: str, metrics: Any) -> str:
    """The README.md of a trained model: method, data, configuration and, if `metrics` are there, measured accuracy."""
    import jinja2

    environment = jinja2.Environment(  # noqa: S701 - Markdown
        loader=jinja2.PackageLoader("east_ray.report", "."),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    record = stages.record("examples")
    source = config.questions or config.samples
    held_out = config.evaluation.questions
    shown = {"base": "before training", name: "this model"}
    accuracies = (metrics or {}).get("accuracy", {})
    return str(
        environment.get_template("model_card.md.jinja").render(
            config=config,
            config_yaml=dump(config),
            label=f"{describe(config)}, from {Path(config.model).name}",
            version=metadata.version("east-ray"),
            number=number,
            initial_model=initial_model,
            num_responses=f"{config.sampling.responses_per_question} times"
            if config.samples is None
            else "several times",
            source=source and (source.path or getattr(source, "hub", None)),
            kept=record.counts["kept"] if record else 0,
            discarded=record.counts["discarded"] if record else {},
            accuracies=[{"label": shown[model]} | row for model, row in accuracies.items() if model in shown],
            held_out=held_out and (held_out.path or held_out.hub),
        )
    )

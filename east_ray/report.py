"""What a run came to: a summary read from its folders, the tables on the terminal, and one self-contained HTML file."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from east_ray.config import Config
from east_ray.config_file import dump
from east_ray.records import DISCARDED, EXAMPLES
from east_ray.storage import RunDirectory, StageRecord, Stages

#: How the two models that every run knows are shown.
_SHOWN = {"base": "base (before training)"}


@dataclass(frozen=True)
class Learner:
    """One training of a round: what it was given and what it counted."""

    name: str
    label: str
    kept: int
    discarded: dict[str, int]
    entropies: NDArray[np.float64]
    weights: NDArray[np.float64]
    pass_rates: NDArray[np.float64]
    num_truncated: int
    num_responses: int
    losses: list[float]


@dataclass(frozen=True)
class RoundSummary:
    """One round: the funnel of its questions, its trainings, and its models' accuracies."""

    number: int
    asked: int
    set_aside: dict[str, int]
    learners: list[Learner]
    metrics: dict[str, Any] | None
    seconds: dict[str, float]


def summarize(directory: RunDirectory) -> list[RoundSummary]:
    """The rounds of a run that have begun, as far as they have got."""
    config = directory.config
    rounds = []
    for number in range(config.rounds):
        stages = directory.round(number)
        questions = stages.record("questions")
        if questions is None:
            break
        learners = [_learner(name, settings, stages.learner(name)) for name, settings in config.learners().items()]
        metrics = (stages / "evaluation").read_text("metrics.json")
        records = {
            stage: stages.record(stage) for stage in ("questions", "sampling", "examples", "training", "evaluation")
        }
        sampling = records["sampling"] or StageRecord()
        rounds.append(
            RoundSummary(
                number,
                questions.counts["asked"],
                questions.counts["set_aside"] | sampling.counts.get("set_aside", {}),
                learners,
                json.loads(metrics) if metrics else None,
                {stage: record.seconds for stage, record in records.items() if record},
            )
        )
    return rounds


def describe(config: Config) -> str:
    """A training's weighting in a few words, e.g. ``EAST (entropy, a = 1)``."""
    if config.training.examples == "reference_solutions":
        return "reference solutions"
    weighting = config.weighting
    words: list[str] = [weighting.signal]
    if weighting.signal != "uniform":
        words.append(f"a = {weighting.exponent:g}")
        words += ["sigmoid"] if weighting.mapping == "sigmoid" else []
    words += [config.training.objective.upper()] if config.training.objective != "sft" else []
    described = ", ".join(words)
    return f"EAST ({described})" if weighting.signal == "entropy" else described


def _learner(name: str, config: Config, stages: Stages) -> Learner:
    columns = ["entropy", "pass_rate", "weight", "num_truncated", "num_responses"]
    examples = (stages / "examples").read(EXAMPLES, columns)
    discarded = (stages / "discarded").read(DISCARDED, ["reason", "num_truncated", "num_responses"])
    record = stages.record("examples")
    steps = (stages.folder.read_text("training.jsonl") or "").splitlines()

    def total(column: str) -> int:
        return sum(pc.sum(table[column]).as_py() or 0 for table in (examples, discarded))

    return Learner(
        name,
        describe(config),
        examples.num_rows,
        record.counts["discarded"] if record else {},
        _numbers(examples, "entropy"),
        _numbers(examples, "weight"),
        _numbers(examples, "pass_rate"),
        total("num_truncated"),
        total("num_responses"),
        [json.loads(step)["loss"] for step in steps],
    )


def _numbers(table: pa.Table, column: str) -> NDArray[np.float64]:
    return np.asarray(table[column].drop_null().to_numpy(), dtype=np.float64)


def print_summary(rounds: Sequence[RoundSummary], console: Console) -> None:
    """The tables at the end of a run: questions kept and discarded, entropies and weights, accuracies."""
    for summary in rounds:
        title = f"round {summary.number}" if len(rounds) > 1 else None
        console.print()
        console.print(_questions_table(summary, title))
        if any(learner.entropies.size for learner in summary.learners):
            console.print(_weights_table(summary))
        if summary.metrics:
            console.print(_accuracy_table(summary))
            for line in _differences(summary):
                console.print(line, highlight=False, soft_wrap=True)


def _questions_table(summary: RoundSummary, title: str | None) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("questions")
    table.add_column("", justify="right")
    table.add_row("asked", f"{summary.asked:,}")
    for reason, count in summary.set_aside.items():
        table.add_row(f"set aside: {reason}", f"{count:,}")
    first = summary.learners[0]
    table.add_row("kept as examples", f"{first.kept:,}")
    for reason, count in first.discarded.items():
        table.add_row(f"discarded: {reason}", f"{count:,}")
    return table


def quartiles(values: NDArray[np.float64]) -> list[float]:
    """Least value, quartiles and greatest value."""
    return [float(value) for value in np.quantile(values, [0, 0.25, 0.5, 0.75, 1])]


def _weights_table(summary: RoundSummary) -> Table:
    table = Table(header_style="bold")
    table.add_column("over the kept questions")
    for name in ("min", "25 %", "50 %", "75 %", "max"):
        table.add_column(name, justify="right")
    table.add_row("entropy (nats)", *(f"{value:.2f}" for value in quartiles(summary.learners[0].entropies)))
    for learner in summary.learners:
        if learner.weights.size:
            table.add_row(
                f"weight: {labels(summary)[learner.name]}", *(f"{value:.2f}" for value in quartiles(learner.weights))
            )
    return table


def labels(summary: RoundSummary) -> dict[str, str]:
    """Name of a model -> how it is shown."""
    labels_ = [learner.label for learner in summary.learners]
    return _SHOWN | {
        learner.name: learner.label if labels_.count(learner.label) == 1 else f"{learner.name}: {learner.label}"
        for learner in summary.learners
    }


def _accuracy_table(summary: RoundSummary) -> Table:
    assert summary.metrics is not None
    shown = labels(summary)
    accuracies = summary.metrics["accuracy"]
    num_questions = next(iter(accuracies.values()))["num_questions"]
    table = Table(header_style="bold")
    table.add_column(f"{num_questions:,} held-out questions", no_wrap=True)
    table.add_column("accuracy %", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("against base", justify="right")
    against_base = {row["first"]: row for row in summary.metrics["differences"] if row["second"] == "base"}
    for name, row in accuracies.items():
        gain = against_base.get(name)
        table.add_row(
            shown.get(name, name),
            f"{100 * row['accuracy']:.1f}",
            f"{100 * row['low']:.1f} to {100 * row['high']:.1f}",
            _signed(gain) if gain else "",
        )
    return table


def _signed(row: dict[str, Any]) -> str:
    return f"{100 * row['difference']:+.1f} ({100 * row['low']:+.1f}, {100 * row['high']:+.1f})"


def _differences(summary: RoundSummary) -> list[str]:
    """Trained models against one another, in sentences that say no more than the interval does."""
    assert summary.metrics is not None
    shown = labels(summary)
    lines = []
    for row in summary.metrics["differences"]:
        if "base" in (row["first"], row["second"]):
            continue
        # The run's own weighting comes first, its variants after it: say it from the run's point of view.
        first, second = shown[row["second"]], shown[row["first"]]
        difference, low, high = -row["difference"], -row["high"], -row["low"]
        # The interval is approximate where few answers differ, so a verdict needs the exact test as well.
        decided = (low > 0 or high < 0) and row["p_value"] < 0.05
        better = first if difference > 0 else second
        lines.append(
            f"{first} minus {second}: {100 * difference:+.1f} points, paired 95 % interval {100 * low:+.1f} to "
            f"{100 * high:+.1f}, exact p = {row['p_value']:.2g}: "
            + (f"{better} answers more of these questions" if decided else "no difference is shown")
            + " (one training of each: what another seed would change is not in the interval)."
        )
    return lines


def write_report(directory: RunDirectory) -> str:
    """Write ``report.html`` into the run directory and return its path. It opens from disk and asks no network."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("east_ray", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    rounds = summarize(directory)
    html = environment.get_template("report.html.jinja").render(
        config=directory.config,
        config_yaml=dump(directory.config),
        rounds=[_rendered(summary) for summary in rounds],
        versions={name: metadata.version(name) for name in ("east-ray", "ray", "torch", "transformers", "deepspeed")},
        directory=directory.uri,
    )
    directory.folder.write_text("report.html", html)
    return directory.address(directory.folder / "report.html")


def model_card(config: Config, stages: Stages, number: int, name: str, initial_model: str, metrics: Any) -> str:
    """The README.md of a trained model: method, data, configuration and, if `metrics` are there, measured accuracy."""
    import jinja2

    environment = jinja2.Environment(  # noqa: S701 - Markdown
        loader=jinja2.PackageLoader("east_ray", "."), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
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


def _rendered(summary: RoundSummary) -> dict[str, Any]:
    import markupsafe

    first = summary.learners[0]
    plots = []
    if first.entropies.size:
        plots.append(("Entropy of the answers to kept questions", _histogram(first.entropies, "entropy (nats)")))
        plots.append(("Entropy against pass rate of kept questions", _scatter(first.pass_rates, first.entropies)))
    plots += [
        (f"Weights: {learner.label}", _histogram(learner.weights, "weight"))
        for learner in summary.learners
        if learner.weights.size and np.ptp(learner.weights) > 0
    ]
    plots += [(f"Loss: {learner.label}", _curve(learner.losses)) for learner in summary.learners if learner.losses]
    shown = labels(summary)
    return {
        "summary": summary,
        "plots": [{"title": title, "svg": markupsafe.Markup(svg)} for title, svg in plots],  # noqa: S704 - our own SVG
        "accuracy": [
            {"label": shown.get(name, name)} | row for name, row in (summary.metrics or {}).get("accuracy", {}).items()
        ],
        "differences": _differences(summary) if summary.metrics else [],
        "quartiles": [
            {"label": "entropy (nats)", "values": quartiles(first.entropies)} if first.entropies.size else None,
            *(
                {"label": f"weight: {learner.label}", "values": quartiles(learner.weights)}
                for learner in summary.learners
                if learner.weights.size
            ),
        ],
    }


def _svg(draw: Any, x_label: str, y_label: str) -> str:
    """An inline SVG figure; text stays text and takes the page's colours."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.fonttype": "none", "font.size": 10, "svg.hashsalt": "east-ray"}):
        figure, axes = pyplot.subplots(figsize=(5.2, 2.8), layout="constrained")
        draw(axes)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.spines[["top", "right"]].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _histogram(values: NDArray[np.float64], label: str) -> str:
    return _svg(lambda axes: axes.hist(values, bins=30, color="#3b78b5"), label, "questions")


def _scatter(pass_rates: NDArray[np.float64], entropies: NDArray[np.float64]) -> str:
    return _svg(
        lambda axes: axes.scatter(pass_rates, entropies, s=8, alpha=0.5, color="#3b78b5", linewidths=0),
        "pass rate",
        "entropy (nats)",
    )


def _curve(losses: Sequence[float]) -> str:
    return _svg(lambda axes: axes.plot(range(1, len(losses) + 1), losses, color="#3b78b5"), "step", "loss (nats/token)")

"""The report's files: ``report.html`` of a run, and one page with several runs side by side. They open from disk.

Here is also which sections the page has, in their order, and those of a few lines.
"""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from east_ray.config import Config, InputError
from east_ray.config.files import dump
from east_ray.records import StudyPage
from east_ray.report.html import shown
from east_ray.report.page import Block, Fold, PageSection, Table, render
from east_ray.report.plots import curves
from east_ray.report.sections import (
    accuracy_blocks,
    blocks_over_rounds,
    comparison_blocks,
    funnel_blocks,
    question_blocks,
    step_blocks,
    weight_blocks,
)
from east_ray.report.summary import RoundSummary, TrainingResults, arm_labels, duration, summarize, verdicts
from east_ray.storage import Folder, RunDirectory, locate


def write_report(directory: RunDirectory) -> str:
    """Write ``report.html`` into the run directory; returns its path."""
    directory.folder.write_text("report.html", render({directory.uri: _sections(directory)}))
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
    page = render({directory.uri: _sections(directory, in_full=False) for directory in directories})
    return Folder(filesystem, str(file.parent)).write_text(file.name, page)


def _sections(directory: RunDirectory, *, in_full: bool = True) -> list[PageSection]:
    """The sections of a run, as far as it has got; not `in_full` leaves out its questions and its configuration."""
    config, rounds = directory.config, summarize(directory)
    found = [PageSection("The run", "What was run", list(_what_was_run(config, rounds)))]
    for summary in rounds:
        parts = _of_round(directory, summary, in_full=in_full)
        found += [PageSection(f"Round {summary.number}", title, list(blocks)) for title, blocks in parts.items()]
    found.append(
        PageSection("Over the rounds", "Accuracy and weights from round to round", list(blocks_over_rounds(rounds)))
    )
    if in_full:
        fold = Fold("config.yaml", [("", dump(config))], max_chars=1 << 18)
        found.append(PageSection("Configuration", "Every setting", [fold]))
    return [section for section in found if section.blocks]


def _of_round(directory: RunDirectory, summary: RoundSummary, *, in_full: bool) -> dict[str, Iterator[Block]]:
    parts = {
        "Questions asked and kept": funnel_blocks(summary),
        "Entropy and weights": weight_blocks(summary),
        **({"Questions to look at": question_blocks(directory, summary)} if in_full else {}),
        "Training": step_blocks(summary),
        "Accuracy on held-out questions": accuracy_blocks(summary),
        "Comparison": comparison_blocks(summary),
        "Time and tokens": _cost(summary),
    }
    return parts | {shown(study["title"], 100): _study(study) for study in summary.studies}


def _what_was_run(config: Config, rounds: Sequence[RoundSummary]) -> Iterator[Block]:
    """The description, a table of settings and the verdicts of the last round."""
    if config.description:
        yield config.description
    training, weighting = config.training, config.weighting
    source, held_out = config.questions or config.samples, config.evaluation.questions
    seconds = sum(record.seconds for summary in rounds for record in summary.records.values())
    rows = [
        ["model", config.model or "none: the samples were weighed only"],
        ["questions", str(getattr(source, "path", None) or getattr(source, "hub", None))],
        ["responses", _responses(config)],
        ["answers", f"equal by {config.answers.equivalence}"],
        ["weighting", f"{weighting.signal}, {weighting.mapping}, a = {weighting.exponent:g}"],
        [
            "training",
            f"{training.objective.upper()}, epochs: {training.epochs}, {training.examples_per_step} examples a step, "
            f"learning rate {training.learning_rate:g}" + (", adapters" if training.lora else ""),
        ],
        ["trainings in a round", f"{len(config.learners()) if source else 0:,}"],
        ["held-out questions", str(held_out.path or held_out.hub) if held_out else "none"],
        ["rounds", f"{len(rounds)} of {config.rounds}"],
        ["seed", str(config.seed)],
        ["time of the stages", duration(seconds)],
    ]
    yield Table("", ["setting", "value"], rows)
    for summary in rounds[-1:]:
        yield from verdicts(summary)


def _responses(config: Config) -> str:
    if config.samples is not None:
        return "given"
    if config.training.examples == "reference_solutions":
        return "none: the questions' reference solutions are trained on"
    sampling = config.sampling
    return (
        f"{sampling.responses_per_question} a question, temperature {sampling.temperature:g}, "
        f"at most {sampling.max_tokens:,} tokens"
    )


def _cost(summary: RoundSummary) -> Iterator[Block]:
    """A row for each stage, and one for the trainings of each arm."""
    rows = [
        _row(stage, record.seconds, record.counts.get("num_responses"), record.counts.get("num_tokens"))
        for stage, record in summary.records.items()
        if stage != "training"
    ]
    shown_as = arm_labels(summary)
    by_arm: dict[str, list[TrainingResults]] = {}
    for training in summary.trainings:
        if training.seconds is not None:
            by_arm.setdefault(training.arm, []).append(training)
    for arm, trainings in by_arm.items():
        name = f"training: {shown_as[arm]}" + (f" ({len(trainings)} seeds)" if len(trainings) > 1 else "")
        seconds = sum(training.seconds or 0 for training in trainings)
        rows.append(_row(name, seconds, None, sum(training.num_tokens for training in trainings)))
    columns = ["stage", "seconds", "responses", "tokens", "tokens/s"]
    yield Table("Seconds of a whole stage, its start included; of a training, those of its steps", columns, rows)


def _row(name: str, seconds: float, num_responses: int | None, num_tokens: int | None) -> list[str]:
    rate = f"{num_tokens / seconds:,.0f}" if num_tokens and seconds > 0 else ""
    return [name, f"{seconds:,.1f}", *(f"{count:,}" if count else "" for count in (num_responses, num_tokens)), rate]


def _study(page: StudyPage) -> Iterator[Block]:
    """Its text, tables, curves and folded texts, as far as it has them."""
    if text := page.get("text"):
        yield text
    for table in page.get("tables", []):
        rows = [[_cell(value) for value in row] for row in table["rows"]]
        yield Table(table["caption"], [str(column) for column in table["columns"]], rows)
    for figure in page.get("curves", []):
        yield curves(figure["title"], figure["series"], figure["x_label"], figure["y_label"])
    for folded in page.get("texts", []):
        yield Fold(folded["title"], [(block["label"], block["text"]) for block in folded["blocks"]])


def _cell(value: str | int | float | None) -> str:
    """Whole numbers with separators, others to four digits."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)

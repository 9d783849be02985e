"""The sections of a run's report, in their order: which tables, figures and sentences stand under which title."""

from collections.abc import Iterator

from east_ray.config.files import dump
from east_ray.report.html import shown
from east_ray.report.page import Block, Fold, Section
from east_ray.report.sections.accuracy import accuracy
from east_ray.report.sections.comparison import comparison
from east_ray.report.sections.cost import cost
from east_ray.report.sections.questions import funnel, questions, weights
from east_ray.report.sections.rounds import over_rounds
from east_ray.report.sections.run import what_was_run
from east_ray.report.sections.study import study_blocks
from east_ray.report.sections.training import training
from east_ray.report.summary import RoundSummary, summarize
from east_ray.storage import RunDirectory

_MAX_TITLE_CHARS, _MAX_CONFIG_CHARS = 100, 1 << 18


def sections(directory: RunDirectory, *, in_full: bool = True) -> list[Section]:
    """The sections of a run, as far as it has got; not `in_full` leaves out its questions and its configuration."""
    config, rounds = directory.config, summarize(directory)
    found = [Section("The run", "What was run", list(what_was_run(config, rounds)))]
    for summary in rounds:
        parts = _of_round(directory, summary, in_full=in_full)
        found += [Section(f"Round {summary.number}", title, list(blocks)) for title, blocks in parts.items()]
    found.append(Section("Over the rounds", "Accuracy and weights from round to round", list(over_rounds(rounds))))
    if in_full:
        fold = Fold("config.yaml", [("", dump(config))], max_chars=_MAX_CONFIG_CHARS)
        found.append(Section("Configuration", "Every setting", [fold]))
    return [section for section in found if section.blocks]


def _of_round(directory: RunDirectory, summary: RoundSummary, *, in_full: bool) -> dict[str, Iterator[Block]]:
    parts = {"Questions asked and kept": funnel(summary), "Entropy and weights": weights(summary)}
    if in_full:
        parts["Questions to look at"] = questions(directory, summary)
    parts |= {
        "Training": training(summary),
        "Accuracy on held-out questions": accuracy(summary),
        "Comparison": comparison(summary),
        "Time and tokens": cost(summary),
    }
    return parts | {shown(study["title"], _MAX_TITLE_CHARS): study_blocks(study) for study in summary.studies}

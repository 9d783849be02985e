"""What a run came to, as tables on the terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from east_ray.config import Config, InputError
from east_ray.records import Reason, SampledMetrics
from east_ray.report import files, page
from east_ray.report.audit import write_audit
from east_ray.report.html import printable
from east_ray.report.sections import arms_table, greedy_table, outcomes_table
from east_ray.report.summary import RoundSummary, labels
from east_ray.report.weights import waste_of, weights_table
from east_ray.report.wording import collapse_lines, percent, power_lines, reach_lines, verdicts
from east_ray.selection import one_discarded
from east_ray.storage import RunDirectory

#: Models in the table of sampled responses; the report has all of them.
_MAX_SAMPLED = 12

_EFFECTIVE = """\
effective %: equal weights on this part of the questions would leave as much noise.
top 1 %: this part of all weight lies on the 1 % of the questions with the largest."""


def print_summary(rounds: Sequence[RoundSummary], console: Console) -> None:
    """Print the tables at the end of a run: questions kept and discarded, entropies and weights, accuracies."""
    for summary in rounds:
        title = f"round {summary.number}" if len(rounds) > 1 else None
        console.print()
        if summary.trainings:
            console.print(_table(["questions", ""], _columns(outcomes_table(summary), 0, 1), title))
            _print_set_aside(summary, console)
            _print_one_all_wrong(summary, console)
        if any(training.entropies.size for training in summary.trainings):
            columns = ["over the kept questions", "min", "50 %", "max", "effective %", "top 1 %"]  # 80 characters
            console.print(_table(columns, _columns(weights_table(summary), 0, 1, 3, 5, 6, 7)))
            console.print(_EFFECTIVE, highlight=False)
        if found := summary.comparison:
            columns = [f"{len(found['seeds'])} seeds, {found['num_questions']:,} questions", "accuracy %"]
            columns += ["95 % interval", "against baseline", "verdict"]
            console.print(_table(columns, _columns(arms_table(found), 0, 1, 2, 3, 6)))
        elif metrics := summary.metrics:
            num_questions = next(iter(metrics["accuracy"].values()))["num_questions"]
            columns = [f"{num_questions:,} held-out questions", "accuracy %", "95 % interval", "against base"]
            console.print(_table(columns, _columns(greedy_table(metrics, labels(summary)), 0, 2, 3, 4)))
        if summary.metrics and (sampled := summary.metrics.get("sampled")):
            console.print(_sampled_table(summary, sampled))
        told = power_lines(summary.comparison) if summary.comparison else []
        for line in [*verdicts(summary), *collapse_lines(summary), *reach_lines(summary), *told, *waste_of(summary)]:
            console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


def _print_set_aside(summary: RoundSummary, console: Console) -> None:
    """For each reason, what is wrong with one of the rows that are set aside, and where all of them are."""
    firsts: dict[str, str] = {}
    for batch in (summary.stages / "set_aside").batches(["question_id", "reason", "detail"], max_rows=1000):
        for row in batch.to_pylist():
            firsts.setdefault(row["reason"], ": ".join(filter(None, (row["question_id"], row["detail"]))))
        if len(firsts) == len(summary.set_aside):
            break
    for reason, first in firsts.items():
        said = f"{summary.set_aside.get(reason, 0):,} {reason}: {first}; all of them: {summary.set_aside_at}"
        console.print(printable(said), highlight=False, markup=False, soft_wrap=True)


def _print_one_all_wrong(summary: RoundSummary, console: Console) -> None:
    """What to look at where no response is correct: a hard question, a wrong reference, or answers misread."""
    first = summary.trainings[0]
    number = first.discarded.get(Reason.ALL_WRONG)
    if number and (first.stages / "discarded").parts():  # someone may have removed what a finished run needs no more
        said = f"{number:,} {Reason.ALL_WRONG}: {one_discarded(first.stages, Reason.ALL_WRONG, number)}"
        console.print(printable(said), highlight=False, markup=False, soft_wrap=True)


def _columns(table: page.Table, *places: int) -> list[list[str]]:
    return [[row[place] for place in places] for row in table.rows]


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


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> Table:
    """Text of any origin in columns; the first gives way where the terminal is narrow, the numbers do not."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for index, name in enumerate(columns):
        is_text = index == 0 or name == "verdict"
        table.add_column(name, justify="left" if is_text else "right", no_wrap=index > 0, overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    return table


def write_and_print_audit(directory: RunDirectory, settings: Config, round_number: int, console: Console) -> None:
    """Write ``audit/`` of a round and say what it has. Raises InputError if the round has not been weighed."""
    round_ = directory.round(round_number)
    name, learner = next(iter(settings.learners().items()))
    weighed = round_.learner(name)
    for stages, stage in ((weighed, "examples"), (round_, "answers")):
        if stages.record(stage) is None:
            raise InputError(f"round {round_number} of {directory.uri} has no {stage} yet: run `east-ray weigh` first")
    found = files.audit_round(round_, weighed, learner)
    path = write_audit(found, round_ / "audit")
    console.print(
        f"{found.num_suspicious:,} of {found.num_questions:,} reference answers are contradicted by at least "
        f"{100 * found.min_share:.0f} % of the responses; the {len(found.suspects):,} most suspicious: {path}",
        soft_wrap=True,
    )

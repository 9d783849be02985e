"""The section on an adaptive number of responses: how many each question got and why, and what that has saved."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from east_ray.config import Config
from east_ray.records import Stopped
from east_ray.report import plots
from east_ray.report.page import Block, Table
from east_ray.report.summary import RoundSummary
from east_ray.report.wording import percent_of
from east_ray.sampling.stage import most_responses

#: Why a question got no more responses, as the report says it.
_WHY = {
    Stopped.ALL: "the most that a question gets",
    Stopped.UNANIMOUS: "the first responses agree",
    Stopped.PRECISE: "the entropy is known well enough",
    Stopped.BUDGET: "the budget gave others more",
    Stopped.ENGINE_REFUSED: "the engine refused more",
    Stopped.ENGINE_DIED: "engines died of more",
}


def number_of_responses(config: Config) -> str:
    """How many responses a question gets, in a few words, e.g. ``32 to 128``."""
    adaptive, most = config.sampling.adaptive, most_responses(config.sampling)
    rule = adaptive and (adaptive.unanimous or adaptive.precision)
    least = rule.first if rule else adaptive.budget.pilot if adaptive and adaptive.budget else most
    return f"{least} to {most}" if least < most else str(most)


def sampling_of(summary: RoundSummary) -> Mapping[str, Any] | None:
    """The counts of an adaptive sampling stage, once it is done; None: every question got the same number."""
    record = summary.records.get("sampling")
    return record.counts if record is not None and record.counts.get("numbers") else None


def adaptive_blocks(counts: Mapping[str, Any]) -> Iterator[Block]:
    """Questions and responses by the reason why they ended, the distribution of their numbers, and what they cost."""
    numbers = counts["numbers"]
    num_questions = sum(row["num_questions"] for row in numbers)
    by_reason: dict[str, list[Mapping[str, Any]]] = {}
    for row in numbers:
        by_reason.setdefault(row["stopped_because"], []).append(row)
    reasons = [str(reason) for reason in _WHY if reason in by_reason]
    rows = [_row(reason, by_reason[reason], num_questions) for reason in reasons]
    columns = ["no more because", "questions", "% of questions", "responses", "least", "mean", "most"]
    yield Table("Why questions got no more responses", columns, rows)
    arrays = {reason: _repeated(by_reason[reason]) for reason in reasons}
    yield plots.histogram("Responses to a question", arrays, "responses")
    yield cost(counts)


def cost(counts: Mapping[str, Any]) -> str:
    """What was asked and, unless a budget decided it, what the most for every question would have been.

    Nobody would ask `budget.max` of every question, so that is no measure of what a budget saves. The tokens of the
    responses that were not asked are those of a question's own responses on average.
    """
    numbers, most = counts["numbers"], counts["most_responses"]
    num_questions = sum(row["num_questions"] for row in numbers)
    asked = sum(row["num_responses"] * row["num_questions"] for row in numbers)
    tokens = sum(row["num_tokens"] for row in numbers)
    said = f"{asked:,} responses" + (f" of {tokens:,} tokens" if tokens else "")
    if any(row["stopped_because"] == Stopped.BUDGET for row in numbers):
        return f"{said}, {asked / num_questions:.1f} to a question on average."
    full = most * num_questions
    full_tokens = round(sum(row["num_tokens"] / row["num_responses"] * most for row in numbers))
    fewer = f"{percent_of(full - asked, full)} % fewer than {most} to every question"
    less = f", and {percent_of(full_tokens - tokens, full_tokens)} % fewer tokens" if tokens else ""
    return f"{said}: {fewer}{less}."


def _row(reason: str, rows: list[Mapping[str, Any]], num_questions: int) -> list[str]:
    questions = sum(row["num_questions"] for row in rows)
    responses = sum(row["num_responses"] * row["num_questions"] for row in rows)
    numbers = [row["num_responses"] for row in rows]
    spread = [f"{min(numbers)}", f"{responses / questions:.1f}", f"{max(numbers)}"]
    shares = [f"{questions:,}", percent_of(questions, num_questions), f"{responses:,}"]
    return [f"{reason}: {_WHY[Stopped(reason)]}", *shares, *spread]


def _repeated(rows: list[Mapping[str, Any]]) -> NDArray[np.float64]:
    """(Q,) the number of responses to each question."""
    numbers, times = ([row[name] for row in rows] for name in ("num_responses", "num_questions"))
    return np.repeat(np.asarray(numbers, np.float64), times)

"""The time and tokens that a round took."""

from collections.abc import Iterator

from east_ray.report.page import Block, Table
from east_ray.report.summary import RoundSummary, TrainingResults, arm_labels


def cost(summary: RoundSummary) -> Iterator[Block]:
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

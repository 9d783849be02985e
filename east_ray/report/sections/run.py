"""What was run: the settings that matter most, and what came out of the last round."""

from collections.abc import Iterator, Sequence

from east_ray.config import Config
from east_ray.report.page import Block, Table, Text
from east_ray.report.summary import RoundSummary
from east_ray.report.verdicts import verdicts
from east_ray.report.wording import duration


def what_was_run(config: Config, rounds: Sequence[RoundSummary]) -> Iterator[Block]:
    """The description, a table of settings and the verdicts of the last round."""
    if config.description:
        yield Text(config.description)
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
        yield from (Text(line) for line in verdicts(summary))


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

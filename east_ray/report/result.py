"""The result of a run, with which its report begins: what was measured, or else weighed, and what it cost."""

import shlex
from collections.abc import Iterator, Sequence

from east_ray import records
from east_ray.config import BASE, Config
from east_ray.evaluation.estimators import effective_examples
from east_ray.records import Reason
from east_ray.report.page import Block, Highlights
from east_ray.report.sections import accuracy_figure, differences_figure, forest
from east_ray.report.summary import BASE_LABEL, RoundSummary, TrainingResults, arm_labels, labels
from east_ray.report.wording import (
    collapse_lines,
    difference_of,
    duration,
    interval,
    percent,
    percent_of,
    points,
    power_lines,
    reach_lines,
    reversed_difference,
    trained_pairs,
    verdicts,
)
from east_ray.selection import one_discarded
from east_ray.storage import StageRecord

#: Most models in large type, most verdicts in words and most rows of the figure of differences; tables have all.
_MAX_MODELS, _MAX_VERDICTS, _MAX_PAIRS = 6, 6, 10
#: The shape in which another trainer with the same objective reads examples.
_EXPORTED_AS = {"dpo": "preference", "kto": "unpaired"}
#: Why a question has no weight, in words.
_WHY = {
    Reason.ALL_WRONG: "no response is correct",
    Reason.NO_BOXED_CORRECT: "no correct response puts its answer in a box",
    Reason.UNPARSABLE_REFERENCE: "responses cannot be compared with the reference answer",
    Reason.NO_WRONG_ANSWER: "no response has a wrong answer, which the objective needs",
    Reason.ALL_CORRECT: "every response is correct",
    Reason.CONTRADICTED_REFERENCE: "the responses contradict the reference answer",
    Reason.NO_MAJORITY: "no answer is common enough",
    Reason.NO_REFERENCE_SOLUTION: "the source has no worked solution",
}
_NO_UNIFORM = (
    "No training with uniform weights was measured, so nothing here tells what the weights did; "
    "`variants: {uniform: {weighting.signal: uniform}}` trains one beside this run's own."
)


def result_round(rounds: Sequence[RoundSummary]) -> RoundSummary | None:
    """The round that the result is about: the last one that was measured, else the last; None before the first."""
    measured = [summary for summary in rounds if summary.comparison is not None or summary.metrics is not None]
    return next(reversed(measured or rounds), None)


def result_blocks(config: Config, rounds: Sequence[RoundSummary]) -> Iterator[Block]:
    """Accuracies and differences of the last round that was measured; of a run without any, what was weighed."""
    if (summary := result_round(rounds)) is None:
        return
    if config.rounds > 1:
        yield f"This is round {summary.number} of rounds 0 to {config.rounds - 1}; the others are below."
    for one in rounds:
        yield from collapse_lines(one)
    if summary.comparison is not None:
        yield from _of_comparison(summary, summary.comparison)
    elif summary.metrics is not None:
        yield from _of_models(summary, summary.metrics)
    else:
        yield from _of_weights(config, summary)


def _of_models(summary: RoundSummary, metrics: records.EvaluationMetrics) -> Iterator[Block]:
    """Accuracy before and after, the differences, and why a difference is not shown."""
    shown_as, accuracies, pairs = labels(summary), metrics["accuracy"], trained_pairs(summary)
    tiles = [
        (shown_as[name], f"{percent(row['accuracy'])} %", interval(row))
        for name, row in list(accuracies.items())[:_MAX_MODELS]
    ]
    named = [(f"{shown_as[row['second']]} − {shown_as[row['first']]}", reversed_difference(row)) for row in pairs]
    tiles += [_difference_tile(name, row) for name, row in named[:1]]
    yield _over(next(iter(accuracies.values()))["num_questions"])
    yield Highlights(tiles)
    yield from _listed(verdicts(summary))
    yield from reach_lines(summary)
    measured = [one for one in summary.trainings if one.name in accuracies and (one.kept or one.discarded)]
    if measured and not any(one.is_uniform for one in measured):
        yield _NO_UNIFORM
    yield accuracy_figure(metrics, shown_as)
    to_base = [(f"{shown_as[row['first']]} − {BASE}", row) for row in metrics["differences"] if row["second"] == BASE]
    if 0 < len(differences := [*named, *to_base]) <= _MAX_PAIRS:
        yield forest("Paired differences with 95 % intervals", differences)


def _of_comparison(summary: RoundSummary, found: records.ArmComparison) -> Iterator[Block]:
    """The verdict with the least p-value first, what this many seeds and questions can show, and all differences."""
    arms = {arm["name"]: arm for arm in found["arms"]}
    compared = [arm for arm in found["arms"] if arm["baseline"] is not None]
    told = sorted(zip(compared, verdicts(summary), strict=True), key=lambda pair: _support(pair[0]))
    tiles = []
    if base := found.get("base"):
        tiles.append((BASE_LABEL, f"{percent(base['accuracy'])} %", interval(base)))
    if told:
        first = told[0][0]
        baseline, difference = arms[first["baseline"] or ""], difference_of(first)
        assert difference is not None
        tiles += [(arm["label"], f"{percent(arm['mean'])} %", interval(arm)) for arm in (baseline, first)]
        tiles.append(_difference_tile(f"{first['label']} − {baseline['label']}", difference))
        counts = {verdict: sum(arm["verdict"] == verdict for arm in compared) for verdict in ("better", "worse")}
    yield _over(found["num_questions"])
    yield Highlights(tiles)
    if told:
        yield (
            f"Of {len(compared)} arm{'s' if len(compared) != 1 else ''} beside a baseline, {counts['better']} "
            f"{'is' if counts['better'] == 1 else 'are'} shown to be better and {counts['worse']} to be worse."
        )
    yield from _listed([line for _, line in told])
    yield from power_lines(found)
    yield from differences_figure(found)


def _support(arm: records.ComparedArm) -> tuple[bool, float]:
    """Sorts arms by how well a difference is supported, the best first."""
    return arm["verdict"] == "not shown", 1.0 if arm["p_adjusted"] is None else arm["p_adjusted"]


def _of_weights(config: Config, summary: RoundSummary) -> Iterator[Block]:
    """How many questions are kept and why others are not, how much of them the weights use, and what to do next."""
    if not any(one.kept or one.discarded for one in summary.trainings):
        if summary.asked:
            said = "are there with responses" if summary.is_given else "were asked"
            yield f"{summary.asked:,} questions {said}; none has been weighed yet."
        return
    first, shown_as = summary.trainings[0], arm_labels(summary)
    yield f"{first.kept:,} of {summary.asked:,} questions have weights."
    yield from _discarded(first)
    weighed = [one for one in summary.arms if one.weights.size][:_MAX_MODELS]
    used = {one.arm: effective_examples(one.weights) for one in weighed}
    for one in [one for one in weighed if not one.is_uniform][:1]:
        share = percent_of(used[one.arm], one.weights.size)
        yield (
            f"With the weights of {shown_as[one.arm]}, the {one.weights.size:,} examples tell as much as "
            f"{used[one.arm]:,.1f} examples of equal weight would: {share} % of them are effective."
        )
    of_all = f"{percent_of(first.kept, summary.asked)} % of {summary.asked:,} questions"
    tiles = [("questions kept", f"{first.kept:,}", of_all)]
    for one in weighed:
        share = percent_of(used[one.arm], one.weights.size)
        tiles.append((f"effective, {shown_as[one.arm]}", f"{share} %", "of the kept examples"))
    yield Highlights(tiles)
    yield next_step(config, summary)


def _discarded(training: TrainingResults) -> Iterator[str]:
    """Why questions have no weights, with an example of each reason while ``discarded/`` is there."""
    has_examples = bool((training.stages / "discarded").parts())
    for reason, num in training.discarded.items():
        example = f": {one_discarded(training.stages, reason, num)}" if has_examples else ""
        yield f"{num:,} {'has' if num == 1 else 'have'} none, because {_WHY[Reason(reason)]} ({reason}){example}."


def next_step(config: Config, summary: RoundSummary) -> str:
    """What to do with a run that has weights and no accuracies, with commands that can be typed as they are."""
    run = shlex.quote(config.run_dir)
    export = f"east-ray export {run} --as {_EXPORTED_AS.get(config.training.objective, 'messages')}"
    if config.compare is not None:
        return f"Nothing has been measured yet: `east-ray compare {run}` goes on."
    if not any(one.record for one in summary.trainings):
        if not config.model:
            return (
                f"Next: `{export}` writes these examples with their weights for a trainer; "
                f"with a `model` in the configuration, `east-ray train {run}` trains on them."
            )
        return f"Next: `east-ray train {run}` trains on these examples; `{export}` writes them for another trainer."
    if config.evaluation.questions is None:
        return "Nothing was measured: `evaluation.questions` names no held-out questions."
    return f"Nothing has been measured yet: `east-ray evaluate {run}` asks the models the held-out questions."


def _over(num_questions: int) -> str:
    return f"Accuracy on {num_questions:,} held-out questions, decoded greedily, with 95 % intervals."


def _difference_tile(name: str, row: records.Difference) -> tuple[str, str, str]:
    return name, points(row["difference"]), f"{points(row['low'])} to {points(row['high'])} points"


def _listed(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:_MAX_VERDICTS]
    if len(lines) > _MAX_VERDICTS:
        yield f"{len(lines) - _MAX_VERDICTS} more comparisons are in the tables below."


# ---------------------------------------------------------------------------------------------------------------- cost


def cost_line(config: Config, rounds: Sequence[RoundSummary]) -> str:
    """Tokens and seconds of all rounds, with the seconds of each stage; empty before the first stage
    is done, and where it took less than a second."""
    seconds: dict[str, float] = {}
    num_sampled = num_trained = 0
    for summary in rounds:
        for stage, record in _records(config, summary):
            seconds[stage] = seconds.get(stage, 0.0) + record.seconds
            num_sampled += record.counts.get("num_tokens", 0) if stage == "sampling" else 0
        num_trained += sum(one.num_tokens for one in summary.trainings)
    tokens = {"sampled": num_sampled if config.samples is None else 0, "trained on": num_trained}
    said = ", ".join(f"{count:,} tokens {what}" for what, count in tokens.items() if count)
    if not seconds:
        return said and f"{said}."
    stages = ", ".join(f"{stage} {duration(spent)}" for stage, spent in seconds.items() if spent >= 1)
    if not said and sum(seconds.values()) < 1:
        return ""
    total = f"{duration(sum(seconds.values()))} in all stages" + (f": {stages}" if stages else "")
    return f"{said}; {total}." if said else f"{total[:1].upper()}{total[1:]}."


def _records(config: Config, summary: RoundSummary) -> Iterator[tuple[str, StageRecord]]:
    """The stages of a round, with the training of every variant; later rounds of a comparison sample for each."""
    yield from ((stage, record) for stage, record in summary.records.items() if stage != "training")
    has_own_samples = config.compare is not None and summary.number > 0
    for one in summary.trainings:
        own = {stage: one.stages.record(stage) for stage in ("sampling", "answers") if has_own_samples}
        yield from ((stage, record) for stage, record in (own | {"training": one.record}).items() if record is not None)

"""What a run came to, read from its folders: counts, arrays and JSON records, without the texts of its questions.

Here are also its names, numbers and verdicts in the words that people read.

Axes in names: Q kept questions, S optimizer steps.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from east_ray import records
from east_ray.config import BASE, Config, TrainingConfig
from east_ray.evaluation.significance import SIGNIFICANCE_LEVEL
from east_ray.records import DISCARDED, EXAMPLES
from east_ray.storage import Folder, RunDirectory, StageRecord, Stages

Numbers = NDArray[np.float64]

#: How the model that a round starts from is shown.
BASE_LABEL = "base (before training)"

#: Trainings with another objective are described with its name.
_DEFAULT_OBJECTIVE = TrainingConfig().objective
#: Names of `quantiles`.
QUANTILES = ("min", "25 %", "50 %", "75 %", "max")
#: Stages whose records a report tells of.
_STAGES = ("questions", "sampling", "answers", "examples", "training", "evaluation")
#: Metrics of each step that are read, where they are there.
_STEP_METRICS = ("step", "loss", "unweighted_loss", "gradient_norm", "learning_rate", "num_tokens", "tokens_per_s")


@dataclass(frozen=True)
class TrainingResults:
    """One training of a round: what it was given, what it counted and how its steps went.

    `entropies`, `weights` and `pass_rates` are (Q,); trainings of one `arm`, which differ in their seed alone, share
    them. `steps` has an array (S,) for each metric of training.jsonl; `seconds`, of its steps, is None till it is done.
    """

    name: str
    arm: str
    label: str
    stages: Stages
    kept: int
    discarded: dict[str, int]
    entropies: Numbers
    weights: Numbers
    pass_rates: Numbers
    num_truncated: int
    num_responses: int
    steps: dict[str, Numbers]
    seconds: float | None

    @property
    def num_tokens(self) -> int:
        """Tokens that were trained on, over all steps and epochs."""
        return int(self.steps["num_tokens"].sum()) if "num_tokens" in self.steps else 0


@dataclass(frozen=True)
class RoundSummary:
    """One round: the numbers of its questions, its trainings, its models' accuracies and its studies.

    `studies` are the files of studies/, in order of name; `records` are those of the stages that are done, by stage.
    """

    number: int
    asked: int
    set_aside: dict[str, int]
    trainings: list[TrainingResults]
    metrics: records.EvaluationMetrics | None
    comparison: records.ArmComparison | None
    studies: list[records.StudyPage]
    records: dict[str, StageRecord]

    @property
    def arms(self) -> list[TrainingResults]:
        """The first training of each arm."""
        firsts: dict[str, TrainingResults] = {}
        for training in self.trainings:
            firsts.setdefault(training.arm, training)
        return list(firsts.values())

    @property
    def outcomes(self) -> dict[str, int]:
        """How many questions were asked, set aside, kept by the first training and discarded by it."""
        first = self.trainings[0]
        return (
            {"asked": self.asked}
            | {f"set aside: {reason}": count for reason, count in self.set_aside.items()}
            | {"kept as examples": first.kept}
            | {f"discarded: {reason}": count for reason, count in first.discarded.items()}
        )


def summarize(directory: RunDirectory) -> list[RoundSummary]:
    """The rounds of a run that have started, as far as they have got."""
    rounds = []
    for number in range(directory.config.rounds):
        stages = directory.round(number)
        questions = stages.record("questions")
        if questions is None and stages.record("evaluation") is None:
            break
        done = {stage: record for stage in _STAGES if (record := stages.record(stage))}
        sampling = done.get("sampling", StageRecord())
        studies = stages / "studies"
        rounds.append(
            RoundSummary(
                number,
                questions.counts["asked"] if questions else 0,
                (questions.counts["set_aside"] if questions else {}) | sampling.counts.get("set_aside", {}),
                _trainings(directory.config, stages, share=number == 0) if questions else [],
                _json(stages / "evaluation", "metrics.json"),
                _json(stages.folder, "comparison.json"),
                [_json(studies, name) for name in studies.names() if name.endswith(".json")],
                done,
            )
        )
    return rounds


def _trainings(config: Config, stages: Stages, *, share: bool) -> list[TrainingResults]:
    """A round's trainings; with `share`, as in the first round, those of one arm have the same examples, read once."""
    found: dict[str, TrainingResults] = {}
    for name, settings in config.learners().items():
        sibling = next((one for one in found.values() if share and one.arm == arm_of(name)), None)
        found[name] = _results(name, settings, stages.learner(name), sibling)
    return list(found.values())


def _results(name: str, config: Config, stages: Stages, sibling: TrainingResults | None) -> TrainingResults:
    """A training as its files tell; its examples are those of its `sibling`, if there is one of the same arm."""
    record, training = stages.record("examples"), stages.record("training")
    seconds = training.counts.get("seconds_in_steps", training.seconds) if training else None
    steps = _steps(stages.folder)
    if sibling is not None:
        return replace(sibling, name=name, stages=stages, steps=steps, seconds=seconds)
    counts, numbers = ["num_truncated", "num_responses"], ["entropy", "weight", "pass_rate"]
    examples = (stages / "examples").read(EXAMPLES, [*counts, *numbers])
    discarded = (stages / "discarded").read(DISCARDED, counts)
    of_examples = {name: np.asarray(examples[name].drop_null().to_numpy(), np.float64) for name in numbers}
    return TrainingResults(
        name=name,
        arm=arm_of(name),
        label=describe(config),
        stages=stages,
        kept=examples.num_rows,
        discarded=record.counts["discarded"] if record else {},
        entropies=of_examples["entropy"],
        weights=of_examples["weight"],
        pass_rates=of_examples["pass_rate"],
        **{name: sum(pc.sum(table[name]).as_py() or 0 for table in (examples, discarded)) for name in counts},
        steps=steps,
        seconds=seconds,
    )


def _steps(folder: Folder) -> dict[str, Numbers]:
    steps = [json.loads(line) for line in (folder.read_text("training.jsonl") or "").splitlines()]
    metrics = [metric for metric in _STEP_METRICS if steps and all(metric in step for step in steps)]
    return {metric: np.array([step[metric] for step in steps], dtype=np.float64) for metric in metrics}


def _json(folder: Folder, name: str) -> Any:
    text = folder.read_text(name)
    return json.loads(text) if text else None


def quantiles(values: Numbers) -> list[float]:
    """Least value, quartiles and greatest value."""
    return list(map(float, np.quantile(values, [0, 0.25, 0.5, 0.75, 1])))


# ---------------------------------------------------------------------------------------------------------------- names


def arm_of(name: str) -> str:
    """The arm of a training: its name without the seed, e.g. ``entropy`` of ``entropy-seed-3``."""
    return re.sub(r"-seed-\d+$", "", name)


def describe(config: Config) -> str:
    """A training's weighting in a few words, e.g. ``EAST (entropy, a = 1)``."""
    if config.training.examples == "reference_solutions":
        return "reference solutions"
    weighting = config.weighting
    words: list[str] = [weighting.signal]
    if weighting.signal != "uniform":
        words += [f"a = {weighting.exponent:g}", *([weighting.mapping] if weighting.mapping != "power" else [])]
    words += [config.training.objective.upper()] if config.training.objective != _DEFAULT_OBJECTIVE else []
    described = ", ".join(words)
    return f"EAST ({described})" if weighting.signal == "entropy" else described


def labels(summary: RoundSummary) -> dict[str, str]:
    """Name of a model -> how it is shown; of each that was trained or measured."""
    shown = {name: name for name in (summary.metrics["accuracy"] if summary.metrics else {})}
    shown[BASE] = BASE_LABEL if summary.trainings else BASE
    return shown | _told_apart({training.name: training.label for training in summary.trainings})


def arm_labels(summary: RoundSummary) -> dict[str, str]:
    """Name of an arm -> how it is shown; as the comparison has it, if there is one."""
    shown = _told_apart({training.arm: training.label for training in summary.arms})
    return shown | {arm["name"]: arm["label"] for arm in (summary.comparison["arms"] if summary.comparison else [])}


def _told_apart(labels_: dict[str, str]) -> dict[str, str]:
    """Labels by name, with the name before each label that several have."""
    times = Counter(labels_.values())
    return {name: label if times[label] == 1 else f"{name}: {label}" for name, label in labels_.items()}


# ------------------------------------------------------------------------------------------------- numbers and verdicts


def percent(share: float | None) -> str:
    """A share in percent, e.g. ``81.1``; empty for None."""
    return "" if share is None else f"{100 * share:.1f}"


def number_words(value: float | None, form: str) -> str:
    """A number in this format; empty for None."""
    return "" if value is None else format(value, form)


def percent_of(part: int, whole: int) -> str:
    """What percentage a part is; empty if there is no whole."""
    return percent(part / whole) if whole else ""


def interval(row: records.Interval) -> str:
    """The bounds of a share in percent, e.g. ``81.1 to 84.4``."""
    return f"{percent(row['low'])} to {percent(row['high'])}"


def with_interval(row: Mapping[str, Any] | None, key: str) -> str:
    """A share and its bounds in percent, e.g. ``82.8 (81.1 to 84.4)``; empty without a row."""
    return "" if row is None else f"{percent(row[key])} ({percent(row['low'])} to {percent(row['high'])})"


def points(difference: float) -> str:
    """A difference of shares in points, with its sign."""
    return f"{100 * difference:+z.1f}"


def signed(row: records.Difference | None) -> str:
    """A difference of shares in points with its interval, e.g. ``+13.1 (+11.6, +14.6)``; empty for None."""
    return "" if row is None else f"{points(row['difference'])} ({points(row['low'])}, {points(row['high'])})"


def difference_of(arm: records.ComparedArm) -> records.Difference | None:
    """The difference of an arm to its baseline; None without a baseline."""
    difference, low, high = arm["difference"], arm["difference_low"], arm["difference_high"]
    if difference is None or low is None or high is None:
        return None
    return {"difference": difference, "low": low, "high": high}


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(42), duration(61), duration(7262)
    ('42 s', '1 min 1 s', '2 h 1 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def verdicts(summary: RoundSummary) -> list[str]:
    """Sentences that say no more than the numbers do.

    Of a comparison, every arm against its baseline; else every training against the run's own.
    """
    if (found := summary.comparison) is not None:
        arms = {arm["name"]: arm for arm in found["arms"]}
        one_seed = "" if found["over_seeds"] else " (what another seed would change is not in the interval)"
        compared = [(arm, arms[arm["baseline"]]) for arm in arms.values() if arm["baseline"] is not None]
        return [f"{_of_arms(arm, baseline)}{one_seed}." for arm, baseline in compared]
    if summary.metrics is None:
        return []
    shown_as = labels(summary)
    # The run's own weighting comes first, its variants after it: say it from the run's point of view.
    return [
        _of_models(shown_as[row["second"]], shown_as[row["first"]], row)
        for row in summary.metrics["differences"]
        if BASE not in (row["first"], row["second"])
    ]


def _of_models(first: str, second: str, reverse: records.ModelDifference) -> str:
    """One sentence on the first model minus the second; `reverse` is the second minus the first."""
    difference, low, high = -reverse["difference"], -reverse["high"], -reverse["low"]
    # The interval is approximate where few answers differ, so a verdict needs the exact test as well.
    is_decided = (low > 0 or high < 0) and reverse["p_value"] < SIGNIFICANCE_LEVEL
    better = first if difference > 0 else second
    return (
        f"{first} minus {second}: {points(difference)} points, paired 95 % interval {points(low)} to {points(high)}, "
        f"exact p = {reverse['p_value']:.2g}: "
        + (f"{better} answers more of these questions" if is_decided else "no difference is shown")
        + " (one training of each: what another seed would change is not in the interval)."
    )


def _of_arms(arm: records.ComparedArm, baseline: records.ComparedArm) -> str:
    found, detectable = difference_of(arm), arm.get("detectable")
    assert found is not None
    said = "no difference is shown"
    if arm["verdict"] in ("better", "worse"):
        said = f"{arm['label']} is {arm['verdict']}"
    elif detectable is not None:
        said += f" (80 % power for a difference of {100 * detectable:.1f} points)"
    return (
        f"{arm['label']} minus {baseline['label']}: {points(found['difference'])} points, 95 % interval "
        f"{points(found['low'])} to {points(found['high'])}, Holm-adjusted p = {arm['p_adjusted']:.2g}: {said}"
    )

"""What a run came to, read from its folders: counts, arrays and JSON records, without the texts of its questions.
Axes in names: Q kept questions, S optimizer steps.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from east_ray import records
from east_ray.config import BASE, Config, TrainingConfig
from east_ray.records import DISCARDED, EXAMPLES, Collapse
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
    them. `is_uniform`: every question has the same weight. `steps` has an array (S,) for each metric of training.jsonl.
    Until it is done, `seconds`, of its steps, and `record`, of the stage, are None.
    """

    name: str
    arm: str
    label: str
    objective: str
    is_uniform: bool
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
    record: StageRecord | None
    diversity: records.Diversity | None
    """Of the responses that it learned from; of runs of several rounds."""

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
    stages: Stages
    set_aside_at: str
    """Address of ``set_aside/``, which any machine can open."""
    is_given: bool
    """Nothing was asked: the responses are another sampler's."""
    asked: int
    """Questions that were asked, or are given with responses; without those that could not be."""
    set_aside: dict[str, int]
    trainings: list[TrainingResults]
    metrics: records.EvaluationMetrics | None
    comparison: records.ArmComparison | None
    studies: list[records.StudyPage]
    records: dict[str, StageRecord]
    collapse: Collapse | None
    """The alarm of a run; those of a comparison are in `comparison`."""

    @property
    def arms(self) -> list[TrainingResults]:
        """The first training of each arm."""
        firsts: dict[str, TrainingResults] = {}
        for training in self.trainings:
            firsts.setdefault(training.arm, training)
        return list(firsts.values())

    @property
    def outcomes(self) -> dict[str, int]:
        """How many questions were set aside, asked (of given ones: usable), kept by the first training or discarded."""
        first = self.trainings[0]
        whole = {"usable questions" if self.is_given else "asked": self.asked}
        aside = {f"set aside: {reason}": count for reason, count in self.set_aside.items()}
        return (
            (aside | whole if self.is_given else whole | aside)
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
                stages,
                directory.address(stages / "set_aside"),
                directory.config.samples is not None,
                questions.counts["asked"] if questions else 0,
                (questions.counts["set_aside"] if questions else {}) | sampling.counts.get("set_aside", {}),
                _trainings(directory.config, stages, share=number == 0) if questions else [],
                _json(stages / "evaluation", "metrics.json"),
                _json(stages.folder, "comparison.json"),
                [_json(studies, name) for name in studies.names() if name.endswith(".json")],
                done,
                _json(stages.folder, "collapse.json"),
            )
        )
    return rounds


def _trainings(config: Config, stages: Stages, *, share: bool) -> list[TrainingResults]:
    """A round's trainings; with `share`, as in the first round, those of one arm have the same examples, read once."""
    found: dict[str, TrainingResults] = {}
    diversity = _json(stages.folder, "diversity.json")
    for name, settings in config.learners().items():
        sibling = next((one for one in found.values() if share and one.arm == arm_of(name)), None)
        found[name] = _results(name, settings, stages.learner(name), sibling, diversity)
    return list(found.values())


def _results(
    name: str, config: Config, stages: Stages, sibling: TrainingResults | None, shared: records.Diversity | None
) -> TrainingResults:
    """A training as its files tell; its examples are those of its `sibling`, if there is one of the same arm.

    `shared` is the diversity of the responses that all trainings of a round share.
    """
    record, training = stages.record("examples"), stages.record("training")
    seconds = training.counts.get("seconds_in_steps", training.seconds) if training else None
    steps = _steps(stages.folder)
    if sibling is not None:
        return replace(sibling, name=name, stages=stages, steps=steps, seconds=seconds, record=training)
    counts, numbers = ["num_truncated", "num_responses"], ["entropy", "weight", "pass_rate"]
    examples = (stages / "examples").read(EXAMPLES, [*counts, *numbers])
    discarded = (stages / "discarded").read(DISCARDED, counts)
    of_examples = {name: np.asarray(examples[name].drop_null().to_numpy(), np.float64) for name in numbers}
    return TrainingResults(
        name=name,
        arm=arm_of(name),
        label=describe(config),
        objective=config.training.objective,
        is_uniform=config.weighting.signal == "uniform" or config.training.examples == "reference_solutions",
        stages=stages,
        kept=examples.num_rows,
        discarded=record.counts["discarded"] if record else {},
        entropies=of_examples["entropy"],
        weights=of_examples["weight"],
        pass_rates=of_examples["pass_rate"],
        **{name: sum(pc.sum(table[name]).as_py() or 0 for table in (examples, discarded)) for name in counts},
        steps=steps,
        seconds=seconds,
        record=training,
        diversity=_json(stages.folder, "diversity.json") or shared,
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
        words.append(f"a = {weighting.exponent:g}")
        if weighting.mapping != "power":
            words.append(weighting.mapping + (f" at {weighting.max_weight:g}" if weighting.mapping == "clip" else ""))
    if weighting.entropy_estimator != "plug_in" and weighting.signal == "entropy":
        words.append(weighting.entropy_estimator)
    words += [f"policy {config.labels.policy}"] if config.labels.policy != "keep" else []
    words += ["labels by majority"] if config.labels.source == "majority" else []
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

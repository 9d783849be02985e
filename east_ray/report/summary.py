"""What a run came to, read from its folders: the numbers of all its questions, the texts of a few of them.

Axes in names: Q kept questions, S optimizer steps.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from east_ray import answers
from east_ray.config import Config
from east_ray.records import DISCARDED, EXAMPLES, SAMPLES
from east_ray.storage import Folder, RunDirectory, StageRecord, Stages

Numbers = NDArray[np.float64]

#: How the model that a round begins with is shown.
BASE_LABEL = "base (before training)"

#: What is read of the metrics of each step, where it is there.
_STEP_METRICS = ("step", "loss", "unweighted_loss", "gradient_norm", "learning_rate", "num_tokens", "tokens_per_s")


@dataclass(frozen=True)
class Learner:
    """One training of a round: what it was given, what it counted and how its steps went.

    `entropies`, `weights` and `pass_rates` are (Q,). Trainings of one `arm`, which differ in their seed alone, share
    them. `steps` has an array (S,) for each metric of training.jsonl; `seconds`, of its steps, is None before the
    training is done.
    """

    name: str
    arm: str
    label: str
    objective: str
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
    """One round: the funnel of its questions, its trainings, its models' accuracies and what was studied of it.

    `metrics` and `comparison` are evaluation/metrics.json and comparison.json, or None; `studies` are the files of
    studies/, in order of name; `records` are those of the stages that are done, by the stage's name.
    """

    number: int
    asked: int
    set_aside: dict[str, int]
    learners: list[Learner]
    metrics: dict[str, Any] | None
    comparison: dict[str, Any] | None
    studies: list[dict[str, Any]]
    records: dict[str, StageRecord]

    @property
    def arms(self) -> list[Learner]:
        """The first training of each arm."""
        firsts: dict[str, Learner] = {}
        for learner in self.learners:
            firsts.setdefault(learner.arm, learner)
        return list(firsts.values())


@dataclass(frozen=True)
class ShownQuestion:
    """A question with examples of its responses. `weight` is None if it was discarded, `reason` if it was kept."""

    question_id: str
    question: str
    reference_answer: str | None
    entropy: float
    pass_rate: float
    weight: float | None
    reason: str | None
    clusters: list[dict[str, Any]]  # records.CLUSTER, largest first
    responses: list[tuple[str, str]]  # what it is an example of, and its text


def summarize(directory: RunDirectory) -> list[RoundSummary]:
    """The rounds of a run that have begun, as far as they have got."""
    rounds = []
    for number in range(directory.config.rounds):
        stages = directory.round(number)
        questions = stages.record("questions")
        if questions is None and stages.record("evaluation") is None:
            break
        records = {
            stage: record
            for stage in ("questions", "sampling", "examples", "training", "evaluation")
            if (record := stages.record(stage))
        }
        sampling = records.get("sampling", StageRecord())
        studies = stages / "studies"
        rounds.append(
            RoundSummary(
                number,
                questions.counts["asked"] if questions else 0,
                (questions.counts["set_aside"] if questions else {}) | sampling.counts.get("set_aside", {}),
                _learners(directory.config, stages, share=number == 0) if questions else [],
                _json(stages / "evaluation", "metrics.json"),
                _json(stages.folder, "comparison.json"),
                [_json(studies, name) for name in studies.names() if name.endswith(".json")],
                records,
            )
        )
    return rounds


def arm_of(name: str) -> str:
    """The arm of a training: its name without the seed.

    >>> arm_of("entropy-seed-3"), arm_of("uniform")
    ('entropy', 'uniform')
    """
    return re.sub(r"-seed-\d+$", "", name)


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


def labels(summary: RoundSummary) -> dict[str, str]:
    """Name of a model -> how it is shown; of each that was trained or measured."""
    labels_ = [learner.label for learner in summary.learners]
    measured = {name: name for name in (summary.metrics or {}).get("accuracy", {})}
    return (
        measured
        | {"base": BASE_LABEL if summary.learners else "base"}
        | {
            learner.name: learner.label if labels_.count(learner.label) == 1 else f"{learner.name}: {learner.label}"
            for learner in summary.learners
        }
    )


def arm_labels(summary: RoundSummary) -> dict[str, str]:
    """Name of an arm -> how it is shown; as the comparison has it, if there is one."""
    labels_ = [learner.label for learner in summary.arms]
    shown = {
        learner.arm: learner.label if labels_.count(learner.label) == 1 else f"{learner.arm}: {learner.label}"
        for learner in summary.arms
    }
    return shown | {arm["name"]: arm["label"] for arm in (summary.comparison or {}).get("arms", [])}


def verdicts(summary: RoundSummary) -> list[str]:
    """Trained models against one another, in sentences that say no more than the numbers do.

    Of a comparison, every arm against its baseline; else every training against the run's own.
    """
    if summary.comparison is not None:
        return _comparison_verdicts(summary.comparison)
    if summary.metrics is None:
        return []
    shown_as = labels(summary)
    lines = []
    for row in summary.metrics["differences"]:
        if "base" in (row["first"], row["second"]):
            continue
        # The run's own weighting comes first, its variants after it: say it from the run's point of view.
        first, second = shown_as[row["second"]], shown_as[row["first"]]
        difference, low, high = -row["difference"], -row["high"], -row["low"]
        # The interval is approximate where few answers differ, so a verdict needs the exact test as well.
        decided = (low > 0 or high < 0) and row["p_value"] < 0.05
        better = first if difference > 0 else second
        lines.append(
            f"{first} minus {second}: {100 * difference:+z.1f} points, paired 95 % interval {100 * low:+z.1f} to "
            f"{100 * high:+z.1f}, exact p = {row['p_value']:.2g}: "
            + (f"{better} answers more of these questions" if decided else "no difference is shown")
            + " (one training of each: what another seed would change is not in the interval)."
        )
    return lines


def _comparison_verdicts(comparison: Mapping[str, Any]) -> list[str]:
    arms = {arm["name"]: arm for arm in comparison["arms"]}
    lines = []
    for arm in arms.values():
        said = {"better": f"{arm['label']} is better", "worse": f"{arm['label']} is worse"}
        if arm["baseline"] is None:
            continue
        baseline = arms[arm["baseline"]]
        one_seed = "" if comparison["over_seeds"] else " (what another seed would change is not in the interval)"
        design = (
            f" (80 % power for a difference of {100 * arm['detectable']:.1f} points)"
            if arm.get("detectable") is not None and arm["verdict"] not in said
            else ""
        )
        lines.append(
            f"{arm['label']} minus {baseline['label']}: {100 * arm['difference']:+z.1f} points, 95 % interval "
            f"{100 * arm['difference_low']:+z.1f} to {100 * arm['difference_high']:+z.1f}, Holm-adjusted "
            f"p = {arm['p_adjusted']:.2g}: {said.get(arm['verdict'], 'no difference is shown')}{design}{one_seed}."
        )
    return lines


def quantiles(values: NDArray[np.float64]) -> list[float]:
    """Least value, quartiles and greatest value."""
    return [float(value) for value in np.quantile(values, [0, 0.25, 0.5, 0.75, 1])]


def interval(row: Mapping[str, Any]) -> str:
    """The bounds of a share in per cent, e.g. ``81.1 to 84.4``."""
    return f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"


def signed(row: Mapping[str, Any]) -> str:
    """A difference of shares in points with its interval, e.g. ``+13.1 (+11.6, +14.6)``."""
    return f"{100 * row['difference']:+z.1f} ({100 * row['low']:+z.1f}, {100 * row['high']:+z.1f})"


def arm_difference(arm: Mapping[str, Any]) -> str:
    """As `signed`, of an arm to its baseline; empty for the baseline."""
    if arm["baseline"] is None:
        return ""
    return signed({"difference": arm["difference"], "low": arm["difference_low"], "high": arm["difference_high"]})


def shown_questions(
    learner: Learner, samples: Folder, *, last_number: bool = False, max_questions: int = 200
) -> list[ShownQuestion]:
    """Questions of a round to look at: of those kept the extremes of entropy and a spread, and discarded ones.

    The same questions each time, greatest entropy first. Texts are read of these alone, one part at a time.
    `last_number` is as in the configuration's section `answers`.
    """
    num_discarded = max_questions * 3 // 10
    columns = ["question_id", "question", "reference_answer", "entropy", "pass_rate", "clusters"]
    of_examples = [*columns, "weight", "chosen", "rejected"]
    rows = [
        *_rows(learner.stages / "examples", EXAMPLES, of_examples, max_questions - num_discarded),
        *_rows(learner.stages / "discarded", DISCARDED, [*columns, "reason"], num_discarded),
    ]
    responses = _responses(samples, {row["question_id"] for row in rows})
    shown = [
        ShownQuestion(
            **{name: row[name] for name in columns},
            weight=row.get("weight"),
            reason=row.get("reason"),
            responses=_examples(row, responses.get(row["question_id"], []), last_number),
        )
        for row in rows
    ]
    return sorted(shown, key=lambda question: (-question.entropy, question.question_id))


def spread(values: Numbers, num: int) -> NDArray[np.intp]:
    """Positions, in order, of about `num` of (N,) values: some of the least and of the greatest, the rest in between.

    Values that are not a number are passed over.

    >>> spread(np.array([5.0, 1.0, np.nan, 3.0, 4.0, 2.0]), 3)
    array([0, 1, 3])
    """
    order = np.argsort(values, kind="stable")[: int(np.sum(~np.isnan(values)))]
    if order.size <= num:
        return np.sort(order)
    at_each_end = num // 7
    between = np.linspace(at_each_end, order.size - at_each_end - 1, num - 2 * at_each_end).round().astype(np.intp)
    ends = np.arange(at_each_end)
    return np.unique(order[np.concatenate([ends, between, order.size - 1 - ends])])


def _learners(config: Config, stages: Stages, *, share: bool) -> list[Learner]:
    """The trainings of a round: the run's own and its variants, or a comparison's.

    In the first round those of one arm, which differ in their seed alone, `share` what they were given.
    """
    learners: list[Learner] = []
    firsts: dict[str, Learner] = {}
    for name, settings in config.learners().items():
        learner = _learner(name, settings, stages.learner(name), firsts.get(arm_of(name)) if share else None)
        firsts.setdefault(learner.arm, learner)
        learners.append(learner)
    return learners


def _learner(name: str, config: Config, stages: Stages, sibling: Learner | None) -> Learner:
    """A training as its files tell; what was given to it as to its `sibling`, if there is one of the same arm."""
    record, training = stages.record("examples"), stages.record("training")
    steps = [json.loads(line) for line in (stages.folder.read_text("training.jsonl") or "").splitlines()]
    of_steps = {
        metric: np.array([step[metric] for step in steps], dtype=np.float64)
        for metric in _STEP_METRICS
        if steps and all(metric in step for step in steps)
    }
    seconds = training.counts.get("seconds_in_steps", training.seconds) if training else None
    if sibling is not None:
        return replace(sibling, name=name, stages=stages, steps=of_steps, seconds=seconds)
    columns = ["entropy", "pass_rate", "weight", "num_truncated", "num_responses"]
    examples = (stages / "examples").read(EXAMPLES, columns)
    discarded = (stages / "discarded").read(DISCARDED, ["num_truncated", "num_responses"])

    def total(column: str) -> int:
        return sum(pc.sum(table[column]).as_py() or 0 for table in (examples, discarded))

    return Learner(
        name,
        arm_of(name),
        describe(config),
        config.training.objective,
        stages,
        examples.num_rows,
        record.counts["discarded"] if record else {},
        _numbers(examples, "entropy"),
        _numbers(examples, "weight"),
        _numbers(examples, "pass_rate"),
        total("num_truncated"),
        total("num_responses"),
        of_steps,
        seconds,
    )


def _numbers(table: pa.Table, column: str) -> Numbers:
    return np.asarray(table[column].drop_null().to_numpy(), dtype=np.float64)


def _json(folder: Folder, name: str) -> Any:
    text = folder.read_text(name)
    return json.loads(text) if text else None


def _rows(folder: Folder, schema: pa.Schema, columns: Sequence[str], num: int) -> Iterator[dict[str, Any]]:
    """About `num` rows of a table, spread over its entropies; one part is in memory at a time."""
    entropies = folder.read(schema, ["entropy"])["entropy"].to_numpy().astype(np.float64)  # null -> NaN
    positions, begin = spread(entropies, num), 0
    for part in folder.parts():
        num_rows = folder.read(schema, ["entropy"], [part]).num_rows
        inside = positions[(positions >= begin) & (positions < begin + num_rows)] - begin
        begin += num_rows
        if inside.size:
            yield from folder.read(schema, columns, [part]).take(inside).to_pylist()


#: Compressed bytes of samples that are read for examples of responses. Of questions beyond it, chosen and rejected
#: responses are shown, which examples/ has as well.
_MAX_SAMPLES_BYTES = 1 << 28


def _responses(samples: Folder, question_ids: set[str]) -> dict[str, list[str]]:
    """Question's name -> texts of its responses, as far as the samples that may be read have them."""
    wanted = pa.array(sorted(question_ids), pa.string())
    found: dict[str, list[str]] = {}
    remaining = _MAX_SAMPLES_BYTES
    for part, size in samples.part_sizes().items():
        if size > remaining or len(found) == len(question_ids):
            continue
        if not pc.any(pc.is_in(samples.read(SAMPLES, ["question_id"], [part])["question_id"], wanted)).as_py():
            continue
        remaining -= size
        table = samples.read(SAMPLES, ["question_id", "responses"], [part])
        for row in table.filter(pc.is_in(table["question_id"], wanted)).to_pylist():
            found[row["question_id"]] = [response["text"] for response in row["responses"]]
    return found


def _examples(
    row: dict[str, Any], texts: Sequence[str], last_number: bool, num_clusters: int = 4
) -> list[tuple[str, str]]:
    """The chosen and the rejected response, and the first of each of the largest clusters, each text once."""
    roles: dict[str, list[str]] = {}
    for role in ("chosen", "rejected"):
        if row.get(role):
            roles.setdefault(row[role], []).append(role)
    # A cluster's answer stands in it as its first response writes it.
    missing = {cluster["answer"]: cluster for cluster in (row["clusters"] or [])[:num_clusters]}
    for text in texts:
        answer = answers.extract(text, last_number=last_number).answer
        if answer in missing:
            roles.setdefault(text, []).append(cluster_words(missing.pop(answer)))
        if not missing:
            break
    return [(", ".join(words), text) for text, words in roles.items()]


def cluster_words(cluster: dict[str, Any]) -> str:
    """A cluster in a few words, e.g. ``72 × 64, correct``."""
    answer = "no answer" if cluster["answer"] is None else cluster["answer"]
    return f"{answer} × {cluster['num_responses']}" + (", correct" if cluster["is_correct"] else "")

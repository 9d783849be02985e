"""A comparison: one set of samples, every way to learn from it with every seed, and which of them differ.

The trainings run in waves, several groups of workers at a time, each with one training after the other: a wave's models
are evaluated together by one pool of engines and then removed. What is trained or evaluated is never done again. From
the second round on, each training is a run of its own, which samples from its own model.
"""

import hashlib
import json
import queue
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from east_ray.config import BASE, CompareConfig, Config, InputError
from east_ray.config.base import differences
from east_ray.config.files import dump, parse
from east_ray.console import Progress, StageLine
from east_ray.evaluation import significance
from east_ray.evaluation.estimators import accuracy, effective_examples, top_share
from east_ray.evaluation.rounds import correctness, look_for_collapse
from east_ray.evaluation.stage import held_out_answers, held_out_questions
from east_ray.pipeline import grade, judge_round, labelled_rules, make_examples, open_round, open_run, prepare
from east_ray.records import EXAMPLES, ArmComparison, ComparedArm, ComparedPair
from east_ray.report.files import write_cards, write_findings, write_report
from east_ray.report.summary import describe
from east_ray.storage import Folder, StageRecord, Stages, resolve_model
from east_ray.storage.few_shot import with_examples_read
from east_ray.storage.rounds import Learner, Round
from east_ray.training.checkpoints import interrupted
from east_ray.training.stage import train


def compare(config: Config, progress: Progress) -> str:
    """All rounds of a comparison; returns the path of the report. Raises InputError for what the user can mend."""
    config = with_examples_read(config)  # as in `pipeline.run`
    if config.compare is None or config.evaluation.questions is None:
        raise InputError("compare: a comparison needs `compare`, what to train, and `evaluation.questions`")
    directory = open_run(config, progress)
    for number in range(config.rounds):
        round_ = open_round(config, directory, number, progress)
        _check_same_trainings(round_)
        if number == 0:
            directory.store(round_.config)  # arms and seeds may have joined
            prepare(round_)
            rounds = dict.fromkeys(config.compare.trainings(), round_)
        else:
            rounds = {one.name: _own_round(round_, one) for one in round_.learners()}
            with round_.stages.recording("questions") as record:  # all trainings were asked the same
                record.counts = (round_.learners()[0].stages.record("questions") or StageRecord()).counts
        _make_all_examples(round_, rounds)
        _train_and_evaluate(round_, rounds, config.compare)
        for one in [round_] if number == 0 else rounds.values():
            write_cards(one)  # of the models that are kept
        _write_comparison(round_, config.compare)
        write_findings(round_, labelled_rules)
    return write_report(directory)


def _check_same_trainings(round_: Round) -> None:
    """Raises InputError if a training that has its examples had other settings under the same name."""
    for one in round_.learners():
        stored = one.stages.folder.read_text("config.yaml")
        if stored is None or one.stages.record("examples") is None:
            continue
        if differing := differences(parse(stored, f"{one.stages.folder}/config.yaml"), one.settings):
            raise InputError(
                f"compare: {one.name} was started with other settings ({'; '.join(differing)}); give its grid another "
                "suffix, or choose another run_dir"
            )


def _own_round(round_: Round, learner: Learner) -> Round:
    """A later round of one training, with the questions asked and sampled of its own model."""
    mine = open_round(learner.settings, round_.directory, round_.number, round_.progress, learner=learner.name)
    if mine.stages.record("sampling") is None:
        round_.progress.say(f"{learner.name}, round {round_.number}:")
        prepare(mine)
    return mine


def _make_all_examples(round_: Round, rounds: Mapping[str, Round]) -> None:
    """The examples of every training before the first of them starts: what is wrong with a grid shows here.

    Trainings of one round share one pass over its samples.
    """
    todo = [one for one in round_.learners() if one.stages.record("examples") is None]
    for learner in todo:
        learner.stages.folder.write_text("config.yaml", dump(learner.settings))
    if round_.number == 0:
        grade(round_)
        judge_round(round_, todo)
    with round_.progress.stage("examples", len(todo), "trainings") as line:
        for learner in todo:
            mine = replace(learner, round=_silent(rounds[learner.name]))
            try:
                if round_.number > 0:  # from here on each training has samples of its own
                    grade(mine.round)
                    judge_round(mine.round, [mine])
                make_examples(mine)
            except InputError as error:
                raise InputError(f"compare: {learner.name} cannot be trained: {error}") from error
            line.advance(1, learner.name)


def _silent(round_: Round) -> Round:
    """The round without its progress lines, where one line stands for many trainings."""
    return replace(round_, progress=Progress(Console(quiet=True)))


def _train_and_evaluate(round_: Round, rounds: Mapping[str, Round], settings: CompareConfig) -> None:
    """``variants/NAME/``: each training with the answers of its model; ``variants/base/``: those of the base."""
    keep_models = settings.keep_models or round_.config.rounds > round_.number + 1
    for one in round_.learners():
        if one.stages.record("evaluation") is not None and not keep_models:
            (one.stages / "model").clear()  # a process that was killed may have left it
    assert round_.config.evaluation.questions is not None
    held_out, _ = held_out_questions(round_, round_.config.evaluation.questions)
    if round_.number == 0 and round_.stages.record("base") is None:
        with round_.stages.recording("base"), round_.progress.stage("evaluation", 1, "models") as line:
            _answer(round_, held_out, {BASE: resolve_model(round_.config.model)}, {BASE: round_.stages.learner(BASE)})
            line.advance(1, "before training")
    todo = [one for one in round_.learners() if one.stages.record("evaluation") is None]
    checkpoints = round_.stages / "checkpoints"
    first = {interrupted(checkpoints / number) for number in checkpoints.names()}
    todo.sort(key=lambda learner: learner.name not in first)
    with round_.progress.stage("trainings", len(todo), "trainings") as line:
        for begin in range(0, len(todo), settings.models_at_once):
            wave = todo[begin : begin + settings.models_at_once]
            untrained = [one for one in wave if one.stages.record("training") is None]
            line.advance(len(wave) - len(untrained))
            groups = in_groups(untrained, checkpoints, settings.max_concurrent or _as_many_as_fit(wave))
            _train_wave(rounds, groups, checkpoints, line)
            checkpoints.clear()
            line.advance(0, f"{len(wave)} models are being evaluated")
            _evaluate_wave(round_, held_out, wave, keep_models=keep_models)
    if round_.number > 0 and not settings.keep_models:
        for name in rounds:
            (round_.directory.round(round_.number - 1).learner(name) / "model").clear()


def _train_wave(rounds: Mapping[str, Round], groups: Mapping[str, Sequence[Learner]], checkpoints: Folder,
                line: StageLine) -> None:  # fmt: skip
    """Train some groups at a time, in each one training after the other. The first error ends the wave."""
    ended: queue.SimpleQueue[str | BaseException] = queue.SimpleQueue()

    def work(number: str, group: Sequence[Learner]) -> None:
        learners = [replace(one, round=_silent(rounds[one.name])) for one in group]
        try:
            train(learners, checkpoints / number, ended.put)
        except BaseException as error:  # raised where it is waited for
            ended.put(error)

    threads = [
        threading.Thread(target=work, args=one, daemon=True, name=f"trainings-{one[0]}")  # an interrupt need not wait
        for one in groups.items()
    ]
    for thread in threads:
        thread.start()
    for _ in range(sum(map(len, groups.values()))):
        event = ended.get()
        if isinstance(event, BaseException):
            raise event
        line.advance(1, f"{event} · {len(groups)} at once")
    for thread in threads:
        thread.join()


def in_groups(waiting: Sequence[Learner], checkpoints: Folder, count: int) -> dict[str, list[Learner]]:
    """Trainings in about `count` groups of one size, by the name of the group's checkpoints.

    A training that was interrupted is the first of the group that has its checkpoint, even if that makes more groups.
    """
    left = {learner.name: learner for learner in waiting}
    groups = {}
    for number in checkpoints.names():
        name = interrupted(checkpoints / number)
        if name in left:
            groups[number] = [left.pop(name)]
    for number in map(str, range(count)):
        if len(groups) < min(count, len(waiting)):
            groups.setdefault(number, [])
    for learner in left.values():
        min(groups.values(), key=len).append(learner)
    return groups


def _as_many_as_fit(wave: Sequence[Learner]) -> int:
    """Trainings that the cluster as it is has room for; one CPU is left for reading the examples."""
    import ray

    have = ray.cluster_resources()
    rooms = []
    for training in (one.settings.training for one in wave):
        wanted = {"CPU": training.num_cpus_per_worker, "GPU": training.num_gpus_per_worker, **training.resources}
        there = have | {"CPU": have.get("CPU", 0) - 1}
        rooms += [there.get(name, 0) / (amount * training.num_workers) for name, amount in wanted.items() if amount > 0]
    return max(1, int(min(rooms, default=1)))


def _evaluate_wave(round_: Round, held_out: pa.Table, wave: Sequence[Learner], *, keep_models: bool) -> None:
    """The answers of a wave's models; the record is written last, so a wave that was killed is evaluated again."""
    models = {one.name: round_.directory.address(one.stages / "model") for one in wave}
    _answer(round_, held_out, models, {one.name: one.stages for one in wave})
    for one in wave:
        with one.stages.recording("evaluation"):
            pass
        if not keep_models:
            (one.stages / "model").clear()


def _answer(round_: Round, held_out: pa.Table, models: Mapping[str, str], places: Mapping[str, Stages]) -> None:
    """``evaluation/answers/`` of some models; their responses, which the answers hold as well, do not stay."""
    digest = hashlib.blake2b("\n".join(models).encode(), digest_size=8).hexdigest()
    folder = f"evaluation/{digest}"
    answers = held_out_answers(_silent(round_), held_out, models, folder, StageRecord())
    for name, stages in places.items():
        (stages / "evaluation/answers").replace(answers.filter(pc.equal(answers["model"], name)))
    (round_.stages / folder).clear()


def _write_comparison(round_: Round, settings: CompareConfig) -> None:
    """``comparison.json``: each arm's accuracy over its seeds and its difference to the uniform one, with intervals."""
    tables = {one.name: correctness(one.stages, one.name) for one in round_.learners()}
    base = correctness(round_.directory.round(0).learner(BASE), BASE)
    # A question that an engine refused or died of for any model counts for none.
    questions = sorted(set(base).intersection(*tables.values()))
    if len(questions) < 2:
        said = "fewer than two could be asked of every model; give more (evaluation_set_aside/ says why)"
        raise InputError(f"evaluation.questions: {said}")
    arms, baselines = settings.arms(), settings.baselines()
    correct = {
        arm: np.array([[tables[f"{arm}-seed-{seed}"][question] for question in questions] for seed in settings.seeds])
        for arm in arms
    }
    sampling = round_.stages.record("sampling") if round_.config.samples is None else None
    # A pair is one more comparison of its first arm, under a name of its own, so that p-values are adjusted over all.
    pairs = {f"{name} against {other}": (name, other) for name, other in settings.pairs}
    results = significance.compare(
        correct | {key: correct[name] for key, (name, _) in pairs.items()},
        baselines | {key: other for key, (_, other) in pairs.items()},
    )
    rows = [_arm(round_, result, baselines, settings.seeds) for result in results[: len(arms)]]
    times = Counter(arm["label"] for arm in rows)
    for arm in rows:
        arm["label"] = f"{arm['name']}: {arm['label']}" if times[arm["label"]] > 1 else arm["label"]
    content: ArmComparison = {
        "num_questions": len(questions),
        "seeds": settings.seeds,
        "over_seeds": len(settings.seeds) > 1,
        "num_comparisons": sum(result.difference is not None for result in results),
        "base": accuracy(np.array([base[question] for question in questions]), 0, 0),
        # Once for all of them; from the second round on each samples for itself.
        "sampling": {"num_tokens": sampling.counts["num_tokens"], "seconds": sampling.seconds} if sampling else None,
        "arms": rows,
        "pairs": [_pair(result, *pairs[result.arm]) for result in results[len(arms) :]],
    }
    round_.stages.folder.write_text("comparison.json", json.dumps(content, indent=1) + "\n")


def _pair(result: significance.ArmResult, name: str, baseline: str) -> ComparedPair:
    difference, adjusted, verdict = result.difference, result.adjusted_p_value, result.verdict
    assert difference is not None and adjusted is not None and verdict is not None, "a pair has a baseline"
    return {
        "name": name,
        "baseline": baseline,
        "difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "p_value": difference.p_value,
        "p_adjusted": adjusted,
        "verdict": verdict,
    }


def _arm(
    round_: Round, result: significance.ArmResult, baselines: Mapping[str, str | None], seeds: Sequence[int]
) -> ComparedArm:
    """A row of ``comparison.json``, with what the arm's trainings cost."""
    names = [f"{result.arm}-seed-{seed}" for seed in seeds]
    settings = round_.config.variant(names[0])
    learners = [round_.stages.learner(name) for name in names]
    records = [learner.record("training") or StageRecord() for learner in learners]
    sampled = [learner.record("sampling") or StageRecord() for learner in learners]
    weights = (round_.stages.learner(names[0]) / "examples").read(EXAMPLES, ["weight"])["weight"].to_numpy()
    difference = result.difference
    row: ComparedArm = {
        "name": result.arm,
        "label": describe(settings),
        "baseline": baselines[result.arm],
        "accuracies": result.accuracy_per_seed,
        "mean": result.accuracy.mean,
        "low": max(0.0, result.accuracy.low),
        "high": min(1.0, result.accuracy.high),
        "difference": difference.mean if difference else None,
        "difference_low": difference.low if difference else None,
        "difference_high": difference.high if difference else None,
        "p_value": difference.p_value if difference else None,
        "p_adjusted": result.adjusted_p_value,
        "verdict": result.verdict or ("baseline" if result.arm in baselines.values() else "no baseline"),
        "detectable": result.minimal_detectable_difference,
        "power_of_one_point": result.power_of_one_point,
        "disagreement": result.spread.disagreement if result.spread else None,
        "seed_spread": result.spread.seed_spread if result.spread else None,
        "repeated": result.spread.repeated if result.spread else None,
        "objective": settings.training.objective,
        "signal": settings.weighting.signal,
        "mapping": settings.weighting.mapping,
        "exponent": settings.weighting.exponent,
        "num_examples": weights.size,
        "effective_examples": effective_examples(weights),
        "top_share": top_share(weights),
        "num_tokens": sum(record.counts.get("num_tokens", 0) for record in records),
        "training_seconds": round(sum(record.counts.get("seconds_in_steps", 0.0) for record in records), 1),
        "num_sampled_tokens": sum(record.counts.get("num_tokens", 0) for record in sampled),
    }
    if collapse := _collapse(round_, names):
        row["collapse"] = collapse
    return row


def _collapse(round_: Round, names: Sequence[str]) -> str:
    """Which trainings of an arm are collapsing, and how the first of them does; empty if none is."""
    alarms = {one.name: look_for_collapse(one, before_training=False) for one in round_.learners() if one.name in names}
    if found := {name: alarm for name, alarm in alarms.items() if alarm}:
        name, alarm = next(iter(found.items()))
        return f"{len(found)} of {len(names)} trainings collapsing; {name}: {alarm.said}"
    return ""

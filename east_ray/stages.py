"""The stages of a round: each reads folders of the run directory and writes others. pipeline.py puts them in order."""

import functools
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from east_ray import evaluation, samples, weighting
from east_ray.config import BASE, TRAINED, Config, InputError, QuestionsConfig, SamplesConfig
from east_ray.config_file import flat
from east_ray.examples import judge_samples, weigh_judged
from east_ray.journal import adopt, sampled_keys, set_aside_keys, tidy
from east_ray.progress import Progress, StageLine
from east_ray.questions import load_questions, load_tokenizer, prompts_within
from east_ray.records import (
    ANSWERS,
    DISCARDED,
    EXAMPLES,
    QUESTIONS,
    SAMPLED_ANSWERS,
    SAMPLES,
    SET_ASIDE,
    Reason,
)
from east_ray.report import model_card
from east_ray.sampling import Decoding, by_architecture, context_length, requests, sample
from east_ray.selection import SelectionRules
from east_ray.storage import Folder, RunDirectory, StageRecord, Stages, counts_by, local_copy, resolve_model
from east_ray.tracking import tracked
from east_ray.training import Metrics
from east_ray.workers import Training, TrainingSummary, interrupted, train_models


@dataclass(frozen=True)
class Round:
    """What a round works with: the run's settings, its folders, and the models that it samples from and trains."""

    config: Config
    directory: RunDirectory
    number: int
    sampled_model: str
    initial_model: str
    progress: Progress
    learner: str = TRAINED  # whose round it is: from the second on, each training of a comparison has its own

    @property
    def stages(self) -> Stages:
        """The round's folders."""
        return self.directory.round(self.number).learner(self.learner)

    def learners(self) -> Iterator[tuple[str, Config, Stages]]:
        """(name, configuration, folders) of the round's own training and of each variant of it, or of a comparison."""
        for name, settings in self.config.learners().items():
            yield name, settings, self.stages.learner(name)


#: Questions with all their responses that are in memory as Python objects.
_ROWS_AT_ONCE = 64


def is_done(round_: Round, stages: Stages, stage: str, label: str) -> bool:
    """Whether a stage is done; if it is, says so."""
    record = stages.record(stage)
    if record is not None:
        round_.progress.say(f"{label:<12}done before, in {record.seconds:.0f} s")
    return record is not None


def ask_questions(round_: Round) -> None:
    """``questions/`` and ``set_aside/``: what is asked in this round, and what cannot be, with the reason."""
    config, stages = round_.config, round_.stages
    assert config.questions is not None
    if is_done(round_, stages, "questions", "questions"):
        return
    with stages.recording("questions") as record, round_.progress.stage("questions", None, "questions") as line:
        source = config.questions
        if config.questions_per_round == "fresh":
            source = slice_of_round(source, round_.number)
        questions, aside = askable_questions(round_, source, round_.sampled_model)
        (stages / "questions").replace(questions)
        (stages / "set_aside").replace(aside)
        if questions.num_rows == 0:
            raise InputError(f"no question can be asked: {_listed(counts_by(aside, 'reason'))}")
        record.counts = {"asked": questions.num_rows, "set_aside": counts_by(aside, "reason")}
        line.update(questions.num_rows, f"{aside.num_rows:,} set aside" if aside.num_rows else "")


def slice_of_round(source: QuestionsConfig, number: int) -> QuestionsConfig:
    """A round's own questions: as many as `max_questions`, after those of the rounds before it."""
    return source.model_copy(update={"skip": source.skip + number * (source.max_questions or 0)})


def askable_questions(round_: Round, source: QuestionsConfig, model: str) -> tuple[pa.Table, pa.Table]:
    """The questions of a source whose prompts leave room for a response, and those set aside."""
    config, model = round_.config, resolve_model(model)
    questions, aside = load_questions(source)
    tokenizer = load_tokenizer(local_copy(model))
    room = context_length(model, config.engines.engine_args) - 1  # one token at least for the response
    questions, too_long = prompts_within(questions, tokenizer, config.prompt, room)
    return questions, pa.concat_tables([aside, too_long])


def take_samples(round_: Round) -> None:
    """``samples/``, ``questions/`` and ``set_aside/`` from responses that another sampler made."""
    config, stages = round_.config, round_.stages
    assert config.samples is not None
    record = stages.record("sampling")
    if record is not None:
        _check_same_files(config.samples, record.counts["files"])
        is_done(round_, stages, "sampling", "samples")
        return
    sums = dict.fromkeys(("num_questions", "num_responses", "num_truncated"), 0)
    aside: Counter[str] = Counter()
    with (
        stages.recording("sampling") as sampling,
        stages.recording("questions") as questions,
        round_.progress.stage("samples", None, "questions") as line,
    ):
        for part in samples.take_samples(config.samples, stages):
            sums = {name: sums[name] + part[name] for name in sums}
            aside.update(part["set_aside"])
            note = f"{sums['num_responses']:,} responses" + (f" · {aside.total():,} set aside" if aside else "")
            line.advance(part["num_questions"], note)
        if not sums["num_questions"]:
            raise InputError(f"samples.path: no question can be used: {_listed(aside)}")
        sampling.counts = sums | {"files": samples.stamp(config.samples)}
        questions.counts = {"asked": sums["num_questions"], "set_aside": dict(sorted(aside.items()))}


def _check_same_files(source: SamplesConfig, taken: list[list[Any]]) -> None:
    """Raises InputError if the given samples are there and are not those that were taken."""
    try:
        differ = samples.stamp(source) != taken
    except InputError:  # removed since; what was taken of them is here
        return
    if differ:
        raise InputError(
            f"samples.path: {source.path} has changed since it was read; choose another run_dir, or remove that one"
        )


def sample_responses(round_: Round) -> None:
    """``samples/``: every question with all its responses. Only questions that have none yet are sampled."""
    config, stages = round_.config, round_.stages
    if config.samples is not None or is_done(round_, stages, "sampling", "sampling"):
        return
    questions = (stages / "questions").read(QUESTIONS)
    sampling = config.sampling
    decoding = Decoding(
        responses_per_question=sampling.responses_per_question,
        temperature=sampling.temperature,
        max_tokens=sampling.max_tokens,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        # Another seed each round, or the same questions would meet the same random numbers again.
        seed=config.seed + 1_000_003 * round_.number if sampling.seeded else None,
    )
    with stages.recording("sampling") as record:
        _sample(round_, "sampling", questions, {TRAINED if round_.number else BASE: round_.sampled_model},
                "samples", "set_aside", decoding, record.counts)  # fmt: skip
        if not record.counts["num_questions"]:
            raise InputError(f"no question could be sampled: {_listed(record.counts['set_aside'])}")


def make_examples(round_: Round, name: str, settings: Config, stages: Stages) -> None:
    """``examples/`` with weights and ``discarded/`` with reasons: each sampled question is in one of them."""
    label = "examples" if name == TRAINED else f"  {name}"
    if is_done(round_, stages, "examples", label):
        return
    with stages.recording("examples") as record, round_.progress.stage(label, None, "questions") as line:
        if settings.training.examples == "reference_solutions":
            examples, discarded = _solutions(round_)
            (stages / "examples").replace(examples)
            (stages / "discarded").replace(discarded)
            kept, reasons = examples.num_rows, counts_by(discarded, "reason")
        else:
            kept, reasons = _weigh(round_, settings, stages, line)
        record.counts = {"kept": kept, "discarded": reasons}
        line.update(kept + sum(reasons.values()), f"{kept:,} kept")
        if kept == 0:
            raise InputError(
                f"no question was kept, so there is nothing to train on: of {sum(reasons.values()):,} questions "
                f"{_listed(reasons)}; the responses are kept in "
                f"{round_.directory.address(round_.stages / 'samples')}"
            )


def selection_rules(settings: Config) -> SelectionRules:
    """By which rules a training's examples are made of the samples."""
    return SelectionRules(
        objective=settings.training.objective,
        signal=settings.weighting.signal,
        all_correct=settings.selection.all_correct,
        require_boxed=settings.selection.require_boxed,
        responses_per_question_trained=settings.selection.responses_per_question_trained,
        equivalence=settings.answers.equivalence,
        no_answer=settings.answers.no_answer,
        last_number=settings.answers.last_number,
        seed=settings.seed,
    )


def _weigh(round_: Round, settings: Config, stages: Stages, line: StageLine) -> tuple[int, dict[str, int]]:
    """The number of questions kept, and of those discarded by reason."""
    rules = selection_rules(settings)
    judged, examples, discarded = stages / "judged", stages / "examples", stages / "discarded"
    for folder in (judged, examples, discarded):
        folder.clear()
    signals, reasons = array("d"), Counter[str]()
    for part in judge_samples(round_.stages / "samples", judged, rules):
        signals.extend(part["signals"])
        reasons.update(part["reasons"])
        line.advance(part["num_questions"], f"{len(signals):,} kept")
    normalizer = None
    if signals:
        try:
            # The only global step of a round: what a question's weight has to know of the other questions.
            normalizer = weighting.normalizer(signals, settings.weighting.exponent, settings.weighting.mapping)
        except ValueError as error:
            raise InputError(f"weighting: {error}") from error
    for _ in weigh_judged(judged, examples, discarded, normalizer):
        pass
    judged.clear()
    return len(signals), dict(sorted(reasons.items()))


def _solutions(round_: Round) -> tuple[pa.Table, pa.Table]:
    """Examples of weight 1 from the questions' own worked solutions, and the questions that have none."""
    rows = (round_.stages / "questions").read(QUESTIONS).to_pylist()
    solved = [
        row | {"signal": 1.0, "weight": 1.0, "chosen": row["reference_solution"], "chosen_finish_reason": "stop"}
        for row in rows
        if row["reference_solution"]
    ]
    unsolved = [row | {"reason": Reason.NO_REFERENCE_SOLUTION} for row in rows if not row["reference_solution"]]
    return (
        pa.Table.from_pylist([{name: row.get(name) for name in EXAMPLES.names} for row in solved], EXAMPLES),
        pa.Table.from_pylist([{name: row.get(name) for name in DISCARDED.names} for row in unsolved], DISCARDED),
    )


#: Whose training it is: the round, and a learner of it with its settings and its folders.
Learner = tuple[Round, str, Config, Stages]


def train(learners: Iterable[Learner], checkpoints: Folder, ended: Callable[[str], None] = lambda name: None) -> None:
    """``model/``: the model trained on ``examples/``; ``training.jsonl``: the metrics of each step; of each in turn.

    `ended` gets the name of each as it ends. `checkpoints` is for these trainings alone, and is empty afterwards.
    """
    todo = [one for one in learners if not is_done(one[0], one[3], "training", _label(one[1]))]
    if interrupted(checkpoints) not in {name for _, name, _, _ in todo}:
        checkpoints.clear()
    trainings = [
        Training(
            name,
            stages / "examples",
            round_.initial_model,
            stages / "model",
            round_.stages / "reference",
            settings.training,
            settings.prompt,
            settings.seed,
        )
        for round_, name, settings, stages in todo
    ]
    events = train_models(trainings, checkpoints)
    for learner in todo:
        _follow(learner, events)
        ended(learner[1])
    for _ in events:  # until the last group has ended
        pass
    checkpoints.clear()


def _label(name: str) -> str:
    return "training" if name == TRAINED else f"  {name}"


def _follow(learner: Learner, events: Iterator[Metrics | TrainingSummary]) -> None:
    """Write down a training as it goes, until its summary."""
    round_, name, settings, stages = learner
    tracker = settings.training.tracker
    tensorboard = _local(stages / "tensorboard") if tracker in ("tensorboard", "wandb") else ""
    with (
        stages.recording("training") as record,
        round_.progress.stage(_label(name), None, "steps") as line,
        tracked(tracker, f"{name}, round {round_.number}", tensorboard, flat(settings)) as log,
    ):

        def show(metrics: Metrics) -> None:
            line.total = int(metrics["num_steps"])
            line.update(int(metrics["step"]), f"loss {metrics['loss']:.4f} · {metrics['tokens_per_s']:,.0f} tokens/s")

        with stages.folder.lines("training.jsonl") as write:
            for event in events:
                if isinstance(event, TrainingSummary):
                    summary = event
                    break
                show(event)
                write(json.dumps(event))
                log(event)
        if summary.steps:
            show(summary.steps[-1])
        _write_card(round_, name, settings, stages, None)
        # Anew, since a step that was done again after a restart was written twice.
        stages.folder.write_text("training.jsonl", "".join(json.dumps(step) + "\n" for step in summary.steps))
        record.counts = {
            "examples": summary.num_examples,
            "too_long": summary.num_too_long,
            "zero_weight_skipped": summary.num_zero_weight,
            "num_tokens": int(sum(step["num_tokens"] for step in summary.steps)),
            # Over all attempts, and without waiting for workers to begin.
            "seconds_in_steps": round(sum(step["num_tokens"] / step["tokens_per_s"] for step in summary.steps), 3),
        }


def _local(folder: Folder) -> str:
    """A folder on this machine: itself, or, for one elsewhere, a new one of the same name under the home directory."""
    path = Path(folder.path) if folder.is_local else Path.home() / "east-ray" / folder.path
    path.mkdir(parents=True, exist_ok=True)
    return str(path)


def _write_card(round_: Round, name: str, settings: Config, stages: Stages, metrics: Any) -> None:
    card = model_card(settings, stages, round_.number, name, round_.initial_model, metrics)
    (stages / "model").write_text("README.md", card)


def evaluate(round_: Round) -> None:
    """``evaluation/``: the answers of all the round's models to held-out questions, and ``metrics.json`` from them."""
    config, stages = round_.config, round_.stages
    if config.evaluation.questions is None or is_done(round_, stages, "evaluation", "evaluation"):
        return
    models = {BASE: resolve_model(config.model)}
    models |= {name: resolve_model(path) for name, path in config.evaluation.models.items()}
    if config.questions is not None or config.samples is not None:
        models |= {name: round_.directory.address(learner / "model") for name, _, learner in round_.learners()}
    with stages.recording("evaluation") as record:
        answers, num_set_aside = held_out_answers(round_, config.evaluation.questions, models, "evaluation", record)
        (stages / "evaluation/answers").replace(answers)
        sampled = None
        if config.evaluation.responses_per_question:
            sampled = sampled_answers(round_, config.evaluation.questions, models, record)
            (stages / "evaluation/sampled_answers").replace(sampled)
        metrics = evaluation.metrics(answers, list(models), config.seed, sampled) | {"num_set_aside": num_set_aside}
        (stages / "evaluation").write_text("metrics.json", json.dumps(metrics, indent=1) + "\n")
        for name, settings, learner in round_.learners():
            if name in models:
                _write_card(round_, name, settings, learner, metrics)


def has_gained(round_: Round) -> bool:
    """``validation/``: whether the round's model answers significantly more validation questions than the one before.

    That is: the paired 95 % interval of the difference lies above 0. True without `early_stopping`.
    """
    config, stages = round_.config, round_.stages
    if config.early_stopping is None:
        return True
    if not is_done(round_, stages, "validation", "validation"):
        models = {"before": round_.sampled_model, TRAINED: round_.directory.address(stages / "model")}
        with stages.recording("validation") as record:
            answers, _ = held_out_answers(round_, config.early_stopping.questions, models, "validation", record)
            (difference,) = evaluation.metrics(answers, list(models), config.seed)["differences"]
            record.counts["gain"] = difference
    gain = (stages.record("validation") or StageRecord()).counts["gain"]
    round_.progress.say(
        f"{'':<12}{100 * gain['difference']:+z.1f} points on the validation questions, paired 95 % interval "
        f"{100 * gain['low']:+z.1f} to {100 * gain['high']:+z.1f}"
    )
    return bool(gain["low"] > 0)


def held_out_answers(
    round_: Round, source: QuestionsConfig, models: Mapping[str, str], folder: str, record: StageRecord
) -> tuple[pa.Table, int]:
    """Each model's greedy answer to each question (records.ANSWERS), and how many questions were set aside.

    The responses are in ``responses/`` of that folder. A question that an engine has refused or died of counts for no
    model. Raises InputError if no question is left.
    """
    config = round_.config
    decoding = Decoding(responses_per_question=1, temperature=0.0, max_tokens=config.evaluation.max_tokens)
    questions, responses = _held_out_responses(round_, source, models, f"{folder}/responses", decoding, record)
    judge = functools.partial(
        evaluation.judge_response, equivalence=config.answers.equivalence, last_number=config.answers.last_number
    )
    answers = pa.Table.from_pylist([judge(row) for row in responses], schema=ANSWERS)
    num_left = answers.num_rows // len(models)
    return answers.sort_by([("model", "ascending"), ("question_id", "ascending")]), questions - num_left


def sampled_answers(round_: Round, source: QuestionsConfig, models: Mapping[str, str], record: StageRecord) -> pa.Table:
    """How each model's sampled responses to each question fall into clusters: records.SAMPLED_ANSWERS."""
    config = round_.config
    decoding = Decoding(
        responses_per_question=config.evaluation.responses_per_question,
        temperature=config.evaluation.temperature,
        top_p=config.evaluation.top_p,
        max_tokens=config.evaluation.max_tokens,
        seed=config.seed if config.sampling.seeded else None,
    )
    greedy = record.counts
    record.counts = {}
    _, responses = _held_out_responses(round_, source, models, "evaluation/sampled_responses", decoding, record)
    record.counts = greedy | {"sampled": record.counts}
    judge = functools.partial(
        evaluation.judge_responses, equivalence=config.answers.equivalence, last_number=config.answers.last_number
    )
    table = pa.Table.from_pylist([judge(row) for row in responses], schema=SAMPLED_ANSWERS)
    return table.sort_by([("model", "ascending"), ("question_id", "ascending")])


def _held_out_responses(
    round_: Round,
    source: QuestionsConfig,
    models: Mapping[str, str],
    folder: str,
    decoding: Decoding,
    record: StageRecord,
) -> tuple[int, Iterator[dict[str, Any]]]:
    """The number of questions that there are, and rows of SAMPLES of those that every model has answered."""
    stages = round_.stages
    questions, aside = askable_questions(round_, source, round_.config.model)
    if questions.num_rows == 0:
        raise InputError(f"evaluation: no question can be asked: {_listed(counts_by(aside, 'reason'))}")
    label = folder.partition("/")[0]
    set_aside = f"{folder}_set_aside"
    _sample(round_, label, questions, models, folder, set_aside, decoding, record.counts)
    times = Counter((stages / folder).read(SAMPLES, ["question_id"])["question_id"].to_pylist())
    if len(models) not in times.values():
        raise InputError(f"evaluation: no question could be sampled: {_listed(record.counts['set_aside'])}")

    def rows() -> Iterator[dict[str, Any]]:
        for batch in (stages / folder).batches(SAMPLES.names, max_rows=_ROWS_AT_ONCE):
            for row in batch.to_pylist():
                if times[row["question_id"]] == len(models):
                    yield row

    return questions.num_rows + aside.num_rows, rows()


def _sample(
    round_: Round,
    stage: str,
    questions: pa.Table,
    models: Mapping[str, str],
    folder: str,
    set_aside: str,
    decoding: Decoding,
    counts: dict[str, Any],
) -> None:
    """Run the sampling stage with its progress line and put the sums over the whole stage into `counts`."""
    config, samples_folder, aside_folder = round_.config, round_.stages / folder, round_.stages / set_aside
    asked = requests(questions, models, config.prompt, decoding)
    sums = dict.fromkeys(("num_questions", "num_set_aside", "num_responses", "num_tokens"), 0)
    wanted = set(asked["key"].to_pylist())
    with round_.progress.stage(stage, asked.num_rows, "questions") as line:
        adopt(samples_folder)
        line.go_on(len(wanted & (sampled_keys(samples_folder) | set_aside_keys(aside_folder))))
        parts = (
            part
            for alike in by_architecture(models)
            for part in sample(
                asked.filter(pc.is_in(asked["model"], pa.array(list(alike)))),
                alike,
                samples_folder,
                aside_folder,
                engines=config.engines,
                prompt=config.prompt,
                decoding=decoding,
            )
        )
        for part in parts:
            sums = {name: sums[name] + int(part[name]) for name in sums}
            line.advance(
                int(part["num_questions"] + part["num_set_aside"]),
                f"{sums['num_responses']:,} responses · {sums['num_tokens'] / line.seconds:,.0f} tokens/s",
            )
        seconds, whole = line.seconds, Counter[str]()
        for part in tidy(samples_folder, wanted):
            whole.update(part)
        missing = wanted - sampled_keys(samples_folder)
        aside = aside_folder.read(SET_ASIDE)
        aside = aside.filter(pc.is_in(aside["key"], pa.array(missing, pa.string())))
        if missing - set(aside["key"].to_pylist()):
            raise InputError(f"{samples_folder}: samples have gone while they were written; run the same command again")
        notes = [f"{whole['num_responses']:,} responses"]
        if sums["num_tokens"]:
            notes.append(f"{sums['num_tokens'] / seconds:,.0f} tokens/s")
        if aside.num_rows:
            notes.append(f"{aside.num_rows:,} set aside")
        if whole["num_dropped"]:
            notes.append(f"{whole['num_dropped']:,} rows of another model or settings dropped")
        line.update(asked.num_rows, " · ".join(notes))
    counts.update({name: whole[name] for name in ("num_questions", "num_responses", "num_tokens", "num_truncated")})
    counts["set_aside"] = counts_by(aside, "reason")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())

"""One round of EAST from top to bottom, and the loop over rounds. Read this first.

    questions ─▶ sampling ─▶ answers ─▶ selection ─▶ weighting ─▶ training ─▶ evaluation ─▶ next round

Each stage reads Parquet folders of the run directory and writes others, so each can be run, resumed, inspected or
replaced alone. A stage that is done is not done again; a stage that was interrupted goes on where it can and begins
anew where it must.
"""

import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from east_ray import evaluation, samples, weighting
from east_ray.cluster import check_resources, connect
from east_ray.config import Config, InputError, QuestionsConfig, SamplesConfig, flat
from east_ray.examples import judge_samples, weigh_judged
from east_ray.journal import sampled_keys, tidy
from east_ray.progress import Progress, StageLine
from east_ray.questions import load_questions, load_tokenizer, prompts_within
from east_ray.records import ANSWERS, DISCARDED, EXAMPLES, QUESTIONS, SAMPLES, SET_ASIDE, Reason
from east_ray.report import model_card, write_report
from east_ray.sampling import Decoding, context_length, requests, sample
from east_ray.selection import SelectionRules
from east_ray.storage import Folder, RunDirectory, Stages, counts_by, local_copy, resolve_model
from east_ray.tracking import tracked
from east_ray.workers import train_model

#: Names of the two models that every round knows, beside its variants: what it began with and what it made.
BASE, TRAINED = "base", "trained"


@dataclass(frozen=True)
class Round:
    """What a round works with: the run's settings, its folders, and the models that it samples from and trains."""

    config: Config
    directory: RunDirectory
    number: int
    sampled_model: str
    initial_model: str
    progress: Progress

    @property
    def stages(self) -> Stages:
        """The round's folders."""
        return self.directory.round(self.number)

    def learners(self) -> Iterator[tuple[str, Config, Stages]]:
        """(name, configuration, folders) of the round's own training and of each variant of it."""
        yield TRAINED, self.config, self.stages
        for name in self.config.variants:
            yield name, self.config.variant(name), self.stages.variant(name)


def run(config: Config, progress: Progress) -> str:
    """All rounds; returns the path of the report. Raises InputError for what the user can mend."""
    require_model(config)
    directory = RunDirectory(config)
    progress.say(f"run directory: {directory.uri}")
    check_inputs(config, directory)
    for number in range(config.rounds):
        round_ = open_round(config, directory, number, progress)
        if config.samples is not None:
            take_samples(round_)
        else:
            ask_questions(round_)
        if any(settings.training.examples == "selected" for _, settings, _ in round_.learners()):
            sample_responses(round_)
        for name, settings, stages in round_.learners():
            make_examples(round_, name, settings, stages)
        for name, settings, stages in round_.learners():
            train(round_, name, settings, stages)
        evaluate(round_)
    return write_report(directory)


def check_inputs(config: Config, directory: RunDirectory) -> None:
    """Read the questions of the last stage before the first one begins: a wrong path should not wait for hours."""
    if config.evaluation.questions is not None:
        load_questions(config.evaluation.questions)
    if config.samples is not None and directory.round(0).record("sampling") is None:
        samples.check_columns(config.samples)


def require_model(config: Config) -> None:
    """Raises InputError if the configuration names none, as only `weigh` on given samples may."""
    if not config.model:
        raise InputError("model: missing; only `east-ray weigh` on given samples works without one")


def open_round(
    config: Config, directory: RunDirectory, number: int, progress: Progress, *, only_weigh: bool = False
) -> Round:
    """A round of a run, with a Ray cluster to work on; `only_weigh` asks for no engines and no training workers.

    Raises InputError if an earlier round has made no model, or the machine lacks what the run asks for.
    """
    base = resolve_model(config.model)
    previous = base
    if number > 0:
        before = directory.round(number - 1)
        if before.record("training") is None:
            raise InputError(f"round {number}: round {number - 1} of {directory.uri} has not been trained yet")
        previous = directory.address(before / "model")
    connect(config.cluster)
    if (
        number == 0 and not only_weigh
    ):  # in a later round the engines of the one before may still be giving back their memory
        check_resources(config, progress.say)
    initial = previous if config.init_from == "previous" else base
    return Round(config, directory, number, previous, initial, progress)


def _done(round_: Round, stages: Stages, stage: str, label: str) -> bool:
    """Whether a stage is done; says so in its place."""
    record = stages.record(stage)
    if record is not None:
        round_.progress.say(f"{label:<12}done before, in {record.seconds:.0f} s")
    return record is not None


def require(round_: Round, stage: str, verb: str) -> None:
    """Raises InputError naming the verb to run first, if a stage of this round (of a variant too) is not done."""
    every = [stages for _, _, stages in round_.learners()] if stage in ("examples", "training") else [round_.stages]
    if any(stages.record(stage) is None for stages in every):
        raise InputError(
            f"round {round_.number} of {round_.directory.uri} has no {stage} yet: run `east-ray {verb}` first"
        )


def ask_questions(round_: Round) -> None:
    """``questions/`` and ``set_aside/``: what is asked in this round, and what cannot be, with the reason."""
    config, stages = round_.config, round_.stages
    assert config.questions is not None
    if _done(round_, stages, "questions", "questions"):
        return
    with stages.recording("questions") as record, round_.progress.stage("questions", None, "questions") as line:
        questions, aside = askable_questions(round_, config.questions, round_.sampled_model)
        (stages / "questions").replace(questions)
        (stages / "set_aside").replace(aside)
        if questions.num_rows == 0:
            raise InputError(f"no question can be asked: {_listed(counts_by(aside, 'reason'))}")
        record.counts = {"asked": questions.num_rows, "set_aside": counts_by(aside, "reason")}
        line.update(questions.num_rows, f"{aside.num_rows:,} set aside" if aside.num_rows else "")


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
        _done(round_, stages, "sampling", "samples")
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
    if config.samples is not None or _done(round_, stages, "sampling", "sampling"):
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
    if _done(round_, stages, "examples", label):
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


def _weigh(round_: Round, settings: Config, stages: Stages, line: StageLine) -> tuple[int, dict[str, int]]:
    """The number of questions kept, and of those discarded by reason."""
    rules = SelectionRules(
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


def train(round_: Round, name: str, settings: Config, stages: Stages) -> None:
    """``model/``: the model trained on ``examples/``; ``training.jsonl``: the metrics of each step."""
    label = "training" if name == TRAINED else f"  {name}"
    checkpoints = stages / "checkpoints"
    if _done(round_, stages, "training", label):
        checkpoints.clear()
        return
    with stages.recording("training") as record, round_.progress.stage(label, None, "steps") as line:

        def show(metrics: Mapping[str, float]) -> None:
            line.total = int(metrics["num_steps"])
            line.update(int(metrics["step"]), f"loss {metrics['loss']:.4f} · {metrics['tokens_per_s']:,.0f} tokens/s")

        tracker = settings.training.tracker
        tensorboard = _local(stages / "tensorboard") if tracker in ("tensorboard", "wandb") else ""
        with (
            tracked(tracker, f"{name}, round {round_.number}", tensorboard, flat(settings)) as log,
            stages.folder.lines("training.jsonl") as write,
        ):

            def progress(metrics: Mapping[str, float]) -> None:
                show(metrics)
                write(json.dumps(metrics))
                log(metrics)

            summary = train_model(
                stages / "examples",
                round_.initial_model,
                stages / "model",
                checkpoints,
                stages / "reference",
                settings=settings.training,
                prompt=settings.prompt,
                seed=settings.seed,
                progress=progress,
            )
        if summary.steps:
            show(summary.steps[-1])
        _write_card(round_, name, settings, stages, None)
        # Anew, since a step that was done again after a restart was written twice.
        stages.folder.write_text("training.jsonl", "".join(json.dumps(step) + "\n" for step in summary.steps))
        record.counts = {
            "examples": summary.num_examples,
            "too_long": summary.num_too_long,
            "zero_weight_skipped": summary.num_zero_weight,
        }
    checkpoints.clear()


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
    if config.evaluation.questions is None or _done(round_, stages, "evaluation", "evaluation"):
        return
    models = {BASE: resolve_model(config.model)} | {
        name: round_.directory.address(learner / "model") for name, _, learner in round_.learners()
    }
    questions, aside = askable_questions(round_, config.evaluation.questions, config.model)
    if questions.num_rows == 0:
        raise InputError(f"evaluation.questions: none can be asked: {_listed(counts_by(aside, 'reason'))}")
    decoding = Decoding(responses_per_question=1, temperature=0.0, max_tokens=config.evaluation.max_tokens)
    with stages.recording("evaluation") as record:
        _sample(
            round_,
            "evaluation",
            questions,
            models,
            "evaluation/responses",
            "evaluation/set_aside",
            decoding,
            record.counts,
        )
        responses = (stages / "evaluation/responses").read(SAMPLES).to_pylist()
        times = Counter(row["question_id"] for row in responses)
        # A question that an engine has refused or died of counts for no model.
        rows = [
            evaluation.judge_response(row, config.answers.equivalence, config.answers.last_number)
            for row in responses
            if times[row["question_id"]] == len(models)
        ]
        if not rows:
            raise InputError(f"evaluation.questions: none could be sampled: {_listed(record.counts['set_aside'])}")
        answers = pa.Table.from_pylist(rows, schema=ANSWERS).sort_by(
            [("model", "ascending"), ("question_id", "ascending")]
        )
        (stages / "evaluation/answers").replace(answers)
        num_set_aside = aside.num_rows + questions.num_rows - len(rows) // len(models)
        metrics = evaluation.metrics(answers, list(models), config.seed) | {"num_set_aside": num_set_aside}
        (stages / "evaluation").write_text("metrics.json", json.dumps(metrics, indent=1) + "\n")
        for name, settings, learner in round_.learners():
            _write_card(round_, name, settings, learner, metrics)


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
    with round_.progress.stage(stage, asked.num_rows, "questions") as line:
        for part in sample(
            asked,
            models,
            samples_folder,
            aside_folder,
            engines=config.engines,
            prompt=config.prompt,
            decoding=decoding,
        ):
            sums = {name: sums[name] + int(part[name]) for name in sums}
            line.advance(
                int(part["num_questions"] + part["num_set_aside"]),
                f"{sums['num_responses']:,} responses · {sums['num_tokens'] / line.seconds:,.0f} tokens/s",
            )
        wanted = set(asked["key"].to_pylist())
        seconds, whole = line.seconds, Counter[str]()
        for part in tidy(samples_folder, wanted):
            whole.update(part)
        missing = wanted - sampled_keys(samples_folder)
        aside = aside_folder.read(SET_ASIDE)
        aside = aside.filter(pc.is_in(aside["key"], pa.array(missing, pa.string())))
        if missing - set(aside["key"].to_pylist()):
            raise InputError(f"{samples_folder}: samples have gone while they were written; run the same command again")
        notes = [f"{whole['num_responses']:,} responses", f"{sums['num_tokens'] / seconds:,.0f} tokens/s"]
        if aside.num_rows:
            notes.append(f"{aside.num_rows:,} set aside")
        if whole["num_dropped"]:
            notes.append(f"{whole['num_dropped']:,} rows of another model or settings dropped")
        line.update(asked.num_rows, " · ".join(notes))
    counts.update({name: whole[name] for name in ("num_questions", "num_responses", "num_tokens", "num_truncated")})
    counts["set_aside"] = counts_by(aside, "reason")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())

"""The whole of EAST from top to bottom: the loop over the rounds. Read this first.

    questions ─▶ sampling ─▶ answers ─▶ selection ─▶ weighting ─▶ training ─▶ evaluation ─▶ next round

Each stage reads Parquet folders of the run directory and writes others, so each can be run, resumed, inspected or
replaced alone. A stage that is done is not done again. A stage that was interrupted continues where it can and starts
anew where it must.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from east_ray import weighting
from east_ray.answers import graders
from east_ray.answers.stage import grade_responses
from east_ray.config import TRAINED, Config, InputError
from east_ray.console import Progress
from east_ray.evaluation.rounds import in_a_sentence, look_for_collapse, write_diversity
from east_ray.evaluation.stage import evaluate, has_gained
from east_ray.labels.deciding import Labels
from east_ray.labels.stage import (
    Prepared,
    look_for_trusted,
    prepare_labels,
    trusted_rows,
    write_changes,
    write_labels,
)
from east_ray.labels.trusted import can_be_labelled, read_trusted
from east_ray.plan.terminal import say_in_short
from east_ray.questions.prompts import messages
from east_ray.questions.stage import ask_questions, load_questions
from east_ray.ray_cluster import check_resources, connect
from east_ray.report.files import write_cards, write_findings, write_report
from east_ray.sampling import backends, given
from east_ray.sampling.stage import check_endpoints, max_prompt_tokens, sample_responses, take_samples
from east_ray.selection import (
    SelectionRules,
    judge_questions,
    one_discarded,
    read_judged,
    selection_rules,
    take_solutions,
)
from east_ray.storage import RunDirectory, resolve_model
from east_ray.storage.few_shot import with_examples_read
from east_ray.storage.rounds import Learner, Round, is_done, label, listed
from east_ray.training import objectives
from east_ray.training.stage import train as train_models


def run(config: Config, progress: Progress) -> str:
    """All rounds; returns the path of the report. Raises InputError for what the user can mend."""
    if config.compare is not None:
        raise InputError("compare: this is a comparison; run it with `east-ray compare`")
    config = with_examples_read(config)  # of a program that has made its configuration without `load_run`
    directory = open_run(config, progress)
    say_in_short(config, progress.say)
    for number in range(config.rounds):
        round_ = open_round(config, directory, number, progress)
        prepare(round_)
        grade(round_)
        beware_of_collapse(round_, before_training=True)
        make_all_examples(round_)
        train(round_)
        measure(round_)
        beware_of_collapse(round_, before_training=False)
        if number + 1 < config.rounds and not has_gained(round_):
            progress.say(f"stopped after round {number}: no significant gain on the validation questions")
            break
    return write_report(directory)


def prepare(round_: Round) -> None:
    """``questions/`` and ``samples/``: the questions of a round with their responses, asked or given."""
    grader = graders.load(round_.config.answers)
    trusted = trusted_rows(round_, grader)
    every = [row for _, rows in trusted for row in rows]
    can_use = can_be_labelled(round_.directory.config.labels.source, every, grader)
    if round_.config.samples is not None:
        take_samples(round_, can_use)
    else:
        ask_questions(round_, max_prompt_tokens, can_use)
    if learns_from_responses(round_):
        look_for_trusted(round_, trusted)
        sample_responses(round_)


def weigh(round_: Round) -> None:
    """``answers/``, then ``examples/`` with weights and ``discarded/`` with reasons, of each training of the round."""
    grade(round_)
    make_all_examples(round_)


def make_all_examples(round_: Round) -> None:
    """``examples/`` and ``discarded/`` of each training of the round, from its answers."""
    todo = [one for one in round_.learners() if not is_done(round_, one.stages, "examples", label(one, "examples"))]
    judge_round(round_, todo)
    for learner in todo:
        make_examples(learner)


def grade(round_: Round) -> None:
    """``answers/``: the answer and the cluster of every response, for all trainings of the round."""
    if learns_from_responses(round_):
        grade_responses(round_)
        write_diversity(round_)


def judge_round(round_: Round, learners: Sequence[Learner]) -> None:
    """Of each training that learns from responses, a folder of questions that are judged by its rules."""
    chosen = [learner for learner in learners if learner.settings.training.examples == "selected"]
    signals = [weighting.load_signal(learner.settings.weighting) for learner in chosen]
    found: dict[Any, Prepared] = {}  # trainings of a comparison that differ in their weights share their labels
    for learner in chosen:
        if (key := (learner.settings.labels, learner.settings.answers.responses)) not in found:
            found[key] = prepare_labels(round_, learner.settings, graders.load(round_.config.answers))
            for said in filter(None, (found[key].found_said, found[key].thresholds_said)):
                round_.progress.say(said)
        write_labels(learner.stages, found[key])
    labels = [found[one.settings.labels, one.settings.answers.responses].labels for one in chosen]
    rules = [rules_of(learner.settings, one) for learner, one in zip(chosen, labels, strict=True)]
    judge_questions(round_, list(zip(rules, signals, (learner.stages for learner in chosen), strict=True)))


def make_examples(learner: Learner) -> None:
    """``examples/`` and ``discarded/`` of a training from its judged questions; every question is in one of them."""
    round_, settings, stages = learner.round, learner.settings, learner.stages
    with (
        stages.recording("examples") as record,
        round_.progress.stage(label(learner, "examples"), None, "questions") as line,
    ):
        if settings.training.examples == "reference_solutions":
            num_kept, reasons = take_solutions(round_, stages)
        else:
            judged = read_judged(stages)
            num_kept, reasons = len(judged.signals), judged.reasons
            try:
                mapped = weighting.mapped(judged.signals, settings.weighting) if num_kept else judged.signals
                mapped = mapped * judged.factors
                normalizer = weighting.normalizer(mapped) if num_kept else 1.0  # the only global reduction of a round
            except ValueError as error:
                why = "" if judged.signals.any() else _why_all_agree(round_)
                raise InputError(f"weighting: {error}{why}") from error
            weighting.write_examples(stages, judged.split(mapped / normalizer))
        record.counts = {"kept": num_kept, "discarded": reasons}
        if labels := write_changes(stages):
            record.counts["labels"] = labels
        line.update(num_kept + sum(reasons.values()), f"{num_kept:,} kept")
        if num_kept == 0:
            raise InputError(_why_none_is_kept(learner, reasons))


def _why_all_agree(round_: Round) -> str:
    """What given samples say about signals that are all 0."""
    samples, record = round_.config.samples, round_.stages.record("sampling")
    if samples is None or record is None:
        return ""
    counts = record.counts
    example = given.one_set_aside(round_.stages)
    return given.why_all_agree(samples, counts["num_questions"], counts["num_responses"], example)


def _why_none_is_kept(learner: Learner, reasons: Mapping[str, int]) -> str:
    """What to say if nothing can be trained on: one question, and the settings that would mend it."""
    round_, settings = learner.round, learner.settings
    said = f"no question was kept, so there is nothing to train on: of {sum(reasons.values()):,} questions "
    said += f"{listed(reasons)}; "
    if reasons:
        commonest = max(reasons, key=lambda reason: reasons[reason])
        said += f"{one_discarded(learner.stages, commonest, reasons[commonest])}; "
    sections = ["answers", "selection"] if settings.samples is None else ["samples", "answers", "selection"]
    sections += ["labels"] if settings.labels.decides else []
    kept = round_.directory.address(round_.stages / "samples")
    return f"{said}mend {', '.join(sections)}, and run the same command again; the responses are kept in {kept}"


def train(round_: Round) -> None:
    """``model/`` of each training of the round, with its card."""
    train_models(round_.learners(), round_.stages / "checkpoints")
    write_cards(round_)


def measure(round_: Round) -> None:
    """``evaluation/`` of the round's models, and ``studies/`` and ``audit/`` of its questions, for the report."""
    evaluate(round_)
    write_cards(round_)
    write_findings(round_, labelled_rules)


def beware_of_collapse(round_: Round, *, before_training: bool) -> None:
    """Say if a run that learns from majority answers is collapsing. Raises InputError if it is to stop then."""
    own = round_.learners()[0]
    found = look_for_collapse(own, before_training=before_training)
    if found is None:
        return
    said = in_a_sentence(own, found)
    if own.settings.labels.collapse == "warn" or found.rule == "unchecked loss":
        round_.progress.say(f"warning: {said}")
        return
    round_.progress.say(f"report: {write_report(round_.directory)}")
    raise InputError(f"labels.collapse: {said}")


def rules_of(settings: Config, labels: Labels) -> SelectionRules:
    """The rules by which the examples of a training are selected. Raises InputError if its objective is none."""
    needs_rejected = "rejected" in objectives.load(settings.training).required_responses
    return selection_rules(settings, needs_rejected=needs_rejected, labels=labels)


def labelled_rules(learner: Learner) -> SelectionRules:
    """The same, with the labels of the learner's round."""
    found = prepare_labels(learner.round, learner.settings, graders.load(learner.settings.answers))
    return rules_of(learner.settings, found.labels)


def learns_from_responses(round_: Round) -> bool:
    """Whether a training of the round learns from sampled responses, and not from worked solutions alone."""
    return any(learner.settings.training.examples == "selected" for learner in round_.learners())


# ---------------------------------------------------------------------------------------------- before the work begins


def open_run(config: Config, progress: Progress) -> RunDirectory:
    """The run directory, after every check that needs no cluster. Raises InputError."""
    require_model(config)
    require_questions(config)
    directory = RunDirectory(config)
    progress.say(f"run directory: {directory.uri}")
    check_inputs(config, directory)
    return directory


def check_inputs(config: Config, directory: RunDirectory) -> None:
    """Read the questions of the last stage before the first one starts: a wrong path should not wait for hours.

    The user's own parts are loaded too. Raises InputError.
    """
    for settings in config.learners().values():
        objectives.load(settings.training)
        weighting.load_signal(settings.weighting)
        weighting.load_mapping(settings.weighting)
    grader = graders.load(config.answers)
    for path in _trusted_files(config, directory):
        read_trusted(path, grader)
    evaluated = config.in_evaluation()
    for settings in (config, evaluated, *([evaluated.on_engines()] if config.evaluates_on_engines else [])):
        backend = backends.load(settings.sampling)
        backend.check_engines(settings.engines)
        if backend.prompt_form == "messages":
            messages("?", settings.prompt)  # raises for a prompt of text
    for section in (config.evaluation, config.early_stopping):
        if section is not None and section.questions is not None:
            load_questions(section.questions)
    if config.questions_per_round == "fresh" and config.questions is not None:
        each = config.questions.max_questions or 0
        needed = each * config.rounds
        every = config.questions.model_copy(update={"max_questions": needed})
        if (found := sum(table.num_rows for table in load_questions(every))) < needed:
            said = f"{config.rounds} rounds of {each:,} questions need {needed:,}, and there are {found:,}"
            raise InputError(f"questions_per_round: {said}")
    check_endpoints(directory.round(0), config, resolve_model(config.model))
    if config.samples is not None and directory.round(0).record("sampling") is None:
        given.check_columns(config.samples)


def _trusted_files(config: Config, directory: RunDirectory) -> set[str]:
    """The trusted files of trainings that have a round yet to weigh; the others are not read any more."""
    rounds = [directory.round(number) for number in range(config.rounds)]
    return {
        one.labels.trusted
        for name, one in config.learners().items()
        if one.labels.trusted and any(stages.learner(name).record("examples") is None for stages in rounds)
    }


def require_questions(config: Config) -> None:
    """Raises InputError if there is nothing to learn from. Only `east-ray evaluate` works without questions."""
    if config.questions is None and config.samples is None:
        raise InputError("questions: missing; only `east-ray evaluate` works without questions or samples")


def require_model(config: Config) -> None:
    """Raises InputError if the configuration names no model. Only `weigh` on given samples works without one."""
    if not config.model:
        raise InputError(
            "model: missing; name a folder or a model on the hub; `east-ray weigh` on given samples needs none"
        )


def open_round(
    config: Config,
    directory: RunDirectory,
    number: int,
    progress: Progress,
    *,
    only_weigh: bool = False,
    learner: str = TRAINED,
) -> Round:
    """A round of a run, with a Ray cluster to work on; `only_weigh` asks for no engines and no training workers.

    Raises InputError if an earlier round has made no model, or the machine lacks what the run asks for.
    """
    config = config.settled(directory.config)
    base = resolve_model(config.model)
    previous = base
    if number > 0 and config.compare is None:
        before = directory.round(number - 1).learner(learner)
        if before.record("training") is None:
            raise InputError(f"round {number}: round {number - 1} of {directory.uri} has not been trained yet")
        previous = directory.address(before / "model")
    connect(config.cluster)
    # In a later round the engines of the round before may still be giving back their memory.
    if number == 0 and not only_weigh:
        check_resources(config, progress.say)
    initial = previous if config.init_from == "previous" else base
    return Round(config, directory, number, previous, initial, progress, learner)


def require(round_: Round, stage: str, verb: str) -> None:
    """Raises InputError naming the verb to run first, if a stage of this round (of a variant too) is not done."""
    every = [one.stages for one in round_.learners()] if stage in ("examples", "training") else [round_.stages]
    if any(stages.record(stage) is None for stages in every):
        said = f"has no {stage} yet: run `east-ray {verb}` first"
        raise InputError(f"round {round_.number} of {round_.directory.uri} {said}")

"""The whole of EAST from top to bottom: the loop over the rounds. Read this first.

    questions ─▶ sampling ─▶ answers ─▶ selection ─▶ weighting ─▶ training ─▶ evaluation ─▶ next round

Each stage reads Parquet folders of the run directory and writes others, so each can be run, resumed,
inspected or replaced alone. A stage that is done is not done again; a stage that was interrupted goes on where it can
and begins anew where it must.
"""

from east_ray.config import TRAINED, Config, InputError
from east_ray.console import Progress
from east_ray.evaluation.stage import evaluate, has_gained
from east_ray.questions.source import load_questions
from east_ray.questions.stage import ask_questions
from east_ray.ray_cluster import check_resources, connect
from east_ray.report.findings import write_findings
from east_ray.report.terminal import write_report
from east_ray.sampling import given
from east_ray.sampling.stage import sample_responses, take_samples
from east_ray.stages import make_examples
from east_ray.storage import RunDirectory, resolve_model
from east_ray.storage.rounds import Round
from east_ray.training import objectives
from east_ray.training.stage import train


def run(config: Config, progress: Progress) -> str:
    """All rounds; returns the path of the report. Raises InputError for what the user can mend."""
    if config.compare is not None:
        raise InputError("compare: this is a comparison; run it with `east-ray compare`")
    directory = open_run(config, progress)
    for number in range(config.rounds):
        round_ = open_round(config, directory, number, progress)
        prepare(round_)
        for learner in round_.learners():
            make_examples(round_, learner.name, learner.settings, learner.stages)
        train(round_.learners(), round_.stages / "checkpoints")
        evaluate(round_)
        write_findings(round_)
        if number + 1 < config.rounds and not has_gained(round_):
            progress.say(f"ended after round {number}: on the validation questions it gained nothing that is certain")
            break
    return write_report(directory)


def open_run(config: Config, progress: Progress) -> RunDirectory:
    """The run directory, once all has been checked that needs no cluster. Raises InputError."""
    require_model(config)
    require_questions(config)
    for settings in config.learners().values():
        objectives.load(settings.training)
    directory = RunDirectory(config)
    progress.say(f"run directory: {directory.uri}")
    check_inputs(config, directory)
    return directory


def prepare(round_: Round) -> None:
    """The questions of a round with their responses, asked or given."""
    if round_.config.samples is not None:
        take_samples(round_)
    else:
        ask_questions(round_)
    if any(learner.settings.training.examples == "selected" for learner in round_.learners()):
        sample_responses(round_)


def check_inputs(config: Config, directory: RunDirectory) -> None:
    """Read the questions of the last stage before the first one begins: a wrong path should not wait for hours."""
    if config.evaluation.questions is not None:
        load_questions(config.evaluation.questions)
    if config.early_stopping is not None:
        load_questions(config.early_stopping.questions)
    if config.questions_per_round == "fresh" and config.questions is not None:
        each = config.questions.max_questions or 0
        every = config.questions.model_copy(update={"max_questions": each * config.rounds})
        found = sum(table.num_rows for table in load_questions(every))
        if found < each * config.rounds:
            raise InputError(
                f"questions_per_round: {config.rounds} rounds of {each:,} questions need {each * config.rounds:,}, and "
                f"there are {found:,}"
            )
    if config.samples is not None and directory.round(0).record("sampling") is None:
        given.check_columns(config.samples)


def require_questions(config: Config) -> None:
    """Raises InputError if there is nothing to learn from, as only `east-ray evaluate` may have it."""
    if config.questions is None and config.samples is None:
        raise InputError("questions: missing; only `east-ray evaluate` works without questions or samples")


def require_model(config: Config) -> None:
    """Raises InputError if the configuration names none, as only `weigh` on given samples may."""
    if not config.model:
        raise InputError("model: missing; only `east-ray weigh` on given samples works without one")


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
    base = resolve_model(config.model)
    previous = base
    if number > 0 and config.compare is None:
        before = directory.round(number - 1).learner(learner)
        if before.record("training") is None:
            raise InputError(f"round {number}: round {number - 1} of {directory.uri} has not been trained yet")
        previous = directory.address(before / "model")
    connect(config.cluster)
    if (
        number == 0 and not only_weigh
    ):  # in a later round the engines of the one before may still be giving back their memory
        check_resources(config, progress.say)
    initial = previous if config.init_from == "previous" else base
    return Round(config, directory, number, previous, initial, progress, learner)


def require(round_: Round, stage: str, verb: str) -> None:
    """Raises InputError naming the verb to run first, if a stage of this round (of a variant too) is not done."""
    every = [learner.stages for learner in round_.learners()] if stage in ("examples", "training") else [round_.stages]
    if any(stages.record(stage) is None for stages in every):
        raise InputError(
            f"round {round_.number} of {round_.directory.uri} has no {stage} yet: run `east-ray {verb}` first"
        )

"""model/ of a round: its trainings, each followed while it runs, by a tracker too if the settings name one."""

import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from east_ray.config import InputError, flatten
from east_ray.storage import Folder
from east_ray.storage.rounds import Learner, is_done, label
from east_ray.training import objectives
from east_ray.training.checkpoints import change_of_shape, interrupted
from east_ray.training.dataset import Metrics, Training, TrainingPhase, TrainingSummary
from east_ray.training.group import train_models

Tracker = Literal["none", "tensorboard", "wandb", "mlflow"]
Log = Callable[[Mapping[str, float]], None]


def train(learners: Iterable[Learner], checkpoints: Folder, ended: Callable[[str], None] = lambda name: None) -> None:
    """``model/``: the model trained on ``examples/``; ``training.jsonl``: the metrics of each step; of each in turn.

    `ended` gets the name of each when it ends. `checkpoints` is for these trainings alone, and is empty afterwards.
    """
    todo = [one for one in learners if not is_done(one.round, one.stages, "training", label(one, "training"))]
    if (name := interrupted(checkpoints)) not in {learner.name for learner in todo}:
        checkpoints.clear()
    for learner in todo:
        if learner.name == name and (said := change_of_shape(checkpoints, learner.settings.training)):
            learner.round.progress.say(said)
    trainings = [
        Training(
            name=learner.name,
            examples=learner.stages / "examples",
            model=learner.round.initial_model,
            target=learner.stages / "model",
            references=learner.round.stages / "reference",
            settings=learner.settings.training,
            objective=objectives.load(learner.settings.training),
            prompt=learner.settings.prompt,
            seed=learner.settings.seed,
        )
        for learner in todo
    ]
    events = train_models(trainings, checkpoints)
    for learner in todo:
        _follow(learner, events)
        ended(learner.name)
    list(events)  # waits until the last group has ended
    checkpoints.clear()


def _follow(learner: Learner, events: Iterator[Metrics | TrainingPhase | TrainingSummary]) -> None:
    """Record a training while it runs, until its summary."""
    stages, tracker = learner.stages, learner.settings.training.tracker
    num_workers = learner.settings.training.num_workers
    tensorboard = _local(stages / "tensorboard") if tracker in ("tensorboard", "wandb") else ""
    title = f"{learner.name}, round {learner.round.number}"
    with (
        stages.recording("training") as record,
        learner.round.progress.stage(label(learner, "training"), None, "steps") as line,
        tracked(tracker, title, tensorboard, dict(flatten(learner.settings.model_dump()))) as log,
    ):

        def begin(phase: TrainingPhase) -> None:
            if phase.is_work:
                line.works()
            of_all = f" {phase.done:,}/{phase.num_examples:,} examples" if phase.num_examples else ""
            line.doing("" if phase.name == "steps" else f"{phase.name}{of_all}", phase.name)

        def show(step: Metrics) -> None:
            line.total = int(step["num_steps"])
            line.update(int(step["step"]), f"loss {step['loss']:.4f} · {step['tokens_per_s']:,.0f} tokens/s")

        line.starts()
        line.doing(f"starting {num_workers} worker{'s' if num_workers > 1 else ''}")
        with stages.folder.lines("training.jsonl") as write:
            for event in events:
                if isinstance(event, TrainingSummary):
                    summary = event
                    break
                if isinstance(event, TrainingPhase):
                    begin(event)
                    continue
                show(event)
                write(json.dumps(event))
                log(event)
        record.starting_s = line.starting_s
        if summary.steps:
            show(summary.steps[-1])
        if summary.num_retokenized:
            of_all = f"{summary.num_retokenized:,} of {summary.num_examples:,} examples were tokenized from their text"
            learner.round.progress.say(f"{of_all}: their token ids do not spell it with this model's tokenizer")
        # Written again, since a step that was repeated after a restart was written twice.
        stages.folder.write_text("training.jsonl", "".join(json.dumps(step) + "\n" for step in summary.steps))
        record.counts = {
            "examples": summary.num_examples,
            "too_long": summary.num_too_long,
            "retokenized": summary.num_retokenized,
            "zero_weight_skipped": summary.num_zero_weight,
            "num_tokens": int(sum(step["num_tokens"] for step in summary.steps)),
            # Over all attempts, without the time in which workers start.
            "seconds_in_steps": round(sum(step["num_tokens"] / step["tokens_per_s"] for step in summary.steps), 3),
        }
        if summary.exported is not None:
            record.counts["exported"] = vars(summary.exported)


def _local(folder: Folder) -> str:
    """A folder on this machine: itself, or, for a remote one, a new one of the same name under the home directory."""
    path = Path(folder.path) if folder.is_local else Path.home() / "east-ray" / folder.path
    path.mkdir(parents=True, exist_ok=True)
    return str(path)


@contextmanager
def tracked(tracker: Tracker, name: str, folder: str, settings: Mapping[str, Any]) -> Iterator[Log]:
    """A function that logs a step's metrics while the block runs, and ignores a step that is already logged.

    `name` is the run's, `folder` a local one for the library's files; `settings` are logged if the library can do it.
    Each library reads its own environment variables (WANDB_MODE, MLFLOW_TRACKING_URI, …), so a configuration holds no
    address and no secret. Raises InputError if the library is not installed.
    """
    last = 0.0
    write: Callable[[int, dict[str, float]], Any]
    close: Callable[[], Any]
    if tracker == "tensorboard":
        _required("tensorboard", tracker)
        writer = _required("torch.utils.tensorboard", tracker).SummaryWriter(folder)

        def add(step: int, values: dict[str, float]) -> None:
            for key, value in values.items():
                writer.add_scalar(key, value, step)

        write, close = add, writer.close
    elif tracker == "wandb":
        # "create_new": this process may follow several trainings of a comparison at the same time
        run = _required("wandb", tracker).init(name=name, config=dict(settings), dir=folder, reinit="create_new")
        write, close = (lambda step, values: run.log(values, step=step)), run.finish
    elif tracker == "mlflow":
        mlflow = _required("mlflow", tracker)
        run_id = mlflow.start_run(run_name=name).info.run_id  # active in this thread only, so metrics name the run
        mlflow.log_params({key: str(value)[:250] for key, value in settings.items()})
        write, close = (lambda step, values: mlflow.log_metrics(values, step, run_id=run_id)), mlflow.end_run
    else:
        write, close = (lambda step, values: None), (lambda: None)

    def log(metrics: Mapping[str, float]) -> None:
        nonlocal last
        if metrics["step"] > last:  # a step that is repeated after a restart is already logged
            last = metrics["step"]
            write(
                int(last),
                {key: float(value) for key, value in metrics.items() if key not in ("step", "num_steps", "attention")},
            )

    try:
        yield log
    finally:
        close()


def _required(module: str, tracker: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        package = "mlflow-skinny" if tracker == "mlflow" else tracker
        raise InputError(f"training.tracker: {tracker} is not installed; `pip install {package}`") from None

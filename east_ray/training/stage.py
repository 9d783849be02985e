"""model/ of a round: its trainings, each followed while it runs."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from east_ray.config.files import flat
from east_ray.storage import Folder
from east_ray.storage.rounds import Learner, is_done, label
from east_ray.training import objectives
from east_ray.training.checkpoints import interrupted
from east_ray.training.dataset import Metrics, Training, TrainingSummary
from east_ray.training.group import train_models
from east_ray.training.tracking import tracked


def train(learners: Iterable[Learner], checkpoints: Folder, ended: Callable[[str], None] = lambda name: None) -> None:
    """``model/``: the model trained on ``examples/``; ``training.jsonl``: the metrics of each step; of each in turn.

    `ended` gets the name of each training when it ends. `checkpoints` is for these trainings alone, and is empty
    afterwards.
    """
    todo = [one for one in learners if not is_done(one.round, one.stages, "training", label(one, "training"))]
    if interrupted(checkpoints) not in {learner.name for learner in todo}:
        checkpoints.clear()
    events = train_models([_training(learner) for learner in todo], checkpoints)
    for learner in todo:
        _follow(learner, events)
        ended(learner.name)
    for _ in events:  # until the last group has ended
        pass
    checkpoints.clear()


def _training(learner: Learner) -> Training:
    return Training(
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


def _follow(learner: Learner, events: Iterator[Metrics | TrainingSummary]) -> None:
    """Record a training while it runs, until its summary."""
    stages, tracker = learner.stages, learner.settings.training.tracker
    tensorboard = _local(stages / "tensorboard") if tracker in ("tensorboard", "wandb") else ""
    title = f"{learner.name}, round {learner.round.number}"
    with (
        stages.recording("training") as record,
        learner.round.progress.stage(label(learner, "training"), None, "steps") as line,
        tracked(tracker, title, tensorboard, flat(learner.settings)) as log,
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
        # Written again, since a step that was repeated after a restart was written twice.
        stages.folder.write_text("training.jsonl", "".join(json.dumps(step) + "\n" for step in summary.steps))
        record.counts = {
            "examples": summary.num_examples,
            "too_long": summary.num_too_long,
            "zero_weight_skipped": summary.num_zero_weight,
            "num_tokens": int(sum(step["num_tokens"] for step in summary.steps)),
            # Over all attempts, without the time in which workers start.
            "seconds_in_steps": round(sum(step["num_tokens"] / step["tokens_per_s"] for step in summary.steps), 3),
        }


def _local(folder: Folder) -> str:
    """A folder on this machine: itself, or, for a remote one, a new one of the same name under the home directory."""
    path = Path(folder.path) if folder.is_local else Path.home() / "east-ray" / folder.path
    path.mkdir(parents=True, exist_ok=True)
    return str(path)

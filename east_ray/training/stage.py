"""model/ of a round: its trainings, each followed while it goes on."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from east_ray.config import TRAINED, Config
from east_ray.config.files import flat
from east_ray.report.terminal import model_card
from east_ray.storage import Folder, Stages
from east_ray.storage.rounds import Round, is_done
from east_ray.training.dataset import Training
from east_ray.training.group import TrainingSummary, interrupted, train_models
from east_ray.training.loop import Metrics
from east_ray.training.tracking import tracked

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
        write_card(round_, name, settings, stages, None)
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


def write_card(round_: Round, name: str, settings: Config, stages: Stages, metrics: Any) -> None:
    """The model's card, with its measured accuracy if there are `metrics`."""
    card = model_card(settings, stages, round_.number, name, round_.initial_model, metrics)
    (stages / "model").write_text("README.md", card)

"""Sends the metrics of a training to TensorBoard, Weights & Biases or MLflow, if the configuration asks for it.

Each library reads its own environment variables (WANDB_MODE, WANDB_PROJECT, MLFLOW_TRACKING_URI, …), so a
configuration holds no address and no secret.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from east_ray.config import InputError

Tracker = Literal["none", "tensorboard", "wandb", "mlflow"]
Log = Callable[[Mapping[str, float]], None]


@contextmanager
def tracked(tracker: Tracker, name: str, folder: str, settings: Mapping[str, Any]) -> Iterator[Log]:
    """A function that logs a step's metrics while the block runs, and ignores a step that is already logged.

    name: of the run; folder: a local one, for the library's files; settings: logged with the run if the library can do
    it. Raises InputError if the library is not installed.
    """
    last = 0.0
    write, close = _opened(tracker, name, folder, settings)

    def log(metrics: Mapping[str, float]) -> None:
        nonlocal last
        if metrics["step"] > last:  # a step that is repeated after a restart is already logged
            last = metrics["step"]
            write(int(last), {key: float(value) for key, value in metrics.items() if key not in ("step", "num_steps")})

    try:
        yield log
    finally:
        close()


def _opened(
    tracker: Tracker, name: str, folder: str, settings: Mapping[str, Any]
) -> tuple[Callable[[int, dict[str, float]], None], Callable[[], None]]:
    match tracker:
        case "none":
            return (lambda step, values: None), (lambda: None)
        case "tensorboard":
            _required("tensorboard", tracker)
            writer = _required("torch.utils.tensorboard", tracker).SummaryWriter(folder)

            def add(step: int, values: dict[str, float]) -> None:
                for key, value in values.items():
                    writer.add_scalar(key, value, step)

            return add, writer.close
        case "wandb":
            wandb = _required("wandb", tracker)
            # "create_new": this process may follow several trainings of a comparison at the same time
            run = wandb.init(name=name, config=dict(settings), dir=folder, reinit="create_new")
            return (lambda step, values: run.log(values, step=step)), run.finish
        case "mlflow":
            mlflow = _required("mlflow", tracker)
            run = mlflow.start_run(run_name=name)  # active in this thread only, so metrics name the run
            mlflow.log_params({key: str(value)[:250] for key, value in settings.items()})
            return (lambda step, values: mlflow.log_metrics(values, step, run_id=run.info.run_id)), mlflow.end_run


def _required(module: str, tracker: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        package = "mlflow-skinny" if tracker == "mlflow" else tracker
        raise InputError(f"training.tracker: {tracker} is not installed; `pip install {package}`") from None

"""Metrics reach TensorBoard, Weights & Biases (offline) and MLflow (a file store), each step once."""

import sys
import threading
import time
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from east_ray.config import InputError
from east_ray.training.stage import Tracker, tracked

STEPS = [{"step": step, "num_steps": 3, "loss": 1.0 / step, "epoch": 0} for step in (1, 2, 2, 3)]


def log_all(tracker: Tracker, folder: Path) -> None:
    with tracked(tracker, "trained, round 0", str(folder), {"seed": 1, "training.lora": None}) as log:
        for metrics in STEPS:  # as in a run: not in the thread that opened it
            thread = threading.Thread(target=log, args=(metrics,))
            thread.start()
            thread.join()


def test_tensorboard(tmp_path: Path) -> None:
    log_all("tensorboard", tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))
    ]  # fmt: skip


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/runs")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow

    log_all("mlflow", tmp_path)
    (run,) = mlflow.search_runs(output_format="list")
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert run.data.params["seed"] == "1"


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log_all("wandb", tmp_path)
    (file,) = tmp_path.rglob("*.wandb")
    ends = time.monotonic() + 60
    while b"loss" not in file.read_bytes():  # a metric's name; no setting has it. A process of wandb's own writes it.
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_a_run_of_wandb_gets_every_step_once_and_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[dict[str, Any]] = []
    logged: list[tuple[int, dict[str, float]]] = []
    finished: list[bool] = []

    def init(**keywords: Any) -> SimpleNamespace:
        opened.append(keywords)
        return SimpleNamespace(
            log=lambda values, step: logged.append((step, values)), finish=lambda: finished.append(True)
        )

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))  # type: ignore[arg-type]
    log_all("wandb", tmp_path)
    (run,) = opened
    assert (run["name"], run["dir"]) == ("trained, round 0", str(tmp_path))
    assert run["config"] == {"seed": 1, "training.lora": None}
    assert logged == [(step, {"loss": 1.0 / step, "epoch": 0.0}) for step in (1, 2, 3)]
    assert finished == [True]


def test_a_library_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"training.tracker: wandb is not installed; `pip install wandb`"):
        log_all("wandb", tmp_path)


def test_without_a_tracker_nothing_is_imported_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("wandb", "mlflow", "tensorboard", "torch.utils.tensorboard"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    asked: list[str] = []

    class Watching(MetaPathFinder):
        """Sees every import, by a statement or by importlib, before it is resolved."""

        def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
            asked.append(fullname)

    monkeypatch.setattr(sys, "meta_path", [Watching(), *sys.meta_path])
    log_all("none", tmp_path)
    assert asked == [] and list(tmp_path.iterdir()) == []

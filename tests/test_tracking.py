"""Metrics reach TensorBoard, Weights & Biases (offline) and MLflow (a file store), each step once."""

import builtins
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from east_ray.config import InputError
from east_ray.training.tracking import Tracker, tracked

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
    assert file.stat().st_size > 0


def test_a_library_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"training.tracker: wandb is not installed; `pip install wandb`"):
        log_all("wandb", tmp_path)


def test_without_a_tracker_nothing_is_imported_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []
    original = builtins.__import__

    def watched(name: str, *arguments: Any, **keywords: Any) -> Any:
        imported.append(name)
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", watched)
    log_all("none", tmp_path)
    assert not {"wandb", "mlflow", "tensorboard"} & set(imported) and list(tmp_path.iterdir()) == []

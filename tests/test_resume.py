"""Runs whose driver is killed with SIGKILL: the same command goes on, and ends as if nothing had happened."""

import json
from pathlib import Path
from typing import Any

import pytest
from killed_runs import finish, kill_once

from east_ray.storage import Folder, locate
from east_ray.training.checkpoints import complete_checkpoints


@pytest.mark.drill
def test_a_driver_killed_while_training_goes_on_from_its_checkpoint(quickstart: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    with (tmp_path / "samples.jsonl").open("w") as file:
        for i in range(21):
            texts = [
                f"{i}+{i}={value}. The answer is \\boxed{{{value}}}." for value in (2 * i, i + 7, i + 7, 2 * i + 1)
            ]
            row = {"question": f"Tom has {i} pens and gets {i} more. How many has he?", "reference_answer": str(2 * i)}
            file.write(json.dumps(row | {"responses": texts}) + "\n")
    (tmp_path / "job.yaml").write_text(
        json.dumps(
            {
                "model": str(quickstart / "model"),
                "samples": {"path": str(tmp_path / "samples.jsonl")},
                "cluster": {"address": "local", "num_cpus": 4},
                "training": {
                    "objective": "dpo", "num_workers": 2, "num_cpus_per_worker": 1, "precision": "float32",
                    "num_gpus_per_worker": 0, "examples_per_step": 8, "epochs": 5, "learning_rate": 1e-4,
                    "checkpoint_every_steps": 1, "deepspeed": {"zero_stage": 3},
                },
            }
        )
    )  # fmt: skip

    def arguments(name: str) -> list[str]:
        return ["run", str(tmp_path / "job.yaml"), f"run_dir={tmp_path / name}"]

    def checkpoints() -> list[Path]:
        return sorted((tmp_path / "killed" / "round_0" / "checkpoints").glob("group/checkpoint_*"))

    group = Folder(*locate(str(tmp_path / "killed/round_0/checkpoints/group")))
    for _ in range(3):  # until Ray Train was not just writing its list of checkpoints, without which none counts
        # Without the list, what the attempt before has left would count, and this one be killed before it begins.
        kill_once(arguments("killed"), lambda: len(checkpoints()) > 1 and bool(complete_checkpoints(group)))
        if complete_checkpoints(group):
            break
    reference = list((tmp_path / "killed" / "round_0" / "reference").glob("*/*.parquet"))
    written = [part.stat().st_mtime_ns for part in reference]
    saved = [folder / "progress.json" for folder in checkpoints()]
    before = max((json.loads(file.read_text())["history"] for file in saved if file.exists()), key=len)
    assert 1 <= len(before) < 15

    finish(arguments("killed"))
    finish(arguments("whole"))
    logs: dict[str, list[dict[str, Any]]] = {
        name: [json.loads(line) for line in (tmp_path / name / "round_0" / "training.jsonl").read_text().splitlines()]
        for name in ("killed", "whole")
    }
    assert [step["step"] for step in logs["killed"]] == list(range(1, 16))
    assert logs["killed"][0]["tokens_per_s"] == before[0]["tokens_per_s"], "the first step was done again"
    parts = list((tmp_path / "killed" / "round_0" / "reference").glob("*/*.parquet"))
    assert sorted(parts) == sorted(reference), "the reference log-probabilities were computed again"
    assert [part.stat().st_mtime_ns for part in reference] == written
    for one, two in zip(logs["killed"], logs["whole"], strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-6)
    one, two = (load_file(tmp_path / name / "round_0" / "model" / "model.safetensors") for name in ("killed", "whole"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-7)

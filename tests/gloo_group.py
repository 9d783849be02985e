"""Trainings in a plain torch.distributed group of processes, without Ray: `train_in_processes` starts it.

Each process runs the same list of trainings, one after the other, and every training writes its checkpoint after some
step, the metrics of its steps, and its model.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clusters import free_port

from east_ray.config import TrainingConfig
from east_ray.storage import Folder, locate

NUM_EXAMPLES, PER_STEP, EPOCHS = 22, 8, 2


def train_in_processes(num_workers: int, model: Path, trainings: Sequence[Mapping[str, Any]]) -> None:
    """Run trainings: `folder` of each, its `settings`, and the folder `restored` that it goes on from, if any."""
    port, begun = str(free_port()), []
    for rank in range(num_workers):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_workers)}
        fixed = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, str(model), json.dumps(trainings)]
        begun.append(
            subprocess.Popen(
                command, env=os.environ | place | fixed, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
    try:
        for process in begun:
            out, _ = process.communicate(timeout=600)
            assert process.returncode == 0, out
    finally:
        for process in begun:
            process.kill()


def rows() -> list[dict[str, Any]]:
    """TOKENIZED rows of random tokens, of unequal lengths and weights."""
    random_ = random.Random(5)

    def tokens() -> list[int]:
        return [random_.randrange(5, 400) for _ in range(random_.randrange(3, 20))]

    examples = [
        {"question_id": f"q{number}", "weight": 0.5 * (number % 4), "prompt": tokens(), "chosen": tokens(),
         "rejected": tokens(), "mismatched": None}
        for number in range(NUM_EXAMPLES)
    ]  # fmt: skip
    return [{"epoch": epoch, **row} for epoch in range(EPOCHS) for row in examples]


def _train(model: str, training: Mapping[str, Any]) -> None:
    from east_ray.training import objectives
    from east_ray.training.loop import train

    folder, steps = Path(training["folder"]), list[Any]()
    settings = TrainingConfig.model_validate({"epochs": EPOCHS, "examples_per_step": PER_STEP} | training["settings"])

    def save(step: int, write: Any) -> None:
        if training.get("restored") is None:
            (folder / f"checkpoint_{step}").mkdir(parents=True, exist_ok=True)
            write(f"{folder}/checkpoint_{step}")

    export = train(
        settings, objectives.load(settings), model, rows, NUM_EXAMPLES, steps.append, save, training.get("restored"),
        references=Folder(*locate(str(folder / "reference"))),
    )  # fmt: skip
    export(str(folder / "model"))
    if os.environ["RANK"] == "0":
        (folder / "steps.json").write_text(json.dumps(steps))


if __name__ == "__main__":
    import torch.distributed

    torch.distributed.init_process_group("gloo")
    for one in json.loads(sys.argv[2]):
        _train(sys.argv[1], one)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()

r"""Estimates of `east-ray plan` beside what training takes: ``python tests/benchmarks/plan.py``.

On this machine's CPU: random Llama-shaped models of about 30, 100 and 300 million parameters under ZeRO 0 to 3. Each
case is a group of two processes (gloo) that call `east_ray.training.loop.train`; measured is `memory_gib` of its
metrics, the peak of worker 0. On a GPU, tests/benchmarks/training.py tells the same ratio.

The last line is a JSON object: estimate over measured of each case, and the largest deviation of all.
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES: dict[str, dict[str, int]] = {
    "30M": {"vocab_size": 16384, "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 10,
            "num_attention_heads": 6, "num_key_value_heads": 2},
    "100M": {"vocab_size": 32768, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8,
             "num_attention_heads": 12, "num_key_value_heads": 4},
    "300M": {"vocab_size": 65536, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 14,
             "num_attention_heads": 16, "num_key_value_heads": 4},
}  # fmt: skip
#: Name -> size, ZeRO stage, workers, precision, checkpoints.
CASES: dict[str, tuple[str, int, int, str, bool]] = {
    **{f"{size}-zero{stage}": (size, stage, 2, "float32", False) for size in ("30M", "100M") for stage in range(4)},
    **{f"{size}-zero{stage}-bf16": (size, stage, 2, "bf16", False) for size in ("30M", "100M") for stage in (1, 2, 3)},
    "100M-zero2-checkpoints": ("100M", 2, 2, "float32", True),
    "300M-zero0-alone": ("300M", 0, 1, "float32", False),
    "300M-zero2-bf16": ("300M", 2, 2, "bf16", False),
    "300M-zero3-bf16": ("300M", 3, 2, "bf16", False),
}
#: Two steps of two micro-batches on each worker: Adam's state is there, and gradients add up.
LENGTH, MICRO_BATCH, STEPS = 256, 2, 2


def settings_of(case: str) -> dict[str, Any]:
    _, stage, workers, precision, checkpoints = CASES[case]
    return {
        "epochs": 1, "examples_per_step": 2 * MICRO_BATCH * workers, "micro_batch_size": MICRO_BATCH,
        "max_length": LENGTH, "precision": precision, "gradient_checkpointing": checkpoints, "num_workers": workers,
        "deepspeed": {"zero_stage": stage},
    }  # fmt: skip


def make_model(size: str, precision: str, folder: str) -> None:
    """A folder with a random model; in a process of its own, because this one must stay small."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    config = LlamaConfig(**SIZES[size], max_position_embeddings=16384)
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)


def work(case: str, folder: str, result: str) -> None:
    """One worker of a case, with torch.distributed's environment variables; rank 0 writes its peak to `result`."""
    import torch.distributed

    from east_ray.config import TrainingConfig
    from east_ray.training import objectives
    from east_ray.training.loop import train

    torch.distributed.init_process_group("gloo")
    settings = TrainingConfig.model_validate(settings_of(case))
    rng, vocabulary = random.Random(0), SIZES[CASES[case][0]]["vocab_size"]
    count, half = STEPS * settings.examples_per_step, LENGTH // 2
    rows = [
        {
            "question_id": str(i), "epoch": 0, "weight": 1.0, "rejected": None,
            "prompt": [rng.randrange(3, vocabulary) for _ in range(half)],
            "chosen": [rng.randrange(3, vocabulary) for _ in range(LENGTH - half)],
        }
        for i in range(count)
    ]  # fmt: skip
    log: list[dict[str, float]] = []
    train(settings, objectives.load(settings), folder, lambda: rows, count, log.append, lambda step, write: None)
    if torch.distributed.get_rank() == 0:
        Path(result).write_text(json.dumps(max(step["memory_gib"] for step in log)))


def measured_gib(case: str, scratch: str) -> float:
    """The peak of worker 0, in GiB. Raises CalledProcessError if a worker fails."""
    size, _, workers, precision, _ = CASES[case]
    folder, result = f"{scratch}/{size}-{precision}", f"{scratch}/{case}.json"
    this = [sys.executable, __file__]
    if not Path(folder).exists():
        subprocess.run([*this, "--make", size, precision, folder], check=True, stderr=subprocess.DEVNULL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(workers), "LOCAL_RANK": "0"}
    shared |= {
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    command = [*this, "--work", case, folder, result]
    with tempfile.TemporaryFile("w+") as said:
        group = [
            subprocess.Popen(command, env=os.environ | shared | {"RANK": str(rank)}, stdout=said, stderr=said)
            for rank in range(workers)
        ]
        codes = [process.wait() for process in group]
        if any(codes):
            said.seek(0)
            raise RuntimeError(f"{case}: {said.read()[-2000:]}")
    return float(json.loads(Path(result).read_text()))


def estimated_gib(case: str, folder: str) -> float:
    """What `east-ray plan` says of the same case."""
    from east_ray.config import TrainingConfig
    from east_ray.plan.estimate import memory_of
    from east_ray.plan.model_size import model_size

    settings = TrainingConfig.model_validate(settings_of(case))
    size = model_size(folder, may_download=False)
    return memory_of(size, settings, length=LENGTH, predicted=LENGTH // 2, gpu_memory=None).peak / 2**30


def on_cpu(names: list[str]) -> dict[str, float]:
    """Estimate over measured of each case."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="east-ray-plan-") as scratch:
        for case in names:
            begin = time.monotonic()
            measured = measured_gib(case, scratch)
            estimated = estimated_gib(case, f"{scratch}/{CASES[case][0]}-{CASES[case][3]}")
            found[case] = estimated / measured
            print(
                f"{case:<24} measured {measured:6.2f} GiB, estimated {estimated:6.2f}, ratio {found[case]:.2f}, "
                f"{time.monotonic() - begin:.0f} s",
                flush=True,
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; by default all")
    parser.add_argument("--make", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make_model(*options.make)
    elif options.work:
        work(*options.work)
    else:
        if unknown := set(options.cases) - set(CASES):
            parser.error(f"no case is called {unknown.pop()}")
        ratios = on_cpu(options.cases or list(CASES))
        worst = max(abs(ratio - 1) for ratio in ratios.values())
        print(json.dumps({"estimate_over_measured": ratios, "largest_deviation": worst}))


if __name__ == "__main__":
    main()

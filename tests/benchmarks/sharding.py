r"""Peak memory of one of two workers with ZeRO-2 and ZeRO-3 on the CPU: ``python tests/benchmarks/sharding.py``.

A model of 234 million parameters (random weights, bf16) trains on short examples, so almost all memory is that of
parameters, gradients, optimizer and buckets. What the imports need is subtracted. Beside our bucket sizes it measures
DeepSpeed's defaults, and what the parts need at least: bf16 parameters, float32 gradients, parameters and two moments,
as far as the stage shards them. The last line is a JSON object, in GiB.
"""

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gloo_group import NUM_EXAMPLES, PER_STEP, rows, run_group

NUM_WORKERS = 2
LARGE: dict[str, Any] = {"reduce_bucket_size": 500_000_000, "allgather_bucket_size": 500_000_000,
                         "sub_group_size": 1_000_000_000, "prefetch_bucket_size": 50_000_000,
                         "max_live_parameters": 1_000_000_000, "max_reuse_distance": 1_000_000_000}  # fmt: skip


def make_model(folder: str) -> int:
    """Write the model; returns the number of its parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=32_000, hidden_size=1024, intermediate_size=4096, num_hidden_layers=12,
                         num_attention_heads=16, tie_word_embeddings=True)  # fmt: skip
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def memory(kind: str) -> float:
    """GiB of this process: VmRSS, or the peak VmHWM."""
    found = re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 2**20


def work(model: str, zero_stage: int, extra: dict[str, Any]) -> None:
    """Train for an epoch as one worker, and print the peak of memory in its steps on rank 0."""
    import torch
    import transformers  # noqa: F401 - imported here, so that it is not measured

    from east_ray.config import TrainingConfig
    from east_ray.training import objectives
    from east_ray.training.loop import train

    torch.distributed.init_process_group("gloo")
    imports, peaks = memory("VmRSS"), list[float]()

    def measure(metrics: Any) -> None:
        peaks.append(memory("VmHWM") - imports)
        Path("/proc/self/clear_refs").write_text("5")  # the next step's peak counts from here

    settings = TrainingConfig.model_validate(
        {"epochs": 1, "examples_per_step": PER_STEP, "deepspeed": {"zero_stage": zero_stage, "extra": extra}}
    )
    train(settings, objectives.load(settings), model, rows, NUM_EXAMPLES, measure, lambda *arguments: None)
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        print(json.dumps({"first": peaks[0], "later": max(peaks[1:])}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    if (worker := parser.parse_args().worker) is not None:
        work(worker[0], int(worker[1]), json.loads(worker[2]))
        return
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        count = make_model(folder)
        for stage in (2, 3):
            bytes_needed = count * ((2 if stage == 2 else 2 / NUM_WORKERS) + 4 * 4 / NUM_WORKERS)
            figures[f"zero_{stage}_needed"] = bytes_needed / 2**30
            for name, extra in (("ours", {}), ("deepspeed", {"zero_optimization": LARGE})):
                output = run_group(NUM_WORKERS, __file__, "--worker", folder, str(stage), json.dumps(extra))
                figures[f"zero_{stage}_{name}"] = json.loads(output.splitlines()[-1])
    print(json.dumps({"parameters": count, **figures}))


if __name__ == "__main__":
    main()

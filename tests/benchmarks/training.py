r"""Tokens per second of the training loop compared with padding and with TRL: ``python tests/benchmarks/training.py``.

All have the same model (random weights) and the same examples, with the lengths of GSM8K's questions and solutions if
``../shared/data/gsm8k`` is present (four characters per token), else with random lengths. Only responses have a loss.

    ours      `east_ray.training.train`, sequences packed end to end, DeepSpeed in this one process, without Ray
    padded    a plain torch loop with every row padded to the maximum length
    trl       TRL's SFTTrainer with packing if it is installed, else null

Tokens are those of prompts and responses without padding. On a GPU the model has about 1.2 billion parameters in bf16,
and mfu is 6 * parameters * tokens/s / --peak-flops (the recomputation of the head's logits is not counted).
The last line is a JSON object.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from balance import slowest_over_mean
from rich.console import Console
from rich.table import Table
from torch.nn import functional
from transformers import AutoModelForCausalLM, LlamaConfig

from east_ray.config import TrainingConfig
from east_ray.training import objectives
from east_ray.training.loop import train

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "gsm8k" / "train.jsonl"
SMALL = {"vocab_size": 4096, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4,
         "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
BILLION = {"vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
           "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True}  # fmt: skip
Example = dict[str, Any]


def make_examples(count: int, vocabulary: int, seed: int) -> list[Example]:
    """Rows in the form that the loop reads: random tokens with the lengths of GSM8K."""
    rng = random.Random(seed)
    if DATA.exists():
        texts = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
        lengths = [(len(one["question"]) // 4 + 1, len(one["answer"]) // 4 + 1) for one in rng.sample(texts, count)]
    else:
        lengths = [(int(rng.lognormvariate(3.9, 0.4)) + 1, int(rng.lognormvariate(4.1, 0.5)) + 1) for _ in range(count)]

    def tokens(number: int) -> list[int]:
        return [rng.randrange(3, vocabulary) for _ in range(number)]

    return [
        {"question_id": str(i), "epoch": 0, "weight": 1.0, "prompt": tokens(p), "chosen": tokens(r), "rejected": None}
        for i, (p, r) in enumerate(lengths)
    ]


def num_tokens(examples: list[Example]) -> int:
    return sum(len(row["prompt"]) + len(row["chosen"]) for row in examples)


def ours(path: str, examples: list[Example], settings: TrainingConfig) -> tuple[float, float, float]:
    """Tokens/s after the first two steps, share of padding, and peak memory in GiB."""
    log: list[dict[str, float]] = []
    train(
        settings, objectives.load(settings), path, lambda: examples, len(examples), log.append, lambda step, write: None
    )
    timed = log[2:]
    seconds = sum(step["num_tokens"] / step["tokens_per_s"] for step in timed)
    return (sum(step["num_tokens"] for step in timed) / seconds, log[-1]["padding_share"], log[-1]["memory_gib"])


def padded(path: str, examples: list[Example], settings: TrainingConfig, device: str) -> float:
    """Tokens/s after the first two steps of a loop that pads every row to settings.max_length."""
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)

    def batches(step: list[Example]) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        for begin in range(0, len(step), settings.micro_batch_size):
            rows = step[begin : begin + settings.micro_batch_size]
            ids = torch.zeros((len(rows), settings.max_length), dtype=torch.long)
            labels = torch.full_like(ids, -100)
            for row, one in enumerate(rows):
                end = len(one["prompt"]) + len(one["chosen"])
                ids[row, :end] = torch.tensor(one["prompt"] + one["chosen"])
                labels[row, len(one["prompt"]) : end] = torch.tensor(one["chosen"])
            yield ids.to(device), (ids > 0).long().to(device), labels.to(device)

    tokens, seconds = 0, 0.0
    for index in range(0, len(examples), settings.examples_per_step):
        step = examples[index : index + settings.examples_per_step]
        begin = time.perf_counter()
        for ids, mask, labels in batches(step):
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
            functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        if index >= 2 * settings.examples_per_step:
            tokens += num_tokens(step)
            seconds += time.perf_counter() - begin
    return tokens / seconds


def trl_packed(path: str, examples: list[Example], settings: TrainingConfig, device: str) -> float | None:
    """Tokens/s of TRL's SFTTrainer with packing, its first two steps not counted; None if it is not installed."""
    try:
        from datasets import Dataset
        from transformers import AutoTokenizer, TrainerCallback
        from trl import SFTConfig, SFTTrainer
    except ImportError:
        return None
    tokenizer = AutoTokenizer.from_pretrained(Path(__file__).resolve().parents[2] / "jobs" / "quickstart" / "model")
    rows = [
        {
            "input_ids": row["prompt"] + row["chosen"],
            "completion_mask": [0] * len(row["prompt"]) + [1] * len(row["chosen"]),
        }
        for row in examples
    ]
    rows_per_step = max(
        1, round(settings.examples_per_step * num_tokens(examples) / len(examples) / settings.max_length)
    )
    marks: list[tuple[float, float]] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            marks.append((time.perf_counter(), state.epoch))

    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.bfloat16 if settings.precision == "bf16" else torch.float32
            ),
            args=SFTConfig(
                output_dir=folder, per_device_train_batch_size=rows_per_step, max_length=settings.max_length,
                packing=True, num_train_epochs=1, learning_rate=settings.learning_rate, logging_strategy="no",
                save_strategy="no", report_to=[], bf16=settings.precision == "bf16" and device == "cuda",
                use_cpu=device == "cpu", disable_tqdm=True, gradient_checkpointing=False,
                completion_only_loss=True,
            ),
            train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[Clock()],
        )  # fmt: skip
        trainer.train()
    (began, first), (ended, last) = marks[1], marks[-1]
    return num_tokens(examples) * (last - first) / (ended - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=256)
    parser.add_argument("--examples-per-step", type=int, default=16)
    parser.add_argument("--micro-batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument(
        "--peak-flops", type=float, default=989e12, help="of the GPU in bf16, dense; H100 and H200: 989e12"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = BILLION if device == "cuda" else SMALL
    settings = TrainingConfig(
        epochs=1, examples_per_step=options.examples_per_step, micro_batch_size=options.micro_batch_size,
        max_length=options.max_length, precision="bf16" if device == "cuda" else "float32", learning_rate=1e-5,
    )  # fmt: skip
    settings = settings.model_copy(update={"deepspeed": settings.deepspeed.model_copy(update={"zero_stage": 0})})
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29517"), ("RANK", "0"), ("WORLD_SIZE", "1"),
                        ("LOCAL_RANK", "0")):  # fmt: skip
        os.environ.setdefault(name, value)
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    examples = make_examples(options.examples, int(shape["vocab_size"]), options.seed)
    with tempfile.TemporaryDirectory(prefix="east-ray-training-") as path:
        torch.manual_seed(options.seed)
        model = AutoModelForCausalLM.from_config(LlamaConfig(**shape, max_position_embeddings=options.max_length))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        model.save_pretrained(path)
        del model
        ours_per_s, padding_share, memory_gib = ours(path, examples, settings)
        padded_per_s = padded(path, examples, settings, device)
        trl_per_s = trl_packed(path, examples, settings, device)
    torch.distributed.destroy_process_group()

    length = num_tokens(examples) / len(examples)
    table = Table(
        title=f"{parameters / 1e6:,.0f}M parameters, {length:.0f} tokens an example, {device}", title_justify="left"
    )
    for column in ("", "tokens/s", "ours over it"):
        table.add_column(column, justify="left" if not column else "right")
    shown = {"ours": ours_per_s, f"every row padded to {options.max_length}": padded_per_s, "TRL, packed": trl_per_s}
    for name, value in shown.items():
        table.add_row(
            name,
            "not installed" if value is None else f"{value:,.0f}",
            "" if value is None else f"{ours_per_s / value:.2f}",
        )
    Console().print(table)
    result = {
        "ours_over_padded": ours_per_s / padded_per_s,
        "ours_over_trl_packed": None if trl_per_s is None else ours_per_s / trl_per_s,
        "padding_share": padding_share,
        "mfu": 6 * parameters * ours_per_s / options.peak_flops if device == "cuda" else None,
        "tokens_per_s": ours_per_s,
        "peak_memory_gib": memory_gib,
        "slowest_over_mean": slowest_over_mean(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

r"""Tokens per second of the training loop compared with padding and with TRL: ``python tests/benchmarks/training.py``.

All have the same model (random weights) and the same examples, with the lengths of GSM8K's questions and solutions if
``../shared/data/gsm8k`` is present (four characters per token), else with random lengths. Only responses have a loss.

    ours      `east_ray.training.train`, sequences packed end to end, DeepSpeed in this one process, without Ray
    padded    a plain torch loop with every row padded to the maximum length
    trl       TRL's SFTTrainer with packing if it is installed, else null

Tokens are those of prompts and responses without padding. On a GPU the model has about 1.2 billion parameters in bf16,
and mfu is 6 * parameters * tokens/s / --peak-flops, mfu_with_attention with attention's operations besides (see
`east_ray.plan.duration`). It runs where there are torch, transformers and this package's small dependencies (pydantic,
pyarrow, pyyaml, rich); without DeepSpeed with a plain optimizer. The last line is a JSON object.

    python tests/benchmarks/training.py                                          the 1.2B model, GSM8K's lengths
    python tests/benchmarks/training.py --length 8192 --examples-per-step 16
    python tests/benchmarks/training.py --size 8b --setting "lora={rank: 16}" --setting gradient_checkpointing=true
"""

import argparse
import importlib.util
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
import yaml
from balance import slowest_over_mean
from rich.console import Console
from rich.table import Table
from torch.nn import functional
from transformers import AutoModelForCausalLM, LlamaConfig

from east_ray.config import TrainingConfig
from east_ray.plan import duration
from east_ray.plan.estimate import memory_of
from east_ray.plan.memory import GPU_BASE
from east_ray.plan.model_size import model_size
from east_ray.training import attention, loop, objectives
from east_ray.training.loop import train
from east_ray.training.model import compile_layers, is_compiled, load_model

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "gsm8k" / "train.jsonl"
SMALL = {"vocab_size": 4096, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4,
         "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
BILLION = {"vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
           "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True}  # fmt: skip
EIGHT_BILLION = {"vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                 "num_attention_heads": 32, "num_key_value_heads": 8}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {"small": SMALL, "1b": BILLION, "8b": EIGHT_BILLION}
Example = dict[str, Any]


def make_examples(count: int, vocabulary: int, options: argparse.Namespace) -> list[Example]:
    """Rows in the form that the loop reads: random tokens with the lengths of GSM8K, or with one length."""
    rng = random.Random(options.seed)
    if options.length:
        lengths = [(options.length // 8, options.length - options.length // 8)] * count
    elif options.data.exists():
        texts = [json.loads(line) for line in options.data.read_text(encoding="utf-8").splitlines()]
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


class PlainEngine:
    """What the loop needs of a DeepSpeed engine, for a machine without DeepSpeed: one process, torch's fused AdamW on
    float32 copies of the parameters, gradients added up in float32.
    """

    def __init__(self, model: Any, settings: TrainingConfig) -> None:
        self.module, self.device = model.to("cuda" if torch.cuda.is_available() else "cpu"), None
        self.device = next(model.parameters()).device
        self._settings = settings
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._masters = [p.detach().float().clone() for p in self._trained]
        for master in self._masters:
            master.grad = torch.zeros_like(master)
        fused = {"fused": True} if self.device.type == "cuda" else {}
        self.optimizer = torch.optim.AdamW(self._masters, lr=settings.learning_rate, **fused)
        self._norm = torch.zeros(())

    def __call__(self, **inputs: Any) -> Any:
        return self.module(**inputs)

    def train(self) -> None:
        self.module.train()

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None:
        """Nothing to know: `step` is called at the boundary only."""

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()
        given = [(m.grad, p.grad) for m, p in zip(self._masters, self._trained, strict=True) if p.grad is not None]
        torch._foreach_add_([total for total, _ in given], [grad.float() for _, grad in given])
        for parameter in self._trained:
            parameter.grad = None

    def step(self) -> None:
        self._norm = torch.nn.utils.clip_grad_norm_(self._masters, self._settings.max_grad_norm)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(self._trained, self._masters)
        torch._foreach_zero_([master.grad for master in self._masters])

    def get_global_grad_norm(self) -> float:
        return float(self._norm)


def plain_engine(settings: TrainingConfig, path: str, seed: int, world_size: int) -> PlainEngine:
    """As the loop's own, without DeepSpeed."""
    model = load_model(settings, path, seed)
    model.config.use_cache = False
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if is_compiled(settings, on_gpu=torch.cuda.is_available()):
        compile_layers(model)
    return PlainEngine(model, settings)


def ours(path: str, examples: list[Example], settings: TrainingConfig, profiler: Any = None) -> dict[str, float]:
    """Tokens/s after the first three steps (kernels are compiled in them), padding, peak memory in GiB."""
    log: list[dict[str, Any]] = []

    def report(step: dict[str, Any]) -> None:
        log.append(step)
        if profiler is not None and len(log) in (4, 5):
            (profiler.start if len(log) == 4 else profiler.stop)()

    train(settings, objectives.load(settings), path, lambda: examples, len(examples), report, lambda step, write: None)
    if profiler is not None:
        print(profiler.key_averages().table(sort_by="self_device_time_total", row_limit=45, max_name_column_width=90))
        log = log[:4] + log[5:]  # the profiled step took longer
    timed = log[3:]
    seconds = sum(step["num_tokens"] / step["tokens_per_s"] for step in timed)
    return {
        "tokens_per_s": sum(step["num_tokens"] for step in timed) / seconds,
        "padding_share": log[-1]["padding_share"],
        "peak_memory_gib": log[-1]["memory_gib"],
        "first_step_s": log[0]["num_tokens"] / log[0]["tokens_per_s"],
    }


def padded(path: str, examples: list[Example], settings: TrainingConfig, device: str) -> float:
    """Tokens/s after the first two steps of a loop that pads every row to settings.max_length."""
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)

    size = max(1, (settings.tokens_per_micro_batch or settings.max_length) // settings.max_length)

    def batches(step: list[Example]) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        for begin in range(0, len(step), size):
            rows = step[begin : begin + size]
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
    at_once = min(rows_per_step, max(1, (settings.tokens_per_micro_batch or 0) // settings.max_length))
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
                output_dir=folder, per_device_train_batch_size=at_once,
                gradient_accumulation_steps=max(1, rows_per_step // at_once), max_length=settings.max_length,
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


def planned_gib(path: str, examples: list[Example], settings: TrainingConfig) -> float:
    """What `east-ray plan` says of the peak of this training. The CUDA context is not in the measured peak."""
    memory = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
    length, predicted = (num / len(examples) for num in (num_tokens(examples), sum(len(e["chosen"]) for e in examples)))
    size = model_size(path, may_download=False)
    planned = memory_of(size, settings, length=length, predicted=predicted, gpu_memory=memory)
    return (planned.peak - (0 if memory is None else GPU_BASE)) / 2**30


def mean_context(examples: list[Example]) -> float:
    """Length of the sequence that a token is in, averaged over tokens."""
    lengths = [len(row["prompt"]) + len(row["chosen"]) for row in examples]
    return sum(n * n for n in lengths) / sum(lengths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SHAPES, help="default: 1b on a GPU, else small")
    parser.add_argument("--examples", type=int, help="default: 8 steps of them on a GPU, else 256")
    parser.add_argument("--examples-per-step", type=int, help="default: 512 on a GPU, else 16")
    parser.add_argument("--tokens-per-micro-batch", type=int, default=16_384 if torch.cuda.is_available() else 2048)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--length", type=int, help="tokens of each example, in place of GSM8K's")
    parser.add_argument("--setting", action="append", default=[], help="of training, e.g. compile=false; repeatable")
    parser.add_argument("--peers", nargs="*", choices=["padded", "trl"], default=["padded", "trl"])
    parser.add_argument("--profile", action="store_true", help="print which kernels the fifth step spends its time in")
    parser.add_argument("--attention-loop", action="store_true", help="attention without the kernel for all sequences")
    parser.add_argument("--no-deepspeed", action="store_true", help="as on a machine without it")
    parser.add_argument(
        "--peak-flops", type=float, default=989e12, help="of the GPU in bf16, dense; default: H100, H200"
    )
    parser.add_argument("--data", type=Path, default=DATA, help="GSM8K's train.jsonl, for the lengths")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    per_step = options.examples_per_step or (512 if on_gpu else 16)
    max_length = max(options.max_length, options.length or 0)
    given = dict(entry.split("=", 1) for entry in options.setting)
    settings = TrainingConfig.model_validate(
        {
            "epochs": 1, "examples_per_step": per_step,
            "tokens_per_micro_batch": options.tokens_per_micro_batch,
            "max_length": max_length, "precision": "bf16" if on_gpu else "float32", "learning_rate": 1e-5,
            "deepspeed": {"zero_stage": 0},
        }
        | {name: yaml.safe_load(value) for name, value in given.items()}
    )  # fmt: skip
    if options.attention_loop:
        attention.varlen_attn = None
    has_deepspeed = importlib.util.find_spec("deepspeed") is not None and not options.no_deepspeed
    if not has_deepspeed:
        loop.make_engine = plain_engine
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29517"), ("RANK", "0"), ("WORLD_SIZE", "1"),
                        ("LOCAL_RANK", "0")):  # fmt: skip
        os.environ.setdefault(name, value)
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
    shape = SHAPES[options.size or ("1b" if on_gpu else "small")]
    examples = make_examples(options.examples or (8 * per_step if on_gpu else 256), int(shape["vocab_size"]), options)
    with tempfile.TemporaryDirectory(prefix="east-ray-training-") as path:
        torch.manual_seed(options.seed)
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(
                LlamaConfig(**shape, max_position_embeddings=max_length),
                dtype=torch.bfloat16 if on_gpu else torch.float32,
            )
        parameters = sum(parameter.numel() for parameter in model.parameters())
        model.save_pretrained(path)
        del model
        estimated_gib, size = planned_gib(path, examples, settings), model_size(path, may_download=False)
        found = ours(path, examples, settings, torch.profiler.profile() if options.profile else None)
        print(json.dumps(found), flush=True)  # the peers may take longer than one waits
        peers = {}
        if "padded" in options.peers:
            peers["padded"] = padded(path, examples, settings, device)
        if "trl" in options.peers:
            peers["trl"] = trl_packed(path, examples, settings, device)
    torch.distributed.destroy_process_group()

    speed = found["tokens_per_s"]
    table = Table(
        title=f"{parameters / 1e6:,.0f}M parameters, {num_tokens(examples) / len(examples):.0f} tokens an example, "
        f"{torch.cuda.get_device_name() if on_gpu else 'CPU'}",
        title_justify="left",
    )
    for column in ("", "tokens/s", "ours over it"):
        table.add_column(column, justify="left" if not column else "right")
    titles = {"padded": f"every row padded to {max_length}", "trl": "TRL, packed"}
    for name, value in {"ours": speed, **{titles[name]: value for name, value in peers.items()}}.items():
        shown = ("not installed", "") if value is None else (f"{value:,.0f}", f"{speed / value:.2f}")
        table.add_row(name, *shown)
    Console().print(table)
    modules = ["torch", "transformers", *(["deepspeed"] if has_deepspeed else [])]
    versions = {name: importlib.import_module(name).__version__ for name in modules}
    result = {
        "ours_over_padded": speed / peers["padded"] if peers.get("padded") else None,
        "ours_over_trl_packed": speed / peers["trl"] if peers.get("trl") else None,
        **found,
        "estimated_over_measured_memory": estimated_gib / found["peak_memory_gib"],
        **{
            name: duration.mfu(size, length, tokens_per_s=speed, peak_flops=options.peak_flops) if on_gpu else None
            for name, length in {"mfu": 0.0, "mfu_with_attention": mean_context(examples)}.items()
        },
        **slowest_over_mean(),
        "versions": versions,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

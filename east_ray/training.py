"""Weighted examples -> a better model: the loop of one worker with its DeepSpeed engine, and the group of workers.

The loop itself (`train`) is a plain function of settings, an iterator of tokenized examples and two callbacks; Ray
appears at the bottom only. Every worker reads the same stream of examples and takes its own share of each global step.
So the steps, their denominators and their order are the same for any number of workers, any micro-batch size and
after any restart: they follow from the seed alone.
"""

import contextlib
import hashlib
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from east_ray import losses
from east_ray.batches import TOKENIZED, Row, micro_batches, steps, tokenize_example
from east_ray.config import InputError, PromptConfig, TrainingConfig
from east_ray.questions import load_tokenizer
from east_ray.records import EXAMPLES
from east_ray.storage import Folder, local_copy

if TYPE_CHECKING:
    import ray.data
    import torch
    from transformers import PreTrainedTokenizerBase

Metrics = dict[str, float]


def learning_rate(settings: TrainingConfig, step: int, num_steps: int) -> float:
    """Learning rate of a step, counted from 0: linear warm-up from 0, then the schedule's decay towards 0."""
    warmup = math.ceil(settings.warmup_ratio * num_steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    match settings.schedule:
        case "cosine":
            return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            return settings.learning_rate * (1 - progress)
        case "constant":
            return settings.learning_rate


def deepspeed_config(settings: TrainingConfig, world_size: int) -> dict[str, Any]:
    """The DeepSpeed configuration of these settings.

    DeepSpeed counts one micro-batch as one step here: the loop holds the engine's accumulation boundary itself and
    divides by the denominators of the global step, so DeepSpeed has nothing left to average over but the workers.
    """
    zero: dict[str, Any] = {"stage": settings.deepspeed.zero_stage}
    if settings.deepspeed.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    if settings.deepspeed.offload_parameters:
        zero["offload_param"] = {"device": "cpu"}
    return {
        "train_batch_size": world_size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.max_grad_norm,
        "bf16": {"enabled": settings.precision == "bf16"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": settings.learning_rate, "weight_decay": settings.weight_decay, "torch_adam": True},
        },
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


@dataclass(frozen=True)
class Checkpointing:
    """How the loop saves and restores.

    `save(step, write)` calls write(folder) on every worker; `restored` is a folder that was written so, or None.
    """

    save: Callable[[int, Callable[[str], None]], None]
    restored: str | None


def train(
    settings: TrainingConfig,
    model_path: str,
    rows: Callable[[], Iterable[Row]],
    num_examples: int,
    report: Callable[[Metrics], None],
    checkpointing: Checkpointing,
    pad_token_id: int,
) -> Callable[[str], None]:
    """Train on this worker, one of a torch.distributed group; returns the function that exports the model to a folder.

    `rows` begins the stream of TOKENIZED rows anew, `num_examples` is the length of one epoch of it, and `report`
    gets the metrics of each step on rank 0. The returned function must be called on every worker.
    """
    import deepspeed
    import torch
    import torch.distributed as dist
    from transformers import AutoModelForCausalLM

    rank, world_size = dist.get_rank(), dist.get_world_size()
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype)
    model.config.use_cache = False
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=[parameter for parameter in model.parameters() if parameter.requires_grad],
        config=deepspeed_config(settings, world_size),
    )
    compute = _Compute(engine, settings, pad_token_id, rank, world_size)
    if settings.objective != "sft":
        compute.remember_reference(rows, num_examples)

    num_steps = math.ceil(num_examples / settings.examples_per_step) * settings.epochs
    history: list[Metrics] = []  # of rank 0; it travels in the checkpoint, so that a resumed log is whole
    first_step = 0
    if checkpointing.restored is not None:
        _, state = engine.load_checkpoint(checkpointing.restored, tag="state")
        first_step = int(state["next_step"])
        for metrics in state["history"] if rank == 0 else []:
            history.append(metrics)
            report(metrics)
    engine.train()
    for index, step in enumerate(steps(rows(), settings.examples_per_step)):
        if index < first_step:
            continue
        begin = time.monotonic()
        lr = learning_rate(settings, index, num_steps)
        for group in engine.optimizer.param_groups:
            group["lr"] = lr
        metrics = compute.step(step)
        if rank == 0:
            seconds = time.monotonic() - begin
            metrics |= {
                "step": index + 1,
                "num_steps": num_steps,
                "epoch": step[0]["epoch"],
                "learning_rate": lr,
                "weight_mean": sum(row["weight"] for row in step) / len(step),
                "num_examples": len(step),
                "tokens_per_s": metrics["num_tokens"] / seconds,
            }
            history.append(metrics)
            report(metrics)
        if (index + 1) % settings.checkpoint_every_steps == 0 and index + 1 < num_steps:
            state = {"next_step": index + 1, "history": history}

            def write(folder: str, state: dict[str, Any] = state) -> None:
                engine.save_checkpoint(folder, tag="state", client_state=state, save_latest=False)

            checkpointing.save(index + 1, write)
    return lambda folder: _export(engine, folder)


class _Compute:
    """Forward and backward of one worker's share of a global step."""

    def __init__(self, engine: Any, settings: TrainingConfig, pad_token_id: int, rank: int, world_size: int) -> None:
        self._engine, self._settings, self._pad = engine, settings, pad_token_id
        self._rank, self._world_size = rank, world_size
        #: question_id -> log-probabilities of chosen, rejected and mismatched response before the first step.
        self._reference: dict[str, list[float]] = {}

    def step(self, step: Sequence[Row]) -> Metrics:
        """One optimizer step over all workers; returns the step's metrics, equal on every worker."""
        import torch

        settings, engine = self._settings, self._engine
        num_tokens = sum(len(row["chosen"]) for row in step)
        batches = micro_batches(step, self._rank, self._world_size, settings.micro_batch_size)
        reference_point = self._reference_point(batches, step) if settings.objective == "kto" else None
        loss_sum = torch.zeros(2, dtype=torch.float64, device=engine.device)  # weighted, unweighted
        for number, batch in enumerate(batches):
            engine.set_gradient_accumulation_boundary(number == len(batches) - 1)
            weights = torch.tensor([row["weight"] for row in batch], dtype=torch.float32, device=engine.device)
            if batch:
                logprobs = self._logprobs(batch, self._trained_responses())
            else:
                # This worker has run out of examples, but the others need its part in the engine's communication.
                logprobs = self._logprobs(step[:1], self._trained_responses())[:, :0]
            loss = self._loss(batch, logprobs, weights, num_tokens, len(step), reference_point)
            with torch.no_grad():
                ones = torch.ones_like(weights)
                plain = self._loss(batch, logprobs.detach(), ones, num_tokens, len(step), reference_point)
                loss_sum += torch.stack([loss.detach().double(), plain.double()])
            # DeepSpeed averages over the workers; the parts of a step are to be added.
            engine.backward(loss * self._world_size)
        gradient_norm = None
        if settings.deepspeed.zero_stage == 0 and settings.precision == "float32":
            # Here DeepSpeed clips without keeping the norm; the gradients are whole and averaged already.
            gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
            gradient_norm = torch.nn.utils.get_total_norm(gradients)
        engine.step()
        if gradient_norm is None:
            gradient_norm = engine.get_global_grad_norm()
        torch.distributed.all_reduce(loss_sum)
        read = sum(len(row["prompt"]) + len(row[name] or []) for row in step for name in self._trained_responses())
        return {
            "loss": loss_sum[0].item(),
            "unweighted_loss": loss_sum[1].item(),
            "gradient_norm": float(gradient_norm),
            "num_tokens": read,
        }

    def remember_reference(self, rows: Callable[[], Iterable[Row]], num_examples: int) -> None:
        """Log-probabilities of every response before the first step, the work shared out over the workers."""
        import torch
        import torch.distributed as dist

        names = [*self._trained_responses(), *(["mismatched"] if self._settings.objective == "kto" else [])]
        size = self._settings.micro_batch_size
        own: dict[str, list[float]] = {}
        self._engine.eval()
        with torch.no_grad():
            for step in steps(_first(rows(), num_examples), size * self._world_size):
                for batch in micro_batches(step, self._rank, self._world_size, size):
                    logprobs = self._logprobs(batch or step[:1], names)
                    for column, row in enumerate(batch):
                        own[row["question_id"]] = logprobs[:, column].tolist()
        gathered: list[dict[str, list[float]] | None] = [None] * self._world_size
        dist.all_gather_object(gathered, own)
        for part in gathered:
            self._reference |= part or {}

    def _trained_responses(self) -> list[str]:
        return ["chosen"] if self._settings.objective == "sft" else ["chosen", "rejected"]

    def _logprobs(self, batch: Sequence[Row], names: Sequence[str]) -> "torch.Tensor":
        """(number of names, B) log-probabilities of the named responses of each row, in one forward pass."""
        import torch

        sequences = [(row["prompt"], row[name]) for name in names for row in batch]
        length = max(len(prompt) + len(response) for prompt, response in sequences)
        ids = torch.full((len(sequences), length), self._pad, dtype=torch.long)
        labels = torch.full((len(sequences), length), losses.IGNORED, dtype=torch.long)
        mask = torch.zeros((len(sequences), length), dtype=torch.long)
        for index, (prompt, response) in enumerate(sequences):
            end = len(prompt) + len(response)
            ids[index, :end] = torch.tensor([*prompt, *response])
            labels[index, len(prompt) : end] = torch.tensor(list(response))
            mask[index, :end] = 1
        device = self._engine.device
        logits = self._engine(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
        return losses.response_logprobs(logits, labels.to(device)).view(len(names), len(batch))

    def _loss(
        self,
        batch: Sequence[Row],
        logprobs: "torch.Tensor",
        weights: "torch.Tensor",
        num_tokens: int,
        num_examples: int,
        reference_point: "torch.Tensor | None",
    ) -> "torch.Tensor":
        import torch

        settings = self._settings
        if settings.objective == "sft":
            return losses.sft(logprobs[0], weights, num_tokens)
        stored = [self._reference[row["question_id"]][:2] for row in batch]
        reference = torch.tensor(stored, device=logprobs.device, dtype=logprobs.dtype).reshape(len(batch), 2).T
        if settings.objective == "dpo":
            return losses.dpo(
                logprobs[0], logprobs[1], reference[0], reference[1], weights, settings.beta, num_examples
            )
        assert reference_point is not None
        desirable = torch.tensor([True, False], device=logprobs.device).repeat_interleave(len(batch))
        return losses.kto(
            logprobs.flatten(),
            reference.flatten(),
            desirable,
            reference_point,
            weights.repeat(2),
            settings.beta,
            2 * num_examples,
            settings.desirable_factor,
            settings.undesirable_factor,
        )

    def _reference_point(self, batches: Sequence[Sequence[Row]], step: Sequence[Row]) -> "torch.Tensor":
        """KTO's z0: the mean over the step of log pi / ref of mismatched pairs of prompt and response, at least 0."""
        import torch

        total = torch.zeros((), dtype=torch.float64, device=self._engine.device)
        with torch.no_grad():
            for batch in batches:
                logprobs = self._logprobs(batch or step[:1], ["mismatched"])[0, : len(batch)]
                stored = torch.tensor([self._reference[row["question_id"]][2] for row in batch])
                total += (logprobs - stored.to(logprobs)).double().sum()
        torch.distributed.all_reduce(total)
        return (total / len(step)).clamp(min=0).float()


def _first(rows: Iterable[Row], count: int) -> Iterator[Row]:
    for row, _ in zip(rows, range(count), strict=False):
        yield row


def _export(engine: Any, folder: str) -> None:
    """Write the model in Hugging Face format from rank 0, read it back and compare every parameter.

    Called on every worker. Raises RuntimeError if what was written is not what was trained.
    """
    import torch
    import torch.distributed as dist
    from transformers import AutoModelForCausalLM

    if engine.zero_optimization_partition_weights():
        state = engine._zero3_consolidated_16bit_state_dict()
    else:
        state = engine.module.state_dict() if dist.get_rank() == 0 else None
    if dist.get_rank() != 0:
        return
    assert state is not None
    state = {name: tensor.detach().cpu() for name, tensor in state.items()}
    engine.module.config.use_cache = True
    engine.module.save_pretrained(folder, state_dict=state, safe_serialization=True)
    dtype = next(iter(state.values())).dtype
    written = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).state_dict()
    differing = [name for name, tensor in state.items() if not torch.equal(written[name], tensor)]
    if differing:
        raise RuntimeError(f"{folder}: {len(differing)} parameters differ from the trained ones, first {differing[0]}")


@dataclass(frozen=True)
class TrainingSummary:
    """What a training counted: examples trained on, examples left out, and the metrics of each step."""

    num_examples: int
    num_too_long: int
    num_zero_weight: int
    steps: list[Metrics]


def train_model(
    examples: Folder,
    model: str,
    target: Folder,
    checkpoints: Folder,
    *,
    settings: TrainingConfig,
    prompt: PromptConfig,
    seed: int,
    progress: Callable[[Metrics], None],
) -> TrainingSummary:
    """Train `model` on a folder of records.EXAMPLES with a group of Ray Train workers; write the model to `target`.

    `checkpoints` keeps what is needed to go on after a crash, of a worker or of this process. Raises InputError if
    there is nothing to train on.
    """
    import ray
    import ray.train
    import ray.train.torch

    tokenizer = load_tokenizer(local_copy(model))
    dataset, counts = _tokenized(examples, tokenizer, prompt, settings, seed)
    board = ray.remote(num_cpus=0)(_Board).remote()
    use_gpu = settings.num_gpus_per_worker > 0
    trainer = ray.train.torch.TorchTrainer(
        _worker,
        train_loop_config={
            "settings": settings,
            "model": model,
            "target": target,
            "num_examples": counts.num_examples,
            "board": board,
        },
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=settings.num_workers,
            use_gpu=use_gpu,
            resources_per_worker={
                "CPU": settings.num_cpus_per_worker,
                **({"GPU": settings.num_gpus_per_worker} if use_gpu else {}),
            },
        ),
        run_config=ray.train.RunConfig(
            # DeepSpeed restores a state only into the same group of workers; another shape begins anew.
            name=f"workers_{settings.num_workers}_zero_{settings.deepspeed.zero_stage}",
            storage_path=checkpoints.path,
            storage_filesystem=None if checkpoints.is_local else checkpoints.filesystem,
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            failure_config=ray.train.FailureConfig(max_failures=1),
        ),
        datasets={"examples": dataset},
        # Not split: every worker reads every example and takes its share of each step itself.
        dataset_config=ray.train.DataConfig(datasets_to_split=[]),
    )
    with _watched(board, progress):
        trainer.fit()
    # A step that was done again after a restart counts once, as it was done last.
    metrics: dict[float, Metrics] = {row["step"]: row for row in ray.get(board.read.remote(0))}
    log = [metrics[step] for step in sorted(metrics)]
    checkpoints.clear()
    return TrainingSummary(counts.num_examples, counts.num_too_long, counts.num_zero_weight, log)


@dataclass(frozen=True)
class _Counts:
    num_examples: int
    num_too_long: int
    num_zero_weight: int


def _tokenized(
    examples: Folder,
    tokenizer: "PreTrainedTokenizerBase",
    prompt: PromptConfig,
    settings: TrainingConfig,
    seed: int,
) -> "tuple[ray.data.Dataset, _Counts]":
    """Examples -> TOKENIZED rows of all epochs in the order of training, and how many were left out."""
    import ray.data

    table = examples.read(EXAMPLES).sort_by("question_id")
    num_zero_weight = 0
    if settings.skip_zero_weight:
        kept = table.filter(pc.greater(table["weight"], 0))
        num_zero_weight = table.num_rows - kept.num_rows
        table = kept
    if settings.objective == "kto":
        if table.num_rows < 2:
            raise InputError("training.objective: kto needs at least 2 examples, to pair prompts with other responses")
        # The neighbour's response: a fixed mismatched pairing, so that its reference is computed only once.
        for column in ("chosen", "chosen_finish_reason"):
            values = table[column].combine_chunks()
            name = column.replace("chosen", "mismatched")
            table = table.append_column(name, pa.concat_arrays([values[1:], values[:1]]))
    read = {"sft": ["chosen"], "dpo": ["chosen", "rejected"], "kto": ["chosen", "rejected", "mismatched"]}

    def tokenize_rows(batch: pa.Table) -> pa.Table:
        rows: list[dict[str, Any]] = []
        for row in batch.to_pylist():
            tokenized = tokenize_example(row, tokenizer, prompt)
            longest = max(len(tokenized[name] or []) for name in read[settings.objective])
            if len(tokenized["prompt"] or []) + longest > settings.max_length:
                continue
            for epoch in range(settings.epochs):
                order = hashlib.blake2b(f"{seed}:{epoch}:{row['question_id']}".encode(), digest_size=12).hexdigest()
                rows.append({"epoch": epoch, "order": order, **row, **tokenized})
        return pa.Table.from_pylist([{name: row.get(name) for name in TOKENIZED.names} for row in rows], TOKENIZED)

    dataset = ray.data.from_arrow(table).map_batches(tokenize_rows, batch_size=1024, batch_format="pyarrow")
    dataset = dataset.sort(["epoch", "order"]).materialize()
    num_examples = dataset.count() // settings.epochs
    if num_examples == 0:
        raise InputError(
            f"training: none of the {table.num_rows} examples fits in training.max_length {settings.max_length} tokens"
        )
    return dataset, _Counts(num_examples, table.num_rows - num_examples, num_zero_weight)


def _worker(config: Mapping[str, Any]) -> None:
    """One worker of the Ray Train group."""
    import ray.train

    settings: TrainingConfig = config["settings"]
    target: Folder = config["target"]
    model_path = local_copy(config["model"])
    tokenizer = load_tokenizer(model_path)
    rank = ray.train.get_context().get_world_rank()
    shard = ray.train.get_dataset_shard("examples")
    board = config["board"]

    def save(step: int, write: Callable[[str], None]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            write(folder)
            # Every worker reports the part of the sharded state that it holds; Ray Train joins them in one checkpoint.
            ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(folder))

    restored = ray.train.get_checkpoint()
    with contextlib.ExitStack() as stack:
        export = train(
            settings,
            model_path,
            shard.iter_rows,
            config["num_examples"],
            board.add.remote,
            Checkpointing(save, stack.enter_context(restored.as_directory()) if restored else None),
            tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
        )
        with tempfile.TemporaryDirectory() as scratch:
            folder = os.path.join(scratch, "model")
            export(folder)
            if rank == 0:
                tokenizer.save_pretrained(folder)
                _publish(folder, model_path, target)


def _publish(folder: str, base: str, target: Folder) -> None:
    """Move a finished model to its place, with the base model's generation settings."""
    generation = Path(base) / "generation_config.json"
    if generation.is_file():
        shutil.copy(generation, folder)
    target.clear()
    target.filesystem.create_dir(target.path, recursive=True)
    pafs.copy_files(folder, target.path, destination_filesystem=target.filesystem)


class _Board:
    """An actor: where rank 0 puts the metrics of each step, for the driver to read while the group trains."""

    def __init__(self) -> None:
        self._metrics: list[Metrics] = []

    def add(self, metrics: Metrics) -> None:
        self._metrics.append(metrics)

    def read(self, begin: int) -> list[Metrics]:
        return self._metrics[begin:]


@contextlib.contextmanager
def _watched(board: Any, progress: Callable[[Metrics], None]) -> Iterator[None]:
    """Call `progress` with the newest metrics on the board, about twice a second, while the block runs."""
    import ray

    ended = threading.Event()

    def watch() -> None:
        seen = 0
        while not ended.wait(0.5):
            if new := ray.get(board.read.remote(seen)):
                seen += len(new)
                progress(new[-1])

    thread = threading.Thread(target=watch, daemon=True, name="training-progress")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

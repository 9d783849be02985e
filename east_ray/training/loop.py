"""Weighted examples -> a better model: the loop of one worker with its DeepSpeed engine.

A plain function of settings, an iterator of tokenized examples and two callbacks; Ray is not needed (workers.py is the
group of workers under Ray Train). Every worker reads the same stream of examples and takes its own share of each global
step. So the steps, their denominators and their order are the same for any number of workers, any micro-batch size,
with and without packing, and after any restart: they follow from the seed alone.
"""

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from east_ray.config import TrainingConfig
from east_ray.storage import Folder, model_fingerprint
from east_ray.training import losses, reference
from east_ray.training.batches import Row, micro_batches, steps
from east_ray.training.export import export_and_end
from east_ray.training.model import deepspeed_config, load_model

if TYPE_CHECKING:
    import torch

Metrics = dict[str, float]

#: Reference log-probabilities of so many examples are written together.
_REFERENCE_ROWS = 4096


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
    pad_token_id: int = 0,
    seed: int = 0,
    references: Folder | None = None,
) -> Callable[[str], None]:
    """Train on this worker, one of a torch.distributed group; returns the function that exports the model to a folder.

    `rows` begins the stream of TOKENIZED rows anew, `num_examples` is the length of one epoch of it, and `report`
    gets the metrics of each step on rank 0. DPO and KTO keep their reference log-probabilities in the folder
    `references`. The returned function must be called on every worker, once; the engine ends with it.
    """
    import deepspeed
    import torch
    import torch.distributed as dist

    rank, world_size = dist.get_rank(), dist.get_world_size()
    deepspeed.init_distributed()  # over the group that is there; sharded loading needs it
    model = load_model(settings, model_path, seed, world_size)
    model.config.use_cache = False
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=[parameter for parameter in model.parameters() if parameter.requires_grad],
        config=deepspeed_config(settings, world_size, on_gpu=torch.cuda.is_available()),
    )
    compute = _Compute(engine, settings, pad_token_id, rank, world_size)
    if settings.objective != "sft":
        assert references is not None, f"{settings.objective} needs a folder for its reference log-probabilities"
        name = f"{model_fingerprint(model_path)}-{settings.precision}"
        compute.remember_reference(rows, num_examples, references / name)

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
    saved_at = time.monotonic()
    for index, step in enumerate(steps(rows(), settings.examples_per_step)):
        if index < first_step:
            continue
        begin = time.monotonic()
        lr = learning_rate(settings, index, num_steps)
        for group in engine.optimizer.param_groups:
            group["lr"] = lr
        # What dropout draws follows from seed and step, so a restart draws the same and no state has to be kept.
        torch.manual_seed(seed * 1_000_003 + index * world_size + rank)
        minutes = settings.checkpoint_every_minutes
        is_late = rank == 0 and minutes is not None and begin - saved_at >= 60 * minutes
        metrics, some_is_late = compute.step(step, is_late)
        if rank == 0:
            seconds = time.monotonic() - begin
            weights = [row["weight"] for row in step]
            metrics = {
                "step": index + 1,
                "num_steps": num_steps,
                "epoch": step[0]["epoch"],
                "learning_rate": lr,
                "num_examples": len(step),
                "weight_mean": sum(weights) / len(step),
                "weight_min": min(weights),
                "weight_max": max(weights),
                **metrics,
                "tokens_per_s": metrics["num_tokens"] / seconds,
                "memory_gib": _peak_memory_bytes() / 2**30,
            }
            history.append(metrics)
            report(metrics)
        if ((index + 1) % settings.checkpoint_every_steps == 0 or some_is_late) and index + 1 < num_steps:
            saved_at = time.monotonic()
            state = {"next_step": index + 1, "history": history}

            def write(folder: str, state: dict[str, Any] = state) -> None:
                engine.save_checkpoint(folder, tag="state", client_state=state, save_latest=False)

            checkpointing.save(index + 1, write)
    return functools.partial(export_and_end, engine, compute, settings, model_path)


def _peak_memory_bytes() -> int:
    """The most that this worker has held so far: on the GPU if there is one, else in its process."""
    import resource

    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class _Compute:
    """Forward and backward of one worker's share of a global step."""

    def __init__(self, engine: Any, settings: TrainingConfig, pad_token_id: int, rank: int, world_size: int) -> None:
        self._engine, self._settings, self._pad = engine, settings, pad_token_id
        self._rank, self._world_size = rank, world_size
        self._positions = 0  # that the step has computed on this worker so far, padding included
        self._head = self._packed_head() if settings.packing else None
        self._reference = reference.ReferenceLogprobs()

    def _packed_head(self) -> Any:
        from east_ray.training.packing import LogprobHead

        return LogprobHead(self._engine.module)

    def remove_head(self) -> None:
        """Make the model give logits again."""
        if self._head is not None:
            self._head.remove()

    def step(self, step: Sequence[Row], is_late: bool = False) -> tuple[Metrics, bool]:
        """One optimizer step over all workers: the step's metrics, and whether any worker is late; equal on all."""
        import torch

        settings, engine = self._settings, self._engine
        num_tokens = sum(len(row["chosen"]) for row in step)
        batches = micro_batches(step, self._rank, self._world_size, settings.micro_batch_size)
        reference_point = self._reference_point(batches, step) if settings.objective == "kto" else None
        self._positions = 0
        sums = torch.zeros(8, dtype=torch.float64, device=engine.device)
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
                sums[:2] += torch.stack([loss.detach().double(), plain.double()])
                sums[2:6] += self._rewards(batch, logprobs.detach())
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
        sums[6:] += torch.tensor([self._positions, is_late], device=engine.device)
        torch.distributed.all_reduce(sums)
        loss_sum, plain_sum, chosen, rejected, margin, won, positions, late = sums.tolist()
        read = sum(len(row["prompt"]) + len(row[name] or []) for row in step for name in self._trained_responses())
        metrics = {
            "loss": loss_sum,
            "unweighted_loss": plain_sum,
            "gradient_norm": float(gradient_norm),
            "num_tokens": read,
            "padding_share": max(0.0, 1 - read / positions),
        }
        if settings.objective != "sft":
            names = ("chosen_reward", "rejected_reward", "reward_margin", "reward_accuracy")
            metrics |= {
                name: value / len(step) for name, value in zip(names, (chosen, rejected, margin, won), strict=True)
            }
        if reference_point is not None:
            metrics["kl"] = float(reference_point)
        return metrics, late > 0

    def remember_reference(self, rows: Callable[[], Iterable[Row]], num_examples: int, folder: Folder) -> None:
        """Compute the log-probabilities of every response before the first step that are not in the folder yet.

        The workers share the work out and write what they have computed, so that a pass that is cut short goes on.
        """
        import torch
        import torch.distributed as dist

        size = self._settings.micro_batch_size
        names = self._reference_responses()
        stored = reference.read(folder)
        # Which batches are computed must be the same on every worker, or one would wait for the others for ever.
        found = torch.tensor([len(stored), -len(stored)], device=self._engine.device)
        dist.all_reduce(found, op=dist.ReduceOp.MIN)
        if found[0] != -found[1]:
            stored = reference.ReferenceLogprobs()
        own: list[Row] = []

        def write() -> None:
            if own:
                reference.add(folder, own)
                own.clear()

        self._engine.eval()
        with torch.no_grad():
            for step in steps(_first(rows(), num_examples), size * self._world_size):
                if all(self._key(row) in stored for row in step):
                    continue
                for batch in micro_batches(step, self._rank, self._world_size, size):
                    logprobs = self._logprobs(batch or step[:1], names).double()
                    for column, row in enumerate(batch):
                        values = dict(zip(names, logprobs[:, column].tolist(), strict=True))
                        own.append({"question_id": row["question_id"], "key": self._key(row)} | values)
                if len(own) >= _REFERENCE_ROWS:
                    write()
        write()
        dist.barrier()
        self._reference = reference.read(folder)

    def _rewards(self, batch: Sequence[Row], logprobs: "torch.Tensor") -> "torch.Tensor":
        """(4,) sums over the examples: reward of chosen and of rejected, their difference, and how often it is > 0."""
        import torch

        if self._settings.objective == "sft" or not batch:
            return torch.zeros(4, dtype=torch.float64, device=logprobs.device)
        chosen, rejected = self._settings.beta * (logprobs - self._stored(batch, logprobs)).double()
        sums = torch.stack([chosen, rejected, chosen - rejected, (chosen > rejected).double()])
        return sums.sum(dim=1)

    def _stored(self, batch: Sequence[Row], like: "torch.Tensor") -> "torch.Tensor":
        """(2, B) reference log-probabilities of chosen and rejected responses."""
        return self._references(batch, like)[:2]

    def _references(self, batch: Sequence[Row], like: "torch.Tensor") -> "torch.Tensor":
        """(3, B) reference log-probabilities of chosen, rejected and mismatched responses."""
        import torch

        stored = np.asarray([self._reference[self._key(row)] for row in batch], dtype=float).reshape(len(batch), 3)
        return torch.tensor(stored, device=like.device, dtype=like.dtype).T

    def _key(self, row: Row) -> str:
        return reference.key(row, self._reference_responses())

    def _trained_responses(self) -> list[str]:
        return ["chosen"] if self._settings.objective == "sft" else ["chosen", "rejected"]

    def _reference_responses(self) -> list[str]:
        return [*self._trained_responses(), *(["mismatched"] if self._settings.objective == "kto" else [])]

    def _logprobs(self, batch: Sequence[Row], names: Sequence[str]) -> "torch.Tensor":
        """(number of names, B) log-probabilities of the named responses of each row, in one forward pass."""
        import torch

        sequences = [(row["prompt"], row[name]) for name in names for row in batch]
        device = self._engine.device
        if self._head is not None:
            from east_ray.training.packing import packed_logprobs

            self._positions += sum(len(prompt) + len(response) for prompt, response in sequences)
            return packed_logprobs(self._engine, self._head, sequences, device).view(len(names), len(batch))
        length = max(len(prompt) + len(response) for prompt, response in sequences)
        ids = torch.full((len(sequences), length), self._pad, dtype=torch.long)
        labels = torch.full((len(sequences), length), losses.IGNORED, dtype=torch.long)
        mask = torch.zeros((len(sequences), length), dtype=torch.long)
        for index, (prompt, response) in enumerate(sequences):
            end = len(prompt) + len(response)
            ids[index, :end] = torch.tensor([*prompt, *response])
            labels[index, len(prompt) : end] = torch.tensor(list(response))
            mask[index, :end] = 1
        self._positions += ids.numel()
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
        reference = self._stored(batch, logprobs)
        if settings.objective == "dpo":
            if settings.length_normalized:
                lengths = torch.tensor([[len(row[name]) for row in batch] for name in ("chosen", "rejected")])
                lengths = lengths.to(logprobs).reshape(2, len(batch))
                logprobs, reference = logprobs / lengths, reference / lengths
            return losses.dpo(
                *(logprobs[0], logprobs[1], reference[0], reference[1], weights),
                settings.beta,
                num_examples,
                settings.label_smoothing,
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
                total += (logprobs - self._references(batch, logprobs)[2]).double().sum()
        torch.distributed.all_reduce(total)
        return (total / len(step)).clamp(min=0).float()


def _first(rows: Iterable[Row], count: int) -> Iterator[Row]:
    for row, _ in zip(rows, range(count), strict=False):
        yield row

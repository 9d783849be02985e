"""Forward and backward of one worker's share of a global step."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from east_ray.config import TrainingConfig
from east_ray.training.batches import division, shortest
from east_ray.training.dataset import Metrics, Row
from east_ray.training.model import is_compiled
from east_ray.training.objectives import MicroBatch, Objective
from east_ray.training.reference import ReferenceLogprobs, reference_key

if TYPE_CHECKING:
    from torch import Tensor

    from east_ray.training.packing import Pair


class Compute:
    """What a worker computes with its DeepSpeed engine. Every method must be called on all workers at once."""

    def __init__(
        self, engine: Any, settings: TrainingConfig, objective: Objective, pad_token_id: int, rank: int, world_size: int
    ) -> None:
        self.engine, self.objective, self.references = engine, objective, ReferenceLogprobs()
        self._settings, self._pad = settings, pad_token_id
        self._world_size = world_size
        self._divide, self.examples_at_once = division(settings, engine.module, rank, world_size)
        self._positions = 0  # computed by this worker in this step so far, padding included
        self._head = None
        if settings.packing:
            import torch

            from east_ray.training.packing import LogprobHead

            self._head = LogprobHead(engine.module, is_compiled(settings, on_gpu=torch.cuda.is_available()))

    def remove_head(self) -> None:
        """Make the model give logits again."""
        if self._head is not None:
            self._head.remove()

    def micro_batches(self, step: Sequence[Row], names: Sequence[str]) -> list[list[Row]]:
        """This worker's micro-batches of some examples, for a pass over the named responses.

        Every worker has the same number of them.
        """
        return self._divide(step, names)

    def logprobs(self, batch: Sequence[Row], step: Sequence[Row], names: Sequence[str]) -> "dict[str, Tensor]":
        """Name -> (B,) log-probabilities of that response of each row of a micro-batch, in one forward pass.

        For an empty micro-batch the shortest example of the step is computed in vain: the sharded engine communicates
        in each pass, and the other workers would wait for this one.
        """
        from east_ray.training.packing import packed_logprobs, padded_logprobs

        rows = batch or [shortest(step, names)]
        sequences: list[Pair] = [(row["prompt"], row[name]) for name in names for row in rows]
        lengths, device = [len(prompt) + len(response) for prompt, response in sequences], self.engine.device
        if self._head is not None:
            self._positions += sum(lengths)
            values = packed_logprobs(self.engine, self._head, sequences, device)
        else:
            self._positions += len(lengths) * max(lengths)
            values = padded_logprobs(self.engine, sequences, self._pad, device)
        by_name = zip(names, values.view(len(names), len(rows)), strict=True)
        return {name: of_name[: len(batch)] for name, of_name in by_name}

    def step(self, step: Sequence[Row], is_late: bool = False) -> tuple[Metrics, bool]:
        """One optimizer step over all workers: its metrics, and whether any worker is late; the same on all workers."""
        import torch

        from east_ray.training.attention import kernel_of

        engine, names = self.engine, self.objective.responses
        batches, measured = self.micro_batches(step, names), self._measured(step)
        self._positions = 0
        totals = torch.zeros(4, dtype=torch.float64, device=engine.device)
        observed: dict[str, Tensor] = {}
        for number, rows in enumerate(batches):
            engine.set_gradient_accumulation_boundary(number == len(batches) - 1)
            batch = self._micro_batch(rows, step, names, measured)
            loss = self.objective.loss(batch)
            with torch.no_grad():
                seen = replace(batch, logprobs={name: values.detach() for name, values in batch.logprobs.items()})
                plain = self.objective.loss(replace(seen, weights=torch.ones_like(seen.weights)))
                totals[:2] += torch.stack([loss.detach().double(), plain.double()])
                _add(observed, self.objective.metrics(seen))
            # DeepSpeed averages over the workers, but the parts of a step must be added.
            engine.backward(loss * self._world_size)
        gradient_norm = self._optimize()
        totals[2:] += torch.tensor([self._positions, is_late], device=engine.device)
        totals = torch.cat([totals, *(values.reshape(1) for values in observed.values())])
        torch.distributed.all_reduce(totals)
        loss_sum, plain_sum, positions, late, *sums = totals.tolist()
        num_tokens = sum(len(row["prompt"]) + len(row[name]) for row in step for name in names)
        metrics: Metrics = {"loss": loss_sum, "unweighted_loss": plain_sum, "gradient_norm": gradient_norm}
        metrics |= {"attention": kernel_of(engine) or engine.module.config._attn_implementation}
        metrics |= {"num_tokens": num_tokens, "padding_share": max(0.0, 1 - num_tokens / positions)}
        return metrics | {name: value / len(step) for name, value in zip(observed, sums, strict=True)}, late > 0

    def _optimize(self) -> float:
        """Let the engine take the optimizer's step; returns the norm of the gradients before they are clipped."""
        import torch

        if self._settings.deepspeed.zero_stage > 0 or self._settings.precision == "bf16":
            self.engine.step()
            return float(self.engine.get_global_grad_norm())
        # Here DeepSpeed clips without keeping the norm. The gradients are whole and averaged already.
        gradients = [p.grad for p in self.engine.module.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        self.engine.step()
        return norm

    def _measured(self, step: Sequence[Row]) -> "dict[str, Tensor]":
        """Means over the step of what the objective measures before the losses; nothing if it measures nothing."""
        import torch

        sums: dict[str, Tensor] = {}
        if not (names := self.objective.measured_responses):
            return sums
        with torch.no_grad():
            for rows in self.micro_batches(step, names):
                batch = self._micro_batch(rows, step, names, {})
                _add(sums, self.objective.measure(batch))
        total = torch.stack(list(sums.values()))
        torch.distributed.all_reduce(total)
        return dict(zip(sums, total / len(step), strict=True))

    def _micro_batch(
        self, rows: Sequence[Row], step: Sequence[Row], names: Sequence[str], measured: "Mapping[str, Tensor]"
    ) -> MicroBatch:
        import torch

        from east_ray.training.attention import on_device

        logprobs, compared = self.logprobs(rows, step, names), self.objective.reference_responses
        device, dtype = logprobs[names[0]].device, logprobs[names[0]].dtype
        stored = [self.references[reference_key(row, compared)] for row in rows] if compared else []
        return MicroBatch(
            logprobs=logprobs,
            references={name: on_device([values[name] for values in stored], device, dtype) for name in compared},
            num_tokens={name: on_device([len(row[name]) for row in rows], device, dtype) for name in names},
            weights=on_device([row["weight"] for row in rows], device, torch.float32),
            num_step_examples=len(step),
            num_step_tokens={name: sum(len(row[name]) for row in step) for name in names},
            measured=measured,
        )


def _add(sums: "dict[str, Tensor]", values: "Mapping[str, Tensor]") -> None:
    """Add each value to the sum of its name, in float64."""
    for name, value in values.items():
        sums[name] = sums[name] + value.double() if name in sums else value.double()

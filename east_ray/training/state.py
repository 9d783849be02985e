"""The state of an unfinished training: float32 parameters and AdamW's moments, which any group of workers can load.

Each worker writes what it holds of every trained parameter as fragments: runs of elements of the flattened parameter,
by its name. A worker of another group, with another number of workers or ZeRO stage, copies from all files what it
needs. So nothing is gathered, converted or held twice, and the values are those that were saved, to the last bit. The
parameters that the model computes with follow from them, and frozen ones are those of the initial model.

DeepSpeed's own checkpoints need a group of the same shape. Its universal ones are made of those by a pass over the
whole checkpoint before any worker can load it, and not without ZeRO.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from east_ray.config import InputError

if TYPE_CHECKING:
    from torch import Tensor

#: What is kept of each element: its float32 parameter under this name, and AdamW's moments under torch's names.
_PARAMETER, _MOMENTS = "parameter", ("exp_avg", "exp_avg_sq")
_PROGRESS = "progress.json"


class _Fragment(NamedTuple):
    """Where a worker holds elements `start` to `start + size` of a parameter: in its flat tensor, from `offset` on."""

    name: str
    start: int
    size: int
    flat: "Tensor"
    offset: int


def save_state(engine: Any, progress: Mapping[str, Any], folder: str) -> None:
    """Write this worker's part, and on rank 0 the progress, to a folder that may be the other workers' too.

    To be called on every worker after the same step. `progress` is anything that JSON can write.
    """
    import torch
    import torch.distributed as dist

    rank, world_size = dist.get_rank(), dist.get_world_size()
    is_sharded, states = bool(engine.zero_optimization()), engine.basic_optimizer.state
    kept: dict[str, tuple[int, dict[str, Tensor]]] = {}
    for number, one in enumerate(_fragments(engine)):
        if is_sharded or number % world_size == rank:  # without ZeRO every worker has all, and they share the writing
            views = {_PARAMETER: one.flat.detach(), **{name: states[one.flat][name] for name in _MOMENTS}}
            kept[one.name] = (one.start, {name: _slice(flat, one.offset, one.size) for name, flat in views.items()})
    # Views of one flat tensor share it in the file too, and a GPU's tensors go through CPU memory one by one.
    with Path(folder, f"worker_{rank}.pt").open("wb") as file:  # Python's own: torch's does not say that a disk is full
        torch.save(kept, file)
    if rank == 0:
        Path(folder, _PROGRESS).write_text(json.dumps(dict(progress)))


def load_state(engine: Any, num_steps_done: int, folder: str) -> None:
    """Take over what a group of any shape has saved; to be called on every worker.

    Raises InputError if the folder lacks a part of what this model needs.
    """
    import torch

    saved: dict[str, list[tuple[int, dict[str, Tensor]]]] = defaultdict(list)
    for path in Path(folder).glob("worker_*.pt"):
        # Mapped, so that a worker reads no more than it needs.
        for name, part in torch.load(path, map_location="cpu", mmap=True, weights_only=True).items():
            saved[name].append(part)
    states = engine.basic_optimizer.state
    for flat in _flat_parameters(engine):
        states[flat] = _state_after(num_steps_done, flat, engine.basic_optimizer.param_groups[0])
    for one in _fragments(engine):
        here = {_PARAMETER: one.flat.detach(), **{name: states[one.flat][name] for name in _MOMENTS}}
        num_copied = 0
        for start, there in saved[one.name]:
            begin = max(start, one.start)
            count = min(start + there[_PARAMETER].numel(), one.start + one.size) - begin
            if count > 0:
                for name, flat in here.items():
                    _slice(flat, one.offset + begin - one.start, count).copy_(_slice(there[name], begin - start, count))
                num_copied += count
        if num_copied != one.size:
            raise InputError(
                f"training: the checkpoint {folder} has {num_copied} of {one.size} elements of {one.name}; it is "
                "another model's or incomplete, so remove it to start the training again"
            )
    _update_model(engine)


def load_progress(folder: str) -> dict[str, Any]:
    """The progress that was saved with the state in this folder."""
    progress: dict[str, Any] = json.loads(Path(folder, _PROGRESS).read_text())
    return progress


def _slice(tensor: "Tensor", offset: int, count: int) -> "Tensor":
    return tensor.view(-1).narrow(0, offset, count)


def _state_after(num_steps: int, flat: "Tensor", group: Mapping[str, Any]) -> "dict[str, Tensor]":
    """AdamW's state as torch makes it at its first step, with moments to be filled in."""
    import torch

    on_device = group.get("fused") or group.get("capturable")
    step = torch.tensor(float(num_steps), device=flat.device if on_device else "cpu")
    return {"step": step, **{name: torch.zeros_like(flat, requires_grad=False) for name in _MOMENTS}}


def _flat_parameters(engine: Any) -> "list[Tensor]":
    """The float32 tensors that this worker's AdamW updates: shards of all parameters, or without ZeRO these."""
    if engine.zero_optimization_partition_weights():
        flat: list[Tensor] = engine.optimizer.fp32_partitioned_groups_flat
        return flat
    return [flat for group in engine.basic_optimizer.param_groups for flat in group["params"]]


def _fragments(engine: Any) -> Iterator[_Fragment]:
    """What this worker holds of each trained parameter, in the model's order."""
    import torch.distributed as dist

    optimizer, flats = engine.optimizer, _flat_parameters(engine)
    for name, parameter in engine.module.named_parameters():
        if not parameter.requires_grad:
            continue
        if engine.zero_optimization_partition_weights():  # each parameter in equal parts, the last one padded
            group, offset, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
            start = min(size * dist.get_rank(), parameter.ds_numel)
            yield _Fragment(name, start, min(size, parameter.ds_numel - start), flats[group], offset)
        elif not engine.zero_optimization():
            yield _Fragment(name, 0, parameter.numel(), parameter, 0)
        elif (mapping := parameter._hp_mapping) is not None:  # all parameters in a row, in equal parts
            inside, place = mapping.lp_fragment_address, mapping.get_hp_fragment_address()
            yield _Fragment(name, inside.start, inside.numel, flats[mapping.param_group_index], place.start)


def _update_model(engine: Any) -> None:
    """Round this worker's shards to the parameters that the model computes with, and share them, as after a step."""
    optimizer = engine.optimizer
    if engine.zero_optimization_partition_weights():
        optimizer.checkpoint_event_prologue()  # small parameters are whole on every worker; they are split again
        for group in range(len(optimizer.fp32_partitioned_groups_flat)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        optimizer.checkpoint_event_epilogue()
    elif engine.zero_optimization():
        optimizer.update_lp_params()

"""The pass before the first step: the initial model's log-probabilities of every response that the objective needs."""

import itertools
from collections.abc import Callable, Iterable

from east_ray.storage import Folder
from east_ray.training import reference
from east_ray.training.batches import Row, steps
from east_ray.training.compute import Compute
from east_ray.training.reference import ReferenceLogprobs, key

#: Rows of one file; what a worker that dies has to compute again.
_ROWS_PER_PART = 4096


def reference_logprobs(
    compute: Compute, rows: Callable[[], Iterable[Row]], num_examples: int, folder: Folder
) -> ReferenceLogprobs:
    """The reference log-probabilities of one epoch of rows; those that the folder lacks are computed and added to it.

    The workers share the work and write what they have computed, so a pass that is interrupted continues.
    """
    import torch
    import torch.distributed as dist

    engine, names = compute.engine, compute.objective.reference_responses
    stored = reference.read(folder)
    # Every worker must compute the same batches, or one would wait for the others for ever.
    found = torch.tensor([len(stored), -len(stored)], device=engine.device)
    dist.all_reduce(found, op=dist.ReduceOp.MIN)
    if found[0] != -found[1]:
        stored = ReferenceLogprobs()
    own: list[Row] = []
    engine.eval()
    with torch.no_grad():
        for step in steps(itertools.islice(rows(), num_examples), compute.examples_at_once):
            if all(key(row, names) in stored for row in step):
                continue
            for batch in compute.micro_batches(step):
                values = {name: of_name.tolist() for name, of_name in compute.logprobs(batch, step, names).items()}
                for number, row in enumerate(batch):
                    of_row = {name: of_name[number] for name, of_name in values.items()}
                    own.append({"question_id": row["question_id"], "key": key(row, names)} | of_row)
            if len(own) >= _ROWS_PER_PART:
                reference.add(folder, own)
                own = []
    if own:
        reference.add(folder, own)
    dist.barrier()
    return reference.read(folder)

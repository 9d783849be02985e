"""Reference log-probabilities: what the initial model of a training gives each response, computed once.

A folder named by the model's fingerprint has a row per example, which is found by the token ids of prompt and
responses. So a training that continues computes nothing twice, and no value serves another example or model.
"""

import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from east_ray.storage import Folder
from east_ray.training.batches import steps
from east_ray.training.dataset import Row, TrainingPhase
from east_ray.training.objectives import RESPONSES

if TYPE_CHECKING:
    from east_ray.training.compute import Compute

#: Rows of one file; what a worker that dies has to compute again.
_ROWS_PER_PART = 4096
#: Seconds between two messages how far the pass is.
_TELL_S = 1.0


#: Log-probabilities in nats, summed over a response's tokens; null where the objective does not need them. The key is
#: that of the token ids, see `reference_key`.
REFERENCE = pa.schema(
    [("question_id", pa.string()), ("key", pa.string()), *((name, pa.float64()) for name in RESPONSES)]
)


def reference_key(row: Row, names: Sequence[str]) -> str:
    """The key of a TOKENIZED row's reference: a digest of the token ids of its prompt and of the named responses."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ("prompt", *names):
        ids = np.asarray(row[name], dtype=np.int32)
        digest.update(f"{name} {len(ids)} ".encode())
        digest.update(ids.tobytes())
    return digest.hexdigest()


class ReferenceLogprobs:
    """Reference log-probabilities by key, in 56 bytes an example."""

    def __init__(self, table: pa.Table | None = None) -> None:
        """From a table of REFERENCE. Of rows with the same key, the first counts."""
        table = REFERENCE.empty_table() if table is None else table
        keys = np.asarray(table["key"].to_numpy(zero_copy_only=False), dtype="S32")
        self._keys, first = np.unique(keys, return_index=True)
        self._values = {name: table[name].to_numpy().astype(float)[first] for name in RESPONSES}

    @classmethod
    def read(cls, folder: Folder) -> "ReferenceLogprobs":
        """All that was computed with one model, from the folder of its fingerprint."""
        return cls(folder.read(REFERENCE))

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, wanted: str) -> bool:
        return bool(self._keys[self._place(wanted)] == wanted.encode()) if len(self._keys) else False

    def __getitem__(self, wanted: str) -> dict[str, float]:
        """Log-probability of the chosen, rejected and mismatched response; NaN where none. Raises KeyError."""
        if wanted not in self:
            raise KeyError(wanted)
        place = self._place(wanted)
        return {name: float(values[place]) for name, values in self._values.items()}

    def _place(self, wanted: str) -> int:
        return min(int(np.searchsorted(self._keys, wanted.encode())), len(self._keys) - 1)


def add_references(folder: Folder, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows of REFERENCE to the folder, as a new part."""
    complete = [{name: row.get(name) for name in REFERENCE.names} for row in rows]
    folder.write_part(pa.Table.from_pylist(complete, REFERENCE))


def reference_logprobs(
    compute: "Compute",
    rows: Callable[[], Iterable[Row]],
    num_examples: int,
    folder: Folder,
    tell: Callable[[TrainingPhase], Any] = lambda phase: None,
) -> ReferenceLogprobs:
    """The reference log-probabilities of one epoch of rows; those that the folder lacks are computed and added to it.

    The workers share the pass and write what they have computed, so that it continues after an interruption. `tell`
    gets how far it is, every second.
    """
    import torch
    import torch.distributed as dist

    engine, names = compute.engine, compute.objective.reference_responses
    stored = ReferenceLogprobs.read(folder)
    # Every worker must compute the same batches, or one would wait for the others for ever.
    found = torch.tensor([len(stored), -len(stored)], device=engine.device)
    dist.all_reduce(found, op=dist.ReduceOp.MIN)
    if found[0] != -found[1]:
        stored = ReferenceLogprobs()
    own: list[Row] = []
    num_done, told_at = 0, 0.0
    engine.eval()
    with torch.no_grad():
        for step in steps(itertools.islice(rows(), num_examples), compute.examples_at_once):
            if time.monotonic() - told_at >= _TELL_S:
                told_at = time.monotonic()
                tell(TrainingPhase("reference pass", num_done, num_examples))
            num_done += len(step)
            if all(reference_key(row, names) in stored for row in step):
                continue
            for batch in compute.micro_batches(step, names):
                values = [of_name.tolist() for of_name in compute.logprobs(batch, step, names).values()]
                for row, *of_row in zip(batch, *values, strict=True):
                    named = dict(zip(names, of_row, strict=True))
                    own.append({"question_id": row["question_id"], "key": reference_key(row, names)} | named)
            if len(own) >= _ROWS_PER_PART:
                add_references(folder, own)
                own = []
    if own:
        add_references(folder, own)
    dist.barrier()
    return ReferenceLogprobs.read(folder)

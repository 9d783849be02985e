"""Reference log-probabilities: what the initial model of a training gives each response, computed once.

They lie in the run directory, a row per example, in a folder named by the model's fingerprint. A row is found by the
token ids of its prompt and responses. So a training that continues after a crash computes nothing twice, and stored
values are never used for other examples or another model.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from east_ray.storage import Folder

#: Log-probabilities in nats, summed over a response's tokens; null where the objective does not need them.
REFERENCE = pa.schema(
    [
        pa.field("question_id", pa.string()),
        pa.field("key", pa.string()),  # of the token ids, see `key`
        pa.field("chosen", pa.float64()),
        pa.field("rejected", pa.float64()),
        pa.field("mismatched", pa.float64()),
    ]
)


def key(row: Mapping[str, Any], names: Sequence[str]) -> str:
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
        self._values = {name: table[name].to_numpy().astype(float)[first] for name in REFERENCE.names[2:]}

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


def read(folder: Folder) -> ReferenceLogprobs:
    """Everything that was computed with one model, from the folder of its fingerprint."""
    return ReferenceLogprobs(folder.read(REFERENCE))


def add(folder: Folder, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows of REFERENCE to the folder, as a new part."""
    complete = [{name: row.get(name) for name in REFERENCE.names} for row in rows]
    folder.write_part(pa.Table.from_pylist(complete, REFERENCE))

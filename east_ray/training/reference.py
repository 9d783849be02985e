"""Reference log-probabilities: what the model that training begins with thinks of each response, computed once.

They lie in the run directory, a row per example, in a folder named by the model's fingerprint; a row is found by the
token ids of its prompt and responses. So nothing is computed again when a training goes on after a crash, and nothing
is taken for what it is not when the examples or the model have changed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from east_ray.storage import Folder

#: Log-probabilities in nats, summed over a response's tokens; null where the objective does not ask for it.
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
    """What identifies a TOKENIZED row to its reference: a digest of its prompt's and the named responses' token ids."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ("prompt", *names):
        ids = np.asarray(row[name], dtype=np.int32)
        digest.update(f"{name} {len(ids)} ".encode())
        digest.update(ids.tobytes())
    return digest.hexdigest()


class ReferenceLogprobs:
    """Reference log-probabilities by key, in 56 bytes an example."""

    def __init__(self, table: pa.Table | None = None) -> None:
        """Of a table of REFERENCE; a key that is there twice counts once."""
        table = REFERENCE.empty_table() if table is None else table
        keys = np.asarray(table["key"].to_numpy(zero_copy_only=False), dtype="S32")
        self._keys, first = np.unique(keys, return_index=True)
        values = [table[name].to_numpy().astype(float) for name in ("chosen", "rejected", "mismatched")]
        self._values = np.stack(values, axis=1)[first]

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, wanted: str) -> bool:
        return bool(self._keys[self._place(wanted)] == wanted.encode()) if len(self._keys) else False

    def __getitem__(self, wanted: str) -> npt.NDArray[np.float64]:
        """(3,) log-probabilities of the chosen, rejected and mismatched response; NaN where none. Raises KeyError."""
        if wanted not in self:
            raise KeyError(wanted)
        found: npt.NDArray[np.float64] = self._values[self._place(wanted)]
        return found

    def _place(self, wanted: str) -> int:
        return min(int(np.searchsorted(self._keys, wanted.encode())), len(self._keys) - 1)


def read(folder: Folder) -> ReferenceLogprobs:
    """All that was computed with one model: the folder of its fingerprint."""
    return ReferenceLogprobs(folder.read(REFERENCE))


def add(folder: Folder, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of REFERENCE beside those that are there."""
    complete = [{name: row.get(name) for name in REFERENCE.names} for row in rows]
    folder.write_part(pa.Table.from_pylist(complete, REFERENCE))

"""Rows of the same question, wherever they are in the files, put together: an exchange through files on the disk.

Tasks that read the files deal their rows into buckets, by a hash of what the rows of a question share. They write all
buckets into one file of the Arrow format, a batch for each. Then other tasks each read some of the buckets from all
files. A task holds _DEALT_BYTES or a bucket in memory, whatever the number of questions, and nothing is kept in the
object store; the files take about as much disk as the input.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from east_ray.records import SAMPLES
from east_ray.storage import Folder

#: Bytes of rows that a task deals at once; bytes of a file for which there is one bucket more, and the most buckets.
_DEALT_BYTES, _BYTES_OF_BUCKET, _MAX_BUCKETS = 64 << 20, 8 << 20, 2048
#: The fewest buckets: texts that repeat each other may be a thousand times larger in memory than in their file.
_MIN_BUCKETS = 16
#: Bytes in memory of the buckets that one task puts together, if not a single one is larger.
_GATHERED_BYTES = 64 << 20
#: A compressed byte of input may become this many.
_COMPRESSION = 8

#: A row of the input: a sample with some of its responses.
DEALT = pa.schema(
    [
        *SAMPLES,
        pa.field("group", pa.binary(16)),  # a hash of what the rows of a question share
        pa.field("file", pa.int32()),  # with `row`, the order of the responses
        pa.field("row", pa.int64()),
    ]
)


def number_of_buckets(plain_bytes: int, compressed_bytes: int) -> int:
    """How many buckets files of this size are dealt into."""
    return min(_MAX_BUCKETS, _MIN_BUCKETS + (plain_bytes + _COMPRESSION * compressed_bytes) // _BYTES_OF_BUCKET)


def hash_of(group: str) -> bytes:
    """The hash by which rows of a question are found again."""
    return hashlib.blake2b(group.encode(), digest_size=16).digest()


class Dealer:
    """Deals the rows of one task into `num_buckets` buckets, in files of a folder whose names begin with `name`."""

    def __init__(self, folder: Folder, name: str, num_buckets: int) -> None:
        self.folder, self.name, self.num_buckets = folder, name, num_buckets
        self.num_files = 0
        self.bucket_bytes = np.zeros(num_buckets, np.int64)
        self._held: list[pa.Table] = []
        self._num_bytes = 0

    def add(self, table: pa.Table) -> None:
        """Deal a table of DEALT."""
        self._held.append(table)
        self._num_bytes += table.nbytes
        if self._num_bytes >= _DEALT_BYTES:
            self.write()

    def write(self) -> None:
        """Write what is held. To be called at the end."""
        if not self._num_bytes:
            return
        table, self._held, self._num_bytes = pa.concat_tables(self._held).combine_chunks(), [], 0
        buckets = _buckets(table["group"], self.num_buckets)
        order, counts = np.argsort(buckets, kind="stable"), np.bincount(buckets, minlength=self.num_buckets)
        table = table.take(pa.array(order)).combine_chunks()
        sink, end = pa.BufferOutputStream(), 0
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(sink, DEALT, options=options) as writer:
            for bucket, count in enumerate(counts):
                batch = (table.slice(end, count).to_batches() or [_EMPTY])[0]
                # A batch for each bucket, an empty one too: a bucket is found by the number of its batch.
                writer.write_batch(batch)
                self.bucket_bytes[bucket] += batch.nbytes
                end += count
        self.folder.write_bytes(f"{self.name}-{self.num_files:04d}.arrow", sink.getvalue())
        self.num_files += 1


_EMPTY = pa.RecordBatch.from_pylist([], DEALT)


def _buckets(hashes: pa.ChunkedArray, num_buckets: int) -> Any:
    """The bucket of each row."""
    joined = b"".join(hashes.to_pylist())
    return np.frombuffer(joined, "<u8")[::2] % num_buckets


def bucket_groups(bucket_bytes: Sequence[int]) -> list[tuple[int, int]]:
    """Buckets [start, stop) for each task that puts rows together."""
    groups, start, num_bytes = list[tuple[int, int]](), 0, 0
    for bucket, size in enumerate(bucket_bytes):
        if num_bytes and num_bytes + size > _GATHERED_BYTES:
            groups.append((start, bucket))
            start, num_bytes = bucket, 0
        num_bytes += size
    return [*groups, (start, len(bucket_bytes))] if num_bytes else groups


class Gathered(NamedTuple):
    """Whole questions, and those whose rows do not agree about question or reference."""

    samples: pa.Table
    """records.SAMPLES."""
    rows: pa.ChunkedArray
    """The first row of each."""
    contradicting: pa.Array
    """For each whose rows have several questions or references: question or reference_answer, and two of these."""


def gather(folder: Folder, start: int, stop: int) -> Gathered:
    """The questions of buckets [start, stop), each with all its responses in the order of files and rows."""
    batches = [_EMPTY]
    for name in folder.names():
        with folder.filesystem.open_input_file(f"{folder.path}/{name}") as file:
            reader = pa.ipc.open_file(file)
            batches += [reader.get_batch(bucket) for bucket in range(start, stop)]
    return whole_questions(pa.Table.from_batches(batches))


def whole_questions(dealt: pa.Table) -> Gathered:
    """Rows of DEALT -> a row for each group, in the order of the first rows."""
    order = pc.sort_indices(dealt.select(["file", "row"]), [("file", "ascending"), ("row", "ascending")])
    groups = dealt["group"].take(order).cast(pa.binary()).combine_chunks()
    codes = groups.dictionary_encode().indices.to_numpy()
    # Groups by their first rows, and in each the rows in their order.
    by_group = np.argsort(codes, kind="stable")
    dealt = dealt.take(order.take(pa.array(by_group))).combine_chunks()
    codes = codes[by_group]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    first = dealt.take(pa.array(starts))
    responses = pa.concat_arrays(dealt["responses"].chunks) if dealt.num_rows else _EMPTY["responses"]
    ends = np.concatenate([[0], np.cumsum(pc.list_value_length(responses).to_numpy())]).astype(np.int32)
    offsets = np.append(ends[starts], ends[-1])
    columns: dict[str, Any] = {name: first[name] for name in SAMPLES.names}
    columns["responses"] = pa.ListArray.from_arrays(pa.array(offsets), responses.flatten())
    columns["num_responses"] = pa.array(np.diff(offsets).astype(np.int32))
    contradicting: list[list[str] | None] = [None] * len(starts)
    for name in ("reference_answer", "question"):
        columns[name], differing = _agreed(dealt[name], codes, len(starts))
        for group, two in differing.items():
            contradicting[group] = [name, *two]
    columns["question"] = pc.fill_null(columns["question"], "")
    samples = pa.table({name: columns[name] for name in SAMPLES.names}, schema=SAMPLES)
    return Gathered(samples, first["row"], pa.array(contradicting, pa.list_(pa.string())))


def _agreed(values: pa.ChunkedArray, codes: Any, num_groups: int) -> tuple[pa.Array, dict[int, list[str]]]:
    """The first value of each group that is there and not empty; of groups that have another one, both."""
    encoded = pc.fill_null(values, "").combine_chunks().dictionary_encode()
    numbers = encoded.indices.to_numpy()
    empty = pc.index(encoded.dictionary, "").as_py()
    there = np.flatnonzero(numbers != empty)
    found = np.full(num_groups, -1, np.int64)
    found[codes[there][::-1]] = numbers[there][::-1]  # the first is written last
    others = there[numbers[there] != found[codes[there]]][::-1]
    second = dict(zip(codes[others].tolist(), numbers[others].tolist(), strict=True))
    differing = {group: encoded.dictionary.take([found[group], other]).to_pylist() for group, other in second.items()}
    return encoded.dictionary.take(pa.array(found, mask=found < 0)), differing

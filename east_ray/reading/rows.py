"""The rows of a file, in pieces that are each read by one task.

A row that cannot be read is a sentence in its place, which says why; the others go on.
"""

import io
import itertools
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from east_ray.config import InputError

#: Bytes of a file that one task reads.
PIECE_BYTES = 32 << 20
#: Rows of a Parquet file that are in memory as Python objects; a longer line of JSONL cannot be read.
_ROWS_AT_ONCE, _MAX_ROW_BYTES = 64, 1 << 28

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Piece:
    """What one task reads: lines that begin in bytes [start, stop) of a JSONL file, or row groups of a Parquet file."""

    path: str
    start: int
    stop: int
    first_row: int  # number of its first line or row in the file, from 1


def pieces_of(filesystem: pyarrow.fs.FileSystem, file: pyarrow.fs.FileInfo) -> Iterator[Piece]:
    """The pieces of a file. The `first_row` of a JSONL file's pieces is not known yet, and is 1 in all of them.

    Raises InputError if the file cannot be read.
    """
    if not file.path.endswith(".parquet"):
        for start in range(0, file.size, PIECE_BYTES):
            yield Piece(file.path, start, min(start + PIECE_BYTES, file.size), 1)
        return
    try:
        metadata = pq.read_metadata(file.path, filesystem=filesystem)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{file.path}: cannot be read as parquet: {str(error).splitlines()[0]}") from error
    start, first_row, num_rows, num_bytes = 0, 1, 0, 0
    for group in range(metadata.num_row_groups):
        num_rows += metadata.row_group(group).num_rows
        num_bytes += metadata.row_group(group).total_byte_size
        if num_bytes >= PIECE_BYTES or group == metadata.num_row_groups - 1:
            yield Piece(file.path, start, group + 1, first_row)
            start, first_row, num_rows, num_bytes = group + 1, first_row + num_rows, 0, 0


def counts_lines(piece: Piece) -> bool:
    """Whether the `first_row` of the pieces that follow is known only once the lines of this one are counted."""
    return not piece.path.endswith(".parquet")


def num_lines(filesystem: pyarrow.fs.FileSystem, piece: Piece) -> int:
    """The number of lines that begin in a piece, empty ones too."""
    return sum(1 for _ in _lines(filesystem, piece))


def rows_of(
    filesystem: pyarrow.fs.FileSystem, piece: Piece, columns: Collection[str], required: Collection[str] = ()
) -> Iterator[tuple[int, Row | str]]:
    """(number, row) of a piece; in place of a row that cannot be read, the sentence that says why.

    Of a Parquet file only `columns` are read. Raises InputError if such a file cannot be read, or has not all columns
    that are `required`.
    """
    if piece.path.endswith(".parquet"):
        yield from enumerate(_parquet_rows(filesystem, piece, columns, required), start=piece.first_row)
    else:
        lines = enumerate(_lines(filesystem, piece), start=piece.first_row)
        yield from ((number, _parsed(line)) for number, line in lines if line is None or line.strip())


def _lines(filesystem: pyarrow.fs.FileSystem, piece: Piece) -> Iterator[bytes | None]:
    """The lines that begin in the piece, without their ends; None in place of a line of more than _MAX_ROW_BYTES."""
    with io.BufferedReader(filesystem.open_input_file(piece.path), 1 << 20) as file:
        if piece.start:
            file.seek(piece.start - 1)
            _skip_line(file)
        while file.tell() < piece.stop and (line := file.readline(_MAX_ROW_BYTES)):
            if not line.endswith(b"\n") and len(line) == _MAX_ROW_BYTES:
                _skip_line(file)
                yield None
            else:
                yield line.rstrip(b"\r\n")


def _skip_line(file: io.BufferedReader) -> None:
    while (part := file.readline(1 << 20)) and not part.endswith(b"\n"):
        pass


def _parsed(line: bytes | None) -> Row | str:
    """A line of JSON as a row, or what is wrong with it."""
    if line is None:
        return f"longer than {_MAX_ROW_BYTES >> 20} MiB"
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return f"not valid JSON ({error})"
    if isinstance(row, dict):
        return row
    return f"expected a JSON object, found {'null' if row is None else type(row).__name__}"


def _parquet_rows(
    filesystem: pyarrow.fs.FileSystem, piece: Piece, columns: Collection[str], required: Collection[str]
) -> Iterator[Row]:
    try:
        with filesystem.open_input_file(piece.path) as file:
            # Buffered, a row group is read page by page; many writers put a whole file into one.
            parquet = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
            names = parquet.schema_arrow.names
            if missing := [name for name in required if name not in names]:
                there = ", ".join(map(repr, sorted(names)))
                raise InputError(f"{piece.path}: column {missing[0]!r} is missing; found {there}")
            groups = list(range(piece.start, piece.stop))
            batches = parquet.iter_batches(_ROWS_AT_ONCE, groups, columns=_leaves(parquet, columns))
            yield from itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
    except (pa.ArrowException, OSError) as error:
        where, message = f"{piece.path}, row groups from {piece.start}", str(error).splitlines()[0]
        raise InputError(f"{where}: cannot be read ({message})") from None


def _leaves(parquet: pq.ParquetFile, columns: Collection[str]) -> list[str]:
    """What to read of columns. Token ids, as another run's samples have them, are more than all the rest, and of no
    use."""
    inside = [parquet.schema.column(number).path for number in range(len(parquet.schema))]
    wanted = [path for path in inside if path in columns or path.split(".")[0] in columns]
    return [path for path in wanted if path in columns or "token_ids" not in path.split(".")[1:]]

"""The files of given samples, in pieces that tasks read.."""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from east_ray.config import InputError, SamplesConfig
from east_ray.storage import locate

#: Of a file, read by one task; and of the responses that it holds in memory before it writes them as a part.
PIECE_BYTES, PART_BYTES = 32 << 20, 16 << 20


MAX_ROW_BYTES = 1 << 28


Row = Mapping[str, Any]


class MalformedRowError(ValueError):
    """A row of given samples cannot be read; the message says what was expected."""


def kind_of(value: Any) -> str:
    """What a value is, for a message."""
    return "null" if value is None else type(value).__name__


@dataclass(frozen=True)
class Piece:
    """What one task reads: lines that begin in bytes [start, stop) of a JSONL file, or row groups of a Parquet file."""

    path: str
    """Inside of the file system."""
    prefix: str
    """Of the names of its questions."""
    start: int
    stop: int
    first_row: int
    """Number of its first line or row in the file, from 1."""

    @property
    def is_parquet(self) -> bool:
        """Whether `start` and `stop` count row groups."""
        return self.path.endswith(".parquet")


def find_files(config: SamplesConfig) -> tuple[pyarrow.fs.FileSystem, list[pyarrow.fs.FileInfo]]:
    """The file system and the files of given samples, by name. Raises InputError if there is none or it is empty."""
    filesystem, inner = locate(config.path)
    info = filesystem.get_file_info(inner.rstrip("/"))
    match info.type:
        case pyarrow.fs.FileType.NotFound:
            raise InputError(f"samples.path: {config.path} does not exist; expected a .jsonl or .parquet file")
        case pyarrow.fs.FileType.Directory:
            found = filesystem.get_file_info(pyarrow.fs.FileSelector(inner))
            files = [file for file in found if not file.base_name.startswith((".", "_")) and _is_known(file)]
        case _:
            if not _is_known(info):
                raise InputError(f"samples.path: {config.path}: expected .jsonl or .parquet, found {info.base_name!r}")
            files = [info]
    files = sorted((file for file in files if file.size), key=lambda file: str(file.path))
    if not files:
        raise InputError(f"samples.path: {config.path} is empty; expected questions with responses")
    return filesystem, files


def _is_known(file: pyarrow.fs.FileInfo) -> bool:
    return str(file.base_name).endswith((".jsonl", ".parquet"))


def stamp(config: SamplesConfig) -> list[list[Any]]:
    """Name, size and time of each file: whether they are those that were taken. Raises InputError as `find_files`."""
    return [[file.path, file.size, file.mtime_ns] for file in find_files(config)[1]]


def pieces_of(filesystem: pyarrow.fs.FileSystem, file: pyarrow.fs.FileInfo, prefix: str) -> Iterator[Piece]:
    """The pieces of a file. Those of a JSONL file do not know their first row yet: it is 1 for all."""
    if not file.path.endswith(".parquet"):
        for start in range(0, file.size, PIECE_BYTES):
            yield Piece(file.path, prefix, start, min(start + PIECE_BYTES, file.size), 1)
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
            yield Piece(file.path, prefix, start, group + 1, first_row)
            start, first_row, num_rows, num_bytes = group + 1, first_row + num_rows, 0, 0


def lines_of(filesystem: pyarrow.fs.FileSystem, piece: Piece) -> Iterator[bytes | None]:
    """The lines that begin in the piece, without their ends; None in place of one of more than MAX_ROW_BYTES."""
    with io.BufferedReader(filesystem.open_input_file(piece.path), 1 << 20) as file:
        if piece.start:
            file.seek(piece.start - 1)
            _skip_line(file)
        while file.tell() < piece.stop:
            line = file.readline(MAX_ROW_BYTES)
            if not line:
                return
            if not line.endswith(b"\n") and len(line) == MAX_ROW_BYTES:
                _skip_line(file)
                yield None
            else:
                yield line.rstrip(b"\r\n")


def _skip_line(file: io.BufferedReader) -> None:
    while (part := file.readline(1 << 20)) and not part.endswith(b"\n"):
        pass


def parsed_line(line: bytes | None) -> Row | MalformedRowError:
    """The row of a JSON line, or what is wrong with it."""
    if line is None:
        return MalformedRowError(f"longer than {MAX_ROW_BYTES >> 20} MiB")
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return MalformedRowError(f"not valid JSON ({error})")
    if not isinstance(row, dict):
        return MalformedRowError(f"expected a JSON object, found {kind_of(row)}")
    return row

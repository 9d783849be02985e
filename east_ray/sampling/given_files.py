"""The files of given samples -> pieces that tasks read -> rows."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from east_ray.config import InputError, SamplesConfig
from east_ray.sampling.given_rows import MalformedRowError, Row, cell, given_sample, kind_of
from east_ray.storage import locate

#: Bytes of a file that one task reads.
PIECE_BYTES = 32 << 20
#: Rows of a Parquet file that are in memory as Python objects.
ROWS_AT_ONCE = 64
#: A longer line of JSONL is set aside.
_MAX_ROW_BYTES = 1 << 28


@dataclass(frozen=True)
class Piece:
    """What one task reads: lines that begin in bytes [start, stop) of a JSONL file, or row groups of a Parquet file."""

    path: str
    """In its file system."""
    prefix: str
    """The names of its questions begin with this."""
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
    """Name, size and time of each file, which differ once a file has changed. Raises InputError as `find_files`."""
    return [[file.path, file.size, file.mtime_ns] for file in find_files(config)[1]]


def pieces_of(filesystem: pyarrow.fs.FileSystem, file: pyarrow.fs.FileInfo, prefix: str) -> Iterator[Piece]:
    """The pieces of a file. The `first_row` of a JSONL file's pieces is not known yet, and is 1 in all of them."""
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
    """The lines that begin in the piece, without their ends; None in place of a line of more than _MAX_ROW_BYTES."""
    with io.BufferedReader(filesystem.open_input_file(piece.path), 1 << 20) as file:
        if piece.start:
            file.seek(piece.start - 1)
            _skip_line(file)
        while file.tell() < piece.stop:
            line = file.readline(_MAX_ROW_BYTES)
            if not line:
                return
            if not line.endswith(b"\n") and len(line) == _MAX_ROW_BYTES:
                _skip_line(file)
                yield None
            else:
                yield line.rstrip(b"\r\n")


def _skip_line(file: io.BufferedReader) -> None:
    while (part := file.readline(1 << 20)) and not part.endswith(b"\n"):
        pass


def piece_rows(
    filesystem: pyarrow.fs.FileSystem, piece: Piece, columns: SamplesConfig
) -> Iterator[tuple[int, Row | MalformedRowError]]:
    """(number, row) of a piece, with an error in place of a line that is no row; empty lines are skipped."""
    if piece.is_parquet:
        yield from _parquet_rows(filesystem, piece, columns)
        return
    for number, line in enumerate(lines_of(filesystem, piece), start=piece.first_row):
        if line is None or line.strip():
            yield number, _parsed_line(line)


def _parquet_rows(filesystem: pyarrow.fs.FileSystem, piece: Piece, columns: SamplesConfig) -> Iterator[tuple[int, Row]]:
    required = (columns.question_column, columns.reference_answer_column, columns.responses_column)
    wanted = {*required, columns.id_column, "level", "subject", "type", "extra"}
    number = piece.first_row
    groups = list(range(piece.start, piece.stop))
    try:
        with filesystem.open_input_file(piece.path) as file:
            # Buffered, a row group is read page by page; many writers put a whole file into one.
            parquet = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
            found = parquet.schema_arrow.names
            for column in required:
                if column not in found:
                    cell(dict.fromkeys(found), column)
            names = [name for name in found if name in wanted]
            for batch in parquet.iter_batches(ROWS_AT_ONCE, groups, columns=names):
                for row in batch.to_pylist():
                    yield number, row
                    number += 1
    except MalformedRowError as error:
        raise InputError(f"samples.path: {piece.path}: {error}") from None
    except (pa.ArrowException, OSError) as error:
        message = str(error).splitlines()[0]
        raise InputError(
            f"samples.path: {piece.path}, row groups from {piece.start}: cannot be read ({message})"
        ) from None


def _parsed_line(line: bytes | None) -> Row | MalformedRowError:
    """The row of a JSON line, or what is wrong with it."""
    if line is None:
        return MalformedRowError(f"longer than {_MAX_ROW_BYTES >> 20} MiB")
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return MalformedRowError(f"not valid JSON ({error})")
    if not isinstance(row, dict):
        return MalformedRowError(f"expected a JSON object, found {kind_of(row)}")
    return row


def sound(row: Row | MalformedRowError) -> Row:
    """The row; raises the error that stands in its place."""
    if isinstance(row, MalformedRowError):
        raise row
    return row


def check_columns(config: SamplesConfig) -> None:
    """Raises InputError unless the first row can be read: a wrong name would set every row aside."""
    filesystem, files = find_files(config)
    for file in files:
        for piece in pieces_of(filesystem, file, ""):
            for number, row in piece_rows(filesystem, piece, config):
                try:
                    given_sample(sound(row), config, "")
                except MalformedRowError as error:
                    raise InputError(f"samples.path: {file.path}, row {number}: {error}") from None
                return
    raise InputError(f"samples.path: {config.path} is empty; expected questions with responses")

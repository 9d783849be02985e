"""The rows of a file, in pieces that are each read by one task.

A row that cannot be read is a sentence in its place, which says why; the others go on.
"""

import io
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSystem

from east_ray.config import InputError
from east_ray.reading import tables, text
from east_ray.reading.files import form_of, partitions
from east_ray.reading.text import Row

__all__ = ["Piece", "Row", "counts_lines", "num_lines", "pieces_of", "rows_of", "rows_of_file"]

#: Bytes of a file that one task reads.
PIECE_BYTES = 32 << 20
#: What stands in a repository in place of a large file, and the most bytes that this has.
_POINTER, _MAX_POINTER_BYTES = b"version https://git-lfs", 1024


@dataclass(frozen=True)
class Piece:
    """What one task reads: lines that begin in bytes [start, stop) of a file, row groups of Parquet, or a whole file.

    `kind` and `compression` are those of `files.Form`; json is a document, lines a row of JSON on each line.
    """

    path: str
    kind: str
    compression: str | None
    encoding: str
    start: int
    stop: int
    first_row: int  # number of its first line or row in the file, from 1


def pieces_of(filesystem: FileSystem, file: FileInfo, encoding: str = "utf-8") -> Iterator[Piece]:
    """The pieces of a file. If `counts_lines` holds for them, their `first_row` is not known yet, and is 1 in all.

    Raises InputError if the file cannot be read, or is not in the encoding.
    """
    form = form_of(filesystem, file.path)
    assert form is not None, f"{file.path} is not one of those that find_files finds"
    kind, compression = form
    with _said(file.path, kind, encoding):
        if file.size < _MAX_POINTER_BYTES and filesystem.open_input_stream(file.path).read().startswith(_POINTER):
            raise InputError("found a pointer of Git LFS in place of the file, which `git lfs pull` fetches")
        if kind == "parquet":
            yield from _parquet_pieces(filesystem, file.path, compression)
            return
        if kind != "arrow":
            with text.open_bytes(filesystem, file.path, compression) as opened:
                text.check_text(opened, encoding)
        if kind in ("lines", "json"):
            with text.open_bytes(filesystem, file.path, compression) as opened:
                is_document = text.is_document(opened, encoding, ends_in_json=kind == "json")
            kind = "json" if is_document else "lines"
        whole = kind != "lines" or compression is not None or text.is_wide(encoding)
        size = sys.maxsize if whole else PIECE_BYTES
        for start in range(0, 1 if whole else file.size, size):
            yield Piece(file.path, kind, compression, encoding, start, start + size, 1)


def _parquet_pieces(filesystem: FileSystem, path: str, compression: str | None) -> Iterator[Piece]:
    with tables.open_table(filesystem, path, compression) as file:
        groups = tables.row_groups(file)
    start, first_row, num_rows, num_bytes = 0, 1, 0, 0
    for number, (rows, size) in enumerate(groups, start=1):
        num_rows, num_bytes = num_rows + rows, num_bytes + size
        if number == len(groups) or (num_bytes >= PIECE_BYTES and compression is None):
            yield Piece(path, "parquet", compression, "utf-8", start, number, first_row)
            start, first_row, num_rows, num_bytes = number, first_row + num_rows, 0, 0


def counts_lines(piece: Piece) -> bool:
    """Whether the `first_row` of the pieces that follow is known only once the lines of this one are counted."""
    return piece.kind == "lines"


def num_lines(filesystem: FileSystem, piece: Piece) -> int:
    """The number of lines that begin in a piece, empty ones too."""
    return sum(1 for _ in _lines(filesystem, piece))


def rows_of(
    filesystem: FileSystem, piece: Piece, columns: Collection[str] | None = None
) -> Iterator[tuple[int, Row | str]]:
    """(number, row) of a piece, without empty lines; in place of a row that cannot be read, the sentence that says why.

    Of tables only `columns` are read, if these are given; their names may have dots. Folders' names may add columns.
    Raises InputError if the file is damaged or not in the encoding.
    """
    added = partitions(piece.path)
    with _said(piece.path, piece.kind, piece.encoding):
        for number, row in _numbered(filesystem, piece, columns):
            yield number, {**added, **row} if added and isinstance(row, dict) else row


def rows_of_file(filesystem: FileSystem, file: FileInfo, encoding: str = "utf-8") -> Iterator[tuple[int, Row | str]]:
    """(number, row) of a file, as `rows_of` gives them, one piece after another."""
    for piece in pieces_of(filesystem, file, encoding):
        if counts_lines(piece):
            yield from rows_of(filesystem, replace(piece, stop=sys.maxsize))
            return
        yield from rows_of(filesystem, piece)


def _numbered(filesystem: FileSystem, piece: Piece, columns: Collection[str] | None) -> Iterator[tuple[int, Row | str]]:
    if piece.kind == "lines":
        yield from _line_rows(filesystem, piece)
    elif piece.kind in ("parquet", "arrow"):
        is_arrow = piece.kind == "arrow"
        with tables.open_table(filesystem, piece.path, piece.compression, is_arrow=is_arrow) as file:
            if is_arrow:
                rows = tables.arrow_rows(file, columns)
            else:
                rows = tables.parquet_rows(file, range(piece.start, piece.stop), columns)
            yield from enumerate(rows, start=piece.first_row)
    else:
        with text.open_bytes(filesystem, piece.path, piece.compression) as file:
            opened = io.TextIOWrapper(file, text.codec_of(piece.encoding), newline="" if piece.kind != "json" else None)
            rows = text.document_rows(opened) if piece.kind == "json" else text.csv_rows(opened, piece.kind)
            yield from enumerate(rows, start=1)


def _line_rows(filesystem: FileSystem, piece: Piece) -> Iterator[tuple[int, Row | str]]:
    codec = "utf-8" if text.is_wide(piece.encoding) else text.codec_of(piece.encoding)
    is_checked = False
    for number, line in enumerate(_lines(filesystem, piece), start=piece.first_row):
        if line is None:
            yield number, f"longer than {text.MAX_ROW_BYTES >> 20} MiB"
            continue
        try:
            decoded = line.decode(codec)
        except UnicodeDecodeError:
            if not is_checked:
                text.check_lines(_lines(filesystem, piece), piece.encoding)
            is_checked = True
            yield number, f"not text in the encoding {piece.encoding}"
            continue
        if decoded.strip():
            yield number, text.parsed(decoded)


def _lines(filesystem: FileSystem, piece: Piece) -> Iterator[bytes | None]:
    with text.open_bytes(filesystem, piece.path, piece.compression) as file:
        if text.is_wide(piece.encoding):
            yield from text.lines_of_wide(file, piece.encoding)
        else:
            yield from text.lines_between(file, piece.start, piece.stop)


@contextmanager
def _said(path: str, kind: str, encoding: str) -> Iterator[None]:
    """Around what reads a file: its errors become an InputError that names the file and is one sentence."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {text.not_in(encoding, bytes(error.object))}") from error
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as {kind} ({str(error).splitlines()[0]})") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error

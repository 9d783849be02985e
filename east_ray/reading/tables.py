"""Rows in Parquet and Arrow files, a few at a time: so many as their bytes allow."""

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from pyarrow import types

from east_ray.config import InputError
from east_ray.reading.text import Row, open_bytes

#: Bytes of rows that are in memory at the same time, unless one row has more; and the most rows.
_BATCH_BYTES, _BATCH_ROWS = 16 << 20, 1024


@contextmanager
def open_table(
    filesystem: pyarrow.fs.FileSystem, path: str, compression: str | None, *, is_arrow: bool = False
) -> Iterator[Any]:
    """A file that one can seek in; a compressed one is written out first.

    A local Arrow file is mapped into memory, because a batch in it may be larger than the memory.
    """
    if compression is not None:
        with tempfile.TemporaryFile() as whole, open_bytes(filesystem, path, compression) as file:
            shutil.copyfileobj(file, whole, 1 << 20)
            whole.seek(0)
            yield pa.PythonFile(whole, mode="r")
    elif is_arrow and isinstance(filesystem, pyarrow.fs.LocalFileSystem):
        with pa.memory_map(path) as mapped:
            yield mapped
    else:
        with filesystem.open_input_file(path) as file:
            yield file


def row_groups(file: Any) -> list[tuple[int, int]]:
    """(rows, bytes before compression) of each row group of a Parquet file."""
    metadata = pq.ParquetFile(file).metadata
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    return [(group.num_rows, group.total_byte_size) for group in groups]


def parquet_rows(file: Any, groups: Collection[int], columns: Collection[str] | None) -> Iterator[Row | str]:
    """The rows of some row groups, with these columns, or all."""
    # Buffered, a row group is read page by page; many writers put a whole file into one.
    parquet = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
    _check_names(parquet.schema_arrow)
    paths = [parquet.schema.column(number).path for number in range(len(parquet.schema))]
    leaves = _leaves(paths, columns)
    for group in groups:
        metadata = parquet.metadata.row_group(group)
        encoded = sum(metadata.column(paths.index(leaf)).total_uncompressed_size for leaf in leaves)
        # Of texts that repeat themselves, the file has one: the first row says what its rows are in memory.
        first = next(parquet.iter_batches(1, [group], columns=leaves), None)
        row_bytes = max(encoded // max(1, metadata.num_rows), first.nbytes if first is not None else 0, 1)
        num_rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // row_bytes))
        for batch in parquet.iter_batches(num_rows, [group], columns=leaves):
            yield from _rows(batch)


def arrow_rows(file: Any, columns: Collection[str] | None) -> Iterator[Row | str]:
    """The rows of an Arrow file or stream, with these columns, or all."""
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    reader = pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
    _check_names(reader.schema)
    names = [name for name in reader.schema.names if columns is None or _meant(name, columns)]
    batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else reader
    for batch in batches:
        part = batch.select(names or reader.schema.names)
        num_rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES * part.num_rows // max(1, part.nbytes)))
        for start in range(0, part.num_rows, num_rows):
            yield from _rows(part.slice(start, num_rows))


def _meant(column: str, names: Collection[str]) -> bool:
    """Whether one of the names is this column, or leads into it."""
    return any(f"{name}.".startswith(f"{column}.") for name in names)


def _leaves(paths: list[str], columns: Collection[str] | None) -> list[str]:
    """What to read of a Parquet file, or all if it has none of these columns.

    Token ids, as another run's samples have them, are more than all the rest, and of no use.
    """
    wanted = [
        path
        for path in paths
        if columns is None or any(f"{path}.".startswith(f"{one}.") for one in _prefixes(paths, columns))
    ]
    return [path for path in wanted or paths if "token_ids" not in path.split(".")[1:]] or paths


def _prefixes(paths: list[str], columns: Collection[str]) -> set[str]:
    """Of each name, what is there of it: ``choices`` of ``choices.0.text``, where `choices` is a list."""
    found = set[str]()
    for name in columns:
        parts = name.split(".")
        begun = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        found.update([next((one for one in begun if any(f"{path}.".startswith(f"{one}.") for path in paths)), name)])
    return found


def _check_names(schema: pa.Schema) -> None:
    if repeated := [name for name in schema.names if schema.names.count(name) > 1]:
        raise InputError(f"the column {repeated[0]!r} occurs twice")


def plain_rows(batch: pa.RecordBatch | pa.Table) -> list[Row]:
    """The rows of a batch as dictionaries, and so are maps in them. A short float is 0.1 and not 0.10000000149."""
    rows: list[Row] = batch.to_pylist(maps_as_pydicts="lossy")
    for column in batch.schema:
        if "float" in str(column.type):  # one of 64 bits is a double
            for row in rows:
                row[column.name] = _shortest(row[column.name], column.type)
    return rows


def _shortest(value: Any, kind: pa.DataType) -> Any:
    """A value of this type, with the shortest decimals that mean its floats of 16 and 32 bits."""
    if value is None or types.is_float16(kind) or types.is_float32(kind):
        return value if value is None else float(str((np.float16 if types.is_float16(kind) else np.float32)(value)))
    if types.is_struct(kind):
        return {one.name: _shortest(value[one.name], one.type) for one in kind}
    if types.is_map(kind):
        return {name: _shortest(one, kind.item_type) for name, one in value.items()}
    return [_shortest(one, kind.value_type) for one in value] if isinstance(value, list) else value


def _rows(batch: pa.RecordBatch) -> Iterator[Row | str]:
    """The rows of a batch; in place of one with a value that Python cannot have, such as broken text, what is wrong."""
    try:
        yield from plain_rows(batch)
        return
    except (ValueError, OverflowError):
        pass
    for number in range(batch.num_rows):
        try:
            yield from plain_rows(batch.slice(number, 1))
        except (ValueError, OverflowError) as error:
            yield f"cannot be read ({str(error).splitlines()[0]})"

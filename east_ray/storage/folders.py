"""The run directory: where each stage's rows lie, which stages are done, and how files are reached.

Any path may be local or an address that pyarrow or fsspec understands (s3://, gs://, …). A stage is done when its
record stands in ``stages/``; the record is written last, so a stage that was killed is never taken for done.
"""

import functools
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from east_ray.config import InputError


def resolve_path(path: str, *, is_output: bool = False) -> str:
    """A local path made absolute; an address such as s3://bucket/run as it is.

    Inside `ray job submit` the working directory is a temporary copy that Ray deletes, so there a relative path is
    taken from the home directory of the machine that runs the job, unless it is an input that travelled with the copy.
    """
    if "://" in path:
        return path
    expanded = Path(path).expanduser()
    in_job_copy = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and "working_dir_files" in str(Path.cwd())
    if in_job_copy and (is_output or not expanded.exists()):
        return str(Path.home() / expanded)
    return str(expanded.absolute())


def locate(path: str, *, is_output: bool = False) -> tuple[pafs.FileSystem, str]:
    """The file system of a path and the path inside it. Raises InputError for an address of an unknown kind."""
    if "://" not in path:
        return pafs.LocalFileSystem(), resolve_path(path, is_output=is_output)
    try:
        filesystem, inner = pafs.FileSystem.from_uri(path)
    except pa.ArrowInvalid:
        import fsspec

        try:
            spec, inner = fsspec.core.url_to_fs(path)
        except (ValueError, ImportError) as error:
            raise InputError(f"{path}: no file system for this address ({error})") from error
        return pafs.PyFileSystem(pafs.FSSpecHandler(spec)), inner
    return filesystem, inner


#: A growing text file on an object store is written anew at this interval.
_REWRITE_S = 30.0


#: File systems whose folders are but names.
_OBJECT_STORES = ("s3", "gcs", "abfs")
#: Seconds between attempts at an operation that a remote file system has failed; its own client has tried before.
_PATIENCE_S = (0.5, 2.0, 8.0, 30.0)

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _patient(operation: Callable[Concatenate["Folder", _P], _R]) -> Callable[Concatenate["Folder", _P], _R]:
    """The operation, tried again where a remote file system fails it: a run of days meets every kind of hiccup."""

    @functools.wraps(operation)
    def patient(folder: "Folder", /, *arguments: _P.args, **keywords: _P.kwargs) -> _R:
        for pause in () if folder.is_local else _PATIENCE_S:
            try:
                return operation(folder, *arguments, **keywords)
            except (FileNotFoundError, PermissionError):
                raise
            except OSError:
                time.sleep(pause * random.uniform(0.5, 1.5))
        return operation(folder, *arguments, **keywords)

    return patient


@dataclass(frozen=True)
class Folder:
    """A folder on any file system. Parquet files in it are the parts of one table."""

    filesystem: pafs.FileSystem
    path: str

    def __truediv__(self, name: str) -> "Folder":
        return Folder(self.filesystem, f"{self.path}/{name}")

    def __str__(self) -> str:
        return self.path

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine."""
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    @property
    def exists(self) -> bool:
        """Whether there is anything at this path."""
        return bool(self.filesystem.get_file_info(self.path).type != pafs.FileType.NotFound)

    def names(self) -> list[str]:
        """Names of what lies in it, hidden files left out, in order; none if it is missing."""
        return sorted(info.base_name for info in self._infos() if not info.base_name.startswith("."))

    def parts(self) -> list[str]:
        """The table's finished Parquet files, in order of name; none if the folder is missing."""
        return list(self.part_sizes())

    def part_sizes(self) -> dict[str, int]:
        """As `parts`, with the bytes of each file."""
        return {
            info.path: info.size
            for info in sorted(self._infos(), key=lambda info: str(info.path))
            if info.path.endswith(".parquet") and not info.base_name.startswith(".")
        }

    @_patient
    def _infos(self) -> list[pafs.FileInfo]:
        found: list[pafs.FileInfo] = self.filesystem.get_file_info(pafs.FileSelector(self.path, allow_not_found=True))
        return found

    @_patient
    def has(self, name: str) -> bool:
        """Whether there is a file or folder of this name in it."""
        return bool(self.filesystem.get_file_info(f"{self.path}/{name}").type != pafs.FileType.NotFound)

    @_patient
    def read(
        self, schema: pa.Schema, columns: Sequence[str] | None = None, parts: Sequence[str] | None = None
    ) -> pa.Table:
        """These parts, or all, as one table; empty if none. A column that joined later is null in an older part."""
        names = list(columns or schema.names)
        tables = []
        for part in self.parts() if parts is None else parts:
            with self.filesystem.open_input_file(part) as file:
                parquet = pq.ParquetFile(file)
                tables.append(parquet.read([name for name in names if name in parquet.schema_arrow.names]))
        empty = pa.schema([schema.field(name) for name in names]).empty_table()
        return pa.concat_tables([empty, *tables], promote_options="permissive")

    def batches(
        self, columns: Sequence[str], parts: Sequence[str] | None = None, *, max_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """The rows of these parts, or of all, in order and at most `max_rows` at a time; no part is held whole.

        `columns` may name fields inside a column, e.g. ``responses.list.element.text``.
        """
        for part in self.parts() if parts is None else parts:
            with self.filesystem.open_input_file(part) as file:
                parquet = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
                yield from parquet.iter_batches(max_rows, columns=list(columns))

    def write_part(self, table: pa.Table, name: str | None = None) -> None:
        """Add a part, whole or not at all."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self._write(name or f"part-{uuid.uuid4().hex}.parquet", sink.getvalue())

    @_patient
    def _write(self, name: str, content: Any) -> None:
        """Write a file so that its name never stands for half of it: under a hidden name, and then moved.

        On object stores too: a stream whose upload has failed may still put what it has in place when it is collected,
        over what a second attempt has written.
        """
        if self.filesystem.type_name not in _OBJECT_STORES:  # these have no folders
            self.filesystem.create_dir(self.path, recursive=True)
        hidden = f"{self.path}/.{name}.{uuid.uuid4().hex}"
        with self.filesystem.open_output_stream(hidden) as stream:
            stream.write(content)
        written = self.filesystem.get_file_info(hidden).size
        if written != len(content):
            raise OSError(f"{hidden}: {written} of {len(content)} bytes were written")
        self.filesystem.move(hidden, f"{self.path}/{name}")

    def replace(self, table: pa.Table) -> None:
        """Make this table the folder's only content."""
        self.clear()
        self.write_part(table, "part-0.parquet")

    @_patient
    def clear(self) -> None:
        """Remove the folder with all that is in it."""
        if self.exists:
            try:
                self.filesystem.delete_dir(self.path)
            except FileNotFoundError:  # somebody else was faster
                return

    @_patient
    def remove(self, paths: Sequence[str]) -> None:
        """Remove those of these files that are there."""
        for info in self.filesystem.get_file_info(list(paths)):
            if info.type == pafs.FileType.File:
                self.filesystem.delete_file(info.path)

    def write_text(self, name: str, text: str) -> str:
        """Write a text file, whole or not at all; returns its path."""
        self._write(name, text.encode())
        return f"{self.path}/{name}"

    @contextmanager
    def lines(self, name: str) -> Iterator[Callable[[str], None]]:
        """A function that adds lines to a new text file while the block runs.

        On this machine each is there at once; elsewhere, where files do not grow, all of them every half minute.
        """
        self.write_text(name, "")
        if self.is_local:
            with Path(self.path, name).open("a", encoding="utf-8", buffering=1) as file:
                yield lambda line: print(line, file=file)
            return
        written: list[str] = []
        last = time.monotonic()

        def add(line: str) -> None:
            nonlocal last
            written.append(line + "\n")
            if time.monotonic() - last > _REWRITE_S:
                last = time.monotonic()
                self.write_text(name, "".join(written))

        try:
            yield add
        finally:
            self.write_text(name, "".join(written))

    @_patient
    def read_text(self, name: str) -> str | None:
        """A text file's content, or None if there is no such file."""
        try:
            with self.filesystem.open_input_stream(f"{self.path}/{name}") as stream:
                return bytes(stream.read()).decode()
        except FileNotFoundError:
            return None


def counts_by(table: pa.Table, column: str) -> dict[str, int]:
    """How many rows have each value of a column, in order of value."""
    counted: Sequence[Mapping[str, Any]] = table[column].value_counts().to_pylist()
    return {str(row["values"]): int(row["counts"]) for row in sorted(counted, key=lambda row: str(row["values"]))}

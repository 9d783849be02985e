"""Folders on any file system: a path is local or an address that pyarrow or fsspec knows (s3://, gs://, …)."""

import functools
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from east_ray.config import InputError
from east_ray.storage.room import full_disk_as_input_error


def resolve_path(path: str, *, is_output: bool = False) -> str:
    """A local path made absolute; an address such as s3://bucket/run unchanged.

    In a submitted Ray job the working directory is a temporary copy that Ray deletes. A relative path then starts from
    the home directory of the machine that runs the job, unless it is an input that exists in the copy.
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
    with suppress(pa.ArrowInvalid):
        filesystem, inner = pafs.FileSystem.from_uri(_with_single_requests(path))
        return filesystem, inner
    import fsspec

    try:
        filesystem, inner = fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise InputError(f"{path}: no file system for this address ({error})") from error
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), inner


def _with_single_requests(address: str) -> str:
    """The address of a folder of S3, whose small files are then written by one request and not by three."""
    if not address.startswith("s3://") or "allow_delayed_open" in address:
        return address
    return f"{address}{'&' if '?' in address else '?'}allow_delayed_open=true"


#: Bytes of a file that S3 gets in one request: Arrow cuts larger ones into parts of 10 MiB.
_SINGLE_REQUEST_BYTES = 8 << 20

#: Seconds between attempts after a remote file system has failed an operation, in addition to its client's retries.
PATIENCE_S = (0.5, 2.0, 8.0, 30.0)

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _patient(operation: Callable[Concatenate["Folder", _P], _R]) -> Callable[Concatenate["Folder", _P], _R]:
    """The operation, repeated if a remote file system fails it: in a run of days every service fails at times."""

    @functools.wraps(operation)
    def patient(folder: "Folder", /, *arguments: _P.args, **keywords: _P.kwargs) -> _R:
        for pause in () if folder.is_local else PATIENCE_S:
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
        """Whether the folder is on this machine."""
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    @property
    def exists(self) -> bool:
        """Whether the path exists."""
        return bool(self.filesystem.get_file_info(self.path).type != pafs.FileType.NotFound)

    def room_for(self, num_bytes: int | None = None) -> AbstractContextManager[None]:
        """Around what writes into it: if the disk is full, the block ends with an InputError that says so."""
        return full_disk_as_input_error(self.path, num_bytes, is_local=self.is_local)

    def names(self) -> list[str]:
        """Sorted names of the files and folders in it, without hidden ones; none if the folder is missing."""
        return sorted(info.base_name for info in self._infos())

    def parts(self) -> list[str]:
        """Paths of the table's finished Parquet files, sorted; none if the folder is missing."""
        return list(self.part_sizes())

    def part_sizes(self) -> dict[str, int]:
        """Path -> size in bytes of each finished Parquet file, sorted by path."""
        return dict(sorted((info.path, info.size) for info in self._infos() if info.path.endswith(".parquet")))

    @_patient
    def _infos(self) -> list[pafs.FileInfo]:
        """The files and folders in it, without hidden ones."""
        infos = self.filesystem.get_file_info(pafs.FileSelector(self.path, allow_not_found=True))
        return [info for info in infos if not info.base_name.startswith(".")]

    @_patient
    def has(self, name: str) -> bool:
        """Whether it contains a file or folder of this name."""
        return (self / name).exists

    @_patient
    def read(
        self, schema: pa.Schema, columns: Sequence[str] | None = None, parts: Sequence[str] | None = None
    ) -> pa.Table:
        """These parts, or all, as one table. A column that an older part does not have is null there."""
        names = list(columns or schema.names)
        tables = []
        for part in self.parts() if parts is None else parts:
            with self.filesystem.open_input_file(part) as file:
                parquet = pq.ParquetFile(file)
                tables.append(parquet.read([name for name in names if name in parquet.schema_arrow.names]))
        empty = pa.schema([schema.field(name) for name in names]).empty_table()
        return pa.concat_tables([empty, *tables], promote_options="permissive")

    @_patient
    def read_fields(self, part: str, columns: Sequence[str]) -> pa.Table:
        """Columns of a part, or fields inside of them as in `batches`; what the part does not have is left out."""
        with self.filesystem.open_input_file(part) as file:
            return pq.ParquetFile(file).read(list(columns), use_threads=False)

    def batches(
        self, columns: Sequence[str], parts: Sequence[str] | None = None, *, max_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """The rows of these parts, or of all, in order, at most `max_rows` at a time. No part is read as a whole.

        `columns` may name fields inside a column, e.g. ``responses.list.element.text``.
        """
        for part in self.parts() if parts is None else parts:
            with self.filesystem.open_input_file(part) as file:
                parquet = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
                yield from parquet.iter_batches(max_rows, columns=list(columns))

    def write_part(self, table: pa.Table, name: str | None = None) -> None:
        """Add a part; readers never see an incomplete file."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self.write_bytes(name or f"part-{uuid.uuid4().hex}.parquet", sink.getvalue())

    @_patient
    def write_bytes(self, name: str, content: Any) -> None:
        """Write a file under a hidden name and rename it, so that readers never see an incomplete file.

        Raises InputError if there is no room for it.
        Object stores need this too: a stream whose upload has failed may still write its incomplete content when Python
        frees it, over the file of a second attempt. But what S3 gets in one request is there as a whole or not at all.
        """
        if self.filesystem.type_name == "s3" and len(content) <= _SINGLE_REQUEST_BYTES:
            with self.filesystem.open_output_stream(f"{self.path}/{name}") as stream:
                stream.write(content)
            return
        hidden = f"{self.path}/.{name}.{uuid.uuid4().hex}"
        with self.room_for(len(content)):
            if self.filesystem.type_name not in ("s3", "gcs", "abfs"):  # object stores have no folders
                self.filesystem.create_dir(self.path, recursive=True)
            try:
                with self.filesystem.open_output_stream(hidden) as stream:
                    stream.write(content)
            except OSError:
                with suppress(OSError):  # the room that it takes may be all that is left
                    self.filesystem.delete_file(hidden)
                raise
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
        """Remove the folder and everything in it, if it exists."""
        with suppress(FileNotFoundError):
            self.filesystem.delete_dir(self.path)

    @_patient
    def remove(self, paths: Sequence[str]) -> None:
        """Remove these files, as far as they exist."""
        for path in paths:
            with suppress(FileNotFoundError):
                self.filesystem.delete_file(path)

    def write_text(self, name: str, text: str) -> str:
        """Write a text file, of which readers never see an incomplete state; returns its path."""
        self.write_bytes(name, text.encode())
        return f"{self.path}/{name}"

    @contextmanager
    def writing(self, name: str) -> Iterator[Any]:
        """A stream of a file that is too large for memory; readers see the file when the block ends without error."""
        hidden = f"{self.path}/.{name}.{uuid.uuid4().hex}"
        with self.room_for():
            if self.filesystem.type_name not in ("s3", "gcs", "abfs"):
                self.filesystem.create_dir(self.path, recursive=True)
            is_whole = False
            try:
                with self.filesystem.open_output_stream(hidden) as stream:
                    yield stream
                self.filesystem.move(hidden, f"{self.path}/{name}")
                is_whole = True
            finally:  # an interrupt too leaves no hidden file behind
                if not is_whole:
                    with suppress(OSError):
                        self.filesystem.delete_file(hidden)

    @contextmanager
    def lines(self, name: str) -> Iterator[Callable[[str], None]]:
        """A function that adds lines to a new text file; a remote one cannot grow, so it is rewritten at times."""
        self.write_text(name, "")
        if self.is_local:

            def append(line: str) -> None:
                # Opened for each, so that the error of a full disk is raised here.
                with self.room_for(), Path(self.path, name).open("a", encoding="utf-8") as file:
                    print(line, file=file)

            yield append
            return
        written, last = list[str](), time.monotonic()

        def add(line: str) -> None:
            nonlocal last
            written.append(line + "\n")
            if time.monotonic() - last > 30.0:
                last = time.monotonic()
                self.write_text(name, "".join(written))

        try:
            yield add
        finally:
            self.write_text(name, "".join(written))

    @_patient
    def read_text(self, name: str) -> str | None:
        """The content of a text file; None if it does not exist."""
        try:
            with self.filesystem.open_input_stream(f"{self.path}/{name}") as stream:
                return bytes(stream.read()).decode()
        except FileNotFoundError:
            return None

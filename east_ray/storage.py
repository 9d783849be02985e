"""The run directory: where each stage's rows lie, which stages are done, and how files are reached.

Any path may be local or an address that pyarrow or fsspec understands (s3://, gs://, …). A stage is done when its
record stands in ``stages/``; the record is written last, so a stage that was killed is never taken for done.
"""

import contextlib
import functools
import json
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from east_ray import config_file
from east_ray.config import TRAINED, Config, InputError


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


def resolve_model(model: str) -> str:
    """A model's folder as `resolve_path` gives it if there is one, else the name as it is: a hub name or an address."""
    path = resolve_path(model)
    return path if "://" in path or Path(path).is_dir() else model


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


#: Seconds for which a fetched model stays after its last use.
_KEEP_COPIES_S = 3600.0


def local_copy(path: str) -> str:
    """A folder on this machine with the content of a model folder; hub names and local folders are themselves.

    Engines and workers read models from a local disk, so a model in s3:// or gs:// is fetched once for each machine.
    """
    if "://" not in path:
        return path
    import fcntl
    import hashlib
    import tempfile

    filesystem, inner = locate(path)
    infos = filesystem.get_file_info(pafs.FileSelector(inner, recursive=True, allow_not_found=True))
    files = sorted(info.path for info in infos if info.type == pafs.FileType.File)
    # The card is written anew after the evaluation; the model is the same.
    told = [(info.path, info.size, info.mtime_ns) for info in infos if not info.path.endswith(".md")]
    stamp = hashlib.sha256(repr(told).encode()).hexdigest()[:16]
    cache = Path(tempfile.gettempdir(), f"east-ray-models-{os.getuid()}")
    cache.mkdir(mode=0o700, exist_ok=True)
    if cache.stat().st_uid != os.getuid():
        raise InputError(f"{cache} belongs to another user; models cannot be fetched into it")
    if not files:
        raise InputError(f"model: there is nothing at {path}")
    target = str(cache / stamp)
    with (cache / f"{stamp}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of a machine wait for the first of them
        if not os.path.isdir(target):
            _remove_unused(cache)
            # Fetched beside its place and renamed: a process that is killed leaves no half of a model.
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                fetched = os.path.join(scratch, "model")
                for file in files:
                    destination = os.path.join(fetched, os.path.relpath(file, inner))
                    os.makedirs(os.path.dirname(destination), exist_ok=True)
                    pafs.copy_files(file, destination, source_filesystem=filesystem)
                Path(fetched).rename(target)
        os.utime(target)
    return target


def _remove_unused(cache: Path) -> None:
    """Make room for another model: every round makes one. A process that has loaded a model needs its files no more."""
    import shutil

    for copy in cache.glob("[0-9a-f]" * 16):  # not the scratch folders, in which another process may be fetching
        with contextlib.suppress(FileNotFoundError):  # another process may be at the same
            if copy.is_dir() and time.time() - copy.stat().st_mtime > _KEEP_COPIES_S:
                shutil.rmtree(copy)


#: Files up to this size are read whole for a fingerprint, larger ones at this distance.
_WHOLE_BYTES, _STRIDE_BYTES, _PROBE_BYTES = 64 << 20, 1 << 20, 4 << 10


def model_fingerprint(path: str) -> str:
    """What identifies a model: 32 hex digits that change with its parameters, configuration, tokenizer or template.

    `path` as `local_copy` gives it. Of a file above 64 MiB the first 4 KiB of every MiB are read, and its size: other
    parameters differ nearly everywhere. A hub name is identified by its commit; raises InputError if there is none.
    """
    import hashlib

    digest = hashlib.blake2b(digest_size=16)
    if not Path(path).is_dir():
        digest.update(f"{path}@{_hub_commit(path)}".encode())
        return digest.hexdigest()
    for file in sorted(file for file in Path(path).iterdir() if file.is_file() and file.suffix not in (".md", "")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
        with file.open("rb") as content:
            if size <= _WHOLE_BYTES:
                digest.update(content.read())
            for begin in range(0, size if size > _WHOLE_BYTES else 0, _STRIDE_BYTES):
                content.seek(begin)
                digest.update(content.read(_PROBE_BYTES))
    return digest.hexdigest()


def _hub_commit(name: str) -> str:
    """The commit of a hub model, as in the local cache, else as on the hub."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json")
    try:
        file = cached if isinstance(cached, str) else hf_hub_download(name, "config.json")
    except (OSError, ValueError) as error:
        raise InputError(f"model: {name!r} is neither a folder nor a hub model that can be reached") from error
    return Path(file).parent.name


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


@dataclass
class StageRecord:
    """What a stage counted and how long it took; written when it is done."""

    seconds: float = 0.0
    counts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stages:
    """The folders of one round, or of one variant of it, with the records of the stages that are done."""

    folder: Folder

    def __truediv__(self, name: str) -> Folder:
        return self.folder / name

    def learner(self, name: str) -> "Stages":
        """The folders of one training of the round; a variant has all but the samples of its own."""
        return self if name == TRAINED else Stages(self.folder / "variants" / name)

    def record(self, stage: str) -> StageRecord | None:
        """The record of a stage that is done, else None."""
        text = (self.folder / "stages").read_text(f"{stage}.json")
        return None if text is None else StageRecord(**json.loads(text))

    @contextmanager
    def recording(self, stage: str) -> Iterator[StageRecord]:
        """Time a stage and write its record, with the counts put into it, if the block ends without an error."""
        record, begin = StageRecord(), time.monotonic()
        yield record
        record.seconds = round(time.monotonic() - begin, 3)
        text = json.dumps({"seconds": record.seconds, "counts": record.counts}, indent=1)
        (self.folder / "stages").write_text(f"{stage}.json", text + "\n")


#: Sections of the configuration that matter only after the samples are there.
_LATER_SECTIONS = ("answers", "selection", "weighting", "training", "variants", "evaluation")


class RunDirectory:
    """The folder of a run. Opening it writes ``config.yaml``, or checks that the one there is of the same run."""

    def __init__(self, config: Config, *, only_read: bool = False) -> None:
        """Raises InputError if the directory holds a run of another configuration, naming the keys that differ.

        `only_read` leaves a ``config.yaml`` that is there as it is.
        """
        filesystem, path = locate(config.run_dir, is_output=True)
        self.folder = Folder(filesystem, path.rstrip("/"))
        self.uri = config.run_dir if "://" in config.run_dir else path
        try:
            stored = self.folder.read_text("config.yaml")
            if stored is None or not self._has_begun():
                stored = None
                self.folder.write_text("config.yaml", config_file.dump(config))
        except OSError as error:
            raise InputError(f"run_dir: cannot write to {path} ({error})") from error
        if stored is not None:
            self._check_same_run(stored, config)
            if not only_read and (not self._is_weighed() or not self.config.model):
                self.store(config)

    def _has_begun(self) -> bool:
        """Whether any stage is done or has written rows: until then a mistake in the configuration may be mended."""
        stages = self.round(0)
        return any((stages / name).exists for name in ("stages", "samples"))

    def store(self, config: Config) -> None:
        """Make this the stored configuration of the run, of which only what changes no result may differ."""
        self.folder.write_text("config.yaml", config_file.dump(config))
        self.__dict__.pop("config", None)

    def _is_weighed(self) -> bool:
        """Whether anything is made of the samples yet: until then, what is to be made of them may be mended."""
        variants = self.round(0) / "variants"
        learners = [TRAINED, *variants.names()]
        return any(self.round(0).learner(name).record("examples") is not None for name in learners)

    def _mendable_sections(self) -> list[str]:
        """Sections of the configuration of which nothing has been made yet."""
        if self._is_weighed():
            return []
        is_evaluated = any(self.round(0).record(stage) is not None for stage in ("evaluation", "base"))
        return [name for name in _LATER_SECTIONS if not (is_evaluated and name in ("answers", "evaluation"))]

    def _check_same_run(self, stored: str, config: Config) -> None:
        try:
            before = config_file.parse(stored, f"{self.uri}/config.yaml")
            differing = config_file.differences(before, config, ignored_sections=self._mendable_sections())
        except InputError as error:
            raise InputError(f"run_dir: {self.uri} holds a run that this version cannot read: {error}") from error
        if differing:
            raise InputError(
                f"run_dir: {self.uri} holds a run of another configuration ({'; '.join(differing)}); "
                "choose another run_dir, or remove that one"
            )

    def round(self, number: int) -> Stages:
        """The folders of a round, counted from 0."""
        return Stages(self.folder / f"round_{number}")

    def address(self, folder: Folder) -> str:
        """A folder of this run as a path or address that any machine can open."""
        root, question, options = self.uri.partition("?")  # s3://bucket/run?endpoint_override=…
        return root.rstrip("/") + folder.path.removeprefix(self.folder.path) + question + options

    @cached_property
    def config(self) -> Config:
        """The configuration as stored."""
        return config_file.parse(self.folder.read_text("config.yaml") or "", f"{self.uri}/config.yaml")


def load_run(source: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a run, given its YAML file or its run directory. Raises InputError."""
    filesystem, path = locate(source)
    if "://" not in source and not Path(path).is_dir():
        return config_file.load(source, overrides)
    text = Folder(filesystem, path.rstrip("/")).read_text("config.yaml")
    if text is None:
        raise InputError(f"{source}: neither the YAML file of a run nor a run directory")
    return config_file.parse(text, f"{source}/config.yaml", [f"run_dir={json.dumps(source)}", *overrides])


def counts_by(table: pa.Table, column: str) -> dict[str, int]:
    """How many rows have each value of a column, in order of value."""
    counted: Sequence[Mapping[str, Any]] = table[column].value_counts().to_pylist()
    return {str(row["values"]): int(row["counts"]) for row in sorted(counted, key=lambda row: str(row["values"]))}

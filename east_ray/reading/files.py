"""A path in the settings -> the files that it means."""

from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow.fs

from east_ray.config import InputError
from east_ray.storage import locate


@dataclass(frozen=True)
class Found:
    """The files with rows that a path means, by name, and what else is there, by ending."""

    filesystem: pyarrow.fs.FileSystem
    files: list[pyarrow.fs.FileInfo]
    unread: Counter[str]

    def prefixes(self) -> dict[str, str]:
        """Path of each file -> what names of its rows begin with: its stem, or its name if another has the same."""
        stems = Counter(PurePosixPath(file.path).stem for file in self.files)
        paths = [PurePosixPath(file.path) for file in self.files]
        return {str(path): path.stem if stems[path.stem] == 1 else path.name for path in paths}

    def stamp(self) -> list[list[Any]]:
        """Name, size and time of each file, which differ once a file has changed."""
        return [[file.path, file.size, file.mtime_ns] for file in self.files]


def find_files(path: str, setting: str) -> Found:
    """The files that a path means, in the order of their names.

    Raises InputError, which begins with the setting, if there is none or all are empty.
    """
    filesystem, inner = locate(path)
    info = filesystem.get_file_info(inner.rstrip("/"))
    if info.type == pyarrow.fs.FileType.NotFound:
        raise InputError(f"{setting}: {path} does not exist; expected a .jsonl or .parquet file")
    files, unread = [info], Counter[str]()
    if info.type == pyarrow.fs.FileType.Directory:
        found = filesystem.get_file_info(pyarrow.fs.FileSelector(inner))
        files = [file for file in found if not file.base_name.startswith((".", "_")) and _is_known(file)]
    elif not _is_known(info):
        raise InputError(f"{setting}: {path}: expected .jsonl or .parquet, found {info.base_name!r}")
    files = sorted((file for file in files if file.size), key=lambda file: str(file.path))
    if not files:
        raise InputError(f"{setting}: {path} is empty; expected rows")
    return Found(filesystem, files, unread)


def _is_known(file: pyarrow.fs.FileInfo) -> bool:
    return str(file.base_name).endswith((".jsonl", ".parquet"))

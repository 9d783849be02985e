"""A path in the settings -> the files that it means, and what each of them holds."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import fsspec.utils
import pyarrow.fs
from pyarrow.fs import FileInfo, FileSystem, FileType

from east_ray.config import InputError
from east_ray.storage import locate

#: What a file holds, by its ending in small letters. A .json file may be lines as well, and .jsonl a list: see `text`.
_KINDS = dict.fromkeys((".jsonl", ".ndjson", ".jsonlines"), "lines") | {".json": "json", ".csv": "csv", ".tsv": "tsv"}
_KINDS |= {".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow"}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_EXPECTED = f"{', '.join(_KINDS)}, each also with .gz or .zst"
#: What the library `datasets` writes about its files: the first two beside .arrow files, the others anywhere.
_OF_DATASET = ("state.json", "dataset_info.json"), ("dataset_dict.json", "dataset_infos.json")
#: Names of splits, as the library `datasets` knows them, alone or before one of -._ and a space.
_SPLITS = {"train": "train|training", "validation": "validation|valid|dev|val", "test": "testing|test|evaluation|eval"}


class Form(NamedTuple):
    """What a file holds: lines, json, csv, tsv, parquet or arrow; and its compression: gzip, zstd or None."""

    kind: str
    compression: str | None


@dataclass(frozen=True)
class Found:
    """The files that a path means, by name, and what else is there: how many of each ending are not read."""

    filesystem: FileSystem
    root: str
    files: list[FileInfo]
    unread: Counter[str]

    def prefixes(self) -> dict[str, str]:
        """Path of each file -> what names of its rows begin with: the shortest that no other file has.

        That is its name without ending, its name, or its path below the folder without ending.
        """
        paths = {file.path: PurePosixPath(file.path) for file in self.files}
        below = {path: str(_stem(one))[len(self.root) :].lstrip("/") for path, one in paths.items()}
        choices = {path: (_stem(one).name, one.name, below[path] or one.name) for path, one in paths.items()}
        counts = Counter(name for names in choices.values() for name in dict.fromkeys(names))
        return {path: next((n for n in names if counts[n] == 1), path) for path, names in choices.items()}

    def stamp(self) -> list[list[Any]]:
        """Name, size and time of each file, which differ once a file has changed."""
        return [[file.path, file.size, file.mtime_ns] for file in self.files]

    def unread_said(self) -> str:
        """What is there and not read, e.g. ``3 .eval files, 1 empty file``; empty if that is nothing."""
        return ", ".join(f"{count:,} {name} file{'s' * (count > 1)}" for name, count in sorted(self.unread.items()))


def find_files(path: str, setting: str) -> Found:
    """The files with rows that a path means, in the order of their names.

    The path is a file, a folder with all its subfolders, or a pattern: * and ? stand for parts of a name, ** for any
    folders. Names that begin with a dot are not looked at.

    Raises InputError, which begins with the setting, if there is no such file, and if a folder has several splits of
    a data set.
    """
    filesystem, root, there = _listed(path, setting)
    infos = [info for info in there if info.type == FileType.File]
    saved = {_folder(info) for info in infos if info.base_name.endswith(".arrow")}
    files, unread = list[FileInfo](), Counter[str]()
    for info in sorted(infos, key=lambda info: str(info.path)):
        apart = [part for part in PurePosixPath(info.path[len(root) :]).parts if part.startswith("_")]
        if info.base_name in _OF_DATASET[1] or (info.base_name in _OF_DATASET[0] and _folder(info) in saved):
            continue
        if apart and info.path != root:
            unread.update([apart[0]] if info.size else [])
        elif info.base_name.startswith("cache-") and _folder(info) in saved:  # of `datasets`, made of the rows
            unread["cache"] += 1
        elif form_of(filesystem, info.path) is None:
            unread[_ending(info.base_name)] += 1
        elif not info.size:
            unread["empty"] += 1
        else:
            files.append(info)
    if others := len(there) - len(infos):  # a link to nothing, or a pipe
        unread["unreadable"] += others
    found = Found(filesystem, root, files, unread)
    if not files:
        raise InputError(f"{setting}: {_nothing(path, found)}")
    if not _is_pattern(path):
        _check_one_split(path, found, setting)
    return found


def form_of(filesystem: FileSystem, path: str) -> Form | None:
    """What a file holds, by its ending, or by its first bytes if it has none; None: nothing that can be read."""
    *before, last = ("", *PurePosixPath(path.lower()).suffixes)
    compression = _COMPRESSIONS.get(last)
    ending = before[-1] if compression and before else last
    if ending in _KINDS:
        return Form(_KINDS[ending], compression)
    return None if ending else _form_of_bytes(filesystem, path, compression)


def _form_of_bytes(filesystem: FileSystem, path: str, compression: str | None) -> Form | None:
    with filesystem.open_input_stream(path, compression=compression) as file:
        head = bytes(file.read(1024)).removeprefix(b"\xef\xbb\xbf").lstrip()
    for beginning, kind in ((b"PAR1", "parquet"), (b"ARROW1", "arrow"), (b"{", "lines"), (b"[", "lines")):
        if head.startswith(beginning):
            return Form(kind, compression)
    return None


def _listed(path: str, setting: str) -> tuple[FileSystem, str, list[FileInfo]]:
    """The file system, the folder or file to begin with, and all files that the path means, of whatever kind."""
    if _is_pattern(path):
        return _matching(path, setting)
    filesystem, inner = locate(path)
    inner = inner.rstrip("/") or "/"
    info = filesystem.get_file_info(inner)
    if info.type == FileType.NotFound:
        raise InputError(f"{setting}: {path} does not exist; expected a file ({_EXPECTED}) or a folder of such")
    return filesystem, inner, list(_below(filesystem, inner)) if info.type == FileType.Directory else [info]


def _is_pattern(path: str) -> bool:
    """Whether a path is a pattern, and no file or folder with such a name. In addresses only * makes it one."""
    if "://" in path:
        return "*" in path
    return bool(re.search(r"[*?\[]", path)) and locate(path)[0].get_file_info(locate(path)[1]).type == FileType.NotFound


def _matching(pattern: str, setting: str) -> tuple[FileSystem, str, list[FileInfo]]:
    path, mark, options = pattern.partition("?") if "://" in pattern else (pattern, "", "")
    parts = path.split("/")
    first = next(number for number, part in enumerate(parts) if re.search(r"[*?\[]", part))
    folder = "/".join(parts[:first]) or ("/" if first else ".")
    filesystem, inner = locate(folder + mark + options)
    inner = inner.rstrip("/")
    wanted = [part if part == "**" else part.replace("**", "*") for part in parts[first:]]
    match = re.compile(fsspec.utils.glob_translate("/".join([re.sub(r"([*?\[])", r"[\1]", inner), *wanted]))).match
    found = [
        info
        for info in _below(filesystem, inner)
        if any(match(str(one)) for one in (info.path, *PurePosixPath(info.path).parents))
    ]
    if not found:
        raise InputError(f"{setting}: no file matches {pattern}")
    return filesystem, inner, found


def _below(filesystem: FileSystem, folder: str) -> Iterator[FileInfo]:
    """All files in a folder and in its subfolders but those whose name, or whose folder's, begins with a dot.

    Links that lead to nothing and pipes are among them. A link to a folder above itself is not followed.
    """
    if isinstance(filesystem, pyarrow.fs.LocalFileSystem):
        infos = filesystem.get_file_info(list(_local_paths(folder)))
    else:
        infos = filesystem.get_file_info(pyarrow.fs.FileSelector(folder, recursive=True, allow_not_found=True))
    for info in infos:
        is_hidden = any(part.startswith(".") for part in PurePosixPath(info.path[len(folder) :]).parts)
        if info.type != FileType.Directory and not is_hidden:
            yield info


def _local_paths(folder: str) -> Iterator[str]:
    """All that is no folder in a folder and in its subfolders, those that links lead to among them."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and not _is_loop(f"{parent}/{name}")]
        yield from (f"{parent.rstrip('/')}/{name}" for name in names)


def _is_loop(path: str) -> bool:
    """Whether a folder is a link to one that it lies in."""
    return Path(path).is_symlink() and Path(path).parent.resolve().is_relative_to(Path(path).resolve())


def _nothing(path: str, found: Found) -> str:
    """The sentence about a path without a file to read."""
    if not found.unread:
        every = found.filesystem.get_file_info(pyarrow.fs.FileSelector(found.root, allow_not_found=True))
        if hidden := sorted(info.base_name for info in every if info.base_name.startswith(".")):
            return f"{path}: found only {', '.join(hidden[:5])}; files whose names begin with a dot are not read"
        return f"{path} is an empty folder; expected files with rows"
    if set(found.unread) == {"empty"}:
        return f"{path} is empty; expected rows"
    return f"{path}: found {found.unread_said()}; expected {_EXPECTED}"


def _check_one_split(path: str, found: Found, setting: str) -> None:
    """Raises InputError if the files of a folder are of several splits: what was held out would be trained on."""
    splits: dict[str, str] = {}
    for file in found.files:
        for part in _stem(PurePosixPath(file.path[len(found.root) :].lstrip("/"))).parts:
            if len(names := _splits_in(part)) == 1:  # train_test says nothing
                splits |= {split: name for split, name in names.items() if split not in splits}
    if len(splits) > 1:
        patterns = " or ".join(f"{path.rstrip('/')}/{name}*" for name in splits.values())
        raise InputError(f"{setting}: {path} has the splits {' and '.join(splits)}; expected one, e.g. {patterns}")


def _splits_in(part: str) -> dict[str, str]:
    """Splits that a name speaks of -> how the names of their files begin; of several, the one that it begins with."""
    found = dict[str, str]()
    for split, names in _SPLITS.items():
        if match := re.search(rf"(?:^|(?<=[-._ ]))({names})(?=[-._ 0-9]|$)", part, re.IGNORECASE):
            if not match.start():
                return {split: match[0]}
            found[split] = f"*{match[0]}"
    return found


def _folder(info: FileInfo) -> str:
    return str(info.path).rpartition("/")[0]


def _stem(path: PurePosixPath) -> PurePosixPath:
    """The path without the endings that say what the file holds."""
    if path.suffix.lower() in _COMPRESSIONS:
        path = path.with_suffix("")
    return path.with_suffix("") if path.suffix.lower() in _KINDS else path


def _ending(name: str) -> str:
    """What a file is counted as that is not read: by its ending."""
    suffixes = PurePosixPath(name.lower()).suffixes
    is_inside = len(suffixes) > 1 and suffixes[-2] in _KINDS  # of .jsonl.xz
    return "".join(suffixes[-2:] if is_inside else suffixes[-1:]) or "nameless"


def partitions(path: str) -> dict[str, str | None]:
    """The columns that folders' names give, as Hive writes them: ``level=1/part-0.parquet`` has the column `level`."""
    from urllib.parse import unquote

    pairs: Iterable[tuple[str, str, str]] = (part.partition("=") for part in PurePosixPath(path).parent.parts)
    return {
        key: None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
        for key, mark, value in pairs
        if mark and key.isidentifier()
    }

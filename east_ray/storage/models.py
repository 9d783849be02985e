"""Models as folders on this machine: their paths, local copies of remote ones, and fingerprints."""

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pyarrow.fs as pafs

from east_ray.config import InputError
from east_ray.storage.folders import locate, resolve_path


def resolve_model(model: str) -> str:
    """The absolute path of a model's folder if it exists, else the argument itself: a hub name or an address."""
    path = resolve_path(model)
    return path if "://" in path or Path(path).is_dir() else model


def local_copy(path: str) -> str:
    """A copy of a remote model folder, fetched once for each machine; hub names and local folders are unchanged."""
    if "://" not in path:
        return path
    filesystem, inner = locate(path)
    infos = filesystem.get_file_info(pafs.FileSelector(inner, recursive=True, allow_not_found=True))
    # The model card (.md) is written again after the evaluation; the model stays the same.
    identity = [(info.path, info.size, info.mtime_ns) for info in infos if not info.path.endswith(".md")]
    stamp = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
    cache = Path(tempfile.gettempdir(), f"east-ray-models-{os.getuid()}")
    cache.mkdir(mode=0o700, exist_ok=True)
    if cache.stat().st_uid != os.getuid():
        raise InputError(f"{cache} belongs to another user; models cannot be fetched into it")
    if not any(info.type == pafs.FileType.File for info in infos):
        raise InputError(f"model: {path} does not exist or is empty")
    target = cache / stamp
    with (cache / f"{stamp}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other workers of this machine wait for the first
        if not target.is_dir():
            _remove_unused(cache)
            # Fetched into another folder and renamed: a killed process leaves no incomplete copy.
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                model = Path(scratch, "model")
                model.mkdir()
                pafs.copy_files(inner, str(model), source_filesystem=filesystem)
                model.rename(target)
        os.utime(target)
    return str(target)


def _remove_unused(cache: Path) -> None:
    """Remove copies that were not used for an hour. A process that has loaded a model does not read its files again."""
    for copy in cache.glob("[0-9a-f]" * 16):  # not the temporary folders of processes that are fetching
        with suppress(FileNotFoundError):  # another process may be removing it too
            if copy.is_dir() and time.time() - copy.stat().st_mtime > 3600:
                shutil.rmtree(copy)


#: A fingerprint reads files up to the first size completely, and of larger ones a probe at every stride.
WHOLE_BYTES, _STRIDE_BYTES, _PROBE_BYTES = 64 << 20, 1 << 20, 4 << 10


def model_fingerprint(path: str) -> str:
    """32 hex digits that change with a model's parameters, configuration, tokenizer or chat template.

    `path` is what `local_copy` returns. Of a file above 64 MiB only its size and the first 4 KiB of every MiB are read,
    which is enough because training changes nearly all parameters. A hub model is identified by its commit; raises
    InputError if it cannot be found.
    """
    digest = hashlib.blake2b(digest_size=16)
    if not Path(path).is_dir():
        digest.update(f"{path}@{_hub_commit(path)}".encode())
        return digest.hexdigest()
    for file in sorted(file for file in Path(path).iterdir() if file.is_file() and file.suffix not in (".md", "")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
        stride, probe = (_STRIDE_BYTES, _PROBE_BYTES) if size > WHOLE_BYTES else (WHOLE_BYTES, WHOLE_BYTES)
        with file.open("rb") as content:
            for begin in range(0, size, stride):
                content.seek(begin)
                digest.update(content.read(probe))
    return digest.hexdigest()


def _hub_commit(name: str) -> str:
    """The commit of a hub model: of the copy in the local cache, else the newest on the hub."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json")
    try:
        file = cached if isinstance(cached, str) else hf_hub_download(name, "config.json")
    except (OSError, ValueError) as error:
        raise InputError(f"model: {name!r} is neither a folder nor a hub model that can be reached") from error
    return Path(file).parent.name

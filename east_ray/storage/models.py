"""Models as folders on this machine: where they are, their local copies, and what identifies them.."""

import contextlib
import os
import time
from pathlib import Path

import pyarrow.fs as pafs

from east_ray.config import InputError
from east_ray.storage.folders import locate, resolve_path


def resolve_model(model: str) -> str:
    """A model's folder as `resolve_path` gives it if there is one, else the name as it is: a hub name or an address."""
    path = resolve_path(model)
    return path if "://" in path or Path(path).is_dir() else model


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

"""A full disk, or a quota that is used up, as one sentence that names the folder and the room there."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from east_ray.config import InputError

_FULL = (errno.ENOSPC, errno.EDQUOT)
#: Libraries that write by themselves (safetensors, pyarrow's copies) tell the reason as text alone.
_FULL_AS_TEXT = tuple(os.strerror(number) for number in _FULL)


@contextmanager
def full_disk_as_input_error(path: str, num_bytes: int | None = None, *, is_local: bool = True) -> Iterator[None]:
    """Turn an error of the block because there is no room in a folder into an InputError that names it.

    `num_bytes` are what is to be written there, if that is known. Whatever is tried again after errors must not be
    after this one: the disk stays full.
    """
    before = _free(path) if is_local else None
    try:
        yield
    except InputError:  # of a folder inside the block: that one is full
        raise
    except Exception as error:
        if not _is_full(error):
            raise
        wanted = "" if num_bytes is None else f" for {_amount(num_bytes)}"
        room = "" if before is None else f"; {_amount(before)} were free before, {_amount(_free(path) or 0)} are now"
        raise InputError(
            f"no room{wanted} in {path}: {_reason(error)}{room}; make room there, and the same command goes on"
        ) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised from or while they were handled."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_full(error: BaseException) -> bool:
    return any(
        (isinstance(one, OSError) and one.errno in _FULL) or any(text in str(one) for text in _FULL_AS_TEXT)
        for one in _causes(error)
    )


def _reason(error: BaseException) -> str:
    said = " ".join(str(one) for one in _causes(error))
    by_quota = _FULL_AS_TEXT[1] in said or any(getattr(one, "errno", None) == errno.EDQUOT for one in _causes(error))
    return "the quota is used up" if by_quota else "the disk is full"


def _free(path: str) -> int | None:
    """Bytes that are free where a folder of this machine is, or will be; None if that cannot be told."""
    with suppress(OSError):
        there = next(one for one in (Path(path), *Path(path).parents) if one.exists())
        return shutil.disk_usage(there).free
    return None


def _amount(num_bytes: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if num_bytes >= size:
            return f"{num_bytes / size:,.1f} {unit}"
    return f"{num_bytes} bytes"

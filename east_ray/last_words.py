"""What a command says that ends before it can say anything itself, and the file for what Ray's native code says.

Ray's C++ core ends a driver at once when it loses its raylet, and a machine that lacks memory kills it. No Python runs
then. So a small process beside the command waits for its end, and speaks in its place.
"""

import atexit
import contextlib
import os
import re
import select
import signal
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

RAYLET_DIED = "Ray's raylet on this machine has died, and Ray has ended this command"
#: What is in the file when Ray's C++ core ends a driver, and which process it has lost.
_LOSSES = (
    (r"plasma store|raylet|node has crashed", RAYLET_DIED),
    (r"\bGCS\b|gcs_server", "the head of the Ray cluster (its GCS) has died, and Ray has ended this command"),
)
_KILLED = "this command was killed, as by `kill -9` or by a machine that lacks memory"
_POLL_S = 0.5
GOES_ON = "the same command goes on where this one stopped"


@dataclass
class _Beside:
    """The process beside this one, where there is one: the pipe to it, and the file of native messages."""

    pipe: int | None = None
    process: int = 0
    log: Path | None = None


_beside = _Beside()


def native_messages_to_file() -> Path:
    """Send what native code writes to the error stream into a file; Python's own sys.stderr stays on the terminal.

    Ray's C++ core warns there about things that Ray Data does on purpose. The file is removed if nothing was written.
    Also begins the process beside this one, so it is to be called before there are threads. `are_said` ends it.
    """
    descriptor, name = tempfile.mkstemp(prefix="east-ray-", suffix=".log")
    os.close(descriptor)
    path = _beside.log = Path(name)
    _begin_process_beside(path)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), 2)  # a traceback is appended too
    atexit.register(_remove_if_empty, path)
    return path


def are_said() -> None:
    """The command ends in order from here on, or has said itself why it ends."""
    if _beside.pipe is not None:
        with contextlib.suppress(BrokenPipeError):  # somebody has killed it
            os.write(_beside.pipe, b".")
        os.close(_beside.pipe)
        _beside.pipe = None
        with contextlib.suppress(ChildProcessError):  # another has waited for it
            os.waitpid(_beside.process, 0)


def end(message: str) -> NoReturn:
    """End this process with an error at once, from any thread: Ray's own threads would delay a normal exit."""
    print(f"error: {message}{_details(_beside.log)}", file=sys.stderr, flush=True)
    are_said()
    os._exit(1)


def _begin_process_beside(log: Path) -> None:
    command, (reading, writing) = os.getpid(), os.pipe()
    # The terminal and `ray job stop` send these to the whole group, and maybe before the new process ignores them.
    interrupts = (signal.SIGINT, signal.SIGTERM)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, interrupts)
    if process := os.fork():
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(reading)
        _beside.pipe, _beside.process = writing, process
        return
    try:
        for interrupt in interrupts:
            signal.signal(interrupt, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.dup2(reading, 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _close_from(3)
        if _has_ended_without_a_word(command):
            said = _words(log.read_text(errors="replace"))
            os.write(2, f"error: {said}; {GOES_ON}{_details(log)}\n".encode())
    except Exception:  # of any kind: nobody is above to say it
        traceback.print_exc()
    finally:  # whatever happens, this process must not go on as the command
        os._exit(0)


def _close_from(first: int) -> None:
    """Close all descriptors from this one on. Their limit may be a billion, so those that are open are looked up."""
    try:
        numbers = [int(one.name) for one in Path("/proc/self/fd").iterdir()]
    except OSError:
        numbers = list(range(first, 1024))
    for number in numbers:
        if number >= first:
            with contextlib.suppress(OSError):  # the list itself had one
                os.close(number)


def _has_ended_without_a_word(command: int) -> bool:
    """Wait until the parent process has ended, or has sent a byte to descriptor 0 before."""
    waiting = select.poll()
    waiting.register(0, select.POLLIN)  # its end says nothing: processes that the command forks hold the pipe too
    timeout = None
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(ProcessLookupError):  # it has ended already, as is seen below
            waiting.register(os.pidfd_open(command), select.POLLIN)
    else:
        timeout = 1000 * _POLL_S
    while os.getppid() == command:
        waiting.poll(timeout)
        if select.select([0], [], [], 0)[0] and os.read(0, 1):
            return False
    return not (select.select([0], [], [], 0)[0] and os.read(0, 1))


def _words(log: str) -> str:
    """What has happened, as far as the file of native messages tells.

    >>> _words("")
    'this command was killed, as by `kill -9` or by a machine that lacks memory'
    >>> _words("connection.cc:216: The connection to the plasma store is failed. Terminate the process.")
    "Ray's raylet on this machine has died, and Ray has ended this command"
    """
    last = "\n".join(log.splitlines()[-20:])
    return next((said for pattern, said in _LOSSES if re.search(pattern, last)), _KILLED)


def _details(log: Path | None) -> str:
    """The name of the file of native messages, where it has any."""
    return f". Details: {log}" if log is not None and not _remove_if_empty(log) else ""


def _remove_if_empty(log: Path) -> bool:
    is_empty = not log.exists() or log.stat().st_size == 0
    if is_empty:
        log.unlink(missing_ok=True)
    return is_empty

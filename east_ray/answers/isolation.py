"""A grader of a user's own runs in a process of its own, which is killed when it takes too long.

The grader goes to the process once, pickled. Questions, responses and answers go there, and readings and numbers come
back, as JSON. The process is begun at the first use, serves every further question, and ends with its owner. A response
during which it dies or exceeds the time is set aside, and the next one is read in a new process.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from socket import socketpair
from typing import Any

from east_ray import doors
from east_ray.answers import grading
from east_ray.answers.grading import Grader, GraderError, Reading
from east_ray.config import InputError
from east_ray.records import Question

_START_S = 120.0  # importing what the grader imports may take long
_MAX_ENDS = 3  # so many processes may end on the responses to one question; then the rest is set aside
_GRACE_S = 5.0  # after the limit the process ends by itself, if its owner is gone and cannot end it
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from east_ray.answers.isolation import work; work()"


class _EndedError(Exception):
    """The process died or was killed."""


class Isolated:
    """A grader (see `Grader`) whose methods run in a process of its own. It may be used by several threads.

    Args:
        timeout_s: the time for reading the responses to a question, and again for comparing their answers.
    """

    def __init__(self, grader: Grader, spelled: str, timeout_s: float) -> None:
        from ray import cloudpickle

        try:
            pickled = cloudpickle.dumps(grader)
        except Exception as error:
            raise InputError(f"answers.grader: {spelled} cannot be pickled ({error})") from error
        self.__setstate__((pickled, spelled, timeout_s, hasattr(grader, "can_use"), doors.module_path()))

    def __getstate__(self) -> tuple[Any, ...]:
        return self._state

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._state = state
        self._pickled, self._spelled, self._timeout_s, self._has_can_use, self._path = state
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._end: Callable[[], str | None] | None = None
        self._has_started = False

    def read(self, response: str, question: Question) -> Reading:
        """The reading of one response. Raises GraderError."""
        (found,) = self.read_each([response], question)
        if isinstance(found, GraderError):
            raise found
        return found

    def read_each(self, responses: Sequence[str], question: Question) -> list[Reading | GraderError]:
        """The reading of each response, or why it has none."""
        found: list[Reading | GraderError] = []
        num_ends = 0
        with self._lock:
            while len(found) < len(responses):
                rest = responses[len(found) :]
                try:
                    for reply in self._replies("read", question, rest, len(rest)):
                        found.append(GraderError(reply) if isinstance(reply, str) else Reading(*reply))
                except _EndedError as ended:
                    num_ends += 1
                    found.append(GraderError(f"{self._spelled} {ended}"))
                    if num_ends == _MAX_ENDS:
                        found += [found[-1]] * (len(responses) - len(found))
        return found

    def keys(self, answers: Sequence[str], question: Question) -> Sequence[Hashable]:
        """A number for each answer, the same for equal answers. Raises GraderError."""
        numbers: list[int] = self._one("keys", question, answers)
        return numbers

    def can_use(self, reference_answer: str | None) -> bool:
        """Whether responses can be compared with the reference answer. Raises GraderError."""
        if not self._has_can_use:
            return reference_answer is not None
        return bool(self._one("can_use", Question("", "", reference_answer), []))

    def _one(self, method: str, question: Question, texts: Sequence[str]) -> Any:
        try:
            with self._lock:
                (reply,) = self._replies(method, question, texts, 1)
        except _EndedError as ended:
            raise GraderError(f"{self._spelled} {ended}") from None
        if isinstance(reply, str):
            raise GraderError(reply)
        return reply

    def _replies(self, method: str, question: Question, texts: Sequence[str], num_replies: int) -> Iterator[Any]:
        """What the process replies to a request. Raises _EndedError where it takes too long or dies."""
        try:
            if self._process is not None and self._process.poll() is not None:  # it has died between two requests
                self._stop()
            if self._connection is None:
                self._connection = self._started()
            end = time.monotonic() + self._timeout_s
            with suppress(OSError):  # it has died: `_received` says how
                self._connection.send_bytes(_json([method, asdict(question), list(texts)]))
            for _ in range(num_replies):
                yield self._received(self._connection, end, f"{self._timeout_s:g} s (answers.grader_timeout_s)")
        except OSError as error:  # e.g. the machine has no room for another process
            raise _EndedError(f"has no process ({error})") from error
        except BaseException:  # of whatever kind: a reply that nobody waits for must not be taken for the next
            self._stop()
            raise

    def _stop(self) -> str | None:
        """End the process; says how it ended."""
        self._connection = self._process = None
        return None if self._end is None else self._end()

    def _received(self, connection: Connection, end: float, limit: str) -> Any:
        try:
            if connection.poll(max(0.0, end - time.monotonic())):
                return json.loads(connection.recv_bytes())
        except (EOFError, OSError, ValueError):
            raise _EndedError(f"ended its process ({self._stop()})") from None
        raise _EndedError(f"took more than {limit}")

    def _started(self) -> Connection:
        """Begin the process. Raises InputError if the grader cannot be loaded there."""
        ours, theirs = socketpair()
        path = json.dumps(list(dict.fromkeys([*doors.module_path(), *self._path])))
        with theirs:
            process = self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-c", _BOOT, path, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a grader prints must not be taken for the output of a command
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # with what the grader itself starts, it is one group to be killed
            )
        connection = Connection(ours.detach())
        self._end = weakref.finalize(self, _end, process, connection)
        try:
            with suppress(OSError):  # it has died: `_received` says how
                connection.send_bytes(_json(self._timeout_s))
                connection.send_bytes(self._pickled)
            said = self._received(connection, time.monotonic() + _START_S, f"{_START_S:g} s to start")
        except _EndedError as ended:
            if self._has_started:
                raise
            said = str(ended)
        if said:
            raise InputError(f"answers.grader: {self._spelled} cannot be loaded in a process of its own ({said})")
        self._has_started = True
        return connection


def _end(process: "subprocess.Popen[bytes]", connection: Connection) -> str:
    """Kill a process with all that it has started; says how it ended."""
    connection.close()
    with suppress(subprocess.TimeoutExpired):  # if it is about to die by itself, how it does is of interest
        process.wait(0.1)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    return f"signal {-code}" if code < 0 else f"exit status {code}"


def _json(value: Any) -> bytes:
    return json.dumps(value, default=str).encode()


# ------------------------------------------------------------------------------------------------------ in the process


def work() -> None:
    """Serve the requests of the owner until it closes the connection. A text in place of a reply is an error."""
    connection = Connection(int(sys.argv[2]))
    limit_s = json.loads(connection.recv_bytes())
    try:
        grader: Grader = pickle.loads(connection.recv_bytes())  # noqa: S301 - made by the user's own configuration
    except BaseException as error:
        connection.send_bytes(_json(f"{type(error).__name__}: {error}"))
        return
    connection.send_bytes(_json(""))
    with suppress(EOFError, OSError):
        while True:
            method, values, texts = json.loads(connection.recv_bytes())
            # The kernel ends the process even where C code holds the interpreter, e.g. the module re.
            signal.setitimer(signal.ITIMER_REAL, limit_s + _GRACE_S)
            for reply in _answered(grader, method, Question(**values), texts):
                connection.send_bytes(_json(reply))
            signal.setitimer(signal.ITIMER_REAL, 0)


def _answered(grader: Grader, method: str, question: Question, texts: Sequence[str]) -> Iterator[Any]:
    if method == "read":
        for text in texts:
            yield _reply(grader, "read", lambda text=text: _plain(grading.read(grader, text, question)))
    elif method == "keys":
        yield _reply(grader, "keys", lambda: _numbers(grading.compared(grader, texts, question)))
    else:
        yield _reply(grader, "can_use", lambda: grading.can_use(grader, question.reference_answer))


def _reply(grader: Grader, method: str, call: Any) -> Any:
    try:
        return call()
    except BaseException as error:  # sys.exit() too must not end the process
        return str(grading.failure(grader, method, error))


def _plain(found: Reading) -> list[Any]:
    answer, rule = (
        None if text is None else text.encode("utf-8", "replace").decode() for text in (found.answer, found.rule)
    )
    return [answer, found.is_boxed, rule]


def _numbers(keys: Sequence[Hashable]) -> list[int]:
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(key, len(numbers)) for key in keys]

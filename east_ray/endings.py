"""How a command ends: an interrupt, an error that the user can mend, an error that we must mend."""

import logging
import os
import re
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from east_ray import last_words
from east_ray.config import InputError


@contextmanager
def in_a_sentence() -> Iterator[None]:
    """Around a command. What the user can mend ends in a sentence and exit code 1; what we must mend leaves a file."""
    # A worker that waits for another should sleep and leave the core to it; machines are often shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    log = last_words.native_messages_to_file()
    signal.signal(signal.SIGTERM, terminate)  # of `ray job stop`, or of a machine that shuts down
    try:
        yield
    except Exception as error:
        cause = error if isinstance(error, InputError) else _root_cause(error)
        if isinstance(cause, InputError):
            _fail(str(cause))
        if told := re.search(r"^(?:\w+\.)*InputError: (.+)$", str(cause), flags=re.MULTILINE):  # of a Ray Data task
            _fail(told[1])
        with log.open("a") as file:
            traceback.print_exception(error, file=file)
        _fail(f"{_message(cause)}\nThe same command goes on where this one stopped. Details: {log}")
    finally:
        last_words.are_said()


class Terminated(KeyboardInterrupt):
    """SIGTERM: as an interrupt, which every library lets pass, but with the exit code of its own."""


def terminate(number: int, frame: object) -> None:
    """On SIGTERM: say that the command stops, and interrupt it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # first of all: it may come twice, as from `timeout`
    # Said at once: `ray job stop` waits three seconds, and the engines may take longer to go.
    say_error("stopped; the same command goes on where this one stopped")
    logging.disable()  # Ray reports every actor that it ends from here on
    raise Terminated


def _root_cause(error: BaseException) -> BaseException:
    """The error that a worker raised, from inside the errors that Ray wraps around it."""
    while True:
        inner = getattr(error, "cause", None) or error.__cause__
        if failures := getattr(error, "worker_failures", None):
            inner = next(iter(failures.values()))
        # Ray Data raises some errors "from" an empty SystemException; what it says stands in the error itself.
        # So does the text of what stands around a UserCodeException, which has lost its own cause on the way.
        if not isinstance(inner, BaseException) or type(inner).__name__ in ("SystemException", "UserCodeException"):
            return error
        error = inner


def _message(error: BaseException) -> str:
    """The error in one line. Ray carries the first cause as text only: the first line that names an exception."""
    if found := re.search(r"^(?:\w+\.)*\w*(?:Error|Exception|Died): .+$", str(error), flags=re.MULTILINE):
        return found.group()
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _fail(message: str) -> None:
    say_error(message)
    raise SystemExit(1)


def say_error(message: str) -> None:
    """Print an error in red, on standard error."""
    Console(stderr=True, highlight=False, emoji=False).print(
        f"error: {message}", markup=False, soft_wrap=True, style="red"
    )

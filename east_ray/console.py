"""The progress of a run on the console: one line per stage, with a rate.

On a terminal the line is updated in place; in a log file it is printed every ten seconds and at the end.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

_LOG_INTERVAL_S = 10.0


class StageLine:
    """The line of one stage: units done, total, rate and a note."""

    def __init__(self, stage: str, total: int | None, unit: str) -> None:
        self._stage, self.total, self._unit = stage, total, unit
        self._done, self._note, self._begin = 0, "", time.monotonic()
        self._done_before = 0

    def go_on(self, done: int) -> None:
        """An interrupted run has done this many units before; the rate does not include them."""
        self._done = self._done_before = done

    def update(self, done: int, note: str = "") -> None:
        """Set the number of units done so far, and a note such as tokens per second."""
        self._done, self._note = done, note

    def advance(self, units: int, note: str = "") -> None:
        """Add units to those done so far."""
        self.update(self._done + units, note)

    @property
    def seconds(self) -> float:
        """Seconds since the stage began."""
        return time.monotonic() - self._begin

    def render(self) -> Text:
        """The line in its present state."""
        total = "" if self.total is None else f"/{self.total:,}"
        rate = ""
        if (now := self._done - self._done_before) and self.seconds > 0:
            per_second = now / self.seconds
            rate = f"{per_second:,.1f}/s" if per_second >= 0.1 else f"{60 * per_second:,.1f}/min"
        minutes, seconds = divmod(int(self.seconds + 0.5), 60)
        clock = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"
        parts = [f"{self._done:,}{total} {self._unit}", rate, self._note, clock]
        return Text.assemble((f"{self._stage:<12}", "bold"), " · ".join(part for part in parts if part))

    __rich__ = render


class Progress:
    """Shows the stages of a run on a console."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str) -> Iterator[StageLine]:
        """A line that is updated while the block runs and stays after it."""
        line = StageLine(name, total, unit)
        if self.console.is_terminal:
            with Live(line, console=self.console, refresh_per_second=4, transient=False):
                yield line
            return
        ended = threading.Event()

        def print_periodically() -> None:
            while not ended.wait(_LOG_INTERVAL_S):
                self.console.print(line.render(), soft_wrap=True)

        printer = threading.Thread(target=print_periodically, daemon=True, name="progress")
        printer.start()
        try:
            yield line
        finally:
            ended.set()
            printer.join()
            self.console.print(line.render(), soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)

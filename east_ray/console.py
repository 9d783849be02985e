"""What a person sees of a run while it goes on: one line per stage, with a rate.

On a terminal the line is alive; in a file or the log of a job it is printed every ten seconds and at the end.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

_LOG_INTERVAL_S = 10.0


class StageLine:
    """The line of one stage: how many units are done of how many, at which rate, and a note."""

    def __init__(self, stage: str, total: int | None, unit: str) -> None:
        self._stage, self.total, self._unit = stage, total, unit
        self._done, self._note, self._begin = 0, "", time.monotonic()
        self._done_before = 0

    def go_on(self, done: int) -> None:
        """`done` units were done before this run, by one that was interrupted: they are no part of the rate."""
        self._done = self._done_before = done

    def update(self, done: int, note: str = "") -> None:
        """`done` units in all so far; `note` says more, e.g. tokens per second."""
        self._done, self._note = done, note

    def advance(self, units: int, note: str = "") -> None:
        """As `update`, with the units done since the last call."""
        self.update(self._done + units, note)

    @property
    def done(self) -> int:
        """Units done so far."""
        return self._done

    @property
    def seconds(self) -> float:
        """Seconds since the stage began."""
        return time.monotonic() - self._begin

    def render(self) -> Text:
        """The line as it stands now."""
        total = "" if self.total is None else f"/{self.total:,}"
        rate = ""
        if (now := self._done - self._done_before) and self.seconds > 0:
            per_second = now / self.seconds
            rate = f"{per_second:,.1f}/s" if per_second >= 0.1 else f"{60 * per_second:,.1f}/min"
        parts = [f"{self._done:,}{total} {self._unit}", rate, self._note, _clock(self.seconds)]
        return Text.assemble((f"{self._stage:<12}", "bold"), " · ".join(part for part in parts if part))

    def __rich__(self) -> Text:
        return self.render()


class Progress:
    """Shows the stages of a run on a console."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str) -> Iterator[StageLine]:
        """A line that lives while the block runs and stays when it ends."""
        line = StageLine(name, total, unit)
        if self.console.is_terminal:
            with Live(line, console=self.console, refresh_per_second=4, transient=False):
                yield line
            return
        printer = _PeriodicPrinter(self.console, line)
        try:
            yield line
        finally:
            printer.stop()
            self.console.print(line.render(), soft_wrap=True)

    def say(self, text: str) -> None:
        """A line of its own."""
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)


class _PeriodicPrinter:
    def __init__(self, console: Console, line: StageLine) -> None:
        import threading

        self._ended = threading.Event()

        def work() -> None:
            while not self._ended.wait(_LOG_INTERVAL_S):
                console.print(line.render(), soft_wrap=True)

        self._thread = threading.Thread(target=work, daemon=True, name="progress")
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

"""The progress of a run on the console: one line per stage, with what it is doing, a rate and an estimated end.

On a terminal the line has a bar and is updated in place. In a log file it is printed when the stage begins something
else, every ten seconds, and at the end.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

#: In a log: seconds between two lines, and between two looks whether the stage does something else.
_LOG_INTERVAL_S, _LOOK_S = 10.0, 0.25
#: No end is estimated before so many seconds of work, and this share of it or so many more seconds.
_ESTIMATE_AFTER_S, _ESTIMATE_AFTER, _ESTIMATE_AT_LAST_S = 5.0, 0.01, 60.0
_BAR_WIDTH = 24


class StageLine:
    """The line of one stage: units done, total, rate, what it is doing, and a note. Any thread may change it."""

    def __init__(self, stage: str, total: int | None, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._stage, self.total, self._unit, self._clock = stage, total, unit, clock
        self._done, self._done_before, self._begun, self._note = 0, 0, 0.0, ""
        self._begin = clock()
        self._starting_since: float | None = None
        self._started_s = 0.0
        self._phase, self._has_ended = "", False
        #: In a log, a change of this prints the line.
        self.kind = ""

    def go_on(self, done: int) -> None:
        """An interrupted run has done this many units before; the rate does not include them."""
        self._done = self._done_before = done

    def update(self, done: int, note: str = "", begun: float = 0.0) -> None:
        """Set the number of units done so far, and a note such as tokens per second.

        `begun` is what is done of other units, in units: it counts for the estimated end alone.
        """
        self._done, self._note, self._begun = done, note, begun

    def advance(self, units: int, note: str = "") -> None:
        """Add units to those done so far."""
        self.update(self._done + units, note)

    def doing(self, phase: str, kind: str | None = None) -> None:
        """Set what the stage is doing; `kind` is what of it is worth a line in a log, by default all."""
        self._phase, self.kind = phase, phase if kind is None else kind

    def starts(self) -> None:
        """Processes are being started; until `works` this is no time of work."""
        if self._starting_since is None:
            self._starting_since = self._clock()

    def works(self, for_s: float = 0.0) -> None:
        """The first of the processes that were started has been at work for this many seconds."""
        if self._starting_since is not None:
            self._started_s += max(0.0, self._clock() - for_s - self._starting_since)
            self._starting_since = None

    @property
    def seconds(self) -> float:
        """Seconds since the stage began."""
        return self._clock() - self._begin

    @property
    def starting_s(self) -> float:
        """Seconds of them in which processes were started and none was at work yet."""
        return self._started_s + (0.0 if self._starting_since is None else self._clock() - self._starting_since)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end, at the speed so far; None: too early to say."""
        working_s, done = self.seconds - self.starting_s, self._done - self._done_before + self._begun
        if self.total is None or done <= 0 or working_s < _ESTIMATE_AFTER_S:
            return None
        left = max(0.0, self.total - self._done - self._begun)
        is_early = done < _ESTIMATE_AFTER * (done + left) and working_s < _ESTIMATE_AT_LAST_S
        return None if is_early else left * working_s / done

    def end(self) -> None:
        """The stage has ended: its line says no more what it is doing."""
        self._phase, self._has_ended = "", True

    def render(self) -> Text:
        """The line in its present state."""
        return Text.assemble((f"{self._stage:<12}", "bold"), self._told())

    def _told(self) -> str:
        total = "" if self.total is None else f"/{self.total:,}"
        rate, now, working_s = "", self._done - self._done_before, self.seconds - self.starting_s
        if now and working_s > 0:
            per_second = now / working_s
            rate = f"{per_second:,.1f}/s" if per_second >= 0.1 else f"{60 * per_second:,.1f}/min"
        left = self.seconds_left
        rest = f"about {clock(left)} left" if left and not self._has_ended else ""
        parts = [f"{self._done:,}{total} {self._unit}", rate, self._phase, self._note, clock(self.seconds), rest]
        return " · ".join(part for part in parts if part)

    def __rich__(self) -> RenderableType:
        """The line on a terminal, with a bar where the total is known."""
        if self.total is None:
            return self.render()
        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(1, self.total), completed=self._done + self._begun, width=_BAR_WIDTH)
        grid.add_row(Text(f"{self._stage:<11}", "bold"), bar, Text(self._told()))
        return grid


def clock(seconds: float) -> str:
    """A time as on a clock: 0:35, 12:05, 1:02:03."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


class Progress:
    """Shows the stages of a run on a console."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str) -> Iterator[StageLine]:
        """A line that is updated while the block runs and stays after it."""
        line = StageLine(name, total, unit)
        if self.console.is_terminal:
            try:
                with Live(line, console=self.console, refresh_per_second=4, transient=True):
                    yield line
                line.end()
            finally:
                self.say_line(line)
            return
        ended = threading.Event()
        printer = threading.Thread(target=self._print, args=(line, ended), daemon=True, name="progress")
        printer.start()
        try:
            yield line
            line.end()
        finally:
            ended.set()
            printer.join()
            self.say_line(line)

    def _print(self, line: StageLine, ended: threading.Event) -> None:
        """Print the line when the stage begins something else, and else every ten seconds."""
        printed_at, kind = time.monotonic(), ""
        while not ended.wait(_LOOK_S):
            if line.kind != kind or time.monotonic() - printed_at >= _LOG_INTERVAL_S:
                printed_at, kind = time.monotonic(), line.kind
                self.say_line(line)

    def say_line(self, line: StageLine) -> None:
        """Print the line of a stage as it is now."""
        self.console.print(line.render(), soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)

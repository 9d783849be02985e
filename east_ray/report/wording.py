"""Numbers as people read them: shares in percent, differences in points, both with their intervals."""

from collections.abc import Mapping
from typing import Any

from east_ray.records import ComparedArm, Difference, Interval

QUANTILES = ("min", "25 %", "50 %", "75 %", "max")


def percent(share: float | None) -> str:
    """A share in percent, e.g. ``81.1``; empty for None."""
    return "" if share is None else f"{100 * share:.1f}"


def percent_of(part: int, whole: int) -> str:
    """What percentage a part is; empty if there is no whole."""
    return percent(part / whole) if whole else ""


def interval(row: Interval) -> str:
    """The bounds of a share in percent, e.g. ``81.1 to 84.4``."""
    return f"{percent(row['low'])} to {percent(row['high'])}"


def with_interval(row: Mapping[str, Any] | None, key: str) -> str:
    """A share and its bounds in percent, e.g. ``82.8 (81.1 to 84.4)``; empty without a row."""
    return "" if row is None else f"{percent(row[key])} ({percent(row['low'])} to {percent(row['high'])})"


def points(difference: float) -> str:
    """A difference of shares in points, with its sign."""
    return f"{100 * difference:+z.1f}"


def signed(row: Difference) -> str:
    """A difference of shares in points with its interval, e.g. ``+13.1 (+11.6, +14.6)``."""
    return f"{points(row['difference'])} ({points(row['low'])}, {points(row['high'])})"


def difference_of(arm: ComparedArm) -> Difference | None:
    """The difference of an arm to its baseline; None without a baseline."""
    difference, low, high = arm["difference"], arm["difference_low"], arm["difference_high"]
    if difference is None or low is None or high is None:
        return None
    return {"difference": difference, "low": low, "high": high}


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(42), duration(61), duration(7262)
    ('42 s', '1 min 1 s', '2 h 1 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"

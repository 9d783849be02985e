"""Rows of metrics as whiskers and bands in percent, and how many of them tables and figures show."""

from collections.abc import Mapping, Sequence, Sized
from typing import Any

from east_ray.report.plots import Series, Whisker

#: Most rows of a table that grows with the number of models, and most curves of a figure that does.
MAX_ROWS, MAX_CURVES = 40, 6


def whisker(label: str, row: Mapping[str, Any], key: str, dots: Sequence[float] = ()) -> Whisker:
    """A share with its interval, in percent."""
    return Whisker(label, 100 * row[key], 100 * row["low"], 100 * row["high"], dots)


def band(label: str, x: Sequence[float], rows: Sequence[Mapping[str, Any]], key: str) -> Series:
    """Shares with their intervals as a curve, in percent."""
    y, low, high = ([100 * row[name] for row in rows] for name in (key, "low", "high"))
    return Series(label, x, y, low, high)


def first_of(drawn: Sized, every: Sized) -> str:
    """The end of the caption of a figure that does not show every model."""
    return f", of the first {len(drawn)} of {len(every)} models" if len(drawn) < len(every) else ""


def left_out(rows: Sized) -> str:
    """The end of the caption of a table that does not show every row."""
    return f"; {len(rows) - MAX_ROWS:,} more in evaluation/metrics.json" if len(rows) > MAX_ROWS else ""

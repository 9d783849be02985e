"""Figures as inline SVG: data in, text out, in the colours of the page around them.

Text stays text. Colours are CSS variables (--c0 … --c5, --line) and currentColor, so a figure works in light, dark and
print. Each figure has a text alternative that describes its data. Series differ in dash or marker as well as colour.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from east_ray.records import StudySeries
from east_ray.report.html import printable

#: Colours that matplotlib draws with -> the page's own in their place.
_INK, _LINE = "#010203", "#040506"
_PALETTE = ("#0072b2", "#b84a00", "#00785a", "#a3397a", "#5d5d5e", "#7a5c00")
_CSS = {_INK: "currentColor", _LINE: "var(--line)"} | {hex_: f"var(--c{i})" for i, hex_ in enumerate(_PALETTE)}
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_MARKERS = "os^Dvp"

#: Characters of the longest name of a series or row, and series with an entry in the legend.
_MAX_LABEL, _MAX_LEGEND = 34, 12
#: Characters of the text alternative.
_MAX_DESCRIPTION = 1500
#: Points of the longest curve that has them marked.
_MAX_MARKED = 16
#: Most curves of a figure that grows with the number of models.
MAX_CURVES = 6


@dataclass(frozen=True)
class Figure:
    """A figure with its caption; what is in the SVG is escaped."""

    caption: str
    svg: str


@dataclass(frozen=True)
class Whisker:
    """A value with its interval, and single values below it as faint dots."""

    label: str
    value: float
    low: float
    high: float
    dots: Sequence[float] = ()


@dataclass(frozen=True)
class Dot:
    """A point that leads to the element named `target` of the page, with the words that are shown at it."""

    x: float
    y: float
    target: str
    words: str


def band(label: str, x: Sequence[float], rows: Sequence[Mapping[str, Any]], key: str) -> StudySeries:
    """Shares with their intervals as a curve, in percent."""
    y, low, high = ([100 * row[name] for row in rows] for name in (key, "low", "high"))
    return {"label": label, "x": x, "y": y, "low": low, "high": high}


def whisker(label: str, row: Mapping[str, Any], key: str, dots: Sequence[float] = ()) -> Whisker:
    """A share with its interval, in percent."""
    return Whisker(label, 100 * row[key], 100 * row["low"], 100 * row["high"], dots)


def bars(title: str, counts: Mapping[str, int]) -> Figure:
    """Horizontal bars of counts, the first on top."""
    names, values = [_short(name) for name in counts], list(counts.values())

    def draw(axes: Any) -> None:
        colours = [_PALETTE[1] if ":" in name else _PALETTE[0] for name in names]  # set aside or discarded
        drawn = axes.barh(range(len(names)), values, color=colours, height=0.65)
        axes.bar_label(drawn, [f"{value:,}" for value in values], padding=3, color=_INK)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.15 * max([*values, 1]))
        axes.grid(visible=False)

    words = ", ".join(f"{name} {value:,}" for name, value in zip(names, values, strict=True))
    return _figure(title, words, draw, "questions", "", height=0.8 + 0.3 * len(names))


def histogram(title: str, values: Mapping[str, NDArray[np.float64]], x_label: str) -> Figure:
    """Outlines of the histograms of one or several (Q,) arrays over the same bins; none may be empty."""
    every = np.concatenate(list(values.values()))
    edges = np.histogram_bin_edges(every, 30)

    def draw(axes: Any) -> None:
        for index, (label, array) in enumerate(values.items()):
            heights = np.histogram(array, edges)[0]
            axes.stairs(heights, edges, linewidth=1.5, label=_short(label), **_style(index))
            if len(values) == 1:
                axes.stairs(heights, edges, fill=True, color=_PALETTE[0], alpha=0.3)
        axes.set_ylim(bottom=0)

    words = "; ".join(
        f"{label}: {array.size:,} questions from {array.min():.3g} to {array.max():.3g}, median {np.median(array):.3g}"
        for label, array in values.items()
    )
    return _figure(title, words, draw, x_label, "questions", legend=len(values))


def density(title: str, x: NDArray[np.float64], y: NDArray[np.float64], x_label: str, y_label: str) -> Figure:
    """The density of (Q,) points: in each cell of a grid a dot that grows with their number."""
    counts, *edges = np.histogram2d(x, y, bins=(24, 18))
    columns, rows = np.nonzero(counts)
    inside = counts[columns, rows]

    def draw(axes: Any) -> None:
        x_middles, y_middles = ((ends[:-1] + ends[1:]) / 2 for ends in edges)
        sizes = 4 + 150 * np.sqrt(inside / inside.max())  # areas; in proportion, single questions would be invisible
        axes.scatter(x_middles[columns], y_middles[rows], s=sizes, color=_PALETTE[0], alpha=0.7, linewidths=0)

    words = f"{x.size:,} questions; a larger dot is more of them, {int(inside.max()):,} at most"
    return _figure(title, words, draw, x_label, y_label)


def linked_dots(title: str, groups: Mapping[str, Sequence[Dot]], x_label: str, y_label: str) -> Figure:
    """Dots, by the name of their group, each of them a link with a title; those of a later group lie on top."""

    def draw(axes: Any) -> None:
        for index, (label, dots) in enumerate(groups.items()):
            style = {"color": _PALETTE[index % len(_PALETTE)], "marker": _MARKERS[index % len(_MARKERS)]}
            x, y = ([getattr(dot, axis) for dot in dots] for axis in "xy")
            drawn = axes.scatter(x, y, s=36, alpha=0.75, linewidths=0, label=_short(label), **style)
            drawn.set_urls([f"#{dot.target}" for dot in dots])

    counts = ", ".join(f"{len(dots):,} {label}" for label, dots in groups.items())
    figure = _figure(title, f"{counts}; each dot leads to its question", draw, x_label, y_label, legend=len(groups))
    words = {dot.target: dot.words for dots in groups.values() for dot in dots}

    def link(match: re.Match[str]) -> str:
        return f'<a href="#{match[1]}"><title>{escape(printable(words[match[1]]))}</title>'

    svg = re.sub(r'<a xlink:href="#([^"]+)"[^>]*>', link, figure.svg)
    return Figure(title, svg.replace('role="img"', 'role="group"', 1))  # the content of an image has no links


def curves(
    title: str, series: Sequence[StudySeries], x_label: str, y_label: str, *, x_ticks: Sequence[float] | None = None
) -> Figure:
    """Curves, with a band where there are bounds; the points of short curves are marked.

    With `x_ticks`, e.g. 1, 2, 4, 8, x is logarithmic.
    """

    def draw(axes: Any) -> None:
        for index, one in enumerate(series):
            marker = _MARKERS[index % len(_MARKERS)] if len(one["x"]) <= _MAX_MARKED else None
            style = _style(index) | {"marker": marker, "markersize": 4}
            axes.plot(one["x"], one["y"], linewidth=1.5, label=_short(one["label"]), **style)
            if (low := one.get("low")) is not None and (high := one.get("high")) is not None:
                axes.fill_between(one["x"], low, high, color=style["color"], alpha=0.15, linewidth=0)
        if x_ticks is not None:
            axes.set_xscale("log")
            axes.set_xticks(x_ticks, [f"{tick:g}" for tick in x_ticks])
            axes.minorticks_off()
        elif all(float(value).is_integer() for one in series for value in one["x"]):
            axes.xaxis.get_major_locator().set_params(integer=True)

    words = "; ".join(
        f"{one['label']}: from {one['y'][0]:.4g} at {one['x'][0]:.4g} to {one['y'][-1]:.4g} at {one['x'][-1]:.4g}"
        for one in series[:_MAX_LEGEND]
        if len(one["x"])
    )
    return _figure(title, words, draw, x_label, y_label, legend=len(series))


def whiskers(
    title: str, groups: Mapping[str, Sequence[Whisker]], x_label: str, *, reference: float | None = None
) -> Figure:
    """Dots with their intervals, one row per label; the groups, by name, share the rows side by side.

    `reference` is the place of a dashed line to compare with, e.g. 0 for differences.
    """
    rows = list(dict.fromkeys(one.label for group in groups.values() for one in group))
    step = 0.7 / max(len(groups), 1)

    def draw(axes: Any) -> None:
        if reference is not None:
            axes.axvline(reference, color=_INK, linewidth=0.8, linestyle=(0, (2, 2)))
        for index, (label, group) in enumerate(groups.items()):
            heights = np.array([rows.index(one.label) + step * (index - (len(groups) - 1) / 2) for one in group])
            for one, height in zip(group, heights, strict=True):
                axes.scatter(one.dots, [height + 0.2] * len(one.dots), s=12, color=_INK, alpha=0.4, linewidths=0)
            values = np.array([[one.value, one.low, one.high] for one in group]).reshape(-1, 3)
            # A bootstrap interval may exclude its own value by a rounding error.
            errors = np.maximum([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]], 0)
            style = _style(index) | {"linestyle": "", "marker": _MARKERS[index % len(_MARKERS)], "markersize": 5}
            axes.errorbar(values[:, 0], heights, xerr=errors, capsize=2, label=_short(label), **style)
        axes.set_yticks(range(len(rows)), [_short(row) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)

    said = ((label, one) for label, group in groups.items() for one in group)
    words = "; ".join(f"{g} {one.label} {one.value:.1f} ({one.low:.1f} to {one.high:.1f})".strip() for g, one in said)
    height = 0.9 + len(rows) * max(0.32, 0.13 * len(groups))
    return _figure(title, words, draw, x_label, "", height=height, legend=len(groups))


def _short(label: str) -> str:
    """A label that fits, printable whatever configuration or data hold."""
    label = " ".join(printable(label[: 4 * _MAX_LABEL]).split())
    return label if len(label) <= _MAX_LABEL else label[: _MAX_LABEL - 1] + "…"


def _style(index: int) -> dict[str, Any]:
    """The colour and dash of a curve."""
    return {"color": _PALETTE[index % len(_PALETTE)], "linestyle": _DASHES[index % len(_DASHES)]}


def _figure(
    title: str, words: str, draw: Callable[[Any], None], x: str, y: str, *, height: float = 2.8, legend: int = 1
) -> Figure:
    """What `draw` draws on a pair of axes; `height` in inches, `legend` the number of named series."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    x, y = printable(x[:80]), printable(y[:40])
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "east-ray",
        "font.size": 10.5,
        "font.sans-serif": ["DejaVu Sans"],  # for matplotlib's measures; the page has its own font
        "text.parse_math": False,  # a $ in a label is a dollar
        "legend.frameon": False,
        **{"axes.grid": True, "axes.axisbelow": True, "grid.color": _LINE, "grid.linewidth": 0.6},
        **{"axes.labelpad": 6, "axes.spines.top": False, "axes.spines.right": False},
    }
    inks = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    with matplotlib.rc_context(style | dict.fromkeys(inks, _INK)):
        figure, axes = pyplot.subplots(figsize=(4.6, height + 0.22 * (legend + 1 if legend > 1 else 0)))
        figure.set_layout_engine("constrained")
        draw(axes)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if legend > 1:
            handles, names = axes.get_legend_handles_labels()
            figure.legend(handles[:_MAX_LEGEND], names[:_MAX_LEGEND], loc="outside lower left", fontsize=9.5)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True)
        pyplot.close(figure)
    return Figure(title, _inline(buffer.getvalue(), f"{title}. {x}{' against ' + y if y else ''}. {words}."))


def _inline(svg: str, description: str) -> str:
    """A file's SVG for use inside a page: with a description, without its own style and unused ids."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"""(?:href="|url\()#([^")]+)""", svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"| height="[^"]*"', lambda match: match[1] or "", svg, count=2)
    for hex_, css in _CSS.items():
        svg = svg.replace(f": {hex_}", f": {css}")
    label = escape(printable(description)[:_MAX_DESCRIPTION], quote=True)
    return svg.replace("<svg ", f'<svg class="plot" role="img" aria-label="{label}" ', 1)

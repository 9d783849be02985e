"""The report as one HTML file: sections of tables, figures and texts, of one run or of several side by side.

Everything that is shown may come from a model or a stranger's data: the template escapes it, and `shown` makes visible
what would not be and cuts what is long. The one script's hash stands in the page's Content-Security-Policy, so that no
other runs, and nothing is loaded from anywhere.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import ClassVar

import markupsafe

from east_ray.report.plots import printable
from east_ray.report.summary import ShownQuestion, cluster_words

#: Whose versions the page tells.
_PACKAGES = ("east-ray", "ray", "torch", "transformers", "deepspeed")


@dataclass(frozen=True)
class Table:
    """Cells are text. A column of numbers stands to the right."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def numeric(self) -> list[bool]:
        """Of each column, whether every cell begins like a number or is empty."""
        cells = [[row[index] for row in self.rows] for index in range(len(self.columns))]
        return [all(re.match(r"[-+−<]?\s?[\d.]|$", cell) for cell in column) for column in cells]

    @property
    def is_wide(self) -> bool:
        """Whether it needs the width of the page."""
        return sum(max(map(len, column)) for column in zip(*self.rows, strict=True)) + 2 * len(self.columns) > 70


@dataclass(frozen=True)
class Figure:
    """A figure with its caption."""

    kind: ClassVar[str] = "figure"
    caption: str
    svg: str

    @property
    def markup(self) -> markupsafe.Markup:
        """The SVG, which plots.py has escaped, as it stands in the page."""
        return markupsafe.Markup(self.svg)  # noqa: S704


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Fold:
    """Texts under a title that are shown when it is opened; each with a label, which may be empty."""

    kind: ClassVar[str] = "fold"
    title: str
    texts: Sequence[tuple[str, str]]
    max_chars: int = 4000


@dataclass(frozen=True)
class Questions:
    """The table of questions to search and sort."""

    kind: ClassVar[str] = "questions"
    caption: str
    questions: Sequence[ShownQuestion]


Block = Table | Figure | Text | Fold | Questions


@dataclass(frozen=True)
class Section:
    """What is shown under one title of a chapter."""

    chapter: str
    title: str
    blocks: list[Block]


def render(runs: Mapping[str, Sequence[Section]]) -> str:
    """The page of one run, or of several with each section's blocks side by side; run's title -> its sections."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("east_ray.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: shown(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cut": shown, "csp_hash": csp_hash, "cluster_words": cluster_words}
    keys: list[tuple[str, str]] = []
    for sections in runs.values():
        place = 0  # a section that only this run has comes after the one that it follows here
        for section in sections:
            key = (section.chapter, section.title)
            if key not in keys:
                keys.insert(place, key)
            place = keys.index(key) + 1
    chapters: dict[str, list[tuple[str, list[list[Block]]]]] = {}
    for chapter, title in keys:
        blocks = [
            next((section.blocks for section in sections if (section.chapter, section.title) == (chapter, title)), [])
            for sections in runs.values()
        ]
        chapters.setdefault(chapter, []).append((title, blocks))
    written = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    page = environment.get_template("report.html.jinja")
    return str(page.render(runs=list(runs), chapters=chapters, written=written, versions=versions))


def shown(text: str, max_chars: int = 1 << 20) -> str:
    """A text as it is shown: printable, and cut if it is long, with a note of how long it was.

    >>> shown("x" * 5000, 10)
    'xxxxxxxxxx … (cut: 5,000 characters in all)'
    """
    if isinstance(text, markupsafe.Markup):  # what the template has made itself
        return text
    cut = f" … (cut: {len(text):,} characters in all)" if len(text) > max_chars else ""
    return printable(text[:max_chars]) + cut


def csp_hash(script: str) -> markupsafe.Markup:
    """The one script that a Content-Security-Policy lets run, by its hash."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return markupsafe.Markup(f"'sha256-{digest}'")  # noqa: S704 - base64

"""The report as one HTML file: sections of tables, figures and texts, of one run or of several side by side.

The page loads nothing. What it shows is escaped by the template and made printable; see html.py.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata

from east_ray.report.html import templates
from east_ray.report.plots import Figure
from east_ray.report.questions import ShownQuestion, cluster_words

#: Packages whose versions the page names.
_PACKAGES = ("east-ray", "ray", "torch", "transformers", "deepspeed")
#: A table of rows with more characters needs the width of the page.
_WIDE_CHARS = 70


@dataclass(frozen=True)
class Table:
    """Cells are text. Columns of numbers are aligned to the right."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def numeric(self) -> list[bool]:
        """Of each column, whether every cell begins like a number or is empty."""
        number = re.compile(r"[-+−<]?\s?[\d.]|$")
        return [all(number.match(row[index]) for row in self.rows) for index in range(len(self.columns))]

    @property
    def is_wide(self) -> bool:
        """Whether it needs the whole width of the page."""
        widths = [max(map(len, column)) + 2 for column in zip(*self.rows, strict=True)]
        return sum(widths) > _WIDE_CHARS


@dataclass(frozen=True)
class Fold:
    """Texts that are shown when their title is opened; each with a label, which may be empty."""

    title: str
    texts: Sequence[tuple[str, str]]
    max_chars: int = 4000


@dataclass(frozen=True)
class Questions:
    """A table of questions that a reader can search and sort, and a figure whose dots lead to its rows.

    The row of the question at `index` is named ``{name}-{index}``; `name` occurs once on a page. A response is cut to
    `max_chars`.
    """

    name: str
    caption: str
    questions: Sequence[ShownQuestion]
    figure: Figure
    max_chars: int = 1500


@dataclass(frozen=True)
class Highlights:
    """Numbers in large type, each as its label, the number, and a line on it."""

    highlights: Sequence[tuple[str, str, str]]


#: A text is a paragraph.
Block = str | Table | Figure | Fold | Questions | Highlights
#: Chapter and title -> what is shown there, of one run.
Sections = Mapping[tuple[str, str], Sequence[Block]]


def render(runs: Mapping[str, Sections]) -> str:
    """The page of one run, or of several with each section's blocks side by side; run's title -> its sections."""
    chapters: dict[str, list[tuple[str, list[Sequence[Block]]]]] = {}
    for chapter, title in _contents(runs.values()):
        blocks = [sections.get((chapter, title), []) for sections in runs.values()]
        chapters.setdefault(chapter, []).append((title, blocks))
    environment = templates("east_ray.report")
    environment.filters["cluster_words"] = cluster_words
    written = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    page = environment.get_template("report.html.jinja")
    return str(page.render(runs=list(runs), chapters=chapters, written=written, versions=versions))


def _contents(runs: Iterable[Sections]) -> list[tuple[str, str]]:
    """Chapter and title of every section; one that only some runs have comes after the section it follows there."""
    contents: list[tuple[str, str]] = []
    for sections in runs:
        place = 0
        for key in sections:
            if key not in contents:
                contents.insert(place, key)
            place = contents.index(key) + 1
    return contents

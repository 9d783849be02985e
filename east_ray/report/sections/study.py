"""A page of ``studies/`` as a section."""

from collections.abc import Iterator

from east_ray.records import StudyFigure, StudyPage
from east_ray.report import plots
from east_ray.report.page import Block, Figure, Fold, Table, Text
from east_ray.report.plots import Series


def study_blocks(page: StudyPage) -> Iterator[Block]:
    """Its text, tables, curves and folded texts, as far as it has them."""
    if text := page.get("text"):
        yield Text(text)
    for table in page.get("tables", []):
        rows = [[_cell(value) for value in row] for row in table["rows"]]
        yield Table(table["caption"], [str(column) for column in table["columns"]], rows)
    for figure in page.get("curves", []):
        yield _figure(figure)
    for folded in page.get("texts", []):
        yield Fold(folded["title"], [(block["label"], block["text"]) for block in folded["blocks"]])


def _figure(figure: StudyFigure) -> Figure:
    series = [Series(one["label"], one["x"], one["y"], one.get("low"), one.get("high")) for one in figure["series"]]
    return Figure(figure["title"], plots.curves(figure["title"], series, figure["x_label"], figure["y_label"]))


def _cell(value: str | int | float | None) -> str:
    """Whole numbers with separators, others to four digits."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)

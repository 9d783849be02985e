"""The report's files: ``report.html`` of a run, and one page with several runs side by side. They open from disk."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from east_ray.config import InputError
from east_ray.report.page import render
from east_ray.report.sections import sections
from east_ray.storage import Folder, RunDirectory, locate


def write_report(directory: RunDirectory) -> str:
    """Write ``report.html`` into the run directory; returns its path."""
    directory.folder.write_text("report.html", render({directory.uri: sections(directory)}))
    return directory.address(directory.folder / "report.html")


def write_side_by_side(directories: Sequence[RunDirectory], path: str) -> str:
    """Write one HTML file with the tables and figures of several runs in columns; returns its path.

    `path` may be local or an address. Raises InputError for fewer than two runs, or for one that is named twice.
    """
    names = [directory.uri for directory in directories]
    if len(set(names)) != len(names) or len(names) < 2:
        raise InputError(f"side by side: expected at least two different runs, found {', '.join(names) or 'none'}")
    filesystem, inner = locate(path, is_output=True)
    file = PurePosixPath(inner)
    page = render({directory.uri: sections(directory, in_full=False) for directory in directories})
    return Folder(filesystem, str(file.parent)).write_text(file.name, page)

"""Adding a section to the report of a finished run, for the studies of this folder."""

import json

from east_ray.records import StudyPage
from east_ray.report.files import write_report
from east_ray.storage import RunDirectory, load_run


def add_page(run: str, name: str, page: StudyPage, number: int = 0) -> str:
    """Write ``studies/NAME.json`` of a round of a run, and the run's report again; returns the path of the report.

    Args:
        run: the run directory. Raises InputError if there is no run.
        number: the round, counted from 0.
    """
    directory = RunDirectory(load_run(run), only_read=True)
    (directory.round(number) / "studies").write_text(f"{name}.json", json.dumps(page, indent=1) + "\n")
    return write_report(directory)

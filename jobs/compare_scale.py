#!/usr/bin/env python3
"""The last step of jobs/compare_scale.sh: does the effect of the weights depend on the size of the model?

    python jobs/compare_scale.py RUN_DIR RUN_DIR...

Writes a page with the comparisons of all models into the report of the last one named.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pages import add_page

from east_ray.config import InputError
from east_ray.plan.model_size import model_size
from east_ray.records import ArmComparison, StudyPage, StudySeries
from east_ray.report.wording import difference_of, number_words, signed, with_interval
from east_ray.storage import RunDirectory, load_run

COLUMNS = ("run", "parameters", "weights", "accuracy, % (95 %)", "minus its baseline, points (95 %)", "Holm p")


@dataclass(frozen=True)
class Comparison:
    """A finished comparison of one model."""

    name: str  # of the run directory
    num_parameters: int
    found: ArmComparison


def read_comparison(run: str) -> Comparison:
    """The comparison in a run directory. Raises InputError if there is none, or if its model cannot be read."""
    directory = RunDirectory(load_run(run), only_read=True)
    text = directory.round(0).folder.read_text("comparison.json")
    if text is None:
        raise InputError(f"{run}: no finished comparison; run `east-ray compare` there first")
    size = model_size(directory.config.model, may_download=False)
    return Comparison(PurePosixPath(run).name, size.num_parameters, json.loads(text))


def scale_page(comparisons: Sequence[Comparison]) -> StudyPage:
    """The models by size: each before training and with each weighting, and the differences by size."""
    ordered = sorted(comparisons, key=lambda one: one.num_parameters)
    rows = []
    for one in ordered:
        about = [one.name, f"{one.num_parameters:,}"]
        if base := one.found.get("base"):
            rows.append([*about, "before training", with_interval(base, "accuracy"), "", ""])
        rows += [
            [
                *about,
                arm["label"],
                with_interval(arm, "mean"),
                signed(difference_of(arm)),
                number_words(arm["p_adjusted"], ".2g"),
            ]
            for arm in one.found["arms"]
        ]
    return {
        "title": "Does the effect depend on the size of the model",
        "text": "A comparison for each model. Differences are paired by seed and question. p is corrected within a "
        "model, not over the models.",
        "tables": [{"caption": "By the number of parameters", "columns": COLUMNS, "rows": rows}],
        "curves": [
            {
                "title": "Difference to the baseline by size",
                "x_label": "parameters (log10)",
                "y_label": "points",
                "series": list(_curves(ordered)),
            }
        ],
    }


def _curves(ordered: Sequence[Comparison]) -> Iterator[StudySeries]:
    """Of each weighting its differences, over the models that were trained with it."""
    for label in dict.fromkeys(arm["label"] for one in ordered for arm in one.found["arms"]):
        mine = [
            (math.log10(one.num_parameters), difference)
            for one in ordered
            for arm in one.found["arms"]
            if arm["label"] == label and (difference := difference_of(arm))
        ]
        if mine:
            x = [size for size, _ in mine]
            y, low, high = ([100 * one[key] for _, one in mine] for key in ("difference", "low", "high"))
            yield {"label": label, "x": x, "y": y, "low": low, "high": high}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="finished comparisons, each of another model")
    runs = parser.parse_args().runs
    try:
        print(f"report: {add_page(runs[-1], '8_scale', scale_page([read_comparison(run) for run in runs]))}")
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

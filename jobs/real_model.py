#!/usr/bin/env python3
"""Two steps of jobs/real_model.sh: the references of its two comparisons, and the table of its results.

python jobs/real_model.py references runs/real_model
python jobs/real_model.py table runs/real_model
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regimes import with_own_mistakes, with_references
from rich.console import Console

from east_ray.report.wording import difference_of, number_words, signed, with_interval

#: Share of the pool's references that become wrong answers of the model's own.
WRONG_SHARE = 0.2
#: The comparisons by their folder.
COMPARISONS = {"right": "right", "own": f"{WRONG_SHARE:.0%} wrong answers of its own"}
COLUMNS = ("references", "weights", "accuracy, %", "minus uniform, points", "p", "examples", "effective")


def references(root: Path) -> None:
    """Write ``right.parquet`` and ``own.parquet``: the pool's samples with the references of each comparison."""
    samples, pool = root / "pool" / "round_0" / "samples", root / "pool.jsonl"
    # A comparison is resumed only if the file's modification time is unchanged.
    if not (right := root / "right.parquet").exists():
        with_references(samples, pool, right)
    if not (own := root / "own.parquet").exists():
        with_references(samples, with_own_mistakes(samples, pool, root / "own.jsonl", WRONG_SHARE), own)


def rows(comparison: dict[str, Any], name: str) -> Iterator[list[str]]:
    """The lines of a comparison (records.ArmComparison): the model before training, and each arm."""
    base = comparison["base"]
    yield [name, "before training", with_interval(base, "accuracy"), "", "", "", ""]
    for arm in comparison["arms"]:
        yield [
            name,
            arm["label"],
            with_interval(arm, "mean"),
            signed(difference_of(arm)),
            number_words(arm["p_value"], ".2g"),
            f"{arm['num_examples']}",
            f"{arm['effective_examples']:.0f}",
        ]


def markdown(comparisons: dict[str, dict[str, Any]]) -> str:
    """All comparisons as one table in Markdown, below a line on what was compared."""
    first = next(iter(comparisons.values()))
    head = f"{len(first['seeds'])} seeds, {first['num_questions']} held-out questions; 95 % intervals.\n"
    lines = [list(COLUMNS), ["---"] * len(COLUMNS)]
    lines += [row for name, comparison in comparisons.items() for row in rows(comparison, name)]
    return "\n".join([head, *(f"| {' | '.join(line)} |" for line in lines)])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("references", "table"))
    parser.add_argument("root", type=Path, help="folder of the study")
    arguments = parser.parse_args()
    if arguments.step == "references":
        references(arguments.root)
        return
    comparisons = {
        told: json.loads((arguments.root / name / "round_0" / "comparison.json").read_text())
        for name, told in COMPARISONS.items()
    }
    Console(width=200).print(markdown(comparisons), highlight=False, markup=False)


if __name__ == "__main__":
    main()

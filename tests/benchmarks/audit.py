"""How well the label audit finds wrong references: ``python tests/benchmarks/audit.py runs/quickstart``.

The quick start's pool has wrong references that were planted and are marked in its file, in a field that a run never
reads. Printed: how many of the questions listed first are such (precision), how many such are listed at all (recall),
and the average precision, beside that of a list in random order (base_rate). The last line is a JSON object.
"""

import json
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from east_ray.records import QUESTIONS
from east_ray.report.audit import audit
from east_ray.storage import RunDirectory, load_run


@dataclass(frozen=True)
class Retrieval:
    """How well a ranking finds planted errors."""

    num_ranked: int
    num_wrong: int
    base_rate: float
    """Share of wrong references among all: the precision of a random ranking."""
    precision_at: dict[int, float]
    """Share of wrong references among the first k."""
    recall: float
    """Share of the wrong references that the ranking holds."""
    average_precision: float
    """Mean over the wrong references of the precision at their rank; 0 for those not ranked."""


def planted(
    ranked_ids: Sequence[str], wrong_ids: Collection[str], all_ids: Collection[str], cuts: Sequence[int] = (10, 30, 100)
) -> Retrieval:
    """Compare a ranking of suspects, most suspicious first, with the references known to be wrong.

    Cuts beyond the end of the ranking are replaced by its length. Raises ValueError if no reference is
    wrong, an id is ranked twice, or one is not among all.

    >>> found = planted(["b", "a"], {"b", "c"}, "abcd", cuts=[1, 10])
    >>> found.precision_at, found.recall, found.average_precision, found.base_rate
    ({1: 1.0, 2: 0.5}, 0.5, 0.5, 0.5)
    """
    wrong, ranked, everything = set(wrong_ids), set(ranked_ids), set(all_ids)
    if not wrong:
        raise ValueError("no reference answer is known to be wrong, so there is nothing to find")
    if len(ranked) < len(ranked_ids):
        raise ValueError("a question_id is ranked twice")
    if unknown := sorted((wrong | ranked) - everything):
        raise ValueError(f"{len(unknown)} question_ids are not among all questions, the first is {unknown[0]!r}")
    hits = [question_id in wrong for question_id in ranked_ids]
    found_at = [rank for rank, hit in enumerate(hits, start=1) if hit]
    sizes = sorted({*(cut for cut in cuts if cut < len(hits)), len(hits)} - {0})
    return Retrieval(
        num_ranked=len(hits),
        num_wrong=len(wrong),
        base_rate=len(wrong) / len(everything),
        precision_at={size: sum(hits[:size]) / size for size in sizes},
        recall=len(found_at) / len(wrong),
        average_precision=sum(count / rank for count, rank in enumerate(found_at, start=1)) / len(wrong),
    )


def main() -> None:
    config = load_run(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart")
    stages = RunDirectory(config, only_read=True).round(0)
    weighed = stages.learner(next(iter(config.learners())))
    assert config.questions is not None and config.questions.path is not None
    rows = [json.loads(line) for line in Path(config.questions.path).read_text().splitlines()]
    marked = {row["question"] for row in rows if row.get("reference_is_wrong")}
    asked = (stages / "questions").read(QUESTIONS).to_pylist()
    wrong = {row["question_id"] for row in asked if row["question"] in marked}
    results = {}
    for min_share in (0.3, 0.5, 0.7):
        folders = stages / "samples", stages / "answers", weighed / "examples", weighed / "discarded"
        found = audit(*folders, min_share=min_share, max_rows=len(asked))
        ids = [suspect.question_id for suspect in found.suspects]
        results[min_share] = asdict(planted(ids, wrong, {row["question_id"] for row in asked}))
        print(f"min_share {min_share}: {results[min_share]}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()

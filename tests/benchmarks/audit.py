"""How well the label audit finds wrong references: ``python tests/benchmarks/audit.py runs/quickstart``.

The quick start's pool has planted wrong references, marked in its file in a field that a run never reads. Printed are
the precision of the first listed questions, the recall of all listed ones, and the average precision with that of a
list in random order (base_rate). The last line is a JSON object.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from east_ray.records import QUESTIONS
from east_ray.report.audit import audit, planted
from east_ray.storage import RunDirectory, load_run


def main() -> None:
    config = load_run(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart")
    stages = RunDirectory(config, only_read=True).round(0)
    name, settings = next(iter(config.learners().items()))
    weighed = stages.learner(name)
    assert config.questions is not None and config.questions.path is not None
    rows = [json.loads(line) for line in Path(config.questions.path).read_text().splitlines()]
    marked = {row["question"] for row in rows if row.get("reference_is_wrong")}
    asked = (stages / "questions").read(QUESTIONS).to_pylist()
    wrong = {row["question_id"] for row in asked if row["question"] in marked}
    results = {}
    for min_share in (0.3, 0.5, 0.7):
        found = audit(
            stages / "samples",
            stages / "answers",
            weighed / "examples",
            weighed / "discarded",
            num_responses=settings.answers.responses,
            min_share=min_share,
            max_rows=len(asked),
        )
        ids = [suspect.question_id for suspect in found.suspects]
        results[min_share] = asdict(planted(ids, wrong, {row["question_id"] for row in asked}))
        print(f"min_share {min_share}: {results[min_share]}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()

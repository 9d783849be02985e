"""A round's folders made of the answers that its questions get, for the tests of what reads them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from east_ray import weighting
from east_ray.answers.graders import MathGrader
from east_ray.answers.grading import Graded, clustered
from east_ray.answers.stage import answers_table
from east_ray.records import CHOSEN, DISCARDED, EXAMPLES, JUDGED, SAMPLES, Question
from east_ray.selection import SelectionRules, judge
from east_ray.storage import Folder, locate

RULES = SelectionRules()
MATH = MathGrader()


def sample(question_id: str, answers: list[Any], reference: str = "4", **changes: Any) -> dict[str, Any]:
    """A row of samples/ whose responses box these answers; None: a response without an answer."""
    texts = ["no idea" if answer is None else f"So \\boxed{{{answer}}}" for answer in answers]
    row = {
        "question_id": question_id,
        "question": f"{question_id}?",
        "reference_answer": reference,
        "model": "base",
        "responses": [{"text": t, "num_tokens": 3, "finish_reason": "stop", "logprob": None} for t in texts],
    }
    return dict.fromkeys(SAMPLES.names) | row | changes


def graded(row: dict[str, Any], grader: MathGrader = MATH) -> Graded:
    """A row of samples/ with its responses read and clustered."""
    return clustered([response["text"] for response in row["responses"]], Question.of(row), grader)


def judged(row: dict[str, Any], rules: SelectionRules = RULES, grader: MathGrader = MATH) -> dict[str, Any]:
    """A row of samples/ -> a row of records.JUDGED."""
    finish_reasons = [response["finish_reason"] for response in row["responses"]]
    chosen = [{name: response.get(name) for name in CHOSEN.names} for response in row["responses"]]
    return judge(row, graded(row, grader), finish_reasons, chosen.__getitem__, rules, weighting.entropy_signal)


def write_samples(folder: Folder, parts: Sequence[Sequence[dict[str, Any]]]) -> None:
    """samples/ and answers/ of a round, in parts of these rows."""
    for number, rows in enumerate(parts):
        name = f"part-{number}.parquet"
        (folder / "samples").write_part(pa.Table.from_pylist(list(rows), SAMPLES), name)
        (folder / "answers").write_part(answers_table(list(map(Question.of, rows)), list(map(graded, rows))), name)


def write_round(path: Path, samples: list[dict[str, Any]], num_parts: int = 3, rules: SelectionRules = RULES) -> Folder:
    """The folder of a round with these samples, judged by the rules and weighted by entropy with exponent 1."""
    folder = Folder(*locate(str(path)))
    write_samples(folder, [samples[number::num_parts] for number in range(num_parts)])
    rows = [judged(row, rules) for row in samples]
    kept = [row for row in rows if row["reason"] is None]
    weights = weighting.weights([row["signal"] for row in kept], 1) if kept else ()
    weighted = [row | {"weight": weight} for row, weight in zip(kept, weights, strict=True)]
    (folder / "examples").write_part(pa.Table.from_pylist(weighted, EXAMPLES))
    dropped = pa.Table.from_pylist([row for row in rows if row["reason"] is not None], JUDGED)
    (folder / "discarded").write_part(dropped.select(DISCARDED.names).cast(DISCARDED))
    return folder

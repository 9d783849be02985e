"""A round's samples/, examples/ and discarded/ made of the answers that its questions get, for the tests of studies."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from east_ray import weighting
from east_ray.records import DISCARDED, EXAMPLES, JUDGED, SAMPLES
from east_ray.selection import SelectionRules, judge
from east_ray.storage import Folder, locate

RULES = SelectionRules("sft", "entropy", "keep", True, 1, "math", "cluster", False, 0)


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


def write_round(path: Path, samples: list[dict[str, Any]], num_parts: int = 3) -> Folder:
    """The folder of a round with these samples, judged and weighted by entropy with exponent 1."""
    folder = Folder(*locate(str(path)))
    for number in range(num_parts):
        part = pa.Table.from_pylist(samples[number::num_parts], SAMPLES)
        (folder / "samples").write_part(part, f"part-{number}.parquet")
    judged = [judge(row, RULES) for row in samples]
    kept = [row for row in judged if row["reason"] is None]
    weights = weighting.weights([row["signal"] for row in kept], 1) if kept else []
    weighted = [row | {"weight": weight} for row, weight in zip(kept, weights, strict=True)]
    (folder / "examples").write_part(pa.Table.from_pylist(weighted, EXAMPLES))
    dropped = pa.Table.from_pylist([row for row in judged if row["reason"] is not None], JUDGED)
    (folder / "discarded").write_part(dropped.select(DISCARDED.names).cast(DISCARDED))
    return folder

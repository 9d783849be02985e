"""The study of when weighting helps, in small: from the generator to its figure, and what it must not confuse."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.drill
def test_one_sampling_serves_every_share_of_wrong_references(tmp_path: Path) -> None:
    command = [
        sys.executable, "jobs/regimes.py", str(tmp_path), "--count", "40", "--easy-shares", "0.5", "--wrong-shares",
        "0.2", "--kinds", "stubborn", "evaluation.questions.max_questions=40", "compare.seeds=[0]",
        "compare.grids=[{signals: [uniform, entropy]}]",
    ]  # fmt: skip
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=580)
    assert result.returncode == 0, result.stdout + result.stderr
    pool = pq.read_table(tmp_path / "pool_40_easy_0.5" / "round_0" / "samples").sort_by("question_id").to_pylist()
    point = pq.read_table(tmp_path / "40_easy_0.5_wrong_0.2_stubborn.parquet").to_pylist()
    assert [row["responses"] for row in pool] == [row["responses"] for row in point]
    changed = [
        one["question"]
        for one, two in zip(pool, point, strict=True)
        if one["reference_answer"] != two["reference_answer"]
    ]
    rows = [json.loads(line) for line in (tmp_path / "40_easy_0.5_wrong_0.2_stubborn.jsonl").read_text().splitlines()]
    assert sorted(changed) == sorted(row["question"] for row in rows if row.get("reference_is_wrong"))
    assert len(changed) == 8
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [(row["wrong_share"], row["label"]) for row in summary["arms"] if row["difference"] is not None] == [
        (0.2, "EAST (entropy, a = 1)")
    ]
    assert all(found["overall"]["num_questions"] > 20 for found in summary["wrong_steps"].values())
    assert "<svg" in (tmp_path / "regimes.svg").read_text()

"""The study of when weighting helps, in small: from the generator to its figure, and what it must not confuse."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.drill
def test_one_sampling_serves_every_share_of_wrong_references(tmp_path: Path) -> None:
    command = [
        sys.executable, "jobs/regimes.py", str(tmp_path), "--count", "20", "--easy-shares", "0.5", "--wrong-shares",
        "0.2", "--kinds", "stubborn", "evaluation.questions.max_questions=20", "compare.seeds=[0]",
        "compare.grids=[{signals: [uniform, entropy]}]",
    ]  # fmt: skip
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=580)
    assert result.returncode == 0, result.stdout + result.stderr
    pool = pq.read_table(tmp_path / "pool_20_easy_0.5" / "round_0" / "samples").sort_by("question_id").to_pylist()
    point = pq.read_table(tmp_path / "20_easy_0.5_wrong_0.2_stubborn.parquet").to_pylist()
    assert [row["responses"] for row in pool] == [row["responses"] for row in point]
    changed = [
        one["question"]
        for one, two in zip(pool, point, strict=True)
        if one["reference_answer"] != two["reference_answer"]
    ]
    rows = [json.loads(line) for line in (tmp_path / "20_easy_0.5_wrong_0.2_stubborn.jsonl").read_text().splitlines()]
    assert sorted(changed) == sorted(row["question"] for row in rows if row.get("reference_is_wrong"))
    assert len(changed) == 4
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [(row["wrong_share"], row["label"]) for row in summary["arms"] if row["difference"] is not None] == [
        (0.2, "EAST (entropy, a = 1)")
    ]
    assert all(0 <= row["wrong_weight"] < 1 and 0 <= row["contradicted_weight"] < 1 for row in summary["arms"])
    assert all(found["overall"]["num_questions"] > 10 for found in summary["wrong_steps"].values())
    assert "<svg" in (tmp_path / "regimes.svg").read_text()


@pytest.fixture(scope="module")
def regimes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("regimes", ROOT / "jobs" / "regimes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_weight_on_wrong_and_on_contradicted_references(regimes: ModuleType, tmp_path: Path) -> None:
    def cluster(answer: str | None, num_responses: int, is_correct: bool = False) -> dict[str, Any]:
        return {"answer": answer, "num_responses": num_responses, "is_correct": is_correct}

    rows = [
        ("a?", 1.0, [cluster("4", 8, True)], False),
        ("b?", 2.0, [cluster("5", 6), cluster("4", 2, True)], True),  # contradicted by three quarters: wrong
        ("c?", 3.0, [cluster("5", 5), cluster("4", 3, True)], True),  # by fewer
        ("d?", 4.0, [cluster(None, 6), cluster("4", 2, True)], False),  # no answer contradicts nothing
    ]
    (tmp_path / "point.jsonl").write_text(
        "".join(json.dumps({"question": r[0], "reference_is_wrong": r[3]}) + "\n" for r in rows)
    )
    examples = [{"question": r[0], "weight": r[1], "clusters": r[2], "num_responses": 8} for r in rows]
    folder = tmp_path / "point" / "round_0" / "variants" / "sft-uniform-seed-0" / "examples"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(examples), folder / "part.parquet")
    shares = regimes.weight_shares(tmp_path, "point", "sft-uniform")
    assert shares == {"wrong_weight": pytest.approx(0.5), "contradicted_weight": pytest.approx(0.2)}


def test_a_wrong_reference_of_the_models_own_is_an_answer_that_it_gave(regimes: ModuleType, tmp_path: Path) -> None:
    given = {"a?": ["4", "5", "4"], "b?": ["4.0", "8/2"], "c?": ["6", "7", None], "d?": ["4", "9", "9"]}
    rows = [{"question": question, "answer": "Two and two.\n#### 4"} for question in given]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples = [
        {"question": question, "responses": [{"text": "?" if one is None else f"\\boxed{{{one}}}"} for one in texts]}
        for question, texts in given.items()
    ]
    pq.write_table(pa.Table.from_pylist(samples), tmp_path / "samples.parquet")

    def wrong(share: float) -> dict[str, str]:
        arguments = tmp_path / "samples.parquet", tmp_path / "pool.jsonl", tmp_path / "point.jsonl", share
        written = [json.loads(line) for line in regimes.with_own_mistakes(*arguments).read_text().splitlines()]
        assert [row["question"] for row in written] == list(given)
        assert all(row["answer"].startswith("Two and two.\n#### ") for row in written)
        return {row["question"]: row["answer"][-1] for row in written if row.get("reference_is_wrong")}

    all_wrong = wrong(1.0)
    assert all_wrong == {"a?": "5", "c?": all_wrong["c?"], "d?": "9"} and all_wrong["c?"] in "67"
    for share, count in ((0.0, 0), (0.25, 1), (0.5, 2)):
        assert len(wrong(share)) == count and wrong(share).items() <= all_wrong.items()

"""The study of how many responses are enough: what it makes of finished comparisons."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

JOBS = Path(__file__).parent.parent / "jobs"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(JOBS), *sys.path])
    spec = importlib.util.spec_from_file_location("how_many_responses", JOBS / "how_many_responses.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_arm_is_compared_with_entropy_weights_from_the_most(study: ModuleType, tmp_path: Path) -> None:
    def wrote(path: Path, columns: dict[str, list[object]]) -> None:
        path.mkdir(parents=True)
        pq.write_table(pa.table(columns), path / "part-0.parquet")

    wrote(tmp_path / "sampled", {"num_responses": [8, 8]})
    wrote(tmp_path / "sampled_budget", {"num_responses": [2, 6]})
    #: Of each arm which of four questions are answered correctly; both seeds agree.
    arms = {
        "fixed": {
            "sft-entropy-a1-4": "1100",
            "sft-uniform-4": "1000",
            "sft-entropy-a1-8": "1110",
            "sft-uniform-8": "1101",
        },
        "budget-4": {"sft-entropy-a1": "1111", "sft-uniform": "0000"},
    }
    for name, of_name in arms.items():
        round_ = tmp_path / name / "round_0"
        for arm, right in of_name.items():
            wrote(round_ / "variants" / f"{arm}-seed-0" / "examples", {"weight": [2.0, 0.0]})
            for seed, order in ((0, range(4)), (1, range(3, -1, -1))):  # rows may come in any order
                rows = {"question_id": [f"q{i}" for i in order], "is_correct": [right[i] == "1" for i in order]}
                wrote(round_ / "variants" / f"{arm}-seed-{seed}" / "evaluation" / "answers", rows)
        (round_ / "comparison.json").write_text(json.dumps({"seeds": [0, 1]}))
    samples = {"fixed": tmp_path / "sampled", "budget-4": tmp_path / "sampled_budget"}
    rows = study.summary(tmp_path, samples, [4, 8])
    assert [(row["signal"], row["rule"], row["responses"], row["accuracy"], row["difference"]) for row in rows] == [
        ("entropy", "fixed", 4, 0.5, -0.25), ("uniform", "fixed", 4, 0.25, -0.5), ("entropy", "fixed", 8, 0.75, None),
        ("uniform", "fixed", 8, 0.75, 0.0), ("entropy", "budget", 4, 1.0, 0.25), ("uniform", "budget", 4, 0.0, -0.75),
    ]  # fmt: skip
    assert {(row["num_examples"], row["effective_examples"]) for row in rows} == {(2, 1.0)}
    study.figure(rows, tmp_path / "figure.svg")
    assert "<svg" in (tmp_path / "figure.svg").read_text()
    assert study.summary_table(rows).row_count == 6

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
        "0.2", "--kinds", "stubborn", "--checked", "5", "evaluation.questions.max_questions=20", "compare.seeds=[0]",
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
    (by_arm,) = summary["wrong_steps"].values()
    assert set(by_arm) == {"sft-uniform", "sft-entropy-a1"}
    assert all(found["overall"]["num_questions"] > 10 for found in by_arm.values())
    assert all(row["wrong_labels"] < 0.3 for row in summary["arms"])
    assert [row["detectable"] for row in summary["arms"]] == [None, pytest.approx(0.5, abs=0.4)]
    assert "<svg" in (tmp_path / "regimes.svg").read_text()


@pytest.fixture(scope="module")
def regimes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("regimes", ROOT / "jobs" / "regimes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_checked_questions_are_of_the_pool_and_have_right_answers(regimes: ModuleType, tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    rows = [{"question": f"{n} + {n}?", "answer": f"Add them.\n#### {2 * n}"} for n in range(40)]
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = regimes.checked_questions(pool, 10)
    checked = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row["question"] for row in checked}) == 10
    assert all(int(row["reference_answer"]) == 2 * int(row["question"].split()[0]) for row in checked)
    assert path.read_text() == regimes.checked_questions(pool, 10).read_text()  # so a study can be resumed
    assert path.name == "pool_checked_10.jsonl"


def cluster(answer: str | None, num_responses: int, is_correct: bool = False) -> dict[str, Any]:
    return {"answer": answer, "num_responses": num_responses, "is_correct": is_correct}


def write_examples(folder: Path, rows: list[tuple[str, str, float, list[dict[str, Any]]]]) -> None:
    """Examples of questions with their labels, weights and clusters; all have 8 responses."""
    folder.mkdir(parents=True)
    names = ("question", "reference_answer", "weight", "clusters")
    examples = [dict(zip(names, row, strict=True)) | {"num_responses": 8} for row in rows]
    pq.write_table(pa.Table.from_pylist(examples), folder / "part.parquet")


def test_examples_and_weight_on_wrong_and_on_contradicted_labels(regimes: ModuleType, tmp_path: Path) -> None:
    pool = dict.fromkeys(("a?", "b?", "c?", "d?", "e?"), "Two and two.\n#### 4")
    (tmp_path / "pool.jsonl").write_text(
        "".join(json.dumps({"question": one, "answer": answer}) + "\n" for one, answer in pool.items())
    )
    solutions = regimes.solutions_of(tmp_path, "pool")
    assert solutions == pool
    rows = [
        ("a?", "4.0", 1.0, [cluster("4", 8, True)]),  # another way to write it
        ("b?", "5", 2.0, [cluster("4", 6), cluster("5", 2, True)]),  # contradicted by three quarters
        ("c?", "5", 3.0, [cluster("4", 5), cluster("5", 3, True)]),  # by fewer
        ("d?", "4", 4.0, [cluster(None, 6), cluster("4", 2, True)]),  # no answer contradicts nothing
    ]
    write_examples(tmp_path / "given", rows)
    shares = regimes.label_shares(tmp_path / "given", solutions)
    assert shares == {"wrong_labels": 0.5, "wrong_weight": 0.5, "contradicted_weight": pytest.approx(0.2)}
    # An arm that has replaced the label of b? and dropped c?
    repaired = [rows[0], ("b?", "4", 2.0, [cluster("4", 6, True), cluster("5", 2)]), rows[3]]
    write_examples(tmp_path / "repaired", repaired)
    assert set(regimes.label_shares(tmp_path / "repaired", solutions).values()) == {0}


def row(name: str, p_value: float | None, difference: float | None, **at: Any) -> dict[str, Any]:
    """A row of summary.json before its verdict is known over all points."""
    place = {"easy_share": 0.5, "wrong_share": 0.2, "kind": "own"} | at
    bounds = {"low": difference, "high": difference, "verdict": "baseline" if p_value is None else "better"}
    shares = {"wrong_labels": 0.2, "wrong_weight": 0.4, "contradicted_weight": 0.03, "detectable": 0.01}
    return place | bounds | shares | {"name": name, "label": name, "p_value": p_value, "difference": difference}


def test_p_values_are_corrected_over_the_whole_figure(regimes: ModuleType) -> None:
    rows = [
        row("uniform", None, None),
        row("entropy", 0.004, 0.02),
        row("accuracy", 0.03, -0.01, kind="stubborn"),
        row("rejection", 0.02, -0.03, easy_share=0.75),
    ]
    found = regimes.with_verdicts(rows)
    # Sorted 0.004, 0.02, 0.03 times 3, 2, 1
    assert [one["p_adjusted"] for one in found] == [None, *map(pytest.approx, (0.012, 0.04, 0.04))]
    assert [one["verdict"] for one in found] == ["baseline", "better", "worse", "worse"]
    found = regimes.with_verdicts([*rows, row("entropy", 0.9, 0.0, wrong_share=0.05)])
    assert [one["verdict"] for one in found] == ["baseline", "better", *["not shown"] * 3], "one more test"
    assert "over all 4 differences" in regimes.power_line(found) and "1.0 to 1.0 points" in regimes.power_line(found)


def test_rows_of_arms_and_of_further_pairs(regimes: ModuleType, tmp_path: Path) -> None:
    arm = {"label": "EAST", "baseline": None, "difference": None, "difference_low": None, "difference_high": None,
           "p_value": None, "verdict": "baseline", "mean": 0.9, "num_examples": 2, "effective_examples": 1.5,
           "top_share": 0.02, "detectable": None}  # fmt: skip
    pair = {"name": "b", "baseline": "a", "difference": 0.01, "low": 0.0, "high": 0.02, "p_value": 0.05,
            "p_adjusted": 0.1, "verdict": "not shown"}  # fmt: skip
    arms = [arm | {"name": "a", "label": "A"}, arm | {"name": "b", "label": "B", "baseline": "a"}]
    found = {"base": {"accuracy": 0.8}, "seeds": [3, 4], "arms": arms, "pairs": [pair]}
    round_ = tmp_path / "point" / "round_0"
    for name, label in (("a", "5"), ("b", "4")):  # arms may train on other labels
        write_examples(round_ / "variants" / f"{name}-seed-3" / "examples", [("q?", label, 1.0, [])])
    (round_ / "comparison.json").write_text(json.dumps(found))
    rows = regimes.summary_rows(tmp_path, "point", (0.5, 0.2, "own"), {"q?": "#### 4"})
    assert [(one["name"], one["label"], one.get("wrong_labels")) for one in rows] == [
        ("a", "A", 1.0), ("b", "B", 0.0), ("b", "B minus A", None)
    ]  # fmt: skip
    assert regimes.summary_table(regimes.with_verdicts(rows)).row_count == 3


@pytest.mark.parametrize("num_arms", [1, 6, 15])
def test_the_figure_has_every_arm_apart(regimes: ModuleType, tmp_path: Path, num_arms: int) -> None:
    shares = (0.0, 0.05, 0.1, 0.2)
    rows = [
        row(f"arm {number}", 0.5, 0.001 * number, wrong_share=share, kind=kind)
        for number in range(num_arms)
        for share in shares
        for kind in ("own", "stubborn")
    ]
    regimes.figure(rows, tmp_path / "figure.svg")
    drawn = (tmp_path / "figure.svg").read_text()
    assert all(drawn.count(f"<!-- arm {number} -->") == 1 for number in range(num_arms)), "one legend"
    assert regimes.bar_offset(shares, num_arms) * (num_arms - 1) < 5
    assert regimes.bar_offset([0.2], 3) == regimes.BAR_OFFSET


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

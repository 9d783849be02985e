"""The studies of jobs/ that leave a page in a report, and the scripts that run several commands one after another."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from json_records import checked
from rounds import judged, sample, write_samples
from run_directories import write_run

from east_ray.config import InputError
from east_ray.records import EXAMPLES, StudyPage
from east_ray.storage import Folder, locate

JOBS = Path(__file__).parent.parent / "jobs"


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Name -> a script of jobs/ as a module; they import one another by name."""
    monkeypatch.syspath_prepend(str(JOBS))

    def load(name: str) -> ModuleType:
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


def examples(answers: dict[str, list[Any]]) -> pa.Table:
    """Examples of questions whose responses give these answers; 4 is the reference of each."""
    rows = [judged(sample(name, given)) | {"weight": 1.0} for name, given in answers.items()]
    return pa.Table.from_pylist([{name: row.get(name) for name in EXAMPLES.names} for row in rows], EXAMPLES)


#: One question of each kind.
KINDS = examples(
    {
        "stubborn": [4, 5, 5, 5, 5, 5, 5, 5],
        "scattered": [4, 5, 6, 7, 8, 9, 1, 2],
        "slips": [4, 4, 4, 4, 5, 6, 7, 8],
        "solved": [4, 4, 4, 4, 4, 4, 4, 4],
    }
)


# ------------------------------------------------------------------------------------------------ where signals differ


def test_each_question_is_of_the_kind_of_its_mistakes(job: Any) -> None:
    page = job("diverging_signals").diverging_page(KINDS)
    checked(StudyPage, json.dumps(page))
    by_kind = {row[0]: row for row in page["tables"][0]["rows"]}
    assert {kind: row[2] for kind, row in by_kind.items()} == {
        "stubborn": 1, "scattered": 1, "slips": 1, "mostly solved": 1,
    }  # fmt: skip
    for column in (3, 6, 7, 8):  # what uniform weights and each signal give to the kinds
        assert sum(float(row[column]) for row in by_kind.values()) == pytest.approx(100, abs=0.2)
    entropies = KINDS["entropy"].to_numpy()
    assert by_kind["stubborn"][6] == f"{100 * entropies[0] / entropies.sum():.1f}"
    # A stubborn error weighs most by the share of its answer, 7/8 of a total of 7/8 + 1/8 + 1/8 + 0.
    assert by_kind["stubborn"][8] == "77.8" and by_kind["mostly solved"][8] == "0.0"


def test_the_questions_that_differ_most_are_named_with_their_answers(job: Any) -> None:
    _, accuracy, rejection = job("diverging_signals").diverging_page(KINDS, max_questions=1)["tables"]
    # By entropy slips come before a stubborn error, by accuracy after it.
    assert [row[0] for row in accuracy["rows"]] == ["slips", "stubborn"]
    assert accuracy["rows"][1][3] == "5 × 7; 4 × 1, correct" and accuracy["rows"][1][4] == "stubborn"
    assert rejection["rows"][-1][0] == "stubborn"
    for table in (accuracy, rejection):
        assert float(table["rows"][-1][7]) < float(table["rows"][-1][8])


def test_without_differences_or_questions_the_page_says_so(job: Any) -> None:
    study = job("diverging_signals")
    same = study.diverging_page(examples({"a": [4, 4], "b": [4, 4]}))
    assert same["tables"][1]["rows"] == [] and "none" in same["tables"][1]["caption"]
    assert same["tables"][0]["rows"][0][6] == ""  # no signal, no share of it
    assert "Fewer than two" in study.diverging_page(KINDS.slice(0, 1))["text"]


def test_ranks_are_of_equal_questions_the_same(job: Any) -> None:
    ranks = job("diverging_signals").ranks(np.array([2.0, 1.0, 2.0, 2.0]))
    assert ranks[0] == ranks[2] == ranks[3] and ranks.mean() == pytest.approx(0.5)


def test_a_page_joins_the_report_of_a_finished_run(job: Any, tmp_path: Path) -> None:
    write_run(tmp_path / "run", num_seeds=2)
    script = [sys.executable, str(JOBS / "diverging_signals.py")]
    said = subprocess.run([*script, str(tmp_path / "run")], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == f"report: {tmp_path / 'run' / 'report.html'}"
    checked(StudyPage, (tmp_path / "run" / "round_0" / "studies" / "7_diverging_signals.json").read_text())
    assert "Where the signals differ" in (tmp_path / "run" / "report.html").read_text()
    refused = subprocess.run([*script, str(tmp_path / "none")], capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and len(refused.stderr.strip().splitlines()) == 1, refused.stderr


# --------------------------------------------------------------------------------------------------- by size, by number


def test_models_are_ordered_by_size_with_a_curve_of_each_weighting(job: Any, tmp_path: Path) -> None:
    study = job("compare_scale")
    write_run(tmp_path / "run", num_seeds=2)
    found = json.loads((tmp_path / "run" / "round_0" / "comparison.json").read_text())
    page = study.scale_page([study.Comparison("big", 10**9, found), study.Comparison("small", 10**6, found)])
    checked(StudyPage, json.dumps(page))
    rows = page["tables"][0]["rows"]
    assert [row[0] for row in rows] == ["small"] * 5 + ["big"] * 5
    assert [row[2] for row in rows[:2]] == ["before training", "sft-uniform"] and rows[1][4] == ""
    series = page["curves"][0]["series"]
    assert [one["label"] for one in series] == [arm["label"] for arm in found["arms"][1:]]
    assert series[0]["x"] == [6, 9] and series[0]["y"] == pytest.approx([2.0, 2.0])


def test_a_run_without_a_comparison_has_no_size_to_compare(job: Any, tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    with pytest.raises(InputError, match="no finished comparison"):
        job("compare_scale").read_comparison(str(tmp_path / "run"))


def test_numbers_of_responses_make_a_page(job: Any) -> None:
    row = {"rule": "fixed", "low": 0.4, "high": 0.6, "num_examples": 9, "effective_examples": 5.0, "accuracy": 0.5}
    none = dict.fromkeys(("difference", "difference_low", "difference_high", "p_adjusted"))
    less = {"difference": -0.02, "difference_low": -0.04, "difference_high": 0.0, "p_adjusted": 0.04}
    rows = [
        row | less | {"signal": "entropy", "responses": 32},
        row | none | {"signal": "entropy", "responses": 128},
        row | less | {"signal": "uniform", "responses": 128},
    ]
    page = checked(StudyPage, json.dumps(job("how_many_responses").page(rows)))
    assert page["tables"][0]["rows"][0][1:4] == ["32", "50.0 (40.0 to 60.0)", "-2.0 (-4.0, +0.0)"]
    assert [(one["label"], one["x"]) for one in page["curves"][0]["series"]] == [
        ("entropy, fixed", [32, 128]), ("uniform, fixed", [128]),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------ the real model


def test_a_fifth_of_the_references_becomes_wrong_answers_of_the_model(job: Any, tmp_path: Path) -> None:
    given = {f"q{number}?": [4, 5, 4] for number in range(10)}
    lines = [{"question": question, "answer": "2+2=4\n#### 4"} for question in given]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [sample(question, answers, question=question) for question, answers in given.items()]
    write_samples(Folder(*locate(str(tmp_path / "pool" / "round_0"))), [rows])
    study = job("real_model")
    study.references(tmp_path)
    right, own = (pq.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in ("right", "own"))
    assert [row["reference_answer"] for row in right] == ["4"] * 10
    assert sorted(row["reference_answer"] for row in own) == ["4"] * 8 + ["5"] * 2
    assert [row["responses"] for row in right] == [row["responses"] for row in own]
    before = [(tmp_path / name).stat().st_mtime_ns for name in ("right.parquet", "own.parquet")]
    study.references(tmp_path)  # a comparison resumes only if its file is untouched
    assert [(tmp_path / name).stat().st_mtime_ns for name in ("right.parquet", "own.parquet")] == before


def test_the_table_has_every_arm_of_both_comparisons(job: Any, tmp_path: Path) -> None:
    write_run(tmp_path / "run", num_seeds=2)
    found = json.loads((tmp_path / "run" / "round_0" / "comparison.json").read_text())
    lines = job("real_model").markdown({"right": found, "wrong": found}).splitlines()
    assert lines[0] == "2 seeds, 100 held-out questions; 95 % intervals."
    assert len(lines) == 4 + 2 * 5 and len({line.count("|") for line in lines[2:]}) == 1
    assert lines[4] == "| right | before training | 50.0 (40.0 to 60.0) |  |  |  |  |"
    assert "| right | sft-entropy-a0.5 | 62.0 (60.0 to 64.0) | +2.0 (+0.0, +4.0) | 0.02 |" in lines[6]


# ---------------------------------------------------------------------------------------------------------- the scripts

#: Stands for `east-ray`: checks the settings as the real one does, and writes what was asked for.
EAST_RAY = """
import json, os, sys
from east_ray.config.files import load
verb, rest = sys.argv[1], sys.argv[2:]
if verb == "report":
    told = [os.path.basename(run) for run in rest]
else:
    config = load(rest[0], rest[1:])
    questions = config.questions and os.path.basename(config.questions.path)
    told = [os.path.basename(config.run_dir), config.model, questions, config.samples and config.samples.path]
with open(os.environ["LOG"], "a") as log:
    log.write(json.dumps([verb, *told]) + chr(10))
"""
#: Stands for `python`: runs the generator of questions, and only writes down the other scripts.
PYTHON = """
import json, os, pathlib, runpy, sys
name = os.path.basename(sys.argv[1])
sys.argv[:] = sys.argv[1:]
if name == "word_problems.py":
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    with open(os.environ["LOG"], "a") as log:
        log.write(json.dumps([name, *map(os.path.basename, sys.argv[1:])]) + chr(10))
    if name in ("smollm2.py", "make_model.py"):
        pathlib.Path(sys.argv[-1]).mkdir()
        (pathlib.Path(sys.argv[-1]) / "README.md").touch()
"""


@pytest.fixture
def commands(tmp_path: Path) -> Any:
    """Script and arguments -> the commands that it gives, with what each is about; they do nothing."""
    stubs, log = tmp_path / "bin", tmp_path / "log"
    stubs.mkdir()
    for name, source in (("east-ray", EAST_RAY), ("python", PYTHON)):
        (stubs / name).write_text(f"#!{sys.executable}\n{source}")
        (stubs / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{stubs}:{os.environ['PATH']}", "PYTHONPATH": str(JOBS.parent)}

    def run(script: str, *arguments: str, **sizes: str) -> list[list[Any]]:
        log.write_text("")
        ran = subprocess.run(
            [str(JOBS / script), *arguments], cwd=JOBS.parent, env=environment | {"LOG": str(log)} | sizes,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return [json.loads(line) for line in log.read_text().splitlines()]

    return run


def test_the_study_of_the_real_model_is_one_resumable_command(commands: Any, tmp_path: Path) -> None:
    root = tmp_path / "study"
    sizes = {"WARM_START": "20", "POOL": "30", "HELD_OUT": "40"}
    base, warm = str(root / "smollm2"), str(root / "warm_start" / "round_0" / "model")
    asked = [
        ["run", "warm_start", base, "warm_start.jsonl", None],
        ["sample", "pool", warm, "pool.jsonl", None],
        ["real_model.py", "references", "study"],
        ["compare", "right", warm, None, str(root / "right.parquet")],
        ["compare", "own", warm, None, str(root / "own.parquet")],
        ["real_model.py", "table", "study"],
    ]
    assert commands("real_model.sh", str(root), "compare.seeds=[0]", **sizes) == [
        ["smollm2.py", "smollm2.part"], *asked,
    ]  # fmt: skip
    files = [root / f"{name}.jsonl" for name in ("warm_start", "pool", "held_out")]
    questions = [{json.loads(line)["question"] for line in file.read_text().splitlines()} for file in files]
    assert [len(found) for found in questions] == [20, 30, 40] and len(set.union(*questions)) == 90
    before = [file.stat().st_mtime_ns for file in files]
    assert commands("real_model.sh", str(root), **sizes) == asked
    assert [file.stat().st_mtime_ns for file in files] == before


def test_three_sizes_are_compared_on_the_same_questions(commands: Any, tmp_path: Path) -> None:
    root = tmp_path / "sizes"
    asked = [
        ["run", "warm_start", str(root / "smollm2"), "warm_start.jsonl", None],
        ["compare", "1.1m", str(JOBS / "quickstart" / "model"), "train.jsonl", None],
        ["compare", "5m", str(root / "model_5m"), "train.jsonl", None],
        ["compare", "135m", str(root / "warm_start" / "round_0" / "model"), "train.jsonl", None],
        ["compare_scale.py", "1.1m", "5m", "135m"],
        ["report", "1.1m", "5m", "135m", "--output", "side_by_side.html"],
    ]
    assert commands("three_sizes.sh", str(root), "training.epochs=2") == [
        ["make_model.py", "--hidden-size", "256", "--layers", "5", "--out", "model_5m"],
        ["smollm2.py", "smollm2.part"],
        *asked,
    ]
    learned = {json.loads(line)["question"] for line in (root / "warm_start.jsonl").read_text().splitlines()}
    for name in ("train", "test"):
        lines = (JOBS / "quickstart" / f"{name}.jsonl").read_text().splitlines()
        assert not learned & {json.loads(line)["question"] for line in lines}
    assert commands("three_sizes.sh", str(root)) == asked


def test_models_of_one_family_end_in_one_report(commands: Any, tmp_path: Path) -> None:
    config, root = str(JOBS / "compare_quickstart.yaml"), tmp_path / "scale"
    one, two = "jobs/quickstart/model", "org/two"
    assert commands("compare_scale.sh", str(root), config, one, two, "compare.seeds=[0]") == [
        ["compare", "jobs_quickstart_model", one, "train.jsonl", None],
        ["compare", "org_two", two, "train.jsonl", None],
        ["compare_scale.py", "jobs_quickstart_model", "org_two"],
        ["report", "jobs_quickstart_model", "org_two", "--output", "side_by_side.html"],
    ]
    assert [words[0] for words in commands("compare_scale.sh", str(root), config, one)] == ["compare"]

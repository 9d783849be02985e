"""A comparison on real parts: killed, gone on with, extended; and what it says."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from east_ray import compare as comparing
from east_ray.config import CompareConfig, InputError
from east_ray.config.files import resolve
from east_ray.storage import Folder, RunDirectory, locate
from east_ray.training.checkpoints import interrupted

ROOT = Path(__file__).parent.parent
MINIMAL = {"model": "m", "run_dir": "r", "questions": {"path": "q.jsonl"}}


def comparison(**settings: Any) -> CompareConfig:
    config = resolve(MINIMAL | {"compare": settings}).compare
    assert config is not None
    return config


def test_every_combination_has_a_name_and_its_uniform_baseline() -> None:
    settings = comparison(
        seeds=[3, 4],
        grids=[
            {"signals": ["uniform", "entropy"], "exponents": [-1.0, 1.5], "mappings": ["power", "sigmoid"]},
            {"signals": ["accuracy"]},
            {"objectives": ["dpo", "kto"], "signals": ["uniform", "entropy"], "suffix": "-slow",
             "overrides": {"training.learning_rate": 1e-7}},
            {"objectives": ["kto"], "signals": ["rejection"]},
        ],
    )  # fmt: skip
    assert settings.baselines() == {
        "sft-uniform": None,
        "sft-entropy-a-1": "sft-uniform",
        "sft-entropy-a1.5": "sft-uniform",
        "sft-entropy-a-1-sigmoid": "sft-uniform",
        "sft-entropy-a1.5-sigmoid": "sft-uniform",
        "sft-accuracy-a1": "sft-uniform",
        "dpo-uniform-slow": None,
        "dpo-entropy-a1-slow": "dpo-uniform-slow",
        "kto-uniform-slow": None,
        "kto-entropy-a1-slow": "kto-uniform-slow",
        "kto-rejection-a1": None,  # no uniform training has its overrides
    }
    config = resolve(MINIMAL | {"compare": settings.model_dump()})
    assert len(config.learners()) == 2 * 11
    learner = config.learners()["dpo-entropy-a1-slow-seed-4"]
    assert (learner.seed, learner.training.objective, learner.training.learning_rate) == (4, "dpo", 1e-7)
    assert (learner.weighting.signal, learner.compare) == ("entropy", None)


def test_a_grid_may_estimate_the_entropy_otherwise() -> None:
    smoothed = {"weighting.entropy_estimator": "smoothed"}
    grids: list[dict[str, Any]] = [{}, {"signals": ["entropy"], "overrides": smoothed, "suffix": "-smoothed"}]
    config = resolve(MINIMAL | {"compare": {"grids": grids, "seeds": [0]}})
    estimators = {name: learner.weighting.entropy_estimator for name, learner in config.learners().items()}
    assert estimators["sft-entropy-a1-seed-0"] == "plug_in"
    assert estimators["sft-entropy-a1-smoothed-seed-0"] == "smoothed"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grids": [{}, {"signals": ["uniform"]}]}, "two trainings are called sft-uniform; give one grid"),
        ({"seeds": [1, 1]}, "seeds: each may be given once"),
        ({"grids": [{"overrides": {"sampling.max_tokens": 3}}]}, "compare.sampling.max_tokens: only labels, selection"),
        ({"grids": [{"overrides": {"training.epoch": 3}}]}, "did you mean epochs?"),
        ({"grids": []}, "compare.grids"),
        ({"grids": [{"signal": ["entropy"]}]}, "compare.grids.0.signal: unknown key; did you mean signals?"),
        ({"seeds": [-1]}, "compare.seeds.0"),
        ({"pairs": [["sft-entropy-a1", "sft-uniforn"]]}, "pairs: no training is called sft-uniforn; did you mean"),
        ({"pairs": [["sft-uniform", "sft-uniform"]]}, "pairs: sft-uniform cannot be compared with itself"),
        ({"pairs": [["sft-uniform"]]}, "compare.pairs.0"),
        ({"grids": [{"overrides": {"weighting": {"exponent": 2.0}}}]}, "weighting.exponent is decided by the lists"),
    ],
)
def test_what_cannot_be_compared_is_said(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("?", "[?]")):
        resolve(MINIMAL | {"compare": settings})


def east_ray(*arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "east_ray", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


WRONG = [r"\boxed{0}", r"\boxed{-1}"]


@pytest.mark.drill
def test_a_killed_comparison_goes_on_and_repeats_no_training(quickstart: Path, tmp_path: Path) -> None:
    questions = [
        json.loads(line)
        for name in ("train", "test")
        for line in (quickstart / f"{name}.jsonl").read_text().splitlines()
    ]
    table = [
        {"question": row["question"], "responses": [f"\\boxed{{{row['answer'].rpartition('#### ')[2]}}}", *WRONG]}
        for row in questions
    ]
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    arguments = [
        "compare", "jobs/compare_quickstart.yaml", f"run_dir={tmp_path / 'run'}", "questions.max_questions=40",
        "sampling.responses_per_question=8", "evaluation.questions.max_questions=60", "compare.seeds=[0, 1]",
        "compare.models_at_once=4", "training.micro_batch_size=16", "sampling.backend=scripted",
        f"sampling.backend_args={{table: {tmp_path / 'table.jsonl'}}}",
        "compare.grids=[{signals: [uniform]}, {signals: [entropy]}]",
    ]  # fmt: skip
    round_ = tmp_path / "run" / "round_0"

    def records() -> dict[str, int]:
        found = round_.glob("variants/*/stages/training.json")
        return {path.parts[-3]: path.stat().st_mtime_ns for path in found}

    process = east_ray(*arguments)
    deadline = time.monotonic() + 400
    while not records():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = records()
    assert 1 <= len(before) < 4

    again = east_ray(*arguments)
    out, err = again.communicate(timeout=500)
    assert again.returncode == 0, out + err
    after = records()
    assert len(after) == 4 and {name: after[name] for name in before} == before, "a finished training was repeated"
    found = json.loads((round_ / "comparison.json").read_text())
    arms = {arm["name"]: arm for arm in found["arms"]}
    assert list(arms) == ["sft-uniform", "sft-entropy-a1"]
    assert found["num_questions"] == 60 and found["num_comparisons"] == 1
    assert arms["sft-entropy-a1"]["baseline"] == "sft-uniform" and arms["sft-uniform"]["difference"] is None
    for arm in arms.values():
        assert len(arm["accuracies"]) == 2 and arm["num_tokens"] > 0 and arm["training_seconds"] > 0
    assert not list(round_.glob("variants/*/model")), "models are removed once they have been evaluated"
    assert "sft-entropy-a1" in out or "entropy, a = 1" in out

    extended = east_ray(*arguments, "compare.grids=[{signals: [uniform, entropy], overrides: {training.epochs: 2}}]")
    _, err = extended.communicate(timeout=120)
    assert extended.returncode == 1
    assert "sft-uniform-seed-0 was started with other settings (training.epochs: 1 there, 2 now)" in err


def test_an_interrupted_training_goes_on_in_the_group_of_its_checkpoint(tmp_path: Path) -> None:
    """Also if there are fewer groups than before, or the checkpoints are of no training that waits."""
    checkpoints = Folder(*locate(str(tmp_path)))
    for number, name in (("0", "gone"), ("3", "c"), ("5", "e")):
        run = checkpoints / number / "group"
        (run / "checkpoint_1").write_text(".metadata.json", json.dumps({"training": name}))
        listed = {"checkpoint_results": [{"checkpoint_dir_name": "checkpoint_1"}]}
        run.write_text("checkpoint_manager_snapshot.json", json.dumps(listed))
    (checkpoints / "4").write_text("nothing", "")
    assert [interrupted(checkpoints / number) for number in checkpoints.names()] == ["gone", "c", None, "e"]

    def groups(names: str, count: int) -> dict[str, str]:
        learners: Any = [SimpleNamespace(name=name) for name in names]
        return {
            number: "".join(learner.name for learner in group)
            for number, group in comparing.in_groups(learners, checkpoints, count).items()
        }

    assert groups("abcdefg", 3) == {"3": "cbg", "5": "ed", "0": "af"}
    assert groups("abcdefg", 1) == {"3": "cadg", "5": "ebf"}
    assert groups("ab", 8) == {"0": "a", "1": "b"}
    assert groups("", 2) == {}


def test_a_comparison_that_has_begun_is_guarded(tmp_path: Path) -> None:
    """What was weighed or evaluated is not mixed with what other settings would give; arms and seeds may join."""

    job = MINIMAL | {"run_dir": str(tmp_path), "compare": {"seeds": [0]}, "evaluation": {"questions": {"path": "t"}}}

    def open_run(*overrides: str, only_read: bool = False) -> RunDirectory:
        return RunDirectory(resolve(job, overrides), only_read=only_read)

    stages = open_run().round(0)
    with stages.recording("sampling"):
        pass
    open_run("training.epochs=2")  # nothing is weighed yet
    open_run()
    with stages.recording("base"):
        pass
    with pytest.raises(InputError, match=r"evaluation.max_tokens: 1024 there, 7 now"):
        open_run("evaluation.max_tokens=7")
    with stages.learner("sft-uniform-seed-0").recording("examples"):
        pass
    with pytest.raises(InputError, match=r"training.epochs: 3 there, 2 now"):
        open_run("training.epochs=2")
    before = (tmp_path / "config.yaml").read_text()
    open_run("compare.seeds=[0, 1]", only_read=True)
    assert (tmp_path / "config.yaml").read_text() == before

"""`east-ray init` and `east-ray quickstart`: a first YAML file, and the run that is shipped."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from east_ray.config import InputError
from east_ray.config.files import load
from east_ray.first_use.init import Answers, write
from east_ray.first_use.quickstart import run_of
from east_ray.storage import load_run

ROOT = Path(__file__).parent.parent


@pytest.fixture
def questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of two questions in the working directory."""
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in (1, 2)]
    Path("asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return "asked.jsonl"


def begun(given: Answers, answers: Iterator[str] | None = None) -> list[str]:
    said: list[str] = []
    write(Path("run.yaml"), given, said.append, None if answers is None else lambda question: next(answers))
    return said


@pytest.mark.parametrize("gpus", [0, 1, 8])
@pytest.mark.parametrize("objective", ["sft", "dpo", "kto"])
@pytest.mark.parametrize("held_out", [None, "asked.jsonl", "hub:openai/gsm8k:main:test"])
def test_what_is_written_is_a_run(questions: str, gpus: int, objective: str, held_out: str | None) -> None:
    said = begun(Answers("some/model", questions, held_out, gpus, objective))
    config = load("run.yaml")
    assert (config.run_dir, config.model, config.training.objective) == ("runs/run", "some/model", objective)
    assert config.questions is not None and config.questions.path == questions
    assert (config.engines.num_gpus_per_engine, config.training.num_gpus_per_worker) == ((1, 1) if gpus else (0, 0))
    assert config.training.num_workers == config.engines.max_engines == max(1, gpus)
    assert (config.evaluation.questions is None) == (held_out is None)
    if held_out and held_out.startswith("hub:"):
        assert config.evaluation.questions is not None
        assert config.evaluation.questions.model_dump(include={"hub", "hub_config", "split"}) == {
            "hub": "openai/gsm8k", "hub_config": "main", "split": "test"
        }  # fmt: skip
    assert said[0] == "asked.jsonl: 1 + 1?  reference answer: 2"


def test_on_a_terminal_it_asks_for_what_is_not_given(questions: str) -> None:
    begun(Answers(gpus=0), iter(["", "  m: odd # name ", questions, "", ""]))  # without a model it asks again
    config = load("run.yaml")
    assert (config.model, config.evaluation.questions, config.training.objective) == ("m: odd # name", None, "sft")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Answers(), "--model is missing"),
        (Answers("m"), "--questions is missing"),
        (Answers("m", "none.jsonl"), "none.jsonl does not exist"),
        (Answers("m", "asked.jsonl", objective="ppo"), "--objective ppo: expected one of sft, dpo, kto"),
    ],
)
def test_what_is_missing_or_wrong_is_said_and_nothing_is_written(questions: str, given: Answers, words: str) -> None:
    with pytest.raises(InputError, match=words):
        begun(given)
    assert not Path("run.yaml").exists()


def test_a_file_is_not_written_over(questions: str) -> None:
    Path("run.yaml").write_text("model: mine\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"run\.yaml exists"):
        begun(Answers("m", questions))
    assert Path("run.yaml").read_text(encoding="utf-8") == "model: mine\n"


def test_the_quick_start_is_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    file, overrides = run_of(["weighting.exponent=2"])
    assert file == "jobs/quickstart.yaml"
    assert load_run(file, overrides) == load_run(file, ["weighting.exponent=2"])
    monkeypatch.chdir(tmp_path)
    there = load_run(*run_of([]))
    assert Path(there.model).samefile(ROOT / "jobs/quickstart/model")
    assert there.run_dir == "runs/quickstart"

"""`east-ray init` and `east-ray quickstart`: a first YAML file, and the run that is shipped."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from east_ray.config import InputError
from east_ray.config.files import load, parse
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


def begun(given: Answers, answers: Iterator[str] | None = None, overrides: Sequence[str] = ()) -> list[str]:
    said: list[str] = []
    write(Path("run.yaml"), given, said.append, None if answers is None else lambda question: next(answers), overrides)
    return said


def file_of(*rows: dict[str, Any]) -> str:
    Path("mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return "mine.jsonl"


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


def test_columns_of_other_names_are_recognised(questions: str) -> None:
    mine = file_of({"problem_text": "1 + 1?", "gold": 2, "difficulty": 1}, {"problem_text": "2 + 2?", "gold": 4})
    said = begun(Answers("m", mine, mine))
    config = load("run.yaml")
    for source in (config.questions, config.evaluation.questions):
        assert source is not None and source.format == "columns"
        assert (source.question_column, source.reference_answer_column) == ("problem_text", "gold")
    assert said[:3] == [
        "  question_column: problem_text is the question, e.g. 1 + 1?",
        "  reference_answer_column: gold is the reference answer, e.g. 2",
        "mine.jsonl: 1 + 1?  reference answer: 2",
    ]


def test_columns_that_nothing_tells_are_named_on_the_command_line(questions: str) -> None:
    mine = file_of({"q": "1 + 1?", "k": 2})
    with pytest.raises(InputError) as refused:
        begun(Answers("m", mine))
    assert str(refused.value) == (
        "mine.jsonl: not everything is recognised; give questions.question_column=… for the question; "
        "questions.reference_answer_column=… for the reference answer (if there is none: labels.source=majority). "
        "Names in these rows: q, k"
    )
    named = ["questions.question_column=q", "questions.reference_answer_column=k"]
    begun(Answers("m", mine), overrides=named)
    config = load("run.yaml")
    assert config.questions is not None
    assert config.questions.model_dump(exclude_unset=True) == {
        "path": mine, "format": "columns", "question_column": "q", "reference_answer_column": "k"
    }  # fmt: skip
    Path("run.yaml").unlink()
    begun(Answers("m", mine), overrides=[named[0], "labels.source=majority"])
    config = load("run.yaml")
    assert config.questions is not None and config.questions.reference_answer_column is None
    Path("run.yaml").unlink()
    begun(Answers("m", None, "", 0, "sft"), iter([mine, "p", "q", "k"]))  # on a terminal they are asked for
    config = load("run.yaml")
    assert config.questions is not None and config.questions.question_column == "q"


@pytest.mark.parametrize(
    "overrides",
    [
        ["training.learning_rate=1e-5", "seed=3", "run_dir=elsewhere/x"],  # in place of what is there
        ["training.weight_decay=0.1", "plan.gpu=H100-80GB", "labels.min_share=0.7"],  # what is not
        ["engines.engine_args.seed=1", "questions.max_questions=5", "variants.flat={weighting.exponent: 0.5}"],
        ["weighting={signal: margin}", "evaluation.questions.skip=1", "prompt.system=null", "weighting.exponent=2"],
        ["answers.last_number=true", "answers.grader=number", "sampling.stop=['\\n# x', b]"],
    ],
)
def test_settings_are_written_into_the_sections(questions: str, overrides: list[str]) -> None:
    given = Answers("m", questions, questions)
    begun(given)
    plain = Path("run.yaml").read_text(encoding="utf-8")
    Path("run.yaml").unlink()
    begun(given, overrides=overrides)
    text = Path("run.yaml").read_text(encoding="utf-8")
    assert load("run.yaml") == parse(plain, "plain", overrides)
    comments = [line.partition("# ")[2] for line in plain.splitlines() if "# " in line]
    assert "weighting={signal: margin}" in overrides or all(comment in text for comment in comments)


def test_a_wrong_answer_is_told_at_once_and_asked_for_again(questions: str) -> None:
    said = begun(Answers("m"), iter(["none.jsonl", questions, "", "abc", "0", "ppo", "dpo"]))
    config = load("run.yaml")
    assert config.questions is not None and config.questions.path == questions
    assert config.training.objective == "dpo"
    assert [one.partition("; expected a file")[0] for one in said if "expected" in one] == [
        "questions.path: none.jsonl does not exist",
        "--gpus abc: expected a number of GPUs, e.g. 8, or 0 for the CPU",
        "--objective ppo: expected one of sft, dpo, kto",
    ]


@pytest.mark.parametrize(
    ("given", "overrides", "words"),
    [
        (Answers(questions="none.jsonl"), [], r"^questions\.path: none\.jsonl does not exist"),
        (Answers(objective="ppo"), [], "--objective ppo"),
        (Answers(), ["questions.question_colum=q"], r"^questions\.question_colum: unknown key"),
        (Answers(questions="hub:openai/gsm8k:main:train:x"), [], r"^hub:openai/gsm8k:main:train:x: expected hub:NAME"),
    ],
)
def test_what_the_command_line_has_wrong_is_not_asked_for(
    questions: str, given: Answers, overrides: list[str], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        begun(given, iter([]), overrides)


def test_a_split_of_the_hub_may_be_a_slice(questions: str) -> None:
    begun(Answers("m", "hub:openai/gsm8k:main:train[:100]", "hub:some/set"))
    config = load("run.yaml")
    assert config.questions is not None and config.questions.split == "train[:100]"
    assert config.evaluation.questions is not None and config.evaluation.questions.hub_config is None


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

"""The worked examples of jobs/tasks: their data, their weights without a model, and what holds back a program."""

import importlib.util
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from east_ray import pipeline
from east_ray.config.files import MODULE_FOLDERS
from east_ray.console import Progress
from east_ray.records import EXAMPLES, Question
from east_ray.storage import RunDirectory, load_run

ROOT = Path(__file__).parent.parent
TASKS = ROOT / "jobs" / "tasks"


def module(name: str) -> ModuleType:
    """A script of jobs/tasks as a module; the folder is not a package."""
    spec = importlib.util.spec_from_file_location(name, TASKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_the_data_are_what_the_generator_makes() -> None:
    for name, content in module("make_tasks").files():
        assert (TASKS / name).read_text(encoding="utf-8") == content, name


@pytest.fixture
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(ROOT)
    yield
    MODULE_FOLDERS.clear()


@pytest.mark.usefixtures("_in_the_repository")
@pytest.mark.parametrize(("task", "num_answers"), [("multiple_choice", 4), ("short_text", 4), ("code", 5)])
def test_an_example_is_weighed_without_a_model(task: str, num_answers: int, tmp_path: Path, local_ray: None) -> None:
    config = load_run(f"jobs/tasks/{task}.yaml", [f"run_dir={tmp_path / 'run'}"])
    directory = RunDirectory(config)
    pipeline.check_inputs(config, directory)
    round_ = pipeline.open_round(config, directory, 0, Progress(Console(quiet=True)), only_weigh=True)
    pipeline.prepare(round_)
    pipeline.weigh(round_)
    rows = (directory.round(0) / "examples").read(EXAMPLES).sort_by("question_id").to_pylist()
    record = directory.round(0).record("answers")
    assert record is not None and "num_grader_failures" not in record.counts
    given = {row["question"]: row for row in map(json.loads, (TASKS / f"{task}.jsonl").open(encoding="utf-8"))}
    assert len(rows) > len(given) / 2 and sum(row["weight"] for row in rows) == pytest.approx(len(rows))
    for row in rows:
        silent = sum(text.startswith("I do not know") for text in given[row["question"]]["responses"])
        answers = {cluster["answer"]: cluster["num_responses"] for cluster in row["clusters"]}
        assert answers.pop(None, 0) == silent
        assert len(answers) <= num_answers, "every way to write an answer is in one cluster"
    assert max(row["weight"] for row in rows) > 1


PROGRAM = "```python\n{}\n```"
TESTS = ["assert f(1) == 2", "assert f(0) == 1", "assert f('') == 1"]


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("def f(n): return n + 1", "passed passed TypeError"),
        ("def f(n): return 2", "passed failed failed"),
        ("def g(n): return 2", "NameError NameError NameError"),
        ("def f(n: return 2", "SyntaxError SyntaxError SyntaxError"),
        ("def f(n):\n    while n == 0: pass\n    return 2", "passed ended ended"),
        ("import time\ntime.sleep(60)", "ended ended ended"),
        ("import os\nos._exit(0)", "ended ended ended"),
        ("raise SystemExit", "SystemExit SystemExit SystemExit"),
        ("def f(n): return len(bytes(1 << 30))", "MemoryError MemoryError MemoryError"),
        ("def f(n): return open('big', 'w').write('x' * (2 << 20))", "OSError OSError OSError"),
        ("def f(n):\n    held = [open('task.json') for _ in range(100)]", "OSError OSError OSError"),
        ("import os\ndef f(n):\n    return 2 if 'HOME' not in os.environ else 0", "passed failed failed"),
        ("import sys\ndef f(n):\n    print('x' * 10**7)\n    return 2", "passed failed failed"),
        ("import os, time\nif os.fork() == 0: time.sleep(60)\ndef f(n): return 2", "passed failed failed"),
    ],
)
def test_a_program_is_run_within_limits(program: str, expected: str) -> None:
    begin = time.monotonic()
    question = Question("q", "?", extra={"tests": TESTS})
    arguments: dict[str, Any] = {"seconds": 3, "megabytes": 512}  # a busy machine starts Python in more than one
    assert module("code_grader").outcomes(PROGRAM.format(program), question, **arguments) == expected
    assert time.monotonic() - begin < 30


def test_a_response_without_a_program_has_no_answer() -> None:
    assert module("code_grader").outcomes("I cannot.", Question("q", "?", extra={"tests": TESTS})) is None

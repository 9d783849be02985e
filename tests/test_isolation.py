"""A grader of a user's own in a process of its own: errors, death and time-outs cost answers, and never a run."""

import gc
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from east_ray import pipeline
from east_ray.answers import graders
from east_ray.answers.grading import Graded, Grader, Tally, clustered
from east_ray.config import AnswersConfig, InputError
from east_ray.config.files import MODULE_FOLDERS
from east_ray.console import Progress
from east_ray.records import Cluster, Question
from east_ray.storage import RunDirectory, load_run

SOURCE = '''
import os, re, signal, subprocess, sys, time
import beside

class Last:
    """The last word. Some words harm."""

    def __init__(self, mark=""):
        self.mark, self.num_read = mark, 0

    def read(self, response, question):
        self.num_read += 1
        match response.split():
            case ["sleep", *_]: time.sleep(600)
            case ["regex", *_]: re.match(r"(a+)+$", "a" * 40 + "b")  # C code that holds the interpreter
            case ["die"]: os._exit(3)
            case ["segfault"]: os.kill(os.getpid(), signal.SIGSEGV)
            case ["exit"]: sys.exit("bye")
            case ["raise"]: raise KeyError("no")
            case ["number"]: return 7
            case ["print", *_]: print("a grader may print")
            case ["children", file, *_]:
                child = subprocess.Popen(["sleep", "600"])
                open(file, "w").write(str(child.pid))
                time.sleep(600)
            case ["times"]: return str(self.num_read)
        return response.split()[-1].strip(self.mark) if response else None

    def keys(self, answers, question):
        match question.question:
            case "sleep": time.sleep(600)
            case "short": return []
        return [frozenset([answer.lower()]) for answer in answers]

class Particular(Last):
    def can_use(self, reference_answer):
        return beside.usable(reference_answer)

def last_word(response, question, mark=""):
    return response.split()[-1].strip(mark) if response else None
'''
BESIDE = 'def usable(answer):\n    return {"yes": True, "no": False}[answer]\n'
QUESTION = Question("q", "?", "yes")


@pytest.fixture(autouse=True)
def _own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    MODULE_FOLDERS.clear()
    Path("own.py").write_text(SOURCE)
    Path("beside.py").write_text(BESIDE)
    yield
    MODULE_FOLDERS.clear()


def own(name: str = "Last", timeout_s: float = 30.0, **arguments: Any) -> Grader:
    return graders.load(AnswersConfig(grader=f"own:{name}", grader_args=arguments, grader_timeout_s=timeout_s))


def test_answers_and_clusters_are_those_of_the_grader_in_one_process() -> None:
    grader = own(mark=".")
    texts = ["It is yes.", "print Yes", "no", "", "half of \ud800", "yes."]
    expected = [Cluster("yes", 3, True), Cluster("no", 1, False), Cluster(None, 1, False), Cluster("?", 1, False)]
    assert clustered(texts, QUESTION, grader).clusters == expected
    copied = pickle.loads(pickle.dumps(grader))
    assert clustered(texts, QUESTION, copied).clusters == expected
    # Begun once and used again: 4 distinct responses and these.
    assert [clustered(["times"], QUESTION, grader).answers for _ in range(2)] == [["7"], ["8"]]


def test_a_function_is_a_grader() -> None:
    graded = clustered(["It is yes.", "YES", "", "yes"], QUESTION, own("last_word", mark="."))
    assert graded.clusters == [Cluster("yes", 2, True), Cluster("YES", 1, False), Cluster(None, 1, False)]
    failed = clustered(["a"], QUESTION, own("last_word", unknown=1))
    assert failed.error and "last_word raised TypeError: last_word() got an unexpected keyword" in failed.error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise", "Last.read raised KeyError: 'no'"),
        ("number", "Last.read returned int; expected a string, None or a Reading"),
        ("exit", "Last.read raised SystemExit: bye"),
        ("die", "own:Last ended its process (exit status 3)"),
        ("segfault", "own:Last ended its process (signal 11)"),
        ("sleep", "own:Last took more than 1 s (answers.grader_timeout_s)"),
        ("regex", "own:Last took more than 1 s (answers.grader_timeout_s)"),
    ],
)
def test_a_response_on_which_the_grader_fails_is_set_aside_alone(text: str, said: str) -> None:
    graded = clustered(["a yes", text, "yes", text, "no"], QUESTION, own(timeout_s=1))
    assert graded.answers == ["yes", None, "yes", None, "no"]
    assert graded.clusters[0].is_correct
    assert (graded.num_failed, graded.error) == (2, f"{said} (question q)")


def test_the_time_of_a_question_is_bounded() -> None:
    begin = time.monotonic()
    graded = clustered(["yes", *(f"sleep {n}" for n in range(50)), "a yes"], QUESTION, own(timeout_s=0.2))
    assert graded.answers == ["yes", *[None] * 51] and graded.num_failed == 51
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize(("question", "said"), [("sleep", "took more than 1 s"), ("short", "returned 0 keys for 2")])
def test_a_question_whose_answers_cannot_be_compared_has_none(question: str, said: str) -> None:
    grader = own(timeout_s=1)
    tally = Tally(Question("q", question, None), grader)
    tally.add(["yes", "no", "", "yes"])
    graded = tally.graded()
    assert graded.clusters == [Cluster(None, 4, False)] and graded.num_failed == 3 and said in str(graded.error)
    begin = time.monotonic()
    tally.add(["perhaps"])
    assert tally.graded().num_failed == 4 and time.monotonic() - begin < 1  # it is not tried again
    assert clustered(["yes"], QUESTION, grader).clusters == [Cluster("yes", 1, True)]


def test_a_method_of_the_reference_answer_and_a_module_beside_it() -> None:
    grader = own("Particular")
    found: list[Graded] = [clustered(["yes"], Question("q", "?", answer), grader) for answer in ("yes", "no", "?")]
    assert [graded.can_use_reference for graded in found] == [True, False, False]
    assert [graded.num_failed for graded in found] == [0, 0, 1]
    assert found[2].error == "Particular.can_use raised KeyError: '?' (question q)"


def test_a_time_out_ends_what_the_grader_has_started_and_its_end_ends_the_process() -> None:
    of_others, grader = isolated_processes(), own(timeout_s=2)
    assert clustered(["children pid"], QUESTION, grader).num_failed == 1
    pid = int(Path("pid").read_text())
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    clustered(["yes"], QUESTION, grader)
    (child,) = isolated_processes() - of_others
    del grader
    wait_until(lambda: not child.is_running())


def isolated_processes() -> set[psutil.Process]:
    gc.collect()  # graders of other tests
    return {one for one in psutil.Process().children() if "east_ray.answers.isolation" in command_of(one)}


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return ""


def wait_until(is_so: Any) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_process_that_is_killed_between_two_questions_costs_no_answer() -> None:
    of_others, grader = isolated_processes(), own()
    clustered(["yes"], QUESTION, grader)
    (child,) = isolated_processes() - of_others
    child.kill()
    child.wait(20)
    assert clustered(["yes"], QUESTION, grader).num_failed == 0


@pytest.mark.parametrize(
    ("harm", "said"),
    [("1 / 0", "ZeroDivisionError: division by zero"), ("os._exit(4)", "ended its process (exit status 4)")],
)
def test_a_grader_that_cannot_be_loaded_in_its_process_ends_the_command(harm: str, said: str) -> None:
    Path("own.py").write_text(SOURCE + f"\nclass Odd(Last):\n    def __setstate__(self, state):\n        {harm}\n")
    with pytest.raises(InputError) as error:
        clustered(["yes"], QUESTION, own("Odd"))
    assert str(error.value) == f"answers.grader: own:Odd cannot be loaded in a process of its own ({said})"


def test_the_process_ends_with_its_owner_even_in_the_middle_of_a_response(tmp_path: Path) -> None:
    program = (
        "from east_ray.answers import graders\nfrom east_ray.answers.grading import clustered\n"
        "from east_ray.config import AnswersConfig\nfrom east_ray.records import Question\n"
        "grader = graders.load(AnswersConfig(grader='own:Last', grader_timeout_s=2))\n"
        "clustered(['children pid'], Question('q', '?'), grader)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(pipeline.__file__).parent.parent)}
    owner = subprocess.Popen([sys.executable, "-c", program], env=environment)
    wait_until(Path("pid").exists)
    (child,) = psutil.Process(owner.pid).children()
    owner.kill()
    owner.wait()
    wait_until(lambda: not child.is_running())
    psutil.Process(int(Path("pid").read_text())).kill()


def test_a_run_goes_on_and_says_on_how_many_responses_the_grader_failed(local_ray: None) -> None:
    texts = [["yes", "a yes", "raise", "no"], ["yes", "die", "no", "no"]]
    rows = [{"question": f"Q{n}", "reference_answer": "yes", "responses": some} for n, some in enumerate(texts)]
    Path("given.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {"run_dir": "run", "samples": {"path": "given.jsonl"}, "answers": {"grader": "own:Last"}}
    Path("run.yaml").write_text(json.dumps(values))
    said, record = weigh()
    assert "grader failed on 2" in said
    assert "the grader failed on 2 of 8 responses, which have no answer therefore; the first error: Last.read" in said
    assert record["num_answerless"] == record["num_grader_failures"] == 2
    assert record["first_grader_failure"] == "Last.read raised KeyError: 'no' (question given-000001)"

    Path("own.py").write_text(SOURCE.replace("self.num_read += 1", "1 / 0"))
    values |= {"run_dir": "failed"}
    Path("run.yaml").write_text(json.dumps(values))
    with pytest.raises(InputError, match="no question was kept") as error:
        weigh()
    assert "all_wrong" in str(error.value)
    record = json.loads(Path("failed/round_0/stages/answers.json").read_text())["counts"]
    assert record["num_grader_failures"] == 8 and "ZeroDivisionError" in record["first_grader_failure"]


def weigh() -> tuple[str, dict[str, Any]]:
    """What `east-ray weigh` says, and the record of its stage answers."""
    config = load_run("run.yaml")
    directory = RunDirectory(config)
    console = Console(record=True, quiet=False, width=200, file=open(os.devnull, "w"))  # noqa: SIM115
    pipeline.check_inputs(config, directory)
    round_ = pipeline.open_round(config, directory, 0, Progress(console), only_weigh=True)
    pipeline.prepare(round_)
    pipeline.weigh(round_)
    return console.export_text(), json.loads(Path("run/round_0/stages/answers.json").read_text())["counts"]

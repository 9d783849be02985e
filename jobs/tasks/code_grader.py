"""A grader for code: a response's program is run against the question's tests, and equal outcomes are equal answers.

    answers: {grader: code_grader:outcomes, grader_args: {seconds: 2, megabytes: 256}, grader_timeout_s: 120}

The column `tests` of a question is a list of statements such as "assert total([1]) == 5"; `reference_answer` is
"passed passed passed", a word for each test. The answer of a response is such a line for its last code block: passed,
failed (an assertion), the name of another error, or "ended" for a test during which the process ended, and for those
after it. A response without a code block has no answer.

What holds a program back: a process of its own for each response, in Python's isolated mode, with an empty environment
and a temporary folder that is removed afterwards; limits of its CPU time and wall time (`seconds`), its memory
(`megabytes`), its open files, and the size of its files (1 MB); no core dumps; at the end its process group is killed.

WHAT IS NOT ISOLATED. The program runs as your user on this machine. It can reach the network, read and change every
file that you can, signal your other processes, and start any number of processes, which may leave its group; of root's
programs the limits hold nothing. It shares its process with the tests, so one that means to cheat can forge their
outcomes. Run it on code that you would run yourself, or put the whole job into a container or virtual machine that has
nothing to lose: no network, no secrets, nothing mounted.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from east_ray.records import Question

CODE_BLOCK = re.compile(r"```[\w+-]*\n(.*?)(?:```|\Z)", re.DOTALL)

#: Runs in the new process: limits first, then the program, then each test; each outcome is written at once.
HARNESS = """
import json, resource, sys
seconds, megabytes = int(sys.argv[1]), int(sys.argv[2])
for limit, value in [
    ("CPU", seconds), ("AS", megabytes << 20), ("FSIZE", 1 << 20), ("NOFILE", 32), ("CORE", 0),
]:
    resource.setrlimit(getattr(resource, "RLIMIT_" + limit), (value, value))
program, tests = json.load(open("task.json"))
outcomes = open("outcomes", "w", buffering=1)
names = {"__name__": "program"}
try:
    exec(compile(program, "program", "exec"), names)
except BaseException as error:
    outcomes.write((type(error).__name__ + "\\n") * len(tests))
    sys.exit()
for test in tests:
    try:
        exec(compile(test, "test", "exec"), names)
        outcome = "passed"
    except AssertionError:
        outcome = "failed"
    except BaseException as error:
        outcome = type(error).__name__
    outcomes.write(outcome + "\\n")
"""


def outcomes(response: str, question: Question, seconds: int = 2, megabytes: int = 256) -> str | None:
    """The outcome of each test of the question with the program of the response; None without a program."""
    blocks, tests = CODE_BLOCK.findall(response), question.extra["tests"]
    if not blocks:
        return None
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "task.json").write_text(json.dumps([blocks[-1], tests]))
        process = subprocess.Popen(  # noqa: S603 - that is what it is for
            [sys.executable, "-I", "-c", HARNESS, str(seconds), str(megabytes)],
            cwd=folder, env={}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(seconds + 1)
        except subprocess.TimeoutExpired:
            pass
        finally:  # also what the program has started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        written = Path(folder, "outcomes")
        found = written.read_text().split() if written.is_file() else []
    return " ".join([*found[: len(tests)], *["ended"] * (len(tests) - len(found))])

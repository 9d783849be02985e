"""A command that is ended without a word of its own: killed, or by Ray's C++ core."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from killed_runs import ROOT, command
from sampling_runs import scripted

from east_ray import ray_cluster

#: A command that writes into the file of native messages, says that it waits, and is ended by its argument.
ENDED = """
import os, signal, sys, time
from east_ray import cli
@cli.app.command()
def wait(how: str):
    print("waiting", flush=True)
    if how == "fork":
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "core":
        os.write(2, b"connection.cc:216: The connection to the plasma store is failed. Terminate the process.\\n")
        os._exit(1)
    elif how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "left alone":
        beside = int(open(f"/proc/self/task/{os.getpid()}/children").read())
        os.kill(beside, signal.SIGKILL)
        os.waitpid(beside, 0)
    elif how == "waits":
        time.sleep(60)
cli.main()
"""


def ended(how: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-c", ENDED, "wait", how]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_a_command_that_is_killed_has_last_words() -> None:
    result = ended("killed")
    assert result.returncode == -signal.SIGKILL and result.stdout == "waiting\n"
    assert result.stderr.startswith("error: this command was killed") and result.stderr.count("\n") == 1
    assert result.stderr.endswith("the same command goes on where this one stopped\n"), "no file: it would be empty"


def test_they_come_at_once_though_a_fork_of_the_command_lives_on() -> None:
    line = [sys.executable, "-c", ENDED, "wait", "fork"]
    process = subprocess.Popen(
        line, cwd=ROOT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("error: this command was killed")
    process.wait()
    os.killpg(process.pid, signal.SIGKILL)  # raises if the fork has ended before
    process.stderr.close()


def test_when_rays_core_ends_a_command_they_name_what_has_died_and_the_file() -> None:
    result = ended("core")
    assert result.returncode == 1
    assert result.stderr.startswith(
        "error: Ray's raylet on this machine has died, and Ray has ended this command; the "
    )
    log = Path(result.stderr.strip().rpartition(" ")[2])
    assert "connection to the plasma store" in log.read_text()
    log.unlink()


def test_a_command_that_ends_in_order_leaves_no_words_and_no_process() -> None:
    result = ended("in order")
    assert (result.returncode, result.stdout, result.stderr) == (0, "waiting\n", "")


def test_a_command_whose_process_beside_it_was_killed_ends_in_order() -> None:
    result = ended("left alone")
    assert (result.returncode, result.stdout, result.stderr) == (0, "waiting\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_says_its_own_words_alone(number: signal.Signals) -> None:
    """The signal goes to the whole group, as from a terminal or `ray job stop`."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n" + ENDED,
         "wait", "waits"], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "waiting\n"
    (beside,) = psutil.Process(process.pid).children()
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number and said.count("\n") == 1 and "killed" not in said
    assert not beside.is_running()


def end_while_it_samples(folder: Path, end: Callable[[int], None]) -> tuple[int, str, str]:
    """Exit code, output and errors of a run on a Ray of its own that is ended when its engine is at work."""
    sections = scripted(folder, delay_s=1.0)
    rows = [{"question": f"{i} + 1?", "reference_answer": str(i + 1)} for i in range(60)]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"model": "m", "run_dir": str(folder / "run"), "questions": {"path": str(folder / "q.jsonl")}} | sections
    (folder / "job.yaml").write_text(json.dumps(config))
    out, err = folder / "out", folder / "err"
    with out.open("w") as of_out, err.open("w") as of_err:
        process = subprocess.Popen(command("sample", str(folder / "job.yaml")), cwd=ROOT, stdout=of_out, stderr=of_err)
        try:
            deadline = time.monotonic() + 240
            while "ready" not in out.read_text() and "running" not in out.read_text():
                assert process.poll() is None and time.monotonic() < deadline, out.read_text() + err.read_text()
                time.sleep(0.2)
            family = psutil.Process(process.pid).children(recursive=True)
            end(process.pid)
            code = process.wait(120)
        finally:
            process.kill()
        deadline = time.monotonic() + 150  # Ray's own agents outlive a killed driver by about a minute
        while alive := [one for one in family if is_alive(one)]:
            assert time.monotonic() < deadline, f"Ray's processes end with the command: {alive}"
            time.sleep(0.2)
    return code, out.read_text(), err.read_text()


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def kill_raylet(driver: int) -> None:
    (raylet,) = [one for one in psutil.Process(driver).children(recursive=True) if one.name() == "raylet"]
    raylet.kill()


def test_a_run_whose_raylet_dies_ends_with_one_sentence(tmp_path: Path) -> None:
    code, out, err = end_while_it_samples(tmp_path / "run", kill_raylet)
    assert code == 1
    assert "raylet" not in out and "Raylet" not in out, out
    assert err.startswith("error: Ray's raylet on this machine has died") and err.count("\n") == 1, err
    assert "the same command goes on where this one stopped" in err


def test_what_ray_says_of_its_processes_goes_to_the_error_stream(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from ray._private import worker

    shown: list[Any] = []
    monkeypatch.setattr(worker, "print_to_stdstream", lambda data, ignore_prefix: shown.extend(data["lines"]))
    ray_cluster.divert_warnings_of_ray()
    many = "WARNING: 8 PYTHON worker processes have been started on node: 4d09 with address: 10.0.0.1, which is 4x the"
    for line in ("an actor was killed by `ray.kill`", many, "another message"):
        worker.print_to_stdstream({"lines": [line]}, True)
    assert shown == ["another message"] and capfd.readouterr().err == f"{many}\n"


@pytest.mark.drill
def test_a_run_that_is_killed_ends_with_one_sentence(tmp_path: Path) -> None:
    code, _, err = end_while_it_samples(tmp_path / "run", lambda driver: os.kill(driver, signal.SIGKILL))
    assert code == -signal.SIGKILL
    assert err.startswith("error: this command was killed") and err.count("\n") == 1, err

"""The quick start as a job: submitted to a cluster that was begun with `ray start --head`, authentication left on."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RAY = str(Path(sys.executable).parent / "ray")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(home: Path, mode: str = "token") -> dict[str, str]:
    """A shell with the environment activated and a home of its own, where Ray keeps the token."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"RAY_AUTH_MODE": mode, "HOME": str(home), "PATH": path}


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[str]:
    """The address of the dashboard of a cluster of one node; only this cluster's processes are ended."""
    port = free_port()
    command = [
        RAY, "start", "--head", "--block", "--num-cpus=2", f"--port={free_port()}", f"--dashboard-port={port}",
        "--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1", f"--ray-client-server-port={free_port()}",
        f"--dashboard-agent-listen-port={free_port()}",  # another Ray on this machine has the usual one
    ]  # fmt: skip
    subprocess.run([RAY, "get-auth-token", "--generate"], env=environment(tmp_path), check=True, capture_output=True)
    log = (tmp_path / "head.log").open("w")
    head = subprocess.Popen(command, env=environment(tmp_path), stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert head.poll() is None and time.monotonic() < deadline, (tmp_path / "head.log").read_text()
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
        log.close()


def test_the_quick_start_runs_as_a_submitted_job(dashboard: str, tmp_path: Path) -> None:
    command = "ray job submit --working-dir . -- python -m east_ray run jobs/quickstart.yaml"
    smaller = "questions.max_questions=32 sampling.responses_per_question=8 evaluation.questions.max_questions=32"

    def submit(mode: str) -> "subprocess.CompletedProcess[str]":
        shell = environment(tmp_path, mode) | {"RAY_API_SERVER_ADDRESS": dashboard}
        return subprocess.run(
            f"{command} {smaller}".split(),
            env=shell,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )

    assert submit("disabled").returncode != 0  # without the token nobody may submit
    for _ in range(20):
        result = submit("token")
        if "No available agent to submit job, please try again later" not in result.stderr:
            break
        time.sleep(3)  # the dashboard answers a little before the agent that starts the jobs
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"sampling +32/32 questions", result.stdout)
    # Ray deletes a job's working directory, so the file's relative run_dir is taken from the home directory.
    run_dir = tmp_path / "runs" / "quickstart"
    assert f"run directory: {run_dir}" in result.stdout
    assert (run_dir / "report.html").is_file()
    assert (run_dir / "round_0" / "model" / "model.safetensors").is_file()

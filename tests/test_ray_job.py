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


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[str]:
    """The address of the dashboard of a cluster of one node; only this cluster's processes are ended."""
    port = free_port()
    environment = os.environ | {"RAY_AUTH_MODE": "token"}
    command = [
        RAY, "start", "--head", "--block", "--num-cpus=2", f"--port={free_port()}", f"--dashboard-port={port}",
        "--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1", f"--ray-client-server-port={free_port()}",
    ]  # fmt: skip
    log = (tmp_path / "head.log").open("w")
    head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
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
    arguments = [
        "-m", "east_ray", "run", "jobs/quickstart.yaml", f"run_dir={tmp_path / 'run'}", "questions.max_questions=32",
        "sampling.responses_per_question=8", "evaluation.questions.max_questions=32",
    ]  # fmt: skip
    submit = [
        RAY,
        "job",
        "submit",
        "--address",
        dashboard,
        "--working-dir",
        str(ROOT),
        "--",
        sys.executable,
        *arguments,
    ]
    # Without the token nobody may submit.
    refused = subprocess.run(
        submit, env=os.environ | {"RAY_AUTH_MODE": "disabled"}, capture_output=True, text=True, check=False, timeout=120
    )
    assert refused.returncode != 0
    result = subprocess.run(
        submit, env=os.environ | {"RAY_AUTH_MODE": "token"}, capture_output=True, text=True, check=False, timeout=500
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"sampling +32/32 questions", result.stdout)
    assert (tmp_path / "run" / "report.html").is_file()
    assert (tmp_path / "run" / "round_0" / "model" / "model.safetensors").is_file()

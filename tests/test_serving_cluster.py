"""The service in a Ray cluster: deployed from its file, with replicas as load calls for, updated under load."""

import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from clusters import LocalCluster, free_port, local_cluster, wait_for

ROOT = Path(__file__).parent.parent
SERVE = str(Path(sys.executable).parent / "serve")
ENGINE = {"dtype": "float32", "enforce_eager": True, "max_model_len": 256}
ENV = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
QUESTION = "Tom has 5 apples and buys 7 more. How many apples does Tom have now?"


class Load:
    """Clients that ask again and again, and what each answer was."""

    def __init__(self, url: str, count: int) -> None:
        self.answers: list[tuple[int, str]] = []
        self._url, self._is_over = url, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=120) as client:
            while not self._is_over.is_set():
                answer = client.post("/v1/solve", json={"question": QUESTION, "responses": 8, "max_tokens": 64})
                self.answers.append((answer.status_code, answer.json().get("model", answer.text)))
                time.sleep(0.4)  # or nothing is left of two cores for what is to be begun

    def stop(self) -> list[tuple[int, str]]:
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        return self.answers


def run(cluster: LocalCluster, *command: str) -> str:
    environment = cluster.environment() | {"RAY_DASHBOARD_ADDRESS": cluster.dashboard, "RAY_ADDRESS": cluster.address}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def state(cluster: LocalCluster) -> tuple[str, int]:
    """What the application is said to be, and how many of its replicas run; as `serve status` says it, but at once."""
    token = (cluster.home / ".ray" / "auth_token").read_text()
    url = f"{cluster.dashboard}/api/serve/applications/"
    answer = httpx.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=60).raise_for_status()
    application = answer.json()["applications"]["east-ray"]
    assert application["status"] != "DEPLOY_FAILED", application
    replicas = application["deployments"].get("Server", {}).get("replicas", [])
    return application["status"], sum(replica["state"] == "RUNNING" for replica in replicas)


def session_folder(head: int) -> Path:
    """Where a cluster's processes write their logs; `session_latest` may be another's."""
    for process in psutil.Process(head).children(recursive=True):
        if found := re.search(r"/\S+/session_[\w-]+", " ".join(process.cmdline())):
            return Path(found.group())
    raise AssertionError("no process of the head names its session")


def wait_until(condition: Any, seconds: float = 180) -> float:
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds
        time.sleep(0.5)
    return time.monotonic() - begin


@pytest.mark.drill
def test_replicas_follow_the_load_and_an_update_fails_no_request(
    quickstart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    file = yaml.safe_load((ROOT / "cluster_configs" / "serve.yaml").read_text())
    file["http_options"]["port"] = port
    (application,) = file["applications"]
    del application["args"]["round"]  # a model has none
    application["args"] |= {
        "model": str(quickstart / "model"), "name": "first", "engine_args": ENGINE, "limits": {"max_tokens": 64},
        "env": ENV,
        "replicas": {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 0.3, "upscale_delay_s": 3},
    }  # fmt: skip
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(file))
    shutil.copytree(quickstart / "model", tmp_path / "second")
    with local_cluster(tmp_path / "home") as cluster:
        head = cluster.start_head(4)
        wait_for(cluster.dashboard_port, head, cluster.home / "node-0.log")
        run(cluster, SERVE, "deploy", str(tmp_path / "serve.yaml"))
        begun = wait_until(lambda: state(cluster) == ("RUNNING", 1))
        load = Load(url, 4)
        try:
            grown = wait_until(lambda: state(cluster)[1] == 2)
            begin = time.monotonic()
            said = run(
                cluster, sys.executable, "-m", "east_ray", "serve", str(tmp_path / "second"), f"http.port={port}",
                f"engine_args={ENGINE}", f"env={ENV}", "limits.max_tokens=64",
            )  # fmt: skip
            assert f"serving second at {url}\n" in said
            wait_until(lambda: {model for _, model in load.answers[-8:]} == {"second"})
            updated = time.monotonic() - begin
        finally:
            answers = load.stop()
        assert {code for code, _ in answers} == {200}, [answer for answer in answers if answer[0] != 200][:3]
        assert {model for _, model in answers} == {"first", "second"}
        metrics_port = int(said.rpartition("port ")[2])
        metrics = httpx.get(f"http://127.0.0.1:{metrics_port}/metrics").text
        for name in (
            "ray_east_ray_solved_questions_total",
            "ray_east_ray_entropy_nats",
            "ray_vllm_num_requests_running",
        ):
            assert name in metrics, [line for line in metrics.splitlines() if "east_ray" in line or "vllm" in line][:20]
        assert "Tom has" not in metrics
        session = session_folder(head.pid)
        run(cluster, SERVE, "shutdown", "--yes")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")
        logs = [log for log in (session / "logs").rglob("*") if log.is_file()]
        assert any("replica_east-ray" in log.name for log in logs) and any(
            log.name.startswith("worker-") for log in logs
        )
        assert not [log for log in logs if b"Tom has" in log.read_bytes()]
    with capsys.disabled():
        times = f"1st replica after {begun:.0f} s, 2nd after {grown:.0f} s of load, both replaced in {updated:.0f} s"
        print(f"\n{times}; {len(answers)} requests, none failed")

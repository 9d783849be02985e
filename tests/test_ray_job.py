"""The quick start as a job: submitted to a cluster that was begun with `ray start --head`, authentication left on."""

import re
import subprocess
import time
from pathlib import Path

import pytest
from clusters import RAY, LocalCluster, local_cluster, wait_for

from east_ray.records import SAMPLES
from east_ray.storage import Folder, locate

ROOT = Path(__file__).parent.parent
JOB = "python -m east_ray run jobs/quickstart.yaml questions.max_questions=64 sampling.responses_per_question=16 "
JOB += "evaluation.questions.max_questions=32 sampling.seeded=false engines.engine_args.max_num_seqs=32"


def ray_job(cluster: LocalCluster, *words: str, mode: str = "token") -> "subprocess.CompletedProcess[str]":
    shell = cluster.environment(mode) | {"RAY_API_SERVER_ADDRESS": cluster.dashboard}
    command = [RAY, "job", *words]
    return subprocess.run(command, env=shell, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)


@pytest.mark.drill
def test_a_job_that_is_stopped_goes_on_when_it_is_submitted_again(tmp_path: Path) -> None:
    # Ray deletes a job's working directory, so the file's relative run_dir is taken from the home directory.
    run_dir = tmp_path / "runs" / "quickstart"
    samples = Folder(*locate(str(run_dir / "round_0" / "samples")))

    def texts() -> dict[str, list[str]]:
        parts = samples.parts() + (samples / "tasks").parts()
        return {row["key"]: [response["text"] for response in row["responses"]]
                for row in samples.read(SAMPLES, parts=parts).to_pylist()}  # fmt: skip

    with local_cluster(tmp_path) as cluster:
        head = cluster.start_head(2)
        wait_for(cluster.dashboard_port, head, tmp_path / "node-0.log")
        job = ["--working-dir", ".", "--submission-id"]
        refused = ray_job(cluster, "submit", *job, "nobody", "--", *JOB.split(), mode="disabled")
        assert refused.returncode != 0  # without the token nobody may submit
        for _ in range(20):
            first = ray_job(cluster, "submit", "--no-wait", *job, "first", "--", *JOB.split())
            if "No available agent to submit job, please try again later" not in first.stderr:
                break
            time.sleep(3)  # the dashboard answers a little before the agent that starts the jobs
        assert first.returncode == 0, first.stderr
        deadline = time.monotonic() + 200
        while len((samples / "tasks").parts()) < 2:
            assert time.monotonic() < deadline, ray_job(cluster, "logs", "first").stdout
            time.sleep(0.2)
        assert ray_job(cluster, "stop", "first").returncode == 0
        status = ray_job(cluster, "status", "first")
        assert "was stopped" in status.stdout
        log = ray_job(cluster, "logs", "first").stdout
        assert "error: stopped; the same command goes on where this one stopped" in log, log
        assert not re.search(r"Traceback|raylet|WARNING", log)
        before = texts()
        assert len(before) >= 16

        second = ray_job(cluster, "submit", *job, "second", "--", *JOB.split())
        assert second.returncode == 0, second.stdout + second.stderr
        log = ray_job(cluster, "logs", "second").stdout  # `submit` may miss lines of a job that ends at once
    assert re.search(r"sampling +64/64 questions", log), log
    after = texts()
    assert len(after) == 64 and all(after[key] == value for key, value in before.items()), "sampled again"
    assert f"run directory: {run_dir}" in log
    assert (run_dir / "report.html").is_file()
    assert (run_dir / "round_0" / "model" / "model.safetensors").is_file()

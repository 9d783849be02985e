"""A training over two hosts, of which one dies: with that host back, and with one worker on the host that is left."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import kill_tree, local_cluster
from host_clusters import SUBNET, HostCluster, hosts

from east_ray.storage import Folder, locate
from east_ray.training.checkpoints import GROUP, complete_checkpoints

ROOT = Path(__file__).parent.parent
NUM_QUESTIONS, PER_STEP, EPOCHS = 64, 8, 4
NUM_STEPS = NUM_QUESTIONS // PER_STEP * EPOCHS


@pytest.fixture
def two_hosts() -> Iterator[list[str]]:
    with hosts(2) as names:
        yield names


@pytest.fixture
def bucket(two_hosts: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a folder in a bucket of an S3-compatible server that both hosts reach."""
    from moto.server import ThreadedMotoServer

    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = ThreadedMotoServer(ip_address=f"{SUBNET}.254", port=0)
    server.start()
    host, port = server.get_host_and_port()
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT")).close()
    yield f"s3://bucket/run?scheme=http&endpoint_override={host}:{port}&region=us-east-1"
    server.stop()


class Command:
    """`east-ray run` on the first host: DPO of given samples with ZeRO-3, a worker on each host."""

    def __init__(self, cluster: HostCluster, host: str, folder: Path, run_dir: str, model: Path) -> None:
        self._cluster, self._host = cluster, host
        self.stages = Folder(*locate(run_dir)) / "round_0"
        self._file = folder / f"{len(list(folder.iterdir()))}.yaml"
        samples = [
            {"question": f"Tom has {i} pens and gets {i % 7} more. How many pens has he?",
             "reference_answer": str(i + i % 7),
             "responses": [f"He has \\boxed{{{i + i % 7}}}.", f"So \\boxed{{{i + 1 + i % 7}}}."]}
            for i in range(NUM_QUESTIONS)
        ]  # fmt: skip
        (folder / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
        config = {
            "run_dir": run_dir, "model": str(model), "samples": {"path": str(folder / "samples.jsonl")},
            "cluster": {"address": cluster.address},
            "training": {
                "objective": "dpo", "beta": 0.5, "epochs": EPOCHS, "examples_per_step": PER_STEP, "micro_batch_size": 2,
                "learning_rate": 1e-3, "precision": "float32", "num_workers": 2, "num_cpus_per_worker": 0.5,
                "resources": {"trainer": 1}, "deepspeed": {"zero_stage": 3}, "checkpoint_every_steps": 3,
            },
        }  # fmt: skip
        self._file.write_text(json.dumps(config))

    def begin(self, *overrides: str) -> None:
        command = ["ip", "netns", "exec", self._host, sys.executable, "-m", "east_ray", "run", str(self._file)]
        self.process = subprocess.Popen(
            [*command, *overrides], cwd=ROOT, env=self._cluster.environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def wait_for_a_checkpoint(self) -> None:
        self.wait(lambda: bool(complete_checkpoints(self.stages / "checkpoints" / GROUP)))

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 400
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def finish(self) -> tuple[str, list[dict[str, Any]]]:
        """What it has printed, and the metrics of all steps."""
        out, _ = self.process.communicate(timeout=500)
        assert self.process.returncode == 0, out
        return out, [json.loads(line) for line in (self.stages.read_text("training.jsonl") or "").splitlines()]


@pytest.mark.drill
@pytest.mark.timeout(1500)
def test_a_training_over_two_hosts_outlives_the_death_of_one(
    two_hosts: list[str], bucket: str, quickstart: Path, tmp_path: Path
) -> None:
    """Both end with the same steps to rounding, though one had a worker for most of them, and the other always two."""
    (tmp_path / "jobs").mkdir()
    with local_cluster(tmp_path / "home", HostCluster) as cluster:
        assert isinstance(cluster, HostCluster)
        _, second = (cluster.start_host(name, number) for number, name in enumerate(two_hosts, start=1))

        shared = Command(cluster, two_hosts[0], tmp_path / "jobs", str(tmp_path / "run"), quickstart / "model")
        shared.begin()
        shared.wait_for_a_checkpoint()
        kill_tree(second.pid)
        second = cluster.start_host(two_hosts[1], 2)
        out, with_host_back = shared.finish()
        assert "goes on after step" not in out

        remote = Command(cluster, two_hosts[0], tmp_path / "jobs", bucket, quickstart / "model")
        remote.begin()
        remote.wait_for_a_checkpoint()
        kill_tree(second.pid)
        remote.process.terminate()
        out, _ = remote.process.communicate(timeout=120)
        assert "stopped" in out
        remote.begin("training.num_workers=1", "training.deepspeed.zero_stage=2")
        out, with_one_worker = remote.finish()
    said = [line for line in out.splitlines() if "goes on after step" in line]
    assert len(said) == 1 and said[0].endswith(
        "with 1 worker and ZeRO stage 2; before it had 2 workers and ZeRO stage 3"
    )
    for steps in (with_host_back, with_one_worker):
        assert [step["step"] for step in steps] == list(range(1, NUM_STEPS + 1))
    for one, two in zip(with_host_back, with_one_worker, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-3, abs=1e-4)

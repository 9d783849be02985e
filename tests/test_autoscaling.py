"""A cluster whose autoscaler adds nodes while questions wait and removes them. Its nodes are processes here."""

import json
import socket
import time
from pathlib import Path

import pytest
import yaml
from clusters import local_cluster, processes
from sampling_runs import NUM_QUESTIONS, Run

ROOT = Path(__file__).parent.parent


@pytest.mark.drill
def test_nodes_come_while_questions_wait_and_go_when_none_is_left(
    quickstart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the file's comment has it, and with logical GPUs (ray#59144: pools of GPU actors that stay at one)."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 6379)) == 0:
            pytest.skip("port 6379, which Ray's local provider assumes, is taken")
    config = yaml.safe_load((ROOT / "cluster_configs" / "local_autoscaling.yaml").read_text())
    config["available_node_types"]["sampler"]["resources"]["GPU"] = 1
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(config))
    timeline: list[tuple[float, int, int]] = []
    with local_cluster(tmp_path / "home") as cluster:
        cluster.port, cluster.address = 6379, "127.0.0.1:6379"
        head = cluster.start_head(1, f"--autoscaling-config={tmp_path / 'cluster.yaml'}", RAY_FAKE_CLUSTER="1")
        engines = {"num_cpus_per_engine": 0, "num_gpus_per_engine": 1, "resources": {"sampler": 1}, "max_engines": 2}
        run = Run(cluster, tmp_path, quickstart / "model", **engines)
        begin = time.monotonic()
        run.begin(CUDA_VISIBLE_DEVICES="")

        def look() -> int:
            nodes = len(processes(head.pid, ["raylet/raylet "]))
            now = (round(time.monotonic() - begin, 1), nodes, len(run.durable()))
            if not timeline or timeline[-1][1] != nodes:
                timeline.append(now)
            return nodes

        assert run.process is not None
        while run.process.poll() is None:
            look()
            time.sleep(0.5)
        out = run.finish()
        deadline = time.monotonic() + 120
        while look() > 1:
            assert time.monotonic() < deadline, timeline
            time.sleep(0.5)
    run.check()
    assert "waiting for nodes: engines.num_gpus_per_engine needs 1 GPUs in all, and the cluster has 0 now" in out
    counts = [nodes for _, nodes, _ in timeline if nodes]  # none: the head's raylet was not up yet
    with capsys.disabled():
        print("\n" + json.dumps({"seconds, nodes, questions": timeline, "questions": NUM_QUESTIONS}))
    assert counts[0] == counts[-1] == 1 and max(counts) == 3, timeline

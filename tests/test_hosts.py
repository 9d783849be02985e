"""Several hosts, each a network namespace with an address of its own: one dies and one is cut off while they sample."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import RAY, LocalCluster, free_port, kill_tree, local_cluster, processes
from sampling_runs import SAMPLER, Run

BRIDGE, SUBNET = "east-ray", "10.177.0"


def ip(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Names of three hosts on one bridge; host k has the address SUBNET.k."""
    if shutil.which("ip") is None:
        pytest.skip("iproute2 is not installed")
    names = [f"east-ray-{k}" for k in (1, 2, 3)]
    made = [ip("link", "add", BRIDGE, "type", "bridge"), ip("link", "set", BRIDGE, "up")]
    for k, name in enumerate(names, start=1):
        made += [
            ip("netns", "add", name),
            ip("link", "add", f"er{k}", "type", "veth", "peer", "name", f"er{k}h"),
            ip("link", "set", f"er{k}h", "netns", name),
            ip("link", "set", f"er{k}", "master", BRIDGE, "up"),
            ip("-n", name, "addr", "add", f"{SUBNET}.{k}/24", "dev", f"er{k}h"),
            ip("-n", name, "link", "set", f"er{k}h", "up"),
            ip("-n", name, "link", "set", "lo", "up"),
        ]
    try:
        failed = [result.stderr for result in made if result.returncode]
        if failed:
            pytest.skip(f"network namespaces may not be made here: {failed[0].strip()}")
        yield names
    finally:
        for k, name in enumerate(names, start=1):
            ip("link", "del", f"er{k}")
            ip("netns", "del", name)
        ip("link", "del", BRIDGE)


class HostCluster(LocalCluster):
    """A cluster whose nodes are hosts; the driver runs on the first."""

    def start_host(self, name: str, number: int) -> "subprocess.Popen[bytes]":
        address = f"{SUBNET}.{number}"
        head = ["--head", f"--port={self.port}", "--include-dashboard=false"]
        command = ["ip", "netns", "exec", name, RAY, "start", "--block", f"--node-ip-address={address}",
                   "--num-cpus=2", "--object-store-memory=200000000", f"--dashboard-agent-listen-port={free_port()}",
                   *(head if number == 1 else [f"--address={SUBNET}.1:{self.port}"])]  # fmt: skip
        if number == 1:
            self.address = f"{address}:{self.port}"
        path = self.home / f"node-{number}.log"
        with path.open("w") as log:
            node = subprocess.Popen(command, env=self.environment(), stdout=log, stderr=log, start_new_session=True)
        self.nodes.append(node)
        deadline = time.monotonic() + 120  # one after the other: they share the folder of Ray's session here
        while "This command will now block" not in path.read_text():
            assert node.poll() is None and time.monotonic() < deadline, path.read_text()
            time.sleep(0.3)
        return node


@pytest.mark.drill
def test_a_host_that_dies_and_one_that_is_cut_off_cost_only_what_was_in_flight(
    hosts: list[str], quickstart: Path, tmp_path: Path
) -> None:
    with local_cluster(tmp_path / "home", HostCluster) as cluster:
        assert isinstance(cluster, HostCluster)
        nodes = [cluster.start_host(name, number) for number, name in enumerate(hosts, start=1)]
        run = Run(cluster, tmp_path, quickstart / "model", num_responses=96, min_engines=3, max_engines=3,
                  num_cpus_per_engine=1.5)  # fmt: skip
        run.begin(via=("ip", "netns", "exec", hosts[0]))
        snapshots = []
        run.wait_until(lambda: all(processes(node.pid, [SAMPLER]) for node in nodes))
        run.wait_until(lambda: len(run.durable()) >= 24)
        snapshots.append(run.durable())
        kill_tree(nodes[1].pid)
        run.wait_until(lambda: len(run.durable()) >= len(snapshots[0]) + 24)
        snapshots.append(run.durable())
        # The third host goes on by itself: its engine works, and its writes still reach the shared disk.
        assert ip("link", "set", "er3", "down").returncode == 0
        out = run.finish()
    assert "sampling" in out
    run.check(*snapshots)

"""Several hosts, each a network namespace with an address of its own: one dies and one is cut off while they sample."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import kill_tree, local_cluster, processes
from host_clusters import BRIDGE, HostCluster, ip
from host_clusters import hosts as made_hosts
from sampling_runs import SAMPLER, Run


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    with made_hosts(3) as names:
        yield names


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
        assert ip("link", "set", f"{BRIDGE}-3", "down").returncode == 0
        out = run.finish()
    assert "sampling" in out
    run.check(*snapshots)

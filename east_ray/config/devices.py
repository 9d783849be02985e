"""What the engines run on, by the settings: GPUs or CPUs, and how many of a machine's cores."""

from east_ray.config.sections import EnginePoolConfig


def use_gpus(engines: EnginePoolConfig) -> bool:
    """Whether the engines run on GPUs: Ray's own, or those that vLLM's workers ask Ray for."""
    return engines.num_gpus_per_engine > 0 or engines.engine_args.get("distributed_executor_backend") == "ray"


def cpus(engines: EnginePoolConfig, cores: int) -> float:
    """CPUs that Ray reserves for an engine on a machine with so many cores."""
    if engines.num_cpus_per_engine is not None:
        return engines.num_cpus_per_engine
    return 1 if use_gpus(engines) or engines.max_engines > 1 else max(1, cores - 1)


def threads(engines: EnginePoolConfig, cores: int) -> int:
    """Threads of an engine without a GPU: its whole CPUs, at least 1, unless `engines.env` has OMP_NUM_THREADS."""
    told = engines.env.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() else max(1, int(cpus(engines, cores)))

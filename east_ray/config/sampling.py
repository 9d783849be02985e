"""Settings of sampling: how responses are drawn, and the engines that draw them."""

import math
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from east_ray.config.base import Part, Section
from east_ray.config.resuming import ANY_TIME, MayChange

#: vLLM engine arguments that decide about memory, devices and speed, but not about the distribution of responses.
FREE_ENGINE_ARGS = MayChange(
    keys=frozenset(
        [
            "max_num_seqs",
            "max_num_batched_tokens",
            "gpu_memory_utilization",
            "kv_cache_memory_bytes",
            "tensor_parallel_size",
            "pipeline_parallel_size",
            "distributed_executor_backend",
            "enforce_eager",
            "enable_prefix_caching",
            "enable_chunked_prefill",
            "disable_log_stats",
            "download_dir",
            "load_format",
            "swap_space",
            "cpu_offload_gb",
            "block_size",
        ]
    )
)


class SamplingConfig(Section):
    """How responses are drawn."""

    backend: Annotated[str, Part("vllm", "scripted")] = "vllm"
    """What answers the questions: vLLM engines; a table of prepared responses, for tests (scripted); or a class of your
    own (module:name)."""
    backend_args: dict[str, Any] = {}
    """Arguments of the backend, e.g. {table: responses.jsonl} of scripted."""
    responses_per_question: Annotated[int, Field(ge=1, le=16384)] = 128
    """Responses sampled for each question, all in one request (n = 128 in the paper)."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: the smallest set of tokens whose probability reaches this."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Sample among this many likeliest tokens; 0: among all."""
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    """Longest response, in tokens; a longer one is cut and marked finish_reason: length."""
    seeded: bool = True
    """Give each request its own seed, derived from `seed`, the round and the question, so that a repeated run samples
    the same responses in any order of questions. On a GPU an unseeded sampler can be faster."""


class EnginePoolConfig(Section):
    """The engines that sample and evaluate."""

    min_engines: Annotated[int, Field(ge=1), ANY_TIME] = 1
    """Engines that the pool keeps while a stage runs."""
    max_engines: Annotated[int, Field(ge=1), ANY_TIME] = 1
    """Engines that the pool may grow to while questions wait."""
    num_gpus_per_engine: Annotated[float, Field(ge=0), ANY_TIME] = 0
    """GPUs that Ray reserves for an engine; a fraction lets engines share one. 0 runs on the CPU."""
    num_cpus_per_engine: Annotated[float, Field(ge=0), ANY_TIME] = 1
    """CPUs that Ray reserves for an engine."""
    resources: Annotated[dict[str, Annotated[float, Field(gt=0)]], ANY_TIME] = {}
    """Other resources that Ray reserves for an engine, e.g. {sampler: 1} for nodes that declare `sampler`."""
    engine_args: Annotated[dict[str, Any], FREE_ENGINE_ARGS] = {}
    """vLLM engine arguments by name, e.g. {dtype: bfloat16, tensor_parallel_size: 2, max_model_len: 4096}."""
    env: Annotated[dict[str, str], ANY_TIME] = {}
    """Environment variables of the engine's process, e.g. {VLLM_CPU_KVCACHE_SPACE: "1"}. They are stored with the
    run, so no secrets: a token belongs in the environment of the cluster's nodes."""
    questions_per_task: Annotated[int, Field(ge=1), ANY_TIME] = 8
    """Minimum number of questions in a task, which asks them together and writes each as soon as it is answered."""
    max_deaths_per_question: Annotated[int, Field(ge=1), ANY_TIME] = 2
    """Set a question aside after this many engines have died while it was the only question in flight."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_engines > self.max_engines:
            raise ValueError(f"min_engines {self.min_engines} is greater than max_engines {self.max_engines}")
        shards = math.prod(int(self.engine_args.get(f"{kind}_parallel_size", 1)) for kind in ("tensor", "pipeline"))
        by_ray = self.engine_args.get("distributed_executor_backend") == "ray"  # its workers ask for GPUs themselves
        if shards > 1 and self.num_gpus_per_engine not in (0, shards) and not by_ray:
            raise ValueError(
                f"num_gpus_per_engine {self.num_gpus_per_engine:g}: tensor_parallel_size times pipeline_parallel_size "
                f"in engine_args is {shards}, so an engine needs {shards} GPUs"
            )
        return self

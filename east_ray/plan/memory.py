"""Memory of a training worker and of an engine, by part, in bytes.

A worker's peak is in one of two moments: at the end of a backward pass, when the gradients are reduced over the
workers, or in the optimizer's step. With N parameters (n of them trained), W workers, and s bytes a parameter (2 in
bf16, 4 in float32) DeepSpeed 0.19 holds, per worker:

    ZeRO stage   parameters   gradients, backward / step        optimizer (Adam)   besides, in the backward pass
    0, float32   4 N          4 n         4 n                   8 n                a flat copy of a bucket
    <= 1, bf16   2 N          6 n         6 n                   12 n / W           a bf16 copy of the gradients
    1, float32   4 N          4 n + 4 n/W  8 n/W                12 n / W           a flat copy of a bucket
    2            s N          8 n/W        8 n/W                12 n / W           a bucket, and a flat copy of it
    3            s N / W      4 n/W        8 n/W                12 n / W           the same, and gathered parameters

(DeepSpeed's runtime/engine.py, runtime/bf16_optimizer.py, runtime/zero/stage_1_and_2.py and stage3.py.) bf16 gradients
add up in float32, so each copy of a partition has 4 bytes an element. Adam has the float32 parameters of its partition
with two moments of each: 12 bytes, and with offload two temporary copies of it in the step, for want of a fused kernel.

A GPU reserves a bucket as a whole, and its allocator takes back what is freed. A CPU gives a bucket memory as it
fills, and its C library keeps what many small tensors have taken: activations, and in ZeRO-3 gathered parameters and
gradients.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from east_ray.config import LoraConfig, TrainingConfig
from east_ray.config.sections import DEFAULT_MICRO_BATCH_SIZE
from east_ray.plan.model_size import ModelSize
from east_ray.training import sharding
from east_ray.training.batches import max_chunk_logits
from east_ray.training.model import is_compiled

#: Measured with torch 2.13 and DeepSpeed 0.19: a worker's process on a CPU before it has loaded a model. The libraries'
#: code and data, and what they allocate on the way.
CPU_BASE = 0.7 * 2**30
#: What ZeRO-3 adds to it, whatever the model's size: most of it stays after a model was loaded in shards.
CPU_ZERO3_BASE = 0.15 * 2**30
#: CUDA's context, workspaces of cuBLAS, and NCCL's buffers. torch.cuda.max_memory_allocated does not count them.
GPU_BASE = 1.0 * 2**30
#: An engine besides parameters and cache: on a CPU as measured, on a GPU activations of a batch and CUDA graphs too.
CPU_ENGINE_BASE, GPU_ENGINE_BASE = 1.2 * 2**30, 2.5 * 2**30


@dataclass(frozen=True)
class Buckets:
    """Sizes of DeepSpeed's communication, in elements. These are its defaults."""

    reduce: int = 500_000_000  # gradients that are reduced at once
    prefetch: int = 50_000_000  # ZeRO-3: parameters that are gathered ahead
    live: int = 1_000_000_000  # ZeRO-3: parameters that stay gathered


@dataclass(frozen=True)
class Moment:
    """A worker's memory at one moment, by part, in bytes. `on_host` is beside the GPU, in the machine's memory."""

    parameters: float
    gradients: float
    optimizer: float
    activations: float
    head: float
    buckets: float
    base: float
    on_host: float = 0.0

    @property
    def total(self) -> float:
        """All parts on the device."""
        return float(sum(value for name, value in vars(self).items() if name != "on_host"))


@dataclass(frozen=True)
class WorkerMemory:
    """A worker's memory in its two moments."""

    backward: Moment
    step: Moment

    @property
    def peak(self) -> float:
        """The larger of both, in bytes."""
        return max(self.backward.total, self.step.total)

    @property
    def on_host(self) -> float:
        """Bytes of the machine's memory for what is offloaded."""
        return max(self.backward.on_host, self.step.on_host)


def micro_batch_tokens(settings: TrainingConfig, responses: int, length: float) -> float:
    """Tokens that a worker computes at once, if examples with `responses` sequences have `length` tokens each."""
    of_a_step = math.ceil(settings.examples_per_step / settings.num_workers) * responses * length
    if (bound := settings.tokens_per_micro_batch) is not None:
        return min(max(bound, responses * length), of_a_step)  # a longer example is a micro-batch of its own
    return min((settings.micro_batch_size or DEFAULT_MICRO_BATCH_SIZE) * responses * length, of_a_step)


def buckets_of(size: ModelSize, settings: TrainingConfig) -> Buckets:
    """The sizes of DeepSpeed's communication for this model, as `training.sharding.deepspeed_config` sets them."""
    n = trained_parameters(size, settings.lora)
    elements = sharding.ModelSize(size.num_parameters + (n if settings.lora else 0), n)
    zero = sharding.deepspeed_config(settings, settings.num_workers, on_gpu=True, size=elements)["zero_optimization"]
    return Buckets(
        reduce=zero.get("reduce_bucket_size", Buckets.reduce),
        prefetch=_either(zero, "prefetch_bucket_size", Buckets.prefetch),
        live=_either(zero, "max_live_parameters", Buckets.live),
    )


def _either(zero: Mapping[str, Any], name: str, default: int) -> int:
    """A key of ZeRO-3, which has two names."""
    return int(zero.get(f"stage3_{name}", zero.get(name, default)))


def worker_memory(
    size: ModelSize,
    settings: TrainingConfig,
    tokens: int,
    predicted: int,
    *,
    gpu_memory: float | None,
    buckets: Buckets = Buckets(),
) -> WorkerMemory:
    """Memory of a worker that computes `tokens` at once (a micro-batch), of which it predicts `predicted`.

    `gpu_memory`: bytes of its GPU; None: it computes on a CPU.
    """
    on_gpu = gpu_memory is not None
    backward, step = _states(size, settings, buckets, on_gpu=on_gpu)
    computed = {
        "activations": activations(size, settings, tokens, on_gpu=on_gpu),
        "head": head_logits(size, settings, tokens, predicted, gpu_memory=gpu_memory),
    }
    # The C library of a CPU's process does not give back what many small tensors have taken; a GPU's allocator does.
    after = {"activations": 0.0, "head": 0.0} if on_gpu else computed
    base = GPU_BASE if on_gpu else CPU_BASE + (CPU_ZERO3_BASE if settings.deepspeed.zero_stage == 3 else 0.0)
    return WorkerMemory(Moment(base=base, **backward, **computed), Moment(base=base, **step, **after))


def trained_parameters(size: ModelSize, lora: LoraConfig | None) -> int:
    """Parameters that the optimizer changes. An adapter of rank r on a linear layer has r * (inputs + outputs)."""
    if lora is None:
        return size.num_parameters
    share = 1.0 if lora.target_modules == "all-linear" else min(1.0, len(lora.target_modules) / 7)
    return int(lora.rank * size.linear_sizes * share)


def _states(
    size: ModelSize, settings: TrainingConfig, buckets: Buckets, *, on_gpu: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Bytes of parameters, gradients, optimizer and buckets in a backward pass, and in the step: the table above."""
    split, workers, is_bf16 = settings.deepspeed, settings.num_workers, settings.precision == "bf16"
    stage = max(split.zero_stage, 1) if is_bf16 else split.zero_stage
    n, s = trained_parameters(size, settings.lora), 2 if is_bf16 else 4
    total = size.num_parameters + (n if settings.lora else 0)
    own, on_host = n / workers, on_gpu and split.offload_optimizer
    filled = min(n, max(buckets.reduce, size.largest_parameter))
    bucket = float(s * (buckets.reduce if on_gpu else filled))  # a CPU gives no memory to what is never written
    copied = float(s * filled)  # flat, also where there is one worker
    temporary = 8 * own if on_host else 0.0  # of Adam, where its kernel is not fused
    parameters, adam, gathered, kept = float(s * total), 12 * own, 0.0, 0.0
    left = 0 if on_gpu else s  # of what ZeRO-3 makes and frees tensor by tensor, a CPU's process keeps the memory
    if stage == 0:
        adam = 8.0 * n
        backward, step, moved = 4.0 * n, 4.0 * n, copied
    elif stage == 1 and is_bf16 and not split.offload_optimizer:
        backward, step, moved = 6.0 * n, 6.0 * n, float(s * filled)
    elif stage == 1:  # all gradients until the last micro-batch; on a CPU they then move into the bucket
        backward, step, moved = 4.0 * n + 4 * own, 8 * own, (bucket if on_gpu else 0.0) + copied
    elif stage == 2:
        backward, step, moved = 8 * own, 8 * own, bucket + copied
    else:
        parameters, gathered = parameters / workers, float(s * min(total, buckets.live + buckets.prefetch))
        backward, step, moved, kept = (
            4 * own + left * filled,
            8 * own + left * filled,
            bucket + float(s * filled),
            bucket,
        )
    host = 0.0
    if on_host:
        host, adam, temporary, backward, step = adam + step + temporary, 0.0, 0.0, 0.0, 0.0
    if on_gpu and split.offload_parameters:
        host, parameters = host + parameters, 0.0
    always = {"on_host": host}
    return (
        {"parameters": parameters + gathered, "gradients": backward, "optimizer": adam, "buckets": moved} | always,
        {
            "parameters": parameters + (gathered if left else 0.0),
            "gradients": step,
            "optimizer": adam + temporary,
            "buckets": kept,
        }
        | always,
    )


def activations(size: ModelSize, settings: TrainingConfig, tokens: int, *, on_gpu: bool) -> float:
    """Bytes that the layers keep for the backward pass over `tokens`, and what the widest step of that pass adds.

    A Llama-shaped layer of hidden size h, attention width a, key width k and inner width f keeps, in elements a token:

        two norms       their input (float32 also in bf16), the normalized input, the output        6 h
        attention       queries, keys, values, the output of each sequence and of all together      3 a + 2 k
        feed-forward    gate, its activation, up, their product                                     4 f

    Compiled it keeps of the norms their inputs and outputs, 4 h, queries and keys only rotated, 2 a + 2 k with values
    and output, and 3 f, since the activation is computed again. With checkpoints a layer keeps its input alone; one
    layer at a time is computed again.
    """
    s = 2 if settings.precision == "bf16" else 4
    norms = 16 * size.hidden if s == 2 else 24 * size.hidden
    layer = tokens * (norms + s * (3 * size.attention + 2 * size.key_values + 4 * size.intermediate))
    if is_compiled(settings, on_gpu=on_gpu):
        layer = tokens * s * (4 * size.hidden + 2 * size.attention + 2 * size.key_values + 3 * size.intermediate)
    widest = tokens * s * (2 * size.intermediate + 2 * size.hidden)  # gradients of one layer on their way
    ends = tokens * size.hidden * (s + 8)  # the embedding, and the norm before the head
    if not settings.gradient_checkpointing:
        return float(size.num_layers * layer + widest + ends)
    kept = 2 if on_gpu and settings.gradient_checkpointing == "offload" else size.num_layers
    return float(kept * tokens * size.hidden * s + layer + widest + ends)


def head_logits(
    size: ModelSize, settings: TrainingConfig, tokens: int, predicted: int, *, gpu_memory: float | None
) -> float:
    """Bytes of the head's logits. Packed, a chunk is there at a time; padded, the logits of every position are.

    Of a logit there are float32 values of the log-softmax, of its gradient and of the loss's: 12 bytes; in bf16 the
    logit's own gradient besides, 2 bytes. Compiled there are only the logit and its gradient.
    """
    s = 2 if settings.precision == "bf16" else 4
    each = 2 * s if is_compiled(settings, on_gpu=gpu_memory is not None) else 14 if s == 2 else 12
    if settings.packing:
        chunk = max(1, max_chunk_logits(gpu_memory) // size.vocabulary)
        return float(min(predicted, chunk) * size.vocabulary * each)
    return float(size.vocabulary * (2 * s * tokens + each * predicted))


# -------------------------------------------------------------------------------------------------------------- engines


@dataclass(frozen=True)
class EngineMemory:
    """An engine's memory on each of its devices, in bytes, and what its key-value cache holds."""

    available: float
    parameters: float
    cache: float  # what is left for keys and values; negative: the parameters do not even fit
    base: float
    bytes_per_token: float  # of the cache, on each device
    shards: int  # devices that the model is split over
    max_responses: int  # that the engine computes at once, whatever the cache

    def responses_at_once(self, prompt_tokens: float, response_tokens: float, per_question: int) -> int:
        """Responses in flight that the cache holds. The responses to a question share its prompt; each is half-way on
        average, but the cache must hold its end.
        """
        each = self.bytes_per_token * (response_tokens + prompt_tokens / max(1, per_question))
        return max(0, min(self.max_responses, int(self.cache / each)))

    def fits(self, longest: int) -> bool:
        """Whether there is room for the cache, and in it for a sequence of `longest` tokens; vLLM asks for both."""
        return self.parameters + self.base + self.cache <= self.available and self.max_tokens >= longest

    @property
    def max_tokens(self) -> int:
        """Tokens that the cache holds."""
        return max(0, int(self.cache / self.bytes_per_token))


def engine_memory(
    size: ModelSize,
    *,
    memory: float,
    cache: float | None,
    shards: int,
    bytes_per_element: int,
    max_responses: int,
    on_gpu: bool,
) -> EngineMemory:
    """An engine with `memory` bytes on each device, over which `shards` split the model; `cache`: of a fixed size.

    A token has 2 * layers * key heads * head size elements in the cache, which the shards divide as they do the heads.
    """
    parameters = bytes_per_element * size.num_parameters / shards
    base = GPU_ENGINE_BASE if on_gpu else CPU_ENGINE_BASE
    return EngineMemory(
        available=memory,
        parameters=parameters,
        cache=memory - parameters - base if cache is None else cache,
        base=base,
        bytes_per_token=bytes_per_element * size.num_layers * size.cache_per_token_layer / shards,
        shards=shards,
        max_responses=max_responses,
    )

"""Seconds of sampling and of training, from FLOPs and bytes.

training     a token takes 2 FLOPs a parameter forward and 4 backward: 6 P; with checkpoints the forward pass once
             more: 8 P; with adapters no gradients of the parameters: 4 P and 6 P. Attention takes 2 * 2 * a FLOPs
             a layer for each earlier token of the sequence, which are half of its length T on average: 2 a T a
             layer forward, and two or three times that besides. P are the parameters that a token is multiplied
             with. A micro-batch takes its FLOPs over the peak times MFU, and a time of its own besides.
sampling     a decoding step gives B responses one token each. It reads the parameters and the cache of all B once,
             and takes 2 P B FLOPs; the longer of both, over the efficiency, and a time for each token besides.
"""

from east_ray.config import TrainingConfig
from east_ray.plan.memory import EngineMemory
from east_ray.plan.model_size import ModelSize


def attention_flops(size: ModelSize, length: float) -> float:
    """FLOPs of a token's attention in a forward pass over a sequence of `length` tokens."""
    return 2.0 * size.num_layers * size.attention * length


def training_flops(size: ModelSize, settings: TrainingConfig, length: float) -> float:
    """FLOPs of a token in a forward and a backward pass, with what checkpoints compute again."""
    again = 1 if settings.gradient_checkpointing else 0
    parameters = (4 if settings.lora else 6) + 2 * again
    return parameters * size.num_active + (3 + again) * attention_flops(size, length)


def forward_flops(size: ModelSize, length: float) -> float:
    """FLOPs of a token in a pass without gradients."""
    return 2.0 * size.num_active + attention_flops(size, length)


def training_tokens_per_s(
    size: ModelSize,
    settings: TrainingConfig,
    length: float,
    tokens: float,
    *,
    peak_flops: float,
    mfu: float,
    pass_s: float,
) -> float:
    """Tokens that a worker trains in a second, in micro-batches of `tokens` on a device of `peak_flops`.

    `mfu` is the share of the peak at which the device computes, recomputation counted as work. `pass_s` are the seconds
    that a micro-batch takes whatever its size: kernels are launched one by one, and communication has a latency.
    """
    return tokens / (tokens * training_flops(size, settings, length) / (peak_flops * mfu) + pass_s)


def mfu(size: ModelSize, length: float, *, tokens_per_s: float, peak_flops: float) -> float:
    """Model FLOPs utilization of a measured rate: (6 P + 3 attention) * tokens/s / peak, without recomputation."""
    return (6 * size.num_active + 3 * attention_flops(size, length)) * tokens_per_s / peak_flops


def decoding_tokens_per_s(
    size: ModelSize,
    engine: EngineMemory,
    responses: int,
    mean_length: float,
    *,
    peak_flops: float,
    bandwidth: float,
    efficiency: float,
    token_s: float,
) -> float:
    """Tokens that an engine samples in a second with `responses` in flight; 0 if none fits.

    `mean_length` is the mean number of tokens that a step reads of each response's cache. Peaks are of one device of
    the engine; its shards work at the same time, each on its part.
    """
    if responses == 0:
        return 0.0
    read = engine.parameters + responses * mean_length * engine.bytes_per_token
    compute = responses * forward_flops(size, mean_length) / engine.shards
    step_s = max(read / bandwidth, compute / peak_flops) / efficiency + responses * token_s
    return responses / step_s

"""Causal attention over sequences that lie end to end in one row: each attends to itself alone.

Two kernels have one interface, that of transformers' attention functions, and give the same to rounding:

    varlen    one kernel for all sequences of a row (`torch.nn.attention.varlen`, FlashAttention): on NVIDIA GPUs from
              Ampere on, in bf16, without dropout of attention
    loop      torch's own attention for one sequence after the other: everywhere else

Axes: S sequences, T tokens of the row, H heads, K heads of keys and values, D size of a head.
"""

import inspect
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from east_ray.training.batches import head_dim_of

try:
    from torch.nn.attention import varlen
except ImportError:  # torch before 2.10
    varlen = None  # type: ignore[assignment]

varlen_attn: Any = getattr(varlen, "varlen_attn", None)
Kernel = Literal["varlen", "loop"]
#: The names under which transformers knows the kernels: a model's `attn_implementation`.
IMPLEMENTATIONS: dict[Kernel, str] = {"varlen": "east_ray_varlen", "loop": "east_ray_loop"}
#: From this mean length on, cuDNN's kernel for one sequence is faster than FlashAttention's for all of a row.
LONG = 4096
_BACKENDS = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
#: Queries of a block where the loop has a sliding window that is shorter.
_LEAST_BLOCK = 512
#: FlashAttention has kernels for heads of up to this size, in multiples of 8.
_MAX_HEAD_DIM, _HEAD_DIM_MULTIPLE = 256, 8
#: Compute capability of Ampere, the first generation that FlashAttention supports.
_MIN_CAPABILITY = (8, 0)


class Segments(NamedTuple):
    """Where the sequences of a row lie."""

    offsets: Tensor
    """(S + 1,) int32: where in the row each sequence begins, and T."""
    on_host: Tensor
    """The same in the host's memory, to be read without waiting for a GPU."""
    longest: int
    """Tokens of the longest sequence."""
    are_long: bool
    """Whether the sequences have `LONG` tokens or more on average."""

    @classmethod
    def of(cls, lengths: Sequence[int], device: Any) -> "Segments":
        """The segments of a row of sequences of these lengths."""
        offsets = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
        return cls(on_device(offsets, device), offsets, max(lengths), sum(lengths) >= LONG * len(lengths))


def on_device(values: Any, device: Any, dtype: Any = None) -> Tensor:
    """A tensor of some values on a device. A GPU is not waited for: the copy takes its turn behind earlier work."""
    tensor = torch.as_tensor(values, dtype=dtype)
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def has_varlen() -> bool:
    """Whether this machine has the kernel for all sequences of a row."""
    return (
        varlen_attn is not None
        and torch.cuda.is_available()
        and torch.version.cuda is not None
        and torch.cuda.get_device_capability() >= _MIN_CAPABILITY
    )


def kernel_for(config: Any, precision: str) -> Kernel:
    """The fastest kernel that can compute the attention of a model (its transformers configuration) on this machine."""
    config, head_dim = config.get_text_config(), head_dim_of(config)
    fits = (
        has_varlen()
        and precision == "bf16"
        and not getattr(config, "attention_dropout", 0.0)
        and head_dim is not None
        and head_dim <= _MAX_HEAD_DIM
        and head_dim % _HEAD_DIM_MULTIPLE == 0
        # Heads whose values are of another size than their keys (multi-head latent attention).
        and not hasattr(config, "qk_nope_head_dim")
    )
    return "varlen" if fits else "loop"


def kernel_of(model: Any) -> Kernel | None:
    """The kernel that a model was loaded with; None for attention of transformers' own."""
    name = getattr(model, "module", model).config._attn_implementation  # of an engine, its model's
    return next((kernel for kernel, known in IMPLEMENTATIONS.items() if name == known), None)


def register() -> None:
    """Make the kernels known to transformers; may be called any number of times."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(IMPLEMENTATIONS["varlen"], varlen_attention)
    AttentionInterface.register(IMPLEMENTATIONS["loop"], loop_attention)
    for name in IMPLEMENTATIONS.values():
        AttentionMaskInterface.register(name, lambda *args, **kwargs: None)


def varlen_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    segments: Segments,
    sliding_window: int | None = None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """All sequences in one kernel: query (1, H, T, D), key and value (1, K, T, D) -> (1, T, H, D).

    A sliding window of W lets each token see itself and the W - 1 tokens before it, within its sequence.
    """
    assert attention_mask is None and query.shape[0] == 1, query.shape
    if segments.are_long and sliding_window is None:
        return _one_by_one(query, key, value, segments.on_host, scaling), None
    rows = (tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value))
    offsets, longest = segments.offsets, segments.longest
    output = varlen_attn(
        *rows,
        offsets,
        offsets,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        **_GROUPED,
    )
    return output[None], None


@torch.compiler.disable  # type: ignore[untyped-decorator]  # the number of sequences would be compiled in
def _one_by_one(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, scaling: float | None) -> Tensor:
    """(1, H, T, D), (1, K, T, D), (1, K, T, D) -> (1, T, H, D), each sequence in a kernel of its own."""
    parts = []
    with sdpa_kernel(_BACKENDS, set_priority=True):
        for begin, end in itertools.pairwise(offsets.tolist()):
            q, k, v = (tensor[:, :, begin:end] for tensor in (query, key, value))
            output = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
            parts.append(output.transpose(1, 2))
    return torch.cat(parts, dim=1)


#: Before torch 2.13 grouped heads need no argument.
_GROUPED = {"enable_gqa": True} if varlen_attn and "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


@torch.compiler.disable  # type: ignore[untyped-decorator]  # as above
def loop_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    segments: Segments,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """As `varlen_attention`, one sequence after the other."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    offsets = segments.on_host.tolist()
    assert attention_mask is None and offsets[-1] == query.shape[2], (offsets, query.shape)
    parts: list[Tensor] = []
    for begin, end in itertools.pairwise(offsets):
        window = end - begin if sliding_window is None else sliding_window
        is_windowed = end - begin > window
        for first, first_key, last in _blocks(begin, end, window) if is_windowed else [(begin, begin, end)]:
            mask = _windowed_mask(first, first_key, last, window, query.device) if is_windowed else None
            q, k, v = query[:, :, first:last], key[:, :, first_key:last], value[:, :, first_key:last]
            parts.append(sdpa_attention_forward(module, q, k, v, mask, is_causal=mask is None, **kwargs)[0])
    return torch.cat(parts, dim=1), None


def _blocks(begin: int, end: int, window: int) -> Iterator[tuple[int, int, int]]:
    """(first query, first key, end of both) of blocks of queries, since a mask for all of them may not fit memory."""
    size = max(window, _LEAST_BLOCK)
    for first in range(begin, end, size):
        yield first, max(begin, first - window + 1), min(first + size, end)


def _windowed_mask(first: int, first_key: int, last: int, window: int, device: torch.device) -> Tensor:
    """(1, 1, queries, keys): whether the query at `first` and later sees the key at `first_key` and later."""
    queries, keys = torch.arange(first, last, device=device), torch.arange(first_key, last, device=device)
    distance = queries[:, None] - keys[None, :]
    return ((distance >= 0) & (distance < window))[None, None]

"""Causal attention over sequences that lie end to end in one row: each attends to itself alone.

Two kernels have one interface, that of transformers' attention functions, and give the same to rounding:

    varlen    one kernel for all sequences of a row (`torch.nn.attention.varlen`, FlashAttention): on NVIDIA GPUs from
              Ampere on, in bf16, without dropout of attention
    loop      torch's own attention for one sequence after the other: everywhere else

Axes: S sequences, T tokens of the row, H heads, K heads of keys and values, D size of a head.
"""

import inspect
import itertools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

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
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    fits = (
        has_varlen()
        and precision == "bf16"
        and not getattr(config, "attention_dropout", 0.0)
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
    rows = (tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value))
    if segments.are_long and sliding_window is None:
        return _one_by_one(query, key, value, segments.on_host, scaling), None
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
        here, length, mask = slice(begin, end), end - begin, None
        if sliding_window is not None and length > sliding_window:
            position = torch.arange(length, device=query.device)
            distance = position[:, None] - position[None, :]
            mask = ((distance >= 0) & (distance < sliding_window))[None, None]
        output, _ = sdpa_attention_forward(
            module, query[:, :, here], key[:, :, here], value[:, :, here], mask, is_causal=mask is None, **kwargs
        )
        parts.append(output)
    return torch.cat(parts, dim=1), None

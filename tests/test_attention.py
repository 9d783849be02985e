"""Attention over packed sequences: what the one kernel is given and gives, and where it is chosen."""

import contextlib
import copy
import random
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from east_ray.config import TrainingConfig
from east_ray.training import attention, packing
from east_ray.training.attention import Segments, kernel_for, loop_attention, varlen_attention
from east_ray.training.batches import MAX_CHUNK_LOGITS, max_chunk_logits
from east_ray.training.model import compile_layers, is_compiled

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def by_definition(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, *,
    scale: float | None = None, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """What torch documents of varlen_attn: (T, H, D), (T, K, D), (T, K, D) -> (T, H, D)."""
    left, right = window_size
    assert right == 0 and cu_seq_q.equal(cu_seq_k) and enable_gqa
    lengths = cu_seq_q.diff().tolist()
    assert max_q == max_k == max(lengths)
    parts = []
    for begin, length in zip(cu_seq_q.tolist(), lengths, strict=False):
        q, k, v = (tensor[begin : begin + length].transpose(0, 1) for tensor in (query, key, value))
        k, v = (tensor.repeat_interleave(len(q) // len(k), dim=0) for tensor in (k, v))
        distance = torch.arange(length)[:, None] - torch.arange(length)[None, :]
        seen = (distance >= 0) & ((distance <= left) | (left < 0))
        scores = q @ k.transpose(1, 2) * (q.shape[-1] ** -0.5 if scale is None else scale)
        parts.append((scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v).transpose(0, 1))
    return torch.cat(parts)


@pytest.fixture
def varlen_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel by its definition, since torch has it for GPUs only."""
    monkeypatch.setattr(attention, "varlen_attn", torch.compiler.disable(by_definition))
    monkeypatch.setattr(attention, "_GROUPED", {"enable_gqa": True})


def inputs(lengths: list[int], heads: int, groups: int, dim: int, **kind: Any) -> tuple[list[Tensor], Segments]:
    torch.manual_seed(0)
    shapes = [(1, count, sum(lengths), dim) for count in (heads, groups, groups)]
    tensors = [torch.randn(shape, **kind).requires_grad_() for shape in shapes]
    return tensors, Segments.of(lengths, kind.get("device", "cpu"))


class Layer(torch.nn.Module):
    num_key_value_groups = 2
    is_causal = True


@pytest.mark.parametrize("least_block", [1, 512])
@pytest.mark.parametrize("window", [None, 1, 4, 100])
@pytest.mark.parametrize(("scaling", "long"), [(None, 4096), (0.3, 4096), (0.3, 5)])
def test_both_kernels_are_one_function(
    varlen_on_cpu: None, window: int | None, scaling: float | None, long: int, least_block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(attention, "_LEAST_BLOCK", least_block)
    monkeypatch.setattr(attention, "LONG", long)  # with 5, sequences of 7.75 tokens on average count as long
    tensors, segments = inputs([5, 1, 17, 8], heads=4, groups=2, dim=8, dtype=torch.float64)
    upstream = torch.randn(1, 31, 4, 8, dtype=torch.float64)
    results = []
    for function in (varlen_attention, loop_attention):
        output, _ = function(Layer(), *tensors, segments=segments, sliding_window=window, scaling=scaling, dropout=0.0)
        assert output.shape == (1, 31, 4, 8)
        results.append([output, *torch.autograd.grad((output * upstream).sum(), tensors)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["Llama", "Qwen3", "Mistral"])
def test_a_model_with_the_one_kernel_gives_what_each_sequence_gives_alone(name: str, varlen_on_cpu: None) -> None:
    attention.register()
    config = getattr(transformers, f"{name}Config")(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, **({"sliding_window": 6} if name == "Mistral" else {}),
    )  # fmt: skip
    rng = random.Random(1)
    pairs = [([rng.randrange(97) for _ in range(n)], [rng.randrange(97) for _ in range(n + 3)]) for n in (3, 9, 1)]
    values = {}
    for kernel in ("varlen", "loop"):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.float64, attn_implementation=attention.IMPLEMENTATIONS[kernel]
        )
        assert attention.kernel_of(model) == kernel
        values[kernel] = packing.packed_logprobs(model, packing.LogprobHead(model), pairs, "cpu")
    torch.testing.assert_close(values["varlen"], values["loop"], rtol=1e-12, atol=1e-12)


def test_the_kernel_is_chosen_by_machine_and_model(monkeypatch: pytest.MonkeyPatch) -> None:
    config = transformers.LlamaConfig(hidden_size=256, num_attention_heads=4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert kernel_for(config, "bf16") == "loop"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert kernel_for(config, "bf16") == "varlen"
    assert kernel_for(config, "float32") == "loop"
    for changes in ({"head_dim": 512}, {"head_dim": 20}, {"attention_dropout": 0.1}):
        assert kernel_for(transformers.LlamaConfig(hidden_size=256, num_attention_heads=4, **changes), "bf16") == "loop"
    assert kernel_for(transformers.DeepseekV3Config(), "bf16") == "loop"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))  # Turing
    assert kernel_for(config, "bf16") == "loop"


@needs_gpu
@pytest.mark.parametrize(("heads", "groups", "dim"), [(8, 2, 64), (4, 4, 128)])
@pytest.mark.parametrize(("window", "long"), [(None, 4096), (32, 4096), (None, 64)])
def test_the_kernel_on_a_gpu_is_the_loop(
    heads: int, groups: int, dim: int, window: int | None, long: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "LONG", long)
    lengths = [1, 700, 33, 128, 5]
    tensors, segments = inputs(lengths, heads, groups, dim, dtype=torch.bfloat16, device="cuda")
    exact = [tensor.detach().double().cpu().requires_grad_() for tensor in tensors]
    layer, scaling = Layer(), dim**-0.5
    layer.num_key_value_groups = heads // groups
    upstream = torch.randn(1, sum(lengths), heads, dim)
    output, _ = varlen_attention(layer, *tensors, segments=segments, sliding_window=window, scaling=scaling)
    expected, _ = loop_attention(
        layer, *exact, segments=Segments.of(lengths, "cpu"), sliding_window=window, scaling=scaling
    )
    found = [output, *torch.autograd.grad((output * upstream.cuda()).sum(), tensors)]
    wanted = [expected, *torch.autograd.grad((expected * upstream.double()).sum(), exact)]
    for one, other in zip(found, wanted, strict=True):
        error = (one.double().cpu() - other).norm() / other.norm()
        assert error < 1e-2, float(error)


@needs_gpu
@pytest.mark.parametrize("is_compiled", [False, True])
def test_a_model_on_a_gpu_gives_log_probabilities_near_those_of_float64(is_compiled: bool) -> None:
    attention.register()
    config = transformers.LlamaConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    torch.manual_seed(0)
    exact = transformers.AutoModelForCausalLM.from_config(
        copy.deepcopy(config), dtype=torch.float64, attn_implementation=attention.IMPLEMENTATIONS["loop"]
    )
    model = transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.bfloat16, attn_implementation=attention.IMPLEMENTATIONS[kernel_for(config, "bf16")]
    )
    assert attention.kernel_of(model) == "varlen"
    model.load_state_dict(exact.state_dict())
    model.to("cuda")
    if is_compiled:
        compile_layers(model)
    head, exact_head = packing.LogprobHead(model, is_compiled), packing.LogprobHead(exact)
    rng = random.Random(1)
    for count in (5, 9):  # another number of tokens goes through the same compiled layers
        pairs = [
            ([rng.randrange(1000) for _ in range(rng.randint(1, 90))], [rng.randrange(1000) for _ in range(50)])
            for _ in range(count)
        ]
        weights = torch.linspace(0.5, 2, count)
        found = packing.packed_logprobs(model, head, pairs, "cuda")
        expected = packing.packed_logprobs(exact, exact_head, pairs, "cpu")
        torch.testing.assert_close(found.double().cpu(), expected, rtol=5e-3, atol=0)
        (weights.cuda() * found).sum().backward()
        (weights.double() * expected).sum().backward()
        for parameter, reference in zip(model.parameters(), exact.parameters(), strict=True):
            error = (parameter.grad.double().cpu() - reference.grad).norm() / reference.grad.norm()
            assert error < 3e-2, float(error)
            parameter.grad = reference.grad = None


def test_layers_are_compiled_where_it_is_faster_and_known_to_work() -> None:
    def compiled(on_gpu: bool = True, **changes: Any) -> bool:
        return is_compiled(TrainingConfig.model_validate(changes), on_gpu=on_gpu)

    assert not compiled(on_gpu=False) and compiled(on_gpu=False, compile=True)
    assert compiled() and compiled(deepspeed={"zero_stage": 1}) and not compiled(compile=False)
    assert not compiled(deepspeed={"zero_stage": 3}) and not compiled(packing=False)
    with pytest.raises(ValueError, match="compile needs deepspeed"):
        compiled(compile=True, deepspeed={"zero_stage": 3})


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("Gemma3", "varlen"), ("Qwen3_5", "varlen"),  # sizes are in the configuration of the text model
        ("Gemma4", "loop"), ("Gemma4Text", "loop"),  # another size of heads in some layers
        ("Mamba", "loop"), ("DeepseekV3", "loop"),  # no heads; values of another size
    ],
)  # fmt: skip
def test_the_kernel_of_models_with_other_configurations(
    name: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "has_varlen", lambda: True)
    assert kernel_for(getattr(transformers, f"{name}Config")(), "bf16") == kernel


@pytest.mark.parametrize("checkpointing", [None, {}, {"offload": True}])
@pytest.mark.parametrize("long", [4096, 1])
def test_layers_are_compiled_also_inside_of_checkpoints(
    checkpointing: dict[str, Any] | None, long: int, varlen_on_cpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.testing import CompileCounter

    monkeypatch.setattr(attention, "LONG", long)
    # Nothing can be pinned without a GPU; what is moved is tested in test_long_examples.py.
    monkeypatch.setattr(transformers.modeling_utils, "save_on_cpu", lambda **options: contextlib.nullcontext())
    attention.register()
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    pairs = [([1, 2, 3], [4, 5]), ([6], [7, 8, 9, 10])]
    gradients, counter = [], CompileCounter()
    for is_compiled_one in (False, True):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.float64, attn_implementation=attention.IMPLEMENTATIONS["varlen"]
        )
        if checkpointing is not None:
            model.activation_checkpointing_enable({"use_reentrant": False}, **checkpointing)
        if is_compiled_one:
            torch._dynamo.reset()
            compile_layers(model, counter)
        model.train()
        packing.packed_logprobs(model, packing.LogprobHead(model), pairs, "cpu").sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert 1 <= counter.frame_count <= 8, "one or a few graphs for all layers"
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_chunk_of_logits_is_a_share_of_a_gpus_memory() -> None:
    assert max_chunk_logits(None) == MAX_CHUNK_LOGITS == max_chunk_logits(8 << 30)
    assert max_chunk_logits(80 << 30) == (80 << 30) // 64 // 4

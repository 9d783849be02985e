"""The weighted losses against their definitions, and the invariants that make weights mean what they say."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from east_ray.training import losses

seeds = st.integers(0, 10_000)


def test_response_logprobs_count_the_response_only() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 7, dtype=torch.float64)
    labels = torch.tensor([[-100, -100, 3, 1, -100], [-100, 2, 6, 0, 5]])
    logp = logits.log_softmax(-1)
    # Token t is predicted at position t - 1.
    expected = [
        logp[0, 1, 3] + logp[0, 2, 1],
        logp[1, 0, 2] + logp[1, 1, 6] + logp[1, 2, 0] + logp[1, 3, 5],
    ]
    torch.testing.assert_close(losses.response_logprobs(logits, labels), torch.stack(expected), rtol=1e-14, atol=0)


def test_half_precision_logits_go_through_the_softmax_in_float32() -> None:
    logits = torch.randn(1, 4, 9).bfloat16()
    labels = torch.tensor([[-100, 1, 2, 3]])
    result = losses.response_logprobs(logits, labels)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, losses.response_logprobs(logits.float(), labels))


def test_sft_by_hand() -> None:
    # (0.5 * 4 + 2 * 3) / 10 tokens
    loss = losses.sft(torch.tensor([-4.0, -3.0]), torch.tensor([0.5, 2.0]), num_step_tokens=10)
    assert loss.item() == pytest.approx(0.8)


def test_dpo_by_hand() -> None:
    # margin 0.1 * ((-3 + 4) - (-6 + 5)) = 0.2; weight 3, one of two examples of the step: 3/2 * -ln sigmoid(0.2)
    one = [torch.tensor([x]) for x in (-3.0, -6.0, -4.0, -5.0)]
    loss = losses.dpo(*one, torch.tensor([3.0]), beta=0.1, num_step_examples=2)
    assert loss.item() == pytest.approx(1.5 * math.log(1 + math.exp(-0.2)))


def test_kto_by_hand() -> None:
    loss = losses.kto(
        torch.tensor([-3.0, -6.0]),
        torch.tensor([-4.0, -5.0]),
        torch.tensor([True, False]),
        torch.tensor(0.5),
        torch.tensor([2.0, 2.0]),
        beta=0.1,
        num_step_responses=4,
        undesirable_factor=3.0,
    )
    # desirable: 1 - sigmoid(0.1 * (1 - 0.5)); undesirable: 3 * (1 - sigmoid(0.1 * (0.5 + 1)))
    desirable, undesirable = 1 / (1 + math.exp(0.05)), 3 / (1 + math.exp(0.15))
    assert loss.item() == pytest.approx(2 * (desirable + undesirable) / 4)


def _loss(objective: str, x: torch.Tensor, weights: torch.Tensor, total: int) -> torch.Tensor:
    """The part of a step's loss that these (B, 2) log-probabilities give, against a reference made from them."""
    reference = (3 * x.detach()).sin() - 5
    if objective == "sft":
        return losses.sft(x[:, 0], weights, 10 * total)
    if objective == "dpo":
        return losses.dpo(x[:, 0], x[:, 1], reference[:, 0], reference[:, 1], weights, 0.3, total)
    desirable = torch.tensor([True, False]).repeat(len(x))
    point = torch.tensor(0.7, dtype=x.dtype)
    return losses.kto(x.flatten(), reference.flatten(), desirable, point, weights.repeat_interleave(2), 0.3, 2 * total)


def _gradient(objective: str, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    _loss(objective, x, weights, len(x)).backward()
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize("objective", ["sft", "dpo", "kto"])
@given(seed=seeds, size=st.integers(1, 12), a=st.floats(0, 5), b=st.floats(0, 5))
@settings(deadline=None)
def test_the_gradient_is_linear_in_the_weights(objective: str, seed: int, size: int, a: float, b: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = -10 * torch.rand(size, 2, dtype=torch.float64, generator=generator)
    u, v = torch.rand(2, size, dtype=torch.float64, generator=generator)
    combined = _gradient(objective, x, a * u + b * v)
    torch.testing.assert_close(
        combined, a * _gradient(objective, x, u) + b * _gradient(objective, x, v), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("objective", ["sft", "dpo", "kto"])
@given(seed=seeds, size=st.integers(1, 12), cut=st.integers(0, 12))
@settings(deadline=None)
def test_the_parts_of_a_split_step_add_up_to_the_whole(objective: str, seed: int, size: int, cut: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = -10 * torch.rand(size, 2, dtype=torch.float64, generator=generator)
    weights = torch.rand(size, dtype=torch.float64, generator=generator)
    parts = sum(
        (_loss(objective, part, w, size) for part, w in ((x[:cut], weights[:cut]), (x[cut:], weights[cut:]))),
        torch.tensor(0.0, dtype=torch.float64),
    )
    torch.testing.assert_close(parts, _loss(objective, x, weights, size), rtol=1e-12, atol=1e-15)


def test_weights_of_one_give_the_plain_loss_to_the_last_digit() -> None:
    logprobs = -10 * torch.rand(16)
    plain = -logprobs.sum() / 123
    assert torch.equal(losses.sft(logprobs, torch.ones(16), 123), plain)


def test_the_reference_point_gets_no_gradient() -> None:
    point = torch.tensor(0.5, requires_grad=True)
    logprobs = torch.tensor([-3.0], requires_grad=True)
    losses.kto(logprobs, torch.tensor([-2.0]), torch.tensor([True]), point, torch.ones(1), 0.1, 1).backward()
    assert point.grad is None and logprobs.grad is not None


def test_label_smoothing_mixes_in_the_pair_the_other_way_round() -> None:
    chosen, rejected = torch.tensor([-1.0, -3.0]), torch.tensor([-2.0, -1.5])
    reference = torch.tensor([-1.5, -2.0]), torch.tensor([-1.0, -2.5])
    weights = torch.tensor([2.0, 0.5])
    straight = losses.dpo(chosen, rejected, *reference, weights, 0.3, 2)
    turned = losses.dpo(rejected, chosen, *reference[::-1], weights, 0.3, 2)
    smoothed = losses.dpo(chosen, rejected, *reference, weights, 0.3, 2, label_smoothing=0.1)
    assert float(smoothed) == pytest.approx(0.9 * float(straight) + 0.1 * float(turned), rel=1e-6)

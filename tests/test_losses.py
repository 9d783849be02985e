"""The objectives against their definitions, the invariants that make weights mean what they say, and their door."""

import math
import pickle
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from east_ray.config import InputError, TrainingConfig
from east_ray.training import objectives
from east_ray.training.batches import micro_batches
from east_ray.training.objectives import MicroBatch, Objective
from east_ray.training.packing import response_logprobs

BETA = 0.3
CASES: dict[str, dict[str, Any]] = {
    "sft": {"objective": "sft"},
    "dpo": {"objective": "dpo"},
    "dpo, smoothed": {"objective": "dpo", "label_smoothing": 0.2},
    "dpo, per token": {"objective": "dpo", "length_normalized": True},
    "kto": {"objective": "kto"},
    "kto, with factors": {"objective": "kto", "desirable_factor": 1.5, "undesirable_factor": 0.5},
}
seeds = st.integers(0, 10_000)


def objective(case: str) -> Objective:
    return objectives.load(TrainingConfig.model_validate({"beta": BETA, **CASES[case]}))


def whole_step(seed: int, size: int, dtype: torch.dtype = torch.float64) -> MicroBatch:
    """A step of one micro-batch with random log-probabilities, lengths and weights."""
    generator = torch.Generator().manual_seed(seed)

    def uniform() -> Tensor:
        return torch.rand(size, dtype=dtype, generator=generator)

    tokens = {name: (1 + 20 * uniform()).floor() for name in ("chosen", "rejected")}
    return MicroBatch(
        logprobs={name: -10 * uniform() for name in ("chosen", "rejected")},
        references={name: -10 * uniform() for name in ("chosen", "rejected", "mismatched")},
        num_tokens=tokens,
        weights=5 * uniform(),
        num_step_examples=size,
        num_step_tokens={name: int(of_name.sum()) for name, of_name in tokens.items()},
        measured={"divergence": torch.tensor(0.7, dtype=torch.float64)},
    )


def part(step: MicroBatch, rows: Sequence[int]) -> MicroBatch:
    """A micro-batch of some examples of the step."""

    def of_rows(values: Any) -> Any:
        return {name: of_name[list(rows)] for name, of_name in values.items()}

    return replace(
        step,
        logprobs=of_rows(step.logprobs),
        references=of_rows(step.references),
        num_tokens=of_rows(step.num_tokens),
        weights=step.weights[list(rows)],
    )


def gradient(of: Objective, step: MicroBatch, weights: Tensor) -> Tensor:
    """Of the loss, with respect to the log-probabilities of the trained responses: (responses, B)."""
    logprobs = {name: step.logprobs[name].clone().requires_grad_() for name in of.responses}
    of.loss(replace(step, logprobs=logprobs, weights=weights)).backward()
    return torch.stack([values.grad for values in logprobs.values() if values.grad is not None])


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
    torch.testing.assert_close(response_logprobs(logits, labels), torch.stack(expected), rtol=1e-14, atol=0)


def test_half_precision_logits_go_through_the_softmax_in_float32() -> None:
    logits = torch.randn(1, 4, 9).bfloat16()
    labels = torch.tensor([[-100, 1, 2, 3]])
    result = response_logprobs(logits, labels)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, response_logprobs(logits.float(), labels))


def one_pair(weight: float) -> MicroBatch:
    """One of the two examples of a step."""
    of_names = [{name: torch.tensor([x]) for name, x in zip(("chosen", "rejected"), values, strict=True)}
                for values in ((-3.0, -6.0), (-4.0, -5.0))]  # fmt: skip
    return MicroBatch(*of_names, num_tokens={}, weights=torch.tensor([weight]), num_step_examples=2, num_step_tokens={})


def test_sft_by_hand() -> None:
    # (0.5 * 4 + 2 * 3) / 10 tokens
    batch = replace(
        one_pair(1.0), logprobs={"chosen": torch.tensor([-4.0, -3.0])}, weights=torch.tensor([0.5, 2.0]),
        num_step_tokens={"chosen": 10},
    )  # fmt: skip
    assert objective("sft").loss(batch).item() == pytest.approx(0.8)


def test_dpo_by_hand() -> None:
    # margin 0.1 * ((-3 + 4) - (-6 + 5)) = 0.2; weight 3, one of two examples of the step: 3/2 * -ln sigmoid(0.2)
    loss = objectives.load(TrainingConfig(objective="dpo", beta=0.1)).loss(one_pair(3.0))
    assert loss.item() == pytest.approx(1.5 * math.log(1 + math.exp(-0.2)))


def test_kto_by_hand() -> None:
    section = TrainingConfig(objective="kto", beta=0.1, undesirable_factor=3.0)
    loss = objectives.load(section).loss(replace(one_pair(2.0), measured={"divergence": torch.tensor(0.5)}))
    # desirable: 1 - sigmoid(0.1 * (1 - 0.5)); undesirable: 3 * (1 - sigmoid(0.1 * (0.5 + 1)))
    desirable, undesirable = 1 / (1 + math.exp(0.05)), 3 / (1 + math.exp(0.15))
    assert loss.item() == pytest.approx(2 * (desirable + undesirable) / 4)


@pytest.mark.parametrize(("desirable", "undesirable"), [(1.0, 1.0), (2.5, 1.0), (1.0, 4.0)])
def test_the_factors_of_kto_are_those_of_the_settings(desirable: float, undesirable: float) -> None:
    section = TrainingConfig(objective="kto", beta=0.1, desirable_factor=desirable, undesirable_factor=undesirable)
    one = MicroBatch(
        logprobs={"chosen": torch.tensor([-3.0]), "rejected": torch.tensor([-6.0])},
        references={"chosen": torch.tensor([-4.0]), "rejected": torch.tensor([-5.0])},
        num_tokens={},
        weights=torch.tensor([2.0]),
        num_step_examples=2,
        num_step_tokens={},
        measured={"divergence": torch.tensor(0.5)},
    )
    # As in test_kto_by_hand: one example of two is two responses of four, each with weight 2.
    expected = 2 * (desirable / (1 + math.exp(0.05)) + undesirable / (1 + math.exp(0.15))) / 4
    assert objectives.load(section).loss(one).item() == pytest.approx(expected)


def test_the_reference_point_of_kto_is_the_mean_divergence_and_never_negative() -> None:
    of, step = objective("kto"), whole_step(1, 4)
    mismatched = {"mismatched": torch.tensor([-1.0, -2.0, -3.0, -5.0], dtype=torch.float64)}
    measured = of.measure(replace(step, logprobs=mismatched))
    assert measured["divergence"].item() == pytest.approx(-11 - step.references["mismatched"].sum().item())
    for mean, expected in ((0.7, 0.7), (-0.7, 0.0)):
        told = of.metrics(replace(step, measured={"divergence": torch.tensor(mean, dtype=torch.float64)}))
        assert told["kl"].item() / 4 == pytest.approx(expected)


def plain_loss(case: str, step: MicroBatch) -> Tensor:
    """The loss as it is defined without weights."""
    now, then = step.logprobs, step.references
    section = objective(case).settings
    if case == "sft":
        return -now["chosen"].sum() / step.num_step_tokens["chosen"]
    rewards = {name: now[name] - then[name] for name in ("chosen", "rejected")}
    if section.objective == "dpo":
        if section.length_normalized:
            rewards = {name: now[name] / step.num_tokens[name] - then[name] / step.num_tokens[name] for name in rewards}
        margin = rewards["chosen"] - rewards["rejected"]
        terms = torch.nn.functional.logsigmoid(BETA * margin)
        if smoothing := section.label_smoothing:
            terms = (1 - smoothing) * terms + smoothing * torch.nn.functional.logsigmoid(-BETA * margin)
        return -terms.sum() / step.num_step_examples
    point = step.measured["divergence"].float()
    losses = [
        section.desirable_factor * torch.sigmoid(-(BETA * (rewards["chosen"] - point))),
        section.undesirable_factor * torch.sigmoid(BETA * (rewards["rejected"] - point)),
    ]
    return torch.cat(losses).sum() / (2 * step.num_step_examples)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_one_give_the_plain_loss_to_the_last_digit(case: str, dtype: torch.dtype) -> None:
    for seed in range(5):
        step = whole_step(seed, 16, dtype)
        weighted = objective(case).loss(replace(step, weights=torch.ones(16, dtype=dtype)))
        assert torch.equal(weighted, plain_loss(case, step))
        assert not torch.equal(weighted, objective(case).loss(step))


@pytest.mark.parametrize("case", CASES)
@given(seed=seeds, size=st.integers(1, 12), a=st.floats(0, 5), b=st.floats(0, 5))
def test_the_gradient_is_linear_in_the_weights(case: str, seed: int, size: int, a: float, b: float) -> None:
    of, step = objective(case), whole_step(seed, size)
    u, v = torch.rand(2, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    combined = gradient(of, step, a * u + b * v)
    torch.testing.assert_close(combined, a * gradient(of, step, u) + b * gradient(of, step, v), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
@given(seed=seeds, size=st.integers(1, 12), world_size=st.integers(1, 4), micro_batch_size=st.integers(1, 5))
def test_the_micro_batches_of_any_split_add_up_to_the_step(
    case: str, seed: int, size: int, world_size: int, micro_batch_size: int
) -> None:
    of, step = objective(case), whole_step(seed, size)
    lengths = step.num_tokens["chosen"].int().tolist()
    rows = [{"row": row, "prompt": [], "chosen": [0] * length} for row, length in enumerate(lengths)]
    parts = [
        part(step, [row["row"] for row in batch])
        for rank in range(world_size)
        for batch in micro_batches(rows, rank, world_size, micro_batch_size)
    ]
    total = torch.stack([of.loss(one) for one in parts]).sum()
    torch.testing.assert_close(total, of.loss(step), rtol=1e-12, atol=1e-15)
    for name, value in of.metrics(step).items():
        summed = torch.stack([of.metrics(one)[name] for one in parts]).sum()
        torch.testing.assert_close(summed, value, rtol=1e-12, atol=1e-12)


def test_the_reference_point_gets_no_gradient() -> None:
    point = torch.tensor(0.5, requires_grad=True)
    logprobs = {name: torch.tensor([-3.0], requires_grad=True) for name in ("chosen", "rejected")}
    objective("kto").loss(replace(one_pair(1.0), logprobs=logprobs, measured={"divergence": point})).backward()
    assert point.grad is None and all(values.grad is not None for values in logprobs.values())


def test_label_smoothing_mixes_in_the_pair_the_other_way_round() -> None:
    step = whole_step(3, 2)
    turned = replace(
        step,
        **{  # type: ignore[arg-type]
            field: {"chosen": getattr(step, field)["rejected"], "rejected": getattr(step, field)["chosen"]}
            for field in ("logprobs", "references")
        },
    )
    straight, other = (objective("dpo").loss(one) for one in (step, turned))
    assert float(objective("dpo, smoothed").loss(step)) == pytest.approx(0.8 * float(straight) + 0.2 * float(other))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"objective": "sft", "label_smoothing": 0.1},
            "label_smoothing and length_normalized need objective dpo, not s",
        ),
        (
            {"objective": "kto", "length_normalized": True},
            "label_smoothing and length_normalized need objective dpo, n",
        ),
        ({"objective": "dpo", "examples": "reference_solutions"}, "examples: reference_solutions needs objective sft,"),
        ({"objective": "kto", "examples": "reference_solutions"}, "examples: reference_solutions needs objective sft,"),
    ],
)
def test_settings_that_an_objective_cannot_use_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^training: {message}"):
        objectives.load(TrainingConfig.model_validate(values))


def test_reference_solutions_are_for_every_objective_that_trains_on_chosen_responses_alone() -> None:
    section = TrainingConfig(examples="reference_solutions")
    assert objectives.load(section).required_responses == ("chosen",)

    class Own(objectives.SFT):
        reference_responses = ("chosen",)

    Own(section)


OWN = """
from east_ray.training.objectives import MicroBatch, Objective

class Fits(Objective):
    responses = ("chosen", "rejected")
    reference_responses = ("rejected",)

    def loss(self, batch):
        return (batch.weights * batch.logprobs["rejected"]).sum() / batch.num_step_examples

class NoLoss(Objective):
    pass

class NoMeasure(Fits):
    measured_responses = ("chosen",)

class WrongResponse(Fits):
    responses = ("chosen", "preferred")

class NotATuple(Fits):
    responses = "chosen"

class Nothing(Fits):
    responses = ()

class OneExample(Fits):
    reference_responses = ("mismatched",)

class Refuses(Fits):
    def __init__(self, settings):
        super().__init__(settings)
        raise ValueError("beta: too small")

def function(batch):
    return 0
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoLoss", r"training.objective: own_objectives:NoLoss does not define loss\(batch\)"),
        ("NoMeasure", r"has measured_responses, and does not define measure\(batch\)"),
        ("WrongResponse", r"has responses \('chosen', 'preferred'\); expected a tuple of chosen, rejected"),
        ("NotATuple", "has responses 'chosen'; expected a tuple of chosen, rejected"),
        ("Nothing", "has no responses to train on"),
        ("OneExample", "has min_examples 1; expected at least 2"),
        ("Refuses", "training: beta: too small"),
        ("function", "is not a subclass of east_ray.training.objectives.Objective"),
    ],
)
def test_what_does_not_fit_the_door_is_said(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_objectives.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    assert objectives.load(TrainingConfig(objective="own_objectives:Fits")).required_responses == ("chosen", "rejected")
    with pytest.raises(InputError, match=message):
        objectives.load(TrainingConfig(objective=f"own_objectives:{name}"))


def test_a_users_objective_reaches_workers_that_cannot_import_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray import cloudpickle

    (tmp_path / "sent_objectives.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    pickled = cloudpickle.dumps(objectives.load(TrainingConfig(objective="sent_objectives:Fits")))
    monkeypatch.undo()
    monkeypatch.delitem(sys.modules, "sent_objectives")
    received = pickle.loads(pickled)
    assert isinstance(received, Objective) and received.required_responses == ("chosen", "rejected")
    assert "sent_objectives" not in sys.modules

"""The training loop in this process, without Ray: one DeepSpeed engine, a tiny model, rows from a list."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from east_ray.config import TrainingConfig
from east_ray.storage import Folder, locate
from east_ray.training import objectives
from east_ray.training.batches import micro_batches, steps
from east_ray.training.loop import learning_rate, train

Loop = Callable[..., list[dict[str, float]]]


def rows(lengths: list[int], epoch: int = 0) -> list[dict[str, Any]]:
    return [
        {"epoch": epoch, "question_id": str(i), "prompt": [0] * 2, "chosen": [1] * n} for i, n in enumerate(lengths)
    ]


def test_no_step_crosses_an_epoch() -> None:
    stream = rows([1] * 5, 0) + rows([1] * 5, 1)
    assert [(step[0]["epoch"], len(step)) for step in steps(stream, 3)] == [(0, 3), (0, 2), (1, 3), (1, 2)]
    assert list(steps([], 3)) == []


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 7), st.integers(1, 9))
def test_every_example_of_a_step_is_computed_once_and_workers_keep_in_step(
    lengths: list[int], world_size: int, size: int
) -> None:
    step = rows(lengths)
    shares = [micro_batches(step, rank, world_size, size) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    seen = sorted(int(row["question_id"]) for share in shares for batch in share for row in batch)
    assert seen == list(range(len(lengths)))
    assert max(len(batch) for share in shares for batch in share) <= size


@given(st.integers(1, 500), st.floats(0, 0.5), st.sampled_from(["cosine", "linear", "constant"]))
def test_the_learning_rate_rises_to_its_peak_and_never_leaves_its_bounds(
    num_steps: int, warmup: float, schedule: Any
) -> None:
    settings = TrainingConfig(learning_rate=1e-3, warmup_ratio=warmup, schedule=schedule)
    rates = [learning_rate(settings, step, num_steps) for step in range(num_steps)]
    assert all(0 < rate <= 1e-3 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # Two steps of warm-up of ten, then the decay over the other eight.
        ("linear", [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("cosine", [0.5, 1, 1, 0.961940, 0.853553, 0.691342, 0.5, 0.308658, 0.146447, 0.038060]),
        ("constant", [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_the_learning_rate_of_each_step(schedule: Any, expected: list[float]) -> None:
    settings = TrainingConfig(learning_rate=2.0, warmup_ratio=0.2, schedule=schedule)
    assert [learning_rate(settings, step, 10) / 2 for step in range(10)] == pytest.approx(expected, abs=1e-6)


@pytest.fixture(scope="module")
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A torch.distributed group of this process alone."""
    import torch.distributed as dist

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": "cpu"}.items():
            patch.setitem(os.environ, name, value)
        store = dist.FileStore(str(tmp_path_factory.mktemp("group") / "store"), 1)
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        yield
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tiny")
    config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                         num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    return str(path)


@pytest.fixture
def loop(tiny_model: str, tmp_path: Path, process_group: None) -> Loop:
    """Trains on 7 examples in two epochs of two steps; returns the metrics of each step."""
    rng = random.Random(1)

    def tokens() -> list[int]:
        return [rng.randrange(3, 32) for _ in range(rng.randint(1, 9))]

    names = ("prompt", "chosen", "rejected", "mismatched")
    epoch = [{"question_id": f"q{i}", "weight": 0.5 * i, **{name: tokens() for name in names}} for i in range(7)]

    def run(weight: float | None = None, **changes: Any) -> list[dict[str, float]]:
        weighted = [row if weight is None else row | {"weight": weight} for row in epoch]
        stream = [row | {"epoch": number} for number in range(2) for row in weighted]
        values = {"examples_per_step": 4, "epochs": 2, "precision": "float32", "learning_rate": 1e-2, "beta": 0.5,
                  "deepspeed": {"zero_stage": 0}}  # fmt: skip
        settings = TrainingConfig.model_validate(values | changes)
        log: list[dict[str, float]] = []
        references = Folder(*locate(str(tmp_path / "reference")))
        export = train(
            settings, objectives.load(settings), tiny_model, lambda: stream, len(epoch), log.append,
            lambda step, write: None, references=references,
        )  # fmt: skip
        export(str(tmp_path / "model"))
        return log

    return run


@pytest.mark.parametrize(
    "objective",
    [
        {"objective": "sft"},
        {"objective": "dpo", "label_smoothing": 0.1, "length_normalized": True},
        {"objective": "kto", "desirable_factor": 1.5, "undesirable_factor": 0.5},
    ],
)
def test_memory_settings_change_no_step(objective: dict[str, Any], loop: Loop) -> None:
    once, *others = (
        loop(**objective, **micro_batch, packing=packing)
        for micro_batch, packing in (
            ({"micro_batch_size": 4}, True),
            ({"micro_batch_size": 3}, False),
            ({"micro_batch_size": 1}, True),
            ({"tokens_per_micro_batch": 30}, True),
            ({"tokens_per_micro_batch": 40}, False),
        )
    )
    assert [step["num_examples"] for step in once] == [4, 3, 4, 3]
    same = [
        "loss",
        "unweighted_loss",
        "gradient_norm",
        "weight_mean",
        "num_tokens",
        *(["kl", "reward_margin"] if "kl" in once[0] else []),
    ]
    for other in others:
        for one, two in zip(once, other, strict=True):
            assert [two[name] for name in same] == pytest.approx([one[name] for name in same], rel=2e-4, abs=1e-6)
    assert once[-1]["unweighted_loss"] < once[0]["unweighted_loss"]


@pytest.mark.parametrize("objective", ["sft", "dpo", "kto"])
def test_the_unweighted_loss_of_a_step_is_its_loss_with_weights_of_one(objective: str, loop: Loop) -> None:
    plain, weighted = loop(objective=objective, weight=1.0), loop(objective=objective)
    assert [step["loss"] for step in plain] == [step["unweighted_loss"] for step in plain]
    assert weighted[0]["unweighted_loss"] == plain[0]["loss"] != weighted[0]["loss"]


#: Twice the loss of SFT, with metrics from each input that the loop offers: references, lengths, a measuring pass.
OWN_OBJECTIVE = """
from east_ray.training.objectives import Objective


class Doubled(Objective):
    reference_responses = ("chosen",)
    measured_responses = ("rejected",)

    def loss(self, batch):
        return -2 * (batch.weights * batch.logprobs["chosen"]).sum() / batch.num_step_tokens["chosen"]

    def metrics(self, batch):
        gain = batch.logprobs["chosen"] - batch.references["chosen"]
        likelihood = batch.measured["likelihood"] * len(batch.weights)
        return {"length": batch.num_tokens["chosen"].sum(), "gain": gain.sum(), "rejected_logprob": likelihood}

    def measure(self, batch):
        return {"likelihood": batch.logprobs["rejected"].sum()}
"""


def test_an_objective_from_a_file_of_the_users_own_is_trained_with(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_objective.py").write_text(OWN_OBJECTIVE)
    monkeypatch.syspath_prepend(tmp_path)
    plain, own = loop(objective="sft"), loop(objective="my_objective:Doubled")
    assert own[0]["loss"] == pytest.approx(2 * plain[0]["loss"], rel=1e-6)
    assert own[0]["gradient_norm"] == pytest.approx(2 * plain[0]["gradient_norm"], rel=1e-5)
    assert own[0]["length"] == int(own[0]["length"] * 4) / 4 > 1  # a mean over four examples
    assert own[0]["gain"] == pytest.approx(0, abs=1e-5) and own[-1]["gain"] > 0.1
    split = loop(objective="my_objective:Doubled", micro_batch_size=1)
    assert "kl" not in own[0] and 0 > own[0]["rejected_logprob"] == pytest.approx(
        split[0]["rejected_logprob"], rel=1e-5
    )

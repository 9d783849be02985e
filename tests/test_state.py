"""A training goes on from its state in a group of another shape: other workers, another ZeRO stage, or offload."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gloo_group import train_in_processes

from east_ray.config import InputError
from east_ray.training.state import load_state

LEARNING_RATE = 1e-3
LORA = {"rank": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"]}
COMMON: dict[str, Any] = {
    "learning_rate": LEARNING_RATE, "precision": "float32", "weight_decay": 0.1, "max_grad_norm": 0.5,
    "checkpoint_every_steps": 3, "warmup_ratio": 0.0,
}  # fmt: skip

#: Name -> settings, and `deepspeed` of two workers that are interrupted, of two that go on, and of one that goes on.
TABLE: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "float32": ({}, {"zero_stage": 2}, {"zero_stage": 3}, {"zero_stage": 0}),
    "whole": ({}, {"zero_stage": 0}, {"zero_stage": 1}, {"zero_stage": 2}),
    "dpo": (
        {"objective": "dpo", "beta": 0.5}, {"zero_stage": 3}, {"zero_stage": 3, "offload_parameters": True},
        {"zero_stage": 1},
    ),
    "bf16": (
        {"precision": "bf16"}, {"zero_stage": 1}, {"zero_stage": 2, "offload_optimizer": True}, {"zero_stage": 3}
    ),
    "adapters": ({"lora": LORA}, {"zero_stage": 3}, {"zero_stage": 0}, {"zero_stage": 2, "offload_optimizer": True}),
    "bf16 adapters": ({"lora": LORA, "precision": "bf16"}, {"zero_stage": 2}, {"zero_stage": 3}, {"zero_stage": 0}),
}  # fmt: skip


@pytest.mark.parametrize(
    "names", [("float32", "bf16"), pytest.param(tuple(TABLE)[1:3] + tuple(TABLE)[4:], marks=pytest.mark.drill)]
)
def test_a_training_goes_on_in_another_shape_and_ends_the_same(
    names: tuple[str, ...], tmp_path: Path, quickstart: Path
) -> None:
    """Each training runs whole, and goes on after its third step: as before, with two workers, and with one."""
    of_two, of_one = list[dict[str, Any]](), list[dict[str, Any]]()
    for name in names:
        settings, whole, with_two, with_one = TABLE[name]
        for place, deepspeed, group in (
            ("whole", whole, of_two), ("again", whole, of_two), ("two", with_two, of_two), ("one", with_one, of_one)
        ):  # fmt: skip
            restored = None if place == "whole" else str(tmp_path / name / "whole" / "checkpoint_3")
            changed = COMMON | settings | {"deepspeed": deepspeed}
            group.append({"folder": str(tmp_path / name / place), "settings": changed, "restored": restored})
    train_in_processes(2, quickstart / "model", of_two)
    train_in_processes(1, quickstart / "model", of_one)
    for name in names:
        losses, parameters = outcome(tmp_path / name / "whole")
        for place in ("again", "two", "one"):
            found, model = outcome(tmp_path / name / place)
            difference = max(float((tensor - parameters[key]).abs().mean()) for key, tensor in model.items())
            if place == "again":
                assert found == losses and difference == 0
            # bf16 gradients are rounded in each worker before they are added.
            relative, share_of_a_step = (1e-3, 0.01) if "bf16" in name else (1e-5, 1e-4)
            assert found == pytest.approx(losses, rel=relative), (name, place)
            assert difference < share_of_a_step * LEARNING_RATE, (name, place)


def outcome(folder: Path) -> tuple[list[float], dict[str, Any]]:
    """The losses of a training, and its model."""
    from safetensors.torch import load_file

    steps = json.loads((folder / "steps.json").read_text())
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    model = load_file(folder / "model" / "model.safetensors")
    return [step["loss"] for step in steps], {name: tensor.float() for name, tensor in model.items()}


def test_a_checkpoint_without_a_workers_part_is_refused(tmp_path: Path) -> None:
    """One process is enough: what is read of a checkpoint does not depend on the group."""
    import torch

    parameter = torch.nn.Parameter(torch.arange(4.0))
    module = torch.nn.Module()
    module.register_parameter("odd", parameter)
    engine = SimpleNamespace(
        module=module, basic_optimizer=torch.optim.AdamW([parameter]), optimizer=None,
        zero_optimization=lambda: False, zero_optimization_partition_weights=lambda: False,
    )  # fmt: skip
    half = {name: torch.zeros(2) for name in ("parameter", "exp_avg", "exp_avg_sq")}
    torch.save({"odd": (2, half)}, tmp_path / "worker_1.pt")
    with pytest.raises(InputError, match=r"has 2 of 4 elements of odd; it is another model's or incomplete"):
        load_state(engine, 3, str(tmp_path))
    torch.save({"odd": (0, half)}, tmp_path / "worker_0.pt")
    load_state(engine, 3, str(tmp_path))
    assert parameter.tolist() == [0, 0, 0, 0] and engine.basic_optimizer.state[parameter]["step"] == 3

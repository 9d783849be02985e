"""DeepSpeed's configuration: bucket sizes that fit the model, and a user's own keys."""

from typing import Any

import pytest
import torch
import transformers

from east_ray.config import InputError, TrainingConfig
from east_ray.training.sharding import ModelSize, bucket_sizes, check_extra, deepspeed_config, size_of


def settings(**extra: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({"deepspeed": {"zero_stage": 3, "extra": extra}})


def test_buckets_grow_with_the_model_and_stay_below_what_deepspeed_has() -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    fields = DeepSpeedZeroConfig.model_fields
    names = {field.alias or name: field.default for name, field in fields.items()}
    before = bucket_sizes(ModelSize(0, 0))
    assert before.keys() <= names.keys()
    for billions in (0.1, 0.5, 1, 8, 70, 1000):
        sizes = bucket_sizes(ModelSize(int(billions * 1e9), int(billions * 1e9)))
        for name, size in sizes.items():
            assert before[name] <= size <= names[name], (name, billions)
        if billions <= 1:
            assert 2 * sizes["reduce_bucket_size"] < 0.13e9 * billions
        before = sizes
    adapters = bucket_sizes(ModelSize(8_000_000_000, 8_000_000))  # only their gradients need a bucket
    assert adapters["reduce_bucket_size"] < adapters["stage3_max_live_parameters"] / 100


def test_the_size_of_a_model_counts_what_is_trained() -> None:
    config = transformers.LlamaConfig(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                      num_attention_heads=4, tie_word_embeddings=True)  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    total = sum(tensor.numel() for name, tensor in model.state_dict().items() if name != "lm_head.weight")
    assert size_of(model) == (total, total)
    model.model.norm.weight.requires_grad = False
    assert size_of(model) == (total, total - 32)
    model.model.norm.weight.ds_numel = 64  # as of a parameter that ZeRO-3 has split
    model.model.norm.weight.data = torch.empty(0)
    assert size_of(model).num_parameters == total + 32


def test_further_keys_are_merged_deeply() -> None:
    given = settings(
        zero_optimization={"prefetch_bucket_size": 7, "overlap_comm": False}, communication_data_type="fp32"
    )
    config = deepspeed_config(given, 2, on_gpu=False, size=ModelSize(10**9, 10**9))
    zero = config["zero_optimization"]
    assert zero["prefetch_bucket_size"] == 7 and "stage3_prefetch_bucket_size" not in zero
    assert (zero["stage"], zero["overlap_comm"], zero["sub_group_size"]) == (3, False, 62_500_000)
    assert config["communication_data_type"] == "fp32" and config["gradient_clipping"] == 1.0
    check_extra(given)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            {"zero_optimization": {"reduce_bucket_sice": 1}},
            r"training.deepspeed.extra.zero_optimization.reduce_bucket_sice: unknown key; did you mean reduce_bucket",
        ),
        (
            {"zero_optimization": {"reduce_bucket_size": -1}},
            r"extra.zero_optimization.reduce_bucket_size: -1 given, expected greater than 0",
        ),
        (
            {"zero_optimization": {"offload_optimizer": {"pin_memmory": False}}},
            r"extra.zero_optimization.offload_optimizer.pin_memmory: unknown key; did you mean pin_memory",
        ),
        ({"comms_logger": {"enable": True}}, r"extra.comms_logger.enable: unknown key; did you mean enabled"),
    ],
)
def test_what_deepspeed_refuses_is_one_sentence(extra: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        check_extra(settings(**extra))
    assert "\n" not in str(error.value)

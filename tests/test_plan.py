"""`east-ray plan`: sizes, memory, hours and price against arithmetic by hand; suggestions that fit; plain messages."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from east_ray.config import InputError, TrainingConfig
from east_ray.config.files import load, resolve
from east_ray.plan import duration, terminal
from east_ray.plan.cards import CARDS
from east_ray.plan.estimate import estimate
from east_ray.plan.memory import (
    GPU_BASE,
    Buckets,
    WorkerMemory,
    activations,
    engine_memory,
    head_logits,
    trained_parameters,
    worker_memory,
)
from east_ray.plan.model_size import ModelSize, model_size, size_of
from east_ray.plan.remedies import remedies
from east_ray.records import SAMPLES
from east_ray.storage import RunDirectory

ROOT = Path(__file__).parent.parent
ONE_BILLION, EIGHT_BILLION = (str(ROOT / "jobs" / "sizes" / name) for name in ("llama_3.2_1b", "llama_3.1_8b"))
GIB = 2**30
#: The paper's run on GSM8K, whose questions are on a hub.
PAPER = ["plan.num_questions=7473", "plan.num_held_out=1319", "plan.prompt_tokens=150", "plan.response_tokens=250"]


def paper(*overrides: str, model: str = ONE_BILLION, gpu: str = "H100-80GB") -> Any:
    named = [f"model={model}", "run_dir=/nowhere/run", f"plan.gpu={gpu}"]
    return load(ROOT / "jobs" / "paper_gsm8k.yaml", [*named, *PAPER, *overrides])


def settings(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({"num_workers": 8, "num_gpus_per_worker": 1, **changes})


# ---------------------------------------------------------------------------------------------------------------- sizes


def test_the_sizes_of_llama() -> None:
    one, eight = (model_size(model, may_download=False) for model in (ONE_BILLION, EIGHT_BILLION))
    # As their model cards have it. 8B multiplies with its head and only looks its embedding up: 128256 * 4096 less.
    assert (one.num_parameters, one.num_active) == (1_235_814_400, 1_235_814_400)
    assert (eight.num_parameters, eight.num_active) == (8_030_261_248, 8_030_261_248 - 128_256 * 4096)
    # A token's keys and values in bf16: 2 * 16 layers * 8 heads * 64 * 2 bytes, and 2 * 32 * 8 * 128 * 2.
    assert 2 * one.num_layers * one.cache_per_token_layer == 32 * 2**10
    assert 2 * eight.num_layers * eight.cache_per_token_layer == 128 * 2**10


def test_sizes_are_those_of_the_files_where_there_are_any(quickstart: Path) -> None:
    folder = quickstart / "model"
    found = model_size(str(folder), may_download=False)
    config = json.loads((folder / "config.json").read_text())
    assert found == size_of(config, {}, "the same without files")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    assert found.num_parameters == sum(one.numel() for one in model.parameters())
    assert found.largest_parameter == max(one.numel() for one in model.parameters())


def test_of_experts_only_the_chosen_count_as_active() -> None:
    config = {"num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2, "vocab_size": 16,
              "intermediate_size": 32, "num_local_experts": 4, "num_experts_per_tok": 1}  # fmt: skip
    tensors = {"embed_tokens": 128, "lm_head": 128, "layers.0.q": 64, "layers.0.experts.0.up": 400}
    found = size_of(config, tensors, "m")
    # The embedding is looked up; of 400 parameters of experts a quarter is multiplied with.
    assert (found.num_parameters, found.num_active) == (720, 128 + 64 + 100)


def test_adapters_are_the_size_that_peft_makes_them(quickstart: Path) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    folder = str(quickstart / "model")
    config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    lora = settings(lora={"rank": 4}).lora
    found = trained_parameters(model_size(folder, may_download=False), lora)
    assert found == sum(one.numel() for one in model.parameters() if one.requires_grad)


# --------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("changes", "parameters", "gradients", "optimizer"),
    [
        # Bytes a parameter N: all on each worker; bf16 gradients beside float32 sums; Adam's 12 shared by 8 workers.
        ({"deepspeed": {"zero_stage": 0}}, 2, 6, 12 / 8),
        ({"deepspeed": {"zero_stage": 1}}, 2, 6, 12 / 8),
        ({"deepspeed": {"zero_stage": 2}}, 2, 8 / 8, 12 / 8),
        # 2 / 8 of its own, and the whole model is gathered: it is smaller than what ZeRO-3 keeps.
        ({"deepspeed": {"zero_stage": 3}}, 2 / 8 + 1.05e9 * 2 / 1_235_814_400, 4 / 8, 12 / 8),
        ({"precision": "float32", "deepspeed": {"zero_stage": 0}}, 4, 4, 8),
        ({"deepspeed": {"zero_stage": 2, "offload_optimizer": True}}, 2, 0, 0),
    ],
)
def test_memory_of_llama_1b_by_hand(
    changes: dict[str, Any], parameters: float, gradients: float, optimizer: float
) -> None:
    size = model_size(ONE_BILLION, may_download=False)
    found = worker_memory(size, settings(**changes), 1024, 512, gpu_memory=80 * GIB).backward
    assert found.parameters == pytest.approx(parameters * size.num_parameters, rel=1e-6)
    assert found.gradients == pytest.approx(gradients * size.num_parameters)
    assert found.optimizer == pytest.approx(optimizer * size.num_parameters)
    assert found.base == GPU_BASE
    assert found.total == pytest.approx(sum(value for name, value in vars(found).items() if name != "on_host"))


def test_activations_of_llama_1b_by_hand() -> None:
    size = model_size(ONE_BILLION, may_download=False)
    # h = a = 2048, k = 512, f = 8192. A layer and token in bf16: norms 16 h = 32768 bytes; attention 2 (3 a + 2 k) =
    # 14336; feed-forward 2 * 4 f = 65536. Widest: 2 (2 f + 2 h) = 40960. Ends: h (2 + 8) = 20480.
    layer, widest, ends = 32768 + 14336 + 65536, 40960, 20480
    assert activations(size, settings(compile=False), 1000, on_gpu=True) == 1000 * (16 * layer + widest + ends)
    # Compiled: norms 2 * 4 h = 16384; attention 2 (2 a + 2 k) = 10240; feed-forward 2 * 3 f = 49152.
    compiled = 16384 + 10240 + 49152
    assert activations(size, settings(), 1000, on_gpu=True) == 1000 * (16 * compiled + widest + ends)
    checkpoints = settings(gradient_checkpointing=True, compile=False)
    assert activations(size, checkpoints, 1000, on_gpu=True) == 1000 * (16 * 2048 * 2 + layer + widest + ends)
    offload = settings(gradient_checkpointing="offload", compile=False)
    assert activations(size, offload, 1000, on_gpu=False) == activations(size, checkpoints, 1000, on_gpu=False)
    assert activations(size, offload, 1000, on_gpu=True) == 1000 * (2 * 2048 * 2 + layer + widest + ends)
    # 523 positions of 128256 logits in a chunk of 2^26; 14 bytes each.
    assert head_logits(size, settings(), 4096, 2048, gpu_memory=None) == 523 * 128_256 * 14
    assert head_logits(size, settings(), 4096, 100, gpu_memory=None) == 100 * 128_256 * 14
    # A sixty-fourth of the GPU's memory in float32.
    assert head_logits(size, settings(compile=False), 8192, 4096, gpu_memory=80 * GIB) == 2616 * 128_256 * 14
    assert head_logits(size, settings(), 8192, 4096, gpu_memory=80 * GIB) == 2616 * 128_256 * 4
    assert head_logits(size, settings(packing=False), 4096, 100, gpu_memory=None) == 128_256 * (4 * 4096 + 14 * 100)


DEFAULTS = Buckets()
SHAPES = st.builds(
    ModelSize, num_parameters=st.integers(10**6, 10**11), num_active=st.integers(10**6, 10**11),
    largest_parameter=st.integers(1000, 10**6), num_layers=st.integers(1, 100), hidden=st.integers(64, 8192),
    intermediate=st.integers(64, 30000), attention=st.integers(64, 8192), key_values=st.integers(64, 8192),
    vocabulary=st.integers(100, 300_000), context=st.integers(128, 10**6),
    cache_per_token_layer=st.integers(64, 8192), linear_sizes=st.integers(1000, 10**7),
)  # fmt: skip
TRAININGS = st.builds(
    settings, precision=st.sampled_from(["bf16", "float32"]),
    packing=st.booleans(), gradient_checkpointing=st.booleans(), lora=st.sampled_from([None, {"rank": 8}]),
    deepspeed=st.sampled_from([{"zero_stage": stage} for stage in range(4)]),
)  # fmt: skip


@given(size=SHAPES, training=TRAININGS, on_gpu=st.booleans(), tokens=st.integers(2, 10**5), more=st.integers(1, 10**5))
def test_memory_grows_with_tokens_and_not_with_workers_checkpoints_or_smaller_buckets(
    size: ModelSize, training: TrainingConfig, on_gpu: bool, tokens: int, more: int
) -> None:
    def memory(changes: dict[str, Any], tokens: int = tokens, buckets: Buckets = DEFAULTS) -> WorkerMemory:
        changed = training.model_copy(update=changes)
        return worker_memory(
            size, changed, tokens, tokens // 2, gpu_memory=8 * GIB if on_gpu else None, buckets=buckets
        )

    def peak(changes: dict[str, Any]) -> float:
        return memory(changes).peak

    longer = memory({}, tokens + 2 * more)
    assert memory({}).backward.total < longer.backward.total and peak({}) <= longer.peak
    assert peak({"num_workers": 8 + more}) <= peak({}) * (1 + 1e-12)
    if size.num_layers > 1:
        assert peak({"gradient_checkpointing": True}) <= peak({"gradient_checkpointing": False})
    assert memory({}, buckets=Buckets(reduce=10**6, prefetch=10**6, live=10**6)).peak <= peak({})


@given(size=SHAPES, memory=st.floats(GIB, 200 * GIB), length=st.integers(1, 10**5), more=st.integers(1, 10**5))
def test_an_engine_holds_fewer_longer_responses(size: ModelSize, memory: float, length: int, more: int) -> None:
    def engine(of: float, shards: int = 1) -> Any:
        return engine_memory(
            size, memory=of, cache=None, shards=shards, bytes_per_element=2, max_responses=1024, on_gpu=True
        )

    found = engine(memory)
    at_once = found.responses_at_once(200, length, 128)
    assert 0 <= found.responses_at_once(200, length + more, 128) <= at_once <= 1024
    assert found.responses_at_once(200, length, 1) <= at_once  # a prompt that is not shared
    assert engine(memory + GIB).max_tokens >= found.max_tokens
    assert engine(memory, shards=2).max_tokens >= found.max_tokens


def test_the_cache_of_an_engine_by_hand() -> None:
    size = model_size(EIGHT_BILLION, may_download=False)
    found = engine_memory(
        size, memory=70 * GIB, cache=None, shards=1, bytes_per_element=2, max_responses=1024, on_gpu=True
    )
    assert found.cache == pytest.approx(70 * GIB - 2 * 8_030_261_248 - 2.5 * GIB)
    assert found.bytes_per_token == 128 * 2**10
    # 75161927680 - 16060522496 - 2684354560 bytes in pieces of 131072; a response of 1000 tokens and a 128th of 256.
    assert found.max_tokens == int(found.cache / 2**17) == 430_427
    assert found.responses_at_once(256, 1000, 128) == 430_427 // 1002


# ---------------------------------------------------------------------------------------------------------------- hours


def test_rates_by_hand() -> None:
    size = model_size(ONE_BILLION, may_download=False)
    attention = 2 * 16 * 2048 * 1000  # of a token in sequences of 1000
    six = 6 * 1_235_814_400 + 3 * attention
    eight = 8 * 1_235_814_400 + 4 * attention
    assert duration.training_flops(size, settings(), 1000) == six
    assert duration.training_flops(size, settings(gradient_checkpointing=True), 1000) == eight
    assert duration.training_flops(size, settings(lora={"rank": 8}), 1000) == 4 * 1_235_814_400 + 3 * attention
    rate = duration.training_tokens_per_s(size, settings(), 1000, 4000, peak_flops=1e15, mfu=0.5, pass_s=0.01)
    assert rate == pytest.approx(4000 / (4000 * six / 5e14 + 0.01))
    assert duration.mfu(size, 1000, tokens_per_s=50_000, peak_flops=1e15) == pytest.approx(six * 5e4 / 1e15)
    engine = engine_memory(
        size, memory=70 * GIB, cache=None, shards=1, bytes_per_element=2, max_responses=1024, on_gpu=True
    )
    rate = duration.decoding_tokens_per_s(
        size, engine, 100, 500, peak_flops=1e15, bandwidth=3e12, efficiency=0.5, token_s=1e-5
    )
    # 100 responses read 2.47 GB of parameters and 100 * 500 * 32 KiB: 4.1 GB in 1.37 ms; 0.27 TFLOP take 0.28 ms.
    assert rate == pytest.approx(100 / ((2 * 1_235_814_400 + 100 * 500 * 32768) / 3e12 / 0.5 + 1e-3))


def test_tokens_hours_and_price_of_the_papers_run() -> None:
    config = paper("plan.price_per_gpu_hour=2.5", "plan.gpus=8", "plan.kept_share=0.5")
    plan = estimate(config)
    sampling, training, evaluation = plan.stages
    assert sampling.tokens == 7473 * 128 * 250
    # Two trainings (the variant `uniform`), three epochs, half of the questions, prompt and response.
    assert training.tokens == 2 * 3 * 7473 * 0.5 * 400
    assert evaluation.tokens == 3 * 1319 * 250  # base and both trained models, greedy
    assert plan.seconds == pytest.approx(sum(stage.seconds or 0 for stage in plan.stages))
    assert plan.price == pytest.approx((plan.seconds or 0) / 3600 * 8 * 2.5)
    assert plan.worker is not None and plan.worker.fits and plan.engine is not None and plan.engine.fits
    assert (plan.worker.count, plan.engine.count, plan.gpus) == (8, 8, 8)
    twice = estimate(paper("rounds=2", "plan.kept_share=0.5"))
    assert [stage.tokens for stage in twice.stages] == [
        2 * 7473 * 128 * 250,
        2 * (training.tokens or 0),
        5 * 1319 * 250,
    ]
    assert twice.price is None


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.sampled_from(sorted(CARDS)))
def test_more_questions_and_smaller_cards_never_take_less_time(questions: int, more: int, card: str) -> None:
    def seconds(count: int, *overrides: str) -> float:
        found = estimate(paper(f"plan.num_questions={count}", *overrides, gpu=card)).seconds
        assert found is not None
        return found

    assert seconds(questions) <= seconds(questions + more)
    assert seconds(questions, "plan.mfu=0.2", "plan.engine_efficiency=0.3") >= seconds(questions)


def test_dpo_computes_two_responses_and_a_pass_for_the_reference() -> None:
    alone = ["plan.micro_batch_s=0", "plan.stage_start_s=0"]
    sft, dpo, kto = (estimate(paper(f"training.objective={one}", *alone)) for one in ("sft", "dpo", "kto"))
    assert dpo.stages[1].tokens == 2 * (sft.stages[1].tokens or 0) == kto.stages[1].tokens
    assert sft.worker is not None and dpo.worker is not None
    assert dpo.worker.tokens == 2 * sft.worker.tokens
    # Forward, backward and again forward of checkpoints are 4 passes of 3 epochs; a pass more for each response, once,
    # and for KTO the mismatched one once and in every epoch.
    times = [one.stages[1].seconds or 0 for one in (sft, dpo, kto)]
    assert [times[1] / times[0], times[2] / times[0]] == pytest.approx([(24 + 2) / 12, (24 + 3 + 3) / 12], rel=1e-6)


# ---------------------------------------------------------------------------------------------------------- suggestions


@pytest.mark.parametrize(
    "overrides",
    [
        ["training.micro_batch_size=64", "training.examples_per_step=512", "training.gradient_checkpointing=false"],
        ["training.deepspeed.zero_stage=0", "training.objective=dpo"],
        ["training.deepspeed.zero_stage=1", "plan.gpu=L4-24GB"],
        ["training.max_length=65536", "training.gradient_checkpointing=false", "training.micro_batch_size=1"],
        ["engines.engine_args={max_model_len: 131072}", "plan.gpu=A10G-24GB"],
    ],
)
def test_every_suggestion_fits(overrides: list[str]) -> None:
    config = paper(*overrides, model=EIGHT_BILLION)
    plan = estimate(config)
    suggested = remedies(config, plan)
    assert suggested
    assert (plan.worker is not None and plan.worker.fits is False) or (plan.engine is not None and not plan.engine.fits)
    for remedy in suggested:
        changed = estimate(paper(*overrides, *shlex.split(str(remedy)), model=EIGHT_BILLION))
        assert changed.worker is not None and changed.engine is not None
        assert changed.engine.fits if "engines." in str(remedy) else changed.worker.fits, str(remedy)


def test_suggestions_are_for_the_training_that_needs_most() -> None:
    overrides = ["plan.gpu=L40S-48GB", "training.max_length=40960"]
    config = load(ROOT / "jobs" / "compare_paper.yaml", ["run_dir=/nowhere/run", f"model={EIGHT_BILLION}", *overrides])
    plan = estimate(config)
    assert plan.worker is not None and plan.worker.fits is False
    suggested = remedies(config, plan)
    assert suggested and len(set(map(str, suggested))) == len(suggested)
    for remedy in suggested:
        changed = estimate(
            load(
                ROOT / "jobs" / "compare_paper.yaml",
                ["run_dir=/nowhere/run", f"model={EIGHT_BILLION}", *overrides, *shlex.split(str(remedy))],
            )
        )
        assert changed.worker is not None and changed.worker.fits
        assert changed.worker.at_most.peak == remedy.needed


def test_suggestions_for_a_cpu_fit() -> None:
    overrides = ["run_dir=/nowhere/run", "training.micro_batch_size=1048576", "training.examples_per_step=1048576"]
    config = load(ROOT / "jobs" / "quickstart.yaml", overrides)
    first, *_ = remedies(config, estimate(config))
    assert list(first.changes) == ["training.micro_batch_size"]
    changed = estimate(load(ROOT / "jobs" / "quickstart.yaml", [*overrides, *shlex.split(str(first))]))
    assert changed.worker is not None and changed.worker.fits


def test_an_engine_on_a_cpu_needs_room_for_the_cache_it_asks_for() -> None:
    overrides = ["run_dir=/nowhere/run", 'engines.env={VLLM_CPU_KVCACHE_SPACE: "90000"}']
    config = load(ROOT / "jobs" / "quickstart.yaml", overrides)
    plan = estimate(config)
    assert plan.engine is not None and not plan.engine.fits
    (remedy,) = remedies(config, plan)
    # A sequence of 256 tokens takes 256 KiB.
    assert str(remedy) == """'engines.env.VLLM_CPU_KVCACHE_SPACE="1"'"""
    changed = estimate(load(ROOT / "jobs" / "quickstart.yaml", [*overrides, *shlex.split(str(remedy))]))
    assert changed.engine is not None and changed.engine.fits


def test_nothing_is_suggested_for_what_fits() -> None:
    assert remedies(paper(), estimate(paper())) == []


# ------------------------------------------------------------------------------------------ what is known, and messages


def write_run(folder: Path) -> None:
    """Round 0 of a run: 4 questions with 2 responses of 10 and 30 tokens; 3 were kept; training at 700 tokens/s."""
    config = resolve({"run_dir": str(folder), "model": "m", "questions": {"path": "q.jsonl"}})
    stages = RunDirectory(config).round(0)
    rows = [
        {
            "question_id": str(i), "question": "?", "model": "m", "num_prompt_tokens": 20 + i, "key": str(i),
            "responses": [{"text": "", "num_tokens": n, "finish_reason": "stop", "logprob": 0.0} for n in (10, 30)],
        }
        for i in range(4)
    ]  # fmt: skip
    complete = [{name: row.get(name) for name in SAMPLES.names} for row in rows]
    (stages / "samples").write_part(pa.Table.from_pylist(complete, SAMPLES))
    for stage, counts in (("sampling", {"num_questions": 4, "num_tokens": 160}),
                          ("examples", {"kept": 3, "discarded": {"all_wrong": 1}})):  # fmt: skip
        with stages.recording(stage) as record:
            record.counts = counts
    path = folder / "round_0" / "stages" / "sampling.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": 2.0}))
    rates = (1.0, 600.0, 700.0, 900.0)  # the first step is a slow one
    lines = [json.dumps({"step": n, "tokens_per_s": rate}) for n, rate in enumerate(rates)]
    stages.folder.write_text("training.jsonl", "\n".join(lines))


def test_lengths_and_speeds_are_measured_where_a_run_has_them(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    named = ["plan.gpu=null", "plan.prompt_tokens=null", "plan.response_tokens=null", "plan.num_questions=null"]
    ours = ["training.num_gpus_per_worker=0", "engines.num_gpus_per_engine=0", f"run_dir={tmp_path / 'run'}", *named]
    plan = estimate(paper(*ours, "variants={}"))
    facts = plan.facts
    found = [facts.num_questions, facts.prompt_tokens, facts.response_tokens, facts.kept_share]
    assert [one.value for one in found] == [4, 21.5, 20, 0.75]
    assert all(one.source == f"measured in {tmp_path / 'run'}" for one in found)
    sampling, training, _ = plan.stages
    assert (sampling.tokens_per_s, sampling.source) == (80, "measured")
    assert (training.tokens_per_s, training.source) == (pytest.approx(700), "measured")
    # A card that is named is another machine: its speeds are assumed, and the lengths stay measured.
    elsewhere = estimate(paper(f"run_dir={tmp_path / 'run'}", *named[1:]))
    assert [stage.source for stage in elsewhere.stages] == ["assumed"] * 3
    assert elsewhere.facts.response_tokens.value == 20


def test_questions_are_counted_where_they_are_local(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "' + 10 * "word" + '", "reference_answer": "1"}\n')
    plan = estimate(paper("questions={path: " + str(tmp_path / "q.jsonl") + "}", *(f"plan.{n}=null" for n in
                          ("num_questions", "prompt_tokens"))))  # fmt: skip
    system = len("Please reason step by step, and put your final answer within \\boxed{}.")
    assert plan.facts.num_questions.value == 1
    assert plan.facts.prompt_tokens.value == pytest.approx((40 + system) / 4 + 40)


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    config = paper("plan.num_questions=null")
    plan = estimate(config)
    assert plan.seconds is None and plan.stages[0].seconds is None
    said = [part for part in terminal.described(config, plan) if isinstance(part, str)]
    assert any("time in all: not known, because of sampling" in line for line in said)
    assert "plan.num_questions       not known  questions of a round" in "\n".join(said)
    (line,) = terminal.in_short(config)
    assert "time not known (sampling, training)" in line


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["plan.gpu=H100-80"], "no card 'H100-80' is known; plan.cards takes one in full; did you mean H100-80GB?"),
        (["plan.gpu=quantum"], "no card 'quantum' is known; plan.cards takes one in full; known: A10G-24GB, L4-24GB"),
        (["model=jobs/none"], "model: 'jobs/none' is neither a folder nor a hub model that can be reached"),
        (["model=jobs/sizes"], "model: jobs/sizes has no config.json; expected a model in Hugging Face format"),
        (["plan={price_per_gpu_hour: 2}"], "plan: price_per_gpu_hour needs gpu or gpus"),
        (["plan.price_per_gpu_hour=2", "training.num_gpus_per_worker=0", "engines.num_gpus_per_engine=0"],
         "plan.price_per_gpu_hour: these settings use no GPU, so there is nothing to pay for"),
        (["plan.gpus=0"], "plan.gpus: 0 given, expected greater than or equal to 1"),
        (["plan.mfu=40"], "plan.mfu: 40 given, expected less than or equal to 1"),
        (["plan.cards={X: {memory_gib: 80}}"], "plan.cards.X.bf16_tflops: missing"),
    ],
)  # fmt: skip
def test_messages(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError) as error:
        estimate(paper(*overrides), may_download=False)
    assert message in str(error.value)


def test_a_damaged_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((Path(ONE_BILLION) / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0no JSON!")
    with pytest.raises(InputError, match=r"model\.safetensors is no safetensors file"):
        model_size(str(tmp_path), may_download=False)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    with pytest.raises(InputError, match="has no num_hidden_layers, so its size is not known"):
        model_size(str(tmp_path), may_download=False)


def test_a_card_may_be_given_in_full() -> None:
    card = "{MINE: {memory_gib: 10, bf16_tflops: 100, bandwidth_gb_s: 500}}"
    plan = estimate(paper(f"plan.cards={card}", gpu="MINE"))
    assert plan.worker is not None and plan.worker.available == pytest.approx(9.5 * GIB)


def test_this_machines_card_is_the_one_that_nvidia_smi_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    none = estimate(paper("plan.gpu=null"))
    assert none.worker is not None and none.worker.fits is None and none.engine is None and none.seconds is None
    assert none.stages[0].source == none.stages[1].source == "the GPU is not known; --gpu or plan.gpu names it"
    command = tmp_path / "nvidia-smi"
    names = {
        "NVIDIA H100 80GB HBM3, 81559": "H100-80GB", "NVIDIA H100 PCIe, 81559": "H100-PCIE-80GB",
        "NVIDIA L4, 23034": "L4-24GB", "NVIDIA L40S, 46068": "L40S-48GB", "NVIDIA A100-SXM4-40GB, 40960": "A100-40GB",
        "NVIDIA A100-SXM4-80GB, 81920": "A100-80GB", "NVIDIA H200, 143771": "H200-141GB",
        # Others whose names are alike, or of the same name with another memory.
        "NVIDIA L40, 46068": "a GPU", "NVIDIA GH200 480GB, 97871": "a GPU",
        "NVIDIA GeForce RTX 4090 Laptop GPU, 16376": "a GPU", "A card of the future, 999999": "a GPU",
    }  # fmt: skip
    for said, card in names.items():
        command.write_text(f"#!/bin/sh\necho '{said}'\n")
        command.chmod(0o755)
        found = estimate(paper("plan.gpu=null"))
        assert found.worker is not None and found.worker.device == card
    command.write_text("#!/bin/sh\necho no driver; exit 9\n")
    assert estimate(paper("plan.gpu=null")).engine is None


def test_gpus_that_do_not_suffice_and_cards_without_use_are_said() -> None:
    plan = estimate(paper("plan.gpus=4"))
    assert plan.problems == (
        "training.num_workers: trained needs 8 GPUs, and there are 4",
        "training.num_workers: uniform needs 8 GPUs, and there are 4",
    )
    assert plan.engine is not None and plan.engine.count == 4
    unused = estimate(paper("training.num_gpus_per_worker=0", "engines.num_gpus_per_engine=0"))
    assert unused.problems[0].startswith("plan.gpu: these settings use no GPU, so H100-80GB is left out")


# ---------------------------------------------------------------------------------------------- the verb, and the run


def east_ray(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The verb in a process where no heavy library can be imported."""
    heavy = ("ray", "torch", "vllm", "transformers", "deepspeed", "datasets")
    command = f"import sys; sys.modules.update(dict.fromkeys({heavy!r})); from east_ray.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", command, "plan", *arguments],
        capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | environment,
    )  # fmt: skip


COMMAND = ["jobs/paper_gsm8k.yaml", f"model={ONE_BILLION}", *PAPER, "run_dir=/nowhere/run"]
OPTIONS = ["--gpu", "H100-80GB", "--gpus", "8", "--price-per-gpu-hour", "2.5"]


def test_the_verb_needs_no_heavy_library_and_prints_json() -> None:
    result = east_ray(*COMMAND, *OPTIONS, "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["size"]["num_parameters"] == 1_235_814_400
    assert found["worker"]["fits"] is True and found["engine"]["fits"] is True and found["suggestions"] == []
    assert found["price"] == pytest.approx(found["seconds"] / 3600 * 8 * 2.5)
    assert found["facts"]["response_tokens"] == {"value": 250, "source": "given", "setting": "plan.response_tokens"}


def test_the_verb_ends_in_one_sentence_for_bad_input() -> None:
    result = east_ray(*COMMAND, "--gpu", "H1000")
    assert result.returncode == 1 and result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("error: plan.gpu: no card 'H1000' is known; ")


def test_a_model_of_the_hub_is_read_from_the_local_cache(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--us--tiny"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc" / "config.json").write_text((Path(ONE_BILLION) / "config.json").read_text())
    header = json.dumps({"lm_head.weight": {"dtype": "BF16", "shape": [3, 5], "data_offsets": [0, 30]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(30)
    (repository / "snapshots" / "abc" / "model.safetensors").write_bytes(content)
    offline = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    result = east_ray(*COMMAND, "model=us/tiny", "--gpu", "L4-24GB", "--json", **offline)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["size"]["num_parameters"] == 15
    missing = east_ray(*COMMAND, "model=us/none", "--gpu", "L4-24GB", **offline)
    assert missing.stderr.startswith("error: model: 'us/none' is neither a folder nor a hub model that can be reached;")


def test_a_run_says_the_short_form(quickstart: Path) -> None:
    (line,) = short(paper())
    assert line.startswith(
        "plan: a training worker needs up to 9.8 of 75.1 GiB; an engine has 1,024 responses in flight;"
    )
    assert line.endswith(" min in all")
    long = ["training.max_length=65536", "training.gradient_checkpointing=false"]
    large = short(paper(*long, model=EIGHT_BILLION))
    assert large[0].startswith("plan: a training worker needs up to ")
    assert large[1].startswith(
        "warning: a training worker will probably not fit; it fits with training.gradient_checkpointing="
    )
    (line,) = short(paper(model="jobs/none"))
    assert line.startswith(
        "plan: no estimate (model: 'jobs/none' is neither a folder nor a hub model that can be reached;"
    )


def test_a_run_never_waits_for_its_estimate_and_never_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    monkeypatch.setattr(terminal, "MAX_WAIT_S", 0.05)
    monkeypatch.setattr(terminal, "estimate", lambda *arguments, **keywords: never.wait(60))
    assert short(paper()) == ["plan: no estimate, it took too long; see `east-ray plan`"]
    never.set()
    monkeypatch.undo()

    def broken(*arguments: Any, **keywords: Any) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(terminal, "estimate", broken)
    assert short(paper()) == ["plan: no estimate, `east-ray plan` would fail (ZeroDivisionError: division by zero)"]


def short(config: Any) -> Sequence[str]:
    said: list[str] = []
    terminal.say_in_short(config, said.append)
    return said


@pytest.mark.drill
def test_estimates_are_near_what_training_takes() -> None:
    command = [sys.executable, "tests/benchmarks/plan.py", "30M-zero1-bf16", "30M-zero2", "30M-zero3"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=1800)
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert len(found["estimate_over_measured"]) == 3 and found["largest_deviation"] <= 0.2, found


def test_only_files_that_transformers_loads_are_counted(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    shutil.copy(Path(ONE_BILLION) / "config.json", tmp_path)
    for name in ("model-00001-of-00001", "consolidated", "adapter_model"):
        save_file({f"{name}.weight": np.zeros((3, 5), np.float32)}, tmp_path / f"{name}.safetensors")
    index = {"weight_map": {"model-00001-of-00001.weight": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert model_size(str(tmp_path), may_download=False).num_parameters == 15

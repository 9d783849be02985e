"""Training on the real Ray Train and DeepSpeed against a plain reference: one process, one example at a time."""

import functools
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from east_ray.config import InputError, PromptConfig, TrainingConfig
from east_ray.questions.prompts import load_tokenizer
from east_ray.records import EXAMPLES
from east_ray.storage import Folder, locate
from east_ray.training import dataset as training_dataset
from east_ray.training import group, objectives
from east_ray.training.checkpoints import (
    GROUP,
    change_of_shape,
    checkpoint_metadata,
    complete_checkpoints,
    interrupted,
    prepare_checkpoints,
)
from east_ray.training.compute import Compute
from east_ray.training.dataset import Training, TrainingPhase, TrainingSummary, tokenize_example, tokenized_examples
from east_ray.training.group import out_of_memory_as_input_error, raise_if_out_of_memory, train_models
from east_ray.training.sharding import deepspeed_config


def test_only_a_response_that_ended_by_itself_gets_the_end_of_turn_token(quickstart: Path) -> None:
    tokenizer = load_tokenizer(str(quickstart / "model"))
    row = {"question": "How many?", "chosen": "It is 12.", "chosen_finish_reason": "stop",
           "rejected": "It is 1", "rejected_finish_reason": "length"}  # fmt: skip
    tokenized = tokenize_example(row, tokenizer, PromptConfig())
    assert tokenized["prompt"] is not None and tokenized["chosen"] is not None and tokenized["rejected"] is not None
    assert tokenized["prompt"].count(tokenizer.bos_token_id) == 1
    assert tokenized["chosen"][-1] == tokenizer.eos_token_id and tokenizer.bos_token_id not in tokenized["chosen"]
    assert tokenizer.decode(tokenized["chosen"][:-1]) == "It is 12."
    assert tokenizer.decode(tokenized["rejected"]) == "It is 1"


def write_examples(folder: Path, count: int) -> Folder:
    texts = [f"{i}+{i}={2 * i}.\nThe answer is \\boxed{{{2 * i}}}." + " So it is." * (i % 3) for i in range(count)]
    table = pa.Table.from_pylist(
        [
            {
                "question_id": f"q{i}", "question": f"Tom has {i} apples and gets {i} more. How many apples has he?",
                "reference_answer": str(2 * i), "signal": 0.25 * (i % 5), "weight": 0.5 * (i % 5),
                "chosen": texts[i], "chosen_finish_reason": "stop",
                "rejected": f"{i}+{i}={i}.\nThe answer is \\boxed{{{i}}}.", "rejected_finish_reason": "stop",
            }
            for i in range(count)
        ],
        EXAMPLES.empty_table().schema,
    )  # fmt: skip
    examples = Folder(*locate(str(folder)))
    examples.replace(table)
    return examples


#: 21 examples in steps of 8: the last step has 5, so two workers have unequal shares and one micro-batch may be empty.
NUM_EXAMPLES, PER_STEP, LEARNING_RATE, BETA = 21, 8, 1e-3, 0.5


def settings(**changes: Any) -> TrainingConfig:
    values = {
        "examples_per_step": PER_STEP, "epochs": 2, "learning_rate": LEARNING_RATE, "precision": "float32",
        "num_cpus_per_worker": 0.5, "beta": BETA, "warmup_ratio": 0.2, "schedule": "cosine", "max_grad_norm": 0.5,
        "weight_decay": 0.1,
    }  # fmt: skip
    return TrainingConfig.model_validate(values | changes)


def reference_run(objective: str, examples: Folder, model_path: str) -> tuple[list[dict[str, float]], Any]:
    """The definition in DESIGN's words: float64, one process, one example at a time, no batching or padding at all."""
    import hashlib

    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float64)
    initial = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float64)
    tokenizer = load_tokenizer(model_path)
    table = examples.read(EXAMPLES).sort_by("question_id").to_pylist()
    for row, following in zip(table, table[1:] + table[:1], strict=True):
        row["mismatched"], row["mismatched_finish_reason"] = following["chosen"], following["chosen_finish_reason"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.1)
    # Six steps: two of warm-up, then a half cosine over the other four.
    rates = [LEARNING_RATE * factor for factor in (0.5, 1, 1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5)]

    def logprob(net: Any, prompt: list[int], response: list[int]) -> torch.Tensor:
        ids = torch.tensor([prompt + response])
        logits = net(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        return logits.gather(1, torch.tensor(response)[:, None]).sum()

    metrics = []
    for epoch in range(2):
        order = sorted(
            table,
            key=lambda row: hashlib.blake2b(f"3:{epoch}:{row['question_id']}".encode(), digest_size=12).hexdigest(),
        )
        for begin in range(0, len(order), PER_STEP):
            step = order[begin : begin + PER_STEP]
            tokens = [tokenize_example(row, tokenizer, PromptConfig()) for row in step]
            names = {"sft": ["chosen"], "kto": ["chosen", "rejected", "mismatched"]}.get(
                objective, ["chosen", "rejected"]
            )
            now = [[logprob(model, t["prompt"], t[name]) for name in names] for t in tokens]  # type: ignore[arg-type]
            with torch.no_grad():
                then = [[logprob(initial, t["prompt"], t[name]) for name in names] for t in tokens]  # type: ignore[arg-type]
            if objective == "sft":
                num_tokens = sum(len(t["chosen"] or []) for t in tokens)
                loss = sum(-row["weight"] * lp[0] for row, lp in zip(step, now, strict=True)) / num_tokens
            elif objective == "dpo-normalized":
                terms = [
                    -row["weight"] * torch.nn.functional.logsigmoid(
                        BETA * ((c - rc) / len(t["chosen"] or []) - (r - rr) / len(t["rejected"] or []))
                    )
                    for row, t, (c, r), (rc, rr) in zip(step, tokens, now, then, strict=True)
                ]  # fmt: skip
                loss = sum(terms) / len(step)
            elif objective == "dpo":
                terms = [
                    -row["weight"] * torch.nn.functional.logsigmoid(BETA * ((c - rc) - (r - rr)))
                    for row, (c, r), (rc, rr) in zip(step, now, then, strict=True)
                ]
                loss = sum(terms) / len(step)
            else:
                divergence = sum((m - rm).item() for (_, _, m), (_, _, rm) in zip(now, then, strict=True)) / len(step)
                point = max(0.0, divergence)
                terms = [
                    row["weight"] * (torch.sigmoid(-BETA * (c - rc - point)) + torch.sigmoid(BETA * (r - rr - point)))
                    for row, (c, r, _), (rc, rr, _) in zip(step, now, then, strict=True)
                ]
                loss = sum(terms) / (2 * len(step))
            optimizer.zero_grad()
            optimizer.param_groups[0]["lr"] = rates[len(metrics)]
            loss.backward()  # type: ignore[union-attr]
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            metrics.append({"loss": loss.item(), "gradient_norm": norm.item()})
    return metrics, model.state_dict()


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return write_examples(tmp_path_factory.mktemp("train") / "examples", NUM_EXAMPLES)


@dataclass
class Together:
    """Trainings of one group of workers, which takes longer to start than all of them to train."""

    folder: Path
    events: list[Any]
    summaries: dict[str, TrainingSummary]


def train_together(examples: Folder, model: str, folder: Path, **trainings: TrainingConfig) -> Together:
    every = [one_of(examples, model, folder / name, training, name) for name, training in trainings.items()]
    events = list(train_models(every, Folder(*locate(str(folder / "checkpoints")))))
    summaries = [event for event in events if isinstance(event, TrainingSummary)]
    return Together(folder, events, dict(zip(trainings, summaries, strict=True)))


NUM, TOKENS = "micro_batch_size", "tokens_per_micro_batch"
#: The trainings that must equal `reference_run`, by workers and ZeRO stage: objective, micro-batch, packing. Sequences
#: have 35 to 53 tokens, so a micro-batch of 50 holds one example or less.
EXACT: dict[tuple[int, int], dict[str, tuple[str, dict[str, int], bool]]] = {
    (1, 0): {"sft": ("sft", {NUM: 8}, True), "dpo-tokens": ("dpo", {TOKENS: 200}, True)},
    (2, 0): {"sft": ("sft", {NUM: 1}, False), "kto-tokens": ("kto", {TOKENS: 300}, False)},
    (2, 1): {
        "dpo-normalized": ("dpo-normalized", {NUM: 2}, True),
        "sft-tokens": ("sft", {TOKENS: 50}, True),
    },
    (2, 2): {
        "sft": ("sft", {NUM: 1}, False), "dpo": ("dpo", {NUM: 3}, True), "kto": ("kto", {NUM: 3}, True),
        "kto-tokens": ("kto", {TOKENS: 250}, True),
    },
    (2, 3): {"kto": ("kto", {TOKENS: 300}, True)},  # a group for itself, as all of ZeRO-3
}  # fmt: skip
#: The first training of a group, which must leave nothing behind in its workers.
BEFORE = {"epochs": 1, "learning_rate": 0.1}
LARGE_STEPS = {"schedule": "constant", "warmup_ratio": 0.0}


def exact_settings(num_workers: int, zero_stage: int) -> dict[str, TrainingConfig]:
    group = {"num_workers": num_workers, "deepspeed": {"zero_stage": zero_stage}}
    exact = {
        name: settings(
            **group, objective=objective.removesuffix("-normalized"), **micro_batch,
            length_normalized=objective.endswith("normalized"), packing=packing,
        )
        for name, (objective, micro_batch, packing) in EXACT[num_workers, zero_stage].items()
    }  # fmt: skip
    before = next(iter(exact.values())).model_copy(update=BEFORE)
    return exact if zero_stage == 3 else {"before": before} | exact


@pytest.fixture(scope="module")
def model(quickstart: Path) -> str:
    return str(quickstart / "model")


@pytest.fixture(scope="module")
def half_length(examples: Folder, model: str) -> int:
    """A limit that half of the examples of supervised fine-tuning keep; rejected responses do not count."""
    return sorted(lengths_of(examples, model))[NUM_EXAMPLES // 2]


def lengths_of(examples: Folder, model: str) -> list[int]:
    tokenizer, rows = load_tokenizer(model), examples.read(EXAMPLES).to_pylist()
    tokenized = [tokenize_example(row, tokenizer, PromptConfig()) for row in rows]
    return [len(one["prompt"] or []) + len(one["chosen"] or []) for one in tokenized]


@pytest.fixture(scope="module")
def one_worker(
    examples: Folder, model: str, half_length: int, tmp_path_factory: pytest.TempPathFactory, local_ray: None
) -> Together:
    plain = settings(deepspeed={"zero_stage": 0}, epochs=1)
    return train_together(
        examples, model, tmp_path_factory.mktemp("one"), **exact_settings(1, 0),
        limited=plain.model_copy(update={"max_length": half_length}),
        watched=plain.model_copy(update={"objective": "kto", "checkpoint_every_minutes": 1e-6}),
    )  # fmt: skip


@pytest.fixture(scope="module")
def two_workers(examples: Folder, model: str, tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Together:
    large = settings(**LARGE_STEPS, num_workers=2)
    return train_together(
        examples, model, tmp_path_factory.mktemp("two"), **exact_settings(2, 2),
        plain=settings(num_workers=2), large=large, half=large.model_copy(update={"precision": "bf16"}),
    )  # fmt: skip


@pytest.fixture(scope="module")
def references(examples: Folder, model: str) -> Callable[[str], tuple[list[dict[str, float]], Any]]:
    return functools.cache(functools.partial(reference_run, examples=examples, model_path=model))


@pytest.mark.parametrize(
    ("num_workers", "zero_stage"),
    [
        (1, 0),
        (2, 2),
        pytest.param(2, 0, marks=pytest.mark.drill),
        pytest.param(2, 1, marks=pytest.mark.drill),
        pytest.param(2, 3, marks=pytest.mark.drill),
    ],
)
def test_a_global_step_is_the_same_for_any_split(
    num_workers: int, zero_stage: int, examples: Folder, model: str, tmp_path: Path, request: pytest.FixtureRequest,
    references: Callable[[str], tuple[list[dict[str, float]], Any]], local_ray: None,
) -> None:  # fmt: skip
    import torch
    from transformers import AutoModelForCausalLM

    fixture = {(1, 0): "one_worker", (2, 2): "two_workers"}.get((num_workers, zero_stage))
    if fixture is None:
        found = train_together(examples, model, tmp_path, **exact_settings(num_workers, zero_stage))
    else:
        found = request.getfixturevalue(fixture)
    phases = [event.name for event in found.events if isinstance(event, TrainingPhase)]
    begun = [name for name in phases if name != "reference pass"]
    assert begun == len(found.summaries) * ["loading the model", "steps", "writing the model"]
    assert "reference pass" in phases
    told = [event for event in found.events if not isinstance(event, TrainingPhase)]
    assert told == [event for one in found.summaries.values() for event in (*one.steps, one)]
    if zero_stage != 3:
        assert len(found.summaries["before"].steps) == math.ceil(NUM_EXAMPLES / PER_STEP)
    for name, (objective, _, _) in EXACT[num_workers, zero_stage].items():
        (expected, parameters), summary = references(objective), found.summaries[name]
        assert len(summary.steps) == 2 * math.ceil(NUM_EXAMPLES / PER_STEP)
        for step, reference in zip(summary.steps, expected, strict=True):
            assert step["loss"] == pytest.approx(reference["loss"], rel=2e-4), name
            assert step["gradient_norm"] == pytest.approx(reference["gradient_norm"], rel=2e-3), name
        # The first step, before rounding has been fed back through the optimizer, agrees to float32.
        assert summary.steps[0]["loss"] == pytest.approx(expected[0]["loss"], rel=3e-6), name
        assert summary.steps[0]["gradient_norm"] == pytest.approx(expected[0]["gradient_norm"], rel=3e-5), name
        folder = str(found.folder / name / "model")
        trained = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).state_dict()
        assert trained.keys() == parameters.keys()
        for key, tensor in trained.items():
            # Adam divides by the gradient's size, so where that is all rounding a parameter may differ by a step.
            assert (tensor - parameters[key]).abs().mean() < 0.01 * LEARNING_RATE, (name, key)


def run_training(examples: Folder, model: str, target: Path, training: TrainingConfig) -> TrainingSummary:
    *_, summary = train_models(
        [one_of(examples, model, target, training)], Folder(*locate(str(target / "checkpoints")))
    )
    assert isinstance(summary, TrainingSummary)
    return summary


def one_of(examples: Folder, model: str, target: Path, training: TrainingConfig, name: str = "one") -> Training:
    root = Folder(*locate(str(target)))
    return Training(
        name=name,
        examples=examples,
        model=model,
        target=root / "model",
        references=root / "reference",
        settings=training,
        objective=objectives.load(training),
        prompt=PromptConfig(),
        seed=3,
    )


def test_examples_that_do_not_fit_are_left_out_and_counted(
    one_worker: Together, half_length: int, examples: Folder, model: str, tmp_path: Path
) -> None:
    lengths, summary = lengths_of(examples, model), one_worker.summaries["limited"]
    assert summary.num_examples == sum(length <= half_length for length in lengths)
    assert summary.num_too_long == sum(length > half_length for length in lengths) > 0
    with pytest.raises(InputError, match=r"none of the 21 examples fits in training.max_length 8 tokens"):
        run_training(examples, model, tmp_path / "none", settings(max_length=8))
    cut = one_of(examples, model, tmp_path, settings(epochs=1, max_length=half_length, too_long="truncate"))
    (dataset,), (counts,) = tokenized_examples([cut])
    assert (counts.num_examples, counts.num_too_long) == (NUM_EXAMPLES, summary.num_too_long)
    rows = dataset.take_all()
    assert max(len(row["prompt"]) + len(row["chosen"]) for row in rows) == half_length


def test_responses_of_one_question_share_its_weight(quickstart: Path, tmp_path: Path, local_ray: None) -> None:
    folder = write_examples(tmp_path / "examples", 5)
    rows = folder.read(EXAMPLES).to_pylist()
    rows[1]["more_chosen"] = [{"text": f"Or {k}.", "finish_reason": "stop"} for k in range(2)]
    folder.replace(pa.Table.from_pylist(rows, EXAMPLES))
    tokenizer = load_tokenizer(str(quickstart / "model"))
    for objective in ("sft", "kto"):
        this = one_of(folder, str(quickstart / "model"), tmp_path, settings(epochs=1, objective=objective))
        (dataset,), (counts,) = tokenized_examples([this])
        tokenized = {row["question_id"]: row for row in dataset.take_all()}
        assert sorted(tokenized) == ["q0", "q1", "q1#1", "q1#2", "q2", "q3", "q4"] and counts.num_examples == 7
        scale = 7 / 5  # so that the mean weight over the rows is that over the questions
        assert [tokenized[name]["weight"] for name in ("q1", "q1#1", "q2")] == pytest.approx(
            [rows[1]["weight"] * scale / 3] * 2 + [rows[2]["weight"] * scale]
        )
        assert tokenizer.decode(tokenized["q1#2"]["chosen"][:-1]) == "Or 1."


def test_examples_of_weight_0_are_left_out_on_request_and_still_count_in_the_normalizer(
    examples: Folder, quickstart: Path, tmp_path: Path, local_ray: None
) -> None:
    both = [
        one_of(
            examples, str(quickstart / "model"), tmp_path, settings(epochs=1, skip_zero_weight=skipped), str(skipped)
        )
        for skipped in (False, True)
    ]
    datasets, (with_zero, without_zero) = tokenized_examples(both)
    kept, left = ({row["question_id"]: row["weight"] for row in one.take_all()} for one in datasets)
    stored = {row["question_id"]: row["weight"] for row in examples.read(EXAMPLES).to_pylist()}
    assert kept == stored and sorted(left) == sorted(name for name, weight in stored.items() if weight > 0)
    assert left == {name: stored[name] for name in left}, "weights are not normalized again"
    assert (with_zero.num_examples, with_zero.num_zero_weight) == (NUM_EXAMPLES, 0)
    assert (without_zero.num_examples, without_zero.num_zero_weight) == (NUM_EXAMPLES - 5, 5)


def test_many_examples_are_tokenized_as_few_are(
    examples: Folder, quickstart: Path, tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [
        one_of(examples, str(quickstart / "model"), tmp_path, settings(epochs=2, objective=objective), objective)
        for objective in ("sft", "kto")
    ]
    few, counts_of_few = tokenized_examples(both)
    monkeypatch.setattr(training_dataset, "FEW_ROWS", 0)
    many, counts_of_many = tokenized_examples(both)
    assert counts_of_few == counts_of_many
    for one, other in zip(few, many, strict=True):
        rows = one.take_all()
        assert len(rows) == 2 * NUM_EXAMPLES and repr(rows) == repr(other.take_all())


@pytest.mark.parametrize(
    ("column", "value", "changes", "message"),
    [
        ("weight", math.nan, {}, "the weight of q4 is nan; expected a finite number of at least 0"),
        ("weight", -1.0, {}, "the weight of q4 is -1.0; expected a finite number"),
        ("weight", math.inf, {}, "the weight of q4 is inf; expected a finite number"),
        ("rejected", None, {"objective": "dpo"}, "dpo needs a rejected response, and q4 has none; weigh the samples"),
        ("weight", 1.0, {"num_workers": 8}, "training.num_workers: 8 workers for 6 examples; use fewer workers"),
    ],
)
def test_examples_that_cannot_be_trained_on_are_said(
    column: str, value: Any, changes: dict[str, Any], message: str, quickstart: Path, tmp_path: Path, local_ray: None
) -> None:
    folder = write_examples(tmp_path / "examples", 6)
    rows = folder.read(EXAMPLES).to_pylist()
    rows[4][column] = value
    folder.replace(pa.Table.from_pylist(rows, EXAMPLES))
    with pytest.raises(InputError, match=message):
        run_training(folder, str(quickstart / "model"), tmp_path, settings(**changes))


def test_what_an_interrupted_training_says_when_it_goes_on_in_another_shape(tmp_path: Path) -> None:
    checkpoints, two = Folder(*locate(str(tmp_path))), settings(num_workers=2, deepspeed={"zero_stage": 3})
    leave_checkpoint(tmp_path / GROUP, checkpoint_metadata("trained", two, 40))
    assert interrupted(checkpoints) == "trained" and change_of_shape(checkpoints, two) is None
    assert change_of_shape(checkpoints, settings()) == (
        "training goes on after step 40 with 1 worker and ZeRO stage 2; before it had 2 workers and ZeRO stage 3"
    )
    prepare_checkpoints(checkpoints)
    assert interrupted(checkpoints) == "trained"


def test_checkpoints_of_an_older_version_are_refused(tmp_path: Path) -> None:
    leave_checkpoint(tmp_path / "workers_2_zero_3", {"training": "trained"})
    with pytest.raises(InputError, match=r"an older version of east-ray, whose checkpoints this one cannot read; end"):
        prepare_checkpoints(Folder(*locate(str(tmp_path))))


def leave_checkpoint(run: Path, metadata: dict[str, Any]) -> None:
    (run / "checkpoint_2026").mkdir(parents=True)
    (run / "checkpoint_2026" / ".metadata.json").write_text(json.dumps(metadata))
    listed = {"checkpoint_results": [{"checkpoint_dir_name": "checkpoint_2026", "metrics": {}}]}
    (run / "checkpoint_manager_snapshot.json").write_text(json.dumps(listed))


def test_a_group_that_fails_too_often_is_begun_again_for_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Train counts the failures of the whole group, and `max_failures` is of each training."""
    from ray.train import TrainingFailedError

    begun: list[str] = []

    def fails_at_the_third(trainings: list[Training], checkpoints: Folder) -> Iterator[TrainingSummary]:
        begun.append("".join(training.name for training in trainings))
        for number, training in enumerate(trainings):
            if number == 2 or training.name == "e":
                raise TrainingFailedError("died")
            yield TrainingSummary(number, 0, 0, [])

    monkeypatch.setattr(group, "train_group", fails_at_the_third)
    folder = Folder(*locate(str(tmp_path)))
    trainings = [one_of(folder, "m", tmp_path, settings(), name) for name in "abcde"]
    events = train_models(trainings, folder)
    assert len([next(events) for _ in "abcd"]) == 4
    with pytest.raises(TrainingFailedError):
        next(events)
    assert begun == ["abcde", "cde", "e"]


def test_trainings_share_workers_where_they_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[str] = []

    def recorded(trainings: list[Training], checkpoints: Folder) -> Iterator[TrainingSummary]:
        groups.append("".join(training.name for training in trainings))
        yield from (TrainingSummary(1, 0, 0, []) for _ in trainings)

    monkeypatch.setattr(group, "train_group", recorded)
    folder = Folder(*locate(str(tmp_path)))
    plain, more, sharded = settings(), settings(num_workers=2), settings(deepspeed={"zero_stage": 3})
    every = {"a": plain, "b": plain.model_copy(update={"seed": 1, "epochs": 3}), "c": more, "d": sharded, "e": sharded}
    assert (
        len(list(train_models([one_of(folder, "m", tmp_path, one, name) for name, one in every.items()], folder))) == 5
    )
    assert groups == ["ab", "c", "d", "e"]


def test_what_a_kill_left_of_checkpoints_is_removed_if_it_is_not_whole(tmp_path: Path) -> None:
    checkpoints = Folder(*locate(str(tmp_path)))
    run = checkpoints / GROUP
    snapshot = tmp_path / GROUP / "checkpoint_manager_snapshot.json"

    def leave(listed: list[str], there: list[str]) -> list[str]:
        run.clear()
        for name in there:
            (tmp_path / GROUP / name / "state").mkdir(parents=True)
        results = {"checkpoint_results": [{"checkpoint_dir_name": name} for name in listed]}
        snapshot.parent.mkdir(exist_ok=True)
        snapshot.write_text(json.dumps(results))
        prepare_checkpoints(checkpoints)
        return run.names()

    assert leave(["checkpoint_1"], ["checkpoint_1", "checkpoint_2"]) == ["checkpoint_1", snapshot.name]
    assert leave([], ["checkpoint_1"]) == []
    assert leave(["checkpoint_1"], []) == []
    leave(["checkpoint_1"], ["checkpoint_1"])
    snapshot.write_text("")
    assert complete_checkpoints(run) == [] and interrupted(checkpoints) is None
    prepare_checkpoints(checkpoints)
    assert run.names() == []


def test_bf16_gradients_are_added_up_in_float32_and_its_optimizer_begins_at_the_beginning() -> None:
    for stage in (0, 1, 2, 3):
        config = deepspeed_config(settings(precision="bf16", deepspeed={"zero_stage": stage}), 1, on_gpu=False)
        assert config["data_types"] == {"grad_accum_dtype": "fp32"}
        assert config["zero_optimization"]["stage"] == max(1, stage)
    plain = deepspeed_config(settings(deepspeed={"zero_stage": 0}), 1, on_gpu=True)
    assert plain["zero_optimization"]["stage"] == 0 and "data_types" not in plain
    assert plain["optimizer"]["params"]["fused"]
    offloaded = settings(deepspeed={"zero_stage": 2, "offload_optimizer": True})
    assert "fused" not in deepspeed_config(offloaded, 1, on_gpu=True)["optimizer"]["params"]


def test_a_machine_without_memory_left_is_one_sentence() -> None:
    import ray.train

    failure = RuntimeError("Task was killed due to the node running low on memory.")
    with pytest.raises(InputError, match=r"memory of a machine is not sufficient; lower training.num_workers on it"):
        raise_if_out_of_memory(ray.train.WorkerGroupError("a worker failed", {0: failure}))
    raise_if_out_of_memory(ray.train.WorkerGroupError("a worker failed", {0: RuntimeError("Something else.")}))


def test_a_gpu_without_memory_left_is_one_sentence() -> None:
    import torch

    with (
        pytest.raises(
            InputError, match=r"memory is not sufficient \(CUDA out of memory\); lower training.micro_batch_size"
        ),
        out_of_memory_as_input_error(),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory\nTried to allocate 2 GiB")


@pytest.mark.drill
def test_adapters_alone_are_trained_and_merged_at_the_end(
    examples: Folder, quickstart: Path, tmp_path: Path, local_ray: None
) -> None:
    import torch
    from safetensors.torch import load_file

    lora = {"rank": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"], "save_adapter": True}
    training = settings(lora=lora, num_workers=2, learning_rate=1e-2, deepspeed={"zero_stage": 3})
    summary = run_training(examples, str(quickstart / "model"), tmp_path, training)
    first, second = (
        sum(step["unweighted_loss"] * step["num_examples"] for step in summary.steps if step["epoch"] == epoch)
        for epoch in (0, 1)
    )
    assert second < 0.9 * first
    base, trained = (load_file(folder / "model.safetensors") for folder in (quickstart / "model", tmp_path / "model"))
    assert base.keys() == trained.keys()
    for name, tensor in trained.items():
        difference = tensor.float() - base[name].float()
        if "q_proj" in name or "v_proj" in name:
            rank = int((difference.double().svd().S > 1e-6).sum())
            assert 0 < rank <= 4, (name, rank)
        else:
            assert not difference.any(), name
    assert {path.name for path in tmp_path.iterdir()} >= {"model", "adapter"}
    assert not list(tmp_path.glob(".*")), "what was written is moved to its place"
    adapters = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for name in ("q_proj", "v_proj"):
        layer = f"model.layers.0.self_attn.{name}"
        one, two = (adapters[f"base_model.model.{layer}.lora_{half}.weight"] for half in "BA")
        expected = base[f"{layer}.weight"].float() + 8 / 4 * one @ two
        torch.testing.assert_close(trained[f"{layer}.weight"], expected, rtol=1e-5, atol=1e-6)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 4
    assert summary.exported is not None and summary.exported.logits_difference < 1e-3


@pytest.mark.drill
def test_memory_savers_change_no_result(two_workers: Together, examples: Folder, model: str, tmp_path: Path) -> None:
    """Offload of optimizer and parameters, recomputed activations: the steps of a plain training, to rounding."""
    saving = settings(num_workers=2, gradient_checkpointing=True,
                      deepspeed={"zero_stage": 3, "offload_optimizer": True, "offload_parameters": True})  # fmt: skip
    saved = run_training(examples, model, tmp_path, saving)
    for one, two in zip(two_workers.summaries["plain"].steps, saved.steps, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-4)


def test_bf16_comes_near_float32(two_workers: Together) -> None:
    """With a large learning rate: bf16 parameters do not show updates below their rounding until they have added up."""
    exact, half = (two_workers.summaries[name].steps for name in ("large", "half"))
    assert [step["loss"] for step in exact] != [step["loss"] for step in half]
    for one, two in zip(exact, half, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=0.05)


def test_every_step_reports_what_a_researcher_watches(one_worker: Together) -> None:
    seen = one_worker.summaries["watched"].steps
    assert len(seen) == 3
    first, last = seen[0], seen[-1]
    assert (first["weight_min"], first["weight_max"]) == (0.0, 2.0)
    assert first["padding_share"] == 0 and 0.1 < first["memory_gib"] < 8
    assert first["chosen_reward"] == pytest.approx(0, abs=1e-5) and first["kl"] == pytest.approx(0, abs=1e-4)
    assert last["reward_margin"] == pytest.approx(last["chosen_reward"] - last["rejected_reward"])
    assert last["reward_margin"] > 0 and 0 <= last["reward_accuracy"] <= 1


@pytest.mark.drill
def test_a_killed_training_goes_on_from_its_checkpoint_and_ends_the_same(
    two_workers: Together, examples: Folder, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray.cloudpickle
    import torch
    from safetensors.torch import load_file

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import a test
    # The worker dies once, after step 5 of 6 of its second training; a checkpoint was taken after the fourth.
    monkeypatch.setattr(group, "work", _DyingWorker(str(tmp_path / "died")))
    wanted = settings(num_workers=2, checkpoint_every_steps=2)
    before = one_of(examples, model, tmp_path / "before", wanted.model_copy(update={"epochs": 1}))
    this = one_of(examples, model, tmp_path / "resumed", wanted, "resumed")
    events = list(train_models([before, this], Folder(*locate(str(tmp_path / "checkpoints")))))
    first, resumed = (event for event in events if isinstance(event, TrainingSummary))
    assert [step["step"] for step in first.steps] == [1, 2, 3]
    assert (tmp_path / "died").exists()
    assert [step["step"] for step in resumed.steps] == [1, 2, 3, 4, 5, 6]
    # Three steps and five, then from the checkpoint after step 4, or after step 2 if the newer one was not whole yet.
    assert (tmp_path / "computed").stat().st_size in (3 + 5 + 2, 3 + 5 + 4)
    whole = two_workers.summaries["plain"]
    assert resumed.steps[-1]["loss"] == pytest.approx(whole.steps[-1]["loss"], rel=1e-6)
    folders = two_workers.folder / "plain", tmp_path / "resumed"
    one, two = (load_file(folder / "model" / "model.safetensors") for folder in folders)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-7)


class _DyingWorker:
    """The real worker, killed once with SIGKILL after a given step."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def __call__(self, config: dict[str, Any]) -> None:
        import os
        import signal

        import ray
        import ray.train

        original, mark, rank = Compute.step, Path(self._mark), ray.train.get_context().get_world_rank()
        count = 0

        def step(compute: Any, rows: Any, is_late: bool = False) -> Any:
            nonlocal count
            metrics, late = original(compute, rows, is_late)
            count += 1
            if rank == 0:
                with mark.with_name("computed").open("a") as file:
                    file.write(".")
            if count == 8 and rank == 0 and not mark.exists():
                board = config["board"]
                ray.get(board.add.remote(metrics | {"step": 5, "num_steps": 6, "tokens_per_s": 0.0}))
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return metrics, late

        Compute.step = step  # type: ignore[method-assign]
        group.work(config)

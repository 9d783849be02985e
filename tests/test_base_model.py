"""A model without a chat template through the real thing: sampled few-shot with a stop string, trained, evaluated."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from json_records import checked
from killed_runs import ROOT, finish

from east_ray.config import PromptConfig
from east_ray.questions.prompts import load_tokenizer, render_prompt, tokenize
from east_ray.records import SAMPLES, EvaluationMetrics
from east_ray.storage import Folder, locate

NUM_QUESTIONS, NUM_RESPONSES, NUM_TEST = 40, 8, 80
#: What the quick start's chat template writes around a question: without it the model knows no other prompt.
TEMPLATE = "<|begin|><|user|>{question}<|assistant|>"


@pytest.mark.drill
@pytest.mark.timeout(1500)
def test_the_quick_start_s_model_learns_without_its_template(quickstart: Path, tmp_path: Path) -> None:
    model = tmp_path / "base"
    shutil.copytree(quickstart / "model", model, ignore=shutil.ignore_patterns("chat_template*"))
    tokenizer, asking = load_tokenizer(str(model)), load_tokenizer(str(quickstart / "model"))
    assert tokenizer.chat_template is None
    worked = {"question": "Ann has 3 pens. She gets 4 more. How many pens does Ann have now?",
              "solution": "3+4=7\nThe answer is \\boxed{7}."}  # fmt: skip
    (tmp_path / "few.jsonl").write_text(json.dumps(worked) + "\n")
    (tmp_path / "run.yaml").write_text(json.dumps(values(tmp_path, model)))
    said = finish(["run", str(tmp_path / "run.yaml")], 1400)
    assert "prompts of text" in said

    round_0 = Folder(*locate(str(tmp_path / "run" / "round_0")))
    few_shot = PromptConfig.model_validate({"template": TEMPLATE, "examples": {"questions": [worked]}})
    rows: list[dict[str, Any]] = (round_0 / "samples").read(SAMPLES).to_pylist()
    responses = [response for row in rows for response in row["responses"]]
    for row in rows:
        assert row["prompt"] == render_prompt(tokenizer, row["question"], few_shot)
        assert row["num_prompt_tokens"] == len(tokenize(tokenizer, row["prompt"]))
        assert tokenize(tokenizer, row["prompt"]).count(tokenizer.bos_token_id) == 1
    stopped = [one for one in responses if tokenizer.decode(one["token_ids"], skip_special_tokens=True) != one["text"]]
    assert len(responses) == NUM_QUESTIONS * NUM_RESPONSES and len(stopped) > len(responses) / 2
    assert all("." not in one["text"] and one["finish_reason"] == "stop" for one in stopped)

    plain = PromptConfig(template=TEMPLATE)
    for row in (round_0 / "evaluation" / "responses").read(SAMPLES).to_pylist():  # to the token what a chat would be
        assert row["prompt"] == render_prompt(tokenizer, row["question"], plain)
        assert row["prompt"] == render_prompt(asking, row["question"], PromptConfig())
    records = {
        name: json.loads(round_0.read_text(f"stages/{name}.json") or "")["counts"] for name in ("questions", "training")
    }
    assert records["questions"]["prompt_style"] == "text" and records["training"]["prompt"] == "plain"
    metrics = checked(EvaluationMetrics, (round_0 / "evaluation").read_text("metrics.json"))
    accuracies = {name: one["accuracy"] for name, one in metrics["accuracy"].items()}
    print(accuracies, records)
    assert accuracies["base"] > 0.6 and accuracies["trained"] > accuracies["base"] - 0.05
    assert load_tokenizer(str(tmp_path / "run" / "round_0" / "model")).chat_template is None


def values(folder: Path, model: Path) -> dict[str, Any]:
    """A small run of that model, by its whole loop."""
    data = ROOT / "jobs" / "quickstart"
    return {
        "run_dir": str(folder / "run"),
        "model": str(model),
        "questions": {"path": str(data / "train.jsonl"), "max_questions": NUM_QUESTIONS},
        "prompt": {"template": TEMPLATE, "examples": str(folder / "few.jsonl")},
        "sampling": {
            "responses_per_question": NUM_RESPONSES, "max_tokens": 64, "stop": ["."], "params": {"min_p": 0.02},
        },
        "engines": {
            "num_cpus_per_engine": 1,
            "engine_args": {"dtype": "float32", "enforce_eager": True, "max_num_seqs": 256, "max_model_len": 256},
            "env": {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"},
        },
        "training": {
            "prompt": "plain", "epochs": 1, "examples_per_step": 8, "learning_rate": 5e-5, "max_length": 256,
            "precision": "float32", "deepspeed": {"zero_stage": 0}, "num_cpus_per_worker": 0.5,
        },
        "evaluation": {
            "questions": {"path": str(data / "test.jsonl"), "max_questions": NUM_TEST}, "max_tokens": 64,
            "prompt": {"examples": None}, "params": {},
        },
        "cluster": {"address": "local", "num_cpus": 2},
    }  # fmt: skip

"""The sampling stage on real vLLM: seeds, several models on one pool, engines that are split or fail."""

import re
from pathlib import Path
from typing import Any

import pytest
from sampling_runs import ENGINES, questions, settings
from sampling_runs import ask as ask_all

from east_ray.config import PromptConfig
from east_ray.questions.prompts import end_of_turn, load_tokenizer, tokenize
from east_ray.sampling.backends import Decoding
from east_ray.storage import Folder, locate
from east_ray.training.dataset import tokenize_example


def ask(folder: Path, models: dict[str, str], count: int, decoding: Decoding, **engines: Any) -> list[dict[str, Any]]:
    target = Folder(*locate(str(folder)))
    rows, _, _ = ask_all(target, models, questions(count), settings(folder, engines=ENGINES | engines), decoding)
    return rows


def test_a_question_has_its_own_seed_whatever_the_order() -> None:
    seeded = Decoding(responses_per_question=4, temperature=1.0, max_tokens=8, seed=0)
    seeds = [seeded.seed_of(f"q{i}") for i in range(1000)]
    assert seeds == [seeded.seed_of(f"q{i}") for i in range(1000)]
    assert len(set(seeds)) > 995 and all(seed is not None and 0 <= seed < 2**31 for seed in seeds)
    greedy = Decoding(responses_per_question=1, temperature=0.0, max_tokens=8, seed=0)
    assert greedy.seed_of("q") is None
    assert Decoding(responses_per_question=1, temperature=1.0, max_tokens=8).seed_of("q") is None


def test_rows_are_complete_and_truncation_is_visible(quickstart: Path, tmp_path: Path, local_ray: None) -> None:
    """With the token ids as well, which training takes over as they are."""
    model, decoding = str(quickstart / "model"), Decoding(6, temperature=1.0, max_tokens=12, seed=1, logprobs=True)
    target, config = Folder(*locate(str(tmp_path))), settings(tmp_path)
    rows, _, _ = ask_all(target, {"base": model}, questions(10), config, decoding, keep_token_ids=True)
    tokenizer, prompt = load_tokenizer(model), PromptConfig()
    assert sorted(row["question_id"] for row in rows) == sorted(f"q{i}" for i in range(10))
    for row in rows:
        assert len(row["responses"]) == 6 and row["num_prompt_tokens"] > 5 and row["question"] in row["prompt"]
        for response in row["responses"]:
            assert 1 <= response["num_tokens"] <= 12 and response["logprob"] < 0
            assert response["finish_reason"] == ("length" if response["num_tokens"] == 12 else "stop")
            ids, end = response["token_ids"], end_of_turn(tokenizer, prompt)
            assert len(ids) == response["num_tokens"] and (ids[-1:] == end) == (response["finish_reason"] == "stop")
            said = {"chosen": response["text"], "chosen_finish_reason": response["finish_reason"]}
            example = tokenize_example(
                {"question": row["question"], **said, "chosen_token_ids": ids}, tokenizer, prompt
            )
            assert example == {"prompt": tokenize(tokenizer, row["prompt"]), "chosen": ids}
    assert any(len({response["text"] for response in row["responses"]}) > 1 for row in rows)


def test_one_pool_serves_several_models_and_does_not_mix_them(
    quickstart: Path, tmp_path: Path, local_ray: None
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # The second model is the first with its last layer switched off, so greedy answers differ.
    model = AutoModelForCausalLM.from_pretrained(quickstart / "model", dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.model.layers[-1].parameters():
            parameter.zero_()
    model.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(quickstart / "model").save_pretrained(tmp_path / "other")
    paths = {"base": str(quickstart / "model"), "other": str(tmp_path / "other")}
    decoding = Decoding(responses_per_question=1, temperature=0.0, max_tokens=24)
    rows = ask(tmp_path / "both", paths, 30, decoding)
    together = {(row["model"], row["question_id"]): row["responses"][0]["text"] for row in rows}
    assert len(rows) == len(together) == 60
    alone = ask(tmp_path / "alone", {"other": paths["other"]}, 30, decoding)
    assert all(row["responses"][0]["text"] == together["other", row["question_id"]] for row in alone)
    assert sum(together["base", f"q{i}"] != together["other", f"q{i}"] for i in range(30)) > 15


def test_an_engine_that_cannot_start_is_an_error_that_says_why(
    quickstart: Path, tmp_path: Path, local_ray: None
) -> None:
    decoding = Decoding(responses_per_question=1, temperature=0.0, max_tokens=8)
    with pytest.raises(Exception, match="no_such_argument"):
        ask(tmp_path, {"base": str(quickstart / "model")}, 2, decoding, engine_args={"no_such_argument": 1})


@pytest.mark.drill
def test_an_engine_may_be_split_over_several_processes(quickstart: Path, tmp_path: Path, local_ray: None) -> None:
    """Tensor parallelism, as over several GPUs: the shards together say what one engine says."""
    import threading

    import psutil

    seen: set[str] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.2):
            seen.update(
                p.info["name"] for p in psutil.process_iter(["name"]) if re.search(r"Worker_TP\d", p.info["name"] or "")
            )

    threading.Thread(target=look, daemon=True).start()
    decoding = Decoding(responses_per_question=1, temperature=0.0, max_tokens=24)
    models = {"base": str(quickstart / "model")}
    one = ask(tmp_path / "one", models, 16, decoding)
    assert not seen
    split = ENGINES["engine_args"] | {"tensor_parallel_size": 2}
    env = ENGINES["env"] | {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    two = ask(tmp_path / "two", models, 16, decoding, engine_args=split, env=env)
    ended.set()
    assert len(seen) == 2, "each shard is a process of its own"
    texts = [{row["question_id"]: row["responses"][0]["text"] for row in rows} for rows in (one, two)]
    # Sums in another order may tip a tie, no more.
    assert sum(texts[0][name] == texts[1][name] for name in texts[0]) >= 14

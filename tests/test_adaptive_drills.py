"""Adaptive sampling on real engines: what is the same as in a full run, and that a kill loses nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from clusters import local_cluster
from sampling_runs import ENGINES, NUM_QUESTIONS, NUM_RESPONSES, Run, questions, settings
from sampling_runs import ask as ask_all

from east_ray.sampling.backends import Decoding
from east_ray.sampling.deciding import adaptive_of
from east_ray.storage import Folder, locate

#: Kills under `precision` and `unanimous` are in test_adaptive_sampling.py, and of all else in test_faults.py.
RULES: dict[str, dict[str, Any]] = {
    "precision": {"precision": {"first": 8, "standard_error": 0.1}},
    "budget": {"budget": {"pilot": 8, "total": 16 * NUM_QUESTIONS, "max": NUM_RESPONSES}},
}


def said(row: dict[str, Any]) -> list[str]:
    return [response["text"] for response in row["responses"]]


@pytest.mark.drill
def test_an_engine_gives_the_beginning_of_what_it_gives_a_full_run(
    quickstart: Path, tmp_path: Path, local_ray: None
) -> None:
    decoding, models = Decoding(32, 1.0, 48, seed=3), {"base": str(quickstart / "model")}
    asked = questions(24)

    def rows(name: str, **sampling: Any) -> dict[str, dict[str, Any]]:
        config = settings(tmp_path, engines=ENGINES, sampling={"responses_per_question": 32} | sampling)
        folder = Folder(*locate(str(tmp_path / name)))
        found, _, _ = ask_all(folder, models, asked, config, decoding, adaptive=adaptive_of(config))
        return {row["question_id"]: row for row in found}

    full, some = rows("full"), rows("some", adaptive=RULES["precision"])
    assert full.keys() == some.keys() and {len(row["responses"]) for row in full.values()} == {32}
    assert all(said(row) == said(full[name])[: row["num_responses"]] for name, row in some.items())
    numbers = {row["num_responses"] for row in some.values()}
    assert len(numbers) > 1 and numbers <= {8, 16, 32}, numbers


#: An engine in a process of its own that asks each question for 8 responses and then for 24 more. It prints the tokens
#: of each prompt, and those of them that vLLM took from its cache, of the first requests and of the further ones.
PREFIX = """
import json, sys
from dataclasses import replace
from east_ray.config import EnginePoolConfig, PromptConfig
from east_ray.questions.prompts import load_tokenizer, render_prompt, tokenize_prompt
from east_ray.sampling.backends import Decoding
from east_ray.sampling.backends.vllm import VLLM

class Noting(VLLM):
    cached = []

    def _finish(self, request, output):
        self.cached.append((request.params.n, output.num_cached_tokens))
        super()._finish(request, output)

if __name__ == "__main__":
    model, texts = sys.argv[1], json.loads(sys.argv[2])
    decoding, prompt = Decoding(8, 1.0, 16, seed=5), PromptConfig()
    engine_args = {"dtype": "float32", "enforce_eager": True, "max_num_seqs": 64, "max_model_len": 256}
    settings = VLLM.settings_for(EnginePoolConfig(engine_args=engine_args), decoding)
    engine, tokenizer = Noting(model, settings, {}), load_tokenizer(model)
    ids = []
    for text in texts:  # on a CPU a block has 128 tokens
        asked = [tokenize_prompt(tokenizer, render_prompt(tokenizer, text * n, prompt), prompt) for n in range(1, 40)]
        ids.append(next(one for one in asked if len(one) > 140))
    first = [engine.ask(model, one, decoding).result() for one in ids]
    more = [engine.ask(model, one, replace(decoding, responses_per_question=24), first=8).result() for one in ids]
    block = engine._engine.vllm_config.cache_config.block_size
    print("told", json.dumps({"prompts": list(map(len, ids)), "cached": engine.cached, "block": block}), flush=True)
"""


@pytest.mark.drill
def test_a_further_request_takes_its_prompt_from_the_cache(quickstart: Path, tmp_path: Path) -> None:
    """All whole blocks of it, which is what vLLM keeps."""
    (tmp_path / "prefix.py").write_text(PREFIX)
    texts = questions(4)["question"].to_pylist()
    command = [sys.executable, str(tmp_path / "prefix.py"), str(quickstart / "model"), json.dumps(texts)]
    env = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=False, timeout=400)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("told")) if done.returncode == 0 else [""]
    assert line, done.stderr
    told = json.loads(line.removeprefix("told"))
    more = [cached for number, cached in told["cached"] if number == 24]
    assert more == [(length - 1) // told["block"] * told["block"] for length in told["prompts"]] and min(more) > 0, told


@pytest.mark.drill
def test_a_kill_between_waves_asks_nothing_again_that_is_durable(quickstart: Path, tmp_path: Path) -> None:
    """Without seeds a question that is asked again gets other responses, so those that stay were asked once."""
    with local_cluster(tmp_path / "home") as cluster:
        cluster.start_head(2)
        run = Run(cluster, tmp_path / "run", quickstart / "model", sampling={"adaptive": RULES["budget"]})
        waves = Folder(*locate(str(run.folder / "run" / "round_0" / "waves")))
        run.begin()
        run.wait_until(lambda: bool(waves.parts()))
        run.wait_until(lambda: sum(len(texts) > 8 for texts in run.durable().values()) >= 12)
        snapshot = run.durable()
        assert run.process is not None
        run.process.kill()
        run.process.wait()
        run.begin()
        run.finish()
    run.check_kept(snapshot)
    rows = run.rows().values()
    assert sum(row["num_responses"] for row in rows) == RULES["budget"]["budget"]["total"]
    numbers = {row["num_responses"] for row in rows}
    assert len(numbers) > 1 and max(numbers) > 8, numbers

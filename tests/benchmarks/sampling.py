r"""Tokens per second of the sampling stage and the engine's own limit: ``python tests/benchmarks/sampling.py``.

All ways use the same model (random weights: all tokens are about equally likely, and one in a hundred ends a response,
so lengths are random), prompts, n, limits and engine arguments. Each has a process of its own:

    engine      one vLLM engine that gets all questions at once: the limit
    ours        the sampling stage, which stores rows as they finish; from its first request to its last row
    batch_sync  `LLM.generate` batch by batch, as many questions as fill the engine: each batch waits for its slowest
    copies      one vLLM engine with n copies of each prompt, as `ray.data.llm` does, which has one response per row

`ray.data.llm` itself is not run: with a CPU engine its stages and its placement group wait for each other on a small
machine. `ours_over_ray_data_llm` is therefore relative to `copies`, which has none of Ray Data's overhead. `start_s` is
the time before the first token, which is not counted. `--small` is a quick check. The last line is a JSON object.
"""

import argparse
import cProfile
import json
import os
import pstats
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WAYS = ("engine", "ours", "batch_sync", "copies")
#: Standard deviation of the head's weights: so small that all tokens are about equally likely.
HEAD_STD = 1e-3


def make_model(folder: Path, hidden: int, layers: int) -> None:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "jobs" / "quickstart" / "model")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
            num_attention_heads=hidden // 64, num_key_value_heads=max(1, hidden // 256), max_position_embeddings=1024,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, tie_word_embeddings=False,
        )
    )  # fmt: skip
    torch.nn.init.normal_(model.lm_head.weight, std=HEAD_STD)
    ends = [token for token in range(len(tokenizer)) if token % (len(tokenizer) // 5) == 7]
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *ends]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def questions(count: int) -> list[dict[str, Any]]:
    text = "Tom has {} pens and Ann has {}. They buy {} more and share all of them evenly. How many has each?"
    return [
        {"question_id": f"q{i}", "question": text.format(i % 89 + 2, i % 31 + 3, i % 17 + 1), "reference_answer": "1"}
        for i in range(count)
    ]


def settings(arguments: argparse.Namespace) -> tuple[Any, Any, dict[str, Any]]:
    from east_ray.config import PromptConfig
    from east_ray.sampling.backends import Decoding

    decoding = Decoding(arguments.n, temperature=1.0, max_tokens=arguments.max_tokens)
    engine_args = {"dtype": "float32", "enforce_eager": True, "max_num_seqs": arguments.max_num_seqs,
                   "max_model_len": 1024, "disable_log_stats": True}  # fmt: skip
    return decoding, PromptConfig(), engine_args


def measure_engine(way: str, arguments: argparse.Namespace) -> dict[str, float]:
    """engine, batch_sync and copies: `LLM.generate` in this process."""
    from vllm import LLM

    from east_ray.questions.prompts import load_tokenizer, render_prompt, tokenize
    from east_ray.sampling.backends.vllm import sampling_params

    decoding, prompt, engine_args = settings(arguments)
    begin = time.monotonic()
    llm = LLM(model=arguments.model, **engine_args)
    tokenizer = load_tokenizer(arguments.model)
    rendered = [
        tokenize(tokenizer, render_prompt(tokenizer, row["question"], prompt)) for row in questions(arguments.q)
    ]
    prompts: list[Any] = [{"prompt_token_ids": ids} for ids in rendered]
    params = sampling_params(decoding)
    size = len(prompts)
    if way == "batch_sync":
        size = max(1, arguments.max_num_seqs // arguments.n)
    if way == "copies":
        prompts = [one for one in prompts for _ in range(arguments.n)]
        params.n, size = 1, len(prompts)
    warm_up: Any = {"prompt_token_ids": tokenize(tokenizer, render_prompt(tokenizer, "What is 1 + 1?", prompt))}
    llm.generate([warm_up], sampling_params(decoding), use_tqdm=False)
    start = time.monotonic()
    num_tokens = 0
    for first in range(0, len(prompts), size):
        outputs = llm.generate(prompts[first : first + size], params, use_tqdm=False)
        num_tokens += sum(len(response.token_ids) for output in outputs for response in output.outputs)
    seconds = time.monotonic() - start
    result = {
        "tokens_per_s": num_tokens / seconds,
        "num_tokens": num_tokens,
        "seconds": seconds,
        "start_s": start - begin,
    }
    if way == "engine":  # again on some questions, since profiling slows
        profile = cProfile.Profile()
        profile.runcall(llm.generate, prompts[: max(1, len(prompts) // 8)], params, use_tqdm=False)
        stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
        whole = sum(entry[2] for entry in stats.values())
        model = max(entry[3] for (_, _, name), entry in stats.items() if name == "execute_model")
        result["execute_model_share"] = model / whole
    return result


def measure_ours(arguments: argparse.Namespace) -> dict[str, float]:
    import pyarrow as pa

    from east_ray.config import ClusterConfig, EnginePoolConfig
    from east_ray.ray_cluster import connect
    from east_ray.records import QUESTIONS
    from east_ray.sampling.backends.vllm import VLLM
    from east_ray.sampling.pool import PoolSettings, requests, sample
    from east_ray.storage import Folder, locate

    decoding, prompt, engine_args = settings(arguments)
    rows = [{name: row.get(name) for name in QUESTIONS.names} for row in questions(arguments.q)]
    begin = time.monotonic()
    connect(ClusterConfig(address="local", num_cpus=2))
    engines = EnginePoolConfig(engine_args=engine_args, env=arguments.env, num_cpus_per_engine=1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Folder(*locate(scratch))
        pool, models = PoolSettings(VLLM, {}, engines, prompt, decoding), {"base": arguments.model}
        asked = requests(pa.Table.from_pylist(rows, QUESTIONS), models, pool)
        first_request: list[float] = []

        def watch() -> None:
            while not first_request:
                if any(Path(scratch, "pending").glob("*/asked-*")):
                    first_request.append(time.monotonic())
                time.sleep(0.02)

        threading.Thread(target=watch, daemon=True).start()
        num_tokens = 0
        for part in sample(asked, models, folder, folder / "aside", pool):
            num_tokens += part["num_tokens"]
            end = time.monotonic()
    seconds = end - first_request[0]
    return {"tokens_per_s": num_tokens / seconds, "num_tokens": num_tokens, "seconds": seconds,
            "start_s": first_request[0] - begin}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a small model and few questions: does it run?")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--model", default="", help=argparse.SUPPRESS)
    parser.add_argument("--repeat", type=int, default=1, help="measure each way so often, in turn, and take the median")
    arguments = parser.parse_args()
    small = arguments.small
    arguments.q, arguments.n = (24, 8) if small else (80, 16)
    arguments.max_num_seqs, arguments.max_tokens = (64, 64) if small else (128, 256)
    # One core is the engine's, as a GPU would be, and the others are Ray's; its workers are no less urgent than others.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - as Ray spells it
    arguments.env = {"VLLM_CPU_KVCACHE_SPACE": "2", "OMP_NUM_THREADS": "1",
                     "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}  # fmt: skip
    if arguments.way:
        os.environ.update(arguments.env)
        result = measure_ours(arguments) if arguments.way == "ours" else measure_engine(arguments.way, arguments)
        print(json.dumps(result))
        return
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as scratch:
        make_model(Path(scratch), 256 if small else 512, 4 if small else 8)
        for way in WAYS * arguments.repeat:
            command = [sys.executable, __file__, "--way", way, "--model", scratch, *(["--small"] if small else [])]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{way}: {done.stderr[-2000:]}")
            runs[way].append(json.loads(done.stdout.splitlines()[-1]))
            print(way, {name: round(value, 3) for name, value in runs[way][-1].items()}, flush=True)
    rates = {way: sorted(run["tokens_per_s"] for run in found)[len(found) // 2] for way, found in runs.items()}
    print(json.dumps({
        "tokens_per_s": {way: round(rate, 1) for way, rate in rates.items()},
        "ours_over_engine": round(rates["ours"] / rates["engine"], 3),
        "ours_over_batch_sync": round(rates["ours"] / rates["batch_sync"], 3),
        "ours_over_ray_data_llm": round(rates["ours"] / rates["copies"], 3),
        "execute_model_share": round(runs["engine"][0]["execute_model_share"], 3),
        "start_s": {way: round(found[0]["start_s"], 1) for way, found in runs.items()},
    }))  # fmt: skip


if __name__ == "__main__":
    main()

r"""Tokens per second of the sampling stage and the engine's own limit: ``python tests/benchmarks/sampling.py``.

All ways use the same model (random weights: all tokens are about equally likely, and one in a hundred ends a response,
so lengths are random), prompts, n, limits and engine arguments. Each has a process of its own:

    engine         one plain vLLM engine at its defaults that gets all questions at once, without seeds and
                   log-probabilities: the limit
    ours           the sampling stage without seeds, which stores rows as they finish; from its first request to its
                   last row
    seeded_engine  as engine, with a seed for each question: the limit of runs that can be repeated
    seeded_ours    the sampling stage with seeds
    batch_sync     `LLM.generate` batch by batch, as many questions as fill the engine: each batch waits for its slowest
    copies         one vLLM engine with n copies of each prompt, as `ray.data.llm` does, which has one response per row

`ray.data.llm` itself is not run: with a CPU engine its stages and its placement group wait for each other on a small
machine. `ours_over_ray_data_llm` is therefore relative to `copies`, which has none of Ray Data's overhead. `start_s` is
the time before the first token, which is not counted. Keys with `steady` compare the middle 80 % of the two runs, all
others whole runs. With `--repeat` every other turn takes the ways in reverse order, and a ratio is the median of those
of the turns. On a busy machine `--clock cpu` divides by the CPU time of the engine's process, in `ours` that of the
actor with all its threads, in place of the time on the wall. `--small` is a quick check, and `--ways` takes some of
the ways. The last line is a JSON object.
"""

import argparse
import cProfile
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from east_ray.config import EnginePoolConfig
from east_ray.sampling.backends import Alone, Decoding, Prompt, Response
from east_ray.sampling.backends.vllm import VLLM

ROOT = Path(__file__).resolve().parents[2]
WAYS = ("engine", "ours", "seeded_engine", "seeded_ours", "batch_sync", "copies")
#: Standard deviation of the head's weights: so small that all tokens are about equally likely.
HEAD_STD = 1e-3
#: Shares of a run between which it is steady, and seconds between two notes of the tokens so far.
STEADY, NOTE_S = (0.1, 0.9), 0.1


class Measured(TypedDict, total=False):
    """What one way says of itself."""

    tokens_per_s: float
    steady_tokens_per_s: float
    num_tokens: int
    seconds: float
    start_s: float
    execute_model_share: float


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


def settings(arguments: argparse.Namespace) -> tuple[Decoding, Any, EnginePoolConfig]:
    from east_ray.config import PromptConfig

    seed = 0 if arguments.way.startswith("seeded") else None
    decoding = Decoding(arguments.n, temperature=1.0, max_tokens=arguments.max_tokens, seed=seed)
    engine_args = {"dtype": "float32", "enforce_eager": True, "max_num_seqs": arguments.max_num_seqs,
                   "max_model_len": 1024, "disable_log_stats": True}  # fmt: skip
    return decoding, PromptConfig(), EnginePoolConfig(engine_args=engine_args, env=arguments.env, num_cpus_per_engine=1)


class Notes:
    """Notes of the time, the CPU time of this process and the tokens that its engine has sampled, in a file."""

    def __init__(self, engine: Any, file: str) -> None:
        self.num_tokens, self._file, self._lock = 0, Path(file), threading.Lock()
        core = engine.engine_core
        get_output = core.get_output

        def counted() -> Any:
            outputs = get_output()
            self.num_tokens += sum(len(one.new_token_ids) for one in outputs.outputs)
            return outputs

        core.get_output = counted

    def begin(self) -> None:
        """The first request is about to be made."""
        with self._lock:
            if not self._file.exists():
                self.add()
                threading.Thread(target=self._go_on, daemon=True).start()

    def add(self) -> None:
        """A note of now."""
        with self._file.open("a") as file:
            file.write(f"{time.monotonic()} {time.process_time()} {self.num_tokens}\n")

    def _go_on(self) -> None:
        while True:
            time.sleep(NOTE_S)
            self.add()


def rates(file: str, end: float, clock: str, num_tokens: int) -> Measured:
    """Of a run whose last row is there at `end`: the whole, and its middle."""
    lines = Path(file).read_text().split("\n")[:-1]
    walls, cpus, tokens = np.array([line.split() for line in lines], dtype=float).T
    clocks = walls if clock == "wall" else cpus
    last = walls[np.argmax(tokens)]  # the first note of all tokens
    first, then = (np.interp(walls[0] + share * (last - walls[0]), walls, range(len(walls))) for share in STEADY)
    middle = [np.interp((first, then), range(len(walls)), values) for values in (tokens, clocks)]
    seconds = np.interp(end, walls, clocks) - clocks[0]
    return {
        "tokens_per_s": num_tokens / seconds,
        "steady_tokens_per_s": np.diff(middle[0])[0] / np.diff(middle[1])[0],
        "num_tokens": num_tokens,
        "seconds": seconds,
    }


def measure_engine(arguments: argparse.Namespace, scratch: str) -> Measured:
    """engine and seeded_engine, stepped as `LLM.generate` does; batch_sync and copies: `LLM.generate`."""
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import RequestOutputKind

    from east_ray.questions.prompts import load_tokenizer, render_prompt, tokenize

    decoding, prompt, engines = settings(arguments)
    begin = time.monotonic()
    llm = LLM(model=arguments.model, **VLLM.settings_for(engines, decoding).engine_args)
    tokenizer, asked = load_tokenizer(arguments.model), questions(arguments.q)
    rendered = [tokenize(tokenizer, render_prompt(tokenizer, row["question"], prompt)) for row in asked]
    prompts: list[Any] = [{"prompt_token_ids": ids} for ids in rendered]

    def params(number: int = 0) -> SamplingParams:
        return SamplingParams(
            n=1 if arguments.way == "copies" else arguments.n, temperature=1.0, max_tokens=arguments.max_tokens,
            seed=decoding.seed_of(asked[number]["question_id"]), output_kind=RequestOutputKind.FINAL_ONLY,
        )  # fmt: skip

    llm.generate([prompts[0]], params(), use_tqdm=False)
    start = time.monotonic()
    if arguments.way in ("batch_sync", "copies"):
        size = len(prompts) * arguments.n
        if arguments.way == "batch_sync":
            size = max(1, arguments.max_num_seqs // arguments.n)
        else:
            prompts = [one for one in prompts for _ in range(arguments.n)]
        num_tokens, cpu = 0, time.process_time()
        for first in range(0, len(prompts), size):
            outputs = llm.generate(prompts[first : first + size], params(), use_tqdm=False)
            num_tokens += sum(len(response.token_ids) for output in outputs for response in output.outputs)
        seconds = time.process_time() - cpu if arguments.clock == "cpu" else time.monotonic() - start
        whole: Measured = {"tokens_per_s": num_tokens / seconds, "num_tokens": num_tokens, "seconds": seconds}
        return whole | {"start_s": start - begin}
    engine, file = llm.llm_engine, f"{scratch}/notes"
    notes = Notes(engine, file)
    notes.begin()
    for number, one in enumerate(prompts):
        engine.add_request(str(number), one, params(number))
    finished = []
    while engine.has_unfinished_requests():
        finished += [output for output in engine.step() if output.finished]
    end = time.monotonic()
    notes.add()
    num_tokens = sum(len(response.token_ids) for output in finished for response in output.outputs)
    assert num_tokens == notes.num_tokens
    measured = rates(file, end, arguments.clock, num_tokens) | {"start_s": start - begin}
    if arguments.way == "engine":  # again on some questions, since profiling slows
        profile = cProfile.Profile()
        profile.runcall(llm.generate, prompts[: max(1, len(prompts) // 8)], params(), use_tqdm=False)
        stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
        spent = sum(entry[2] for entry in stats.values())
        measured["execute_model_share"] = (
            max(entry[3] for (_, _, name), entry in stats.items() if name == "execute_model") / spent
        )
    return measured


class Noted(VLLM):
    """The backend with `Notes`, in the file that its argument names."""

    def __init__(self, model: str, settings: EnginePoolConfig, args: Mapping[str, Any]) -> None:
        super().__init__(model, settings, args)
        self._notes = Notes(self._engine, args["file"])

    def ask(
        self, model: str, prompt: Prompt, decoding: Decoding, first: int = 0, alone: Alone | None = None
    ) -> "Future[list[Response]]":
        self._notes.begin()
        return super().ask(model, prompt, decoding, first, alone)


def measure_ours(arguments: argparse.Namespace, scratch: str) -> Measured:
    import pyarrow as pa

    from east_ray.config import ClusterConfig
    from east_ray.ray_cluster import connect
    from east_ray.records import QUESTIONS
    from east_ray.sampling.pool import PoolSettings, requests, sample
    from east_ray.storage import Folder, locate

    decoding, prompt, engines = settings(arguments)
    rows = [{name: row.get(name) for name in QUESTIONS.names} for row in questions(arguments.q)]
    begin, file = time.monotonic(), f"{scratch}/notes"
    connect(ClusterConfig(address="local", num_cpus=2))
    folder = Folder(*locate(f"{scratch}/samples"))
    pool = PoolSettings(Noted, {"file": file}, engines, prompt, decoding, keep_token_ids=True)
    models = {"base": arguments.model}
    asked = requests(pa.Table.from_pylist(rows, QUESTIONS), models, pool)
    num_tokens = 0
    for part in sample(asked, models, folder, folder / "aside", pool):
        num_tokens += part["num_tokens"]
        end = time.monotonic()
    start = float(Path(file).read_text().split(maxsplit=1)[0])
    return rates(file, end, arguments.clock, num_tokens) | {"start_s": start - begin}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a small model and few questions: does it run?")
    parser.add_argument("--questions", type=int, dest="q", help="how many; by default 80, or 24 with --small")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="what seconds are")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="which ways are measured")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--model", default="", help=argparse.SUPPRESS)
    parser.add_argument("--repeat", type=int, default=1, help="measure each way so often, in turn, and take the median")
    arguments = parser.parse_args()
    small = arguments.small
    arguments.q, arguments.n = arguments.q or (24 if small else 80), 8 if small else 16
    arguments.max_num_seqs, arguments.max_tokens = (64, 64) if small else (128, 256)
    # One core is the engine's, as a GPU would be, and the others are Ray's; its workers are no less urgent than others.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - as Ray spells it
    arguments.env = {"VLLM_CPU_KVCACHE_SPACE": "2", "OMP_NUM_THREADS": "1",
                     "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}  # fmt: skip
    if arguments.way:
        os.environ.update(arguments.env)
        measure = measure_ours if arguments.way.endswith("ours") else measure_engine
        with tempfile.TemporaryDirectory() as scratch:
            print(json.dumps(measure(arguments, scratch)))
        return
    runs: dict[str, list[Measured]] = {way: [] for way in arguments.ways}
    with tempfile.TemporaryDirectory() as scratch:
        make_model(Path(scratch), 256 if small else 512, 4 if small else 8)
        for turn in range(arguments.repeat):
            for way in arguments.ways[:: -1 if turn % 2 else 1]:
                command = [sys.executable, __file__, "--way", way, "--model", scratch, "--clock", arguments.clock,
                           "--questions", str(arguments.q),
                           *(["--small"] if small else [])]  # fmt: skip
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    sys.exit(f"{way}: {done.stderr[-2000:]}")
                runs[way].append(json.loads(done.stdout.splitlines()[-1]))
                shown = {name: round(float(str(value)), 3) for name, value in runs[way][-1].items()}
                print(way, shown, flush=True)
    print(json.dumps(summary(runs)))


def summary(runs: Mapping[str, Sequence[Measured]]) -> dict[str, Any]:
    def median(way: str, name: str) -> float:
        return statistics.median(run[name] for run in runs[way])  # type: ignore[literal-required]

    def ratio(ours: str, other: str, name: str) -> float | None:
        if ours not in runs or other not in runs:
            return None
        turns = zip(runs[ours], runs[other], strict=True)
        return round(statistics.median(one[name] / two[name] for one, two in turns), 3)  # type: ignore[literal-required]

    whole, steady = "tokens_per_s", "steady_tokens_per_s"
    return {
        whole: {way: round(median(way, whole), 1) for way in runs},
        "ours_over_engine": ratio("ours", "engine", whole),
        "ours_over_batch_sync": ratio("ours", "batch_sync", whole),
        "ours_over_ray_data_llm": ratio("ours", "copies", whole),
        "ours_over_plain_engine": ratio("ours", "engine", whole),
        "steady_over_plain_engine": ratio("ours", "engine", steady),
        "seeded_ours_over_engine": ratio("seeded_ours", "seeded_engine", whole),
        "seeded_steady_over_engine": ratio("seeded_ours", "seeded_engine", steady),
        "execute_model_share": round(median("engine", "execute_model_share"), 3) if "engine" in runs else None,
        "start_s": {way: round(median(way, "start_s"), 1) for way in runs},
    }


if __name__ == "__main__":
    main()

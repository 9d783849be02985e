r"""Tokens per second of `/v1/solve` compared with the engine's own limit: ``python tests/benchmarks/serving.py``.

All ways use the same model (random weights and lengths, see sampling.py), questions, n = 32 and engine arguments. Each
has a process of its own and one core for the engine:

    engine      one vLLM engine that gets all questions at once: the limit
    solve       `east-ray serve` with 40 concurrent clients; answers clustered, JSON over HTTP
    stream      the same with `stream: true`

Start-up is not counted. `--small` is a quick check. The last line is a JSON object.
"""

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from sampling import make_model, measure_engine, questions, settings

PORT = 8177


def ask(client: httpx.Client, question: str, arguments: argparse.Namespace, *, stream: bool) -> int:
    """Tokens of the responses to a question."""
    body = {"question": question, "responses": arguments.n, "max_tokens": arguments.max_tokens, "stream": stream}
    if not stream:
        return int(client.post("/v1/solve", json=body).raise_for_status().json()["num_tokens"])
    with client.stream("POST", "/v1/solve", json=body) as answer:
        *_, last = (line for line in answer.iter_lines() if line)
    return int(json.loads(last.removeprefix("data: "))["solution"]["num_tokens"])


def measure_serving(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    _, _, engines = settings(arguments)
    # The service keeps statistics.
    engine_args = {name: value for name, value in engines.engine_args.items() if name != "disable_log_stats"}
    overrides = [f"http.port={PORT}", f"engine_args={json.dumps(engine_args)}", f"env={json.dumps(arguments.env)}"]
    command = [sys.executable, "-m", "east_ray", "serve", arguments.model, "address=local", *overrides]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    assert server.stdout is not None
    results = {}
    try:
        while (said := server.stdout.readline()).startswith(b"starting"):
            pass
        assert said.startswith(b"serving"), "the server did not start"
        texts = [row["question"] for row in questions(arguments.q)]
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=None) as client,
            concurrent.futures.ThreadPoolExecutor(arguments.q) as pool,
        ):
            ask(client, "What is 1 + 1?", arguments, stream=False)
            for way in ("solve", "stream"):
                begin = time.monotonic()
                work = [pool.submit(ask, client, text, arguments, stream=way == "stream") for text in texts]
                num_tokens = sum(one.result() for one in work)
                seconds = time.monotonic() - begin
                results[way] = {"tokens_per_s": num_tokens / seconds, "num_tokens": num_tokens, "seconds": seconds}
    finally:
        server.terminate()
        server.wait(timeout=120)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a small model and few questions: does it run?")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.q, arguments.n = (8, 8) if arguments.small else (40, 32)
    arguments.max_num_seqs, arguments.max_tokens = (64, 64) if arguments.small else (128, 256)
    arguments.way, arguments.clock = "engine", "wall"
    arguments.env = {"VLLM_CPU_KVCACHE_SPACE": "2", "OMP_NUM_THREADS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    if arguments.engine:
        os.environ.update(arguments.env)
        arguments.model = arguments.engine
        print(json.dumps(measure_engine(arguments, arguments.engine)))
        return
    runs: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        make_model(Path(scratch), 256 if arguments.small else 512, 4 if arguments.small else 8)
        arguments.model = scratch
        command = [sys.executable, __file__, "--engine", scratch, *(["--small"] if arguments.small else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"engine: {done.stderr[-2000:]}")
        runs["engine"] = json.loads(done.stdout.splitlines()[-1])
        runs |= measure_serving(arguments)
    for way, found in runs.items():
        print(way, {name: round(value, 3) for name, value in found.items()}, flush=True)
    limit = runs["engine"]["tokens_per_s"]
    print(
        json.dumps({f"{way}_over_engine": round(runs[way]["tokens_per_s"] / limit, 3) for way in ("solve", "stream")})
    )


if __name__ == "__main__":
    main()

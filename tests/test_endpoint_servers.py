"""Servers of real models as endpoints, each in processes of its own: `vllm serve` and `east-ray serve`."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from clusters import free_port
from sampling_runs import ask, questions, settings

from east_ray.answers import cluster, extract_answer
from east_ray.sampling.backends import Decoding
from east_ray.storage import Folder, locate

NUM_QUESTIONS, NUM_RESPONSES = 16, 48
GREEDY = Decoding(responses_per_question=1, temperature=0.0, max_tokens=48)
ENV = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}

#: The command `vllm`, which the CPU build lacks: it asks for the version of the package `vllm`, and its own is called
#: vllm-cpu.
VLLM = """
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser, command = FlexibleArgumentParser(), ServeSubcommand()
command.subparser_init(parser.add_subparsers())
args = parser.parse_args()
command.validate(args)
command.cmd(args)
"""


def sampled(seed: int, temperature: float = 1.0) -> Decoding:
    return Decoding(NUM_RESPONSES, temperature, 48, seed=seed)


@contextlib.contextmanager
def process(log: Path, command: Sequence[str], url: str, **env: str) -> Iterator[None]:
    """A server in a group of processes of its own, once it answers at `url`."""
    with log.open("w") as said:
        server = subprocess.Popen(command, env=os.environ | ENV | env, stdout=said, stderr=said, start_new_session=True)
        try:
            deadline = time.monotonic() + 400
            while True:
                assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(url, timeout=5, trust_env=False).status_code == 200:
                        break
                time.sleep(0.5)
            yield
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(60)
            with contextlib.suppress(ProcessLookupError):  # its group has ended with it
                os.killpg(server.pid, signal.SIGKILL)


def texts(folder: Path, model: Path, decoding: Decoding, **sections: Any) -> dict[str, list[str]]:
    """The texts of the responses to each question."""
    config = settings(folder, **sections)
    samples, aside, _ = ask(
        Folder(*locate(str(folder))), {"base": str(model)}, questions(NUM_QUESTIONS), config, decoding,
        keep_token_ids=True,
    )  # fmt: skip
    assert not aside
    if not sections:  # our engine; not every server gives token ids
        assert all(one["num_tokens"] == len(one["token_ids"]) for row in samples for one in row["responses"])
    return {row["question_id"]: [one["text"] for one in row["responses"]] for row in samples}


def clusters(found: dict[str, list[str]]) -> dict[str, list[int]]:
    """The sizes of the clusters of each question's answers."""
    return {
        name: sorted(Counter(cluster([extract_answer(text) for text in each])).values()) for name, each in found.items()
    }


def p_value(one: dict[str, list[str]], other: dict[str, list[str]]) -> float:
    """How often a random split of both samples of each question differs as much as these: a permutation test.

    The distance is the sum, over questions and texts, of the squared difference of how often a text occurs.
    """
    random, distances = np.random.default_rng(0), np.zeros(1000)
    for name, mine in one.items():
        every = mine + other[name]
        known = {text: place for place, text in enumerate(dict.fromkeys(every))}
        codes = np.array([known[text] for text in every])
        for number in range(len(distances)):
            mixed = codes if number == 0 else random.permutation(codes)
            halves = [np.bincount(half, minlength=len(known)) for half in np.split(mixed, 2)]
            distances[number] += ((halves[0] - halves[1]) ** 2).sum()
    return float((distances >= distances[0]).mean())


@pytest.fixture(scope="module")
def ours(
    quickstart: Path, tmp_path_factory: pytest.TempPathFactory, local_ray: None
) -> dict[str, dict[str, list[str]]]:
    """What our engine answers, greedily and sampled."""
    folder, model = tmp_path_factory.mktemp("ours"), quickstart / "model"
    return {name: texts(folder / name, model, decoding) for name, decoding in (("greedy", GREEDY), ("one", sampled(1)))}


@pytest.mark.drill
@pytest.mark.timeout(1200)
def test_vllm_serve_samples_as_our_engine_does(
    quickstart: Path, tmp_path: Path, ours: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Greedily the same texts; sampled with the same seeds nearly so; with others, texts of the same distribution.

    Two samples of one distribution are below p = 0.001 once in a thousand times; one at a higher temperature is.
    """
    model, port = quickstart / "model", free_port()
    command = [
        sys.executable, "-c", VLLM, "serve", str(model), "--served-model-name", "tiny", "--dtype", "float32",
        "--enforce-eager", "--max-model-len", "256", "--max-num-seqs", "64", "--host", "127.0.0.1", "--port", str(port),
        "--no-enable-chunked-prefill",
    ]  # fmt: skip
    with process(tmp_path / "log", command, f"http://127.0.0.1:{port}/v1/models"):
        endpoint = {"url": f"http://127.0.0.1:{port}/v1", "model": "tiny", "max_retries": 2}
        sections = {"sampling": {"backend": "endpoint"}, "engines": {"endpoint": endpoint}}
        decodings = {"greedy": GREEDY, "one": sampled(1), "two": sampled(2), "hot": sampled(2, 1.5)}
        theirs = {name: texts(tmp_path / name, model, decoding, **sections) for name, decoding in decodings.items()}
        sections["engines"] = {"endpoint": endpoint | {"api": "chat"}}
        assert texts(tmp_path / "chat", model, GREEDY, **sections) == theirs["greedy"]
    assert theirs["greedy"] == ours["greedy"]
    assert clusters(theirs["greedy"]) == clusters(ours["greedy"])
    pairs = [pair for name in ours["one"] for pair in zip(ours["one"][name], theirs["one"][name], strict=True)]
    same = sum(one == other for one, other in pairs) / len(pairs)
    found = {name: p_value(ours["one"], theirs[name]) for name in ("two", "hot")}
    with capsys.disabled():
        print(f"\n{same:.1%} of {len(pairs)} texts with the same seeds are the same; p = {found}")
    assert same >= 0.9, "the last bit of a sum depends on the batch, no more"
    assert found["two"] > 0.001 >= found["hot"]


@pytest.mark.drill
@pytest.mark.timeout(1200)
def test_east_ray_serve_is_an_endpoint(
    quickstart: Path, tmp_path: Path, ours: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no completions, wants a token, and allows at most 16 responses in one request here."""
    model, port, token = quickstart / "model", free_port(), "0123456789abcdef"
    command = [
        sys.executable, "-m", "east_ray", "serve", str(model), f"http.port={port}", "address=local", "name=tiny",
        "engine_args={dtype: float32, enforce_eager: true, max_model_len: 256}", 'env={VLLM_CPU_KVCACHE_SPACE: "1"}',
        "limits.max_responses=16", "limits.max_tokens=128",
    ]  # fmt: skip
    monkeypatch.setenv("TOKEN_OF_THE_TEST", token)  # of this process; the Ray of the session began without it
    with process(tmp_path / "log", command, f"http://127.0.0.1:{port}/health", EAST_RAY_TOKEN=token):
        endpoint = {"url": f"http://127.0.0.1:{port}/v1", "model": "tiny", "api_key_env": "TOKEN_OF_THE_TEST"}
        engines = {"endpoint": endpoint | {"max_retries": 2}, "env": {"TOKEN_OF_THE_TEST": token}}
        sections = {"sampling": {"backend": "endpoint"}, "engines": engines}
        assert texts(tmp_path / "greedy", model, GREEDY, **sections) == ours["greedy"]
        found = texts(tmp_path / "two", model, sampled(2), **sections)
    assert all(len(each) == NUM_RESPONSES for each in found.values())
    assert p_value(ours["one"], found) > 0.001

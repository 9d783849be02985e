"""Runs that sample from an endpoint: the pool, what is durable, kills and interrupts, and servers that are real."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from killed_runs import command, finish, kill_once
from openai_server import HANGS, OpenAIServer, Reply, obliging, serving
from sampling_runs import ask, questions, settings

from east_ray.config import InputError
from east_ray.ray_cluster import check_resources
from east_ray.records import SAMPLES
from east_ray.sampling.backends import Decoding
from east_ray.storage import Folder, locate

DECODING = Decoding(responses_per_question=3, temperature=1.0, max_tokens=8, seed=1)


def sections(server: OpenAIServer, **changes: Any) -> dict[str, Any]:
    """The sections of a run with the server as its endpoint."""
    endpoint = {"url": server.url, "model": "served", "api": "chat", "max_retries": 1, "timeout_s": 5} | changes
    return {"sampling": {"backend": "endpoint"}, "engines": {"endpoint": endpoint}}


def asked_of(body: Mapping[str, Any]) -> str:
    """The question in a request's messages."""
    return str(body["messages"][-1]["content"])


def test_a_pool_asks_an_endpoint(tmp_path: Path, local_ray: None) -> None:
    poisonous, too_long = (str(questions(40)["question"][number]) for number in (2, 33))

    def reply(path: str, body: dict[str, Any]) -> Reply:
        time.sleep(0.2)
        if asked_of(body) == poisonous:
            return 500, {}, b"oh"
        if asked_of(body) == too_long:
            return 400, {}, {"error": {"message": "the prompt is too long"}}
        status, headers, answer = obliging(path, body)  # type: ignore[misc]
        for choice in answer["choices"]:
            choice["token_ids"] = [7, 8]
        return status, headers, answer

    with serving(reply) as server:
        config = settings(tmp_path, **sections(server))
        folder = Folder(*locate(str(tmp_path / "samples")))
        samples, aside, _ = ask(folder, {"base": "m"}, questions(40), config, DECODING, keep_token_ids=True)
    assert {row["question_id"] for row in samples} == {f"q{i}" for i in range(40)} - {"q2", "q33"}
    reasons = {row["question_id"]: (row["reason"], row["detail"]) for row in aside}
    assert reasons == {"q2": ("engine_refused", "500 (oh)"), "q33": ("engine_refused", "the prompt is too long")}
    for row in samples:
        first = DECODING.seed_of(row["question_id"])
        assert [one["text"] for one in row["responses"]] == [str(first + i) for i in range(3)]
        assert all(
            (one["num_tokens"], one["token_ids"], one["logprob"]) == (2, [7, 8], None) for one in row["responses"]
        )
        assert row["prompt"] is None and row["num_prompt_tokens"] is None
    assert server.most_at_once > 8, "the questions of all tasks are in flight together"


def test_an_outage_ends_the_run_and_loses_nothing(tmp_path: Path, local_ray: None) -> None:
    is_gone = threading.Event()

    def reply(path: str, body: dict[str, Any]) -> Reply:
        return (502, {}, b"<h1>Bad gateway</h1>") if is_gone.is_set() else obliging(path, body)

    def until_gone(path: str, body: dict[str, Any]) -> Reply:
        if asked_of(body) in late:
            time.sleep(2.5)  # what was answered before is durable after a second
            is_gone.set()
        return reply(path, body)

    table = questions(16)
    late = set(table["question"].to_pylist()[12:])
    folder = Folder(*locate(str(tmp_path / "samples")))
    with serving(until_gone, reply) as server:
        config = settings(tmp_path, **sections(server))
        with pytest.raises(Exception, match=r"InputError: engines\.endpoint: the server at \S+ answers no more: 502"):
            ask(folder, {"base": "m"}, table, config, DECODING)
        is_gone.clear()
        late.clear()
        before = len(server.bodies())
        durable = durable_texts(folder)
        assert len(durable) >= 12
        samples, aside, _ = ask(folder, {"base": "m"}, table, config, DECODING)
        again = {asked_of(body) for body in server.bodies()[before:]}
    assert len(samples) == 16 and not aside
    assert {row["key"]: [one["text"] for one in row["responses"]] for row in samples}.items() >= durable.items()
    assert not again & {row["question"] for row in samples if row["key"] in durable}


def test_only_what_engines_do_is_asked_of_the_machine(
    tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as server:
        parts = sections(server)
    parts["engines"] |= {"num_gpus_per_engine": 8.0}
    served = {"base": parts["engines"]["endpoint"], "trained": parts["engines"]["endpoint"]}
    questions = {"path": "q.jsonl"}
    cluster = {"address": "local"}
    check_resources(settings(tmp_path, cluster=cluster, **parts), print)
    evaluated = settings(tmp_path, cluster=cluster, evaluation={"questions": questions, "endpoints": served}, **parts)
    check_resources(evaluated, print)
    on_engines = settings(tmp_path, cluster=cluster, evaluation={"questions": questions}, **parts)
    with pytest.raises(InputError, match=r"engines\.num_gpus_per_engine: 8 GPUs are needed in all"):
        check_resources(on_engines, print)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vllm" else find_spec(name))
    parts["engines"]["num_gpus_per_engine"] = 0.0
    on_engines = settings(tmp_path, cluster=cluster, evaluation={"questions": questions}, **parts)
    with pytest.raises(InputError, match=r"^evaluation: vllm is not installed; .* or use evaluation\.endpoints$"):
        check_resources(on_engines, print)


def durable_texts(samples: Folder) -> dict[str, list[str]]:
    """The texts of the responses that are on disk, by key, whether sampling is under way or at rest."""
    for _ in range(20):
        parts = samples.parts() + (samples / "tasks").parts()
        for task in (samples / "pending").names():
            parts += (samples / "pending" / task).parts()
        try:
            rows = samples.read(SAMPLES, ["key", "responses"], parts).to_pylist()
        except FileNotFoundError:  # a task has just come to its end
            continue
        return {row["key"]: [one["text"] for one in row["responses"]] for row in rows}
    raise AssertionError("the parts change too fast to be read")


# ------------------------------------------------------------------------------------------------------- the command


def write_job(folder: Path, server: OpenAIServer, num_questions: int, **changes: Any) -> list[str]:
    """The arguments of a run of the shipped questions' kind."""
    rows = [
        {
            "question": f"Tom has {i} pens. He gets {i % 7} more. How many pens has he?",
            "reference_answer": str(i + i % 7),
        }
        for i in range(num_questions)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "model": "no folder", "run_dir": str(folder / "run"), "questions": {"path": str(folder / "questions.jsonl")},
        "cluster": {"address": "local", "num_cpus": 2}, **sections(server, max_in_flight=4),
    }  # fmt: skip
    values["sampling"] |= {"responses_per_question": 4, "max_tokens": 8}
    (folder / "job.yaml").write_text(json.dumps(values | changes))
    return [str(folder / "job.yaml")]


def slowly(seconds: float) -> Callable[[str, dict[str, Any]], Reply]:
    def reply(path: str, body: dict[str, Any]) -> Reply:
        time.sleep(seconds)
        return obliging(path, body)

    return reply


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.drill
def test_a_killed_driver_loses_nothing_and_asks_nothing_durable_again(tmp_path: Path) -> None:
    """And the server is let go: the connections of the killed run are closed."""
    samples = Folder(*locate(str(tmp_path / "run" / "round_0" / "samples")))
    snapshots: list[dict[str, list[str]]] = []
    with serving(slowly(0.4)) as server:
        arguments = ["sample", *write_job(tmp_path, server, 96)]
        for so_many in (16, 48):
            kill_once(arguments, lambda least=so_many: len(durable_texts(samples)) >= least)  # type: ignore[misc]
            wait_until(lambda: server.num_open == 0)
            snapshots.append(durable_texts(samples))
            assert so_many <= len(snapshots[-1]) < 96
        before = len(server.bodies())
        finish(arguments)
        rows = samples.read(SAMPLES).to_pylist()
        again = Counter(asked_of(body) for body in server.bodies()[before:])
    assert len(rows) == 96 and all(len(row["responses"]) == 4 for row in rows)
    last = {row["key"]: [one["text"] for one in row["responses"]] for row in rows}
    for snapshot in snapshots:
        assert last.items() >= snapshot.items()
    durable = {row["question"] for row in rows if row["key"] in snapshots[-1]}
    assert again == Counter({row["question"] for row in rows} - durable), "each that was not durable, once"


@pytest.mark.drill
def test_an_interrupted_run_cancels_its_requests(tmp_path: Path) -> None:
    with serving(lambda path, body: HANGS) as server:
        arguments = command("sample", *write_job(tmp_path, server, 16))
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: len(server.bodies()) == 4)
        assert server.num_open >= 4
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        assert said == "error: stopped; the same command goes on where this one stopped\n"
        wait_until(lambda: server.num_open == 0, 10)


@pytest.mark.drill
def test_a_run_needs_no_vllm_where_endpoints_answer(
    quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever imports vllm fails. The key is in no file of the run."""
    (tmp_path / "without" / "vllm").mkdir(parents=True)
    (tmp_path / "without" / "vllm" / "__init__.py").write_text("raise ImportError('vllm is not to be imported')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "without"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("ITS_KEY", "a-key-that-nobody-sees")
    assert subprocess.run([sys.executable, "-c", "import vllm"], capture_output=True, check=False).returncode == 1

    def reply(path: str, body: dict[str, Any]) -> Reply:
        assert server.asked[-1][2] == "Bearer a-key-that-nobody-sees"
        answer = sum(int(word) for word in asked_of(body).split() if word.isdigit())
        status, headers, told = obliging(path, body)  # type: ignore[misc]
        for choice in told["choices"]:
            choice["message"]["content"] = f"It is \\boxed{{{answer + choice['index'] % 2}}}."
        return status, headers, told

    with serving(reply) as server:
        key = {"api_key_env": "ITS_KEY"}
        endpoint = sections(server, **key)["engines"]["endpoint"]
        evaluation = {"questions": {"path": str(tmp_path / "questions.jsonl"), "max_questions": 8}}
        changes = {
            "model": str(quickstart / "model"), "engines": {"endpoint": endpoint},
            "training": {"epochs": 1, "precision": "float32"},
            "evaluation": evaluation | {"endpoints": {"base": endpoint, "trained": endpoint}},
        }  # fmt: skip
        said = finish(["run", *write_job(tmp_path, server, 32, **changes)])
    assert "a-key-that-nobody-sees" not in said
    metrics = json.loads((tmp_path / "run" / "round_0" / "evaluation" / "metrics.json").read_text())
    assert metrics["accuracy"].keys() == {"base", "trained"}
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert len(files) > 20 and not [file for file in files if b"a-key-that-nobody-sees" in file.read_bytes()]

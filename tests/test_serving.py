"""A trained model as a service: engine arguments and start-up errors, and all of it with real vLLM and Ray Serve."""

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_directories import write_run

from east_ray.config import AnswersConfig, InputError
from east_ray.ray_cluster import demands, require
from east_ray.serving.deployment import cause, engine_arguments, start
from east_ray.serving.settings import ReplicasConfig, from_command_line, resolve

QUESTION = "Tom has 5 apples and buys 7 more. How many apples does Tom have now?"
TOKEN = "0123456789abcdef"


def test_the_engine_s_arguments_bound_the_length_and_leave_seeded_requests_alone(quickstart: Path) -> None:
    on_cpu = from_command_line(str(quickstart / "model"), ["limits.max_tokens=32", "engine_args.dtype=float32"])
    found = engine_arguments(resolve(on_cpu))
    assert found["override_generation_config"] == {"max_new_tokens": 32}
    assert (found["dtype"], found["enable_chunked_prefill"]) == ("float32", False)
    on_gpu = resolve(from_command_line(str(quickstart / "model"), ["replicas.num_gpus=1"]))
    assert "enable_chunked_prefill" not in engine_arguments(on_gpu)


def test_a_run_directory_brings_no_grader_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = write_run(tmp_path / "run", description="")
    directory.store(directory.config.model_copy(update={"answers": AnswersConfig(grader="of_the_run:Grader")}))
    (tmp_path / "run" / "of_the_run.py").write_text("class Grader: pass")
    monkeypatch.chdir(tmp_path / "run")
    with pytest.raises(InputError, match=r"answers.grader: of_the_run:Grader cannot be loaded: no module of_the_run"):
        start(from_command_line(str(tmp_path / "run"), ["address=local"]), print)


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (
            "TypeError: AsyncEngineArgs.__init__() got an unexpected keyword argument 'enforc_eager'",
            "TypeError: AsyncEngineArgs.__init__() got an unexpected keyword argument 'enforc_eager'",
        ),
        (
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            "  Value error, User-specified max_model_len (100000) is too great. [type=value_error, input_value=…]\n"
            "    For further information visit https://errors.pydantic.dev/2.14/v/value_error",
            "Value error, User-specified max_model_len (100000) is too great.",
        ),
        (
            "ValueError: No available memory for the cache blocks.\n\nDuring handling of the above exception, …\n\n"
            "RuntimeError: Engine core initialization failed. See root cause above.",
            "ValueError: No available memory for the cache blocks.",
        ),
        ("the worker died", "the worker died"),
    ],
)
def test_why_a_replica_cannot_begin_is_said_in_the_engine_s_words(ending: str, said: str) -> None:
    """What Ray Serve 2.60 says of a deployment whose replicas fail, with vLLM 0.29's reasons."""
    message = (
        "The deployment failed to start 3 times in a row. See controller logs for details. Error:\n"
        "ray::ServeReplica:east-ray:Server.initialize_and_get_metadata() (pid=16550)\n"
        '  File "replica.py", line 1928, in initialize\n    raise RuntimeError(traceback.format_exc()) from None\n'
        'RuntimeError: Traceback (most recent call last):\n  File "serving.py", line 382, in build\n'
    )
    assert cause(message + ending) == said


def test_replicas_that_no_machine_here_holds_are_refused_and_a_cluster_is_waited_for() -> None:
    said: list[str] = []
    replicas = ReplicasConfig(num_gpus=1, num_cpus=1, resources={"sampler": 1})
    asked = list(demands("replicas", replicas, 2))
    require(asked, {"CPU": 2.0, "GPU": 2.0, "sampler": 2.0}, is_cluster=False, say=said.append)
    with pytest.raises(InputError, match=r"replicas.num_gpus: 2 GPUs are needed in all, and this machine has 0"):
        require(asked, {"CPU": 2.0, "sampler": 2.0}, is_cluster=False, say=said.append)
    with pytest.raises(InputError, match=r"replicas.resources: 2 samplers are needed in all, and this machine has 1"):
        require(asked, {"CPU": 2.0, "GPU": 2.0, "sampler": 1.0}, is_cluster=False, say=said.append)
    assert said == []
    require(asked, {"CPU": 1.0, "GPU": 2.0, "sampler": 2.0}, is_cluster=True, say=said.append)
    assert said == ["waiting for nodes: replicas.num_cpus needs 2 CPUs in all, and the cluster has 1 now"]


# ------------------------------------------------------------------------------------------- with real vLLM and Ray


class Service:
    """`east-ray serve` as a process of its own, on a Ray of its own."""

    def __init__(self, model: Path, port: int, *overrides: str, token: str = "", folder: Path | None = None) -> None:
        self.url = f"http://127.0.0.1:{port}"
        engine = "{dtype: float32, enforce_eager: true, max_model_len: 256}"
        common = [f"http.port={port}", f"engine_args={engine}", 'env={VLLM_CPU_KVCACHE_SPACE: "1"}', "address=local"]
        common += ["name=tiny", "limits.max_responses=64", "limits.max_tokens=128"]
        environment = os.environ | {"EAST_RAY_TOKEN": token, "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "east_ray", "serve", str(model), *common, *overrides]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, cwd=folder
        )
        assert self.process.stdout is not None
        said = []
        while not said or said[-1].startswith("starting"):
            said.append(self.process.stdout.readline().decode())
        assert said[-1].startswith("serving tiny at"), said
        self.client = httpx.Client(base_url=self.url, timeout=120, headers={"Authorization": f"Bearer {token or None}"})

    def solve(self, **asked: Any) -> httpx.Response:
        return self.client.post("/v1/solve", json={"question": QUESTION, "max_tokens": 64} | asked)

    def stop(self) -> None:
        """Ends it as an operator would, and looks that nothing is left."""
        self.client.close()
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=120) == 0
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive, alive


@pytest.fixture(scope="module")
def service(quickstart: Path) -> Iterator[Service]:
    running = Service(quickstart / "model", 8123, "replicas.max_ongoing_requests=16", "replicas.max_queued_requests=32")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def openai_client(service: Service) -> Any:
    openai = pytest.importorskip("openai")
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0)


def test_the_openai_client_chats(openai_client: Any) -> None:
    assert [model.id for model in openai_client.models.list()] == ["tiny"]
    messages = [{"role": "user", "content": QUESTION}]
    found = openai_client.chat.completions.create(model="tiny", messages=messages, n=2, max_completion_tokens=16)
    assert len(found.choices) == 2 and 0 < found.usage.completion_tokens <= 32
    unbounded = openai_client.chat.completions.create(model="tiny", messages=messages, extra_body={"ignore_eos": True})
    assert unbounded.usage.completion_tokens == 128  # the server's limit
    asked = {"model": "tiny", "messages": messages, "temperature": 0, "max_completion_tokens": 16}
    whole = openai_client.chat.completions.create(**asked).choices[0].message.content
    parts = [
        part.choices[0].delta.content or "" for part in openai_client.chat.completions.create(**asked, stream=True)
    ]
    assert len(parts) > 2 and "".join(parts) == whole


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"n": 65}, "n: 65 requested"),
        ({"max_completion_tokens": 129}, "max_completion_tokens: 129 requested"),
        ({"extra_body": {"use_beam_search": True}}, "not served"),
        ({"messages": [{"role": "user", "content": "x " * 400}]}, "context length"),
        ({"temperature": -1}, "temperature"),
    ],
)
def test_the_openai_client_is_told_what_is_wrong(openai_client: Any, asked: dict[str, Any], said: str) -> None:
    import openai

    messages = [{"role": "user", "content": QUESTION}]
    with pytest.raises(openai.BadRequestError, match=said):
        openai_client.chat.completions.create(**{"model": "tiny", "messages": messages} | asked)
    with pytest.raises(openai.NotFoundError):
        openai_client.chat.completions.create(model="other", messages=messages)


def test_a_question_is_solved(service: Service) -> None:
    found = service.solve(responses=32, seed=1).json()
    assert found["num_responses"] == 32 and found["model"] == "tiny"
    assert sum(cluster["num_responses"] for cluster in found["clusters"]) == 32
    assert found["entropy"] >= 0 and found["num_tokens"] > 32 and found["num_prompt_tokens"] > 8
    assert found["answer"] == next(one["answer"] for one in found["clusters"] if one["answer"] is not None)
    withheld = service.solve(responses=32, seed=1, temperature=2, abstain_above=0).json()
    assert withheld["entropy"] > 0 and withheld["answer"] is None


def test_a_stream_arrives_in_parts(service: Service) -> None:
    with service.client.stream(
        "POST", "/v1/solve", json={"question": QUESTION, "responses": 16, "stream": True, "temperature": 2}
    ) as got:
        events = [json.loads(line.removeprefix("data: ")) for line in got.iter_lines() if line]
    assert len(events) > 1 and events[-1]["done"]
    assert sum(len(event["responses"]) for event in events) == events[-1]["solution"]["num_responses"] == 16


@pytest.mark.parametrize(
    ("method", "path", "content", "code"),
    [
        ("POST", "/v1/solve", b"{", 400),
        ("POST", "/v1/solve", b'{"question": ""}', 400),
        ("POST", "/v1/solve", b'{"question": "?", "respones": 2}', 400),
        ("POST", "/v1/solve", b'{"question": "?", "responses": 65}', 400),
        ("POST", "/v1/solve", json.dumps({"question": "x " * 400}).encode(), 400),
        ("POST", "/v1/solve", b'{"question": "\\ud800"}', 400),
        ("POST", "/v1/chat/completions", b'{"messages": [], "structured_outputs": []}', 400),
        ("POST", "/v1/solve", b"x" * (1 << 20) + b"x", 413),
        ("GET", "/v1/solve", b"", 405),
        ("POST", "/v1/chat/completions/batch", b"{}", 404),
        ("POST", "/v1/load_lora_adapter", b"{}", 404),
        ("POST", "/invocations", b"{}", 404),
        ("GET", "/docs", b"", 404),
        ("GET", "/health", b"", 200),
        ("GET", "/v1/models", b"", 200),
    ],
)
def test_every_answer_has_its_code(service: Service, method: str, path: str, content: bytes, code: int) -> None:
    answer = service.client.request(method, path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == code, answer.text
    assert "/tmp" not in answer.text and "Traceback" not in answer.text and "jobs/" not in answer.text
    if code >= 400:
        assert answer.json()["error"]["code"] == code


def test_when_all_are_busy_a_client_is_told_when_to_try_again(service: Service) -> None:
    with concurrent.futures.ThreadPoolExecutor(96) as pool:
        answers = list(pool.map(lambda _: service.solve(responses=16), range(96)))
    codes = {answer.status_code for answer in answers}
    assert codes == {200, 429}
    assert all(answer.headers["Retry-After"] == "2" for answer in answers if answer.status_code == 429)


def test_a_client_that_leaves_takes_its_responses_along(service: Service) -> None:
    """More than the engine holds at once: what is not dropped would be before the next request for half a minute."""
    endless = {"model": "tiny", "messages": [{"role": "user", "content": QUESTION}], "n": 64, "ignore_eos": True}

    def leave(_: int) -> None:
        with pytest.raises(httpx.ReadTimeout):
            service.client.post("/v1/chat/completions", json=endless, timeout=1)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(leave, range(16)))
    begin = time.monotonic()
    assert service.solve(responses=1, max_tokens=1).status_code == 200
    assert time.monotonic() - begin < 10


@pytest.mark.drill
def test_hundreds_of_requests_good_and_bad_are_all_answered_and_memory_stays(service: Service) -> None:
    """500 requests of 32 clients, then 500 more: what the first leave behind is there for good, the second add none."""
    chat = {"model": "tiny", "messages": [{"role": "user", "content": QUESTION}], "max_completion_tokens": 32}
    kinds: list[tuple[str, Any, int]] = [
        ("/v1/solve", {"question": QUESTION, "responses": 8, "max_tokens": 32}, 200),
        ("/v1/solve", {"question": QUESTION, "responses": 4, "max_tokens": 32, "stream": True}, 200),
        ("/v1/chat/completions", chat, 200),
        ("/v1/chat/completions", chat | {"stream": True}, 200),
        ("/v1/solve", {"question": QUESTION, "responses": 65}, 400),
        ("/v1/solve", {"question": "x " * 400}, 400),
        ("/v1/chat/completions", chat | {"temperature": "hot"}, 400),
        ("/v1/chat/completions", chat | {"model": "other"}, 404),
        ("/v1/solve", {"question": "x" * (1 << 20)}, 413),
        ("/v1/nothing", {}, 404),
    ]

    def ask(number: int) -> tuple[int, int, str]:
        path, body, expected = kinds[number % len(kinds)]
        if number % 50 == 0:  # some leave before their answer
            with pytest.raises(httpx.TimeoutException):
                service.client.post(path, json=body | {"responses": 64, "temperature": 2}, timeout=0.02)
            return expected, expected, ""
        answer = service.client.post(path, json=body)
        for _ in range(10):  # the queue may be full for a while on a slow machine; clients are told when to try again
            if answer.status_code != 429:
                break
            time.sleep(float(answer.headers["Retry-After"]))
            answer = service.client.post(path, json=body)
        return expected, answer.status_code, answer.text

    def memory() -> int:
        mine = psutil.Process(service.process.pid).children(recursive=True)
        return sum(
            one.memory_info().rss for one in mine if any("ServeReplica" in word for word in one.cmdline())
        ) + sum(one.memory_info().rss for one in mine if any("EngineCore" in word for word in one.cmdline()))

    used = []
    for _ in range(2):
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            found = list(pool.map(ask, range(500)))
        assert not [one for one in found if one[0] != one[1]]
        assert all(text.endswith("data: [DONE]\n\n") for _, _, text in found[3::10])
        assert all('"done": true' in text for _, _, text in found[1::10])
        used.append(memory())
    assert used[1] < used[0] + (32 << 20), used


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([-1, 0, 1, 2**31, 2**63, 2**70, "json", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.drill
@pytest.mark.parametrize(
    ("path", "schema"), [("/v1/chat/completions", "ChatCompletionRequest"), ("/v1/solve", "SolveRequest")]
)
def test_no_body_makes_the_server_fail(service: Service, path: str, schema: str) -> None:
    fields = service.client.get("/openapi.json").json()["components"]["schemas"][schema]["properties"]
    valid = {"question": QUESTION, "responses": 2} if path == "/v1/solve" else {"n": 1}
    valid |= {"max_tokens": 4} | ({} if path == "/v1/solve" else {"messages": [{"role": "user", "content": QUESTION}]})
    codes: Counter[int] = Counter()

    @settings(max_examples=400, suppress_health_check=list(HealthCheck))
    @given(st.dictionaries(st.sampled_from(sorted(fields)), JSON, max_size=3) | st.none(), JSON)
    def fuzz(changed: dict[str, Any] | None, other: Any) -> None:
        body = json.dumps(other if changed is None else valid | changed)
        answer = service.client.post(path, content=body, headers={"Content-Type": "application/json"})
        codes[answer.status_code] += 1
        assert answer.status_code < 500, (body, answer.text)

    fuzz()
    assert codes[200] > 20 and codes[400] > 100, codes


@pytest.mark.drill
@pytest.mark.parametrize("what", ["replica", "engine"])
def test_what_is_killed_under_load_loses_no_request(service: Service, what: str) -> None:
    mine = psutil.Process(service.process.pid).children(recursive=True)
    (replica,) = [one for one in mine if any("ServeReplica" in word for word in one.cmdline())]
    engines = replica.children(recursive=True)
    victim = replica if what == "replica" else next(one for one in engines if "EngineCore" in "".join(one.cmdline()))
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        pending = [pool.submit(service.solve, responses=16) for _ in range(24)]
        streams = [pool.submit(service.solve, responses=16, stream=True) for _ in range(4)]
        time.sleep(1)
        victim.kill()
        codes = [one.result().status_code for one in pending]
        ends = [json.loads(one.result().text.rstrip().rpartition("data: ")[2]) for one in streams]
    assert all(end.get("done") or end["error"]["code"] == 503 for end in ends), ends
    assert set(codes) <= {200, 503} and codes.count(200) >= 12
    assert service.solve(responses=4).status_code == 200
    assert not [one for one in engines if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.drill
def test_a_token_is_needed_and_requests_have_their_time_and_are_finished_before_it_ends(
    quickstart: Path, tmp_path: Path
) -> None:
    """With a grader of the user's own, from the folder in which the command is given."""
    (tmp_path / "own_grader.py").write_text(
        "class Length:\n"
        "    def __init__(self, unit): self.unit = unit\n"
        "    def read(self, response, question): return f'{len(question.question)} {self.unit}'\n"
        "    def keys(self, answers, question): return answers\n"
    )
    own = "answers={grader: own_grader:Length, grader_args: {unit: characters}}"
    running = Service(quickstart / "model", 8124, "http.request_timeout_s=6", own, token=TOKEN, folder=tmp_path)
    try:
        attempts = (running.solve(responses=4) for _ in range(20))
        found = next(answer for answer in attempts if answer.status_code != 408)  # the first may take long
        assert (found.status_code, found.json()["answer"]) == (200, f"{len(QUESTION)} characters")
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            assert httpx.get(f"{running.url}/v1/models", headers=headers).status_code == 401
        assert httpx.get(f"{running.url}/").status_code == httpx.get(f"{running.url}/health").status_code == 200
        endless = {"model": "tiny", "messages": [{"role": "user", "content": QUESTION}], "n": 64, "ignore_eos": True}
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: running.client.post("/v1/chat/completions", json=endless), range(16)))
            late = [answer for answer in answers if answer.status_code == 408]
            assert late and all(answer.status_code in (200, 408) for answer in answers)
            # What was late is no longer worked on: all of it would take the engine half a minute.
            begin = time.monotonic()
            while running.solve(responses=1).status_code != 200:
                assert time.monotonic() - begin < 15
            last = pool.submit(running.client.post, "/v1/chat/completions", json=endless | {"n": 16})
            time.sleep(0.3)
            assert not last.done()
            running.process.send_signal(signal.SIGTERM)
            assert last.result().status_code == 200 and len(last.result().json()["choices"]) == 16
    finally:
        running.stop()

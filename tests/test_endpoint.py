"""The backend endpoint against servers that misbehave: what is asked, what is asked again, and what is refused."""

import contextlib
import email.utils
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from openai_server import HANGS, OpenAIServer, Reply, choices, obliging, serving

from east_ray import doctor
from east_ray.config import EndpointConfig, EnginePoolConfig, InputError, PromptConfig
from east_ray.config.base import differences
from east_ray.config.files import dump, parse, resolve
from east_ray.plan.estimate import uses_engines
from east_ray.sampling import backends
from east_ray.sampling.backends import Decoding, RequestRefusedError, Response
from east_ray.sampling.backends.endpoint import Endpoint
from east_ray.sampling.backends.openai_protocol import (
    Dialect,
    NotTheProtocolError,
    read_responses,
    request_body,
    retry_after_s,
    said_in,
)

FOUR = Decoding(responses_per_question=4, temperature=1.0, max_tokens=8, seed=10)
UNSEEDED = Decoding(responses_per_question=4, temperature=1.0, max_tokens=8)
ASKED = [{"role": "user", "content": "2 + 2?"}]


@contextlib.contextmanager
def asking(
    url: str, *, model: str = "served", api: str = "chat", prompt: Any = None, decoding: Any = None, **changes: Any
) -> Iterator[Endpoint]:
    """The backend; the run's model is no folder, so only messages can be sent unless a test gives a tokenizer."""
    changes = {"max_retries": 3, "timeout_s": 20.0} | changes
    endpoint = EndpointConfig(url=url, model=model, api=api, **changes)
    args = backends.endpoint_args(
        endpoint, "engines.endpoint", prompt or PromptConfig(), decoding or UNSEEDED, is_served=False
    )
    backend = Endpoint("no folder", EnginePoolConfig().of_endpoint(endpoint), args)
    yield backend
    backend.close()


def texts(backend: Endpoint, decoding: Decoding = FOUR, first: int = 0) -> list[str]:
    return [one.text for one in backend.ask("m", ASKED, decoding, first).result(30)]


def once(status: int, content: Any, **headers: str) -> Callable[[str, dict[str, Any]], Reply]:
    """The first answer; then obliging ones."""
    left = [(status, headers, content)]
    return lambda path, body: left.pop() if left else obliging(path, body)


# -------------------------------------------------------------------------------------------------------- the protocol


def test_the_body_of_a_request() -> None:
    decoding = Decoding(8, 0.7, 99, top_p=0.9, top_k=5, seed=7)
    body = request_body("m", [1, 2], decoding, 3, 4, Dialect("/completions", "ids"), {"x": 1})
    neutral = {"min_p": 0.0, "repetition_penalty": 1.0, "return_token_ids": True}
    expected = {"model": "m", "prompt": [1, 2], "n": 4, "temperature": 0.7, "top_p": 0.9, "max_tokens": 99, "top_k": 5}
    assert body == expected | neutral | {"seed": 10}
    narrow = Dialect("/chat/completions", "messages", frozenset({*neutral, "top_k"}), "max_completion_tokens")
    body = request_body("m", ASKED, Decoding(8, 0.0, 99), 0, 1, narrow, {"x": 1})
    assert body == {
        "model": "m", "messages": ASKED, "temperature": 0.0, "top_p": 1.0, "max_completion_tokens": 99,
        "chat_template_kwargs": {"x": 1},
    }  # fmt: skip
    text = request_body("m", "<s>Hi", Decoding(8, 1.0, 9), 0, 1, Dialect("/completions", "text"), {})
    assert text["add_special_tokens"] is False and text["top_k"] == -1 and "stop" not in text
    more = Decoding(8, 1.0, 9, logprobs=True, stop=["\n\n"], params={"min_p": 0.1, "ignore_eos": True})
    body = request_body("m", [1], more, 0, 1, Dialect("/completions", "ids"), {})
    assert (body["stop"], body["min_p"], body["ignore_eos"], body["logprobs"]) == (["\n\n"], 0.1, True, 0)
    assert request_body("m", ASKED, more, 0, 1, Dialect("/chat/completions", "messages"), {})["logprobs"] is True


def test_the_responses_of_an_answer() -> None:
    def read(*choices: dict[str, Any], **told: Any) -> tuple[list[Response], set[str]]:
        return read_responses(json.dumps({"choices": choices, **told}).encode())

    cut = {
        "index": 1,
        "text": "b",
        "finish_reason": "LENGTH",
        "token_ids": [4, 5],
        "logprobs": {"token_logprobs": [-1, -2]},
    }
    first = {
        "index": 0,
        "message": {"content": "a"},
        "finish_reason": None,
        "logprobs": {"content": [{"logprob": -0.5}]},
    }
    unusual = {"index": 2, "message": {"content": "c"}, "finish_reason": "content_filter"}
    assert read(cut, unusual, first) == (
        [Response("a", "stop", None, -0.5), Response("b", "length", 2, -3.0, [4, 5])],
        {"content_filter"},
    )
    alone = {"message": {"content": None}, "finish_reason": "stop"}
    assert read(alone, usage={"completion_tokens": 7}) == ([Response("", "stop", 7)], set())
    assert read({"text": "\ud800", "finish_reason": "stop"})[0][0].text == "?"
    for content in (
        b"",
        b'{"choices": [{"te',
        b"<html>",
        b"[]",
        b"{}",
        b'{"choices": [{}]}',
        b'{"choices": [{"text": 1}]}',
    ):
        with pytest.raises(NotTheProtocolError, match="no answer of OpenAI's protocol"):
            read_responses(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"error": {"message": "too\nlong"}}, "too long"),
        ({"object": "error", "message": "too long"}, "too long"),
        ({"detail": [{"msg": "too long"}]}, "too long"),
        ({"error": "too long"}, "too long"),
        (b"<html><b>Bad</b> gateway</html>", "Bad gateway"),
        (b"", "no message"),
    ],
)
def test_what_an_error_says(content: Any, said: str) -> None:
    assert said_in(content if isinstance(content, bytes) else json.dumps(content).encode()) == said


def test_when_to_ask_again() -> None:
    assert retry_after_s({"retry-after": "1.5"}) == 1.5
    in_a_minute = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert retry_after_s({"retry-after": in_a_minute}) == pytest.approx(60, abs=2)
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after_s({"retry-after": "1e9"}) == 3600
    assert retry_after_s({"retry-after": "soon"}) is None and retry_after_s({}) is None


# -------------------------------------------------------------------------------------------------- how many responses


def test_all_responses_come_of_one_request_with_seeds() -> None:
    with serving() as server, asking(server.url) as backend:
        assert texts(backend) == ["10", "11", "12", "13"]
        assert texts(backend, first=32) == ["42", "43", "44", "45"]
        assert [body["seed"] for body in server.bodies()] == [10, 42]
        assert "seed" not in request_of(server, backend, Decoding(4, 1.0, 8))


def request_of(server: OpenAIServer, backend: Endpoint, decoding: Decoding) -> dict[str, Any]:
    texts(backend, decoding)
    return server.bodies()[-1]


def capped(most: int, *, by_refusing: bool = False) -> Callable[[str, dict[str, Any]], Reply]:
    def reply(path: str, body: dict[str, Any]) -> Reply:
        if by_refusing and body.get("n", 1) > most:
            return 400, {}, {"error": {"message": f"n: at most {most}"}}
        return obliging(path, body | {"n": min(most, body.get("n", 1))})

    return reply


@pytest.mark.parametrize("by_refusing", [False, True])
@pytest.mark.parametrize("most", [1, 3, 8])
def test_a_server_that_gives_fewer_at_once_is_asked_for_the_rest(most: int, by_refusing: bool) -> None:
    decoding = Decoding(16, 1.0, 8, seed=100)
    with serving(capped(most, by_refusing=by_refusing)) as server, asking(server.url) as backend:
        for _ in range(3):
            before = len(server.bodies())
            assert texts(backend, decoding) == [str(seed) for seed in range(100, 116)]
        at_once = [body.get("n", 1) for body in server.bodies()[before:]]
        known = {1: 1, 3: 2 if by_refusing else 3, 8: 8}[most]  # what is refused is halved
        assert sum(at_once) == 16 and max(at_once) == known, "it has learnt how many"


def test_one_short_answer_is_no_rule() -> None:
    with serving(once(200, choices(1, first=10, is_chat=True))) as server, asking(server.url) as backend:
        assert texts(backend) == ["10", "11", "12", "13"]
        assert texts(backend) == ["10", "11", "12", "13"]
        assert [body.get("n", 1) for body in server.bodies()] == [4, 3, 4]


def test_a_server_that_gives_none_is_left_after_so_many_requests() -> None:
    def none(path: str, body: dict[str, Any]) -> Reply:
        return 200, {}, choices(1, is_chat=True, finish_reason="content_filter")

    with serving(none) as server, asking(server.url, max_retries=1) as backend:
        with pytest.raises(RequestRefusedError, match=r"^the server ended each response with content_filter$"):
            texts(backend)
        assert len(server.bodies()) == 2


def test_more_responses_than_asked_are_left() -> None:
    with serving(lambda path, body: (200, {}, choices(9, is_chat=True))) as server, asking(server.url) as backend:
        assert texts(backend) == ["0", "1", "2", "3"]


# --------------------------------------------------------------------------------------------------------- asked again


CUT = json.dumps(choices(4, is_chat=True)).encode()[:50]


@pytest.mark.parametrize(
    "fault",
    [
        (429, {}, {"error": {"message": "slow down"}}),
        (500, {}, b"<html>oh</html>"),
        (503, {"Retry-After": "0"}, b""),
        (200, {}, CUT),
        (200, {"Content-Length": "9999"}, CUT),  # the connection ends before the content does
        (200, {}, b'{"object": "something else"}'),
        None,  # the connection is cut
    ],
)
def test_what_fails_for_no_fault_of_its_own_is_asked_again(fault: Reply) -> None:
    left = [fault, fault]

    def reply(path: str, body: dict[str, Any]) -> Reply:
        answer = left.pop() if left else obliging(path, body)
        return (
            answer
            if answer is None or "Content-Length" not in answer[1]
            else (answer[0], answer[1] | {"Connection": "close"}, answer[2])
        )

    with serving(reply) as server, asking(server.url, timeout_s=3.0) as backend:
        assert texts(backend) == ["10", "11", "12", "13"]
        assert len(server.bodies()) == 3


def test_the_server_says_when_it_wants_to_be_asked_again() -> None:
    with serving(once(429, b"", **{"Retry-After": "2"})) as server, asking(server.url) as backend:
        begin = time.monotonic()
        assert texts(backend) == ["10", "11", "12", "13"]
        assert 2 <= time.monotonic() - begin < 4


def test_a_hanging_request_ends() -> None:
    def hangs_once(path: str, body: dict[str, Any]) -> Reply:
        return HANGS if len(server.bodies()) == 1 else obliging(path, body)

    with serving(hangs_once) as server, asking(server.url, timeout_s=1.0) as backend:
        assert texts(backend) == ["10", "11", "12", "13"]


def test_a_question_that_never_gets_an_answer_is_set_aside_while_others_are_answered() -> None:
    def reply(path: str, body: dict[str, Any]) -> Reply:
        return (500, {}, b"") if body["messages"][0]["content"] == "poison" else obliging(path, body)

    with serving(reply) as server, asking(server.url, max_retries=1) as backend:
        poison = backend.ask("m", [{"role": "user", "content": "poison"}], FOUR)
        assert texts(backend) == ["10", "11", "12", "13"]
        with pytest.raises(RequestRefusedError, match=r"^500 \(no message\)$"):
            poison.result(20)


def test_a_server_that_answers_nothing_any_more_ends_the_run() -> None:
    is_gone = threading.Event()

    def trivial(path: str, body: dict[str, Any]) -> Reply:
        return (503, {}, b"restarting") if is_gone.is_set() else obliging(path, body)

    with serving(trivial, trivial) as server, asking(server.url, max_retries=1) as backend:
        assert texts(backend)
        is_gone.set()
        with pytest.raises(InputError) as error:
            texts(backend)
        assert str(error.value) == (f"engines.endpoint: the server at {server.url} answers no more: 503 (restarting)")


def test_too_many_requests_become_fewer() -> None:
    """A server that answers at most two at a time: nothing is set aside, and few requests are in vain."""
    lock, busy, refused = threading.Lock(), 0, 0

    def reply(path: str, body: dict[str, Any]) -> Reply:
        nonlocal busy, refused
        with lock:
            if busy == 2:
                refused += 1
                return 429, {"Retry-After": "0.05"}, b""
            busy += 1
        time.sleep(0.01)
        with lock:
            busy -= 1
        return obliging(path, body)

    with serving(reply) as server, asking(server.url, max_in_flight=32, max_retries=8) as backend:
        futures = [backend.ask("m", ASKED, FOUR) for _ in range(64)]
        assert all(len(future.result(60)) == 4 for future in futures)
    assert refused < 128  # at most 64 * 9 could be


def test_no_more_requests_are_in_flight_than_may_be_and_all_that_may() -> None:
    def reply(path: str, body: dict[str, Any]) -> Reply:
        """Once as many as may be are here, however slow the machine is; the first question comes alone."""
        deadline = time.monotonic() + 10
        while futures and server.most_at_once < 24 and time.monotonic() < deadline:
            time.sleep(0.01)
        return obliging(path, body)

    futures: list[Any] = []
    with serving(reply) as server, asking(server.url, max_in_flight=24) as backend:
        before = threading.active_count()
        futures += [backend.ask("m", ASKED, FOUR) for _ in range(72)]
        server_threads = 24
        assert threading.active_count() <= before + server_threads + 1
        assert all(len(future.result(30)) == 4 for future in futures)
        assert server.most_at_once == 24


def test_what_the_server_refuses_of_one_question_is_its_reason() -> None:
    def reply(path: str, body: dict[str, Any]) -> Reply:
        return 400, {}, {"error": {"message": "This model's maximum context length is 8 tokens."}}

    with serving(reply) as server, asking(server.url) as backend:
        with pytest.raises(RequestRefusedError, match=r"^This model's maximum context length is 8 tokens\.$"):
            texts(backend)
        assert [body.get("n", 1) for body in server.bodies()] == [4, 2, 1]


def test_the_end_cancels_what_is_in_flight() -> None:
    with serving(lambda path, body: HANGS) as server:
        with asking(server.url) as backend:
            futures = [backend.ask("m", ASKED, FOUR) for _ in range(8)]
            until(lambda: len(server.bodies()) == 8)
            assert server.num_open >= 8
        assert all(future.cancelled() for future in futures)
        until(lambda: server.num_open == 0)


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ------------------------------------------------------------------------------------------------ what is understood


def strict(
    *unknown: str, says: str = "Unrecognized request argument supplied: {}"
) -> Callable[[str, dict[str, Any]], Reply]:
    """A server that refuses these fields, the first of them by name."""

    def reply(path: str, body: dict[str, Any]) -> Reply:
        found = [name for name in unknown if name in body]
        return (400, {}, {"error": {"message": says.format(found[0])}}) if found else obliging(path, body)

    return reply


@pytest.mark.parametrize("says", ["Unrecognized request argument supplied: {}", "a field has a wrong value"])
def test_fields_that_a_server_refuses_are_left_out(says: str) -> None:
    reply = strict("return_token_ids", "min_p", says=says)
    with serving(reply, reply) as server, asking(server.url) as backend:
        assert len(texts(backend)) == 4
        (body,) = server.bodies()
        assert "min_p" not in body and "return_token_ids" not in body
        assert ("seed" in body and "top_k" in body) == ("{}" in says)


def test_a_length_by_its_newer_name() -> None:
    reply = strict("max_tokens", says="Unsupported parameter: '{}'. Use 'max_completion_tokens' instead.")
    with serving(reply, reply) as server, asking(server.url) as backend:
        assert len(texts(backend)) == 4
        assert server.bodies()[0]["max_completion_tokens"] == 8


@pytest.mark.parametrize(
    ("field", "decoding"),
    [
        ("top_k", Decoding(4, 1.0, 8, top_k=3)),
        ("seed", FOUR),
        ("stop", Decoding(4, 1.0, 8, stop=["."])),
        ("logprobs", Decoding(4, 1.0, 8, logprobs=True)),
        ("min_p", Decoding(4, 1.0, 8, params={"min_p": 0.1})),
        ("ignore_eos", Decoding(4, 1.0, 8, params={"ignore_eos": True})),
    ],
)
def test_what_a_run_asks_for_is_not_left_out(field: str, decoding: Decoding) -> None:
    """A server that refuses it is refused before anything is asked, also where another way of asking is tried first."""

    def reply(path: str, body: dict[str, Any]) -> Reply:
        if path == "/v1/completions":
            return 400, {}, {"error": {"message": "not here"}}
        is_known = field not in body or (field == "top_k" and body["top_k"] == -1) or body[field] == 0.0
        return obliging(path, body) if is_known else (400, {}, {"error": {"message": f"unknown: {field}"}})

    with serving(reply, reply) as server:
        with asking(server.url) as backend:
            assert len(texts(backend, UNSEEDED)) == 4
        refuses = pytest.raises(
            InputError, match=rf"^sampling: the server at .* refuses what the run asks for: 400 \(unknown: {field}\)$"
        )
        with refuses, asking(server.url, decoding=decoding):
            pass


@pytest.mark.parametrize("name", ["model", "stream", "max_completion_tokens"])
def test_a_parameter_that_is_none_of_decoding_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"^sampling\.params: {name} is no parameter of decoding"):
        Endpoint.checked_params({"min_p": 0.1, name: 1})


def test_a_question_is_not_set_aside_for_an_outage() -> None:
    left = [None] * 5 + [(503, {}, b"")] * 5

    def reply(path: str, body: dict[str, Any]) -> Reply:
        return left.pop() if left else obliging(path, body)

    with serving(reply) as server, asking(server.url, max_retries=4) as backend:
        assert texts(backend) == ["10", "11", "12", "13"]


def test_a_server_that_always_has_too_much_to_do_for_the_run_ends_it() -> None:
    too_large = {"error": {"message": "Request too large: limit 10, requested 12"}}
    refuses = pytest.raises(InputError, match=r"answers a trivial question, but not the run's: 429 \(Request too lar")
    with serving(lambda path, body: (429, {"Retry-After": "0"}, too_large)) as server:  # noqa: SIM117 - its address
        with asking(server.url, max_retries=1) as backend, refuses:
            texts(backend)


def test_responses_that_were_dropped_repeat_no_seed_and_teach_nothing() -> None:
    def reply(path: str, body: dict[str, Any]) -> Reply:
        status, headers, answer = obliging(path, body)  # type: ignore[misc]
        if len(answer["choices"]) > 1:
            answer["choices"][1]["finish_reason"] = "content_filter"
        return status, headers, answer

    with serving(reply) as server, asking(server.url) as backend:
        for _ in range(3):
            found = texts(backend)
            assert len(found) == 4 and found[:3] == ["10", "12", "13"]
        asked = [(body.get("n", 1), body.get("seed")) for body in server.bodies()]
        assert asked == [(4, 10), (1, None)] * 3


def counting(tokens: int, **lacks: bool) -> Callable[[str, dict[str, Any]], Reply]:
    """A server whose chat template makes so many tokens of a question; it may lack a path, or token ids."""

    def reply(path: str, body: dict[str, Any]) -> Reply:
        if lacks.get("completions") and path == "/v1/completions":
            return 404, {}, {"detail": "Not Found"}
        if lacks.get("chat") and path == "/v1/chat/completions":
            return 400, {}, {"error": {"message": "the model has no chat template"}}
        if lacks.get("ids") and isinstance(body.get("prompt"), list):
            return 422, {}, {"detail": "prompt: expected a text"}
        status, headers, answer = obliging(path, body)  # type: ignore[misc]
        if "usage" in answer:
            answer["usage"]["prompt_tokens"] = tokens
        return status, headers, answer

    return reply


@pytest.mark.parametrize(
    ("api", "more_tokens", "lacks", "form"),
    [
        ("auto", 0, {}, "ids"),
        ("auto", 2, {}, "messages"),  # another model's template
        ("auto", 0, {"chat": True}, "ids"),
        ("auto", 0, {"completions": True}, "messages"),
        ("auto", 0, {"ids": True}, "messages"),
        ("completions", 2, {}, "ids"),
        ("completions", 0, {"ids": True}, "text"),
        ("chat", 0, {}, "messages"),
    ],
)
def test_the_form_of_the_prompt(
    quickstart: Path, api: str, more_tokens: int, lacks: dict[str, bool], form: str
) -> None:
    from east_ray.questions.prompts import load_tokenizer, render_prompt, tokenize

    tokenizer = load_tokenizer(str(quickstart / "model"))
    ours = len(tokenize(tokenizer, render_prompt(tokenizer, "1 + 1 = ?", PromptConfig())))
    reply = counting(ours + more_tokens, **lacks)
    with serving(reply, reply) as server, asking(server.url, api=api, tokenizer=str(quickstart / "model")) as backend:
        assert backend.prompt_form == form
        assert backend.tokenizer == str(quickstart / "model")


def test_a_response_has_the_room_that_the_context_leaves(quickstart: Path) -> None:
    """As with our engines. A server refuses a length that goes beyond."""

    def trivial(path: str, body: dict[str, Any]) -> Reply:
        return obliging(path, body) if body else (200, {}, {"data": [{"id": "served", "max_model_len": 100}]})

    with (
        serving(trivial=trivial) as server,
        asking(server.url, api="completions", tokenizer=str(quickstart / "model")) as backend,
    ):
        for num_tokens in (60, 99, 100):
            backend.ask("m", [1] * num_tokens, Decoding(1, 1.0, 30)).result(9)
        assert [body["max_tokens"] for body in server.bodies()] == [30, 1, 30], (
            "what has no room at all is refused there"
        )


def test_without_a_tokenizer_messages_are_sent() -> None:
    with (
        serving() as server,
        asking(server.url, api="auto", prompt=PromptConfig(template_variables={"x": 1})) as backend,
    ):
        assert backend.prompt_form == "messages"
        assert texts(backend) and server.bodies()[0]["chat_template_kwargs"] == {"x": 1}
    with (
        serving() as server,
        pytest.raises(InputError, match="neither a folder with a Hugging Face model nor"),
        asking(server.url, api="completions"),
    ):
        pass


# -------------------------------------------------------------------------------------------- refused, in one sentence


def refused(url: str, **changes: Any) -> str:
    endpoint = EndpointConfig(
        url=url, **{"model": "served", "api": "chat", "max_retries": 0, "timeout_s": 2.0} | changes
    )
    args = backends.endpoint_args(endpoint, "engines.endpoint", PromptConfig(), UNSEEDED, is_served=False)
    with pytest.raises(InputError) as error:
        Endpoint.check("m", EnginePoolConfig().of_endpoint(endpoint), args)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_no_server() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as held:
        url = f"http://127.0.0.1:{held.server_port}/v1"
    assert refused(url).startswith(f"engines.endpoint.url: no server answers at {url} (ConnectError")
    with serving(trivial=lambda path, body: HANGS) as server:
        assert refused(server.url, timeout_s=0.5) == (
            f"engines.endpoint.url: no server answers at {server.url} (no answer within 0.5 s)"
        )


@pytest.mark.parametrize(
    "reply", [(200, {}, b"<html>Welcome</html>"), (404, {}, b"<html>Not here</html>"), (302, {"Location": "/"}, b"")]
)
def test_another_protocol(reply: Reply) -> None:
    with serving(trivial=lambda path, body: reply) as server:
        said = refused(server.url)
    assert said.startswith(f"engines.endpoint: the server at {server.url} does not speak OpenAI's protocol, or not for")


def test_a_model_that_is_not_there() -> None:
    def trivial(path: str, body: dict[str, Any]) -> Reply:
        return (404, {}, {"error": {"message": "The model does not exist."}}) if body else obliging(path, body)

    with serving(trivial=trivial) as server:
        assert refused(server.url, model="mine") == (
            f"engines.endpoint.model: the server at {server.url} has no model 'mine'; it has served"
        )


def test_a_key_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent, and stands in no message, even where the server repeats it."""

    def guarded(path: str, body: dict[str, Any]) -> Reply:
        sent = server.asked[-1][2]
        return obliging(path, body) if sent == "Bearer right-key" else (401, {}, {"error": {"message": f"bad: {sent}"}})

    with serving(guarded, guarded) as server:
        said = refused(server.url)
        assert said.startswith(f"engines.endpoint.api_key_env: the server at {server.url} asks for a key: 401 (bad")
        monkeypatch.setenv("ITS_KEY", "wrong-key")
        said = refused(server.url, api_key_env="ITS_KEY")
        assert "refuses the key in ITS_KEY: 401 (bad: Bearer ...)" in said and "wrong-key" not in said
        monkeypatch.setenv("ITS_KEY", " right-key\n")
        with asking(server.url, api_key_env="ITS_KEY") as backend:
            assert texts(backend)
            assert "right-key" not in repr(vars(backend)) + repr(backend.args)
    monkeypatch.delenv("ITS_KEY")
    assert "api_key_env: the environment variable ITS_KEY is not set on " in refused(
        "http://h/v1", api_key_env="ITS_KEY"
    )
    monkeypatch.setenv("ITS_KEY", "not a\nkey")
    assert "ITS_KEY has characters that no key has" in refused("http://h/v1", api_key_env="ITS_KEY")


def test_no_proxy_leads_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with serving() as server, asking(server.url) as backend:
        assert texts(backend)


def test_settings_of_an_endpoint_that_evaluates() -> None:
    def run(**changes: Any) -> Any:
        there = {"url": "http://127.0.0.1:1/v1", "model": "m"} | changes
        return resolve(RUN | {"evaluation": {"questions": {"path": "e"}, "endpoints": {"base": there}}})

    assert differences(run(), run(url="http://127.0.0.2:1/v1", max_in_flight=3, timeout_s=9)) == []
    (said,) = differences(run(), run(model="other"))
    assert said == "evaluation.endpoints.base.model: 'm' there, 'other' now"
    with pytest.raises(InputError, match=r"^evaluation\.endpoints\.base\.modle: unknown key; did you mean model\?$"):
        run(modle="x")


def test_keys_of_samples_cover_the_name_and_the_word_for_its_version(tmp_path: Path) -> None:
    def identity(url: str = "http://a/v1", *, is_served: bool = False, **changes: Any) -> str:
        endpoint = EndpointConfig(url=url, **{"model": "served"} | changes)
        args = backends.endpoint_args(endpoint, "x", PromptConfig(), UNSEEDED, is_served=is_served)
        return Endpoint.identity(str(tmp_path), args)

    assert identity(is_served=True) != identity(is_served=True, api="chat"), "this setting may change before the end"
    assert identity() == identity("http://b/v1", api_key_env="KEY", max_in_flight=1, api="chat")
    assert len({identity(), identity(model="other"), identity(fingerprint="v2")}) == 3


# ------------------------------------------------------------------------------------------------------- the settings


ENDPOINT = {"url": "http://127.0.0.1:1/v1", "model": "served"}
RUN = {
    "model": "m", "run_dir": "r", "questions": {"path": "q"}, "sampling": {"backend": "endpoint"},
    "engines": {"endpoint": ENDPOINT}, "evaluation": {"questions": {"path": "e"}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("engines.endpoint=null", "engines.endpoint: missing; sampling.backend: endpoint needs its url and model"),
        ("sampling.backend=vllm", "engines.endpoint: given, but sampling.backend is vllm; make that endpoint"),
        ("rounds=2", "rounds: an endpoint has one model, and each round samples from the model of the one before"),
        ("engines.endpoint.url=127.0.0.1:8000", "engines.endpoint: url: expected http://HOST:PORT/v1"),
        ("engines.endpoint.url='http://h:x/v1'", "engines.endpoint: url: expected http://HOST:PORT/v1"),
        ("engines.endpoint.url='https://user:secret@h/v1'", "engines.endpoint: url: nothing may stand before the host"),
        ("engines.endpoint.url='https://h/v1?key=secret'", "engines.endpoint: url: nothing may stand before the host"),
        ("engines.endpoint.api_key_env=sk-secret", "api_key_env: expected the name of an environment variable"),
        ("engines.endpoint.api=responses", "'responses' given, expected 'auto', 'completions' or 'chat'"),
        ("engines.endpoint.max_in_flight=0", "engines.endpoint.max_in_flight: 0 given, expected greater than or"),
        ("evaluation.endpoints={traind: {url: 'http://h/v1', model: x}}", "traind; did you mean trained?"),
    ],
)
def test_bad_settings_are_one_sentence(override: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        resolve(RUN, [override])
    assert message in str(error.value) and "\n" not in str(error.value) and "secret" not in str(error.value)


def test_more_rounds_and_models_of_each() -> None:
    served = {"base": ENDPOINT, "trained": ENDPOINT}
    values = RUN | {"sampling": {}, "engines": {}, "rounds": 2}
    assert resolve(values | {"evaluation": RUN["evaluation"] | {"endpoints": {"base": ENDPOINT}}})
    with pytest.raises(InputError, match=r"evaluation\.endpoints\.trained: every round makes another model"):
        resolve(values | {"evaluation": RUN["evaluation"] | {"endpoints": served}})
    with pytest.raises(InputError, match=r"evaluation\.endpoints: cannot be combined with compare"):
        resolve(
            values | {"rounds": 1, "compare": {}, "evaluation": RUN["evaluation"] | {"endpoints": {"base": ENDPOINT}}}
        )
    named = {"sharp": ENDPOINT} | served
    config = resolve(RUN | {"variants": {"sharp": {}}, "evaluation": RUN["evaluation"] | {"endpoints": named}})
    assert not config.evaluates_on_engines and not config.samples_on_engines


def test_a_stored_configuration_is_the_same() -> None:
    served = {"base": ENDPOINT, "trained": ENDPOINT | {"api_key_env": "KEY", "timeout_s": 1.5}}
    config = resolve(RUN | {"evaluation": RUN["evaluation"] | {"endpoints": served}})
    assert parse(dump(config), "config.yaml") == config
    moved = resolve(RUN, ["engines.endpoint.url=https://h/v1", "engines.endpoint.max_in_flight=1"])
    other = resolve(RUN, ["engines.endpoint.model=other", "engines.endpoint.fingerprint=v2"])
    assert differences(resolve(RUN), moved) == []
    assert [said.partition(":")[0] for said in differences(resolve(RUN), other)] == [
        "engines.endpoint.model", "engines.endpoint.fingerprint",
    ]  # fmt: skip


def test_who_needs_engines() -> None:
    config = resolve(RUN)
    assert (config.samples_on_engines, config.evaluates_on_engines) == (False, True)
    assert config.on_engines().sampling.backend == "vllm" and config.on_engines().engines.endpoint is None
    pool = config.engines.of_endpoint(EndpointConfig(**ENDPOINT))
    assert (pool.max_engines, pool.num_gpus_per_engine) == (1, 0) and pool.num_cpus_per_engine < 1
    with pytest.raises(
        InputError, match=r"sampling\.backend_args: endpoint has none, found url; its own are engines.end"
    ):
        backends.load(resolve(RUN, ["sampling.backend_args={url: x}"]).sampling)


def test_a_plan_and_the_doctor_demand_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    served = {"base": ENDPOINT, "trained": ENDPOINT}
    evaluated = RUN | {"evaluation": RUN["evaluation"] | {"endpoints": served}}
    assert uses_engines(resolve(RUN)) and not uses_engines(resolve(evaluated))
    found = metadata.version

    def version(name: str) -> str:
        if name.startswith("vllm"):
            raise metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(metadata, "version", version)
    (finding,) = [one for one in doctor.examine(None) if one.subject == "vllm"]
    assert finding.ok and finding.detail.startswith("none: models are asked at endpoints alone")

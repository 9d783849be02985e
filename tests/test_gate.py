"""What stands before the engines: the token, strangers, large bodies, and replicas that die under a request."""

import asyncio
import hashlib
import json
from collections.abc import Callable

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from east_ray.serving.gate import Failover, Gate

TOKEN = "correct horse battery"


async def echo(request: Request) -> JSONResponse:
    return JSONResponse({"num_bytes": len(await request.body())})


ROUTES = [Route(path, echo, methods=["GET", "POST"]) for path in ("/", "/health", "/v1/solve")]


def client(token: str | None = None, *, host: str = "127.0.0.1", allow_without_token: bool = False) -> TestClient:
    digest = None if token is None else hashlib.sha256(token.encode()).hexdigest()
    options = {"token_digest": digest, "allow_without_token": allow_without_token, "max_body_bytes": 1024}
    return TestClient(Gate(Starlette(routes=ROUTES), **options), client=(host, 50000), base_url="http://127.0.0.1:8000")


@pytest.mark.parametrize("sent", ["", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}é", "Bearer"])
def test_a_token_is_needed_whole(sent: str) -> None:
    refused = client(TOKEN).get("/v1/solve", headers={"Authorization": sent.encode()} if sent else {})
    assert refused.status_code == 401 and refused.headers["WWW-Authenticate"] == "Bearer"
    assert refused.json()["error"]["type"] == "AuthenticationError"


def test_a_token_opens_from_anywhere() -> None:
    for scheme in ("Bearer", "bearer"):
        answer = client(TOKEN, host="203.0.113.9").get("/v1/solve", headers={"Authorization": f"{scheme} {TOKEN}"})
        assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/", "/health"])
def test_the_page_and_the_health_are_public(path: str) -> None:
    assert client(TOKEN, host="203.0.113.9").get(path).status_code == 200


@pytest.mark.parametrize(("host", "code"), [("127.0.0.1", 200), ("::1", 200), ("192.0.2.7", 403), ("2001:db8::1", 403)])
def test_without_a_token_only_this_machine_is_answered(host: str, code: int) -> None:
    assert client(host=host).get("/v1/solve").status_code == code
    assert client(host=host, allow_without_token=True).get("/v1/solve").status_code == 200


@pytest.mark.parametrize("path", ["/", "/health", "/v1/solve"])
def test_a_large_body_is_refused_with_and_without_a_length(path: str) -> None:
    assert client().post(path, content=b"x" * 1024).json() == {"num_bytes": 1024}
    assert client().post(path, content=b"x" * 1025).status_code == 413
    assert client().post(path, content=iter([b"x" * 512] * 3)).status_code == 413
    assert client().post(path, content=b"x", headers={"Content-Length": "-1"}).status_code == 413


def failing(times: int, app: ASGIApp) -> tuple[ASGIApp, list[bytes]]:
    """An application that ends without a word, as Ray Serve's proxy does when a replica dies, so many times."""
    bodies: list[bytes] = []

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        if len(bodies) < times:
            bodies.append(await Request(scope, receive).body())
            return
        await app(scope, receive, send)

    return proxy, bodies


@pytest.mark.parametrize("times", [0, 1])
def test_another_replica_gets_the_whole_request(times: int) -> None:
    proxy, bodies = failing(times, Starlette(routes=ROUTES))
    answer = TestClient(Failover(proxy)).post("/v1/solve", content=iter([b"one ", b"two"]))
    assert answer.json() == {"num_bytes": 7}
    assert bodies == [b"one two"] * times


def test_after_two_dead_replicas_the_client_shall_try_again() -> None:
    proxy, bodies = failing(2, Starlette(routes=ROUTES))
    answer = TestClient(Failover(proxy)).post("/v1/solve", content=b"one")
    assert (answer.status_code, len(bodies)) == (503, 2)
    assert answer.headers["Retry-After"].isdigit()
    assert answer.json()["error"]["code"] == 503


def breaks_off(content_type: bytes) -> Callable[..., object]:
    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", content_type)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})

    return proxy


def test_a_broken_stream_ends_with_an_error_event() -> None:
    answer = TestClient(Failover(breaks_off(b"text/event-stream; charset=utf-8"))).post("/v1/solve")  # type: ignore[arg-type]
    *_, last, end = answer.text.split("\n\n")
    assert end == "" and json.loads(last.removeprefix("data: "))["error"]["code"] == 503


def test_a_client_that_has_gone_is_not_asked_for_again() -> None:
    attempts = []

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        attempts.append(await receive())

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "path": "/v1/solve", "headers": []}
    asyncio.run(Failover(proxy)(scope, receive, send))  # type: ignore[arg-type]
    assert len(attempts) == 1


@pytest.mark.parametrize(
    ("host", "origin", "code"),
    [
        ("localhost:8000", None, 200),
        ("127.0.0.1", None, 200),
        ("[::1]:8000", "http://[::1]:8000", 200),
        ("evil.example:8000", None, 403),  # a name that has come to mean this machine
        ("evil.example:8000", "http://evil.example:8000", 403),
        ("127.0.0.1:8000", "http://evil.example", 403),
        ("127.0.0.1:8000", "null", 403),
        ("[", None, 403),
        ("", None, 403),
    ],
)
def test_a_page_from_elsewhere_cannot_have_a_browser_ask(host: str, origin: str | None, code: int) -> None:
    headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
    assert client().get("/v1/solve", headers=headers).status_code == code
    assert client(TOKEN).get("/v1/solve", headers=headers | {"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_what_an_error_says_stays_inside(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("the prompt was: secret")

    gate = Gate(fails, token_digest=None, allow_without_token=True, max_body_bytes=1024)
    answer = TestClient(gate).get("/v1/solve")
    assert (answer.status_code, answer.json()["error"]["message"]) == (500, "internal error")
    assert "/v1/solve failed: RuntimeError (" in caplog.text and "test_gate.py" in caplog.text
    assert "secret" not in caplog.text


def test_clients_cannot_command_the_proxy_nor_see_its_routes() -> None:
    seen: list[list[tuple[bytes, bytes]]] = []

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["headers"])
        await PlainTextResponse("fine")(scope, receive, send)

    asking = TestClient(Failover(proxy))
    asking.get(
        "/v1/models", headers={"X-Request-Timeout-Seconds": "0", "x-request-disconnect-disabled": "?1", "X-A": "b"}
    )
    names = {name.lower() for name, _ in seen[0]}
    assert b"x-a" in names and not names & {b"x-request-timeout-seconds", b"x-request-disconnect-disabled"}
    assert asking.get("/-/routes").status_code == 404 and asking.get("/-/healthz").text == "fine"
    assert len(seen) == 2


def test_the_proxy_holds_no_endless_body() -> None:
    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        """Reads to the end, as Ray's does, and ends when the client has gone."""
        while (message := await receive())["type"] == "http.request":
            if not message.get("more_body", False):
                await PlainTextResponse("fine")(scope, receive, send)
                return

    asking = TestClient(Failover(proxy, max_held_bytes=5))
    assert asking.post("/v1/solve", content=iter([b"one", b"tw"])).text == "fine"
    assert asking.post("/v1/solve", content=iter([b"one", b"two"])).status_code == 413


@pytest.mark.parametrize(("status", "kind"), [(408, "TimeoutError"), (429, "RateLimitError")])
def test_what_the_proxy_says_becomes_an_error_of_the_protocol(status: int, kind: str) -> None:
    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        said = PlainTextResponse("num_queued_requests=3", status_code=status, headers={"Retry-After": "2"})
        await said(scope, receive, send)

    answer = TestClient(Failover(proxy)).get("/v1/solve")
    assert answer.status_code == status and answer.headers.get("Retry-After") == ("2" if status == 429 else None)
    assert answer.json()["error"]["type"] == kind and "num_queued" not in answer.text


def test_an_answer_of_the_replica_s_own_is_passed_on_as_it_is() -> None:
    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse({"error": "busy"}, status_code=503, headers={"Retry-After": "7"})(scope, receive, send)

    answer = TestClient(Failover(proxy)).get("/v1/solve")
    assert (answer.status_code, answer.json(), answer.headers["Retry-After"]) == (503, {"error": "busy"}, "7")


@pytest.mark.parametrize("listens", [True, False])
def test_what_is_cancelled_is_no_longer_worked_on(listens: bool) -> None:
    """As Ray Serve cancels what is late. vLLM's handlers work in a task of their own and listen for a disconnect."""
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        if not listens:
            await work()
            return
        working, listening = asyncio.create_task(work()), asyncio.create_task(receive())
        done, pending = await asyncio.wait([working, listening], return_when=asyncio.FIRST_COMPLETED)
        assert done == {listening} and (await listening)["type"] == "http.disconnect"
        for task in pending:
            task.cancel()
        await asyncio.wait(pending)

    async def ask() -> None:
        messages = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Message:
            return messages.pop() if messages else await asyncio.Future()

        async def send(message: Message) -> None:
            raise AssertionError(message)

        gate = Gate(app, token_digest=None, allow_without_token=False, max_body_bytes=1024)
        scope = {"type": "http", "path": "/health", "headers": [], "client": ("127.0.0.1", 5)}
        asking = asyncio.create_task(gate(scope, receive, send))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.sleep(0)

    asyncio.run(ask())
    assert ended == ["cancelled"]

"""What stands between clients and engines, as ASGI middlewares: who may ask, how much, and what if a replica dies.

`Gate` wraps the application inside each replica; `Failover` wraps Ray Serve's proxy, which outlives replicas. Both
answer errors as the OpenAI protocol has them. Neither Ray nor vLLM is imported.
"""

import asyncio
import hashlib
import hmac
import json
import logging
import traceback
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from east_ray.serving.settings import is_loopback

#: Paths that anybody may read: the page, which holds nothing of its own, and whether the engine is well.
_PUBLIC = ("/", "/health")
#: Seconds after which a client should try again when a replica has died under its request.
_RETRY_AFTER_S = 2
#: Seconds that a handler has to end by itself when its client has gone.
_DISCONNECT_S = 0.5
#: Times that a request whose replica has died is given to another one.
_MAX_FAILOVERS = 1
#: Largest body that a proxy holds for a request; the limit that is set is the replica's to say.
_MAX_HELD_BYTES = 1 << 26
#: What Ray Serve's proxy itself answers, in words of its own: status, type and message of the error in its place.
_OF_THE_PROXY = {
    404: (503, "ServiceUnavailableError", "no model is served now; try again later"),
    408: (408, "TimeoutError", "the request took longer than this server allows"),
    429: (429, "RateLimitError", "this server has all the requests that it can hold; try again later"),
    503: (503, "ServiceUnavailableError", "no replica can answer now; try again later"),
}
#: Headers by which a client could have Ray wait without end or work on after it has gone, or vLLM prefer it.
_CONTROL_HEADERS = frozenset(
    [b"x-request-timeout-seconds", b"x-request-disconnect-disabled", b"serve-multiplexed-model-id",
     b"serve_multiplexed_model_id", b"x-request-id", b"x-vllm-priority", b"x-data-parallel-rank"]
)  # fmt: skip
#: Of Ray Serve's proxy: it lists the applications of the cluster.
_HIDDEN = ("/-/routes",)

logger = logging.getLogger("ray.serve")


def error_response(code: int, kind: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as the OpenAI protocol has it."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return JSONResponse({"error": error}, status_code=code, headers=headers)


class Gate:
    """Answers 401 without the bearer token, 403 to strangers where there is no token, 413 to bodies that are too large.

    The digest of what a client sends is compared in constant time, so neither length nor prefix of the token shows.
    """

    def __init__(
        self, app: ASGIApp, *, token_digest: str | None, allow_without_token: bool, max_body_bytes: int
    ) -> None:
        self._app, self._token_digest = app, token_digest
        self._allow_without_token, self._max_body_bytes = allow_without_token, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["path"] not in _PUBLIC and (refusal := self._refusal(scope, headers)):
            await refusal(scope, receive, send)
            return
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._max_body_bytes:
            await self._too_large()(scope, receive, send)
            return
        num_bytes = 0

        async def receive_counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_body_bytes:  # a chunked body has no length beforehand
                raise HTTPException(413, self._said_too_large)
            return message

        has_begun = False

        async def send_noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await _run(self._app, scope, receive_counted, send_noted)
        except Exception as error:  # what it says may hold a prompt
            frames = "; ".join(f"{one.filename}:{one.lineno}" for one in traceback.extract_tb(error.__traceback__)[-3:])
            logger.error("%s failed: %s (%s)", scope["path"], type(error).__name__, frames)
            if not has_begun:
                await error_response(500, "InternalServerError", "internal error")(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        if self._token_digest is not None:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            digest = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).hexdigest()
            if hmac.compare_digest(digest, self._token_digest) and scheme.lower() == "bearer":
                return None
            challenge = {"WWW-Authenticate": "Bearer"}
            return error_response(401, "AuthenticationError", "a valid bearer token is needed", challenge)
        client = scope.get("client")
        if self._allow_without_token:
            return None
        if client is None or not is_loopback(client[0]):
            said = "this server has no token and so answers its own machine only"
            return error_response(403, "PermissionDeniedError", said)
        # A web page elsewhere can have a browser of this machine ask, under a name that it makes mean this machine.
        host, origin = headers.get("host", ""), headers.get("origin")
        if is_loopback(_hostname(host)) and (origin is None or urlsplit(origin).netloc == host):
            return None
        said = "this server has no token and so answers only who asks for localhost or a loopback address"
        return error_response(403, "PermissionDeniedError", said)

    @property
    def _said_too_large(self) -> str:
        return f"the body is larger than {self._max_body_bytes} bytes"

    def _too_large(self) -> JSONResponse:
        return error_response(413, "BadRequestError", self._said_too_large)


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _run(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run an application which, if this is cancelled, learns that its client has gone.

    Ray Serve cancels what is late or no longer waited for. vLLM's handlers work in a task of their own, which a
    cancellation does not reach (the engine would work on), but a disconnect does.
    """
    gone = asyncio.Event()

    async def receive_until_gone() -> Message:
        tasks = asyncio.ensure_future(receive()), asyncio.ensure_future(gone.wait())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return tasks[0].result() if tasks[0].done() else {"type": "http.disconnect"}
        finally:
            for task in tasks:
                task.cancel()

    running = asyncio.ensure_future(app(scope, receive_until_gone, send))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        gone.set()
        try:
            await asyncio.wait([running], timeout=_DISCONNECT_S)
        finally:
            running.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody waits for it
            running.cancel()
        raise


class Failover:
    """Gives a request to another replica if the one that had it is gone, and answers 503 if that does not help.

    Ray Serve's proxy then returns without a word. Responses are sampled, so asking again does no harm. A stream that
    has begun cannot be taken back: it ends with an error event, which clients of the OpenAI protocol raise. What the
    proxy says in plain text, with numbers of its queues, becomes an error of the protocol too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] in _HIDDEN:
            await error_response(404, "NotFoundError", "Not Found")(scope, receive, send)
            return
        scope = {**scope, "headers": [one for one in scope["headers"] if one[0].lower() not in _CONTROL_HEADERS]}
        received: list[Message] = []
        begun = ended = is_stream = is_replaced = is_too_large = False
        num_bytes = 0

        async def receive_bounded() -> Message:
            nonlocal num_bytes, is_too_large
            message = await receive()
            num_bytes += len(message.get("body", b""))
            is_too_large = is_too_large or num_bytes > _MAX_HELD_BYTES
            return {"type": "http.disconnect"} if is_too_large else message

        async def send_noted(message: Message) -> None:
            nonlocal begun, ended, is_stream, is_replaced
            if is_replaced or (is_too_large and not begun):
                return
            if message["type"] == "http.response.start":
                begun, headers = True, Headers(raw=message["headers"])
                is_stream = headers.get("content-type", "").startswith("text/event-stream")
                if message["status"] in _OF_THE_PROXY and headers.get("content-type", "").startswith("text/plain"):
                    is_replaced = True
                    status, kind, said = _OF_THE_PROXY[message["status"]]
                    retry = {"Retry-After": headers.get("retry-after", str(_RETRY_AFTER_S))} if status != 408 else None
                    await error_response(status, kind, said, retry)(scope, receive, send)
                    return
                received.clear()  # it cannot be begun again
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        for _ in range(1 + _MAX_FAILOVERS):
            await self._app(scope, _again(received, receive_bounded), send_noted)
            if is_too_large and not begun:
                await error_response(413, "BadRequestError", "the body is too large")(scope, receive, send)
                return
            if begun or any(message["type"] == "http.disconnect" for message in received):
                break
        else:
            said = "the replica that worked on this request is gone; try again"
            retry = {"Retry-After": str(_RETRY_AFTER_S)}
            await error_response(503, "ServiceUnavailableError", said, retry)(scope, receive, send)
            return
        if begun and not ended and is_stream:
            said = "the stream has ended early: it took too long, or its replica is gone; try again"
            error = {"message": said, "code": 503}
            event = f"data: {json.dumps({'error': error | {'type': 'ServiceUnavailableError', 'param': None}})}\n\n"
            await send({"type": "http.response.body", "body": event.encode()})


def _again(received: list[Message], receive: Receive) -> Receive:
    """Receives what was received before, and then what follows, which it notes down."""
    before = iter(list(received))

    async def receive_again() -> Message:
        for message in before:
            return message
        message = await receive()
        received.append(message)
        return message

    return receive_again


def proxy_middlewares() -> list[Middleware]:
    """What Ray Serve's proxies put around themselves; named in RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH."""
    return [Middleware(Failover)]

"""What stands between clients and engines, as ASGI middlewares: access, size limits, and failover when a replica dies.

`Gate` wraps the application inside each replica. `Failover` wraps Ray Serve's proxy, which outlives replicas. Both
send errors in the form of the OpenAI protocol. Neither Ray nor vLLM is imported.
"""

import asyncio
import hashlib
import hmac
import logging
import traceback
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from east_ray.serving.settings import is_loopback

#: Paths that need no token: the page, which holds no data, and the engine's health.
_PUBLIC = ("/", "/health")
#: Seconds after which a client should try again when a replica died while it worked on the client's request.
_RETRY_AFTER_S = 2
#: Largest body that a proxy holds for a request; `limits.max_body_bytes` is enforced by the replica.
_MAX_HELD_BYTES = 1 << 26
#: Ray Serve's own plain-text errors by status -> status, type and message of the error that replaces them.
_PROXY_ERRORS = {
    404: (503, "ServiceUnavailableError", "no model is served now; try again later"),
    408: (408, "TimeoutError", "the request took longer than this server allows"),
    429: (429, "RateLimitError", "this server's queue is full; try again later"),
    503: (503, "ServiceUnavailableError", "no replica can answer now; try again later"),
}
_RAY_HEADERS = (b"x-request-timeout-seconds", b"x-request-disconnect-disabled", b"x-request-id")
_MODEL_HEADERS = (b"serve-multiplexed-model-id", b"serve_multiplexed_model_id")
#: Headers with which a client could make Ray wait forever or continue after a disconnect, or vLLM prefer its requests.
_CONTROL_HEADERS = frozenset((*_RAY_HEADERS, *_MODEL_HEADERS, b"x-vllm-priority", b"x-data-parallel-rank"))

logger = logging.getLogger("ray.serve")


def error_response(code: int, kind: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error in the form of the OpenAI protocol."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return JSONResponse({"error": error}, status_code=code, headers=headers)


class Gate:
    """Answers 401 without the bearer token, 403 to other machines if there is no token, and 413 to large bodies.

    The digest of the client's token is compared in constant time, so the time reveals neither length nor prefix.
    """

    def __init__(
        self, app: ASGIApp, *, token_digest: str | None, allow_without_token: bool, max_body_bytes: int
    ) -> None:
        self._app, self._token_digest = app, token_digest
        self._allow_without_token, self._max_body_bytes = allow_without_token, max_body_bytes
        self._too_large = f"the body is larger than {max_body_bytes} bytes"

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
            await error_response(413, "BadRequestError", self._too_large)(scope, receive, send)
            return
        num_bytes, has_begun = 0, False

        async def receive_counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_body_bytes:  # a chunked body does not announce its length
                raise HTTPException(413, self._too_large)
            return message

        async def send_noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await _run(self._app, scope, receive_counted, send_noted)
        except Exception as error:  # its message may contain a prompt, so only its type and place are logged
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
            return error_response(401, "AuthenticationError", "a valid bearer token is required", challenge)
        if self._allow_without_token:
            return None
        client = scope.get("client")
        if client is None or not is_loopback(client[0]):
            said = "this server has no token, so it answers only clients on its own machine"
            return error_response(403, "PermissionDeniedError", said)
        # DNS rebinding: a web page of another site can make a browser on this machine send requests here, under a host
        # name that resolves to this machine.
        host, origin = headers.get("host", ""), headers.get("origin")
        if is_loopback(_hostname(host)) and (origin is None or urlsplit(origin).netloc == host):
            return None
        said = "this server has no token, so it answers only requests to localhost or a loopback address"
        return error_response(403, "PermissionDeniedError", said)


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _run(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run an application. If this is cancelled, the application receives a disconnect first.

    Ray Serve cancels requests that are late or whose client has disconnected. vLLM's handlers work in a task of their
    own. A cancellation does not reach that task, so the engine would work on; a disconnect does.
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
            await asyncio.wait([running], timeout=0.5)  # seconds that the handler has to end by itself
        finally:
            running.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody awaits its result
            running.cancel()
        raise


class Failover:
    """Gives a request to another replica if its replica has died, and answers 503 if that one dies too.

    Ray Serve's proxy returns without an answer when a replica dies. Responses are sampled, so asking again does no
    harm. A stream that has begun cannot be repeated: it ends with an error event, which OpenAI clients raise as an
    error. The proxy's own plain-text errors, which show its queue lengths, are replaced by errors of the protocol.
    """

    def __init__(self, app: ASGIApp, *, max_held_bytes: int = _MAX_HELD_BYTES) -> None:
        self._app, self._max_held_bytes = app, max_held_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == "/-/routes":  # where Ray Serve's proxy lists the cluster's applications
            await error_response(404, "NotFoundError", "Not Found")(scope, receive, send)
        else:
            headers = [header for header in scope["headers"] if header[0].lower() not in _CONTROL_HEADERS]
            exchange = _Exchange({**scope, "headers": headers}, receive, send, self._max_held_bytes)
            await exchange.run(self._app)


class _Exchange:
    """One request and what has been sent for it, over one or more attempts."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_held_bytes: int) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._max_held_bytes, self._num_bytes = max_held_bytes, 0
        self._received: list[Message] = []  # replayed to the next replica
        self._has_begun = self._has_ended = self._is_stream = self._is_replaced = False

    async def run(self, app: ASGIApp) -> None:
        """Run the proxy's application until it has answered or the client has gone; again after a replica's death."""
        for _ in range(2):  # replicas
            await app(self._scope, self._replay(), self._forward)
            if self._has_begun:
                if self._is_stream and not self._has_ended:
                    said = "the stream ended early: it took too long or its replica has died; try again"
                    error = bytes(error_response(503, "ServiceUnavailableError", said).body)
                    await self._send({"type": "http.response.body", "body": b"data: " + error + b"\n\n"})
                return
            if self._is_too_large:
                await self._answer(error_response(413, "BadRequestError", "the body is too large"))
                return
            if any(message["type"] == "http.disconnect" for message in self._received):
                return
        said = "the replica that worked on this request has died; try again"
        retry = {"Retry-After": str(_RETRY_AFTER_S)}
        await self._answer(error_response(503, "ServiceUnavailableError", said, retry))

    @property
    def _is_too_large(self) -> bool:
        return self._num_bytes > self._max_held_bytes

    def _replay(self) -> Receive:
        """Receives what earlier attempts have received, then the following messages, which it keeps."""
        earlier = iter(list(self._received))

        async def receive() -> Message:
            for message in earlier:
                return message
            message = await self._receive()
            self._num_bytes += len(message.get("body", b""))
            if self._is_too_large:
                message = {"type": "http.disconnect"}
            self._received.append(message)
            return message

        return receive

    async def _forward(self, message: Message) -> None:
        if self._is_replaced or (self._is_too_large and not self._has_begun):
            return
        if message["type"] == "http.response.start":
            self._has_begun, headers = True, Headers(raw=message["headers"])
            content_type = headers.get("content-type", "")
            self._is_stream = content_type.startswith("text/event-stream")
            if message["status"] in _PROXY_ERRORS and content_type.startswith("text/plain"):
                self._is_replaced = True
                status, kind, said = _PROXY_ERRORS[message["status"]]
                retry = {"Retry-After": headers.get("retry-after", str(_RETRY_AFTER_S))} if status != 408 else None
                await self._answer(error_response(status, kind, said, retry))
                return
            self._received.clear()  # an answer that has begun is never started again
        self._has_ended = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def _answer(self, response: JSONResponse) -> None:
        await response(self._scope, self._receive, self._send)


def proxy_middlewares() -> list[Middleware]:
    """The middlewares of Ray Serve's proxies; named in RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH."""
    return [Middleware(Failover)]

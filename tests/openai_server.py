"""A small server of OpenAI's protocol on this machine, which misbehaves as a test says."""

import contextlib
import http.server
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

#: (status, headers, content) of an answer; the content is JSON unless it is bytes. None: the connection is cut.
Reply = tuple[int, Mapping[str, str], Any] | None
#: No answer, for as long as the client waits.
HANGS: Reply = (0, {}, b"")


def choices(count: int, *, first: int = 0, is_chat: bool = False, **fields: Any) -> dict[str, Any]:
    """An answer with so many responses, whose texts are the numbers from `first` on."""
    each = []
    for index in range(count):
        text = str(first + index)
        spoken = {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
        each.append({"index": index, "finish_reason": "stop", **spoken, **fields})
    return {"object": "text_completion", "choices": each, "usage": {"prompt_tokens": 3, "completion_tokens": 2 * count}}


def obliging(path: str, body: dict[str, Any]) -> Reply:
    """Answers as it should; the text of a response is its seed, which begins at 0 where none is given."""
    if path.endswith("/models"):
        return 200, {}, {"object": "list", "data": [{"id": "served"}]}
    if not path.endswith("/completions"):
        return 404, {}, {"detail": "Not Found"}
    return 200, {}, choices(body.get("n", 1), first=body.get("seed", 0), is_chat=path.endswith("/chat/completions"))


def is_trivial(body: dict[str, Any]) -> bool:
    """Whether it is the question by which a client finds out what is understood here."""
    return body.get("max_tokens", body.get("max_completion_tokens")) == 16


@dataclass
class OpenAIServer:
    """What `serving` yields."""

    url: str
    asked: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)
    """(path, body, authorization) of each request, in order."""
    most_at_once: int = 0
    num_open: int = 0
    """Connections that are open now."""
    is_over: bool = False

    def bodies(self) -> list[dict[str, Any]]:
        """Of the requests that are no trivial question."""
        return [body for path, body, _ in self.asked if path.endswith("/completions") and not is_trivial(body)]


@contextlib.contextmanager
def serving(
    reply: Callable[[str, dict[str, Any]], Reply] = obliging, trivial: Callable[[str, dict[str, Any]], Reply] = obliging
) -> Iterator[OpenAIServer]:
    """A server whose answers are those of `reply`, and of `trivial` to trivial questions and GET /models."""
    lock, in_flight = threading.Lock(), 0

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            with lock:
                server.num_open += 1

        def finish(self) -> None:
            with lock:
                server.num_open -= 1
            with contextlib.suppress(OSError):
                super().finish()

        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: dict[str, Any]) -> None:
            nonlocal in_flight
            with lock:
                server.asked.append((self.path, body, self.headers.get("Authorization", "")))
                in_flight += 1
                server.most_at_once = max(server.most_at_once, in_flight)
            told = (trivial if is_trivial(body) or not body else reply)(self.path, body)
            with lock:
                in_flight -= 1
            if told is None or told is HANGS:
                self.close_connection = True
                while told is HANGS and not server.is_over and not self._client_is_gone():
                    time.sleep(0.05)
                return
            status, headers, content = told
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | dict(headers)).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def _client_is_gone(self) -> bool:
            return bool(select.select([self.connection], [], [], 0)[0]) and not self.connection.recv(1, socket.MSG_PEEK)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    class Listener(http.server.ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients go when they like."""

    with Listener(("127.0.0.1", 0), Handler) as listener:
        server = OpenAIServer(f"http://127.0.0.1:{listener.server_port}/v1")
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.is_over = True
            listener.shutdown()

"""A stand-in for the API of the Hugging Face hub: it takes repositories and commits, and keeps the files."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_the_tests"


@dataclass
class Hub:
    """Its address, and what it has: files by "datasets/NAME/PATH" or "models/NAME/PATH", and who is private."""

    endpoint: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    visibility: dict[str, str] = field(default_factory=dict)


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A hub of its own while the block runs. It wants TOKEN, and refuses repositories of the user `nobody`."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                return self.answer(401, {"error": "Invalid username or password."})
            parts = self.path.partition("?")[0].strip("/").split("/")
            if parts == ["api", "repos", "create"]:
                return self.create(json.loads(body))
            if parts == ["api", "validate-yaml"]:
                return self.answer(200, {"errors": [], "warnings": []})
            kind, name, action = parts[1], "/".join(parts[2:4]), parts[4]
            if action == "preupload":
                paths = [one["path"] for one in json.loads(body)["files"]]
                told = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
                return self.answer(200, {"files": told})
            assert action == "commit", self.path
            for operation in map(json.loads, body.splitlines()):
                if operation["key"] == "file":
                    value = operation["value"]
                    hub.files[f"{kind}/{name}/{value['path']}"] = base64.b64decode(value["content"])
            return self.answer(200, {"commitUrl": f"{hub.endpoint}/{name}/commit/1", "commitOid": "1"})

        def create(self, wanted: dict[str, Any]) -> None:
            if wanted["organization"] == "nobody":
                return self.answer(403, {"error": "You have no rights in the namespace nobody"})
            kind, name = f"{wanted.get('type', 'model')}s", f"{wanted['organization']}/{wanted['name']}"
            prefix = "" if kind == "models" else f"{kind}/"
            told = {"url": f"{hub.endpoint}/{prefix}{name}"}
            if f"{kind}/{name}" in hub.visibility:
                return self.answer(409, told | {"error": "You already created this repo"})
            hub.visibility[f"{kind}/{name}"] = wanted["visibility"]
            return self.answer(200, told)

        def do_GET(self) -> None:
            name = self.path.partition("?")[0].removeprefix("/api/")
            if name not in hub.visibility:
                return self.answer(404, {"error": "Repository not found"})
            told = {"id": name.partition("/")[2], "private": hub.visibility[name] == "private"}
            return self.answer(200, told | {"siblings": [], "tags": []})

        def answer(self, status: int, content: dict[str, Any]) -> None:
            told = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()

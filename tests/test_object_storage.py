"""Sampling into an S3-compatible server on this machine that fails a share of its requests."""

import gzip
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import pytest
from clusters import free_port
from object_store import counted_store
from sampling_runs import ask as ask_all
from sampling_runs import questions, scripted, settings

from east_ray.reading.files import find_files
from east_ray.reading.rows import rows_of_file
from east_ray.records import SAMPLES
from east_ray.sampling.backends import Decoding
from east_ray.storage import Folder, RunDirectory, Stages, local_copy, locate

SHARE_FAILED = 0.15


class FaultyProxy(BaseHTTPRequestHandler):
    """Passes requests on to the real server, answers some with 503, and drops the connection of some."""

    backend = ""
    random = Random(0)
    num_failed = 0
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        body = self._body()
        chance = self.random.random()
        if chance < SHARE_FAILED:
            FaultyProxy.num_failed += 1
            self.close_connection = True
            if chance < SHARE_FAILED / 3:
                return
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        headers = {name: value for name, value in self.headers.items()
                   if name.lower() not in ("expect", "transfer-encoding")}  # fmt: skip
        address = self.backend + self.path
        request = urllib.request.Request(address, body or None, headers, method=self.command)
        try:
            answer = urllib.request.urlopen(request)
        except urllib.error.HTTPError as error:
            answer = error  # type: ignore[assignment]
        with answer:
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in ("transfer-encoding", "connection", "server", "date"):
                    self.send_header(name, value)
            if "Content-Length" not in answer.headers:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815 - the names of http.server

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a folder in a bucket, behind the proxy, as a user writes it: s3://…"""
    from moto.server import ThreadedMotoServer

    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setattr(FaultyProxy, "backend", f"http://{host}:{port}")
    monkeypatch.setattr(FaultyProxy, "num_failed", 0)
    proxy = ThreadingHTTPServer(("127.0.0.1", free_port()), FaultyProxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT")).close()
    yield f"s3://bucket/runs/one?scheme=http&endpoint_override=127.0.0.1:{proxy.server_port}&region=us-east-1"
    proxy.shutdown()
    server.stop()


def test_every_operation_of_a_run_directory_survives_a_failing_server(bucket: str, tmp_path: Path) -> None:
    config = settings(tmp_path).model_copy(update={"run_dir": bucket})
    directory = RunDirectory(config)
    stages: Stages = directory.round(0)
    for number in range(30):
        (stages / "questions").write_part(questions(3).slice(number % 3, 1), f"part-{number:02}.parquet")
    assert len((stages / "questions").parts()) == 30 and (stages / "questions").read(questions(1).schema).num_rows == 30
    with stages.recording("questions") as record:
        record.counts["asked"] = 30
    done = RunDirectory(config).round(0).record("questions")
    assert done is not None and done.counts == {"asked": 30}
    (stages / "model").write_text("config.json", "{}")
    copy = Path(local_copy(directory.address(stages / "model")))
    assert (copy / "config.json").read_text() == "{}"
    (stages / "questions").clear()
    assert (stages / "questions").parts() == [] and not (stages / "questions").exists
    assert FaultyProxy.num_failed > 10


def test_samples_reach_a_failing_server_whole_and_are_not_asked_again(
    bucket: str, tmp_path: Path, local_ray: None
) -> None:
    folder = Folder(*locate(bucket)) / "samples"
    config = settings(tmp_path, **scripted(tmp_path))
    decoding = Decoding(responses_per_question=8, temperature=1.0, max_tokens=32)

    def ask(count: int) -> int:
        rows, _, num_asked = ask_all(folder, {"base": "m"}, questions(count), config, decoding)
        assert len(rows) == count
        return num_asked

    assert (ask(16), ask(24), ask(24)) == (16, 8, 0)
    rows = folder.read(SAMPLES).to_pylist()
    assert len({row["question_id"] for row in rows}) == len(rows) == 24
    assert all(len(row["responses"]) == 8 for row in rows)
    assert folder.names() == [Path(part).name for part in folder.parts()] and len(folder.parts()) == 1
    assert FaultyProxy.num_failed > 10


def test_sampling_asks_an_object_store_little(tmp_path: Path, local_ray: None) -> None:
    with counted_store() as store:
        folder = Folder(*locate(store.address("runs/one"))) / "samples"
        folder.write_text("small.json", "{}")
        assert store.requests == {"PUT": 1} and folder.read_text("small.json") == "{}"
        store.requests.clear()
        config = settings(tmp_path, **scripted(tmp_path))
        rows, _, num_asked = ask_all(folder, {"base": "m"}, questions(200), config, Decoding(8, 1.0, 32))
        assert len(rows) == num_asked == 200
        assert store.requests.total() <= 1.5 * 200, store.requests


def test_a_large_file_reaches_an_object_store_whole() -> None:
    with counted_store() as store:
        folder = Folder(*locate(store.address("runs/one")))
        text = "0123456789abcdef" * (9 << 16)  # 9 MiB: more than one request
        folder.write_text("large.json", text)
        assert folder.read_text("large.json") == text and folder.names() == ["large.json"]


def test_files_of_rows_are_found_and_read_as_on_a_disk() -> None:
    row = b'{"question": "1 + 1?", "reference_answer": "2"}\n'
    content = {
        "a/1.jsonl.gz": gzip.compress(row),
        "a/b/2.ndjson": row * 2,
        "c/3.csv": b"question\n1?\n",
        "c/x.eval": b"x",
    }
    with counted_store() as store:
        filesystem, folder = locate(store.address("in"))
        for name, data in content.items():
            with filesystem.open_output_stream(f"{folder}/{name}", compression=None) as stream:
                stream.write(data)

        def num_rows(path: str) -> int:
            found = find_files(store.address(path), "samples.path")
            return sum(1 for file in found.files for _ in rows_of_file(found.filesystem, file))

        assert [num_rows(path) for path in ("in", "in/a/", "in/*/*.csv", "in/**/*json*", "in/a/1.jsonl.gz")] == [
            4,
            3,
            1,
            3,
            1,
        ]
        assert find_files(store.address("in"), "samples.path").unread_said() == "1 .eval file"

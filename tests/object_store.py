"""An S3-compatible server in this process that counts the requests it gets, by kind."""

import logging
import os
import threading
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# Ray's workers have the environment that Ray began with, so import this module before Ray starts.
os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true"}


class CountedStore:
    """The address of a bucket, and what has been asked of it: "GET", "PUT", "LIST", "COPY", "DELETE", … -> requests."""

    def __init__(self, port: int) -> None:
        self.requests = Counter[str]()
        self.bucket = f"bucket-{uuid.uuid4().hex}"  # all servers of a process have the same buckets
        self._port = port

    def address(self, folder: str) -> str:
        """A folder as a user writes it: s3://…"""
        return f"s3://{self.bucket}/{folder}?scheme=http&endpoint_override=127.0.0.1:{self._port}&region=us-east-1"


def _kind(environ: Mapping[str, Any]) -> str:
    method = str(environ["REQUEST_METHOD"])
    if "HTTP_X_AMZ_COPY_SOURCE" in environ:
        return "COPY"
    return "LIST" if method == "GET" and "list-type" in environ.get("QUERY_STRING", "") else method


@contextmanager
def counted_store() -> Iterator[CountedStore]:
    """A server with an empty bucket while the block runs."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    inner: Callable[..., Any] = DomainDispatcherApplication(create_backend_app)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    serving = threading.Lock()

    def counted(environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Any:
        with serving:  # its lists of objects must not change while it goes through them
            store.requests[_kind(environ)] += 1
            return list(inner(environ, start_response))

    server = make_server("127.0.0.1", 0, counted, threaded=True)
    store = CountedStore(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    bucket = f"http://127.0.0.1:{server.server_port}/{store.bucket}"
    urllib.request.urlopen(urllib.request.Request(bucket, method="PUT")).close()
    store.requests.clear()
    yield store
    server.shutdown()
    thread.join()

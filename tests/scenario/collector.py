"""A collector of traces: it takes OTLP over HTTP, and keeps the spans."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """What came so far. `hang` keeps every later request without an answer; `status` is what the others get."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resource: dict[str, Any] = {}
        self.headers: list[dict[str, str]] = []
        self.paths: set[str] = set()
        self.bodies = b""
        self.status = 200
        self.hang = False
        self.asked = 0
        self.url = ""
        self.released = threading.Event()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            self.resource = attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += scope.spans
        self.paths.add(path)
        self.headers.append(headers)
        self.bodies += body

    def named(self, name: str) -> list[Span]:
        return [span for span in list(self.spans) if span.name == name]


def attributes(given: Any) -> dict[str, Any]:
    """The attributes of a span or a resource."""

    def value(one: KeyValue) -> Any:
        return getattr(one.value, str(one.value.WhichOneof("value")))

    return {one.key: value(one) for one in given}


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector that listens."""
    kept = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.asked += 1
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if kept.hang:
                kept.released.wait()
                return
            if kept.status == 200:
                kept.take(self.path, dict(self.headers.items()), body)
            self.send_response(kept.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on the tests' output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    kept.url = f"http://127.0.0.1:{server.server_port}"
    listening = threading.Thread(target=server.serve_forever, daemon=True)
    listening.start()
    try:
        yield kept
    finally:
        kept.released.set()
        server.shutdown()
        server.server_close()
        listening.join()


@contextmanager
def endless() -> Iterator[str]:
    """The URL of a collector that refuses, and never ends its answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(400)
            self.send_header("Content-Length", str(2**40))
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(bytes(2**20))

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on the tests' output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()

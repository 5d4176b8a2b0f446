"""An OpenTelemetry collector on a loopback port, which reads OTLP with opentelemetry's own messages."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.kit.waiting import PATIENCE, until

SERVER, CLIENT = trace_pb2.Span.SPAN_KIND_SERVER, trace_pb2.Span.SPAN_KIND_CLIENT
ERROR = trace_pb2.Status.STATUS_CODE_ERROR


def _value(value: AnyValue) -> str | int:
    return int(value.int_value) if value.HasField("int_value") else str(value.string_value)


@dataclass(frozen=True)
class Seen:
    """One span as it came: ids in hexadecimal digits, times in seconds."""

    name: str
    kind: int
    trace: str
    span: str
    parent: str
    begun: float
    ended: float
    failed: bool
    flags: int
    attributes: Mapping[str, str | int]
    events: Mapping[str, float]
    resource: Mapping[str, str | int] = field(repr=False)

    def __getitem__(self, key: str) -> str | int | None:
        return self.attributes.get(key)


def spans_in(request: ExportTraceServiceRequest) -> list[Seen]:
    """The spans of a request, in their order."""
    return [
        Seen(
            span.name,
            span.kind,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.start_time_unix_nano // 1000 / 1e6,
            span.end_time_unix_nano // 1000 / 1e6,
            span.status.code == ERROR,
            span.flags,
            {each.key: _value(each.value) for each in span.attributes},
            {each.name: each.time_unix_nano // 1000 / 1e6 for each in span.events},
            {each.key: _value(each.value) for each in group.resource.attributes},
        )
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


class SpanCollector:
    """Takes spans at /v1/traces. `answers` are raw answers that are sent first, one for each request; b"" hangs until
    the end. `headers` are those of the requests so far, `bodies` what they had. A context manager."""

    def __init__(self, *answers: bytes, context: ssl.SSLContext | None = None, rejected: int = 0) -> None:
        self.answers = list(answers)
        self.rejected = rejected
        self.spans: list[Seen] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self._context = context
        self._over = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                collector.connections += 1

            def do_POST(self) -> None:
                collector.take(self)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self) -> tuple[Any, Any]:
                connection, address = super().get_request()
                if context is not None:
                    # The handshake is the connection's own thread's.
                    connection = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                return connection, address

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that goes is none of a test's business."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"{'http' if context is None else 'https'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> SpanCollector:
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        """One request."""
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.headers.append({name.lower(): value for name, value in handler.headers.items()})
        self.paths.append(handler.path)
        self.bodies.append(body)
        if self.answers:
            answer = self.answers.pop(0)
            if not answer:
                self._over.wait(PATIENCE)
            with contextlib.suppress(OSError):
                handler.wfile.write(answer)
                handler.wfile.flush()
                handler.connection.shutdown(socket.SHUT_WR)
            handler.close_connection = True
            return
        self.spans += spans_in(ExportTraceServiceRequest.FromString(body))
        response = ExportTraceServiceResponse()
        response.partial_success.rejected_spans = self.rejected
        said = response.SerializeToString()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/x-protobuf")
        handler.send_header("Content-Length", str(len(said)))
        handler.end_headers()
        handler.wfile.write(said)

    def wait_for(self, count: int) -> list[Seen]:
        """The spans, once there are so many."""
        until(lambda: len(self.spans) >= count, f"{count} spans come")
        return list(self.spans)

    def of(self, path: str, count: int = 1) -> list[Seen]:
        """The spans of requests for this path, once there are so many, in the order of their beginning."""

        def found() -> list[Seen]:
            traces = {each.trace for each in self.spans if each["url.path"] == path and each.kind == SERVER}
            return [each for each in self.spans if each.trace in traces]

        until(lambda: len(found()) >= count, f"{count} spans of {path} come")
        return sorted(found(), key=lambda each: (each.begun, each.kind))


def raw(status: str, *fields: str, body: bytes = b"") -> bytes:
    """An answer."""
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "", ""]).encode() + body

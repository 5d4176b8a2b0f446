"""Records of exchanges as OTLP: spans by OpenTelemetry's semantic conventions for HTTP.

Of an exchange there is a SERVER span, and below it a CLIENT span for each attempt at a service. What a client chose
is bounded, and has no query and no credentials, as in the access log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from ..version import VERSION
from ..wire.redaction import without_credentials, without_users
from .records import AttemptRecord, ExchangeRecord

# How many characters of a value chosen by the client are sent.
_LONGEST: Final = 1024
# Methods that may name a span: any others would be names without number.
_METHODS: Final = frozenset(
    (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"QUERY")
)
_OTHER: Final = "_OTHER"
_SCOPE: Final = InstrumentationScope(name="koder_gateway", version=VERSION)
_ERROR: Final = Status(code=Status.STATUS_CODE_ERROR)
# Whether there is a parent of another process (opentelemetry-proto, SpanFlags).
_KNOWN_REMOTE: Final = 0x100
_REMOTE: Final = 0x200
# Ends that are the client's own doing.
_CLIENTS: Final = frozenset(("client_gone",))

Attribute = tuple[str, str | int]


def export_request(
    records: Iterable[ExchangeRecord], resource: Iterable[tuple[str, str]]
) -> ExportTraceServiceRequest:
    """The request that exports the spans of these records."""
    spans = [span for record in records for span in spans_of(record)]
    return ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=Resource(attributes=_attributes(resource)),
                scope_spans=[ScopeSpans(scope=_SCOPE, spans=spans)],
            )
        ]
    )


def spans_of(record: ExchangeRecord) -> Iterator[Span]:
    """The spans of one exchange, its own first."""
    path = _text(without_credentials(record.path))
    method = record.method.decode("ascii") if record.method in _METHODS else _OTHER
    yield _server_span(record, method, path)
    for number, attempt in enumerate(record.attempts):
        yield _client_span(record, attempt, method, path, number)


def _server_span(record: ExchangeRecord, method: str, path: str) -> Span:
    status, code = record.status, record.code
    host, port = _host(record.host)
    route = _text(record.route)
    attributes: list[Attribute] = [
        ("http.request.method", method),
        ("url.scheme", "https" if record.secure else "http"),
        ("url.path", path),
        ("network.protocol.name", "http"),
        ("network.protocol.version", record.protocol),
        ("client.address", record.client.decode("ascii", "replace")),
        ("koder.request_id", _text(record.request_id)),
        ("http.request.body.size", record.bytes_in),
        ("http.response.body.size", record.bytes_out),
    ]
    optional: tuple[Attribute, ...] = (
        ("http.request.method_original", _text(record.method) if method is _OTHER else ""),
        ("http.route", route),
        ("server.address", host),
        ("server.port", port),
        ("http.response.status_code", status),
        ("koder.tenant", _text(record.tenant)),
        ("koder.service", record.service),
        ("koder.code", code),
    )
    attributes += [pair for pair in optional if pair[1]]
    # A 4xx is the client's error, and so is it to leave.
    failed = status >= 500 or (bool(code) and not 400 <= status < 500 and code not in _CLIENTS)
    if failed:
        attributes.append(("error.type", code or str(status)))
    return _span(
        record,
        record.span,
        record.parent,
        (record.started, record.ended),
        name=f"{'HTTP' if method is _OTHER else method}{' ' + route if route else ''}",
        kind=Span.SPAN_KIND_SERVER,
        attributes=attributes,
        failed=failed,
        remote=bool(record.parent),
    )


def _client_span(record: ExchangeRecord, attempt: AttemptRecord, method: str, path: str, number: int) -> Span:
    last = not attempt.ended
    answered = last and record.answered > 0
    parts = urlsplit(attempt.url)
    address = parts.path if parts.scheme == "unix" else parts.hostname or ""
    attributes: list[Attribute] = [
        ("http.request.method", method),
        ("server.address", address),
        ("url.full", f"{attempt.url}{path}"),
        ("koder.service", record.service),
    ]
    if parts.scheme != "unix":
        attributes.append(("server.port", parts.port or (443 if parts.scheme == "https" else 80)))
    if number:
        attributes.append(("http.request.resend_count", number))
    fault = record.code if last else attempt.fault
    if answered:
        attributes += [("http.response.status_code", record.status), ("network.protocol.version", "1.1")]
        fault = fault or (str(record.status) if record.status >= 400 else "")
    failed = bool(fault) and fault not in _CLIENTS
    if fault:
        attributes.append(("error.type", fault))
    span = _span(
        record,
        attempt.span,
        record.span,
        (attempt.begun, attempt.ended or record.ended),
        name="HTTP" if method is _OTHER else method,
        kind=Span.SPAN_KIND_CLIENT,
        attributes=attributes,
        failed=failed,
        remote=False,
    )
    if answered:
        event = span.events.add()
        event.name = "response head"
        event.time_unix_nano = _nanoseconds(record.answered + record.offset)
    return span


def _span(
    record: ExchangeRecord,
    own: bytes,
    parent: bytes,
    times: tuple[float, float],
    *,
    name: str,
    kind: Span.SpanKind.ValueType,
    attributes: list[Attribute],
    failed: bool,
    remote: bool,
) -> Span:
    begun, ended = times
    return Span(
        trace_id=bytes.fromhex(record.trace_id.decode("ascii")),
        span_id=bytes.fromhex(own.decode("ascii")),
        parent_span_id=bytes.fromhex(parent.decode("ascii")),
        flags=record.flags | _KNOWN_REMOTE | (_REMOTE if remote else 0),
        name=name,
        kind=kind,
        start_time_unix_nano=_nanoseconds(begun + record.offset),
        end_time_unix_nano=_nanoseconds(max(begun, ended) + record.offset),
        attributes=_attributes(attributes),
        status=_ERROR if failed else None,
    )


def _nanoseconds(seconds: float) -> int:
    # In whole microseconds, which a float has room for.
    return int(seconds * 1e6) * 1000


def _attributes(pairs: Iterable[Attribute]) -> list[KeyValue]:
    return [
        KeyValue(key=key, value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value))
        for key, value in pairs
    ]


def _text(value: bytes) -> str:
    """As text without what a terminal or a page could obey, and no longer than the bound."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in value[:_LONGEST].decode("latin-1"))


def _host(host: bytes) -> tuple[str, int]:
    """A Host without its port, and the port (0 for none)."""
    name, colon, port = _text(without_users(host)).rpartition(":")
    if colon and port.isascii() and port.isdigit() and len(port) <= 5:
        return name, int(port)
    return f"{name}{colon}{port}", 0

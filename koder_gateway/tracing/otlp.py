"""Records of exchanges as OTLP: spans by OpenTelemetry's semantic conventions for HTTP.

Of an exchange there is a SERVER span, and below it a CLIENT span for each attempt at a service. What a client chose
is bounded, and has no query and no credentials, as in the access log.

A span is encoded as bytes in one go. What many spans have in common is encoded once and remembered.
"""

from __future__ import annotations

import struct
from binascii import unhexlify
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from ..version import VERSION
from ..wire.redaction import without_credentials, without_users
from .protobuf import sized, tag, varint
from .records import AttemptRecord, ExchangeRecord

# How many characters of a value chosen by the client are sent.
_LONGEST: Final = 1024
# How many of each kind of common parts are remembered.
_REMEMBERED: Final = 1024
# A Host that is longer than a name with its port is not remembered.
_NAME_BYTES: Final = 260
# Methods that may name a span: any others would be names without number.
_METHODS: Final = frozenset(
    (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"QUERY")
)
_OTHER: Final = "_OTHER"
# Whether there is a parent of another process (opentelemetry-proto, SpanFlags).
_KNOWN_REMOTE: Final = 0x100
_REMOTE: Final = 0x200
# Ends that are the client's own doing.
_CLIENTS: Final = frozenset(("client_gone",))

_SPANS: Final = tag(ScopeSpans, "spans")
_TRACE_ID: Final = tag(Span, "trace_id")
_SPAN_ID: Final = tag(Span, "span_id")
_PARENT: Final = tag(Span, "parent_span_id")
_NAME: Final = tag(Span, "name")
_ATTRIBUTES: Final = tag(Span, "attributes")
_EVENTS: Final = tag(Span, "events")
_EVENT: Final = sized(tag(Span.Event, "name"), b"response head") + tag(Span.Event, "time_unix_nano")
_SERVER: Final = tag(Span, "kind") + varint(Span.SPAN_KIND_SERVER)
_CLIENT: Final = tag(Span, "kind") + varint(Span.SPAN_KIND_CLIENT)
_FAILED: Final = sized(tag(Span, "status"), Status(code=Status.STATUS_CODE_ERROR).SerializeToString())
# Begin, end and flags, each with its tag.
_FRAME: Final = struct.Struct("<cQcQ2sI")
_TAGS: Final = tag(Span, "start_time_unix_nano"), tag(Span, "end_time_unix_nano"), tag(Span, "flags")
_TIME: Final = struct.Struct("<Q")
_KEY: Final = tag(KeyValue, "key")
_VALUE: Final = tag(KeyValue, "value")
_STRING: Final = tag(AnyValue, "string_value")
_INTEGER: Final = tag(AnyValue, "int_value")
_SCOPE: Final = sized(
    tag(ScopeSpans, "scope"), InstrumentationScope(name="koder_gateway", version=VERSION).SerializeToString()
)


def export_request(spans: Iterable[bytes], resource: Iterable[tuple[str, str]]) -> bytes:
    """An ExportTraceServiceRequest with what `encoded` has made of records."""
    attributes = b"".join(
        sized(tag(Resource, "attributes"), _pair(_named(key), _STRING, value.encode())) for key, value in resource
    )
    scope_spans = sized(tag(ResourceSpans, "scope_spans"), b"".join((_SCOPE, *spans)))
    resource_spans = sized(tag(ResourceSpans, "resource"), attributes) + scope_spans
    return sized(tag(ExportTraceServiceRequest, "resource_spans"), resource_spans)


def encoded(record: ExchangeRecord) -> bytes:
    """The spans of one exchange, its own first, for `export_request`."""
    path = _text(without_credentials(record.path))
    method = record.method.decode("ascii") if record.method in _METHODS else _OTHER
    spans = [_server_span(record, method, path)]
    spans += [_client_span(record, each, method, path, number) for number, each in enumerate(record.attempts)]
    return b"".join([sized(_SPANS, span) for span in spans])


def _server_span(record: ExchangeRecord, method: str, path: str) -> bytes:
    parent = record.parent
    return b"".join(
        (
            _frame(record, record.span, parent, record.started, record.ended, _REMOTE if parent else 0),
            _server_parts(
                method,
                record.route,
                record.secure,
                record.protocol,
                record.service,
                record.status,
                record.code,
            ),
            (_host_parts if len(record.host) <= _NAME_BYTES else _host_attributes)(record.host),
            _string(_PATH, path.encode()),
            _string(_ADDRESS, record.client.decode("ascii", "replace").encode()),
            _string(_TENANT, _text(record.tenant).encode()) if record.tenant else b"",
            _string(_REQUEST_ID, _text(record.request_id).encode()),
            _integer(_BYTES_IN, record.bytes_in),
            _integer(_BYTES_OUT, record.bytes_out),
            _string(_ORIGINAL, _text(record.method).encode()) if method is _OTHER else b"",
        )
    )


@lru_cache(_REMEMBERED)
def _server_parts(
    method: str, route: bytes, secure: bool, protocol: str, service: str, status: int, code: str
) -> bytes:
    """What the spans of many exchanges have alike."""
    named = _text(route)
    texts = {
        "http.request.method": method,
        "url.scheme": "https" if secure else "http",
        "network.protocol.name": "http",
        "network.protocol.version": protocol,
        "http.route": named,
        "koder.service": service,
        "koder.code": code,
    }
    # A 4xx is the client's error, and so is it to leave.
    failed = status >= 500 or (bool(code) and not 400 <= status < 500 and code not in _CLIENTS)
    if failed:
        texts["error.type"] = code or str(status)
    name = f"{'HTTP' if method == _OTHER else method}{' ' + named if named else ''}"
    parts = [sized(_NAME, name.encode()), _SERVER, _FAILED if failed else b""]
    parts += [_string(_named(key), text.encode()) for key, text in texts.items() if text]
    if status:
        parts.append(_integer(_STATUS, status))
    return b"".join(parts)


def _host_attributes(host: bytes) -> bytes:
    name, port = _host(host)
    return (_string(_SERVER_ADDRESS, name.encode()) if name else b"") + (_integer(_PORT, port) if port else b"")


_host_parts: Final = lru_cache(_REMEMBERED)(_host_attributes)


def _client_span(record: ExchangeRecord, attempt: AttemptRecord, method: str, path: str, number: int) -> bytes:
    last = not attempt.ended
    answered = last and record.answered > 0
    parts = [
        _frame(record, attempt.span, record.span, attempt.begun, attempt.ended or record.ended, 0),
        _client_parts(
            method,
            attempt.url,
            record.service,
            number,
            record.code if last else attempt.fault,
            record.status if answered else 0,
        ),
        _string(_URL, f"{attempt.url}{path}".encode()),
    ]
    if answered:
        parts.append(sized(_EVENTS, _EVENT + _TIME.pack(_nanoseconds(record.answered + record.offset))))
    return b"".join(parts)


@lru_cache(_REMEMBERED)
def _client_parts(method: str, url: str, service: str, number: int, fault: str, status: int) -> bytes:
    """What the spans of many attempts have alike; `status` is 0 if the service has not answered."""
    parts = urlsplit(url)
    texts = {
        "http.request.method": method,
        "server.address": parts.path if parts.scheme == "unix" else parts.hostname or "",
        "koder.service": service,
    }
    numbers = {"http.response.status_code": status, "http.request.resend_count": number}
    if parts.scheme != "unix":
        numbers["server.port"] = parts.port or (443 if parts.scheme == "https" else 80)
    if status:
        texts["network.protocol.version"] = "1.1"
        fault = fault or (str(status) if status >= 400 else "")
    if fault:
        texts["error.type"] = fault
    name = "HTTP" if method == _OTHER else method
    encoded = [sized(_NAME, name.encode()), _CLIENT, _FAILED if fault and fault not in _CLIENTS else b""]
    encoded += [_string(_named(key), text.encode()) for key, text in texts.items()]
    encoded += [_integer(_named(key), value) for key, value in numbers.items() if value]
    return b"".join(encoded)


def _frame(record: ExchangeRecord, own: bytes, parent: bytes, begun: float, ended: float, remote: int) -> bytes:
    """The ids, the times and the flags of a span."""
    start, end, flags = _TAGS
    offset = record.offset
    return b"".join(
        (
            sized(_TRACE_ID, unhexlify(record.trace_id)),
            sized(_SPAN_ID, unhexlify(own)),
            sized(_PARENT, unhexlify(parent)) if parent else b"",
            _FRAME.pack(
                start,
                _nanoseconds(begun + offset),
                end,
                _nanoseconds(max(begun, ended) + offset),
                flags,
                record.flags | _KNOWN_REMOTE | remote,
            ),
        )
    )


def _nanoseconds(seconds: float) -> int:
    # In whole microseconds, which a float has room for.
    return int(seconds * 1e6) * 1000


def _named(key: str) -> bytes:
    """The beginning of an attribute with that key."""
    return sized(_KEY, key.encode())


def _pair(named: bytes, kind: bytes, value: bytes) -> bytes:
    return named + sized(_VALUE, sized(kind, value))


def _string(named: bytes, value: bytes) -> bytes:
    """An attribute of a span."""
    return sized(_ATTRIBUTES, named + sized(_VALUE, sized(_STRING, value)))


def _integer(named: bytes, value: int) -> bytes:
    """The same with a number that is not negative."""
    return sized(_ATTRIBUTES, named + sized(_VALUE, _INTEGER + varint(value)))


_PATH: Final = _named("url.path")
_ADDRESS: Final = _named("client.address")
_TENANT: Final = _named("koder.tenant")
_REQUEST_ID: Final = _named("koder.request_id")
_BYTES_IN: Final = _named("http.request.body.size")
_BYTES_OUT: Final = _named("http.response.body.size")
_ORIGINAL: Final = _named("http.request.method_original")
_STATUS: Final = _named("http.response.status_code")
_SERVER_ADDRESS: Final = _named("server.address")
_PORT: Final = _named("server.port")
_URL: Final = _named("url.full")


def _text(value: bytes) -> str:
    """As text without what a terminal or a page could obey, and no longer than the bound."""
    text = value[:_LONGEST].decode("latin-1")
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _host(host: bytes) -> tuple[str, int]:
    """A Host without its port, and the port (0 for none)."""
    name, colon, port = _text(without_users(host)).rpartition(":")
    if colon and port.isascii() and port.isdigit() and len(port) <= 5:
        return name, int(port)
    return f"{name}{colon}{port}", 0

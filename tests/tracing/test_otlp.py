"""Spans, as a collector reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from koder_gateway.tracing import otlp
from koder_gateway.tracing.otlp import encoded, export_request
from koder_gateway.tracing.records import AttemptRecord, ExchangeRecord
from koder_gateway.wire.framed_messages import Messages, framed
from tests.kit.span_collector import CLIENT, SERVER, Seen, spans_in

PLAIN: dict[str, Any] = {
    "trace_id": b"0af7651916cd43dd8448eb211c80319c",
    "span": b"b7ad6b7169203331",
    "parent": b"00f067aa0ba902b7",
    "flags": 3,
    "offset": 1_700_000_000.0,
    "started": 100.0,
    "answered": 100.5,
    "ended": 101.0,
    "method": b"GET",
    "path": b"/v1/users/7",
    "route": b"/v1/users",
    "host": b"koder.id.koder.dev:8443",
    "secure": True,
    "protocol": "2",
    "client": b"192.0.2.1",
    "tenant": b"koder",
    "request_id": b"r1",
    "service": "identity",
    "status": 200,
    "code": "",
    "bytes_in": 3,
    "bytes_out": 5,
    "attempts": [AttemptRecord(b"1111111111111111", "http://127.0.0.1:4001", 100.25, 0.0, "")],
}


def spans(**facts: Any) -> list[Seen]:
    """The spans of a record with these facts, through a stream and through OTLP."""
    (record,) = Messages(ExchangeRecord, 1 << 20).feed(framed(ExchangeRecord(**{**PLAIN, **facts})))
    body = export_request([encoded(record)], [("service.name", "koder-gateway")])
    return spans_in(ExportTraceServiceRequest.FromString(body))


def test_an_exchange_and_its_attempt() -> None:
    server, client = spans()
    assert server == Seen(
        "GET /v1/users",
        SERVER,
        "0af7651916cd43dd8448eb211c80319c",
        "b7ad6b7169203331",
        "00f067aa0ba902b7",
        1_700_000_100.0,
        1_700_000_101.0,
        False,
        0x303,
        {
            "http.request.method": "GET",
            "url.scheme": "https",
            "url.path": "/v1/users/7",
            "network.protocol.name": "http",
            "network.protocol.version": "2",
            "client.address": "192.0.2.1",
            "koder.request_id": "r1",
            "http.request.body.size": 3,
            "http.response.body.size": 5,
            "http.route": "/v1/users",
            "server.address": "koder.id.koder.dev",
            "server.port": 8443,
            "http.response.status_code": 200,
            "koder.tenant": "koder",
            "koder.service": "identity",
        },
        {},
        {"service.name": "koder-gateway"},
    )
    assert client == Seen(
        "GET",
        CLIENT,
        server.trace,
        "1111111111111111",
        server.span,
        1_700_000_100.25,
        1_700_000_101.0,
        False,
        0x103,
        {
            "http.request.method": "GET",
            "server.address": "127.0.0.1",
            "server.port": 4001,
            "url.full": "http://127.0.0.1:4001/v1/users/7",
            "koder.service": "identity",
            "http.response.status_code": 200,
            "network.protocol.version": "1.1",
        },
        {"response head": 1_700_000_100.5},
        {"service.name": "koder-gateway"},
    )


@pytest.mark.parametrize(
    ("facts", "server", "client"),
    [
        ({"status": 404}, (False, None), (True, "404")),
        ({"status": 500}, (True, "500"), (True, "500")),
        ({"status": 502, "code": "upstream_closed", "answered": 0.0}, *[(True, "upstream_closed")] * 2),
        ({"status": 200, "code": "timeout"}, (True, "timeout"), (True, "timeout")),
        ({"status": 0, "code": "client_gone", "answered": 0.0}, (False, None), (False, "client_gone")),
        ({"status": 101}, (False, None), (False, None)),
    ],
)  # fmt: skip
def test_what_is_an_error(facts: Any, server: tuple[bool, str | None], client: tuple[bool, str | None]) -> None:
    assert [(each.failed, each["error.type"]) for each in spans(**facts)] == [server, client]


def test_a_refusal_has_its_code_and_is_no_error() -> None:
    (span,) = spans(status=429, code="rate_limited", attempts=[], answered=0.0, parent=b"", service="", route=b"")
    assert (span.name, span.failed, span["koder.code"], span["error.type"]) == ("GET", False, "rate_limited", None)
    assert (span.parent, span.flags) == ("", 0x103)


def test_each_attempt_says_why_it_failed() -> None:
    attempts = [
        AttemptRecord(b"1" * 16, "https://a.example", 100.0, 100.2, "closed"),
        AttemptRecord(b"2" * 16, "unix:/run/b.sock", 100.2, 0.0, ""),
    ]
    _, one, other = spans(attempts=attempts)
    assert (one.failed, one["error.type"], one["server.port"], one.events) == (True, "closed", 443, {})
    assert one["http.response.status_code"] is None
    assert one.ended == pytest.approx(1_700_000_100.2)
    assert (other.failed, other["server.address"], other["server.port"]) == (False, "/run/b.sock", None)
    assert (one["http.request.resend_count"], other["http.request.resend_count"]) == (None, 1)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (b"/a?token=secret", "/a"),
        (b"/a#secret", "/a"),
        (b"//bob:secret@h/a", "//h/a"),
        (b"/a/eyJsecretsecret.secret.secret", "/a/(token)"),
        (b"/a;jsessionid=secret", "/a;jsessionid=*"),
        (b"/a\x00\x1b[31m", "/a\\x00\\x1b[31m"),
    ],
)
def test_no_secret_and_no_escape_is_in_a_path(path: bytes, told: str) -> None:
    server, client = spans(path=path)
    assert server["url.path"] == told
    assert client["url.full"] == f"http://127.0.0.1:4001{told}"


def test_a_users_password_is_not_in_the_host() -> None:
    assert spans(host=b"bob:secret@h")[0]["server.address"] == "h"


@pytest.mark.parametrize(
    ("host", "address", "port"), [(b"h", "h", None), (b"[::1]:80", "[::1]", 80), (b"", None, None)]
)
def test_the_host_is_apart_from_its_port(host: bytes, address: str | None, port: int | None) -> None:
    (server, _) = spans(host=host)
    assert (server["server.address"], server["server.port"]) == (address, port)


def test_an_unknown_method_names_no_span() -> None:
    server, client = spans(method=b"BREW")
    assert (server.name, client.name, server["http.request.method"]) == ("HTTP /v1/users", "HTTP", "_OTHER")
    assert server["http.request.method_original"] == "BREW"


def test_spans_of_several_exchanges_have_nothing_of_each_other() -> None:
    """What they have in common is remembered."""
    facts: list[dict[str, Any]] = [
        {"host": b"a.example", "tenant": b"a", "status": 200, "client": b"192.0.2.1"},
        {
            "host": b"b.example:80",
            "tenant": b"",
            "status": 404,
            "client": b"192.0.2.2",
            "route": b"",
            "bytes_in": 300,
        },
        {
            "host": b"a.example",
            "tenant": b"c",
            "status": 500,
            "protocol": "1.1",
            "secure": False,
            "bytes_out": 1 << 40,
        },
    ]
    records = [ExchangeRecord(**{**PLAIN, **each}) for each in facts]
    together = export_request([encoded(each) for each in records], [])
    alone = [spans_in(ExportTraceServiceRequest.FromString(export_request([encoded(each)], []))) for each in records]
    assert spans_in(ExportTraceServiceRequest.FromString(together)) == [span for each in alone for span in each]
    assert [each[0]["koder.tenant"] for each in alone] == ["a", None, "c"]
    assert [each[0]["http.response.body.size"] for each in alone] == [5, 5, 1 << 40]
    assert [each[0]["http.request.body.size"] for each in alone] == [3, 300, 3]


def test_what_clients_choose_without_bound_is_not_remembered() -> None:
    before = otlp._host_parts.cache_info().currsize
    assert spans(host=b"h" * 2000)[0]["server.address"] == "h" * 1024
    assert otlp._host_parts.cache_info().currsize == before
    sizes = [each.cache_info() for each in (otlp._server_parts, otlp._client_parts)]
    for number in range(20):
        spans(method=b"M%d" % number, path=b"/%d" % number, request_id=b"%d" % number, client=b"192.0.2.%d" % number)
    grown = [each.cache_info() for each in (otlp._server_parts, otlp._client_parts)]
    assert [after.currsize - size.currsize <= 1 for after, size in zip(grown, sizes, strict=True)] == [True, True]


@given(st.binary(max_size=3000), st.binary(max_size=3000), st.binary(max_size=3000))
def test_whatever_a_client_sends_becomes_a_bounded_span(method: bytes, path: bytes, host: bytes) -> None:
    for span in spans(method=method, path=path, host=host):
        for value in span.attributes.values():
            assert isinstance(value, int) or (value.isprintable() and len(value) <= 4 * 1024 + 40)

"""The trace of one exchange, as its service sees it, and what is recorded of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from twisted.web.resource import Resource

from koder_gateway.config import ListenSettings, TracingSettings
from tests.kit.http1 import Message, read_message
from tests.kit.memory import MemoryGateway, request, serve, service_settings, settings_with

TRACE_ID, SPAN = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def parent(flags: bytes, trace_id: bytes = TRACE_ID) -> bytes:
    return b"traceparent: 00-%b-%b-%b\r\n" % (trace_id, SPAN, flags)


def ask(*lines: bytes, target: bytes = b"/v1/users", method: bytes = b"GET") -> bytes:
    """A request with these whole lines alone."""
    return b"%b %b HTTP/1.1\r\nHost: koder.id.koder.dev\r\n%b\r\n" % (method, target, b"".join(lines))


def traced(make_gateway: Any, sample: float = 1.0, **sections: Any) -> MemoryGateway:
    """A gateway with tracing."""
    tracing = TracingSettings(
        endpoint="http://127.0.0.1:4318/v1/traces", sample=sample, client_traces=sections.pop("client_traces", 10)
    )
    return make_gateway(settings=settings_with(tracing=tracing, **sections))


def sent(gateway: MemoryGateway, data: bytes, answer: bytes = OK) -> Message:
    """The service's only request for this one of a client."""
    gateway.connect().send(data)
    (message,) = serve(gateway, lambda message: answer)
    return message


def parts(message: Message) -> list[bytes]:
    """Trace id, parent and flags of the only traceparent."""
    (value,) = message.values(b"traceparent")
    version, *rest = value.split(b"-")
    assert version == b"00"
    return rest


def test_a_trace_that_begins_here_has_the_attempt_as_its_parent(make_gateway: Any) -> None:
    gateway = traced(make_gateway)
    trace_id, span, flags = parts(sent(gateway, ask()))
    (exchange,) = gateway.exchanges
    assert exchange.trace is not None
    (attempt,) = exchange.trace.attempts
    assert (exchange.trace_id, attempt.span, flags) == (trace_id, span, b"03")
    assert exchange.trace.parent == b""
    assert len({exchange.trace.span, span, trace_id[:16]}) == 3
    assert attempt.url == "http://127.0.0.1:4001"


def test_what_is_not_sampled_says_so(make_gateway: Any) -> None:
    gateway = traced(make_gateway, sample=0.0)
    trace_id, span, flags = parts(sent(gateway, ask()))
    (exchange,) = gateway.exchanges
    assert exchange.trace is None
    assert (exchange.trace_id, flags) == (trace_id, b"02")
    assert re.fullmatch(rb"[0-9a-f]{16}", span)


@pytest.mark.parametrize(("theirs", "ours"), [(b"01", b"01"), (b"03", b"03"), (b"ff", b"03")])
def test_a_clients_trace_goes_on(make_gateway: Any, theirs: bytes, ours: bytes) -> None:
    """Within it is the gateway's span, and within that the service's; flags that nobody knows are not passed on."""
    gateway = traced(make_gateway, sample=0.0)
    message = sent(gateway, ask(parent(theirs), b"tracestate: a=1\r\n"))
    trace_id, span, flags = parts(message)
    (exchange,) = gateway.exchanges
    assert exchange.trace is not None
    assert (trace_id, flags, exchange.trace.parent) == (TRACE_ID, ours, SPAN)
    assert span == exchange.trace.attempts[0].span
    assert message.values(b"tracestate") == [b"a=1"]


def test_a_clients_flag_counts_so_often_a_second(make_gateway: Any) -> None:
    gateway = traced(make_gateway, sample=0.0, client_traces=2)
    flags = [parts(sent(gateway, ask(parent(b"01"))))[2] for _ in range(4)]
    assert flags == [b"01", b"01", b"00", b"00"]
    gateway.advance(1.0)
    assert parts(sent(gateway, ask(parent(b"01"))))[2] == b"01"
    assert SPAN not in {exchange.trace.next_span for exchange in gateway.exchanges if exchange.trace}


def test_a_trusted_proxys_flag_decides(make_gateway: Any) -> None:
    gateway = traced(
        make_gateway, sample=1.0, client_traces=0, listen=ListenSettings(trusted_proxies=("192.0.2.0/24",))
    )
    for flag in (b"01", b"00"):
        message = sent(gateway, ask(parent(flag), b"X-Forwarded-For: 203.0.113.9\r\n"))
        assert parts(message)[2] == flag
    assert [exchange.trace is not None for exchange in gateway.exchanges] == [True, False]


def test_heads_that_are_kept_do_not_keep_the_trace(make_gateway: Any) -> None:
    """The lines of a head belong to all requests of a connection that repeat it."""
    gateway = traced(make_gateway)
    client = gateway.connect()
    seen = set()
    for _ in range(3):
        client.send(ask(parent(b"01"), b"X-A: 1\r\n"))
        (message,) = serve(gateway, lambda message: OK)
        seen.add(parts(message)[1])
        assert message.values(b"x-a") == [b"1"]
    assert len(seen) == 3


@pytest.mark.parametrize("sample", [0.0, 1.0])
def test_without_an_endpoint_a_clients_trace_passes_as_it_came(make_gateway: Any, sample: float) -> None:
    gateway = make_gateway(settings=settings_with(tracing=TracingSettings(sample=sample)))
    message = sent(gateway, ask(b"TraceParent: 00-%b-%b-01\r\n" % (TRACE_ID, SPAN)))
    assert message.values(b"traceparent") == [b"00-%b-%b-01" % (TRACE_ID, SPAN)]
    assert gateway.exchanges[0].trace is None
    assert gateway.exchanges[0].trace_id == TRACE_ID
    begun = parts(sent(gateway, ask()))
    assert (begun[0], begun[2]) == (gateway.exchanges[1].trace_id, b"01")


def test_a_retry_is_an_attempt_of_its_own(make_gateway: Any) -> None:
    gateway = traced(make_gateway)
    first = sent(gateway, ask())
    # The kept connection dies as it is used again.
    client = gateway.connect()
    client.send(ask())
    kept = gateway.origin().only
    begun, _ = read_message(kept.take())
    kept.close()
    (message,) = serve(gateway, lambda message: OK)
    (_, exchange) = gateway.exchanges
    assert exchange.retries == 1
    assert exchange.trace is not None
    one, other = exchange.trace.attempts
    assert one.span != other.span
    assert parts(message)[1] == other.span
    assert (one.fault, other.fault) == ("closed", "")
    assert parts(begun)[1] == one.span
    assert parts(first)[0] != parts(message)[0]


def test_each_address_that_is_tried_is_an_attempt(make_gateway: Any) -> None:
    services = service_settings("identity", "http://127.0.0.1:4001", "http://127.0.0.1:4011")
    gateway = traced(make_gateway, services=services)
    gateway.origin("identity", 1).answers = "refuse"
    client = gateway.connect()
    client.send(ask())
    gateway.reactor.advance(0)
    (message,) = [read_message(peer.take())[0] for peer in gateway.origin("identity", 0).connections]
    gateway.origin("identity", 0).only.send(OK)
    (exchange,) = gateway.exchanges
    assert exchange.trace is not None
    assert [(each.url[-4:], each.fault) for each in exchange.trace.attempts] == [
        ("4011", "unreachable"),
        ("4001", ""),
    ]
    assert parts(message)[1] == exchange.trace.attempts[1].span


def test_a_mounted_resource_is_within_the_exchange(make_gateway: Any) -> None:
    got = []

    class Mounted(Resource):
        isLeaf = True

        def render_GET(self, asked: Any) -> bytes:
            got.extend(asked.requestHeaders.getRawHeaders(b"traceparent"))
            return b"ok"

    tracing = TracingSettings(endpoint="http://127.0.0.1:4318/v1/traces", sample=1.0)
    gateway = make_gateway(settings=settings_with(tracing=tracing), mounts={b"/mine": Mounted()})
    gateway.connect().send(ask(parent(b"01"), target=b"/mine"))
    (exchange,) = gateway.exchanges
    assert exchange.trace is not None
    assert got == [b"00-%b-%b-01" % (TRACE_ID, exchange.trace.span)]
    assert exchange.trace.attempts == []


def test_a_refusal_asks_for_no_trace_before_its_end(make_gateway: Any) -> None:
    gateway = traced(make_gateway)
    gateway.connect().send(ask(target=b"/nowhere"))
    assert (gateway.exchanges[0].trace_id, gateway.exchanges[0].trace) == (b"", None)


def test_the_kits_requests_are_traced(make_gateway: Any) -> None:
    gateway = traced(make_gateway, sample=0.0)
    assert parts(sent(gateway, request()))[0] == TRACE_ID

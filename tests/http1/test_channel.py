"""The channel as a play in memory: heads in any pieces, order, deadlines, back-pressure, and how connections end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from tests.conftest import LoggedErrors
from tests.kit.bounds import client_limits, client_timeouts
from tests.kit.http1 import Message, read_message, read_messages
from tests.kit.memory import (
    DATE,
    HIGH_WATER,
    HOST,
    MemoryGateway,
    Peer,
    answered,
    forwarded,
    rechunked,
    request,
    serve,
    settings_with,
)

Make = Callable[..., MemoryGateway]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
OK_ANSWER = answered(b"200 OK", after=(b"Content-Length: 2",), body=b"hi")
CUTS = st.lists(st.integers(0, 4000), max_size=12)


def problem(data: bytes) -> tuple[int, str]:
    """The status and code of the only answer in `data`."""
    (message,) = read_messages(data)
    assert message.one(b"content-type") == b"application/problem+json"
    return message.status, message.code


def echo(message: Message) -> bytes:
    """A service that answers with what it got."""
    body = b"%b|%b|%b" % (message.start, b",".join(message.values(b"x-n")), message.body)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


# -- heads


def test_a_request_reaches_its_service_and_the_answer_its_client(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"GET", b"/v1/users/7?a=1", b"Accept: */*"))
    service = gateway.origin("identity").only
    assert service.take() == forwarded(b"GET", b"/v1/users/7?a=1", b"Accept: */*")
    service.send(OK)
    assert client.take() == OK_ANSWER
    assert client.closed == ""
    (exchange,) = gateway.exchanges
    assert (exchange.status, exchange.code, exchange.bytes_out) == (200, "", 2)
    assert gateway.idle() == (1, 0)


STREAM = (
    request(b"GET", b"/v1/users/1", b"X-N: 1")
    + b"\r\n\r\n"  # empty lines before a request are ignored (RFC 9112 section 2.2)
    + request(b"POST", b"/v1/users/2", b"X-N: 2", b"Content-Length: 11", body=b"GET / HTTP/")
    + request(
        b"PUT",
        b"/v1/users/3",
        b"X-N: 3",
        b"Transfer-Encoding: chunked",
        body=b"4\r\nwiki\r\n5;x=y\r\npedia\r\n0\r\n\r\n",
    )
    + request(b"POST", b"/v1/users/4", b"X-N: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")
    + request(b"POST", b"/v1/users/5", b"X-N: 5", b"Content-Length: 0")
    + request(b"GET", b"/nowhere", b"X-N: 6")
    + request(b"DELETE", b"/v1/../x", b"X-N: 7", b"Content-Length: 3", body=b"GET")
    + request(b"TRACE", b"/v1/users", b"X-N: 8", b"Content-Length: 3", body=b"GET")
    + request(b"GET", b"/v1/users/9", b"X-N: 9", b"Connection: close")
)


@given(CUTS)
def test_a_stream_of_requests_means_the_same_in_any_pieces(cuts: list[int]) -> None:
    gateway = MemoryGateway()
    client = gateway.connect()
    seen = []
    for piece in rechunked(STREAM, cuts):
        client.send(piece)
        seen += serve(gateway, echo)
    assert [(m.start, m.one(b"x-n"), m.body) for m in seen] == [
        (b"GET /v1/users/1 HTTP/1.1", b"1", b""),
        (b"POST /v1/users/2 HTTP/1.1", b"2", b"GET / HTTP/"),
        (b"PUT /v1/users/3 HTTP/1.1", b"3", b"wikipedia"),
        (b"POST /v1/users/4 HTTP/1.1", b"4", b""),
        (b"POST /v1/users/5 HTTP/1.1", b"5", b""),
        (b"GET /v1/users/9 HTTP/1.1", b"9", b""),
    ]
    answers = read_messages(client.take())
    assert [m.status for m in answers] == [200, 200, 200, 200, 200, 404, 400, 405, 200]
    assert [m.body for m in answers if m.status == 200] == [echo(m).partition(b"\r\n\r\n")[2] for m in seen]
    assert client.closed == "clean"
    assert [e.status for e in gateway.exchanges] == [m.status for m in answers]
    gateway.hang_up()


INNER = request(b"GET", b"/v1/admin/secret")
LAST = request(b"GET", b"/v1/users/9")


@pytest.mark.parametrize(
    "start", [(b"TRACE", b"/v1/users"), (b"POST", b"/a/../b"), (b"POST", b"/nowhere"), (b"LOCK", b"/a")]
)
@pytest.mark.parametrize("framing", ["length", "chunked"])
@given(cuts=CUTS)
def test_the_body_of_a_refused_request_is_never_the_next_request(
    start: tuple[bytes, bytes], framing: str, cuts: list[int]
) -> None:
    if framing == "length":
        raw = request(*start, b"Content-Length: %d" % len(INNER), body=INNER)
    else:
        raw = request(*start, b"Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER))
    gateway = MemoryGateway()
    client = gateway.connect()
    client.send_in(rechunked(raw + LAST, cuts))
    assert not gateway.origin("admin").connections
    seen = serve(gateway, lambda _: OK)
    refused, *answers = read_messages(client.received)
    assert refused.status >= 400
    if refused.values(b"connection") == [b"close"]:
        assert (seen, answers) == ([], [])
        assert client.half_closed or client.closed
    else:
        assert [message.start for message in seen] == [b"GET /v1/users/9 HTTP/1.1"]
        assert [answer.status for answer in answers] == [200]
    gateway.hang_up()


MALFORMED = {
    "space before the colon": b"GET /v1/users HTTP/1.1\r\nHost : a\r\n\r\n",
    "obs-fold": b"GET /v1/users HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "no colon": b"GET /v1/users HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n",
    "empty name": b"GET /v1/users HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
    "NUL": b"GET /v1/users HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "bare CR": b"GET /v1/users HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    "bare LF": b"GET /v1/users HTTP/1.1\nHost: a\r\n\r\n",
    "bare LF at the end": b"GET /v1/users HTTP/1.1\r\nHost: a\n\r\n\r\n",
    "two lengths": b"POST /v1/users HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "length and coding": b"POST /v1/users HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "signed length": b"POST /v1/users HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
    "no Host": b"GET /v1/users HTTP/1.1\r\nX: a\r\n\r\n",
    "two Hosts": b"GET /v1/users HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /v1/users\r\n\r\n",
    "HTTP/2.0": b"GET /v1/users HTTP/2.0\r\nHost: a\r\n\r\n",
    "two spaces": b"GET  /v1/users HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
@given(cuts=CUTS)
def test_a_malformed_head_is_400_and_the_end_in_any_pieces(raw: bytes, cuts: list[int]) -> None:
    gateway = MemoryGateway()
    client = gateway.connect()
    client.send_in(rechunked(raw + request(), cuts))
    assert problem(client.received) == (400, "bad_request")
    assert client.half_closed
    assert not gateway.origin().connections
    (exchange,) = gateway.exchanges
    assert exchange.code == "bad_request"
    gateway.hang_up()


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_head_is_refused_without_a_word_of_traceback(raw: bytes, gateway: MemoryGateway) -> None:
    (answer,) = read_messages(gateway.connect().send(raw).received)
    assert answer.one(b"connection") == b"close"
    assert b"Traceback" not in answer.body


def test_a_hopeless_head_is_refused_before_its_end(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(b"GET /v1/users HTTP/1.1\r\nHost : a\r\n")
    assert problem(client.received) == (400, "bad_request")


def test_an_unknown_coding_is_501_and_the_end(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Transfer-Encoding: gzip") + request())
    assert problem(client.received) == (501, "not_implemented")
    assert client.half_closed


@given(CUTS)
def test_an_unknown_method_is_501_in_any_pieces(cuts: list[int]) -> None:
    gateway = MemoryGateway()
    client = gateway.connect()
    client.send_in(rechunked(request(b"BREW", b"/v1/users") + request(), cuts))
    assert problem(client.received) == (501, "not_implemented")
    assert client.half_closed
    gateway.hang_up()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"GET /v1/users/" + b"a" * 8200 + b" HTTP/1.1\r\nHost: a\r\n\r\n", (414, "uri_too_long")),
        (b"GET /v1/users HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"a" * 32768 + b"\r\n\r\n", (431, "head_too_large")),
        (b"GET /v1/users HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 6000 + b"\r\n", (431, "head_too_large")),
        (b"GET /v1/users HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 100 + b"\r\n", (431, "head_too_large")),
        (b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", (414, "uri_too_long")),
    ],
    ids=["target", "one field", "all fields", "number of fields", "endless target"],
)
@pytest.mark.parametrize("size", [1 << 20, 1400, 400])
def test_what_is_too_long_is_refused_in_any_pieces(
    raw: bytes, expected: tuple[int, str], size: int, gateway: MemoryGateway
) -> None:
    client = gateway.connect()
    client.send_in(raw[at : at + size] for at in range(0, len(raw), size))
    assert problem(client.received) == expected
    assert client.half_closed


@pytest.mark.parametrize("limit", [512, 16384])
def test_the_limit_of_a_target_is_the_configured_one(limit: int, make_gateway: Make) -> None:
    gateway = make_gateway(
        settings=settings_with(requests={"max_target": limit}), limits=client_limits(max_head=65536, max_target=limit)
    )
    fits, over = b"/v1/users/".ljust(limit, b"a"), b"/v1/users/".ljust(limit + 1, b"a")
    client = gateway.connect()
    client.send(request(b"GET", fits))
    assert gateway.origin().only.received == forwarded(b"GET", fits)
    client = gateway.connect()
    client.send(request(b"GET", over))
    assert problem(client.received) == (414, "uri_too_long")


def test_a_long_target_does_not_make_fields_too_long(make_gateway: Make) -> None:
    gateway = make_gateway(
        settings=settings_with(requests={"max_target": 16384}), limits=client_limits(max_head=32768, max_target=16384)
    )
    client = gateway.connect()
    client.send(request(b"GET", b"/v1/users/".ljust(10000, b"a"), b"X: " + b"a" * 32768))
    assert problem(client.received) == (431, "head_too_large")


def test_a_refusal_of_a_head_request_has_no_body(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(b"HEAD /v1/users HTTP/1.1\r\nHost : a\r\n\r\n")
    message, rest = read_message(client.received, to_head=True)
    assert (message.status, rest) == (400, b"")
    client = gateway.connect()
    client.send(request(b"HEAD", b"/nowhere"))
    message, rest = read_message(client.received, to_head=True)
    assert (message.status, rest) == (404, b"")
    assert int(message.one(b"content-length")) > 0


def test_options_of_the_server_itself(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"OPTIONS", b"*"))
    message, rest = read_message(client.received)
    assert (message.status, rest) == (204, b"")
    assert b"GET" in message.one(b"allow")
    assert not message.values(b"content-length")


# -- order and persistence


def test_pipelined_requests_are_answered_in_order_even_if_the_first_is_slow(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"GET", b"/v1/users/1") + request(b"GET", b"/nowhere") + request(b"GET", b"/v1/sessions/3"))
    first = gateway.origin("identity").only
    assert not gateway.origin("session").connections
    gateway.advance(20)
    assert client.received == b""
    first.send(OK)
    assert gateway.origin("session").only.received == forwarded(b"GET", b"/v1/sessions/3")
    gateway.origin("session").only.send(OK)
    assert [m.status for m in read_messages(client.take())] == [200, 404, 200]
    assert client.closed == ""


def test_what_waits_behind_a_slow_exchange_is_bounded(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    one = request(b"GET", b"/v1/users/1", b"X: " + b"x" * 1000)
    count = 200
    client.send_in([one] * count)
    assert client.near.paused
    seen = serve(gateway, echo)
    assert len(seen) == count
    assert not client.near.paused
    assert len(read_messages(client.take())) == count


def test_a_paused_pipeline_whose_connection_ends_is_read_to_its_end(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"GET", b"/v1/users/1", b"Connection: close"))
    client.send_in([b"x" * 10000] * 10)
    assert client.near.paused
    gateway.origin().only.send(OK)
    assert client.closed == "clean"


@pytest.mark.parametrize(
    ("version", "line", "persists", "said"),
    [
        (b"1.1", b"Accept: */*", True, []),
        (b"1.1", b"Connection: keep-alive", True, []),
        (b"1.1", b"Connection: Close", False, [b"close"]),
        (b"1.1", b"Connection: x-a, close", False, [b"close"]),
        (b"1.0", b"Accept: */*", False, [b"close"]),
        (b"1.0", b"Connection: keep-alive", True, [b"keep-alive"]),
        (b"1.0", b"Connection: keep-alive, close", False, [b"close"]),
    ],
)
@pytest.mark.parametrize("target", [b"/v1/users", b"/nowhere"])
def test_persistence_is_what_the_client_asks_for(
    version: bytes, line: bytes, persists: bool, said: list[bytes], target: bytes, gateway: MemoryGateway
) -> None:
    client = gateway.connect()
    client.send(request(b"GET", target, line, version=version))
    serve(gateway, lambda _: OK)
    (answer,) = read_messages(client.take())
    assert answer.start.startswith(b"HTTP/1.1 ")
    assert answer.values(b"connection") == said
    assert client.closed == ("" if persists else "clean")
    client.send(request(b"GET", target, version=version))
    serve(gateway, lambda _: OK)
    assert len(read_messages(client.take())) == persists


def test_nothing_is_served_after_the_last_answer(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"GET", b"/v1/users/1", b"Connection: close") + request(b"GET", b"/v1/users/2"))
    assert len(serve(gateway, lambda _: OK)) == 1
    assert len(read_messages(client.take())) == 1
    assert client.closed == "clean"


# -- deadlines


def test_a_head_that_drips_in_is_cut_off_with_408(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    raw = request()
    for at in range(9):
        client.send(raw[at : at + 1])
        gateway.advance(1)
    assert client.received == b""
    client.send(raw[9:10])
    gateway.advance(1.25)
    assert problem(client.received) == (408, "request_timeout")
    assert client.half_closed
    (exchange,) = gateway.exchanges
    assert exchange.code == "request_timeout"


def test_a_client_that_says_nothing_is_closed_in_silence(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    gateway.advance(9.5)
    assert client.closed == ""
    gateway.advance(1)
    assert (client.closed, client.received) == ("clean", b"")
    assert not gateway.exchanges


def test_an_idle_connection_lives_as_long_as_keepalive_says(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"GET", b"/nowhere")).take()
    gateway.advance(74)
    client.send(request(b"GET", b"/nowhere"))
    assert problem(client.take()) == (404, "no_route")
    gateway.advance(74.5)
    assert client.closed == ""
    gateway.advance(1)
    assert (client.closed, client.received) == ("clean", b"")


def test_an_idle_connection_has_a_heads_time_from_its_first_byte(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"GET", b"/nowhere")).take()
    gateway.advance(74)
    client.send(b"G")
    gateway.advance(9)
    assert client.received == b""
    gateway.advance(1.5)
    assert problem(client.received) == (408, "request_timeout")


def test_a_body_that_drips_in_is_cut_off_with_408(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 1000"))
    for _ in range(29):
        client.send(b"x")
        gateway.advance(1)
    assert client.received == b""
    gateway.advance(1.5)
    assert problem(client.received) == (408, "request_timeout")
    assert gateway.origin().only.closed == "reset"
    assert gateway.idle() == (0, 0)


def test_a_dripping_body_is_cut_off_when_no_service_wants_it(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/nowhere", b"Content-Length: 1000"))
    assert problem(client.take()) == (404, "no_route")
    for _ in range(3):
        client.send(b"x")
        gateway.advance(1)
    assert client.closed == "reset"


def test_a_body_at_the_minimum_rate_takes_as_long_as_it_takes(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: %d" % (120 * 1100)))
    for _ in range(120):
        gateway.advance(1)
        client.send(b"x" * 1100)
    (message,) = serve(gateway, lambda _: OK)
    assert len(message.body) == 120 * 1100
    assert client.received == OK_ANSWER


def test_a_burst_buys_no_more_than_the_grace(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 1000000"))
    gateway.advance(1)
    client.send_in([b"x" * 60000] * 10)
    gateway.advance(29)
    assert client.received == b""
    gateway.advance(1.5)
    assert problem(client.received) == (408, "request_timeout")


def test_a_body_too_slow_for_the_answer_under_way_cuts_it(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 1000", body=b"x"))
    gateway.origin().only.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal")
    gateway.advance(31)
    assert client.closed
    assert client.received.endswith(b"\r\n\r\nhal")
    (exchange,) = gateway.exchanges
    assert exchange.code == "slow"


def test_a_whole_exchange_has_the_time_that_is_set(make_gateway: Make) -> None:
    gateway = make_gateway(timeouts=client_timeouts(exchange=5.0))
    waiting, relaying = gateway.connect(), gateway.connect()
    waiting.send(request())
    relaying.send(request())
    gateway.origin().last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal")
    gateway.advance(4.5)
    assert waiting.received == b""
    assert relaying.closed == ""
    gateway.advance(1)
    assert problem(waiting.received) == (504, "upstream_timeout")
    assert waiting.closed == ""
    assert relaying.closed
    assert relaying.received.endswith(b"hal")
    assert [each.closed for each in gateway.origin().connections] == ["reset", "reset"]
    assert gateway.idle() == (0, 0)


# -- back-pressure


def test_a_service_that_does_not_read_holds_the_client(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    size = 40 * 10000
    client.send(request(b"POST", b"/v1/users", b"Content-Length: %d" % size, body=b"x" * 10000))
    service = gateway.origin().only
    service.stop_reading()
    sent = 10000
    while not client.near.paused:
        client.send(b"x" * 10000)
        sent += 10000
    assert HIGH_WATER < sent < 2 * HIGH_WATER
    gateway.advance(45)  # longer than a body's grace: the client's time stands still
    assert client.received == b""
    service.start_reading()
    assert not client.near.paused
    gateway.advance(20)
    client.send_in([b"x" * 10000] * ((size - sent) // 10000))
    (message,) = serve(gateway, lambda _: OK)
    assert len(message.body) == size
    assert client.received == OK_ANSWER


def test_the_clients_time_goes_on_where_it_stood(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 400000", body=b"x"))
    service = gateway.origin().only
    gateway.advance(10)
    service.stop_reading()
    client.send_in([b"x" * 20] + [b"x" * 35000] * 2)
    assert client.near.paused
    gateway.advance(40)
    service.start_reading()
    gateway.advance(29)
    assert client.received == b""
    gateway.advance(1.5)
    assert problem(client.received) == (408, "request_timeout")


def test_the_body_waits_while_the_connection_is_made(gateway: MemoryGateway) -> None:
    gateway.origin().answers = "ignore"
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 100000", body=b"x" * 100))
    assert client.near.paused
    client.send(b"x" * 1000)
    gateway.advance(1.5)
    assert client.received == b""
    gateway.advance(1)
    assert problem(client.received) == (504, "upstream_timeout")
    assert not client.near.paused


def test_a_client_that_does_not_read_holds_the_service(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request())
    client.stop_reading()
    service = gateway.origin().only
    size = 40 * 10000
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    sent = 0
    while not service.near.paused:
        service.send(b"x" * 10000)
        sent += 10000
    assert HIGH_WATER < sent < 2 * HIGH_WATER
    client.start_reading()
    assert not service.near.paused
    service.send_in([b"x" * 10000] * ((size - sent) // 10000))
    (message,) = read_messages(client.received)
    assert len(message.body) == size
    assert gateway.idle() == (1, 0)


def test_a_held_connection_is_read_again_for_the_next_exchange(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request())
    client.stop_reading()
    service = gateway.origin().only
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 99999)
    assert service.near.paused
    service.near.paused = False  # a transport may deliver what it had read before the pause
    service.send(b"x")
    assert gateway.idle() == (1, 0)
    assert not service.near.paused
    client.start_reading()
    assert len(read_messages(client.take())) == 1


def test_a_last_answer_waits_for_a_client_that_does_not_take_it_but_not_for_ever(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"GET", b"/v1/users", b"Connection: close"))
    client.stop_reading()
    gateway.origin().only.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + b"x" * 10000)
    gateway.advance(59)
    assert client.closed == ""
    other = gateway.connect()
    other.send(request(b"GET", b"/v1/users", b"Connection: close"))
    other.stop_reading()
    gateway.origin().last.send(OK)
    gateway.advance(2)
    assert client.closed == "reset"
    other.start_reading()
    assert (len(read_messages(other.received)), other.closed) == (1, "clean")


# -- bodies that go no further


@pytest.fixture
def small(make_gateway: Make) -> MemoryGateway:
    """A gateway that takes bodies of up to 1000 bytes."""
    return make_gateway(settings=settings_with(requests={"max_body": 1000}))


def test_a_body_that_says_it_is_too_large_is_refused_unread(small: MemoryGateway) -> None:
    client = small.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 1001"))
    assert problem(client.received) == (413, "body_too_large")
    assert client.half_closed
    assert client.closed == ""
    assert not small.origin().connections


def test_a_body_of_the_very_limit_passes(small: MemoryGateway) -> None:
    client = small.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 1000", body=b"x" * 1000))
    client.send(
        request(
            b"POST", b"/v1/users", b"Transfer-Encoding: chunked", body=b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n"
        )
    )
    assert [len(m.body) for m in serve(small, lambda _: OK)] == [1000, 1000]
    assert client.received == OK_ANSWER * 2


@given(CUTS)
def test_a_chunked_body_over_the_limit_is_refused_in_any_pieces(cuts: list[int]) -> None:
    gateway = MemoryGateway(settings=settings_with(requests={"max_body": 1000}))
    client = gateway.connect()
    body = b"1f4\r\n" + b"x" * 500 + b"\r\n1f5\r\n" + b"x" * 501 + b"\r\n0\r\n\r\n"
    client.send_in(rechunked(request(b"POST", b"/v1/users", b"Transfer-Encoding: chunked", body=body), cuts))
    assert problem(client.received) == (413, "body_too_large")
    assert client.half_closed
    assert gateway.idle() == (0, 0)
    for connection in gateway.origin().connections:
        assert connection.closed == "reset"
        assert not connection.received.endswith(b"0\r\n\r\n")
    gateway.hang_up()


@given(CUTS)
def test_a_broken_chunked_body_is_refused_in_any_pieces(cuts: list[int]) -> None:
    gateway = MemoryGateway()
    client = gateway.connect()
    body = b"3\r\nabc\r\n3\r\nabcd\r\n0\r\n\r\n"
    raw = request(b"POST", b"/v1/users", b"Transfer-Encoding: chunked", body=body) + request()
    client.send_in(rechunked(raw, cuts))
    assert problem(client.received) == (400, "bad_request")
    assert client.half_closed
    assert gateway.idle() == (0, 0)
    assert all(connection.closed == "reset" for connection in gateway.origin().connections)
    gateway.hang_up()


def test_a_lingering_connection_forgets_what_comes_and_ends(small: MemoryGateway) -> None:
    client = small.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 500000"))
    client.take()
    client.send_in([b"x" * 10000] * 20 + [request()])
    assert client.received == b""
    assert not client.near.paused
    small.advance(1.5)
    assert client.closed == ""
    small.advance(1)
    assert client.closed
    assert len(small.exchanges) == 1


def test_a_lingering_connection_ends_when_the_client_closes(small: MemoryGateway) -> None:
    client = small.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 500000"))
    client.close()
    assert client.closed == ""
    assert not small.site.channels


def test_a_lingering_tls_connection_is_not_half_closed(small: MemoryGateway) -> None:
    client = small.connect(secure=True)
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 500000"))
    assert problem(client.received) == (413, "body_too_large")
    assert not client.half_closed
    assert not client.closed
    small.advance(2.5)
    assert client.closed


# -- answers before the request's end


def test_after_an_early_answer_a_small_rest_is_read_and_the_connection_goes_on(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 60000", body=b"x" * 10))
    gateway.origin().only.send(OK)
    assert client.take() == OK_ANSWER
    assert gateway.origin().only.closed == "reset"  # its request was never completed
    client.send_in([b"x" * 30000, b"x" * 29990])
    client.send(request(b"GET", b"/v1/users/2"))
    assert [m.start for m in serve(gateway, lambda _: OK)] == [b"GET /v1/users/2 HTTP/1.1"]
    assert client.take() == OK_ANSWER
    assert client.closed == ""


def test_a_larger_rest_is_read_behind_a_service_s_answer_in_large_reads(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 1048576", body=b"x"))
    gateway.origin().only.send(OK)
    assert client.take() == OK_ANSWER
    assert client._near.room_asked() == 1 << 18
    client.send_in([bytes(1 << 18)] * 3)
    client.send(bytes((1 << 18) - 1 - 5000))
    assert client._near.room_asked() == 10000
    client.send(bytes(5000) + request(b"GET", b"/v1/users/2"))
    assert [m.start for m in serve(gateway, lambda _: OK)] == [b"GET /v1/users/2 HTTP/1.1"]
    assert client.take() == OK_ANSWER


def test_a_larger_rest_that_does_not_come_leaves_the_client_its_answer(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 1000000", body=b"x"))
    gateway.origin().only.send(OK)
    assert client.take() == OK_ANSWER
    gateway.advance(2.5)
    assert client.half_closed
    assert client.closed == ""
    gateway.advance(2.5)
    assert client.closed


def test_a_larger_rest_behind_a_refusal_ends_the_connection(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/nowhere", b"Content-Length: 70000", body=b"x"))
    assert problem(client.take()) == (404, "no_route")
    assert client.half_closed


def test_the_rest_and_the_next_request_may_come_as_one(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/nowhere", b"Content-Length: 10", body=b"x" * 4))
    assert problem(client.take()) == (404, "no_route")
    client.send(b"x" * 6 + request(b"GET", b"/v1/users/2"))
    assert gateway.origin().only.received == forwarded(b"GET", b"/v1/users/2")


def test_a_rest_that_does_not_come_ends_the_connection(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 60000", body=b"x"))
    gateway.origin().only.send(OK)
    assert client.take() == OK_ANSWER
    gateway.advance(1.5)
    assert client.closed == ""
    gateway.advance(1)
    assert client.closed == "reset"


@pytest.mark.parametrize(
    "framing",
    [
        (b"Content-Length: 1100000",),
        (b"Transfer-Encoding: chunked",),
        (b"Content-Length: 5", b"Expect: 100-continue"),
    ],
    ids=["large", "chunked", "expected"],
)
def test_after_an_early_answer_a_doubtful_rest_ends_the_connection(
    framing: tuple[bytes, ...], gateway: MemoryGateway
) -> None:
    client = gateway.connect()
    first = b"1\r\nx\r\n" if framing[0].endswith(b"chunked") else b"x"
    client.send(request(b"POST", b"/v1/users", *framing, body=first))
    gateway.origin().only.send(OK)
    assert client.take() == answered(b"200 OK", after=(b"Content-Length: 2", b"Connection: close"), body=b"hi")
    assert client.half_closed
    assert client.closed == ""
    client.send(b"x" * 70000 + request())
    assert client.received == b""
    gateway.advance(2.5)
    assert client.closed


def test_an_early_answer_with_a_long_body_is_delivered_while_the_upload_goes_on(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 20", body=b"x"))
    service = gateway.origin().only
    service.take()
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
    client.send(b"x" * 19)
    assert service.take() == b"x" * 19
    service.send(b"def")
    assert client.take() == answered(b"200 OK", after=(b"Content-Length: 6",), body=b"abcdef")
    assert client.closed == ""
    assert gateway.idle() == (1, 0)


def test_an_answer_that_ends_before_the_upload_ends_the_connection(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 20", body=b"x"))
    service = gateway.origin().only
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
    service.send(b"def")
    assert client.received.endswith(b"\r\n\r\nabcdef")
    assert client.half_closed
    assert service.closed == "reset"


# -- the client leaves


@pytest.mark.parametrize("leave", [Peer.close, Peer.reset])
def test_when_the_client_goes_the_service_is_let_go(leave: Callable[[Peer], None], gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request())
    leave(client)
    assert gateway.origin().only.closed == "reset"
    assert gateway.idle() == (0, 0)
    (exchange,) = gateway.exchanges
    assert exchange.code == "client_gone"
    assert not gateway.site.channels


def test_when_the_client_goes_in_its_body_the_service_never_sees_an_end(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n"))
    client.close()
    service = gateway.origin().only
    assert service.closed == "reset"
    assert not service.received.endswith(b"0\r\n\r\n")


def test_when_the_client_goes_while_connecting_the_attempt_is_given_up(gateway: MemoryGateway) -> None:
    gateway.origin().answers = "ignore"
    client = gateway.connect()
    client.send(request())
    assert gateway.idle() == (0, 1)
    client.close()
    assert gateway.idle() == (0, 0)


def test_when_the_client_goes_idle_nothing_else_happens(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request())
    serve(gateway, lambda _: OK)
    client.close()
    assert len(gateway.exchanges) == 1
    assert gateway.idle() == (1, 0)


# -- the site: draining, too many, replaced


def test_a_drain_closes_what_is_idle_and_finishes_what_is_under_way(gateway: MemoryGateway) -> None:
    fresh, silent, idle, late, busy, partial = (gateway.connect() for _ in range(6))
    for client in (idle, late):
        client.send(request(b"GET", b"/nowhere")).take()
    busy.send(request() + request())
    partial.send(b"GET /v1/us")
    gateway.site.drain()
    gateway.reactor.advance(0)
    assert [client.closed for client in (fresh, silent, idle, late, busy, partial)] == [""] * 6
    # A request may be on its way: it is waited for, but not for long.
    for client in (fresh, late):
        client.send(request(b"GET", b"/nowhere"))
        assert problem(client.received) == (404, "no_route")
        assert read_messages(client.received)[0].values(b"connection") == [b"close"]
        assert client.closed == "clean"
    gateway.advance(3)
    assert (silent.closed, idle.closed) == ("clean", "clean")
    gateway.origin().only.send(OK)
    assert busy.received == answered(b"200 OK", after=(b"Content-Length: 2", b"Connection: close"), body=b"hi")
    assert busy.closed == "clean"
    partial.send(b"ers HTTP/1.1\r\nHost: " + HOST + b"\r\nX-Request-ID: r1\r\n\r\n")
    serve(gateway, lambda _: OK)
    assert read_messages(partial.received)[0].values(b"connection") == [b"close"]
    assert partial.closed == "clean"


def test_a_drain_takes_a_request_behind_a_response_that_has_not_said_that_it_is_the_last(
    gateway: MemoryGateway,
) -> None:
    """A client may send its next request as soon as it has a response without Connection: close."""
    asking, quiet = gateway.connect(), gateway.connect()
    for client in (asking, quiet):
        client.send(request())
        gateway.origin().last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        assert b"connection" not in client.received.lower()
    gateway.site.drain()
    for origin in gateway.origin().connections:
        origin.send(b"hi")
    assert (asking.closed, quiet.closed) == ("", "")
    asking.take()
    asking.send(request(b"GET", b"/nowhere"))
    assert problem(asking.received) == (404, "no_route")
    assert read_messages(asking.received)[0].values(b"connection") == [b"close"]
    assert asking.closed == "clean"
    gateway.advance(3)
    assert quiet.closed == "clean"
    assert not gateway.site.channels


def test_the_end_of_a_drain_answers_what_it_can_and_cuts_the_rest(gateway: MemoryGateway) -> None:
    waiting, relaying, uploading, partial = (gateway.connect() for _ in range(4))
    waiting.send(request())
    relaying.send(request())
    gateway.origin().last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal")
    uploading.send(request(b"POST", b"/v1/users", b"Content-Length: 10"))
    partial.send(b"GET /v1/us")
    gateway.site.drain()
    gateway.site.end_drain()
    gateway.reactor.advance(0)
    assert problem(waiting.received) == (503, "draining")
    assert problem(uploading.received) == (503, "draining")
    assert relaying.received.endswith(b"\r\n\r\nhal")
    assert all(client.closed for client in gateway.clients)
    assert not gateway.site.channels
    assert gateway.idle() == (0, 0)
    assert sorted(exchange.status for exchange in gateway.exchanges) == [200, 503, 503]


def test_too_many_connections_are_told_and_a_flood_is_not(make_gateway: Make) -> None:
    gateway = make_gateway(limits=client_limits(max_connections=2))
    kept = [gateway.connect(), gateway.connect()]
    over = gateway.connect()
    message, _ = read_message(over.received)
    assert (message.status, message.code, message.one(b"retry-after")) == (503, "overloaded", b"1")
    flood = [gateway.connect() for _ in range(1100)]
    assert flood[-1].received == b""
    assert flood[-1].closed == "reset"
    assert gateway.site.rejected == 1101
    kept[0].send(request(b"GET", b"/nowhere"))
    assert problem(kept[0].take()) == (404, "no_route")
    gateway.advance(3)
    assert len(gateway.site.channels) == 2


def test_a_replaced_tree_serves_the_next_request_on_an_old_connection(make_gateway: Make) -> None:
    gateway = make_gateway()
    other = make_gateway(settings=settings_with(tenants={"base_domain": "other.example"}))
    client = gateway.connect()
    client.send(request(b"GET", b"/nowhere"))
    assert problem(client.take()) == (404, "no_route")
    client.send(request(b"GET", b"/v1/users"))
    gateway.site.replace(
        other.composition.resource,
        other.composition.policy,
        other.composition.reader,
        client_timeouts(),
        client_limits(),
    )
    serve(gateway, lambda _: OK)
    assert client.take() == OK_ANSWER
    client.send(request(b"GET", b"/v1/users"))
    assert problem(client.take()) == (421, "misdirected_request")


def test_a_replaced_tree_reads_the_same_head_anew(make_gateway: Make) -> None:
    gateway = make_gateway()
    other = make_gateway(settings=settings_with(tenants={"header": "X-Org-ID"}))
    client = gateway.connect()
    raw = request(b"GET", b"/v1/users", b"X-Org-ID: koder")
    for composition, name in ((gateway.composition, b"x-tenant-id"), (other.composition, b"x-org-id")):
        gateway.site.replace(
            gateway.composition.resource, composition.policy, composition.reader, client_timeouts(), client_limits()
        )
        client.send(raw)
        (message,) = serve(gateway, lambda _: OK)
        assert message.one(name) == b"koder"


@pytest.mark.parametrize("repeated", [1, 3])
def test_a_client_that_repeats_itself_is_read_the_same_way(repeated: int, gateway: MemoryGateway) -> None:
    client = gateway.connect()
    for number in range(repeated):
        client.send(request(b"GET", b"/v1/users/%d" % number, b"Accept: */*"))
        assert gateway.origin().only.take() == forwarded(b"GET", b"/v1/users/%d" % number, b"Accept: */*")
        gateway.origin().only.send(OK)
        client.send(request(b"GET", b"/v1/%2e/x", b"Accept: */*"))
        client.send(request(b"POST", b"/v1/users", b"Content-Length: 3", body=b"%03d" % number))
        assert [m.body for m in serve(gateway, lambda _: OK)] == [b"%03d" % number]
    assert [m.status for m in read_messages(client.received)] == [200, 400, 200] * repeated


def test_one_context_serves_a_connection_until_host_origin_or_tenant_change(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    for host, tenant in ((HOST, b"koder"), (b"acme.id.koder.dev", b"acme"), (HOST, b"koder")):
        client.send(request(host=host))
        (message,) = serve(gateway, lambda _: OK)
        assert message.one(b"x-tenant-id") == tenant
        assert message.one(b"host") == host


def test_what_a_proxy_says_of_one_client_is_not_said_of_the_next(make_gateway: Make) -> None:
    gateway = make_gateway(settings=settings_with(listen={"trusted_proxies": ("10.0.0.0/8",)}))
    proxy = gateway.connect("10.1.2.3")
    seen = []
    for lines in ((b"X-Forwarded-For: 198.51.100.7",), (), (b"X-Forwarded-For: 198.51.100.8",)):
        proxy.send(request(b"GET", b"/v1/users", *lines))
        (message,) = serve(gateway, lambda _: OK)
        seen.append(message.one(b"x-forwarded-for"))
    assert seen == [b"198.51.100.7, 10.1.2.3", b"10.1.2.3", b"198.51.100.8, 10.1.2.3"]
    assert [exchange.peer for exchange in gateway.exchanges] == [b"198.51.100.7", b"10.1.2.3", b"198.51.100.8"]


# -- resources of others


class Broken(Resource):
    """Cannot even find its children."""

    def getChildWithDefault(self, path: bytes, request: object) -> Resource:
        raise RuntimeError("no children today")


def test_a_tree_that_raises_is_a_500_and_the_end(make_gateway: Make, logged_errors: LoggedErrors) -> None:
    gateway = make_gateway(mounts={b"/broken": Broken()})
    client = gateway.connect()
    client.send(request(b"GET", b"/broken/x"))
    assert problem(client.received) == (500, "internal_error")
    assert client.half_closed
    (event,) = logged_errors.take()
    assert "no children today" in str(event["log_failure"].value)


class Endless(Resource):
    """Begins an answer and does not end it; remembers its request and how that ended."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[object] = []
        self.begun: object = None

    def render(self, request):  # type: ignore[no-untyped-def]
        self.begun = request
        request.notifyFinish().addBoth(self.ended.append)
        if request.args.get(b"say"):
            request.write(b"first")
        return NOT_DONE_YET


@pytest.mark.parametrize("query", [b"", b"?say=1"], ids=["silent", "begun"])
@pytest.mark.parametrize("end", ["exchange", "drain", "gone"])
def test_an_exchange_that_is_given_up_ends_once_for_its_resource(
    query: bytes, end: str, make_gateway: Make, logged_errors: LoggedErrors
) -> None:
    endless = Endless()
    gateway = make_gateway(mounts={b"/endless": endless}, timeouts=client_timeouts(exchange=5.0))
    client = gateway.connect()
    client.send(request(b"GET", b"/endless" + query))
    before = client.take()
    assert before.endswith(b"5\r\nfirst\r\n") if query else before == b""
    if end == "exchange":
        gateway.advance(6)
    elif end == "drain":
        gateway.site.end_drain()
        gateway.reactor.advance(0)
    else:
        client.close()
    if query:
        assert client.received == b""  # never a second head in the midst of a body
    elif end == "exchange":
        assert problem(client.received) == (504, "upstream_timeout")
    elif end == "drain":
        assert problem(client.received) == (503, "draining")
    if query and end == "exchange":
        assert client.closed
    assert len(gateway.exchanges) == 1
    assert len(endless.ended) == 1
    request_of_theirs = endless.begun
    request_of_theirs.write(b"more")  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError):
        request_of_theirs.finish()  # type: ignore[attr-defined]
    assert b"more" not in client.received


def test_every_answer_has_one_date(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request() + request(b"GET", b"/nowhere") + request(b"OPTIONS", b"*"))
    serve(gateway, lambda _: b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n")
    dates = [message.one(b"date") for message in read_messages(client.received)]
    assert dates == [b"Thu, 01 Jan 1970 00:00:00 GMT", *[DATE.strip()[6:]] * 2]


def test_nothing_is_scheduled_for_a_request(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request())
    serve(gateway, lambda _: OK)
    client.send(request())
    assert not [call for call in gateway.reactor.getDelayedCalls() if call.active()]
    assert isinstance(gateway.reactor, Clock)


def test_little_is_read_of_a_client_but_for_bodies(gateway: MemoryGateway) -> None:
    """From its first byte on: what comes behind a request, or behind a body, is taken by nobody."""
    client = gateway.connect()
    room = client._near.room_asked
    assert room() == 0
    client.send(b"PUT /v1/users HTTP/1.1\r\nHost: " + HOST + b"\r\nContent-Length: 40000\r\n\r\n" + bytes(10000))
    gateway.reactor.advance(0)
    assert room() == 2 * 30000
    client.send(bytes(30000))
    gateway.reactor.advance(0)
    assert room() == 0


def test_a_connection_has_no_dictionary_of_its_own(gateway: MemoryGateway) -> None:
    """CPython keeps up to 30 attributes of an object in a table; more take 1.3 KiB, from each idle client."""
    client = gateway.connect()
    client.send(request())
    serve(gateway, lambda _: OK)
    assert client.take() == OK_ANSWER
    assert 20 < len(vars(client._near.protocol)) < 30


def test_what_is_forgotten_is_read_at_once(gateway: MemoryGateway) -> None:
    """Up to its bound, in few reads: a megabyte behind a refusal would else cost as much as four requests."""
    client = gateway.connect()
    room = client._near.room_asked
    client.send(b"GET /" + b"a" * 40000)
    assert client.take().startswith(b"HTTP/1.1 414 ")
    before = room()
    assert before > 1 << 20
    client.send(bytes(1 << 19))
    assert room() == before - (2 << 19)
    client.send(bytes(1 << 20))
    assert room() == 0

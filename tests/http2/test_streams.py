"""Streams of HTTP/2 in memory: what becomes of them when either side ends first, and what clients can make of it."""

from __future__ import annotations

from typing import Any

import pytest

from koder_gateway.http2.phases import LINGER
from tests.kit.http2_frames import (
    CANCEL,
    DATA,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    NO_ERROR,
    PROTOCOL_ERROR,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Fields,
    Frame,
    block,
    data,
    frame,
    goaway,
    headers,
    ping,
    reset,
    window_update,
)
from tests.kit.http2_memory import Http2, Mounted, asking, assert_over, code, told
from tests.kit.memory import HOST, MemoryGateway

OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture
def gateway() -> MemoryGateway:
    return MemoryGateway(mounts={b"/mounted": Mounted()})


@pytest.mark.parametrize(
    ("method", "kinds"),
    [
        (b"GET", [(HEADERS, 0), (DATA, 0), (DATA, 1)]),
        (b"HEAD", [(HEADERS, 0), (DATA, 1)]),
        (b"POST", [(HEADERS, 0), (DATA, 1)]),
    ],
)
def test_a_mounted_resource_s_answer_ends_its_stream(gateway: MemoryGateway, method: bytes, kinds: Any) -> None:
    client = Http2(gateway)
    assert told(client.send(headers(1, asking(b"/mounted", method))), 1) == kinds
    assert_over(client)


def test_a_mounted_resource_s_producer_is_stopped_with_its_stream() -> None:
    mounted = Mounted()
    client = Http2(MemoryGateway(mounts={b"/mounted": mounted}))
    client.send(headers(1, asking(b"/mounted/endless")))
    client.send(reset(1, CANCEL))
    assert mounted.producer is not None
    assert mounted.producer.told == ["stop"]
    assert_over(client)


def test_a_mounted_resource_may_give_its_connection_up(gateway: MemoryGateway) -> None:
    client = Http2(gateway)
    assert told(client.send(headers(1, asking(b"/mounted/lost"))), 1) == [(RST_STREAM, 0)]
    assert_over(client)


def test_no_tunnel_ends_in_a_mounted_resource(gateway: MemoryGateway) -> None:
    client = Http2(gateway)
    fields: Fields = [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"https"),
        (b":path", b"/mounted"),
        (b":authority", HOST),
    ]
    (head, *_) = (each for each in client.send(headers(1, block(fields), end=False)) if each.kind == HEADERS)
    assert b"501" in head.payload


def test_a_client_that_ends_its_body_behind_an_answer_that_waits_for_it(gateway: MemoryGateway) -> None:
    """The stream ends at its deadline, whatever the client does not do."""
    client = Http2(gateway, (INITIAL_WINDOW_SIZE, 10))
    client.send(headers(1, asking(method=b"POST"), end=False), data(1, b"first"))
    gateway.advance(0)
    gateway.origin().last.send(OK % 100 + b"x" * 100)
    client.send(data(1, b"rest", end=True))
    assert client.channel.streams
    client.after(130)
    assert_over(client)


def test_trailers_have_no_place_on_a_tunnel(gateway: MemoryGateway) -> None:
    client = Http2(gateway)
    fields: Fields = [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"https"),
        (b":path", b"/v1/users"),
        (b":authority", HOST),
    ]
    client.send(headers(1, block(fields), end=False))
    assert code(client.send(headers(1, block([(b"x", b"y")]))), RST_STREAM) == PROTOCOL_ERROR
    assert_over(client)


def test_what_a_service_sent_before_it_failed_still_goes_out(gateway: MemoryGateway) -> None:
    client = Http2(gateway, (INITIAL_WINDOW_SIZE, 3))
    client.send(headers(1, asking()))
    origin = gateway.origin().last
    origin.send(OK % 100 + b"0123456789")
    origin.close()
    client.after(1)
    came = client.send(window_update(1, 100))
    body = b"".join(each.payload for each in came if each.kind == DATA)
    assert (b"0123456789".endswith(body), came[-1].kind) == (True, RST_STREAM)
    assert body
    assert_over(client)


def test_the_connection_s_window_gets_back_what_failed_streams_did_not_take(gateway: MemoryGateway) -> None:
    client = Http2(gateway)
    given = 0
    for number in range(40):
        stream = 2 * number + 1
        refused = headers(stream, asking(b"/v1/users", b"POST", (b"content-length", b"1")), end=False)
        came = client.send(refused, data(stream, b"x" * 16384))
        given += sum(
            int.from_bytes(each.payload, "big") for each in came if (each.kind, each.stream) == (WINDOW_UPDATE, 0)
        )
        client.after(1)
    assert given >= 40 * 16384 - 524288


def test_settings_cost_by_their_values(gateway: MemoryGateway) -> None:
    client = Http2(gateway)
    many = frame(SETTINGS, payload=b"\0\x04\0\0\xff\xff" * 2700)
    assert code(client.send(many), GOAWAY) == ENHANCE_YOUR_CALM


def test_after_requests_were_turned_away_the_end_waits_for_those_that_are_on_their_way(
    gateway: MemoryGateway,
) -> None:
    """Bytes that nobody reads would reset the connection, and with it the last answer."""
    client = Http2(gateway)
    client.send(headers(1, asking()))
    many = block([(b"", b"")] * 4000)
    assert code(client.send(headers(3, asking() + many)), GOAWAY) == ENHANCE_YOUR_CALM
    gateway.origin().last.send(OK % 2 + b"ok")
    client.after(0)
    assert not client.channel.streams
    assert client.channel.lifecycle.phase == LINGER
    client.send(headers(5, asking()))
    assert not client.peer.closed
    client.after(gateway.site.timeouts.linger)
    assert client.peer.closed


def test_a_window_of_a_byte_at_a_time_is_not_for_ever(gateway: MemoryGateway) -> None:
    client = Http2(gateway, (INITIAL_WINDOW_SIZE, 0))
    client.send(headers(1, asking()))
    gateway.origin().last.send(OK % 9000 + b"x" * 9000)
    came: list[Frame] = []
    for _ in range(8000):
        came = client.send(window_update(1, 1))
        if any(each.kind == GOAWAY for each in came):
            break
    assert code(came, GOAWAY) == ENHANCE_YOUR_CALM


def test_windows_that_open_by_crumbs_are_not_filled_by_crumbs(gateway: MemoryGateway) -> None:
    client = Http2(gateway)
    client.send(headers(1, asking()))
    gateway.origin().last.send(OK % 100_000 + b"x" * 100_000)
    client.after(0)
    assert client.send(window_update(0, 50_000), window_update(1, 100)) == []
    came = client.send(window_update(1, 20_000))
    assert [len(each.payload) for each in came if each.kind == DATA] == [16384]
    # What there is of the window is filled when nothing more comes.
    assert [len(each.payload) for each in client.after(0.5) if each.kind == DATA] == [20_100 - 16384]


def test_a_drain_says_the_last_stream_even_if_the_client_is_leaving_too(gateway: MemoryGateway) -> None:
    client = Http2(gateway)
    client.send(headers(1, asking()))
    client.send(goaway(NO_ERROR))
    gateway.site.drain()
    gateway.origin().last.send(OK % 1 + b"a")
    client.after(3)
    assert client.peer.closed


def test_a_request_in_a_drain_s_grace_is_served_and_the_connection_closed(gateway: MemoryGateway) -> None:
    client = Http2(gateway)
    gateway.site.drain()
    assert code(client.after(0.25), GOAWAY) == NO_ERROR
    client.after(1)
    client.send(headers(1, asking()))
    client.after(2)
    gateway.origin().last.send(OK % 1 + b"a")
    assert told(client.after(0), 1) == [(HEADERS, 0), (DATA, 1)]
    assert client.peer.closed


def test_streams_beyond_the_last_one_said_are_ignored_whatever_comes_on_them(gateway: MemoryGateway) -> None:
    client = Http2(gateway)
    client.send(headers(1, asking()))
    gateway.site.drain()
    client.after(0)
    client.send(ping(b"draining", ack=True))
    came = client.send(headers(3, asking(), end=False), headers(3, block([(b"x", b"y")])))
    assert told(came, 3) == []
    gateway.origin().last.send(OK % 1 + b"a")
    assert told(client.after(0), 1) == [(HEADERS, 0), (DATA, 1)]


def test_the_settings_come_first_in_a_drain_too(gateway: MemoryGateway) -> None:
    gateway.site.drain()
    client = Http2(gateway)
    assert [each.kind for each in client.first if each.kind in (SETTINGS, GOAWAY)][:2] == [SETTINGS, GOAWAY]


def test_blocks_that_are_known_are_bounded_by_what_they_mean(gateway: MemoryGateway) -> None:
    """Eleven bytes can name eleven times four thousand."""
    client = Http2(gateway)
    large = b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000
    client.send(headers(1, asking() + large))
    for number in range(60):
        client.send(headers(2 * number + 3, asking(b"/%d" % number).replace(b"\x40", b"\0") + b"\xbe" * 7))
    known = client.channel.streams.heads._known
    held = sum(len(line) for heads in known for head in heads.values() for line in head.lines)
    assert held <= 4 * 65536


def test_a_body_behind_a_431_is_forgotten(gateway: MemoryGateway) -> None:
    client = Http2(gateway)
    many = asking(b"/v1/users", b"POST", *[(b"x%d" % number, b"") for number in range(300)])
    parts = [many[:16000], many[16000:]]
    came = client.send(
        headers(1, parts[0], end=False, done=not parts[1]), *([frame(9, 4, 1, parts[1])] if parts[1] else [])
    )
    assert told(came, 1)[0][0] == HEADERS
    assert code(client.send(data(1, b"body", end=True)), RST_STREAM) in (None, NO_ERROR)
    assert_over(client)

"""Connections that switch protocols, as a play in memory: what reaches whom, and how each end is passed on."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.web.resource import Resource

from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.wire.upgrade import accept
from tests.kit.bounds import client_limits, client_timeouts
from tests.kit.http1 import read_message
from tests.kit.memory import HIGH_WATER, MemoryGateway, Peer, Transport, answered, forwarded, request, settings_with

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ASKS = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: " + KEY, b"Sec-WebSocket-Version: 13")
SHAKE = request(b"GET", b"/v1/users", *ASKS)
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
OTHER = (b"Connection: Upgrade", b"Upgrade: echo")

Make = Callable[..., MemoryGateway]


def switch(*lines: bytes, status: bytes = b"101 Switching Protocols", version: bytes = b"1.1") -> bytes:
    return b"HTTP/%b %b\r\n%b\r\n\r\n" % (version, status, b"\r\n".join(lines))


SWITCH = switch(b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + ACCEPT)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: " + ACCEPT + b"\r\nX-Request-ID: r1\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)


def tunnelled(gateway: MemoryGateway, *, secure: bool = False) -> tuple[Peer, Peer]:
    """A client and a service that have switched, with nothing received since."""
    client = gateway.connect(secure=secure)
    client.send(SHAKE)
    gateway.advance(0.5)
    service = gateway.origin().last
    service.send(SWITCH)
    hsts = b"Strict-Transport-Security: max-age=31536000\r\n" if secure else b""
    assert client.take() == SWITCHED.replace(b"X-Request-ID: r1\r\n", b"X-Request-ID: r1\r\n" + hsts)
    service.take()
    return client, service


def code(client: Peer) -> tuple[int, str]:
    message, rest = read_message(client.take())
    assert rest == b""
    return message.status, message.code


# -- what a service is asked


def asked(gateway: MemoryGateway, data: bytes) -> bytes:
    """What the service gets."""
    gateway.connect().send(data)
    gateway.advance(0.5)
    return gateway.origin().last.received


UPGRADE = b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n"


def test_the_service_gets_the_upgrade_after_all_other_fields(gateway: MemoryGateway) -> None:
    head = forwarded(b"GET", b"/v1/users", *ASKS[2:])
    assert asked(gateway, SHAKE) == head[:-2] + UPGRADE % b"websocket"


@pytest.mark.parametrize(
    ("lines", "passes"),
    [
        ((b"Connection: upgrade", b"Upgrade: echo"), b"echo"),
        ((b"Connection: keep-alive, UPGRADE", b"Upgrade: echo/1.0"), b"echo/1.0"),
        ((b"Connection: keep-alive", b"Connection: upgrade", b"Upgrade: echo"), b"echo"),
        ((b"Connection: Upgrade", b"Upgrade: a, b/2"), b"a, b/2"),
        ((b"Connection: Upgrade", b"Upgrade: a", b"Upgrade: b"), b"a, b"),
        ((b"Connection: Upgrade", b"Upgrade: ,a,, b ,"), b"a, b"),
        ((b"Connection: Upgrade", b"Upgrade: h2c, a"), b"a"),
        ((b"Connection: Upgrade", b"Upgrade: a", b"Content-Length: 0"), b"a"),
    ],
)
def test_what_is_asked_for_is_passed_on_as_one_field(
    gateway: MemoryGateway, lines: tuple[bytes, ...], passes: bytes
) -> None:
    got = asked(gateway, request(b"GET", b"/v1/users", *lines))
    assert got.endswith(b"\r\n" + UPGRADE % passes)
    assert got.lower().count(b"upgrade:") == got.lower().count(b"connection:") == 1


@pytest.mark.parametrize(
    "data",
    [
        request(b"GET", b"/v1/users", b"Upgrade: websocket"),
        request(b"GET", b"/v1/users", b"Connection: keep-alive", b"Upgrade: websocket"),
        request(b"GET", b"/v1/users", b"Connection: Upgrade"),
        request(b"GET", b"/v1/users", b"Connection: Upgrade", b"Upgrade:"),
        request(b"GET", b"/v1/users", b"Connection: Upgrade", b"Upgrade: ,"),
        *(
            request(b"GET", b"/v1/users", b"Connection: Upgrade", b"Upgrade: " + protocol)
            for protocol in (
                b"h2c",
                b"H2C",
                b"h2",
                b"h2c-14",
                b"h3",
                b"HTTP/2.0",
                b"http",
                b"HTTPS/1.3",
                b"TLS/1.0",
                b"SPDY/3.1",
                b"connect-udp",
                b"web socket",
                b"websocket/",
                b"websocket/1/2",
                b"websocket;a=b",
                b'"websocket"',
                b"websocket, @",
            )
        ),
        request(b"GET", b"/v1/users", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA"),
        request(b"POST", b"/v1/users", b"Connection: Upgrade", b"Upgrade: websocket"),
        request(b"HEAD", b"/v1/users", b"Connection: Upgrade", b"Upgrade: echo"),
        request(b"GET", b"/v1/users", b"Connection: Upgrade", b"Upgrade: echo", version=b"1.0"),
        request(b"GET", b"/v1/users", b"Connection: Upgrade", b"Upgrade: echo", b"Content-Length: 5", body=b"hello"),
        request(
            b"POST",
            b"/v1/users",
            b"Connection: Upgrade",
            b"Upgrade: echo",
            b"Transfer-Encoding: chunked",
            body=b"5\r\nhello\r\n0\r\n\r\n",
        ),
    ],
)
def test_what_is_no_good_upgrade_is_an_ordinary_request(gateway: MemoryGateway, data: bytes) -> None:
    client = gateway.connect()
    client.send(data)
    gateway.advance(0.5)
    service = gateway.origin().only
    head = service.received.partition(b"\r\n\r\n")[0].lower()
    assert b"upgrade" not in head
    assert b"connection:" not in head
    service.send(SWITCH)
    if data.startswith(b"HEAD"):
        assert b"HTTP/1.1 502 " in client.take()
    else:
        assert code(client) == (502, "upstream_invalid")
    assert service.closed == "reset"


def test_without_places_no_upgrade_is_passed_on(make_gateway: Make) -> None:
    gateway = make_gateway(settings=settings_with(requests={"max_tunnels": 0}))
    assert asked(gateway, SHAKE) == forwarded(b"GET", b"/v1/users", *ASKS[2:])


def test_a_repeated_head_asks_again(gateway: MemoryGateway) -> None:
    """The reader takes the same fields for the same meaning, but a request line can change what may be asked."""
    client = gateway.connect()
    for method, upgrades in ((b"GET", True), (b"GET", True), (b"POST", False), (b"GET", True)):
        client.send(request(method, b"/v1/users", *ASKS))
        gateway.advance(0.5)
        service = gateway.origin().only
        assert (b"Upgrade: websocket" in service.take()) is upgrades
        service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert client.take() == answered(b"200 OK", after=(b"Content-Length: 0",))


def test_a_mounted_resource_sees_no_upgrade(make_gateway: Make) -> None:
    seen = []

    class Page(Resource):
        isLeaf = True

        def render_GET(self, request: object) -> bytes:
            seen.append(request.getHeader("upgrade"))  # type: ignore[attr-defined]
            return b"page"

    gateway = make_gateway(mounts={b"/page": Page()})
    client = gateway.connect()
    client.send(request(b"GET", b"/page", *ASKS))
    assert read_message(client.take())[0].body == b"page"
    assert seen == [None]


# -- the answer


def test_a_service_that_answers_otherwise_is_proxied_as_usual(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(SHAKE + request(b"GET", b"/v1/users/7"))
    gateway.advance(0.5)
    service = gateway.origin().only
    service.take()
    service.send(
        b"HTTP/1.1 403 Forbidden\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nno"
    )
    assert client.take() == answered(b"403 Forbidden", body=b"no", after=(b"Content-Length: 2",))
    assert service.take() == forwarded(b"GET", b"/v1/users/7")
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert client.take() == answered(b"200 OK", after=(b"Content-Length: 0",))
    assert [exchange.status for exchange in gateway.exchanges] == [403, 200]
    assert gateway.idle() == (1, 0)


def test_interim_answers_come_before_the_switch(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(SHAKE)
    gateway.advance(0.5)
    gateway.origin().only.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + SWITCH + b"raw")
    assert client.take() == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + SWITCHED + b"raw"


BAD = {
    "unasked protocol": switch(b"Upgrade: echo", b"Connection: Upgrade"),
    "one protocol too many": switch(
        b"Upgrade: websocket, echo", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + ACCEPT
    ),
    "h2c": switch(b"Upgrade: h2c", b"Connection: Upgrade"),
    "no upgrade": switch(b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + ACCEPT),
    "empty upgrade": switch(b"Upgrade: ", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + ACCEPT),
    "no connection": switch(b"Upgrade: websocket", b"Sec-WebSocket-Accept: " + ACCEPT),
    "another connection option": switch(
        b"Upgrade: websocket", b"Connection: close", b"Sec-WebSocket-Accept: " + ACCEPT
    ),
    "no accept": switch(b"Upgrade: websocket", b"Connection: Upgrade"),
    "wrong accept": switch(
        b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: c3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    ),
    "accept twice": switch(b"Upgrade: websocket", b"Connection: Upgrade", *[b"Sec-WebSocket-Accept: " + ACCEPT] * 2),
    "accept named by connection": switch(
        b"Upgrade: websocket", b"Connection: Upgrade, Sec-WebSocket-Accept", b"Sec-WebSocket-Accept: " + ACCEPT
    ),
    "a length": switch(
        b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + ACCEPT, b"Content-Length: 3"
    ),
    "chunks": switch(
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + ACCEPT,
        b"Transfer-Encoding: chunked",
    ),
    "an old version": switch(
        b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + ACCEPT, version=b"1.0"
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_101_that_does_not_fit_is_no_answer(gateway: MemoryGateway, case: str) -> None:
    client = gateway.connect()
    client.send(SHAKE)
    gateway.advance(0.5)
    service = gateway.origin().only
    service.send(BAD[case] + b"raw")
    assert code(client) == (502, "upstream_invalid")
    assert service.closed == "reset"
    assert client.closed == ""


@pytest.mark.parametrize("case", ["no upgrade", "empty upgrade", "no connection", "another connection option"])
def test_a_101_to_no_protocol_is_told_of_in_plain_words(
    gateway: MemoryGateway, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(gateway.services["identity"], "failed", lambda event, detail: told.append(detail))
    client = gateway.connect()
    client.send(SHAKE)
    gateway.advance(0.5)
    gateway.origin().only.send(BAD[case] + b"raw")
    assert told == ["its 101 does not say to which protocol it switched"]


def test_a_101_that_nobody_asked_for_is_told_of_in_plain_words(
    gateway: MemoryGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(gateway.services["identity"], "failed", lambda event, detail: told.append(detail))
    client = gateway.connect()
    client.send(request(b"GET", b"/v1/users"))
    gateway.advance(0.5)
    gateway.origin().only.send(switch(b"X-A: b"))
    assert code(client) == (502, "upstream_invalid")
    assert told == ["it switched protocols without being asked"]


def test_a_switch_without_a_key_is_no_websocket(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"GET", b"/v1/users", *ASKS[:2]))
    gateway.advance(0.5)
    gateway.origin().only.send(SWITCH)
    assert code(client) == (502, "upstream_invalid")


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_other_protocols_need_no_key(gateway: MemoryGateway, method: bytes) -> None:
    client = gateway.connect()
    client.send(request(method, b"/v1/users", *OTHER))
    gateway.advance(0.5)
    gateway.origin().only.send(switch(b"Connection: close, upgrade", b"upgrade: ECHO", b"X-A: b") + b"hello")
    assert client.take() == (
        b"HTTP/1.1 101 Switching Protocols\r\nX-A: b\r\nX-Request-ID: r1\r\n"
        b"Connection: Upgrade\r\nUpgrade: ECHO\r\n\r\nhello"
    )


def test_the_accept_of_the_rfc() -> None:
    assert accept(KEY) == ACCEPT


# -- bytes


def test_bytes_both_ways_and_those_that_came_early(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(SHAKE + b"GET /not/a/request HTTP/1.1\r\n\r\n")
    client.send(b"early")
    gateway.advance(0.5)
    service = gateway.origin().only
    service.take()
    service.send(SWITCH + b"at once")
    assert client.take() == SWITCHED + b"at once"
    assert service.take() == b"GET /not/a/request HTTP/1.1\r\n\r\nearly"
    client.send(b"\0\xff")
    service.send(b"HTTP/1.1 200 OK\r\n\r\n")
    assert (service.take(), client.take()) == (b"\0\xff", b"HTTP/1.1 200 OK\r\n\r\n")
    assert gateway.idle() == (0, 0)
    assert gateway.exchanges == []


@given(st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=40)), max_size=20), st.integers(0, 200))
def test_every_byte_arrives_once_and_in_order(pieces: list[tuple[bool, bytes]], cut: int) -> None:
    gateway = MemoryGateway()
    client = gateway.connect()
    client.send(SHAKE)
    gateway.advance(0.5)
    service = gateway.origin().only
    service.take()
    place = cut % len(SWITCH)
    service.send(SWITCH[:place]).send(SWITCH[place:])
    up = down = b""
    for upward, data in pieces:
        if upward:
            client.send(data)
            up += data
        else:
            service.send(data)
            down += data
    assert (service.take(), client.take()) == (up, SWITCHED + down)
    client.close()
    gateway.advance(0)
    (exchange,) = gateway.exchanges
    assert (exchange.status, exchange.bytes_in, exchange.bytes_out) == (101, len(up), len(down))
    gateway.hang_up()


def test_early_bytes_are_bounded(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(SHAKE)
    sent = b"x" * 4096 * 40
    for start in range(0, len(sent), 4096):
        client.send(sent[start : start + 4096])
    assert client.near.paused
    gateway.advance(0.5)
    service = gateway.origin().only
    service.take()
    service.send(SWITCH)
    gateway.advance(0)
    assert not client.near.paused
    assert service.take() == sent


def test_a_client_that_does_not_read_pauses_the_service(gateway: MemoryGateway) -> None:
    client, service = tunnelled(gateway)
    client.stop_reading()
    service.send(b"x" * (HIGH_WATER + 1))
    assert service.near.paused
    service.send(b"y")
    client.start_reading()
    gateway.advance(0)
    assert not service.near.paused
    assert client.take() == b"x" * (HIGH_WATER + 1) + b"y"


def test_the_receive_buffer_of_the_kernel_is_left_alone(
    gateway: MemoryGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that shrinks below two segments (of 64 KiB on loopback) leaves the service with a window that it fills by
    probes alone, five times a second: 300 KB/s."""
    options: list[tuple[int, ...]] = []

    class Handle:
        def fileno(self) -> int:
            return -1

        def setsockopt(self, *option: int) -> None:
            options.append(option)

    monkeypatch.setattr(Transport, "getHandle", lambda transport: Handle(), raising=False)
    tunnelled(gateway)
    assert not [option for option in options if option[:2] == (socket.SOL_SOCKET, socket.SO_RCVBUF)]


def test_a_service_that_does_not_read_pauses_the_client(gateway: MemoryGateway) -> None:
    client, service = tunnelled(gateway)
    service.stop_reading()
    client.send(b"x" * (HIGH_WATER + 1))
    assert client.near.paused
    client.send(b"y")
    service.start_reading()
    gateway.advance(0)
    assert not client.near.paused
    assert service.take() == b"x" * (HIGH_WATER + 1) + b"y"


def test_early_bytes_do_not_run_over_a_service_that_does_not_read(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(SHAKE)
    gateway.advance(0.5)
    service = gateway.origin().only
    service.take()
    service.stop_reading()
    client.send(b"x" * (HIGH_WATER + 1))
    assert client.near.paused
    service.send(SWITCH)
    gateway.advance(0)
    assert client.near.paused
    service.start_reading()
    gateway.advance(0)
    assert not client.near.paused
    assert service.take() == b"x" * (HIGH_WATER + 1)


@pytest.mark.parametrize("size", [HIGH_WATER + 1, 2 * HIGH_WATER])
def test_the_head_alone_can_fill_the_way_to_the_service(make_gateway: Make, size: int) -> None:
    gateway = make_gateway(
        settings=settings_with(requests={"max_head": 4 * HIGH_WATER}), limits=client_limits(max_head=4 * HIGH_WATER)
    )
    client = gateway.connect()
    gateway.connect().send(request())
    gateway.advance(0.5)
    service = gateway.origin().only
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    service.stop_reading()
    client.send(request(b"GET", b"/v1/users", *ASKS, b"X-Long: " + b"x" * size))
    assert gateway.origin().only is service
    service.send(SWITCH)
    assert client.near.paused
    service.start_reading()
    gateway.advance(0)
    assert not client.near.paused


# -- the end


def half_close(peer: Peer) -> None:
    """The far side sends no more: what a transport tells a protocol that knows of half-closed connections."""
    peer.near.protocol.readConnectionLost()


def only(gateway: MemoryGateway) -> tuple[int, str]:
    (exchange,) = gateway.exchanges
    return exchange.status, exchange.code


def test_the_client_ends_first(gateway: MemoryGateway) -> None:
    client, service = tunnelled(gateway)
    half_close(client)
    assert service.half_closed
    assert gateway.exchanges == []
    service.send(b"still here")
    assert client.take() == b"still here"
    half_close(service)
    gateway.advance(0)
    assert (client.closed, service.closed) == ("clean", "clean")
    assert only(gateway) == (101, "")


def test_the_service_ends_first(gateway: MemoryGateway) -> None:
    client, service = tunnelled(gateway)
    half_close(service)
    assert client.half_closed
    client.send(b"still here")
    assert service.take() == b"still here"
    half_close(client)
    gateway.advance(0)
    assert (client.closed, service.closed) == ("clean", "clean")
    assert only(gateway) == (101, "")


def test_an_end_is_told_once(gateway: MemoryGateway) -> None:
    client, service = tunnelled(gateway)
    for _ in range(2):
        half_close(client)
    assert gateway.exchanges == []
    for _ in range(2):
        half_close(service)
    assert only(gateway) == (101, "")


def test_an_end_that_is_told_again_puts_nothing_off(gateway: MemoryGateway) -> None:
    for ends in (0, 1):
        sides = tunnelled(gateway)
        half_close(sides[ends])
        gateway.advance(50)
        half_close(sides[ends])
        gateway.advance(11)
        assert [side.closed for side in sides] == ["reset", "reset"]


def test_where_the_client_cannot_half_close_the_service_ends_both(gateway: MemoryGateway) -> None:
    client, service = tunnelled(gateway, secure=True)
    service.send(b"the last")
    half_close(service)
    gateway.advance(0)
    assert client.take() == b"the last"
    assert (client.closed, service.closed) == ("clean", "clean")
    assert only(gateway) == (101, "")


def test_a_client_that_closes_whole_and_in_order(gateway: MemoryGateway) -> None:
    client, service = tunnelled(gateway)
    service.stop_reading()
    client.send(b"the last")
    client.close()
    gateway.advance(0)
    assert service.closed == ""
    service.start_reading()
    gateway.advance(0)
    assert (service.take(), service.closed) == (b"the last", "clean")
    assert only(gateway) == (101, "client_gone")


def test_a_service_that_closes_whole_and_in_order(gateway: MemoryGateway) -> None:
    client, service = tunnelled(gateway)
    client.stop_reading()
    service.send(b"the last")
    service.close()
    gateway.advance(0)
    assert client.closed == ""
    client.start_reading()
    gateway.advance(0)
    assert (client.take(), client.closed) == (b"the last", "clean")
    assert only(gateway) == (101, "")


@pytest.mark.parametrize("after", ["at once", "after the service has ended", "after it has ended itself"])
def test_a_client_that_resets(gateway: MemoryGateway, after: str) -> None:
    client, service = tunnelled(gateway)
    if after == "after the service has ended":
        half_close(service)
    elif after == "after it has ended itself":
        half_close(client)
    client.reset()
    gateway.advance(0)
    assert service.closed == ("clean" if "itself" in after else "reset")
    assert only(gateway) == (101, "client_gone")


@pytest.mark.parametrize("after", ["at once", "after it has ended itself"])
def test_a_service_that_resets(gateway: MemoryGateway, after: str) -> None:
    client, service = tunnelled(gateway)
    if after != "at once":
        half_close(service)
    service.reset()
    gateway.advance(0)
    assert client.closed == "reset"
    assert only(gateway) == (101, "closed")
    assert gateway.services["identity"].failures == {"closed": 1}


def test_a_service_that_takes_nothing_of_the_last_bytes_is_left(gateway: MemoryGateway) -> None:
    client, service = tunnelled(gateway)
    service.stop_reading()
    client.send(b"the last")
    client.close()
    gateway.advance(59)
    assert service.closed == ""
    assert len(gateway.composition.tunnels.graceful_closes) == 1
    gateway.advance(1.5)
    assert service.closed == "reset"
    assert not gateway.composition.tunnels.graceful_closes


# -- time


def test_silence_ends_a_tunnel(gateway: MemoryGateway) -> None:
    client, service = tunnelled(gateway)
    for speaks in (client, service):
        gateway.advance(599)
        speaks.send(b"x")
    gateway.advance(599)
    assert (client.closed, service.closed) == ("", "")
    gateway.advance(1.5)
    assert (client.closed, service.closed) == ("reset", "reset")
    assert only(gateway) == (101, "timeout")
    assert gateway.services["identity"].failures == {}


def test_once_one_side_has_ended_the_other_has_less_time(gateway: MemoryGateway) -> None:
    client, service = tunnelled(gateway)
    half_close(client)
    gateway.advance(59)
    service.send(b"more")
    gateway.advance(59)
    assert service.closed == ""
    gateway.advance(1.5)
    assert (client.closed, service.closed) == ("reset", "reset")


def test_a_tunnel_that_is_ending_has_no_longer_than_others(make_gateway: Make) -> None:
    gateway = make_gateway(settings=settings_with(timeouts={"tunnel": 5.0}))
    client, service = tunnelled(gateway)
    half_close(service)
    gateway.advance(5.5)
    assert (client.closed, service.closed) == ("reset", "reset")


def test_without_a_deadline_a_tunnel_lasts(make_gateway: Make) -> None:
    gateway = make_gateway(settings=settings_with(timeouts={"tunnel": 0.0}))
    client, service = tunnelled(gateway)
    gateway.advance(3600)
    assert (client.closed, service.closed) == ("", "")
    half_close(service)
    gateway.advance(61)
    assert (client.closed, service.closed) == ("reset", "reset")


def test_the_deadline_of_exchanges_is_not_for_tunnels(make_gateway: Make) -> None:
    gateway = make_gateway(timeouts=client_timeouts(exchange=5.0))
    client, service = tunnelled(gateway)
    gateway.advance(30)
    assert (client.closed, service.closed) == ("", "")


# -- how many


def test_no_more_than_there_are_places(make_gateway: Make) -> None:
    gateway = make_gateway(settings=settings_with(requests={"max_tunnels": 1}))
    first, _ = tunnelled(gateway)
    second = gateway.connect()
    second.send(SHAKE)
    assert code(second) == (503, "overloaded")
    assert len(gateway.origin().connections) == 1
    second.send(request())
    gateway.advance(0.5)
    gateway.origin().last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert second.take() == answered(b"200 OK", after=(b"Content-Length: 0",))
    first.reset()
    gateway.advance(0)
    tunnelled(gateway)


def test_the_last_place_is_for_who_switches_first(make_gateway: Make) -> None:
    gateway = make_gateway(settings=settings_with(requests={"max_tunnels": 1}))
    clients = [gateway.connect().send(SHAKE) for _ in range(2)]
    gateway.advance(0.5)
    for service in gateway.origin().connections:
        service.send(SWITCH)
    assert clients[0].take() == SWITCHED
    assert code(clients[1]) == (503, "overloaded")
    assert gateway.origin().last.closed == "reset"


def test_tunnels_take_no_place_of_ordinary_requests(make_gateway: Make) -> None:
    settings = settings_with()
    entry = replace(settings.services["identity"], max_connections=1)
    gateway = make_gateway(settings=replace(settings, services={**settings.services, "identity": entry}))
    for count in range(1, 4):
        tunnelled(gateway)
        assert gateway.composition.tunnels.by_service() == {"identity": count}
    assert gateway.idle() == (0, 0)
    assert gateway.composition.tunnels.opened == {"identity": 3}


def test_a_switch_is_no_failure_that_may_still_come(make_gateway: Make) -> None:
    """A tunnel, which may last for days, is no request under way to a limit on failures."""
    rule = LimitRule("guesses", ("ip",), 1, 3600, charge="failures")
    gateway = make_gateway(settings=settings_with(limits=(rule,)))
    clients = [gateway.connect().send(SHAKE) for _ in range(4)]
    gateway.advance(0.5)
    assert code(gateway.connect().send(SHAKE)) == (429, "rate_limited")
    gateway.origin().connections[0].send(SWITCH)
    assert clients[0].take().startswith(b"HTTP/1.1 101 ")
    gateway.connect().send(SHAKE)
    gateway.advance(0.5)
    assert len(gateway.origin().connections) == 5


def test_a_charge_is_given_back_once(make_gateway: Make) -> None:
    rule = LimitRule("guesses", ("ip",), 2, 3600, charge="failures")
    gateway = make_gateway(settings=settings_with(limits=(rule,)))

    def guess() -> int:
        client = gateway.connect().send(request())
        gateway.advance(0.25)
        for service in gateway.origin().connections:
            if service.take():
                service.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        return read_message(client.take())[0].status

    assert guess() == 401
    client = gateway.connect().send(SHAKE)
    gateway.advance(0.25)
    gateway.origin().last.send(SWITCH)
    client.reset()
    gateway.advance(0)
    assert gateway.exchanges[-1].status == 101
    assert [guess(), guess()] == [401, 429]


# -- the drain


def test_a_drain_leaves_tunnels_alone_until_its_end(gateway: MemoryGateway) -> None:
    client, service = tunnelled(gateway)
    gateway.site.drain()
    gateway.advance(5)
    client.send(b"on")
    assert service.take() == b"on"
    gateway.site.end_drain()
    gateway.advance(0)
    assert (client.closed, service.closed) == ("clean", "clean")
    assert only(gateway) == (101, "timeout")


def test_a_service_gone_at_the_moment_of_the_switch(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(SHAKE)
    gateway.advance(0.5)
    service = gateway.origin().only
    service.near.arrive(SWITCH + b"the last")
    service.near.lose(ConnectionDone())
    gateway.advance(0)
    assert client.take() == SWITCHED + b"the last"
    assert client.closed == "clean"
    assert only(gateway) == (101, "")

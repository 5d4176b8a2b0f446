"""HTTP/2 connections whose client takes nothing: each ends within its time, whatever it is about to say."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from koder_gateway.exchange.states import TIMEOUT
from tests.http2.test_windows import asked, play
from tests.kit.bounds import client_timeouts
from tests.kit.http2_frames import INITIAL_WINDOW_SIZE, RST_STREAM, data, headers, ping, window_update
from tests.kit.http2_memory import Http2, asking
from tests.kit.memory import Kernel, MemoryGateway

IDLE, KEEPALIVE, LINGER = 60.0, 75.0, 2.0
TIMEOUTS = client_timeouts(idle=IDLE, keepalive=KEEPALIVE, linger=LINGER)

Make = Callable[..., MemoryGateway]


def stuck(client: Http2, unsent: int = 5000) -> Kernel:
    """From now on its client takes nothing, of which so much waits."""
    kernel = client.peer.near.handle = Kernel()
    client.peer.near.unsent = unsent  # type: ignore[attr-defined]
    client.peer.stop_reading()
    return kernel


def ends(client: Http2, most: float = 1000.0, each: Callable[[], object] = lambda: None) -> float:
    """Seconds until the gateway has ended the connection."""
    gateway = client.gateway
    begun = gateway.reactor.seconds()
    while not client.peer.closed:
        assert gateway.reactor.seconds() - begun < most, "it stays"
        each()
        gateway.advance(1.0)
    return gateway.reactor.seconds() - begun


@pytest.fixture
def gateway(make_gateway: Make) -> MemoryGateway:
    return make_gateway(timeouts=TIMEOUTS)


def test_a_connection_that_takes_nothing_ends_with_its_streams(gateway: MemoryGateway) -> None:
    client = Http2(gateway, (INITIAL_WINDOW_SIZE, 1 << 30))
    client.send(window_update(0, 1 << 30))
    (service,) = asked(client, 1)
    stuck(client)
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 400_000)
    assert client.channel.out.blocked
    assert ends(client) <= IDLE + 2
    assert client.peer.closed == "reset"
    assert gateway.site.buffered.total == 0


def test_where_only_windows_are_shut_the_connection_outlives_its_streams(gateway: MemoryGateway) -> None:
    """Its client reads: it hears of the resets, and may ask again."""
    client = Http2(gateway, (INITIAL_WINDOW_SIZE, 0))
    services = asked(client, 5)
    play(services, 10_000)
    came = client.after(IDLE + 2)
    assert sum(each.kind == RST_STREAM for each in came) == 5
    assert not client.peer.closed
    client.send(headers(101, asking()), ping(b"still..."))
    assert not client.peer.closed
    client.peer.reset()


def test_a_client_that_does_not_take_its_resets_is_not_told_of_the_end(gateway: MemoryGateway) -> None:
    client = Http2(gateway, (INITIAL_WINDOW_SIZE, 0))
    services = asked(client, 5)
    play(services, 10_000)
    stuck(client)
    assert ends(client) <= IDLE + KEEPALIVE + 2
    assert client.peer.closed == "reset"


def test_a_close_waits_as_long_as_a_client_may_fall_behind(gateway: MemoryGateway) -> None:
    client = Http2(gateway)
    stuck(client)
    gateway.advance(KEEPALIVE)
    assert not client.peer.closed
    assert ends(client) <= IDLE + 2
    assert client.peer.closed == "reset"


def test_a_close_waits_for_a_client_that_keeps_its_pace(gateway: MemoryGateway) -> None:
    client = Http2(gateway)
    kernel = stuck(client, 1 << 20)
    gateway.advance(KEEPALIVE + 1)

    def take() -> None:
        if kernel.acknowledged < 200 * 1100:
            kernel.acknowledged += 1100

    assert ends(client, each=take) > 200


def test_a_byte_now_and_then_keeps_no_connection_that_closes(gateway: MemoryGateway) -> None:
    client = Http2(gateway)
    kernel = stuck(client, 1 << 20)
    gateway.advance(KEEPALIVE + 1)

    def take() -> None:
        kernel.acknowledged += 1

    assert ends(client, each=take) <= IDLE + 3


def test_an_error_that_is_not_heard_lingers_no_longer_than_idle(gateway: MemoryGateway) -> None:
    client = Http2(gateway)
    stuck(client)
    client.send(b"\x00\x00\x08\x06\x00\x00\x00\x00\x01pingpong")
    assert ends(client) <= IDLE + 2
    assert client.peer.closed == "reset"


def test_an_error_lingers_for_a_client_that_takes_it(gateway: MemoryGateway) -> None:
    client = Http2(gateway)
    kernel = stuck(client)

    def take() -> None:
        kernel.acknowledged += 2048

    client.send(b"\x00\x00\x08\x06\x00\x00\x00\x00\x01pingpong")
    for _ in range(5):
        take()
        gateway.advance(1.0)
    assert not client.peer.closed
    client.peer.near.unsent = 0  # type: ignore[attr-defined]
    client.peer.start_reading()
    assert ends(client) <= LINGER + 1
    assert client.peer.closed == "clean"


# -- many streams behind one transport that takes nothing more

STREAMS = 60
ANSWER = 200_000


def held(gateway: MemoryGateway) -> tuple[Http2, Kernel]:
    """A client with many answers under way, whose windows are open, and which does not read."""
    client = Http2(gateway, (INITIAL_WINDOW_SIZE, 1 << 30))
    client.send(window_update(0, 1 << 30))
    services = asked(client, STREAMS)
    kernel = stuck(client, 1 << 20)
    for service in services:
        if not service.near.paused:
            service.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (ANSWER, b"x" * ANSWER))
    assert client.channel.out.blocked
    assert len(client.channel.streams) == STREAMS
    return client, kernel


def test_streams_that_wait_for_one_transport_end_together(gateway: MemoryGateway) -> None:
    client, _ = held(gateway)
    assert ends(client) <= IDLE + 2
    assert client.peer.closed == "reset"
    codes = [exchange.code for exchange in gateway.exchanges]
    # Of the first ones all that there was had been written.
    assert (len(codes), set(codes)) == (STREAMS, {"", TIMEOUT})
    assert codes.count(TIMEOUT) > STREAMS // 2
    assert gateway.site.buffered.total == 0
    assert gateway.idle()[1] == 0


def test_a_byte_now_and_then_keeps_no_stream_from_that(gateway: MemoryGateway) -> None:
    client, kernel = held(gateway)

    def take() -> None:
        kernel.acknowledged += 1

    assert ends(client, each=take) <= IDLE + 3


def test_a_transport_that_takes_the_rate_keeps_all_streams(gateway: MemoryGateway) -> None:
    client, kernel = held(gateway)
    for _ in range(300):
        kernel.acknowledged += 1100
        gateway.advance(1.0)
        assert len(client.channel.streams) == STREAMS
    assert not client.peer.closed
    # Having taken more it may have a larger buffer, of which it acknowledges nothing for longer.
    assert ends(client) <= 4 * IDLE + 2


def test_a_transport_that_takes_all_again_is_measured_no_longer(gateway: MemoryGateway) -> None:
    client, kernel = held(gateway)
    gateway.advance(IDLE - 2)
    kernel.acknowledged += 1 << 21
    client.peer.near.unsent = 0  # type: ignore[attr-defined]
    client.peer.start_reading()
    gateway.advance(IDLE + 2)
    assert not client.peer.closed
    client.send(ping(b"still..."))
    gateway.advance(10)
    assert not client.peer.closed
    client.peer.reset()


# -- windows that do not open


def shut(gateway: MemoryGateway, count: int, size: int) -> tuple[Http2, list[object]]:
    """A client that opens no window, and as much of answers as its services could send."""
    client = Http2(gateway, (INITIAL_WINDOW_SIZE, 0))
    services = asked(client, count)
    for service in services:
        if not service.near.paused:
            service.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, b"x" * min(size, 64_000)))
    return client, services


@pytest.mark.parametrize("size", [30_000, 250_000])
def test_streams_that_wait_for_windows_end_together_with_those_that_wait_to_begin(
    gateway: MemoryGateway, size: int
) -> None:
    client, _ = shut(gateway, 100, size)
    assert len(client.channel.streams) == 100
    client.after(IDLE + 2)
    assert len(client.channel.streams) == 0
    assert gateway.idle()[1] == 0, "no service is held for it"
    assert gateway.site.buffered.total == 0
    client.peer.reset()


def test_a_byte_of_window_for_each_now_and_then_keeps_none(gateway: MemoryGateway) -> None:
    client, _ = shut(gateway, 100, 250_000)
    for _ in range(int(IDLE) + 3):
        client.send(window_update(0, 10), *[window_update(2 * number + 1, 1) for number in range(5)])
        client.after(1)
    assert len(client.channel.streams) == 0
    client.peer.reset()


def test_an_upload_beside_answers_that_wait_goes_on(gateway: MemoryGateway) -> None:
    client, _ = shut(gateway, 20, 250_000)
    client.send(headers(101, asking(b"/v1/users", b"POST"), end=False))
    for _ in range(int(IDLE) + 3):
        client.send(data(101, b"x" * 2000))
        client.after(1)
    assert list(client.channel.streams.open) == [101]
    client.peer.reset()

"""A chunked answer of many small chunks: it shares the reactor's time, and nothing of it is lost meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from koder_gateway.reactor.turns import SLICE, turns_of
from tests.http1.test_fairness import turn
from tests.kit.http1 import read_messages
from tests.kit.memory import MemoryGateway, Peer, request

Make = Callable[..., MemoryGateway]
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SMALL = b"5\r\nhello\r\n"
COUNT = 20_000
END = b"0\r\n\r\n"


class Ticking:
    """A clock on which each look takes a slice."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += SLICE
        return self.now


@pytest.fixture
def gateway(make_gateway: Make) -> MemoryGateway:
    made = make_gateway()
    turns_of(made.reactor).time = Ticking()
    return made


def begin(gateway: MemoryGateway, data: bytes) -> tuple[Peer, Peer]:
    """A client, and a service that has sent this."""
    client = gateway.connect()
    client.send(request(b"GET", b"/v1/users"))
    service = gateway.origin().only
    service.near.arrive(HEAD + data)
    return client, service


def passed(client: Peer) -> int:
    return client.received.count(b"hello")


def test_it_goes_on_in_later_turns(gateway: MemoryGateway) -> None:
    client, service = begin(gateway, SMALL * COUNT + END)
    seen = [passed(client)]
    assert 0 < seen[0] < COUNT / 2
    assert service.near.paused
    while service.near.paused:
        turn(gateway)
        seen.append(passed(client))
        assert 0 < seen[-1] - seen[-2] < COUNT / 2
    assert seen[-1] == COUNT
    assert client.received.endswith(END)
    assert gateway.idle() == (1, 0)
    client.send(request(b"GET", b"/v1/users"))
    assert service.take()


def test_few_large_chunks_go_at_once(gateway: MemoryGateway) -> None:
    client, service = begin(gateway, (b"4000\r\n" + b"hello" + b"x" * 16379 + b"\r\n") * 16 + END)
    assert passed(client) == 16
    assert not service.near.paused
    assert turns_of(gateway.reactor).yielded == 0


def test_what_comes_meanwhile_comes_after_it(gateway: MemoryGateway) -> None:
    client, service = begin(gateway, SMALL * COUNT)
    # A transport may have had it already when it was paused.
    service.near.protocol.dataReceived(b"3\r\nbye\r\n" + END)
    while service.near.paused:
        turn(gateway)
    assert passed(client) == COUNT
    assert client.received.endswith(b"bye\r\n" + END)
    assert gateway.idle() == (1, 0)


@pytest.mark.parametrize("whole", [True, False])
def test_the_end_of_the_connection_loses_nothing(gateway: MemoryGateway, whole: bool) -> None:
    client, service = begin(gateway, SMALL * COUNT + (END if whole else b""))
    assert passed(client) < COUNT
    service.close()
    assert passed(client) == COUNT
    assert client.received.endswith(END) is whole
    (exchange,) = gateway.exchanges
    assert exchange.code == ("" if whole else "closed")
    assert gateway.idle() == (0, 0)
    turn(gateway)


def test_a_client_that_leaves_ends_it(gateway: MemoryGateway) -> None:
    client, service = begin(gateway, SMALL * COUNT)
    client.reset()
    turn(gateway)
    assert service.closed == "reset"
    assert gateway.idle() == (0, 0)


def test_a_fault_in_what_waits_cuts_the_answer(gateway: MemoryGateway) -> None:
    client, service = begin(gateway, SMALL * COUNT + b"5;\r\nhello\r\n" + END)
    while service.closed == "":
        turn(gateway)
    (exchange,) = gateway.exchanges
    assert exchange.code == "invalid"
    assert passed(client) > COUNT * 0.8
    assert not client.received.endswith(END)


@pytest.mark.parametrize("broken", [b"x\r\n", b"5;\r\nhello\r\n", b"6\r\nhello\r\n0\r\n", b"0\r\nX A: b\r\n\r\n"])
@pytest.mark.parametrize("before", [b"", SMALL])
def test_a_fault_in_what_comes_with_the_head_is_a_refusal(
    gateway: MemoryGateway, before: bytes, broken: bytes
) -> None:
    client, service = begin(gateway, before + broken)
    (message,) = read_messages(client.received)
    assert (message.status, message.code) == (502, "upstream_invalid")
    assert passed(client) == 0
    assert service.closed == "reset"


def test_a_head_without_a_chunk_does_not_wait_for_one(gateway: MemoryGateway) -> None:
    client, service = begin(gateway, b"")
    assert client.received.startswith(b"HTTP/1.1 200 OK\r\n")
    service.near.arrive(b"5;\r\n")
    (exchange,) = gateway.exchanges
    assert exchange.code == "invalid"
    assert service.closed == "reset"


def test_it_waits_for_a_client_that_does_not_read(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"GET", b"/v1/users"))
    client.stop_reading()
    service = gateway.origin().only
    service.near.arrive(HEAD + SMALL * COUNT + END)
    for _ in range(30):
        turn(gateway)
    assert service.near.paused
    assert len(client.near._unsent) < 2 << 16
    client.start_reading()
    while service.near.paused or len(turns_of(gateway.reactor)):
        turn(gateway)
    assert passed(client) == COUNT
    assert gateway.idle() == (1, 0)

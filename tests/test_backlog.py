"""What still waits for a client, and whether it takes that fast enough: over a real connection, in told time."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from processes import until

from koder_gateway.front.backlog import Uptake, backlog

RATE = 1024
A_BYTE = 1 / RATE
GRACE = 60.0


class Near:
    """A transport with `unsent` bytes of its own before those that the kernel holds."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.unsent = 0

    def getHandle(self) -> socket.socket:
        return self.connection


@pytest.fixture
def pair() -> Iterator[tuple[Near, socket.socket]]:
    """A transport whose client has taken nothing yet, and the client."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(server.getsockname())
        near, _ = server.accept()
        with near:
            near.setblocking(False)
            yield Near(near), client


def fill(near: Near) -> int:
    """Write until the kernel takes no more; how much."""
    written = 0
    try:
        while True:
            written += near.connection.send(b"x" * 65536)
    except BlockingIOError:
        return written


def test_a_client_that_takes_nothing_is_known(pair: tuple[Near, socket.socket]) -> None:
    near, _ = pair
    written, uptake, exchange = fill(near), Uptake(), object()
    assert backlog(near) > 0
    assert uptake.keeps(near, exchange, written, 0.0, A_BYTE, GRACE)
    assert uptake.keeps(near, exchange, written, GRACE - 1, A_BYTE, GRACE)
    assert not uptake.keeps(near, exchange, written, GRACE + 1, A_BYTE, GRACE)


@pytest.mark.parametrize(("reads", "keeps"), [(100_000, True), (0, False)])
def test_a_client_must_take_so_many_bytes_a_second(pair: tuple[Near, socket.socket], reads: int, keeps: bool) -> None:
    near, client = pair
    written, uptake, exchange = fill(near), Uptake(), object()
    assert uptake.keeps(near, exchange, written, 0.0, A_BYTE, GRACE)
    before = backlog(near)
    taken = 0
    while taken < reads:
        taken += len(client.recv(65536))
    until(lambda: not reads or backlog(near) < before - reads // 2, "the kernel knows what was taken")
    assert uptake.keeps(near, exchange, written, GRACE + 20, A_BYTE, GRACE) is keeps


def test_one_byte_now_and_then_does_not_do(pair: tuple[Near, socket.socket]) -> None:
    near, _ = pair
    near.unsent = 100_000
    uptake, exchange = Uptake(), object()
    now, kept = 0.0, 0
    while uptake.keeps(near, exchange, 0, now, A_BYTE, GRACE):
        near.unsent -= 1
        now += 5.0
        kept += 1
        assert now < 2 * GRACE
    assert kept > 2


def test_what_is_written_meanwhile_is_not_taken(pair: tuple[Near, socket.socket]) -> None:
    near, _ = pair
    near.unsent = 100_000
    uptake, exchange = Uptake(), object()
    assert uptake.keeps(near, exchange, 0, 0.0, A_BYTE, GRACE)
    near.unsent += 100_000
    assert not uptake.keeps(near, exchange, 100_000, GRACE + 10, A_BYTE, GRACE)


def test_another_exchange_begins_anew(pair: tuple[Near, socket.socket]) -> None:
    near, _ = pair
    near.unsent = 100_000
    uptake = Uptake()
    assert uptake.keeps(near, object(), 0, 0.0, A_BYTE, GRACE)
    assert uptake.keeps(near, object(), 0, 1000.0, A_BYTE, GRACE)


def test_where_nobody_can_tell_nothing_is_taken() -> None:
    assert not Uptake().keeps(object(), None, 0, 0.0, A_BYTE, GRACE)


def test_where_nothing_waits_nothing_is_taken(pair: tuple[Near, socket.socket]) -> None:
    near, _ = pair
    assert not Uptake().keeps(near, None, 0, 0.0, A_BYTE, GRACE)

"""What still waits for a client, and whether it takes that fast enough: over a real connection, in told time."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from koder_gateway.downstream.unsent_bytes import ClientPace, acknowledged, backlog
from tests.kit.waiting import until

RATE = 1024
A_BYTE = 1 / RATE
GRACE = 60.0
# What a client's kernel still takes into its small buffer by itself, while the client reads nothing, is worth less.
PROBES = 30.0


def lull(taken: int) -> float:
    """Seconds in which a client that has taken so much may acknowledge nothing, beside the grace."""
    return min(3 * GRACE, max(0, taken - (1 << 14)) / 1024)


class Near:
    """A transport with `unsent` bytes of its own before those that the kernel holds."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.unsent = 0

    def getHandle(self) -> socket.socket:
        return self.connection


class Line:
    """A transport that is filled to the brim, its client, and what the gateway knows of the two."""

    def __init__(self, near: socket.socket, client: socket.socket) -> None:
        near.setblocking(False)
        self.near = Near(near)
        self.client = client
        self.exchange: object = object()
        self.written = 0
        self.full = True
        before = -1
        while before < self.written:
            before = self.written
            self.fill()
            self.rest()

    def rest(self) -> None:
        """Wait until the kernel moves nothing more to the client's side."""
        seen: list[int] = []

        def still() -> bool:
            seen.append(backlog(self.near))
            return len(seen) > 4 and len(set(seen[-4:])) == 1

        until(still, "the kernel rests")

    def fill(self) -> None:
        """Write until the kernel takes no more."""
        try:
            while True:
                self.written += self.near.connection.send(b"x" * 65536)
        except BlockingIOError:
            pass

    def take(self, size: int) -> None:
        """The client reads so much, and the kernel hears of at least half of that."""
        before, taken = backlog(self.near), 0
        while taken < size:
            taken += len(self.client.recv(65536))
        until(lambda: not size or backlog(self.near) < before - size // 2, "the kernel knows what was taken")

    def watch(self, now: float = 0.0) -> ClientPace:
        return ClientPace(self.near, self.exchange, self.written, now, GRACE)

    def keeps(self, pace: ClientPace, now: float) -> bool:
        return pace.keeps(self.exchange, self.written, now, A_BYTE, GRACE, full=self.full)


@pytest.fixture
def tcp() -> Iterator[Line]:
    """Over TCP, whose kernel tells what was acknowledged."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(server.getsockname())
        near, _ = server.accept()
        with near:
            yield Line(near, client)


@pytest.fixture
def unix() -> Iterator[Line]:
    """Over a UNIX socket, which tells only what waits."""
    near, client = socket.socketpair()
    with near, client:
        yield Line(near, client)


@pytest.fixture(params=["tcp", "unix"])
def line(request: pytest.FixtureRequest) -> Line:
    chosen: Line = request.getfixturevalue(request.param)
    return chosen


def test_a_client_that_takes_nothing_has_the_grace_and_no_more(line: Line) -> None:
    pace = line.watch()
    assert backlog(line.near) > 0
    assert pace.due == GRACE
    assert line.keeps(pace, GRACE - 1)
    assert not line.keeps(pace, GRACE + PROBES)


@pytest.mark.parametrize(("reads", "keeps"), [(100_000, True), (0, False)])
def test_a_client_must_take_so_many_bytes_a_second(line: Line, reads: int, keeps: bool) -> None:
    pace = line.watch()
    line.take(reads)
    assert line.keeps(pace, GRACE + 20) is keeps


def test_what_the_kernel_swallows_is_not_taken(tcp: Line) -> None:
    """A kernel that makes room for more tells nothing of the client."""
    pace = tcp.watch()
    tcp.near.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
    before = tcp.written
    tcp.fill()
    assert (tcp.written - before) * A_BYTE > GRACE
    assert not tcp.keeps(pace, GRACE + PROBES)


def test_one_byte_now_and_then_does_not_do(unix: Line) -> None:
    unix.near.unsent = 100_000
    pace = unix.watch()
    now, kept = 0.0, 0
    while unix.keeps(pace, now):
        unix.near.unsent -= 1
        now += 5.0
        kept += 1
        assert now < 2 * GRACE
    assert kept > 2


def test_what_tcp_says_needs_no_count_of_what_was_written(tcp: Line) -> None:
    """Framing and TLS are not in that count, and may be most of what a client takes."""
    pace = tcp.watch()
    tcp.take(100_000)
    counted = tcp.written
    tcp.fill()
    tcp.written = counted
    assert tcp.keeps(pace, GRACE + 20)


def test_what_is_written_meanwhile_is_not_taken(line: Line) -> None:
    line.near.unsent = 100_000
    pace = line.watch()
    line.near.unsent += 100_000
    line.written += 100_000
    assert not line.keeps(pace, GRACE + 10)


def test_a_transport_that_pauses_and_goes_on_gives_no_second_grace(tcp: Line) -> None:
    """The kernel takes a little more now and then, and the transport says so; the client has taken nothing."""
    pace = tcp.watch()
    tcp.full = False
    assert tcp.keeps(pace, GRACE / 2)
    tcp.full = True
    assert not tcp.keeps(pace, GRACE + PROBES)


def test_a_client_that_has_taken_all_there_was_is_measured_anew(tcp: Line) -> None:
    """It takes no more than it is sent: the service may be slow."""
    pace = tcp.watch()
    tcp.take(tcp.written)
    until(lambda: backlog(tcp.near) == 0, "all is acknowledged")
    tcp.full = False
    assert tcp.keeps(pace, 10 * GRACE)
    assert pace.due == pytest.approx(10 * GRACE + GRACE + lull(tcp.written))
    assert pace.waiting == 0


def test_while_a_transport_is_full_its_client_has_not_taken_all_there_was(tcp: Line) -> None:
    pace = tcp.watch()
    tcp.take(tcp.written)
    until(lambda: backlog(tcp.near) == 0, "all is acknowledged")
    assert tcp.keeps(pace, 10.0)
    ends = 10.0 + GRACE + lull(tcp.written)
    assert tcp.keeps(pace, ends - 1)
    assert not tcp.keeps(pace, ends)


def test_a_client_with_a_large_buffer_acknowledges_nothing_for_long(tcp: Line) -> None:
    """Its kernel opens a shut window only when much of the buffer is free."""
    pace = tcp.watch()
    tcp.take(tcp.written)
    until(lambda: backlog(tcp.near) == 0, "all is acknowledged")
    tcp.full = False
    assert tcp.keeps(pace, 10.0)
    tcp.full = True
    tcp.fill()
    assert tcp.written > 1 << 20
    assert tcp.keeps(pace, 10.0 + 4 * GRACE - 1)
    assert not tcp.keeps(pace, 10.0 + 4 * GRACE)


@pytest.mark.parametrize("written", [0, 100, 1 << 30])
@pytest.mark.parametrize("reads", [0, 100_000])
def test_one_pace_holds_over_many_exchanges(line: Line, reads: int, written: int) -> None:
    """A client that pipelines has no new grace with each of its requests, and keeps what it has taken."""
    pace = line.watch()
    assert line.keeps(pace, 1.0)
    line.take(reads)
    line.exchange, line.written = object(), written
    assert line.keeps(pace, GRACE + PROBES) is (reads > 0)


def test_it_says_whether_anything_has_moved(line: Line) -> None:
    pace = line.watch()
    assert line.keeps(pace, 1.0)
    assert not pace.moved
    line.take(100_000)
    assert line.keeps(pace, 2.0)
    assert pace.moved
    assert line.keeps(pace, 3.0)
    assert not pace.moved


def test_where_nobody_can_tell_a_full_transport_has_the_grace() -> None:
    pace = ClientPace(object(), None, 0, 0.0, GRACE)
    assert pace.keeps(None, 0, GRACE - 1, A_BYTE, GRACE, full=True)
    assert not pace.keeps(object(), 500, GRACE, A_BYTE, GRACE, full=True)
    assert pace.waiting == 0


def test_only_tcp_tells_what_was_acknowledged(tcp: Line, unix: Line) -> None:
    assert acknowledged(tcp.near) == tcp.written - backlog(tcp.near)
    assert acknowledged(unix.near) == -1
    assert acknowledged(object()) == backlog(object()) == -1

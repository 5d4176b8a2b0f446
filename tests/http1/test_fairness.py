"""One client beside others over HTTP/1.1: its turn is a slice of work, and what it does not take stops it.

In memory, by counting: requests that were answered, bytes that wait, turns that were asked for.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

import pytest

from koder_gateway.reactor.early_reads import AHEAD, EarlyReads
from koder_gateway.reactor.turns import ARRIVALS, PIECES, Turns, turns_of
from tests.kit.bounds import client_timeouts
from tests.kit.http1 import read_messages
from tests.kit.memory import HIGH_WATER, HOST, MemoryGateway, Peer, answered, forwarded, request

MISDIRECTED = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SERVED = request(b"GET", b"/v1/users")
POST = request(b"POST", b"/v1/users", b"Transfer-Encoding: chunked")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
MIB = 1 << 20


def frozen() -> MemoryGateway:
    """A gateway for which no time passes while it works: its slices end by count alone."""
    gateway = MemoryGateway()
    turns_of(gateway.reactor).time = gateway.reactor.seconds
    return gateway


def waiting(client: Peer) -> int:
    """Bytes that wait for a client which does not read."""
    return len(client.near._unsent)


def turn(gateway: MemoryGateway) -> None:
    """One turn of the reactor for those who wait."""
    turns = turns_of(gateway.reactor)
    calls = [call for call in gateway.reactor.getDelayedCalls() if call.getTime() <= gateway.reactor.seconds()]
    assert len(calls) == bool(len(turns))
    for call in calls:
        call.cancel()
        turns._run()


# -- answers that nobody reads


def test_no_request_is_read_while_answers_wait() -> None:
    gateway = MemoryGateway()
    client = gateway.connect()
    client.stop_reading()
    client.send(MISDIRECTED * 1000)
    one = waiting(client) / len(gateway.exchanges)
    assert HIGH_WATER < waiting(client) <= HIGH_WATER + 2 * one
    assert client.near.paused
    answered = len(gateway.exchanges)
    client.send(MISDIRECTED * 1000)
    assert len(gateway.exchanges) == answered
    client.start_reading()
    assert len(gateway.exchanges) == 2000
    assert not client.near.paused
    assert client.take().count(b"HTTP/1.1 421 ") == 2000
    gateway.hang_up()


def test_no_request_is_forwarded_while_answers_wait() -> None:
    gateway = MemoryGateway()
    client = gateway.connect()
    client.stop_reading()
    client.send(SERVED * 100)
    service = gateway.origin("identity").only
    body = b"x" * 60_000
    count = 0
    while service.take():
        service.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        count += 1
    assert count == 2
    assert waiting(client) < HIGH_WATER + len(body) + 1000
    client.start_reading()
    assert service.take()
    assert not client.near.paused
    gateway.hang_up()


def test_a_client_that_takes_nothing_of_its_answers_is_cut() -> None:
    gateway = MemoryGateway(timeouts=client_timeouts(idle=60.0))
    client = gateway.connect()
    client.stop_reading()
    client.send(MISDIRECTED * 1000)
    gateway.advance(59)
    assert client.closed == ""
    gateway.advance(2)
    assert client.closed == "reset"
    gateway.hang_up()


def test_a_client_that_reads_again_has_the_time_of_any_other() -> None:
    gateway = MemoryGateway(timeouts=client_timeouts(idle=60.0, keepalive=75.0))
    client = gateway.connect()
    client.stop_reading()
    client.send(MISDIRECTED * 1000)
    gateway.advance(30)
    client.start_reading()
    gateway.advance(74)
    assert client.closed == ""
    client.send(SERVED)
    assert gateway.origin("identity").only.take() == forwarded(b"GET", b"/v1/users")
    gateway.hang_up()


def test_a_partial_head_behind_answers_that_wait_is_read_when_they_are_taken() -> None:
    gateway = MemoryGateway()
    client = gateway.connect()
    client.stop_reading()
    client.send(MISDIRECTED * 1000 + SERVED[:20])
    client.start_reading()
    client.take()
    client.send(SERVED[20:])
    gateway.origin("identity").only.send(OK)
    assert client.take() == answered(b"200 OK", after=(b"Content-Length: 2",), body=b"hi")
    gateway.hang_up()


def test_a_service_is_paused_while_its_answer_waits_and_goes_on_after_it() -> None:
    gateway = MemoryGateway()
    client = gateway.connect()
    client.stop_reading()
    client.send(SERVED)
    service = gateway.origin("identity").only
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MIB)
    for _ in range(MIB // 16384):
        service.send(b"x" * 16384)
    assert waiting(client) <= HIGH_WATER + 16384 + 1000
    assert service.near.paused
    client.start_reading()
    assert len(client.take()) > MIB
    assert gateway.idle() == (1, 0)
    gateway.hang_up()


# -- one connection has the turn


def test_a_turn_is_a_slice_of_what_has_come() -> None:
    gateway = frozen()
    greedy, modest = gateway.connect(), gateway.connect()
    greedy.near.arrive(MISDIRECTED * 1000)
    assert 0 < len(gateway.exchanges) <= PIECES
    assert greedy.near.paused
    modest.near.arrive(MISDIRECTED)
    assert len(read_messages(modest.take())) == 1
    before = len(gateway.exchanges)
    turn(gateway)
    assert before < len(gateway.exchanges) <= before + PIECES
    gateway.reactor.advance(0)
    assert len(gateway.exchanges) == 1001
    assert not greedy.near.paused
    assert turns_of(gateway.reactor).yielded >= 1000 // PIECES
    gateway.hang_up()


def test_those_who_wait_have_their_turns_one_after_the_other() -> None:
    gateway = frozen()
    clients = [gateway.connect() for _ in range(3)]
    for client in clients:
        client.near.arrive(MISDIRECTED * 1000)
    turn(gateway)
    served = [client.received.count(b"HTTP/1.1 421") for client in clients]
    assert max(served) - min(served) <= PIECES
    assert min(served) > 0
    gateway.reactor.advance(0)
    assert [client.received.count(b"HTTP/1.1 421") for client in clients] == [1000] * 3
    gateway.hang_up()


def test_a_chunked_body_is_decoded_a_slice_at_a_time() -> None:
    gateway = frozen()
    client, other = gateway.connect(), gateway.connect()
    client.send(POST + b"5\r\nhello\r\n")
    service = gateway.origin("identity").only
    service.take()
    client.near.arrive(b"5\r\nhello\r\n" * 200_000 + b"0\r\n\r\n")
    assert 0 < service.received.count(b"h") < 200_000
    assert client.near.paused
    other.near.arrive(MISDIRECTED)
    assert len(read_messages(other.take())) == 1
    gateway.reactor.advance(0)
    assert service.take().count(b"h") == 200_000
    service.send(OK)
    assert client.take().endswith(b"hi")
    assert gateway.idle() == (1, 0)
    gateway.hang_up()


@pytest.mark.parametrize("end", ["reset", "close"])
def test_a_client_that_leaves_while_it_waits_for_its_turn_is_gone(end: str) -> None:
    gateway = frozen()
    client = gateway.connect()
    client.near.arrive(MISDIRECTED * 1000)
    getattr(client, end)()
    served = len(gateway.exchanges)
    gateway.reactor.advance(0)
    assert len(gateway.exchanges) == served
    gateway.hang_up()


def test_a_drain_ends_a_client_that_waits_for_its_turn_with_an_answer() -> None:
    gateway = frozen()
    client = gateway.connect()
    client.near.arrive(MISDIRECTED * 1000)
    gateway.site.drain()
    gateway.reactor.advance(0)
    assert client.closed == "clean"
    messages = read_messages(client.take())
    assert messages[-1].one(b"connection") == b"close"
    gateway.hang_up()


def test_empty_lines_without_end_are_one_piece_of_work() -> None:
    gateway = frozen()
    client = gateway.connect()
    client.send(b"\r\n" * 500_000 + SERVED)
    assert gateway.origin("identity").only.take() == forwarded(b"GET", b"/v1/users")
    gateway.hang_up()


def test_no_more_than_a_mebibyte_is_read_behind_the_last_answer() -> None:
    gateway = frozen()
    client = gateway.connect()
    client.send(b"TRACE /v1/users HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % HOST)
    assert client.received.startswith(b"HTTP/1.1 405 ")
    read = 0
    while not client.near.paused:
        client.send(b"x" * 65536)
        read += 65536
        assert read < 2 * MIB
    gateway.advance(5)
    assert client.closed
    gateway.hang_up()


# -- memory that stays


def test_a_large_head_is_forgotten_with_its_answer() -> None:
    gateway = frozen()
    head = request(b"GET", b"/v1/users", b"Cookie: " + b"c" * 30_000, b"Origin: https://" + b"o" * 1000 + b".example")
    clients = [gateway.connect() for _ in range(20)]
    for client in clients:
        client.send(MISDIRECTED)
    gc.collect()
    tracemalloc.start()
    try:
        for client in clients:
            client.send(head)
            service = gateway.origin("identity").only
            service.take()
            service.send(OK)
            client.take()
        gateway.exchanges.clear()
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < len(clients) * 8192
    assert not any(client.closed for client in clients)
    gateway.hang_up()


def test_a_small_head_that_comes_again_is_read_once() -> None:
    gateway = frozen()
    client = gateway.connect()
    for _ in range(2):
        client.send(request(b"GET", b"/v1/users"))
        gateway.origin("identity").only.send(OK)
    first, second = gateway.exchanges
    assert first.head is second.head
    assert first.head.host == HOST
    gateway.hang_up()


# -- many who bring something in one turn


class Crowded:
    """A gateway whose present turn is over, with turns of its reactor by hand."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []
        self.now = 0.0
        self.gateway = MemoryGateway()
        turns = self.gateway.site.turns = Turns(self.calls.append, lambda: self.now)
        assert not turns.over()
        self.now += 2 * ARRIVALS

    @property
    def begun(self) -> int:
        """Requests that have been read."""
        return len(self.gateway.exchanges) + sum(len(channel.under_way()) for channel in self.gateway.site.channels)

    def tire(self) -> None:
        """Begin a turn that is over at once."""
        self.turn()
        self.now += 2 * ARRIVALS
        assert not self.gateway.site.turns.over()
        self.now += 2 * ARRIVALS

    def turn(self) -> None:
        calls = self.calls[:]
        self.calls.clear()
        for call in calls:
            call()
        self.gateway.reactor.advance(0)


FIRST: dict[str, bytes] = {
    "one head": SERVED,
    "a head without its end": SERVED[:-2],
    "many heads": SERVED * 10,
    "a head that is refused": MISDIRECTED,
    "a large head": request(b"GET", b"/v1/users", b"Cookie: " + b"c" * 20_000),
}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_what_comes_late_in_a_turn_is_read_in_a_later_one(first: bytes) -> None:
    crowded = Crowded()
    gateway = crowded.gateway
    client = gateway.connect()
    client.send(first)
    assert client.near.paused
    assert not crowded.begun
    for _ in range(3):
        crowded.turn()
    assert bool(crowded.begun) == first.endswith(b"\r\n\r\n")
    assert not client.near.paused
    gateway.hang_up()


def test_chunks_that_come_late_in_a_turn_are_read_in_a_later_one() -> None:
    crowded = Crowded()
    gateway = crowded.gateway
    client = gateway.connect()
    crowded.turn()
    client.send(POST + b"1\r\nx\r\n")
    service = gateway.origin("identity").only
    service.take()
    crowded.now += 2 * ARRIVALS
    client.send(b"5\r\nhello\r\n")
    assert service.take() == b""
    assert client.near.paused
    for _ in range(3):
        crowded.turn()
    assert b"hello" in service.take()
    gateway.hang_up()


def test_a_client_that_waits_for_its_turn_is_not_late() -> None:
    crowded = Crowded()
    gateway = crowded.gateway
    client = gateway.connect()
    client.send(SERVED)
    gateway.advance(20)
    assert client.closed == ""
    for _ in range(3):
        crowded.turn()
    assert gateway.origin("identity").only.take() == forwarded(b"GET", b"/v1/users")
    gateway.hang_up()


def test_a_client_that_is_gone_when_its_turn_comes_asks_for_nothing() -> None:
    crowded = Crowded()
    gateway = crowded.gateway
    client = gateway.connect()
    client.send(SERVED)
    client.reset()
    for _ in range(3):
        crowded.turn()
    assert not crowded.begun
    gateway.hang_up()


# -- large heads, many deadlines, many who wait


@pytest.mark.parametrize("size", [1500, 1800, 30_000])
def test_a_head_that_comes_again_goes_on_whole_each_time(size: int) -> None:
    """A large one is kept once, a small one is read once: neither may cost a later request its fields."""
    gateway = frozen()
    client = gateway.connect()
    cookie = b"Cookie: " + b"c" * size
    for _ in range(3):
        client.send(request(b"GET", b"/v1/users", cookie))
        service = gateway.origin("identity").only
        assert service.take() == forwarded(b"GET", b"/v1/users", cookie)
        service.send(OK)
    gateway.hang_up()


def test_many_deadlines_that_pass_at_once_are_a_slice_of_a_turn_each() -> None:
    gateway = MemoryGateway(timeouts=client_timeouts(keepalive=75.0, head=10.0))
    calls: list[Callable[[], object]] = []
    now = iter(range(10**6))
    gateway.site.turns = Turns(calls.append, lambda: float(next(now)), bounded=False)
    clients = [gateway.connect() for _ in range(3 * PIECES)]
    gateway.reactor.advance(11)
    gateway.clock.now = gateway.reactor.seconds()
    for _ in range(3):
        # Who waits for its turn is not asked for again.
        gateway.site.sweep(gateway.clock.now)
        gateway.reactor.advance(0)
        assert len(gateway.site.channels) == 2 * PIECES
    assert len(calls) == 1
    turns = 0
    while calls:
        turns += 1
        calls.pop(0)()
    assert turns >= 2
    gateway.reactor.advance(0)
    assert not gateway.site.channels
    assert all(client.closed for client in clients)


def test_reads_are_bounded_while_many_connections_wait() -> None:
    gateway = frozen()
    assert not gateway.site.crowded
    clients = [gateway.connect() for _ in range(20)]
    for client in clients:
        client.stop_reading()
        client.send(MISDIRECTED * 1000)
    assert gateway.site.crowded
    for client in clients:
        client.reset()
    assert not gateway.site.crowded
    gateway.hang_up()


# -- responses before further requests


class Looks(EarlyReads):
    """Counts how often services are looked at, and how many requests were passed on before each look."""

    def __init__(self) -> None:
        super().__init__()
        self.before: list[int] = []

    def look(self) -> None:
        self.before.append(self.sent)
        super().look()


def test_services_are_looked_at_after_every_few_requests_while_there_is_time_to_spare() -> None:
    gateway = MemoryGateway()
    looks = gateway.site.turns.early = Looks()
    client = gateway.connect()

    def ask() -> None:
        for _ in range(2 * AHEAD):
            client.send(request(b"GET", b"/v1/users"))
            gateway.origin("identity").only.send(OK)

    ask()
    assert looks.before == []
    looks.sent, looks.most = 0, AHEAD
    ask()
    assert looks.before == [AHEAD, AHEAD]
    gateway.hang_up()


# -- many who leave in one turn

MEANWHILE: dict[str, bytes] = {
    "nothing": b"",
    "a response": OK,
    "a response that goes on": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
    "an interim response": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhi",
    "no response": b"nonsense\r\n\r\n",
}


@pytest.mark.parametrize("said", MEANWHILE.values(), ids=MEANWHILE)
def test_exchanges_of_clients_that_are_lost_together_end_in_later_turns(said: bytes) -> None:
    """What their services send until then goes nowhere."""
    crowded = Crowded()
    gateway, turns = crowded.gateway, crowded.gateway.site.turns
    crowded.turn()
    asked = request(b"GET", b"/v1/users", b"Connection: Upgrade\r\nUpgrade: echo")
    clients = [gateway.connect(f"192.0.2.{number}").send(asked) for number in range(20)]
    services = list(gateway.origin("identity").connections)
    assert len(services) == len(clients)
    crowded.tire()
    for client in clients:
        client.reset()
    assert not gateway.exchanges
    assert len(turns) == len(clients)
    for service in services:
        if said:
            service.send(said)
    for _ in range(4):
        crowded.turn()
    assert len(gateway.exchanges) == len(clients)
    assert not len(turns)
    gateway.hang_up()


def test_a_turn_ends_no_more_of_them_than_it_has_time_for() -> None:
    crowded = Crowded()
    gateway, turns = crowded.gateway, crowded.gateway.site.turns
    crowded.turn()
    clients = [gateway.connect(f"192.0.2.{number}").send(SERVED) for number in range(20)]
    crowded.tire()
    for client in clients:
        client.reset()

    def passing() -> float:
        crowded.now += ARRIVALS
        return crowded.now

    turns.time = passing
    crowded.turn()
    assert len(gateway.exchanges) == 1
    while len(turns):
        crowded.turn()
    assert len(gateway.exchanges) == len(clients)
    gateway.hang_up()

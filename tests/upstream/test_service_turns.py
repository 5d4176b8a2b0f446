"""What services' connections bring, and the end of many of them, late in a turn: others have theirs first."""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost

from koder_gateway.reactor.turns import PIECES
from tests.kit.http2_frames import headers
from tests.kit.http2_memory import Http2, asking
from tests.kit.memory import MemoryGateway, Peer, request

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
GREEDY, MODEST = "192.0.2.1", "192.0.2.2"


class Passing:
    """A clock that a second passes by each time that it is looked at."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def hurry(gateway: MemoryGateway) -> None:
    """From now on each piece of work takes longer than a turn."""
    turns = gateway.site.turns
    turns.time, turns.ends = Passing(), 0.0


def ask(gateway: MemoryGateway, *peers: str) -> tuple[list[Peer], list[Peer]]:
    """A request of each; the clients, and the service's sides of their connections."""
    clients = [gateway.connect(peer) for peer in peers]
    for client in clients:
        client.send(request())
    gateway.reactor.advance(0)
    return clients, gateway.origin().connections[-len(peers) :]


def test_late_responses_are_read_in_turns_of_their_clients_addresses(gateway: MemoryGateway) -> None:
    clients, connections = ask(gateway, *[GREEDY] * 5, MODEST)
    hurry(gateway)
    for connection in connections:
        connection.near.arrive(ANSWER)
    assert len(gateway.exchanges) == 1
    gateway.reactor.advance(0)
    served = [exchange.peer.decode() for exchange in gateway.exchanges]
    assert served == [GREEDY, GREEDY, MODEST, GREEDY, GREEDY, GREEDY]
    assert all(b"200 OK" in client.take() for client in clients)
    assert gateway.idle() == (6, 0)


def test_a_late_response_grows_while_it_waits(gateway: MemoryGateway) -> None:
    clients, connections = ask(gateway, GREEDY, MODEST)
    hurry(gateway)
    connections[0].near.arrive(ANSWER)
    for piece in (ANSWER[:10], ANSWER[10:30], ANSWER[30:]):
        connections[1].near.arrive(piece)
    assert len(gateway.exchanges) == 1
    gateway.reactor.advance(0)
    assert clients[1].take().endswith(b"\r\n\r\nhi")


def test_a_late_response_waits_for_a_client_that_takes_nothing(gateway: MemoryGateway) -> None:
    _, connections = ask(gateway, GREEDY, MODEST)
    hurry(gateway)
    for connection in connections:
        connection.near.arrive(ANSWER)
    late = connections[1].near.protocol
    late.pauseProducing()
    gateway.reactor.advance(0)
    assert len(gateway.exchanges) == 1
    late.resumeProducing()
    assert len(gateway.exchanges) == 1
    gateway.reactor.advance(0)
    assert len(gateway.exchanges) == 2
    assert gateway.idle() == (2, 0)


def test_a_late_response_of_a_service_that_leaves_is_read_nevertheless(gateway: MemoryGateway) -> None:
    clients, connections = ask(gateway, GREEDY, MODEST)
    hurry(gateway)
    connections[0].near.arrive(ANSWER)
    connections[1].near.arrive(ANSWER)
    connections[1].near.lose(ConnectionDone())
    gateway.reactor.advance(0)
    assert b"200 OK" in clients[1].take()
    assert gateway.idle() == (1, 0)


def test_a_late_response_is_nobodys_once_its_client_is_gone(gateway: MemoryGateway) -> None:
    clients, connections = ask(gateway, GREEDY, MODEST)
    hurry(gateway)
    connections[0].near.arrive(ANSWER)
    connections[1].near.arrive(ANSWER)
    clients[1].near.lose(ConnectionLost())
    gateway.reactor.advance(0)
    # It has come whole, so that the service's connection can serve another client.
    assert clients[1].received == b""
    assert len(gateway.exchanges) == 2
    assert gateway.idle() == (2, 0)


BODY = b"x" * 60_000
BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TO_THE_END = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
KINDS = pytest.mark.parametrize(
    ("head", "rest", "kept"),
    [
        (BEGUN, BODY, True),
        (CHUNKED, b"ea60\r\n%b\r\n0\r\n\r\n" % BODY, True),
        (TO_THE_END, BODY, False),
    ],
)


@KINDS
def test_late_bodies_are_passed_on_in_turns_of_their_clients_addresses(
    gateway: MemoryGateway, head: bytes, rest: bytes, kept: bool
) -> None:
    """Each read of a hundred responses that go on together may be 64 KiB: a turn passes on what fits into it."""
    clients, connections = ask(gateway, *[GREEDY] * 5, MODEST)
    for connection in connections:
        connection.near.arrive(head)
    for client in clients:
        client.take()
    hurry(gateway)
    for connection in connections:
        connection.near.arrive(rest)
    # The first one ends the turn.
    assert [bool(client.received) for client in clients] == [True] + [False] * 5
    gateway.reactor.advance(0)
    assert all(client.take().count(b"x") == len(BODY) for client in clients)
    if not kept:
        for connection in connections:
            connection.near.lose(ConnectionDone())
    assert [exchange.code for exchange in gateway.exchanges] == [""] * 6
    assert gateway.idle() == (6 if kept else 0, 0)


@KINDS
def test_a_late_body_of_a_service_that_leaves_is_passed_on_nevertheless(
    gateway: MemoryGateway, head: bytes, rest: bytes, kept: bool
) -> None:
    clients, connections = ask(gateway, GREEDY, MODEST)
    for connection in connections:
        connection.near.arrive(head)
    hurry(gateway)
    for connection in connections:
        connection.near.arrive(rest)
    connections[1].near.lose(ConnectionDone())
    gateway.reactor.advance(0)
    assert clients[1].take().count(b"x") == len(BODY)
    assert [exchange.code for exchange in gateway.exchanges].count("") == len(gateway.exchanges)


def test_an_event_does_not_wait_for_a_turn(gateway: MemoryGateway) -> None:
    clients, connections = ask(gateway, GREEDY, MODEST)
    for connection in connections:
        connection.near.arrive(CHUNKED)
    hurry(gateway)
    for connection in connections:
        connection.near.arrive(b"9\r\ndata: x\n\n\r\n")
    assert all(b"data: x" in client.take() for client in clients)


def test_late_bodies_of_one_http2_client_pause_each_other(gateway: MemoryGateway) -> None:
    """A hundred of them that waited for a turn would hold 64 KiB each."""
    client = Http2(gateway)
    client.send(*(headers(2 * number + 1, asking(b"/v1/users")) for number in range(100)))
    connections = gateway.origin().connections
    for connection in connections:
        connection.near.arrive(BEGUN)
    hurry(gateway)
    client.peer.stop_reading()
    for connection in connections:
        connection.near.arrive(BODY)
    assert sum(connection.near.paused for connection in connections) > 80
    assert not any(connection.near.protocol._late for connection in connections)


def test_a_late_body_that_is_cut_is_not_passed_on_as_whole(gateway: MemoryGateway) -> None:
    clients, connections = ask(gateway, GREEDY, MODEST)
    for connection in connections:
        connection.near.arrive(BEGUN)
    hurry(gateway)
    for connection in connections:
        connection.near.arrive(BODY[:-1])
    connections[1].near.lose(ConnectionDone())
    gateway.reactor.advance(0)
    assert clients[1].take().count(b"x") == len(BODY) - 1
    assert [exchange.code for exchange in gateway.exchanges] == ["closed"]


def test_what_nobody_has_asked_for_never_waits(gateway: MemoryGateway) -> None:
    """It would be taken for the response to a later request."""
    _, connections = ask(gateway, GREEDY, GREEDY)
    for connection in connections:
        connection.send(ANSWER)
    assert gateway.idle() == (2, 0)
    hurry(gateway)
    for connection in connections:
        connection.near.arrive(ANSWER)
    assert gateway.idle() == (0, 0)


def test_clients_that_leave_together_end_a_slice_in_each_turn(gateway: MemoryGateway) -> None:
    clients, connections = ask(gateway, *[GREEDY] * 6)
    hurry(gateway)
    for client in clients:
        client.near.lose(ConnectionLost())
    assert len(gateway.exchanges) == 1
    assert not any(connection.closed for connection in connections)
    gateway.reactor.advance(0)
    assert len(gateway.exchanges) == 6
    assert gateway.idle() == (0, 0)
    assert all(connection.closed == "reset" for connection in connections)


def test_the_streams_of_a_connection_that_is_lost_end_a_slice_at_a_time(gateway: MemoryGateway) -> None:
    client = Http2(gateway)
    client.send(*(headers(2 * number + 1, asking(b"/v1/users")) for number in range(100)))
    connections = gateway.origin().connections
    assert len(connections) == 100
    # However slow the machine: by their number.
    gateway.site.turns.time = lambda: 0.0
    client.peer.near.lose(ConnectionLost())
    assert len(gateway.exchanges) == PIECES
    # The rest has no client any more.
    connections[-1].near.arrive(ANSWER)
    gateway.reactor.advance(0)
    assert len(gateway.exchanges) == 100
    assert gateway.idle()[1] == 0


def test_connections_that_are_lost_together_end_their_streams_one_after_the_other(gateway: MemoryGateway) -> None:
    """A slice of each of a hundred would be a tenth of a second."""
    clients = [Http2(gateway) for _ in range(10)]
    for client in clients:
        client.send(*(headers(2 * number + 1, asking(b"/v1/users")) for number in range(8)))
    assert len(gateway.origin().connections) == 80
    hurry(gateway)
    for client in clients:
        client.peer.near.lose(ConnectionLost())
    assert len(gateway.exchanges) == 1
    gateway.reactor.advance(0)
    assert len(gateway.exchanges) == 80
    assert gateway.idle() == (0, 0)

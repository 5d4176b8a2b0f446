"""Responses are read before further requests, while there is time to spare."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator

import pytest

from koder_gateway.reactor.early_reads import AHEAD, EarlyReads
from tests.kit.descriptors import no_descriptors


class Reader:
    """A transport over one end of a pair of sockets; `service` is the other end."""

    def __init__(self) -> None:
        self.socket, self.service = socket.socketpair()
        self.heard: list[bytes] = []

    def fileno(self) -> int:
        return self.socket.fileno()

    def read_now(self) -> None:
        self.heard.append(self.socket.recv(65536))

    def close(self) -> None:
        self.socket.close()
        self.service.close()


class Unable:
    """A transport that cannot read when it is told to, such as Twisted's own."""

    def fileno(self) -> int:
        return 0


@pytest.fixture
def readers() -> Iterator[list[Reader]]:
    made = [Reader() for _ in range(3)]
    yield made
    for reader in made:
        reader.close()


def test_a_look_reads_what_has_come_and_nothing_else(readers: list[Reader]) -> None:
    early = EarlyReads()
    for reader in readers:
        assert early.watch(reader) == reader.fileno()
    readers[0].service.send(b"first")
    readers[2].service.send(b"third")
    early.sent = AHEAD
    early.look()
    assert [reader.heard for reader in readers] == [[b"first"], [], [b"third"]]
    assert early.sent == 0
    early.look()
    assert [reader.heard for reader in readers] == [[b"first"], [], [b"third"]]


def test_what_is_left_to_the_reactor_is_not_told_again(readers: list[Reader]) -> None:
    told: list[int] = []

    class Paused(Reader):
        def read_now(self) -> None:
            told.append(1)

    early, paused = EarlyReads(), Paused()
    early.watch(paused)
    paused.service.send(b"waits")
    early.look()
    early.look()
    assert told == [1]
    paused.service.send(b"more")
    early.look()
    assert told == [1, 1]
    paused.close()


def test_a_forgotten_transport_is_not_read(readers: list[Reader]) -> None:
    early, reader = EarlyReads(), readers[0]
    key = early.watch(reader)
    reader.service.send(b"late")
    early.forget(key, reader)
    early.look()
    assert reader.heard == []


def test_a_descriptor_that_has_gone_to_another_transport_stays_with_that_one() -> None:
    early, gone = EarlyReads(), Reader()
    key = early.watch(gone)
    gone.close()
    successors = [Reader()]
    while successors[-1].fileno() != key and len(successors) < 50:
        successors.append(Reader())
    successor = successors[-1]
    assert early.watch(successor) == key
    early.forget(key, gone)
    successor.service.send(b"answer")
    early.look()
    assert successor.heard == [b"answer"]
    for each in successors:
        each.close()


def test_a_transport_that_cannot_read_at_once_is_left_alone() -> None:
    early = EarlyReads()
    assert early.watch(Unable()) == -1
    early.look()


def test_without_descriptors_a_transport_is_left_alone(readers: list[Reader]) -> None:
    early = EarlyReads()
    with no_descriptors():
        assert early.watch(readers[0]) == -1
    early.look()
    assert early.watch(readers[1]) == readers[1].fileno()


def test_there_is_time_to_spare_while_the_thread_is_mostly_idle() -> None:
    used = 0.0
    early = EarlyReads(lambda: used)
    early.tick(100.0)
    assert early.most == math.inf
    used += 0.02
    early.tick(100.25)
    assert early.most == AHEAD
    used += 0.2
    early.tick(100.5)
    assert early.most == math.inf
    early.tick(100.75)
    assert early.most == AHEAD


def test_a_second_gateway_in_the_process_sees_no_busy_thread_where_there_is_none() -> None:
    """Its tick comes right behind the first one's, and between the two the thread has done nothing but that."""
    used = 0.0
    early = EarlyReads(lambda: used)
    for quarter in range(5):
        now = 100.0 + quarter / 4
        early.tick(now)
        used += 0.0005
        early.tick(now)
        early.tick(now + 0.0005)
        assert not early.busy
    assert early.most == AHEAD

"""Connections that are watched while nothing is read of them: a reset, and the end of the peer's side."""

from __future__ import annotations

import socket
import struct
from typing import Any

from koder_gateway.reactor.resets import ResetWatcher
from tests.kit.descriptors import no_descriptors
from tests.kit.waiting import until


class Reactor:
    """Keeps the readers."""

    def __init__(self) -> None:
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)


class Transport:
    def __init__(self, handle: socket.socket) -> None:
        self._handle = handle

    def getHandle(self) -> socket.socket:
        return self._handle


def test_the_end_of_a_side_is_told_once_and_a_reset_after_it() -> None:
    reactor, events = Reactor(), list[str]()
    resets = ResetWatcher(reactor)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = socket.create_connection(listening.getsockname())
        watched, _ = listening.accept()
    with watched:
        resets.watch(Transport(watched), lambda: events.append("gone"), lambda: events.append("closed"))

        def look(what: list[str]) -> bool:
            resets.doRead()
            return events == what

        # What it sends is no event.
        peer.send(b"x")
        assert look([])
        peer.shutdown(socket.SHUT_WR)
        until(lambda: look(["closed"]), "the end is told")
        resets.doRead()
        assert events == ["closed"]
        assert len(resets) == 1
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        until(lambda: look(["closed", "gone"]), "the reset is told")
        assert len(resets) == 0
        assert not reactor.readers


def test_without_descriptors_nothing_is_watched_until_there_are_some_again() -> None:
    reactor, events = Reactor(), list[str]()
    resets = ResetWatcher(reactor)
    near, far = socket.socketpair()
    with near, far:
        with no_descriptors():
            assert resets.watch(Transport(near), lambda: events.append("gone")) == -1
        assert (len(resets), reactor.readers) == (0, [])
        assert resets.watch(Transport(near), lambda: events.append("gone")) == near.fileno()
        far.close()
        resets.doRead()
        assert events == ["gone"]
    assert reactor.readers == []


def test_what_the_kernel_does_not_watch_is_not_watched() -> None:
    reactor = Reactor()
    resets = ResetWatcher(reactor)
    # A file is none of what epoll watches (EPERM).
    with open(__file__, "rb") as file:
        assert resets.watch(Transport(file), lambda: None) == -1  # type: ignore[arg-type]
    assert (len(resets), reactor.readers, resets.fileno()) == (0, [], -1)

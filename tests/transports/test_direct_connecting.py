"""Connections that the uvloop reactor makes directly: each outcome, and giving up at each moment."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from koder_gateway.reactor.direct_connections import Seeker, SocketName, connect_directly
from koder_gateway.transports.reactor import UvloopReactor
from tests.kit.transports_running import Recorder, run, running_reactor


class Wanting(Seeker):
    """Wants one connection; `heard` fires with the outcome."""

    def __init__(self) -> None:
        self.heard: Deferred[Any] = Deferred()
        self.recorder: Recorder | None = Recorder()
        self.events: list[str] = []

    def build(self) -> Recorder | None:
        self.events.append("build")
        return self.recorder

    def made(self, protocol: Any) -> None:
        assert protocol is self.recorder
        self.events.append("made")
        self.heard.callback(protocol)

    def refused(self, error: OSError) -> None:
        self.events.append("refused")
        self.heard.callback(error)


@pytest.fixture
def reactor() -> Iterator[UvloopReactor]:
    with running_reactor() as reactor:
        yield reactor


def turned(reactor: UvloopReactor) -> Deferred[None]:
    """Fires in the next iteration of the loop."""
    turn: Deferred[None] = Deferred()
    reactor.loop.call_soon(turn.callback, None)
    return turn


def connected(reactor: UvloopReactor, listening: socket.socket, name: SocketName, peer: Any) -> None:
    seeker = Wanting()

    async def scenario() -> None:
        assert connect_directly(reactor, name, seeker) is not None
        assert seeker.events == []
        protocol = await seeker.heard
        accepted, _ = listening.accept()
        with accepted:
            protocol.transport.write(b"hello")
            await turned(reactor)
            await turned(reactor)
            assert accepted.recv(100) == b"hello"
            assert protocol.transport.getPeer() == peer
            protocol.transport.abortConnection()
            await turned(reactor)

    run(reactor, scenario())
    assert seeker.events == ["build", "made"]


def test_a_port_of_this_machine(reactor: UvloopReactor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        name = listening.getsockname()
        connected(reactor, listening, SocketName(socket.AF_INET, name), IPv4Address("TCP", *name))


def test_a_unix_socket(reactor: UvloopReactor, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        path = str(tmp_path / "door")
        listening.bind(path)
        listening.listen()
        connected(reactor, listening, SocketName(socket.AF_UNIX, path), UNIXAddress(path))


def test_nobody_listens_at_this_machine(reactor: UvloopReactor) -> None:
    seeker = Wanting()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        target = SocketName(socket.AF_INET, unused.getsockname())
        assert connect_directly(reactor, target, seeker) is None
        with pytest.raises(ConnectionRefusedError):
            reactor.connect_directly(target, seeker)
    assert seeker.events == []


def test_a_system_without_descriptors(reactor: UvloopReactor, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("koder_gateway.transports.direct_connecting.socket.socket", refuse)
    assert connect_directly(reactor, SocketName(socket.AF_INET, ("127.0.0.1", 1)), Wanting()) is None


def test_another_reactor_connects_by_endpoints() -> None:
    assert connect_directly(Clock(), SocketName(socket.AF_INET, ("127.0.0.1", 1)), Wanting()) is None


class Late(socket.socket):
    """A socket whose connection takes until an event, as one to another machine does. `fault` is what comes of it."""

    fault = 0

    def connect_ex(self, address: Any) -> int:
        if not self.fault:
            self.setblocking(True)
            super().connect_ex(address)
            self.setblocking(False)
        return errno.EINPROGRESS

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        if option == socket.SO_ERROR:
            return self.fault
        return super().getsockopt(level, option, size) if size else super().getsockopt(level, option)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Late]]:
    monkeypatch.setattr("koder_gateway.transports.direct_connecting.socket.socket", Late)
    yield Late
    Late.fault = 0


def test_a_connection_that_takes_a_while(reactor: UvloopReactor, late: type[Late]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        name = listening.getsockname()
        connected(reactor, listening, SocketName(socket.AF_INET, name), IPv4Address("TCP", *name))


def test_a_refusal_that_takes_a_while(reactor: UvloopReactor, late: type[Late]) -> None:
    late.fault = errno.ECONNREFUSED
    seeker = Wanting()

    async def scenario() -> Any:
        reactor.connect_directly(SocketName(socket.AF_INET, ("127.0.0.1", 1)), seeker)
        return await seeker.heard

    assert run(reactor, scenario()).errno == errno.ECONNREFUSED
    assert seeker.events == ["refused"]


def test_giving_up_while_it_takes_its_time(reactor: UvloopReactor, late: type[Late]) -> None:
    seeker = Wanting()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        async def scenario() -> None:
            pending = reactor.connect_directly(SocketName(socket.AF_INET, listening.getsockname()), seeker)
            pending.give_up()
            pending.give_up()
            for _ in range(3):
                await turned(reactor)

        run(reactor, scenario())
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.recv(1) == b""
    assert seeker.events == []


@pytest.mark.parametrize("by_seeker", [False, True], ids=["given up", "refused by its seeker"])
def test_a_connection_that_stands_and_is_not_wanted(reactor: UvloopReactor, by_seeker: bool) -> None:
    seeker = Wanting()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        async def scenario() -> None:
            pending = reactor.connect_directly(SocketName(socket.AF_INET, listening.getsockname()), seeker)
            if by_seeker:
                seeker.recorder = None
            else:
                pending.give_up()
            for _ in range(4):
                await turned(reactor)

        run(reactor, scenario())
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.recv(1) == b""
    assert seeker.events == (["build"] if by_seeker else [])
    assert not reactor.streams


def test_a_protocol_may_pause_as_it_begins(reactor: UvloopReactor) -> None:
    """What comes of a service at once waits for a client that takes nothing."""

    class Pausing(Wanting):
        def made(self, protocol: Any) -> None:
            protocol.transport.pauseProducing()
            super().made(protocol)

    seeker = Pausing()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        async def scenario() -> None:
            reactor.connect_directly(SocketName(socket.AF_INET, listening.getsockname()), seeker)
            accepted, _ = listening.accept()
            with accepted:
                accepted.sendall(b"x" * 1000)
                protocol = await seeker.heard
                for _ in range(3):
                    await turned(reactor)
                assert not protocol.received
                protocol.transport.resumeProducing()
                for _ in range(5):
                    await turned(reactor)
                assert bytes(protocol.received) == b"x" * 1000
                protocol.transport.abortConnection()
                await turned(reactor)

        run(reactor, scenario())

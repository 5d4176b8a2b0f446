"""Connectors of the uvloop reactor: what ends an attempt, and that its factory hears of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import (
    ConnectBindError,
    ConnectionDone,
    ConnectionRefusedError,
    DNSLookupError,
    NotConnectingError,
    TimeoutError,
    UserError,
)
from twisted.internet.interfaces import IResolverSimple
from zope.interface import implementer

from koder_gateway.transports.reactor import UvloopReactor
from tests.kit.transports_running import Connecting, Recorder, Serving, run, running_reactor


@pytest.fixture
def reactor() -> Iterator[UvloopReactor]:
    with running_reactor() as reactor:
        yield reactor


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port that answers nobody: its backlog is full."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]
        for filler in fillers:
            filler.close()


def failure_of(reactor: UvloopReactor, port: int, host: str = "127.0.0.1", **options: Any) -> Any:
    factory = Connecting(Recorder())

    async def scenario() -> Any:
        reactor.connectTCP(host, port, factory, **options)
        return (await factory.failed).kind

    return run(reactor, scenario())


def test_nobody_answers(reactor: UvloopReactor, deaf: int) -> None:
    assert failure_of(reactor, deaf, timeout=0.05) is TimeoutError


def test_nobody_listens(reactor: UvloopReactor) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert failure_of(reactor, unused.getsockname()[1]) is ConnectionRefusedError


def test_the_address_to_connect_from_is_taken(reactor: UvloopReactor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert failure_of(reactor, port, bindAddress=("127.0.0.1", port)) is ConnectBindError


def test_a_name_that_nobody_knows(reactor: UvloopReactor) -> None:
    @implementer(IResolverSimple)
    class Resolver:
        def getHostByName(self, name: str, timeout: Any = None) -> Any:
            return fail(DNSLookupError(name))

    reactor.installResolver(Resolver())
    assert failure_of(reactor, 1, host="nobody.invalid") is DNSLookupError


def test_giving_up(reactor: UvloopReactor, deaf: int) -> None:
    factory = Connecting(Recorder())

    async def scenario() -> Any:
        connector = reactor.connectTCP("127.0.0.1", deaf, factory)
        connector.stopConnecting()
        with pytest.raises(NotConnectingError):
            connector.stopConnecting()
        return (await factory.failed).kind

    assert run(reactor, scenario()) is UserError


def test_giving_up_between_the_connection_and_its_protocol(reactor: UvloopReactor) -> None:
    class GivesUp(Connecting):
        def buildProtocol(self, addr: Any) -> Any:
            raise AssertionError("built for an attempt that was given up")

    async def scenario() -> Any:
        server = Recorder()
        port = reactor.listenTCP(0, Serving(server), interface="127.0.0.1")
        factory = GivesUp(Recorder())
        connector = reactor.connectTCP("127.0.0.1", port.getHost().port, factory)
        attempt = connector.transport
        while connector.transport is attempt:
            turned: Deferred[None] = Deferred()
            reactor.loop.call_soon(turned.callback, None)
            await turned
        connector.disconnect()
        return (await factory.failed).kind

    assert run(reactor, scenario()) is UserError


def test_disconnecting_loses_the_connection(reactor: UvloopReactor) -> None:
    told: Deferred[str] = Deferred()

    class Told(Connecting):
        def clientConnectionLost(self, connector: Any, reason: Any) -> None:
            told.callback(connector.state)

    async def scenario() -> None:
        server, client = Recorder(), Recorder()
        port = reactor.listenTCP(0, Serving(server), interface="127.0.0.1")
        connector = reactor.connectTCP("127.0.0.1", port.getHost().port, Told(client))
        await client.made
        connector.disconnect()
        assert (await client.lost).kind is ConnectionDone
        assert await told == "disconnected"

    run(reactor, scenario())


def test_a_lost_connection_can_be_made_again(reactor: UvloopReactor) -> None:
    first, second = Recorder(), Recorder()

    class Again(Connecting):
        def clientConnectionLost(self, connector: Any, reason: Any) -> None:
            self.built = second
            if not second.connected:
                connector.connect()

    async def scenario() -> None:
        server, again = Recorder(), Recorder()
        port = reactor.listenTCP(0, Serving(server, again), interface="127.0.0.1")
        reactor.connectTCP("127.0.0.1", port.getHost().port, Again(first))
        await server.made
        server.transport.loseConnection()
        await first.lost
        await again.made
        await second.made

    run(reactor, scenario())


def test_a_client_factory_that_builds_nothing_hears_of_the_end(reactor: UvloopReactor) -> None:
    lost: Deferred[None] = Deferred()

    class Unwilling(Connecting):
        def clientConnectionLost(self, connector: Any, reason: Any) -> None:
            lost.callback(None)

    async def scenario() -> None:
        server = Recorder()
        port = reactor.listenTCP(0, Serving(server), interface="127.0.0.1")
        reactor.connectTCP("127.0.0.1", port.getHost().port, Unwilling(None))
        await lost
        await server.lost

    run(reactor, scenario())


def test_both_ends_know_each_other_over_ipv6(reactor: UvloopReactor) -> None:
    async def scenario() -> None:
        server, client = Recorder(), Recorder()
        port = reactor.listenTCP(0, Serving(server), interface="::1")
        reactor.connectTCP("::1", port.getHost().port, Connecting(client))
        await client.made
        await server.made
        assert client.transport.getPeer() == port.getHost()
        assert server.transport.getPeer() == client.transport.getHost()

    run(reactor, scenario())

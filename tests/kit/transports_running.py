"""A uvloop reactor for one test, beside the global one, and protocols that record what they see."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Protocol, ServerFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from koder_gateway.transports.reactor import UvloopReactor
from tests.kit.waiting import PATIENCE


@contextmanager
def running_reactor() -> Iterator[UvloopReactor]:
    """A reactor on an event loop of its own; everything still open in the end is closed."""
    reactor = UvloopReactor()
    try:
        yield reactor
    finally:
        reactor.disconnectAll()
        for reader in list(reactor._internalReaders):
            reactor.removeReader(reader)
            reader.connectionLost(None)
        for call in reactor.getDelayedCalls():
            call.cancel()
        reactor.loop.run_until_complete(asyncio.sleep(0))  # what was aborted hears of it
        reactor.loop.close()
        asyncio.set_event_loop(None)


def run(reactor: UvloopReactor, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run the reactor until this is done."""

    async def running() -> Any:
        done = Deferred.fromCoroutine(coroutine).asFuture(reactor.loop)
        return await asyncio.wait_for(done, PATIENCE)

    return reactor.loop.run_until_complete(running())


class Recorder(Protocol):
    """Keeps what arrives; `made` and `lost` are Deferreds."""

    def __init__(self) -> None:
        self.made: Deferred[Recorder] = Deferred()
        self.lost: Deferred[Reason] = Deferred()
        self.received = bytearray()
        self._awaited: list[tuple[int, Deferred[None]]] = []

    def connectionMade(self) -> None:
        self.made.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        ready = [waiting for size, waiting in self._awaited if len(self.received) >= size]
        self._awaited = [(size, waiting) for size, waiting in self._awaited if waiting not in ready]
        for waiting in ready:
            waiting.callback(None)

    def has(self, size: int) -> Awaitable[None]:
        """Done once this many bytes have arrived."""
        waiting: Deferred[None] = Deferred()
        self._awaited.append((size, waiting))
        self.dataReceived(b"")
        return waiting

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.lost.callback(Reason(reason))


class Reason:
    """Why a connection was lost; a value, so that a Deferred does not take it for its own failure."""

    def __init__(self, failure: Failure) -> None:
        self.kind = failure.type


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Recorder):
    """A recorder that goes on when the peer has closed its side; the halves' ends are Deferreds, too."""

    def __init__(self) -> None:
        super().__init__()
        self.read_closed: Deferred[None] = Deferred()
        self.write_closed: Deferred[None] = Deferred()

    def readConnectionLost(self) -> None:
        self.read_closed.callback(None)

    def writeConnectionLost(self) -> None:
        self.write_closed.callback(None)


class Serving(ServerFactory):
    """Hands out these protocols in turn."""

    noisy = False

    def __init__(self, *protocols: Any) -> None:
        self.protocols = list(protocols)
        self.stopped = 0

    def buildProtocol(self, addr: Any) -> Any:
        return self.protocols.pop(0) if self.protocols else None

    def stopFactory(self) -> None:
        self.stopped += 1


class Connecting(ClientFactory):
    """Connects this protocol; `failed` fires with why a connection could not be made."""

    noisy = False

    def __init__(self, protocol: Any) -> None:
        self.built = protocol
        self.failed: Deferred[Reason] = Deferred()

    def buildProtocol(self, addr: Any) -> Any:
        return self.built

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.failed.callback(Reason(reason))


async def connected(reactor: UvloopReactor, server: Any, client: Any) -> Any:
    """Connect the two over loopback; the port."""
    port = reactor.listenTCP(0, Serving(server), interface="127.0.0.1")
    reactor.connectTCP("127.0.0.1", port.getHost().port, Connecting(client))
    await client.made
    await server.made
    return port

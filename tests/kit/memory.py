"""A network in memory: a real site over a real tree, clients and services that are scripts, and time by hand.

Bytes travel at once, closings a turn later, as on a real reactor. What a script's side does not read stays with the
writer, whose producer is then paused; what the gateway does not read waits until it resumes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.address import IPv4Address
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    UserError,
)
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.interfaces import (
    IConnector,
    IConsumer,
    IPushProducer,
    IReactorTCP,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from zope.interface import implementer

from koder_gateway.config import ServiceSettings, Settings
from koder_gateway.downstream.limits import ClientLimits, ClientTimeouts
from koder_gateway.downstream.site import GatewaySite
from koder_gateway.exchange.ending import settle
from koder_gateway.exchange.states import ENDED, Exchange
from koder_gateway.ops.sweeper import SWEEP
from koder_gateway.policy.tenants import Tenant
from koder_gateway.reactor.turns import turns_of
from koder_gateway.transports.flow import Flow
from koder_gateway.tree.compose import Composition, compose
from koder_gateway.tree.protocols import PROTOCOLS
from koder_gateway.upstream.pool import Service
from koder_gateway.wire.clock import CoarseClock
from tests.kit.bounds import client_limits, client_timeouts
from tests.kit.http1 import Message, is_whole, read_message

# A transport pauses its producer while more than this many bytes wait.
HIGH_WATER = 65536

HOST = b"koder.id.koder.dev"
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DATE = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"


class Peer:
    """The far end of one of the gateway's connections. `received` is what has arrived; `closed` says how the gateway
    closed the connection: "" not yet, "clean" in order, "reset". `half_closed`: it has finished writing."""

    def __init__(self, reactor: Clock) -> None:
        self.received = b""
        self.closed = ""
        self.half_closed = False
        self.gone = False
        self.reading = True
        self._reactor = reactor
        self._near: Transport

    @property
    def near(self) -> Transport:
        """The gateway's end."""
        return self._near

    def send(self, data: bytes) -> Peer:
        """Send to the gateway."""
        self.send_in_turn(data)
        self._reactor.advance(0)
        return self

    def send_in_turn(self, data: bytes) -> None:
        """Send to the gateway, which gets more in the same turn."""
        self._near.arrive(data)

    def turn(self) -> None:
        """The reactor's turn ends."""
        self._reactor.advance(0)

    def send_in(self, pieces: Iterable[bytes]) -> Peer:
        """Send piece by piece, as long as there is somebody to send to."""
        for piece in pieces:
            self.send(piece)
        return self

    def take(self) -> bytes:
        """What has arrived since this was last asked."""
        received, self.received = self.received, b""
        return received

    def close(self) -> None:
        """Close in order."""
        self._leave(ConnectionDone())

    def reset(self) -> None:
        """Close with a reset."""
        self._leave(ConnectionLost())

    def _leave(self, reason: Exception) -> None:
        self.gone = True
        self._near.lose(reason)
        self._reactor.advance(0)

    def stop_reading(self) -> None:
        """Take nothing more from the gateway until `start_reading`."""
        self.reading = False

    def start_reading(self) -> None:
        """Take what has waited, and all that comes."""
        self.reading = True
        self._near.drain()
        self._reactor.advance(0)


@implementer(ITCPTransport, IConsumer, IPushProducer)
class Transport:
    """The gateway's end of a connection, after `twisted.internet.tcp.Connection`; while the reactor is busy, its
    writes wait for the end of the turn as those of the real transports do, by the same code."""

    # As that code sees a transport: `_native` is what takes the bytes.
    _joining: Any = Flow._write
    flush: Any = Flow.flush

    def __init__(self, reactor: Clock, far: Peer, host: str, peer: str) -> None:
        self.far = far
        far._near = self
        self.protocol: Any = None
        self.connected = True
        self.disconnecting = False
        self.paused = False
        self.producer: Any = None
        self.no_delay = False
        self.room_asked: Any = None
        self.handle: Any = None
        self._streaming = False
        self._producer_paused = False
        self.reactor: Any = reactor
        turns_of(reactor)
        self._reactor = reactor
        self._native = _Native(self)
        self._joined = b""
        self._unsent = b""
        self._unread: list[bytes] = []
        self._ending = False
        self._host = IPv4Address("TCP", host, 443)
        self._peer = IPv4Address("TCP", peer, 50000)

    # -- what arrives

    def arrive(self, data: bytes) -> None:
        """Bytes from the far end."""
        if not data or not self.connected or self.disconnecting or self._ending:
            return
        if self.paused:
            self._unread.append(data)
        else:
            self.protocol.dataReceived(data)

    def _deliver(self) -> None:
        while self._unread and not self.paused and self.connected and not self.disconnecting:
            self.protocol.dataReceived(self._unread.pop(0))

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting:
            self.paused = False
            if self._unread:
                self._reactor.callLater(0, self._deliver)

    def stopProducing(self) -> None:
        self.loseConnection()

    # -- what leaves

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        if not self.connected or self.far.half_closed or self._ending:
            return
        if self.disconnecting and self.producer is None:
            raise AssertionError(f"written after the connection was closed: {data!r}")
        if self.producer is not None and not self._streaming:
            self.leave(data)
        else:
            self._joining(data)

    def leave(self, data: bytes) -> None:
        """Bytes on their way to the far end."""
        if self.far.reading:
            self.far.received += data
        else:
            self._unsent += data
            if self.producer is not None and self._streaming and len(self._unsent) > HIGH_WATER:
                self._pause_producer()
        self._pull()

    def _fail(self, error: Exception) -> None:
        raise error

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def _pause_producer(self) -> None:
        if not self._producer_paused:
            self._producer_paused = True
            self.producer.pauseProducing()

    def _pull(self) -> None:
        if self.producer is not None and not self._streaming and not self._unsent:
            self._reactor.callLater(0, self._pull_now, self.producer)

    def _pull_now(self, producer: Any) -> None:
        if producer is self.producer:
            producer.resumeProducing()

    def drain(self) -> None:
        """The far end reads again."""
        self.far.received += self._unsent
        self._unsent = b""
        if self._producer_paused and self.producer is not None:
            self._producer_paused = False
            self.producer.resumeProducing()
        self._pull()
        self._close_if_done()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError(f"{self.producer} was never unregistered")
        if not self.connected:
            producer.stopProducing()
            return
        self.producer, self._streaming, self._producer_paused = producer, streaming, False
        if not streaming:
            self.flush()
            producer.resumeProducing()
        elif len(self._unsent) > HIGH_WATER:
            self._pause_producer()

    def unregisterProducer(self) -> None:
        self.producer = None
        self._close_if_done()

    # -- the end

    def loseConnection(self) -> None:
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._close_if_done()

    def abortConnection(self) -> None:
        if self.connected and not self._ending:
            self.flush()
            self._unsent = b""
            self._end("reset", ConnectionAborted())

    def _close_if_done(self) -> None:
        if self.disconnecting and self.producer is None:
            self.flush()
        if self.disconnecting and self.connected and not self._ending and self.producer is None and not self._unsent:
            self._end("clean", ConnectionDone())

    def _end(self, how: str, reason: Exception) -> None:
        self._ending = True
        self.far.closed = how
        self._reactor.callLater(0, self.lose, reason)

    def lose(self, reason: Exception) -> None:
        """The connection is gone."""
        if not self.connected:
            return
        self.connected = False
        self._joined = b""
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))

    # -- the rest of ITCPTransport

    def getHost(self) -> IPv4Address:
        return self._host

    def getPeer(self) -> IPv4Address:
        return self._peer

    def getHandle(self) -> Any:
        return self.handle

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def getTcpNoDelay(self) -> bool:
        return self.no_delay

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing in memory dies unnoticed."""

    def getTcpKeepAlive(self) -> bool:
        return False


class _Native:
    """Below a transport: takes what it writes."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        self._transport.leave(data)


class PlainTransport(Transport):
    """TCP alone, which one side may finish writing on."""

    def read_bounded(self, room: Any = None) -> None:
        self.room_asked = room

    def loseWriteConnection(self) -> None:
        if self.connected:
            self.flush()
            self.far.half_closed = True


@implementer(ISSLTransport)
class TlsTransport(Transport):
    """As if with TLS, which has no half-closed connections."""


def join(reactor: Clock, protocol: Any, *, peer: str, host: str = "203.0.113.1", secure: bool = False) -> Peer:
    """Connect `protocol` with a script."""
    far = Peer(reactor)
    transport = (TlsTransport if secure else PlainTransport)(reactor, far, host, peer)
    transport.protocol = protocol
    protocol.makeConnection(transport)
    reactor.advance(0)
    return far


class Kernel:
    """What a kernel says of a connection: how much its client has acknowledged. The rest of it is in memory."""

    def __init__(self) -> None:
        self.acknowledged = 0

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        return struct.pack("120xQ", self.acknowledged)


class Origin:
    """A service as the network sees it: `answers` says what becomes of attempts to connect ("accept", "refuse", or
    "ignore"), `connections` are those that were made, the latest last."""

    def __init__(self) -> None:
        self.answers = "accept"
        self.connections: list[Peer] = []
        self.attempts = 0

    @property
    def only(self) -> Peer:
        """The one connection."""
        (connection,) = self.connections
        return connection

    @property
    def last(self) -> Peer:
        """The latest connection."""
        return self.connections[-1]


@implementer(IConnector)
class _Connector:
    """One attempt to connect."""

    def __init__(self, reactor: MemoryReactor, address: IPv4Address, factory: Any, timeout: float) -> None:
        self._reactor = reactor
        self._address = address
        self._factory = factory
        self._timeout = reactor.callLater(timeout, self._fail, ConnectTimeoutError())
        factory.doStart()
        factory.startedConnecting(self)
        origin = reactor.origins.get(address.port)
        if origin is None:
            reactor.callLater(0, self._fail, ConnectionRefusedError())
            return
        origin.attempts += 1
        if origin.answers == "refuse":
            reactor.callLater(0, self._fail, ConnectionRefusedError())
        elif origin.answers == "accept":
            reactor.callLater(0, self._accept, origin)

    def _accept(self, origin: Origin) -> None:
        if not self._timeout.active():
            return
        self._timeout.cancel()
        protocol = self._factory.buildProtocol(self._address)
        far = Peer(self._reactor)
        transport = PlainTransport(self._reactor, far, "127.0.0.1", self._address.host)
        transport.protocol = protocol
        origin.connections.append(far)
        protocol.makeConnection(transport)

    def _fail(self, reason: Exception) -> None:
        if self._timeout.active():
            self._timeout.cancel()
        elif not isinstance(reason, ConnectTimeoutError):
            return
        self._factory.clientConnectionFailed(self, Failure(reason))
        self._factory.doStop()

    def stopConnecting(self) -> None:
        self._fail(UserError())

    def connect(self) -> None:
        raise AssertionError("nothing here connects twice")

    def disconnect(self) -> None:
        self.stopConnecting()

    def getDestination(self) -> IPv4Address:
        return self._address


@implementer(IReactorTCP, IReactorTime)
class MemoryReactor(Clock):
    """A clock to which services can be connected, by their port."""

    def __init__(self) -> None:
        super().__init__()
        self.origins: dict[int, Origin] = {}

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: object = None
    ) -> _Connector:
        return _Connector(self, IPv4Address("TCP", host, port), factory, timeout)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        raise AssertionError("clients are joined by hand")


def settings_with(**sections: Mapping[str, Any] | Any) -> Settings:
    """The default settings without limits and access log; a mapping replaces keys of a section, else the section."""
    settings = Settings(limits=())
    settings = replace(settings, log=replace(settings.log, access=False))
    for name, value in sections.items():
        present = getattr(settings, name)
        merged = replace(present, **value) if isinstance(value, dict) and name != "services" else value
        settings = replace(settings, **{name: merged})
    return settings


def service_settings(name: str, *urls: str, **options: Any) -> dict[str, ServiceSettings]:
    """The default services with one of them replaced."""
    return {**Settings().services, name: ServiceSettings(name, urls, **options)}


class MemoryGateway:
    """A `GatewaySite` over a composed tree, with services that are scripts.

    `exchanges` are those that have ended, in order; each must end exactly once.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        tenants: Iterable[Tenant] | None = None,
        mounts: Mapping[bytes, IResource] | None = None,
        timeouts: ClientTimeouts | None = None,
        limits: ClientLimits | None = None,
    ) -> None:
        self.settings = settings or settings_with()
        self.reactor = MemoryReactor()
        self.clock = CoarseClock(self.reactor.seconds(), self.reactor.seconds)
        self.exchanges: list[Exchange] = []
        self.clients: list[Peer] = []
        self.composition: Composition = compose(
            self.settings, tenants, reactor=self.reactor, clock=self.clock, mounts=mounts
        )
        self._ports = {
            name: [urlsplit(address.url).port or 80 for address in service.addresses]
            for name, service in self.services.items()
        }
        for ports in self._ports.values():
            self.reactor.origins.update({port: Origin() for port in ports})
        self._timeouts = timeouts or client_timeouts()
        self._limits = limits or client_limits()
        self.site = GatewaySite(
            self.composition.resource,
            self.composition.policy,
            self.composition.reader,
            PROTOCOLS,
            reactor=self.reactor,
            clock=self.clock,
            finished=self.finished,
            timeouts=self._timeouts,
            limits=self._limits,
            time=self.reactor.seconds,
        )
        self.site.date_line = DATE

    def use_tree(self, resource: IResource) -> None:
        """Serve this tree from the next request on, with all else as it is."""
        self.composition = made = replace(self.composition, resource=resource)
        self.site.replace(resource, made.policy, made.reader, self._timeouts, self._limits)

    @property
    def services(self) -> Mapping[str, Service]:
        """The pools by service."""
        return self.composition.services

    def finished(self, exchange: Exchange) -> None:
        """An exchange has ended."""
        assert exchange.phase is ENDED, exchange.phase
        assert exchange not in self.exchanges, "the exchange ended twice"
        self.exchanges.append(exchange)
        settle(exchange, self.reactor.seconds())

    def origin(self, service: str = "identity", address: int = 0) -> Origin:
        """The script's side of a service's address."""
        return self.reactor.origins[self._ports[service][address]]

    def connect(self, peer: str = "192.0.2.1", *, secure: bool = False) -> Peer:
        """A client."""
        client = join(
            self.reactor, self.site.buildProtocol(IPv4Address("TCP", peer, 50000)), peer=peer, secure=secure
        )
        self.clients.append(client)
        return client

    def advance(self, seconds: float) -> None:
        """Let time pass, with a sweep every so often, as the service does it."""
        end = self.reactor.seconds() + seconds
        while self.reactor.seconds() < end:
            self.reactor.advance(min(SWEEP, end - self.reactor.seconds()))
            self.sweep()

    def sweep(self) -> None:
        """One sweep, at the reactor's present time."""
        now = self.clock.now = self.reactor.seconds()
        self.site.sweep(now)
        for service in self.services.values():
            service.sweep(now)
        self.composition.tunnels.sweep(now)
        self.reactor.advance(0)

    def idle(self, service: str = "identity") -> tuple[int, int]:
        """A service's (idle, active) connections."""
        pool = self.services[service]
        return pool.idle, pool.active

    def hang_up(self) -> None:
        """Every client leaves: nothing may stay but idle connections to services, and those close when told."""
        for client in self.clients:
            client.reset()
        self.reactor.advance(0)
        assert not self.site.channels
        for name, service in self.services.items():
            assert service.active == 0, f"{name} is still busy"
            service.close_idle()
        assert not self.composition.tunnels.open
        self.reactor.advance(0)
        assert all(service.idle == 0 for service in self.services.values())
        assert not self.composition.tunnels.graceful_closes
        left = [call for call in self.reactor.getDelayedCalls() if call.active()]
        assert not left, left


# -- what stands on the wire


def request(
    method: bytes = b"GET",
    target: bytes = b"/v1/users",
    *lines: bytes,
    body: bytes = b"",
    host: bytes = HOST,
    version: bytes = b"1.1",
) -> bytes:
    """A request as a client sends it, with a request id and a trace so that all that follows from it is known."""
    fields = (b"Host: " + host, *lines, b"X-Request-ID: r1", b"traceparent: " + TRACE)
    return b"%b %b HTTP/%b\r\n%b\r\n\r\n%b" % (method, target, version, b"\r\n".join(fields), body)


def forwarded(
    method: bytes = b"GET",
    target: bytes = b"/v1/users",
    *lines: bytes,
    host: bytes = HOST,
    tenant: bytes = b"koder",
    peer: bytes = b"192.0.2.1",
    proto: bytes = b"http",
) -> bytes:
    """The head of that request as the service gets it, for requests without a body."""
    fields = (
        b"Host: " + host,
        *lines,
        b"traceparent: " + TRACE,
        b"X-Request-ID: r1",
        b"X-Tenant-ID: " + tenant,
        b"X-Forwarded-For: " + peer,
        b"X-Forwarded-Proto: " + proto,
        b"X-Forwarded-Host: " + host,
        b'Forwarded: for=%b;host="%b";proto=%b' % (peer, host, proto),
        b"Via: 1.1 koder-gateway",
    )
    return b"%b %b HTTP/1.1\r\n%b\r\n\r\n" % (method, target, b"\r\n".join(fields))


def answered(
    status: bytes, *lines: bytes, body: bytes = b"", date: bytes = DATE, after: tuple[bytes, ...] = ()
) -> bytes:
    """A service's answer as the client gets it: the service's lines, the gateway's own, the framing (`after`)."""
    fields = b"".join(line + b"\r\n" for line in lines)
    framing = b"".join(line + b"\r\n" for line in after)
    return b"HTTP/1.1 %b\r\n%b%bX-Request-ID: r1\r\n%b\r\n%b" % (status, fields, date, framing, body)


def serve(gateway: MemoryGateway, answer: Callable[[Message], bytes], service: str = "identity") -> list[Message]:
    """Have a service answer every complete request that it has or then gets; the requests, in order."""
    origin = gateway.origin(service)
    requests: list[Message] = []
    while True:
        ready = [each for each in origin.connections if not each.gone and is_whole(each.received)]
        if not ready:
            return requests
        for connection in ready:
            message, connection.received = read_message(connection.received)
            requests.append(message)
            connection.send(answer(message))


def rechunked(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`data` in pieces, cut at these places (any numbers)."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]

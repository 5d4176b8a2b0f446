"""Endpoints behind a balancer that sends the PROXY header: first on the connection, before TLS or HTTP.

A new connection waits here for its header. Then its transport gets the addresses that the header names, and the
protocol above takes it over as if the client had connected directly, without a wrapper in between. The client's
address records who named it (`policy.clients.ProxiedAddress`), for the code that decides whom to trust.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from ..downstream.ports import ClientConnection
from ..errors import Refusal
from ..policy.clients import ProxiedAddress, plain_host
from ..wire.clock import CoarseClock
from ..wire.proxy_header import Endpoint, ProxyHeader, ProxyHeaderError, read_proxy_header
from ..wire.rate_limited_log import RateLimitedLog

# Seconds for the whole header: a balancer sends it with its first packet.
_TIME: Final = 3.0
_EXPECTED: Final = (
    "a PROXY header, version 1 or 2, was expected; configure the balancer to send it"
    " (HAProxy: send-proxy), or remove haproxy:"
)


def _anybody(peer: str) -> bool:
    return True


class ProxyGate:
    """What all `haproxy:` endpoints of a gateway share. `trusts` says whether a peer's header is trusted.

    Waiting connections are among a site's `channels`, which sweeps, drains and counts them with those of its clients,
    and reports when there are too many of both.
    """

    log = Logger()

    def __init__(
        self,
        clock: CoarseClock,
        channels: set[ClientConnection] | None = None,
        overfull: Callable[[], bool] = lambda: False,
    ) -> None:
        self.clock = clock
        self.channels: set[ClientConnection] = set() if channels is None else channels
        self.overfull = overfull
        self.trusts: Callable[[str], bool] = _anybody
        self.fault_log = RateLimitedLog(clock, self.log.warn)


class ProxiedConnection(Protocol, ClientConnection):
    """Waits for the header; then the protocol that `wrapped` has built is called instead.

    While it waits it is one of the site's channels, with the methods that a site expects of them.
    """

    peer = ""
    waiting = 0

    def __init__(self, gate: ProxyGate, wrapped: IProtocolFactory) -> None:
        self._gate = gate
        self._wrapped: Any = wrapped
        self._inner: Any = None
        self._buffer = b""
        self.deadline = gate.clock.now + _TIME

    def connectionMade(self) -> None:
        """A balancer, or another peer, has connected."""
        gate, transport = self._gate, self._transport
        if not gate.trusts(plain_host(getattr(transport.getPeer(), "host", None))):
            self._refuse("it is not in listen.trusted_proxies; add it there, or have it connect elsewhere")
        elif gate.overfull():
            transport.abortConnection()
        else:
            gate.channels.add(self)

    @property
    def _transport(self) -> Any:
        return self.transport

    def dataReceived(self, data: bytes) -> None:
        """The header, in pieces of any size, and the bytes after it."""
        if self._inner is not None:
            # Looked up each time: the protocol above may replace its method, as a tunnel does.
            self._inner.dataReceived(data)
            return
        if self not in self._gate.channels:
            return
        data = self._buffer + data
        try:
            header = read_proxy_header(data)
        except ProxyHeaderError as error:
            self._refuse(f"{error}: {_EXPECTED}")
            return
        if header is None:
            self._buffer = data
            return
        self._buffer = b""
        self._gate.channels.discard(self)
        self._hand_over(header, data[header.size :])

    def _hand_over(self, header: ProxyHeader, rest: bytes) -> None:
        # On the connection's own transport: a wrapper around it would cost every read and write, and hide what the
        # transport can do.
        transport = self._transport
        near = transport.getPeer()
        balancer = plain_host(getattr(near, "host", None))
        if header.source is not None and header.destination is not None:
            peer = _address(header.source, ProxiedAddress(plain_host(header.source.host), balancer, header.secure))
            host = _address(header.destination, header.destination.host)
            transport.getPeer = lambda: peer
            transport.getHost = lambda: host
        else:
            unnamed = _same_address(near, ProxiedAddress(balancer, balancer, header.secure, named=False))
            transport.getPeer = lambda: unnamed
        inner = self._wrapped.buildProtocol(transport.getPeer())
        if inner is None:
            transport.loseConnection()
            return
        self._inner = inner
        if IHalfCloseableProtocol.providedBy(inner):
            alsoProvides(self, IHalfCloseableProtocol)
        inner.makeConnection(transport)
        if rest and not getattr(transport, "disconnecting", False):
            inner.dataReceived(rest)

    def readConnectionLost(self) -> None:
        """The client has finished writing; called only if the protocol above wants to know."""
        self._inner.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """All that was written before a half-close is sent."""
        self._inner.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        if self._buffer and self in self._gate.channels:
            self._complain(f"it closed before its header was complete: {_EXPECTED}")
        self._gate.channels.discard(self)
        inner, self._inner = self._inner, None
        self._buffer = b""
        if inner is not None:
            inner.connectionLost(reason)

    def _refuse(self, why: str) -> None:
        """Close, and say why."""
        self._complain(why)
        self._gate.channels.discard(self)
        self._transport.loseConnection()

    def _complain(self, why: str) -> None:
        """Log it for the balancer's operator."""
        peer = self._transport.getPeer()
        shown = getattr(peer, "host", None) or "unix:"
        self._gate.fault_log.warn(f"connection from {shown} on a haproxy: endpoint closed: {why}")

    # -- as one of a site's channels

    def expire(self) -> None:
        """The time is over."""
        came = "only a part of it came" if self._buffer else "nothing came"
        self._refuse(f"{came} within {_TIME:g} seconds: {_EXPECTED}")

    def under_way(self) -> tuple[()]:
        """No request has begun."""
        return ()

    def relieve(self) -> None:
        """No data waits here for a client."""

    def close_idle(self) -> None:
        """The gateway drains: a request on its way may still arrive."""

    def give_up(self, refusal: Refusal) -> None:
        """The drain is over. No client is known yet that could get a response."""
        self._gate.channels.discard(self)
        self._transport.abortConnection()


class ProxiedFactory(Factory):
    """Reads the header before the protocols of another factory."""

    noisy = False

    def __init__(self, gate: ProxyGate, wrapped: IProtocolFactory) -> None:
        self._gate = gate
        self._wrapped: Any = wrapped

    def doStart(self) -> None:
        """The wrapped factory starts to listen."""
        self._wrapped.doStart()

    def doStop(self) -> None:
        """The wrapped factory stops listening."""
        self._wrapped.doStop()

    def buildProtocol(self, addr: IAddress | None) -> ProxiedConnection:
        """The reader for a new connection."""
        return ProxiedConnection(self._gate, self._wrapped)


@implementer(IStreamServerEndpoint)
class ProxiedEndpoint:
    """Another endpoint whose connections begin with a PROXY header."""

    def __init__(self, outer: IStreamServerEndpoint, gate: ProxyGate) -> None:
        self._outer = outer
        self._gate = gate

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See IStreamServerEndpoint."""
        return self._outer.listen(ProxiedFactory(self._gate, factory))


class _LocalPeer(UNIXAddress):
    """A UNIX socket's peer whose `host` has what its balancer says about the client."""

    def __init__(self, peer: UNIXAddress, host: str) -> None:
        super().__init__(peer.name)
        # Addresses are frozen.
        object.__setattr__(self, "host", host)


def _same_address(near: Any, host: str) -> IAddress:
    """The connection's own address for a client that has none, with what its balancer says about it."""
    return _LocalPeer(near, host) if isinstance(near, UNIXAddress) else type(near)(near.type, host, near.port)


def _address(end: Endpoint, host: str) -> IPv4Address | IPv6Address:
    return (IPv6Address if end.is_ipv6 else IPv4Address)("TCP", host, end.port)

"""Resolves services' names ahead of time, and keeps the last good addresses.

A name is looked up when the gateway starts, and again every `RENEW` seconds, in a thread of its own. Connections are
made to the addresses of the last look-up that found any; they wait for a name server only while none has, and then no
longer than the connect timeout, counted from the beginning of the look-up. Where an address cannot be connected to,
its name is looked up again at once. Of several addresses the one that took the last connection is tried first:
localhost is ::1 as well, where few services listen.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakValueDictionary

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import DNSLookupError, TimeoutError
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..reactor.daemon_threads import daemon_threads
from ..reactor.direct_connections import PendingConnection, Seeker, SocketName, connect_directly
from .direct_endpoint import DirectEndpoint

# Seconds from one look-up of a name to the next; those after one that failed begin with the shorter pause.
RENEW: Final = 10.0
_RETRY: Final = 1.0
# So many of a name's addresses are connected to. Those that are known go before others: a name server that has more
# sends them in another order each time.
_MOST: Final = 16
# What addresses of this machine begin with.
_LOOPBACK: Final = ("127.", "::1")

_log = Logger()

# An address: its family's type, and the host.
Found = tuple[type[IPv4Address] | type[IPv6Address], str]
LookUp = Callable[[str], tuple[Found, ...]]


class Unresolved(DNSLookupError):
    """There is no address for a name; the text says why in one line."""

    def __str__(self) -> str:
        return str(self.args[0])


def look_up(host: str) -> tuple[Found, ...]:
    """A host's addresses, those to prefer first (RFC 6724). Blocks; raises OSError and ValueError (no such name)."""
    kinds: dict[int, type[IPv4Address] | type[IPv6Address]] = {
        socket.AF_INET: IPv4Address,
        socket.AF_INET6: IPv6Address,
    }
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys((kinds[family], str(name[0])) for family, *_, name in found if family in kinds))


class ResolvedName:
    """One name. `known` are its addresses, none before a look-up has brought any."""

    def __init__(self, host: str, look_up: LookUp, reactor: Any) -> None:
        self.host = host
        self.known: tuple[Found, ...] = ()
        self._look_up = look_up
        self._reactor = reactor
        self._threads = daemon_threads(reactor, f"look-up of {host}")
        self._waiting: list[Deferred[tuple[Found, ...]]] = []
        self._begun = -math.inf
        self._due = -math.inf
        self._asking = False
        self._told = ""
        self._reached = ""

    def reached(self, host: str) -> None:
        """This address has taken a connection: it is the first to be tried from now on."""
        if host != self._reached:
            self._reached = host
            self.known = self._ordered(self.known)

    def _ordered(self, found: tuple[Found, ...]) -> tuple[Found, ...]:
        return tuple(sorted(found, key=lambda each: each[1] != self._reached))

    def renew(self, now: float) -> None:
        """Look the name up if it is time to; `now` is in the reactor's seconds."""
        if now >= self._due and not self._asking:
            self._ask(now)

    def unreachable(self, now: float) -> None:
        """No connection to its addresses could be made: it may have another one now."""
        if now >= self._begun + _RETRY:
            self._due = -math.inf
            self.renew(now)

    def addresses(self, within: float) -> Deferred[tuple[Found, ...]]:
        """The addresses of a name that has none known yet, from a look-up that has lasted no more than `within`
        seconds. Fails with Unresolved."""
        now = self._reactor.seconds()
        waiting: Deferred[tuple[Found, ...]] = Deferred(self._forget)
        self._waiting.append(waiting)
        if not self._asking:
            self._ask(now)
        return waiting.addTimeout(
            max(self._begun + within - now, 0.0), self._reactor, lambda result, _: self._late(result, within)
        )

    def _forget(self, waiting: Deferred[tuple[Found, ...]]) -> None:
        """Cancelled: the addresses are not wanted any more."""
        self._waiting.remove(waiting)

    def _late(self, result: Any, within: float) -> Any:
        return Failure(Unresolved(f"no name server has answered for {self.host} within {within:g} seconds"))

    def _ask(self, now: float) -> None:
        self._asking = True
        self._begun = now
        self._due = math.inf
        pool: Any = getattr(self._threads, "getThreadPool", None)
        asking: Deferred[tuple[Found, ...]]
        if pool is None:
            # A reactor without threads, in memory: there is nothing that the look-up could block.
            asking = maybeDeferred(self._look_up, self.host)
        else:
            asking = deferToThreadPool(self._threads, pool(), self._look_up, self.host)
        asking.addCallbacks(self._ended, self._failed)

    def _ended(self, found: tuple[Found, ...]) -> None:
        self._asking = False
        if not found:
            self._failed(Failure(Unresolved("it has no address")))
            return
        self._due = self._reactor.seconds() + RENEW
        if self._told:
            self._told = ""
            _log.info("{host} has an address again", host=self.host)
        if len(found) > _MOST:
            known = frozenset(self.known)
            found = tuple(sorted(found, key=lambda each: each not in known))[:_MOST]
        self.known = found = self._ordered(found)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(found)

    def _failed(self, failure: Failure) -> None:
        self._asking = False
        self._due = self._reactor.seconds() + _RETRY
        fault = failure.value
        reason = " ".join(str(getattr(fault, "strerror", None) or fault).split())
        if reason != self._told:
            self._told = reason
            stays = "; the previous addresses stay" if self.known else ""
            _log.warn("no address for {host}: {reason}{stays}", host=self.host, reason=reason, stays=stays)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.errback(Unresolved(f"no address for {self.host}: {reason}"))


class ResolvedNames:
    """Every name that an endpoint connects to; one that no endpoint has any more is forgotten."""

    def __init__(self, reactor: Any, look_up: LookUp = look_up) -> None:
        """`look_up` may block."""
        self._reactor = reactor
        self._look_up = look_up
        self._names: WeakValueDictionary[str, ResolvedName] = WeakValueDictionary()

    def named(self, host: str) -> ResolvedName:
        """The name, which its owner keeps."""
        name = self._names.get(host)
        if name is None:
            name = self._names[host] = ResolvedName(host, self._look_up, self._reactor)
        return name

    def sweep(self) -> None:
        """Look up what is due; called several times a second while the gateway runs."""
        now = self._reactor.seconds()
        for name in list(self._names.values()):
            name.renew(now)


@implementer(IReactorPluggableNameResolver, IHostnameResolver, IHostResolution)
class _Resolved:
    """The reactor for an endpoint whose name is resolved already."""

    def __init__(self, reactor: Any, host: str, found: tuple[Found, ...]) -> None:
        self._reactor = reactor
        self._found = found
        self.name = host
        self.nameResolver = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """See IReactorPluggableNameResolver; it cannot be replaced."""
        raise TypeError("the answer is known")

    def cancel(self) -> None:
        """See IHostResolution; it is over at once."""

    def resolveHostName(
        self, resolutionReceiver: IResolutionReceiver, hostName: str, portNumber: int = 0, *_: Any, **__: Any
    ) -> IHostResolution:
        """See IHostnameResolver."""
        resolutionReceiver.resolutionBegan(self)
        for kind, host in self._found:
            resolutionReceiver.addressResolved(kind("TCP", host, portNumber))
        resolutionReceiver.resolutionComplete()
        return self


@implementer(IStreamClientEndpoint)
class NamedEndpoint(DirectEndpoint):
    """Connects to a port of a name, whichever of its addresses answers first (RFC 8305).

    `timeout` is in seconds, for looking up and connecting together. Fails with Unresolved, TimeoutError, and what a
    connection fails with.
    """

    def __init__(self, reactor: Any, name: ResolvedName, port: int, timeout: float) -> None:
        self._reactor = reactor
        self._name = name
        self._port = port
        self.timeout = timeout

    def begin(self, seeker: Seeker) -> PendingConnection | None:
        """See `DirectEndpoint`. Only where no second address is to be tried meanwhile: of several, the first one must
        be this machine's, which answers at once."""
        known = self._name.known
        if not known or (len(known) > 1 and not known[0][1].startswith(_LOOPBACK)):
            return None
        kind, host = known[0]
        family = socket.AF_INET if kind is IPv4Address else socket.AF_INET6
        return connect_directly(self._reactor, SocketName(family, (host, self._port)), seeker)

    def late(self) -> None:
        """See `DirectEndpoint`."""
        self._name.unreachable(self._reactor.seconds())

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """See IStreamClientEndpoint."""
        if self._name.known:
            connecting = self._to(self._name.known, protocolFactory)
        else:
            connecting = self._name.addresses(self.timeout)
            connecting.addCallback(self._to, protocolFactory)
        connecting.addTimeout(self.timeout, self._reactor, self._late)
        return connecting

    def _late(self, result: Any, _: float) -> Any:
        if isinstance(result, Failure):
            return Failure(TimeoutError(string=f"no connection within {self.timeout:g} seconds"))
        return result

    def _to(self, found: tuple[Found, ...], factory: IProtocolFactory) -> Deferred[Any]:
        host = self._name.host
        endpoint = HostnameEndpoint(_Resolved(self._reactor, host, found), host, self._port, self.timeout)
        return endpoint.connect(factory).addCallbacks(self._made, self._failed)

    def _made(self, protocol: Any) -> Any:
        peer = protocol.transport.getPeer() if getattr(protocol, "transport", None) is not None else None
        self._name.reached(getattr(peer, "host", ""))
        return protocol

    def _failed(self, failure: Failure) -> Failure:
        self._name.unreachable(self._reactor.seconds())
        return failure

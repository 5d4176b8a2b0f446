"""Endpoints of services to which the reactor may connect by itself, which costs a third of what an endpoint does."""

from __future__ import annotations

import socket
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from ..reactor.direct_connections import PendingConnection, Seeker, SocketName, connect_directly


class DirectEndpoint(Protocol):
    """An endpoint that may do without a Deferred. Where `begin` does not, or its connection is refused, `connect` is
    called, which reports what is wrong. `timeout` is in seconds."""

    timeout: float

    def begin(self, seeker: Seeker) -> PendingConnection | None:
        """Connect directly, None where that cannot be done. The caller gives up after `timeout`."""

    def late(self) -> None:
        """The caller has given up: the connection has taken too long."""


def begin(endpoint: IStreamClientEndpoint, seeker: Seeker) -> PendingConnection | None:
    """Connect directly; None where this endpoint, or its reactor, does not."""
    direct = getattr(endpoint, "begin", None)
    if direct is None:
        return None
    pending: PendingConnection | None = direct(seeker)
    return pending


@implementer(IStreamClientEndpoint)
class AddressEndpoint(DirectEndpoint):
    """The endpoint of an address that needs no look-up. Fails as Twisted's own endpoints do."""

    def __init__(self, reactor: Any, target: SocketName, timeout: float) -> None:
        self.timeout = timeout
        self._reactor = reactor
        self._target = target

    def begin(self, seeker: Seeker) -> PendingConnection | None:
        """See `DirectEndpoint`."""
        return connect_directly(self._reactor, self._target, seeker)

    def late(self) -> None:
        """See `DirectEndpoint`: an address stays what it is."""

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """See IStreamClientEndpoint."""
        family, name = self._target
        endpoint: IStreamClientEndpoint
        if isinstance(name, str):
            endpoint = UNIXClientEndpoint(self._reactor, name, self.timeout)
        elif family == socket.AF_INET6:
            endpoint = TCP6ClientEndpoint(self._reactor, *name, self.timeout)
        else:
            endpoint = TCP4ClientEndpoint(self._reactor, *name, self.timeout)
        connecting: Deferred[Any] = endpoint.connect(protocolFactory)
        return connecting

"""Connections that a reactor makes for whoever wants one, without an endpoint, a factory, a timer and a Deferred
each: a request that needs a new connection would otherwise cost as much as ten others.

Twisted's own reactors have no `connect_directly`; an endpoint of theirs does the same.
"""

from __future__ import annotations

import socket
from typing import Any, NamedTuple, Protocol

from twisted.internet.interfaces import IProtocol


class SocketName(NamedTuple):
    """Where to connect to: the family, and the host and port, or the path of a UNIX socket."""

    family: socket.AddressFamily
    name: tuple[str, int] | str


class Seeker(Protocol):
    """Wants a connection. `build` is called when it stands; then `made`, from within the transport's beginning. Or
    `refused` is called, once, unless it was given up before."""

    def build(self) -> IProtocol | None:
        """The protocol of the connection; None for not wanted any more."""

    def made(self, protocol: Any) -> None:
        """This protocol is connected."""

    def refused(self, error: OSError) -> None:
        """The connection could not be made."""


class PendingConnection(Protocol):
    """A connection that is being made."""

    def give_up(self) -> None:
        """It is not wanted any more: the seeker hears nothing of it."""


def connect_directly(reactor: Any, target: SocketName, seeker: Seeker) -> PendingConnection | None:
    """Begin to connect; None where this reactor does not do so, or where the system refuses at once. There is no
    timeout."""
    connect = getattr(reactor, "connect_directly", None)
    if connect is None:
        return None
    try:
        pending: PendingConnection = connect(target, seeker)
    except OSError:
        return None
    return pending

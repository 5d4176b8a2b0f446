"""Listening sockets that were passed to the process (systemd's socket activation): they belong to their owner.

Twisted's own port treats an adopted UNIX socket as its own: it makes the socket's file accessible to everyone when it
starts, and removes that file and shuts the socket down when it stops. But the owner keeps listening, and the next
process accepts there. So the gateway's own port adopts UNIX sockets, on every reactor.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IReactorSocket, IStreamServerEndpoint
from twisted.internet.posixbase import PosixReactorBase
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import implementer


class AdoptingUNIXPort(unix.Port):
    """A UNIX port. An adopted socket keeps its file, the file's mode and its backlog; this port removes neither the
    file nor waiting connections."""

    factory: Any
    fileno: Any
    own = True
    """Whether this port has made its socket."""

    def startListening(self) -> None:
        """See IListeningPort."""
        adopted, self._preexistingSocket = self._preexistingSocket, None
        if adopted is None:
            super().startListening()
            return
        self.own = self._shouldShutdown = False
        log.msg(f"{self._getLogPrefix(self.factory)} starting on {os.fsdecode(adopted.getsockname())!r}")
        self.factory.doStart()
        self.connected = True
        self.socket = adopted
        self.fileno = adopted.fileno
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        """See IReadDescriptor."""
        if self.own:
            super().connectionLost(reason)
        else:
            tcp.Port.connectionLost(self, reason)


@implementer(IReactorSocket)
class _Adopter:
    """One of Twisted's own reactors, for the endpoint of an adopted socket."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: socket.AddressFamily, factory: IProtocolFactory
    ) -> IListeningPort:
        """See IReactorSocket."""
        if addressFamily != socket.AF_UNIX:
            adopted: IListeningPort = self._reactor.adoptStreamPort(fileDescriptor, addressFamily, factory)
            return adopted
        port: Any = AdoptingUNIXPort._fromListeningDescriptor(self._reactor, fileDescriptor, factory)
        port.startListening()
        made: IListeningPort = port
        return made


def endpoint_of(reactor: Any, text: str) -> IStreamServerEndpoint:
    """The endpoint for a string, like Twisted's `serverFromString`, except that adopted sockets stay their
    owner's."""
    # A reactor with its own way to adopt has its own port.
    if getattr(type(reactor), "adoptStreamPort", None) is PosixReactorBase.adoptStreamPort:
        reactor = _Adopter(reactor)
    endpoint: IStreamServerEndpoint = serverFromString(reactor, text)
    return endpoint

"""Connectors: Twisted makes the connection, then uvloop takes it over."""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IFileDescriptorReceiver, IProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from koder_gateway.transports.socket_adoption import hand_over
from koder_gateway.transports.stream import StreamTransport
from koder_gateway.transports.unix import UNIXStreamTransport


class _Refusal(Protocol):
    """Takes the place of the protocol that a factory refused to build."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


class _Connected(StreamTransport):
    """A connection that a connector made."""

    _tlsClientDefault = True
    _hears_last_words = True

    def __init__(self, attempt: Any) -> None:
        super().__init__(attempt.reactor)
        self._connector = attempt.connector
        self._peer = attempt.getPeer()
        self.addr = attempt.addr

    def __repr__(self) -> str:
        return f"<{type(self)} to {self.addr} at {id(self):x}>"

    @property
    def logstr(self) -> str:
        return f"{self.logPrefix()},client"

    def _build(self) -> IProtocol | None:
        if self._connector is None:
            return None
        protocol: IProtocol | None = self._connector.buildProtocol(self.getPeer())
        return protocol or _Refusal()

    def _unbuilt(self) -> None:
        self.failIfNotConnected(ConnectionAborted())

    def _ended(self, reason: Failure) -> None:
        connector, self._connector = self._connector, None
        connector.connectionLost(reason)

    def failIfNotConnected(self, error: Exception) -> None:
        """Give up, unless the protocol is connected; the connector gets the reason."""
        if not self.connected and self._connector is not None:
            connector, self._connector = self._connector, None
            connector.connectionFailed(Failure(error))


class _UNIXConnected(UNIXStreamTransport, _Connected):
    """A connection that a UNIX connector made and built the protocol for."""

    def __init__(self, attempt: Any, built: IProtocol) -> None:
        super().__init__(attempt)
        self._built: IProtocol | None = built

    def _build(self) -> IProtocol | None:
        built, self._built = self._built, None
        return built

    def getHost(self) -> UNIXAddress:
        return UNIXAddress(None)


class _TCPAttempt(tcp.Client):
    reactor: Any

    def _finishInit(self, whenDone: Any, skt: Any, error: Any, reactor: Any) -> None:
        if whenDone is None and skt is not None:
            skt.close()  # it could not be bound, and nobody else is going to close it
        super()._finishInit(whenDone, skt, error, reactor)

    def _connectDone(self) -> None:
        transport = _Connected(self)
        self.connector.transport = transport
        hand_over(self.reactor.loop, _take_socket(self), transport)


class _UNIXAttempt(unix.Client):
    reactor: Any

    def _connectDone(self) -> None:
        protocol = self.connector.buildProtocol(self.getPeer()) or _Refusal()
        if IFileDescriptorReceiver.providedBy(protocol):
            self._keep(protocol)
        else:
            transport = _UNIXConnected(self, protocol)
            self.connector.transport = transport
            hand_over(self.reactor.loop, _take_socket(self), transport)

    def _keep(self, protocol: Any) -> None:
        """Remain Twisted's own transport, since uvloop cannot receive file descriptors."""
        self.protocol = protocol
        self.connected = 1
        self.logstr = f"{self._getLogPrefix(protocol)},client"
        self.startReading()
        protocol.makeConnection(self)


def _take_socket(attempt: Any) -> Any:
    """The socket of a successful attempt, which is not used any more."""
    taken = attempt.socket
    attempt.connected = True
    del attempt.connector, attempt.socket, attempt.fileno
    return taken


class StreamConnector(tcp.Connector):
    """A TCP connector."""

    def _makeTransport(self) -> _TCPAttempt:
        return _TCPAttempt(self.host, self.port, self.bindAddress, self, self.reactor)


class UNIXStreamConnector(unix.Connector):
    """A UNIX connector.

    A protocol that receives file descriptors gets Twisted's own transport.
    """

    def _makeTransport(self) -> Any:
        return _UNIXAttempt(self.address, self, self.reactor, self.checkPID)

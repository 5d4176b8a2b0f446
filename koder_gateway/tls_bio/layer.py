"""A TLS layer between the transport below and the protocol above: its life cycle, and what it only passes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.protocol import Protocol

from ..policy.limit_keys import address_key
from ..reactor.joined_writes import send_joined
from ..reactor.read_sizes import read_bounded, read_fitting, read_freely, room_of
from ..reactor.turns import Turns

# How many bytes a peer may make OpenSSL send by itself in the life of a connection: hundreds of key updates, of which
# an honest peer has a handful. A peer that asks for more and reads none of it would fill the memory with replies.
UNSOLICITED: Final = 1 << 14


class TlsLayer(Protocol):
    """A protocol for the transport below, and a transport for the protocol above.

    Of `_closing`, `_shut`, `_left` and `_gone` each includes those before it: a close was requested; close_notify was
    sent, so nothing more can be written; the transport below closes, so nothing more is read; it is gone. Subclasses
    write, and send close_notify in `_finish`. `turns` are the reactor's, to be shared if one read has more records
    than a slice of work; without them all are read at once.
    """

    turns: Turns | None = None

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection: Any = connection
        self._producer: Any = None
        self._talked = 0
        self._closing = False
        self._shut = False
        self._left = False
        self._gone = False

    # -- below

    @property
    def address(self) -> object:
        """The peer's address, which identifies it in the queues of turns."""
        transport: Any = self.transport
        return address_key(getattr(transport.getPeer(), "host", None) or "")

    def _write_below(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(data)

    def _answer(self, records: bytes) -> None:
        """Send what reading alone has made OpenSSL say: its own new keys, or that there is no renegotiation."""
        if records and not self._left:
            self._talked += len(records)
            if self._talked > UNSOLICITED:
                self.abortConnection()
            else:
                self._write_below(records)

    def _leave(self) -> None:
        self._closing = self._shut = self._left = True
        transport: Any = self.transport
        if self._producer is not None:
            # Nothing of it can be sent any more: the transport must not wait for it.
            self._producer = None
            transport.unregisterProducer()
        transport.loseConnection()

    # -- above: ITransport

    def write(self, data: bytes) -> None:
        """Encrypt and send."""

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        """Encrypt and send several pieces as one."""
        self.write(b"".join(pieces))

    def flush(self) -> None:
        """Have the transport below send what it keeps for the end of the turn."""
        send_joined(self.transport)

    def loseConnection(self) -> None:
        """Close once all is written; a producer may finish first."""
        if self._closing:
            return
        self._closing = True
        if self._producer is None and self._may_finish():
            self._finish()

    def _may_finish(self) -> bool:
        """Whether nothing that was written still waits to be sent."""
        return True

    def _finish(self) -> None:
        """Send close_notify and close."""

    def abortConnection(self) -> None:
        """Close at once."""
        if self._gone:
            return
        self._closing = self._shut = self._left = True
        transport: Any = self.transport
        abort = getattr(transport, "abortConnection", None)
        if abort is not None:
            abort()
        else:
            transport.loseConnection()

    @property
    def disconnecting(self) -> bool:
        """Whether the connection is being closed, as line-based protocols ask before they read on."""
        return self._closing

    def getPeer(self) -> Any:
        """The other side's address."""
        transport: Any = self.transport
        return transport.getPeer()

    def getHost(self) -> Any:
        """This side's address, as the other one sees it."""
        transport: Any = self.transport
        return transport.getHost()

    def getHandle(self) -> Any:
        """The handle of the transport below."""
        transport: Any = self.transport
        return transport.getHandle()

    @property
    def bufferSize(self) -> int:
        """Bytes that may wait in the transport below before its producer is paused."""
        return int(getattr(self.transport, "bufferSize", 0))

    @bufferSize.setter
    def bufferSize(self, size: int) -> None:
        transport: Any = self.transport
        transport.bufferSize = size

    @property
    def unsent(self) -> int:
        """Bytes that the transport below still holds, as far as it tells."""
        return int(getattr(self.transport, "unsent", 0))

    @property
    def room(self) -> int:
        """Bytes that the transport below takes at once, as far as it tells."""
        return room_of(self.transport)

    def read_bounded(self, room: Callable[[], int] | None = None) -> None:
        """Read no more at once than is bounded, or than there is room for."""
        read_bounded(self.transport, room)

    def read_fitting(self, room: Callable[[], int]) -> None:
        """Read as much at once as there is room for."""
        read_fitting(self.transport, room)

    def read_freely(self) -> None:
        """Read as much as comes."""
        read_freely(self.transport)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Set TCP_NODELAY where the transport below is TCP."""
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(enabled)

    def getTcpNoDelay(self) -> bool:
        """Whether TCP_NODELAY is set below."""
        transport: Any = self.transport
        return bool(transport.getTcpNoDelay())

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Set SO_KEEPALIVE below."""
        transport: Any = self.transport
        transport.setTcpKeepAlive(enabled)

    def getTcpKeepAlive(self) -> bool:
        """Whether SO_KEEPALIVE is set below."""
        transport: Any = self.transport
        return bool(transport.getTcpKeepAlive())

    def getPeerCertificate(self) -> Any:
        """The certificate that the other side has shown, or None."""
        return None if self._gone else self._connection.get_peer_certificate()

    # -- above: flow control, which is the transport's below

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let the transport below pause and resume `producer`. Raises RuntimeError while there is another."""
        if self._left:
            producer.stopProducing()
            return
        if self._producer is not None:
            raise RuntimeError(f"{self._producer!r} was never unregistered")
        self._producer = producer
        transport: Any = self.transport
        transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """The producer is done."""
        if self._producer is None:
            return
        self._producer = None
        transport: Any = self.transport
        transport.unregisterProducer()
        if self._closing and self._may_finish():
            self._finish()

    def pauseProducing(self) -> None:
        """Read no more."""
        if not self._gone:
            transport: Any = self.transport
            transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Read again."""
        if not self._gone:
            transport: Any = self.transport
            transport.resumeProducing()

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()

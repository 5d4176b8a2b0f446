"""One connection: a transport of uvloop's, seen by a Twisted protocol as an `ITCPTransport`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    ILoggingContext,
    IProtocol,
    IPushProducer,
    ISystemHandle,
    ITCPTransport,
    ITLSTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from koder_gateway.reactor.bytes_before_reset import bytes_before_reset
from koder_gateway.transports import addresses, securing
from koder_gateway.transports.flow import Flow, drop
from koder_gateway.transports.owner import OwningReactor

# Shared, as Twisted shares its own: a failure without a traceback is a constant.
_DONE = Failure(ConnectionDone())
_LOST = Failure(ConnectionLost())
_ABORTED = Failure(ConnectionAborted())

# Close with a reset instead of a FIN.
_RESET = struct.pack("ii", 1, 0)

# The order in which Linux reports a socket's memory (sock_diag(7), SK_MEMINFO_VARS): received, its bound, in transit,
# the send bound, set aside, to be sent.
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("6I")

# Bytes that one early read takes: an ordinary response. The rest is the loop's to read.
_EARLY = 16384

_log = Logger()


@implementer(ITLSTransport, ITCPTransport, ISystemHandle, IPushProducer, IConsumer, ILoggingContext)
class StreamTransport(Flow):
    """The asyncio protocol that uvloop calls, and the Twisted transport that a protocol holds.

    The hot path has almost nothing in between: `write` takes one call to uvloop's, at once or when the turn ends, and
    data takes one call to the protocol's `dataReceived`, looked up each time because protocols replace it. A pull
    producer, and a half-closed or lost connection, replace those two methods while they last: look `write` up each
    time too.

    Whatever ends the connection or its writing calls `flush` first. Only what a protocol writes in a turn in which it
    then raises is lost, as on Twisted's own transports.

    A subclass provides the protocol (`_build`) and is notified of the end (`_ended`).
    """

    _tlsClientDefault = False
    # Whether the protocol still gets what arrived before a write failed; otherwise a failed write ends everything.
    _hears_last_words = False
    _aborting = False
    _failure: Failure | None = None
    _handle: socket.socket | None = None
    # Whether TCP_NODELAY has been turned off.
    _delays = False
    _host: Any = None
    _peer: Any = None

    def __init__(self, reactor: OwningReactor) -> None:
        super().__init__()
        self.reactor = reactor
        self.write = drop
        self._joined = b""
        # Set here already: what only some instances have costs each of those a dictionary of its own.
        self.producer: Any = None
        self.streamingProducer = self.producerPaused = self._full = self._stopped = False

    @abstractmethod
    def _build(self) -> IProtocol | None:
        """The protocol for this connection, or None to refuse it."""

    def _begin(self, protocol: IProtocol) -> None:
        """The transport is ready: connect the protocol."""
        protocol.makeConnection(self)

    def _unbuilt(self) -> None:
        """Building the protocol failed, which has been logged; the connection will be closed."""

    def _ended(self, reason: Failure) -> None:
        """The protocol's `connectionLost` has been called."""

    # What uvloop calls

    def connection_made(self, native: asyncio.Transport) -> None:
        self._native = native
        # The writer is notified as soon as the kernel accepts no more: more data here would only use memory.
        native.set_write_buffer_limits(0)
        protocol = self._built_or_none()
        if protocol is None:
            native.abort()
            return
        self.connected = self._starting = True
        self.reactor.streams.add(self)
        self.protocol = protocol
        self._write_natively()
        try:
            self._begin(protocol)
        except Exception as error:
            self._fail(error)
        self._starting = False
        if self.disconnecting:
            self._deliver_to(drop)
            self._close()
        if self._held is not None or self.disconnecting:
            # uvloop starts reading after this method whatever happens in it.
            self.reactor.loop.call_soon(native.pause_reading)

    def _built_or_none(self) -> IProtocol | None:
        try:
            return self._build()
        except Exception:
            _log.failure("while building a protocol")
            self._unbuilt()
            return None

    def data_received(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def read_now(self) -> None:
        """Deliver what has come, without waiting for the loop to read it.

        An end, an error, and what comes while reads are bounded are left to the loop.
        """
        native = self._native
        if native is None or self.disconnecting or hasattr(self, "get_buffer") or not native.is_reading():
            return
        try:
            data = os.read(self._socket().fileno(), _EARLY)
        except OSError:
            return
        if data:
            try:
                self.data_received(data)
            except Exception as error:
                self._fail(error)

    def eof_received(self) -> bool:
        """The peer has closed its side; true keeps ours open."""
        protocol: Any = IHalfCloseableProtocol(self.protocol, None)
        if protocol is None:
            # Unsent data is lost with it: the lost peer must be noticed at once.
            self.flush()
            self._native.abort()
            return False
        try:
            protocol.readConnectionLost()
        except Exception as error:
            self._fail(error)
        return True

    def connection_lost(self, error: BaseException | None) -> None:
        if not self.connected:
            self._native = None
            return
        if self._hears_last_words and isinstance(error, OSError):
            self._hear_last_words()
        reason = self._reason(error)
        self.connected, self.disconnected = False, True
        self.reactor.streams.discard(self)
        protocol, producer = self.protocol, self.producer
        self._release()
        try:
            if producer is not None:
                producer.stopProducing()
        finally:
            try:
                protocol.connectionLost(reason)
            finally:
                if self.TLS:
                    securing.break_cycle(self)
                self._ended(reason)

    def _hear_last_words(self) -> None:
        """Deliver the data that arrived before the connection failed, and that uvloop, when it could not write, did
        not read."""
        if self.disconnecting or self._aborting or self._failure is not None:
            return
        # The socket itself: above it TLS may have begun, and `getHandle` is then that one's.
        words = bytes_before_reset(StreamTransport.getHandle(self))
        receive = self.data_received
        if self._held is not None:
            words = b"".join((*self._held, words))
            receive = self.protocol.dataReceived
        if words:
            try:
                receive(words)
            except Exception as error:
                self._fail(error)

    def connectionLost(self, reason: Failure) -> None:
        """End this connection at once, as the reactor does with all remaining connections when it stops."""
        if self.connected:
            self._lose(reason)
            self.connection_lost(None)

    def _reason(self, error: BaseException | None) -> Failure:
        if self._failure is not None:
            return self._failure
        if self._aborting:
            return _ABORTED
        if error is None:
            return _DONE
        if isinstance(error, OSError):
            if error.__traceback__ is None:
                return _LOST  # made by uvloop from an errno; what a protocol raised has a traceback
            _log.failure("while handling a connection", Failure(error))  # uvloop reports all others
        return Failure(error)

    def _release(self) -> None:
        """Drop all references, so that no cycle keeps this connection or its protocol alive."""
        if self._handle is not None:
            self._handle.detach()
        self.__dict__.pop("data_received", None)
        if hasattr(self, "get_buffer"):
            del self.get_buffer, self.buffer_updated
        self.write = drop
        self._joined = b""
        self.protocol = self._native = self._handle = self._held = self.producer = self._room = None

    def _fail(self, error: Exception) -> None:
        """The protocol or its producer raised this: log it and end the connection with it as the reason."""
        failure = Failure(error)
        _log.failure("while handling a connection", failure)
        self._lose(failure)

    def _lose(self, reason: Failure) -> None:
        self._failure = reason
        if self._native is not None:
            self.flush()
            self._native.abort()

    # ITransport; `write` is an attribute

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Write these in order; raises TypeError, with nothing written, if one is not bytes."""
        try:
            joined = b"".join(data)
        except TypeError:
            raise TypeError("Data must be bytes") from None
        self.write(joined)

    def loseConnection(self) -> None:
        """Close once everything written is sent and the producer, if any, has unregistered."""
        if self.disconnected or self.disconnecting:
            return
        self.disconnecting = True
        if self._native is None or self._starting:
            return  # connection_made closes, once the protocol has had its say
        self._native.pause_reading()
        self._close()

    def _close(self) -> None:
        """Close, unless data must still be written; then this is called again."""
        if self.producer is None and self._native is not None:
            self.flush()
            self._native.close()

    def abortConnection(self) -> None:
        """Close now, with a reset; what is unsent is dropped."""
        if not self.connected or self._aborting:
            return
        self._aborting = True
        self.flush()
        with contextlib.suppress(OSError):
            self._socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._native.abort()  # from here on uvloop drops what is written

    def loseWriteConnection(self) -> None:
        """Close our side once everything written is sent; the peer may go on sending."""
        if self.connected and not self._half_closing:
            self._half_closing = True
            if self.producer is None:
                self._half_close()

    def _half_close(self) -> None:
        self.write = drop
        native = self._native
        self.flush()
        native.write_eof()
        if native.get_write_buffer_size():
            native.set_write_buffer_limits(0)  # resume_writing now means: all sent
        else:
            self.reactor.loop.call_soon(self._half_closed)

    def _half_closed(self) -> None:
        protocol: Any = IHalfCloseableProtocol(self.protocol, None)
        if protocol is not None:
            try:
                protocol.writeConnectionLost()
            except Exception as error:
                self._fail(error)

    @property
    def unsent(self) -> int:
        """Bytes that were written but not accepted by the kernel yet."""
        return 0 if self._native is None else int(self._native.get_write_buffer_size()) + len(self._joined)

    @property
    def room(self) -> int:
        """Bytes that the kernel accepts at once, its own overhead included; 0 if it does not report it. Costs a
        system call."""
        if self._native is None or self._native.get_write_buffer_size():
            return 0
        try:
            said: bytes = self.getHandle().getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
            numbers: tuple[int, ...] = _MEMINFO.unpack(said)
        except (OSError, struct.error):
            return 0
        _, _, allocated, most, _, queued = numbers
        # The kernel needs up to as much again for its own keeping.
        return max(0, most - max(allocated, queued) - 2 * len(self._joined))

    def stopProducing(self) -> None:
        """`IPushProducer`: lose the connection."""
        self.loseConnection()

    def stopConsuming(self) -> None:
        """Unregister the producer and lose the connection."""
        self.unregisterProducer()
        self.loseConnection()

    def getHost(self) -> Any:
        """This side's address; once the connection is lost, only if it was asked for before."""
        if self._host is None:
            self._host = addresses.from_socket_name(self._native.get_extra_info("sockname"))
        return self._host

    def getPeer(self) -> Any:
        """The other side's address."""
        if self._peer is None:
            self._peer = addresses.from_socket_name(self._native.get_extra_info("peername"))
        return self._peer

    # ITCPTransport, ITLSTransport, ISystemHandle, ILoggingContext

    def _socket(self) -> Any:
        return self._native.get_extra_info("socket")

    def getTcpNoDelay(self) -> bool:
        return bool(self._socket().getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        """uvloop turns TCP_NODELAY on for every connection; this can turn it off, and on again."""
        if enabled and not self._delays:
            return
        self._delays = not enabled
        with contextlib.suppress(OSError):
            self._socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, bool(enabled))

    def getTcpKeepAlive(self) -> bool:
        return bool(self._socket().getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self._socket().setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, bool(enabled))

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        """Speak TLS from here on, as the side that this transport is (or the other one: `normal` false)."""
        client = self._tlsClientDefault if normal else not self._tlsClientDefault
        securing.start_tls(self, contextFactory, client)

    def getHandle(self) -> Any:
        """The socket, which stays this transport's: do not close it; it is void once the connection is lost."""
        if self._handle is None:
            self._handle = socket.socket(fileno=self.fileno())
        return self._handle

    def fileno(self) -> int:
        """The connection's file descriptor, which stays uvloop's; -1 once the connection is lost."""
        if self._native is None:
            return -1
        descriptor: int = self._socket().fileno()
        return descriptor

    def logPrefix(self) -> str:
        """The protocol's own prefix for log lines, or its class's name."""
        if ILoggingContext.providedBy(self.protocol):
            prefix: str = self.protocol.logPrefix()
            return prefix
        return type(self.protocol).__name__

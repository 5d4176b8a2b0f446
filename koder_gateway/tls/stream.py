"""TLS between a client's transport and a channel: one OpenSSL connection over two memory BIOs.

`twisted.protocols.tls` takes 12 microseconds for a small request and its answer, of which OpenSSL needs three: the
rest is exceptions for "no more data", a fresh 64 KiB buffer for each read, and a timer for each write. Here
records are decrypted and encrypted through one buffer that all connections share, with OpenSSL's own calls (as
pyOpenSSL binds them) while data flows, and pyOpenSSL's for everything else. Nothing is held back: what is
written is encrypted and handed to the transport at once, so back-pressure is the transport's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    INegotiated,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    ISSLTransport,
    ISystemHandle,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

_lib: Final = SSL._lib  # type: ignore[attr-defined]
_ffi: Final = SSL._ffi  # type: ignore[attr-defined]

# The largest read of any reactor here, and then some: what one read brings is decrypted in one go.
_SIZE: Final = 1 << 19
_BUFFER: Final = _ffi.new("char[]", _SIZE)
# One record (RFC 8446 section 5.1): pyOpenSSL lets OpenSSL take no more at a time, and OpenSSL's memory BIO keeps
# the memory of its fullest moment for as long as the connection lives.
_PIECE: Final = 1 << 14
_WANT_READ: Final = _lib.SSL_ERROR_WANT_READ

_REQUEST_LINE: Final = re.compile(rb"[A-Z]{3,10} [^ ]+ HTTP/1\.[01]\r?\n")
_PLAIN_ANSWER: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)
_PLAIN_PROBLEM: Final = (
    b'{"type":"urn:koder-gateway:bad_request","title":"Bad Request","status":400,"code":"bad_request",'
    b'"detail":"This port speaks TLS; use https."}'
)


@implementer(ISSLTransport, INegotiated, ISystemHandle, IPushProducer)
class TLSTransport(Protocol):
    """A protocol to the transport below, a transport to the protocol above, which it owns."""

    def __init__(self, connection: SSL.Connection, inner: IProtocol) -> None:
        self._connection: Any = connection
        self._inner: Any = inner
        connection.set_accept_state()
        # OpenSSL's own objects, which live as long as `connection` does.
        private: Any = connection
        self._ssl = private._ssl
        self._incoming = private._into_ssl
        self._outgoing = private._from_ssl
        self._ready = False
        self._early: list[bytes] = []
        self._closing = False
        self._producing = False
        self._gone: bool = False

    # -- below

    def connectionMade(self) -> None:
        """The client is connected; the handshake is its move."""
        self._inner.makeConnection(self)

    def dataReceived(self, data: bytes) -> None:
        """Records, in pieces of any size."""
        if self._gone:
            return
        _lib.BIO_write(self._incoming, data, len(data))
        if not self._ready and not self._shake_hands(data):
            return
        ssl = self._ssl
        total = 0
        _lib.ERR_clear_error()
        while True:
            count = _lib.SSL_read(ssl, _BUFFER + total, _SIZE - total)
            if count <= 0:
                break
            total += count
            if total == _SIZE:
                self._deliver(total)
                total = 0
                if self._connection is None:
                    return
        error = _lib.SSL_get_error(ssl, count)
        if total:
            self._deliver(total)
        if error != _WANT_READ and not self._gone:
            # The client's close_notify, or records that are none.
            _lib.ERR_clear_error()
            self._finish()

    def _deliver(self, total: int) -> None:
        if not self._closing:
            self._inner.dataReceived(_ffi.buffer(_BUFFER, total)[:])

    def _shake_hands(self, data: bytes) -> bool:
        """Go on with the handshake; true once it is complete."""
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._flush()
            return False
        except SSL.Error:
            if _REQUEST_LINE.match(data):
                self._write_below(_PLAIN_ANSWER % (len(_PLAIN_PROBLEM), _PLAIN_PROBLEM))
            else:
                self._flush()
            self._leave()
            return False
        self._ready = True
        self._flush()
        early, self._early = self._early, []
        if IHandshakeListener.providedBy(self._inner):
            self._inner.handshakeCompleted()
        if early:
            self.write(b"".join(early))
        if self._closing:
            self._finish()
        return not self._gone

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport below is gone."""
        self._gone = True
        inner, self._inner = self._inner, None
        # The order matters to OpenSSL: the raw objects end with the connection.
        self._ssl = self._incoming = self._outgoing = None
        self._connection = None
        self._early.clear()
        if inner is not None:
            inner.connectionLost(reason)

    # -- above: ITransport

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        if self._gone or not data:
            return
        if not self._ready:
            self._early.append(data)
            return
        size = len(data)
        if size <= _PIECE:
            if _lib.SSL_write(self._ssl, data, size) != size:
                self.abortConnection()
                return
            self._flush()
            return
        self._write_pieces(data, size)

    def _write_pieces(self, data: bytes, size: int) -> None:
        source = _ffi.from_buffer(data)
        ssl, outgoing = self._ssl, self._outgoing
        total = 0
        for position in range(0, size, _PIECE):
            length = min(_PIECE, size - position)
            if _lib.SSL_write(ssl, source + position, length) != length:
                self.abortConnection()
                return
            total += _lib.BIO_read(outgoing, _BUFFER + total, _SIZE - total)
            if total > _SIZE - 2 * _PIECE:
                self._write_below(_ffi.buffer(_BUFFER, total)[:])
                total = 0
        if total:
            self._write_below(_ffi.buffer(_BUFFER, total)[:])

    def _flush(self) -> None:
        """Hand what OpenSSL has to send to the transport below."""
        count = _lib.BIO_read(self._outgoing, _BUFFER, _SIZE)
        if count > 0:
            self._write_below(_ffi.buffer(_BUFFER, count)[:])

    def _write_below(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(data)

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        """Encrypt and send several pieces as one."""
        self.write(b"".join(pieces))

    def loseConnection(self) -> None:
        """Close once all is written; a producer may finish first."""
        if self._gone or self._closing:
            return
        self._closing = True
        # What was written before the handshake is still sent after it.
        if not self._producing and (self._ready or not self._early):
            self._finish()

    def _finish(self) -> None:
        """Say goodbye (close_notify) and close. In the midst of a handshake there is nobody to say it to."""
        if self._gone:
            return
        if not self._ready:
            self.abortConnection()
            return
        _lib.SSL_shutdown(self._ssl)
        _lib.ERR_clear_error()
        self._flush()
        self._leave()

    def _leave(self) -> None:
        self._closing = True
        transport: Any = self.transport
        transport.loseConnection()

    def loseWriteConnection(self) -> None:
        """Say goodbye but go on reading, where the transport below can."""
        half_close = getattr(self.transport, "loseWriteConnection", None)
        if self._gone or not self._ready or half_close is None:
            return
        _lib.SSL_shutdown(self._ssl)
        _lib.ERR_clear_error()
        self._flush()
        half_close()

    def abortConnection(self) -> None:
        """Close at once."""
        if not self._gone:
            self._closing = True
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
        """The client's address."""
        transport: Any = self.transport
        return transport.getPeer()

    def getHost(self) -> Any:
        """The address that the client has connected to."""
        transport: Any = self.transport
        return transport.getHost()

    def getHandle(self) -> Any:
        """The handle of the transport below."""
        transport: Any = self.transport
        return transport.getHandle()

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
        """The certificate that the client has shown, or None."""
        return None if self._gone else self._connection.get_peer_certificate()

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """The protocol that ALPN has chosen (RFC 7301), once the handshake is complete."""
        if not self._ready or self._gone:
            return None
        return self._connection.get_alpn_proto_negotiated() or None

    # -- above: flow control, which is the transport's below

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let the transport below pause and resume `producer`."""
        if self._gone:
            producer.stopProducing()
            return
        self._producing = True
        transport: Any = self.transport
        transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """The producer is done."""
        if not self._producing:
            return
        self._producing = False
        if self._gone:
            return
        transport: Any = self.transport
        transport.unregisterProducer()
        if self._closing:
            self._finish()

    def pauseProducing(self) -> None:
        """Read no more from the client."""
        if not self._gone:
            transport: Any = self.transport
            transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Read from the client again."""
        if not self._gone:
            transport: Any = self.transport
            transport.resumeProducing()

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()


class TLSFactory(ServerFactory):
    """Puts TLS under the protocols of another factory. `contexts` makes the TLS state of each connection."""

    noisy = False

    def __init__(self, contexts: IOpenSSLServerConnectionCreator, wrapped: IProtocolFactory) -> None:
        self.contexts: Any = contexts
        self._wrapped: Any = wrapped

    def doStart(self) -> None:
        """The wrapped factory begins to be listened on."""
        self._wrapped.doStart()

    def doStop(self) -> None:
        """The wrapped factory is no longer listened on."""
        self._wrapped.doStop()

    def buildProtocol(self, addr: IAddress | None) -> TLSTransport | None:
        """TLS for a new connection, with the wrapped factory's protocol above it."""
        inner = self._wrapped.buildProtocol(addr)
        if inner is None:
            return None
        return TLSTransport(self.contexts.serverConnectionForTLS(None), inner)

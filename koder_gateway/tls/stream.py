"""TLS between a client's transport and a channel: one OpenSSL connection over two memory BIOs.

`twisted.protocols.tls` takes 12 microseconds for a small request and its answer, of which OpenSSL needs three: the
rest is exceptions for "no more data", a fresh 64 KiB buffer for each read, and a timer for each write. Here
records are decrypted and encrypted through one buffer that all connections share, with OpenSSL's own calls (as
pyOpenSSL binds them) while data flows, and pyOpenSSL's for everything else. Nothing is held back: what is
written is encrypted and handed to the transport at once, so back-pressure is the transport's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IHandshakeListener,
    INegotiated,
    IProtocol,
    IPushProducer,
    ISSLTransport,
    ISystemHandle,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from .client_auth import refusals
from .layer import Layer
from .plain import PlainRequest, begins_plain

# pyOpenSSL promises none of these names: `usable` looks whether they are there.
_lib: Any = getattr(SSL, "_lib", None)
_ffi: Any = getattr(SSL, "_ffi", None)
CALLS: Final = (
    "BIO_read",
    "BIO_write",
    "ERR_clear_error",
    "SSL_ERROR_WANT_READ",
    "SSL_MODE_ENABLE_PARTIAL_WRITE",
    "SSL_clear_mode",
    "SSL_get_error",
    "SSL_read",
    "SSL_shutdown",
    "SSL_write",
)
_OBJECTS: Final = ("_ssl", "_into_ssl", "_from_ssl")

# The largest read of any reactor here, and then some: what one read brings is decrypted in one go.
_SIZE: Final = 1 << 19
_BUFFER: Any = None if _ffi is None else _ffi.new("char[]", _SIZE)
# One record (RFC 8446 section 5.1). OpenSSL is given, and gives, no more at a time: its memory BIO keeps the memory
# of its fullest moment for as long as the connection lives.
_PIECE: Final = 1 << 14
_WANT_READ: Any = getattr(_lib, "SSL_ERROR_WANT_READ", None)
_PARTIAL: Any = getattr(_lib, "SSL_MODE_ENABLE_PARTIAL_WRITE", None)
# What a client may make OpenSSL say by itself in the life of a connection: hundreds of key updates, of which an
# honest one has a handful. Who asks for more and reads none of it would fill the memory with answers.
_TALK: Final = 1 << 14
# The records of one read that are followed: the smallest ones would cost more to follow than to refuse.
_FOLLOWED: Final = 256
# A record's header: from its bytes on OpenSSL says whether it is one.
_HEADER: Final = 5


@implementer(ISSLTransport, INegotiated, ISystemHandle, IPushProducer)
class TLSTransport(Layer):
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
        # pyOpenSSL lets a write end with its first record, and a client may ask for records of 512 bytes (RFC 6066
        # section 4): here a write is taken whole or not at all.
        _lib.SSL_clear_mode(self._ssl, _PARTIAL)
        self._answered = 0
        self._half_closing = False
        self._ready = False
        # Bytes of the present record that are still to come; -1 when that is not known any more.
        self._missing = 0
        self._early: list[bytes] = []
        # The first bytes, until it is clear that they begin TLS; and the request of a client that speaks plain HTTP.
        self._opening = b""
        self._plain: PlainRequest | None = None
        self._producer: Any = None
        # Each includes those before it: closing is asked for; goodbye is said, so nothing more can be written; the
        # transport below closes, so nothing more is read; it is gone, and so are OpenSSL's objects.
        self._closing = False
        self._shut = False
        self._left = False
        self._gone = False

    # -- below

    def connectionMade(self) -> None:
        """The client is connected; the handshake is its move."""
        self._inner.makeConnection(self)

    def dataReceived(self, data: bytes) -> None:
        """Records, in pieces of any size."""
        if self._left:
            return
        # What others have left in OpenSSL's queue of errors would be taken for this connection's.
        _lib.ERR_clear_error()
        size = len(data)
        alone = self._take_alone(data)
        if size <= _PIECE:
            _lib.BIO_write(self._incoming, data, size)
            if alone and self._ready:
                self._read_alone()
            elif self._ready or self._shake_hands(data):
                self._read(0, True)
            return
        self._read_pieces(data, size)

    def _read_pieces(self, data: bytes, size: int) -> None:
        source = _ffi.from_buffer(data)
        total = 0
        for position in range(0, size, _PIECE):
            length = min(_PIECE, size - position)
            _lib.BIO_write(self._incoming, source + position, length)
            if self._ready or self._shake_hands(data):
                total = self._read(total, position + length == size)
            if self._left:
                return

    def _read(self, total: int, last: bool) -> int:
        """Decrypt what is there behind the `total` bytes that are decrypted already, and deliver if it is the last.

        Returns how many bytes are decrypted and not delivered.
        """
        # The local name keeps OpenSSL's object alive when the connection ends in the midst of this.
        ssl = self._ssl
        while True:
            count = _lib.SSL_read(ssl, _BUFFER + total, _SIZE - total)
            if count <= 0:
                break
            total += count
            if total == _SIZE:
                self._deliver(_ffi.buffer(_BUFFER, total)[:])
                if self._left:
                    return 0
                total = 0
                _lib.ERR_clear_error()
        ended = _lib.SSL_get_error(ssl, count) != _WANT_READ
        if ended:
            _lib.ERR_clear_error()
        elif not last:
            return total
        plain = _ffi.buffer(_BUFFER, total)[:]
        if not ended:
            self._answer()
        if total and not self._left:
            self._deliver(plain)
        if ended and not self._left:
            # The client's close_notify, or records that are none.
            self._hang_up()
        return 0

    def _answer(self) -> None:
        """Send what reading alone has made OpenSSL say: its own new keys, or that there is no renegotiation."""
        count = _lib.BIO_read(self._outgoing, _BUFFER, _SIZE)
        if count > 0:
            self._answered += count
            if self._answered > _TALK:
                self.abortConnection()
            else:
                self._write_below(_ffi.buffer(_BUFFER, count)[:])

    def _read_alone(self) -> None:
        """Read the one record that has come: a small request costs one call and not three."""
        count = _lib.SSL_read(self._ssl, _BUFFER, _SIZE)
        if count > 0:
            self._deliver(_ffi.buffer(_BUFFER, count)[:])
        else:
            self._read(0, True)

    def _take_alone(self, data: bytes) -> bool:
        """Follow the records (RFC 8446 section 5.1); whether `data` is one of them and nothing else."""
        size = len(data)
        begin = position = self._missing
        if position < 0 or position > size or not size:
            self._missing = -1 if position < 0 else position - size
            return False
        followed = 0
        while position + 5 <= size and followed < _FOLLOWED:
            position += 5 + (data[position + 3] << 8 | data[position + 4])
            followed += 1
        # A header in two pieces is not followed any further; then each read is asked for until there is no more.
        self._missing = position - size if position >= size else -1
        return begin == 0 and position == size == 5 + (data[3] << 8 | data[4])

    def _deliver(self, plain: bytes) -> None:
        if not self._closing:
            self._inner.dataReceived(plain)

    def _shake_hands(self, data: bytes) -> bool:
        """Go on with the handshake; true once it is complete."""
        if self._plain is not None:
            self._refuse(data)
            return False
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            # Less than a record's header: it may still become something else than TLS.
            if len(self._opening) < _HEADER:
                self._opening += data[:_HEADER]
            self._flush()
            return False
        except SSL.Error as error:
            _lib.ERR_clear_error()
            self._early.clear()
            refusals.note(error, self._connection, self.getPeer())
            self._refuse(data)
            return False
        self._ready = True
        self._opening = b""
        # Tickets do not wait for the first answer: with them goes the acknowledgement of what the client has sent,
        # for which one with Nagle's algorithm holds its request back.
        self._flush()
        early, self._early = self._early, []
        if IHandshakeListener.providedBy(self._inner):
            self._inner.handshakeCompleted()
        if early:
            self.write(b"".join(early))
        if self._closing and self._producer is None:
            self._finish()
        elif self._half_closing:
            self.loseWriteConnection()
        _lib.ERR_clear_error()
        return not self._left

    def _refuse(self, data: bytes) -> None:
        """The client speaks no TLS that is spoken here: say so, in plain HTTP to one that speaks that."""
        if self._plain is None:
            data = self._opening + data
            if not begins_plain(data):
                self._flush()
                self._leave()
                return
            self._plain = PlainRequest()
        answer = self._plain.take(data)
        if answer is not None:
            self._write_below(answer)
            self._leave()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport below is gone."""
        self._closing = self._shut = self._left = self._gone = True
        inner, self._inner = self._inner, None
        # Raw pointers end with the connection that owns them: nobody may find them after it.
        self._incoming = self._outgoing = self._ssl = None
        self._connection = self._producer = self._plain = None
        self._early.clear()
        if inner is not None:
            inner.connectionLost(reason)

    # -- above: ITransport

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        if self._shut or not data:
            return
        if not self._ready:
            if not self._half_closing and (not self._closing or self._producer is not None):
                self._early.append(data)
            return
        size = len(data)
        if size <= _PIECE:
            if _lib.SSL_write(self._ssl, data, size) == size:
                self._flush()
            else:
                self._fail()
            return
        self._write_pieces(data, size)

    def _write_pieces(self, data: bytes, size: int) -> None:
        source = _ffi.from_buffer(data)
        ssl, outgoing = self._ssl, self._outgoing
        total = 0
        full: list[bytes] = []
        for position in range(0, size, _PIECE):
            length = min(_PIECE, size - position)
            if _lib.SSL_write(ssl, source + position, length) != length:
                self._fail()
                return
            total += _lib.BIO_read(outgoing, _BUFFER + total, _SIZE - total)
            if total > _SIZE - 2 * _PIECE:
                full.append(_ffi.buffer(_BUFFER, total)[:])
                total = 0
        records = _ffi.buffer(_BUFFER, total)[:]
        if full:
            full.append(records)
            records = b"".join(full)
        # In one go: a producer that this pauses may write or close at once, which comes after all of it.
        self._write_below(records)

    def _fail(self) -> None:
        """OpenSSL can write no more on this connection."""
        _lib.ERR_clear_error()
        self.abortConnection()

    def _flush(self) -> None:
        """Hand what OpenSSL has to send to the transport below."""
        count = _lib.BIO_read(self._outgoing, _BUFFER, _SIZE)
        if count > 0:
            self._write_below(_ffi.buffer(_BUFFER, count)[:])

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        """Encrypt and send several pieces as one."""
        self.write(b"".join(pieces))

    def loseConnection(self) -> None:
        """Close once all is written; a producer may finish first."""
        if self._gone or self._closing:
            return
        self._closing = True
        # What was written before the handshake is still sent after it.
        if self._producer is None and (self._ready or not self._early):
            self._finish()

    def _hang_up(self) -> None:
        """The client has ended TLS: nobody is left whom a producer could write to."""
        producer, self._producer = self._producer, None
        self._finish()
        if producer is not None and not self._gone:
            transport: Any = self.transport
            transport.unregisterProducer()
            producer.stopProducing()

    def _finish(self) -> None:
        """Say goodbye (close_notify) and close. In the midst of a handshake there is nobody to say it to."""
        if self._left:
            return
        if not self._ready:
            self.abortConnection()
            return
        self._say_goodbye()
        self._leave()

    def _say_goodbye(self) -> None:
        self._shut = True
        _lib.SSL_shutdown(self._ssl)
        _lib.ERR_clear_error()
        self._flush()

    def _leave(self) -> None:
        self._closing = self._shut = self._left = True
        transport: Any = self.transport
        transport.loseConnection()

    def loseWriteConnection(self) -> None:
        """Say goodbye but go on reading, where the transport below can. A producer must have finished before."""
        half_close = getattr(self.transport, "loseWriteConnection", None)
        if self._shut or half_close is None:
            return
        if not self._ready:
            # What was written before the handshake is still sent after it.
            self._half_closing = True
            return
        self._say_goodbye()
        half_close()

    def abortConnection(self) -> None:
        """Close at once."""
        if not self._gone:
            self._closing = self._shut = self._left = True
            self._abort_below()

    @property
    def disconnecting(self) -> bool:
        """Whether the connection is being closed, as line-based protocols ask before they read on."""
        return self._closing

    def getPeerCertificate(self) -> Any:
        """The certificate that the client has shown, or None."""
        return None if self._gone else self._connection.get_peer_certificate()

    @property
    def tls_connection(self) -> SSL.Connection | None:
        """OpenSSL's state, once the handshake is complete and while the connection lasts."""
        return self._connection if self._ready else None

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """The protocol that ALPN has chosen (RFC 7301), once the handshake is complete."""
        if not self._ready or self._gone:
            return None
        return self._connection.get_alpn_proto_negotiated() or None

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
        if self._closing and (self._ready or not self._early):
            self._finish()

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()


def usable(contexts: Any) -> bool:
    """Whether pyOpenSSL, and the connections of these contexts, are as `TLSTransport` expects."""
    if _ffi is None or not all(hasattr(_lib, name) for name in CALLS):
        return False
    connection = contexts.serverConnectionForTLS(None)
    return all(getattr(connection, name, None) is not None for name in _OBJECTS)

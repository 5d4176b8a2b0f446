"""TLS between a client's transport and a channel: one OpenSSL connection over two memory BIOs.

`twisted.protocols.tls` takes 12 microseconds for a small request and its answer, of which OpenSSL needs three: the
rest is exceptions for "no more data", a fresh 64 KiB buffer for each read, and a timer for each write. Here
records are decrypted and encrypted through one buffer that all connections share, with OpenSSL's own calls (as
pyOpenSSL binds them) while data flows, and pyOpenSSL's for everything else. Nothing is held back: what is
written is encrypted and handed to the transport at once, so back-pressure is the transport's own.
"""

from __future__ import annotations

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

from ..reactor.direct_reads import deliver_directly
from ..reactor.turns import FULL_READ, end_turn
from ..tls_bio.records import BIO_READ, BIO_WRITE, BUFFER, SIZE, SMALL, SSL_READ, SSL_WRITE, WINDOW, RecordLayer, lib
from ..tls_bio.records import usable as records_usable
from ..wire.refusal_writer import RefusalWriter
from .client_hello import NamedConnection
from .handshake_failures import NOT_TLS, PLAIN_HTTP, HandshakeFailures
from .lean_connection import CALLS as HANDSHAKE_CALLS
from .lean_connection import selected_protocol, shake_hands
from .plain_http import PlainRequest, begins_plain

# What is called here beside what `tls_bio.records` calls.
CALLS: Final = (
    *HANDSHAKE_CALLS,
    "SSL_ERROR_ZERO_RETURN",
    "SSL_MODE_ENABLE_PARTIAL_WRITE",
    "SSL_clear_mode",
    "SSL_shutdown",
    "SSL_version",
)
_PARTIAL: Any = getattr(lib, "SSL_MODE_ENABLE_PARTIAL_WRITE", None)
_version: Any = getattr(lib, "SSL_version", None)
# How many records of one read are tracked: tracking the smallest ones would cost more than refusing them.
_FOLLOWED: Final = 256
# A record's header: with it OpenSSL can tell whether it is one.
_HEADER: Final = 5


@implementer(ISSLTransport, INegotiated, ISystemHandle, IPushProducer)
class TLSTransport(RecordLayer):
    """A protocol for the transport below, and a transport for the protocol above, which it owns.

    `failures` is notified of failed handshakes; None for no one.
    """

    def __init__(
        self, connection: SSL.Connection, inner: IProtocol, failures: HandshakeFailures | None = None
    ) -> None:
        super().__init__(connection)
        self._inner: Any = inner
        self._failures = failures
        connection.set_accept_state()
        self._hold(connection)
        # pyOpenSSL lets a write end with its first record, and a client may ask for records of 512 bytes (RFC 6066
        # section 4): here a write is accepted completely or not at all.
        lib.SSL_clear_mode(self._ssl, _PARTIAL)
        self._half_closing = False
        self._ready = False
        # Whether the session tickets of a new connection may go out with what is written next.
        self._tickets_wait = False
        # Bytes of the present record that are still missing; -1 if that is unknown.
        self._missing = 0
        self._early: list[bytes] = []
        # The first bytes, until it is clear that they begin TLS; and the request of a client that speaks plain HTTP.
        self._opening = b""
        self._plain: PlainRequest | None = None

    # -- below

    def connectionMade(self) -> None:
        """The client is connected; it begins the handshake."""
        deliver_directly(self.transport, self, self.dataReceived)
        self._inner.makeConnection(self)

    def dataReceived(self, data: bytes) -> None:
        """Records, in pieces of any size."""
        turns = self.turns
        # Two steps: the first runs for each record, and costs a third of the call.
        if self._left or self._rest or (turns is not None and turns.time() >= turns.ends and turns.over()):
            self._put_off(data)
            return
        size = len(data)
        length = size - _HEADER
        if self._missing == 0 and 0 < length < SMALL and length == (data[3] << 8 | data[4]) and self._ready:
            # A single record, as almost always: read with one call instead of three, and without OpenSSL's error
            # queue, which only says why there is nothing to read.
            BIO_WRITE(self._incoming, data, size)
            count = SSL_READ(self._ssl, BUFFER, SIZE)
            if count > 0:
                if not self._closing:
                    # Two steps, here and below: Python calls what it finds on an instance faster than by its name.
                    receive = self._inner.dataReceived
                    receive(WINDOW[:count])
                    if turns is not None and turns.early.sent >= turns.early.most:
                        turns.early.look()
                return
        else:
            self._follow(data)
            if size > SMALL:
                if size >= FULL_READ:
                    end_turn(self.transport)
                lib.ERR_clear_error()
                self._read_pieces(data, size)
                return
            BIO_WRITE(self._incoming, data, size)
        # Errors of other connections in OpenSSL's error queue would be taken for this connection's.
        lib.ERR_clear_error()
        if self._ready:
            self._read(0, True)
        elif self._shake_hands(data):
            self._read_first()

    def _read_first(self) -> None:
        """Read what has come with the end of the handshake, and send the session tickets.

        They carry the acknowledgement for which a client with Nagle's algorithm delays its request, so they never
        wait for a request. But if a whole one has come already, they go out with its response; and if that takes
        longer, from the site's sweep.
        """
        self._tickets_wait = _version(self._ssl) == SSL.TLS1_3_VERSION
        if not self._tickets_wait:
            self._flush()
        self._read(0, True)
        self._tickets_wait = False
        if not self._left and not self._inner_answers():
            self._flush()

    def _inner_answers(self) -> bool:
        answers = getattr(self._inner, "answers_soon", None)
        return answers is not None and bool(answers())

    def _reply(self) -> None:
        if not self._tickets_wait:
            super()._reply()

    def _read_rest(self, rest: bytes, size: int) -> None:
        if self._ready or size > SMALL:
            self._read_pieces(rest, size)
            return
        BIO_WRITE(self._incoming, rest, size)
        if self._shake_hands(rest):
            self._read_first()

    def _put_off(self, data: bytes) -> None:
        """Keep the data for a later turn."""
        if self._left:
            return
        self._follow(data)
        first, self._rest = not self._rest, self._rest + data
        if first and not self._stopped:
            self._pause_below()
            self._wait_for_turn(len(data))

    def _wait_for_turn(self, size: int) -> None:
        turns = self.turns
        if turns is None or self._turn_asked:
            return
        self._turn_asked = True
        if self._ready:
            turns.arrived(size, self.address, self._next_turn)
        else:
            turns.greeted(self.address, self._next_turn)

    def _able_to_read(self, data: bytes) -> bool:
        if not self._ready:
            if not self._shake_hands(data):
                return False
            self._flush()
        return True

    def _follow(self, data: bytes) -> None:
        """Track the records (RFC 8446 section 5.1), so that the beginning of one is known when it arrives."""
        size = len(data)
        position = self._missing
        if position < 0 or position > size:
            self._missing = -1 if position < 0 else position - size
            return
        followed = 0
        while position + _HEADER <= size and followed < _FOLLOWED:
            position += _HEADER + (data[position + 3] << 8 | data[position + 4])
            followed += 1
        # A header in two pieces is not tracked; then each read is repeated until there is no more data.
        self._missing = position - size if position >= size else -1

    def _deliver(self, plain: bytes) -> None:
        if not self._closing:
            self._inner.dataReceived(plain)

    def _shake_hands(self, data: bytes) -> bool:
        """Continue the handshake; True once it is complete, and then there may be something to flush."""
        if self._plain is not None:
            self._read_plain(data)
            return False
        connection = self._connection
        if isinstance(connection, NamedConnection):
            connection.look()
        try:
            complete = shake_hands(connection)
        except SSL.Error as error:
            lib.ERR_clear_error()
            self._early.clear()
            self._refuse(self._opening + data, error)
            return False
        if not complete:
            # Less than a record's header: it may still not be TLS.
            if len(self._opening) < _HEADER:
                self._opening += data[:_HEADER]
            self._flush()
            return False
        self._ready = True
        self._opening = b""
        if type(self._connection) is NamedConnection and self._connection.answered:
            # An ACME authority has seen what it wanted, and no request may follow (RFC 8737 section 3).
            self._early.clear()
            self._finish()
            return False
        if self._failures is not None:
            self._failures.completed.add(connection)
            self._failures.young.add(self)
        early, self._early = self._early, []
        if IHandshakeListener.providedBy(self._inner):
            self._inner.handshakeCompleted()
        if early:
            self.write(b"".join(early))
        if self._closing and self._producer is None:
            self._finish()
        elif self._half_closing:
            self.loseWriteConnection()
        lib.ERR_clear_error()
        return not self._left

    def _refuse(self, opening: bytes, error: SSL.Error) -> None:
        """The client has no common TLS version: refuse it, with a plain HTTP response if it speaks plain HTTP."""
        if begins_plain(opening):
            self._plain = PlainRequest(RefusalWriter() if self._failures is None else self._failures.refusals())
            self._read_plain(opening)
            return
        alert = self._pending()
        if self._failures is not None and self._failures.failed(
            error, self._connection, opening, alert, self.getPeer()
        ):
            alert = b""
        if alert:
            self._write_below(alert)
        self._leave()

    def _read_plain(self, data: bytes) -> None:
        answer = None if self._plain is None else self._plain.feed(data)
        if answer is None:
            return
        if self._note_plain(PLAIN_HTTP if answer else NOT_TLS):
            answer = b""
        if answer:
            self._write_below(answer)
        self._leave()

    def _give_up(self) -> None:
        """The time for the handshake is over: an idle or slow client does not count as a failure, one without TLS
        does."""
        answer = b""
        if self._plain is not None:
            answer = self._plain.late()
            if self._note_plain(PLAIN_HTTP if answer else NOT_TLS):
                answer = b""
        if answer:
            self._write_below(answer)
            self._leave()
        else:
            self.abortConnection()

    def _note_plain(self, reason: str) -> bool:
        return self._failures is not None and self._failures.note(reason, self.getPeer())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport below is gone."""
        self._closing = self._shut = self._left = self._gone = True
        inner, self._inner = self._inner, None
        self._let_go()
        self._connection = self._producer = self._plain = None
        self._early.clear()
        if inner is not None:
            inner.connectionLost(reason)

    # -- above: ITransport

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        if self._shut or not data:
            return
        size = len(data)
        if size > SMALL or not self._ready:
            self._write_otherwise(data, size)
        elif SSL_WRITE(self._ssl, data, size) == size:
            count = BIO_READ(self._outgoing, BUFFER, SIZE)
            if count > 0:
                transport: Any = self.transport
                write_below = transport.write
                write_below(WINDOW[:count])
        else:
            self._fail()

    def write_last(self, data: bytes) -> None:
        """Encrypt, and send it with the close_notify: the caller closes the connection next."""
        if self._shut or not self._ready or not 0 < len(data) <= SMALL:
            self.write(data)
        elif SSL_WRITE(self._ssl, data, len(data)) != len(data):
            self._fail()

    def flush(self) -> None:
        """Send what has been kept for the next write, if anything."""
        if self._ready and not self._left:
            self._flush()

    def _write_otherwise(self, data: bytes, size: int) -> None:
        if self._ready:
            self._encrypt(data, size)
        elif not self._half_closing and (not self._closing or self._producer is not None):
            self._early.append(data)

    def _may_finish(self) -> bool:
        # What was written before the handshake is still sent after it.
        return self._ready or not self._early

    def _over(self, fault: str) -> None:
        """The client has ended TLS: a producer has no receiver any more."""
        producer, self._producer = self._producer, None
        self._finish()
        if producer is not None and not self._gone:
            transport: Any = self.transport
            transport.unregisterProducer()
            producer.stopProducing()

    def _finish(self) -> None:
        """Send close_notify and close. During a handshake there is nothing to send."""
        if self._left:
            return
        if not self._ready:
            self._give_up()
            return
        self._say_goodbye()
        self._leave()

    def _say_goodbye(self) -> None:
        self._shut = True
        lib.SSL_shutdown(self._ssl)
        lib.ERR_clear_error()
        self._flush()

    def loseWriteConnection(self) -> None:
        """Send close_notify but go on reading, if the transport below supports that. A producer must have finished
        before."""
        half_close = getattr(self.transport, "loseWriteConnection", None)
        if self._shut or half_close is None:
            self.flush()
            return
        if not self._ready:
            # What was written before the handshake is still sent after it.
            self._half_closing = True
            return
        self._say_goodbye()
        half_close()

    @property
    def tls_connection(self) -> SSL.Connection | None:
        """OpenSSL's state, once the handshake is complete and while the connection lasts."""
        return self._connection if self._ready else None

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """The protocol that ALPN has chosen (RFC 7301), once the handshake is complete."""
        if not self._ready or self._gone:
            return None
        return selected_protocol(self._connection) or None


def usable(contexts: Any) -> bool:
    """Whether pyOpenSSL, and the connections of these contexts, are as `TLSTransport` expects."""
    return records_usable(contexts.serverConnectionForTLS(None), CALLS)

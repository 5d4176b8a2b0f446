"""TLS between a transport and a connection to a service: records both ways, and an end that cannot be forged.

The protocol above is made when the handshake is complete and the certificate is verified, so that nothing is ever
sent to another peer. It hears of the end at once: with ConnectionDone only if the service has sent close_notify.
Anybody in between can close a connection, and could otherwise truncate a response that ends with it (RFC 8446 section
6.1).

`SecureTransport` uses what pyOpenSSL promises; `openssl_transport.OpenSSLTransport` does the same with less work.
"""

from __future__ import annotations

import socket
from typing import Any, Final
from typing import Protocol as TypingProtocol

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import INegotiated, IProtocol, IPushProducer, ISSLTransport, ISystemHandle
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..reactor.bytes_before_reset import deliver_bytes_before_reset
from ..tls_bio.layer import TlsLayer
from ..tls_bio.records import PIECE, SIZE
from .tls_alerts import GOODBYE, handshake_fault, openssl_says, record_fault
from .tls_sessions import CachedSession, SessionCache

# One read when the pool asks whether a connection is still good; a ticket has some hundred bytes.
_PEEK: Final = 1 << 16
_DONE: Final = Failure(ConnectionDone())


class UncleanCloseError(ConnectionLost):
    """The connection has ended without close_notify; the text says how, in one line."""

    def __str__(self) -> str:
        return str(self.args[0])


class HandshakeListener(TypingProtocol):
    """Waits for the handshake. One of these is called, once."""

    def opened(self, transport: SecureTransport) -> None:
        """The service has proven who it is. Answers with `attach` or `abortConnection`."""

    def refused(self, fault: str, untrusted: bool) -> None:
        """The handshake has failed; `fault` says why in one line. `untrusted`: the service has not proven who it
        is."""


@implementer(ISSLTransport, INegotiated, ISystemHandle, IPushProducer)
class SecureTransport(TlsLayer):
    """A protocol to the transport below, a transport to the protocol above, which it owns.

    `verified` is when (monotonic seconds) the service's certificate was verified: in the handshake, or in the one
    whose session this one resumes. The first response's session goes to `sessions`: by then every ticket that a
    service sends unasked is here, in TLS 1.3 as well. It is not used where this connection ends by a failure of TLS,
    or is cut while the protocol above is not `idle` (where it says so).
    """

    def __init__(
        self, connection: SSL.Connection, opening: HandshakeListener, sessions: SessionCache, verified: float
    ) -> None:
        super().__init__(connection)
        connection.set_connect_state()
        self._opening: HandshakeListener | None = opening
        self._sessions: SessionCache | None = sessions
        self._store = sessions
        self._kept: CachedSession | None = None
        self._failed = False
        # Of the handshake, what has come when the turn was over.
        self._late = b""
        self._verified = verified
        self._inner: Any = None

    # -- the handshake

    def shake_hands(self) -> None:
        """Begin the handshake: the gateway sends its ClientHello."""
        self._advance(b"")

    def attach(self, inner: IProtocol) -> None:
        """Connect the protocol above."""
        self._inner = inner
        inner.makeConnection(self)

    def _advance(self, data: bytes) -> bool:
        """Go on with the handshake; true once it is complete."""
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._flush()
            return False
        except SSL.Error as error:
            fault = self._connection.get_app_data().fault
            self._refuse(fault or handshake_fault(data, error), bool(fault))
            return False
        if not self._connection.get_app_data().proven:
            self._refuse("it sent no certificate", True)
            return False
        spoken = self._connection.get_alpn_proto_negotiated()
        if spoken not in (b"", b"http/1.1"):
            self._refuse(f"it chose the protocol {spoken!r}, which was not offered", False)
            return False
        opening, self._opening = self._opening, None
        if opening is not None:
            # What is written now leaves together with the end of the handshake.
            opening.opened(self)
        if self._left:
            return False
        self._flush()
        return True

    def _refuse(self, fault: str, untrusted: bool) -> None:
        """The handshake has failed: send the alert that OpenSSL has for it, if any."""
        opening, self._opening = self._opening, None
        self._failed = True
        self._flush()
        self._leave()
        if opening is not None:
            opening.refused(fault, untrusted)

    # -- below

    def connectionMade(self) -> None:
        """Connected; `shake_hands` begins."""
        deliver_bytes_before_reset(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Records, in pieces of any size."""
        if self._left:
            return
        if self._opening is None:
            self._decrypt(data)
            return
        turns = self.turns
        if self._late or (turns is not None and turns.time() >= turns.ends and turns.over()):
            self._put_off(data)
        else:
            self._shake_hands_on(data)

    def _shake_hands_on(self, data: bytes) -> None:
        self._connection.bio_write(data)
        if self._advance(data):
            self._decrypt(b"")

    def _put_off(self, data: bytes) -> None:
        """The turn is over: the handshake goes on in a later one."""
        first, self._late = not self._late, self._late + data
        if first and self.turns is not None:
            transport: Any = self.transport
            transport.pauseProducing()
            self.turns.greeted(self.address, self._next_greeting)

    def _next_greeting(self) -> None:
        if self._late and not self._left:
            # Before the protocol above may pause.
            transport: Any = self.transport
            transport.resumeProducing()
            self._read_late()

    def _read_late(self) -> None:
        data, self._late = self._late, b""
        if data and not self._left:
            self._shake_hands_on(data)

    def _decrypt(self, data: bytes) -> None:
        connection = self._connection
        if data:
            connection.bio_write(data)
        parts: list[bytes] = []
        end = None
        try:
            while True:
                parts.append(connection.recv(SIZE))
        except SSL.WantReadError:
            self._answer(self._pending())
        except SSL.ZeroReturnError:
            end = GOODBYE
        except SSL.Error as error:
            end = record_fault(openssl_says(error))
        self._deliver(b"".join(parts))
        if end is not None:
            self._over(end)

    def _deliver(self, plain: bytes) -> None:
        """Hand plaintext to the protocol above."""
        if plain and not self._closing and self._inner is not None:
            if self._sessions is not None:
                self._keep_session()
            self._inner.dataReceived(plain)

    def _keep_session(self) -> None:
        sessions, self._sessions = self._sessions, None
        session = self._connection.get_session()
        if session is not None and sessions is not None:
            self._kept = sessions.keep(session, self._verified)

    def _over(self, fault: str) -> None:
        """The service has ended TLS: by close_notify (GOODBYE), or by invalid records."""
        if self._left:
            return
        self._failed = fault != GOODBYE
        uploading, self._producer = self._producer, None
        if uploading is not None:
            transport: Any = self.transport
            transport.unregisterProducer()
        if fault == GOODBYE and uploading is None:
            self._say_goodbye()
            self._leave()
        else:
            # What is still on its way to the service will never be taken.
            self.abortConnection()
        # Now, not when the transport below has closed: until then the pool would take this connection to be idle.
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.connectionLost(_DONE if fault == GOODBYE else Failure(UncleanCloseError(fault)))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport below is gone."""
        self._read_late()
        ended_here = self._closing
        self._closing = self._shut = self._left = self._gone = True
        inner, self._inner = self._inner, None
        opening, self._opening = self._opening, None
        if opening is None:
            cut = not ended_here and not getattr(inner, "idle", False)
            self._settle_session(usable=not self._failed and not cut)
        self._connection = self._producer = self._sessions = None
        if opening is not None:
            opening.refused("it closed the connection within the TLS handshake", False)
        if inner is None:
            return
        if not ended_here and reason.check(ConnectionDone):
            reason = Failure(UncleanCloseError("the connection was cut: TLS was not closed (no close_notify)"))
        inner.connectionLost(reason)

    def _settle_session(self, *, usable: bool) -> None:
        if usable:
            # OpenSSL never resumes the session of a connection that it frees before close_notify.
            self._connection.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)
        elif self._kept is not None:
            self._store.forget(self._kept)

    def settle(self) -> bool:
        """Read what waits in the kernel, as the reactor is about to do. Returns whether the connection goes on: only
        the bytes show whether an idle one has got a ticket (RFC 8446 section 4.6.1) or its end."""
        handle = self.getHandle()
        while not self._left:
            try:
                data = handle.recv(_PEEK, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self.dataReceived(data)
        return False

    # -- above: ITransport

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        if self._shut or not data:
            return
        connection = self._connection
        records: list[bytes] = []
        view = memoryview(data)
        try:
            while view:
                # As much as OpenSSL takes of it: a record.
                view = view[connection.send(view[:PIECE]) :]
                records.append(self._pending())
        except SSL.Error:
            self._failed = True
            self.abortConnection()
            return
        # In one go: a producer that this pauses may write or close at once, which comes after all of it.
        self._write_below(b"".join(records))

    def _pending(self) -> bytes:
        """What OpenSSL has to send."""
        try:
            records: bytes = self._connection.bio_read(SIZE)
        except SSL.WantReadError:
            return b""
        return records

    def _flush(self) -> None:
        """Hand what OpenSSL has to send to the transport below."""
        records = self._pending()
        if records:
            self._write_below(records)

    def _finish(self) -> None:
        if self._opening is not None:
            self.abortConnection()
        elif not self._left:
            self._say_goodbye()
            self._leave()

    def _say_goodbye(self) -> None:
        if not self._shut:
            self._shut = True
            try:
                self._connection.shutdown()
            except SSL.Error:
                return
            self._flush()

    def loseWriteConnection(self) -> None:
        """Send close_notify but go on reading. A producer must have finished before."""
        if self._opening is None and not self._left:
            self._say_goodbye()

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """The protocol that ALPN has chosen (RFC 7301), None for none."""
        return None if self._gone else self._connection.get_alpn_proto_negotiated() or None

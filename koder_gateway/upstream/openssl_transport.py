"""TLS towards services with OpenSSL's own calls while data flows; where pyOpenSSL lacks them, `SecureTransport` does
without."""

from __future__ import annotations

from typing import Final

from OpenSSL import SSL
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from ..reactor.turns import FULL_READ, end_turn
from ..tls_bio.records import BIO_WRITE, SMALL, RecordLayer, ffi, lib, usable
from .tls_alerts import GOODBYE, record_fault
from .tls_sessions import SessionCache
from .tls_transport import HandshakeListener, SecureTransport

# What is called here beside what `tls_bio.records` calls.
CALLS: Final = ("ERR_get_error", "ERR_reason_error_string", "SSL_ERROR_ZERO_RETURN")


class OpenSSLTransport(RecordLayer, SecureTransport):
    """The same with OpenSSL's own calls while data flows."""

    def __init__(
        self, connection: SSL.Connection, opening: HandshakeListener, sessions: SessionCache, verified: float
    ) -> None:
        super().__init__(connection, opening, sessions, verified)
        self._hold(connection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport below is gone. What came before that is still the service's response."""
        self._read_late()
        rest, self._rest = self._rest, b""
        if rest and not self._left:
            self.turns = None
            self._read_pieces(rest, len(rest))
        self._let_go()
        super().connectionLost(reason)

    def _decrypt(self, data: bytes) -> None:
        if self._rest:
            self._rest += data
            return
        # Errors of other connections in OpenSSL's queue would be taken for this one's.
        lib.ERR_clear_error()
        size = len(data)
        if size <= SMALL:
            if size:
                BIO_WRITE(self._incoming, data, size)
            self._read(0, True)
            return
        if size >= FULL_READ:
            end_turn(self.transport)
        self._read_pieces(data, size)

    def _shake_hands_on(self, data: bytes) -> None:
        super()._shake_hands_on(data)
        if self._opening is None:
            # The certificate has come through the memory BIOs, which would keep its room while the connection lasts.
            self.give_back()

    _deliver = SecureTransport._deliver
    _over = SecureTransport._over

    def _end(self, error: int) -> str:
        """What has ended TLS, by OpenSSL's queue of errors, which is empty after that."""
        code = lib.ERR_get_error()
        text = lib.ERR_reason_error_string(code) if code else ffi.NULL
        lib.ERR_clear_error()
        if error == lib.SSL_ERROR_ZERO_RETURN:
            return GOODBYE
        return record_fault(ffi.string(text).decode("ascii", "replace") if text else "")

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        if data and not self._shut:
            self._encrypt(data, len(data))

    def _fail(self) -> None:
        self._failed = True
        super()._fail()


def transport_class(connection: SSL.Connection) -> type[SecureTransport]:
    """The class for connections like this one."""
    return OpenSSLTransport if usable(connection, CALLS) else SecureTransport

"""TLS towards services with OpenSSL's own calls while data flows.

As pyOpenSSL binds them, and through one buffer that all connections share: neither an exception for "no more data"
nor a new buffer for each read. pyOpenSSL promises none of these names, so `transport_class` looks whether they are
there, and else takes `SecureTransport`, which needs none of them.
"""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from .alerts import GOODBYE, record_fault
from .secure import PIECE, SIZE, Opening, SecureTransport
from .sessions import Sessions

_lib: Any = getattr(SSL, "_lib", None)
_ffi: Any = getattr(SSL, "_ffi", None)
CALLS: Final = (
    "BIO_read",
    "BIO_write",
    "ERR_clear_error",
    "ERR_get_error",
    "ERR_reason_error_string",
    "SSL_ERROR_WANT_READ",
    "SSL_ERROR_ZERO_RETURN",
    "SSL_get_error",
    "SSL_read",
    "SSL_write",
)
_OBJECTS: Final = ("_ssl", "_into_ssl", "_from_ssl")
_BUFFER: Any = None if _ffi is None else _ffi.new("char[]", SIZE)
_WANT_READ: Any = getattr(_lib, "SSL_ERROR_WANT_READ", None)


class FastTransport(SecureTransport):
    """The same with OpenSSL's own calls while data flows."""

    def __init__(self, connection: SSL.Connection, opening: Opening, sessions: Sessions, verified: float) -> None:
        super().__init__(connection, opening, sessions, verified)
        # OpenSSL's own objects, which live as long as `connection` does.
        private: Any = connection
        self._ssl = private._ssl
        self._incoming = private._into_ssl
        self._outgoing = private._from_ssl

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport below is gone."""
        # Raw pointers end with the connection that owns them: nobody may find them after it.
        self._incoming = self._outgoing = self._ssl = None
        super().connectionLost(reason)

    def _decrypt(self, data: bytes) -> None:
        # What others have left in OpenSSL's queue of errors would be taken for this connection's.
        _lib.ERR_clear_error()
        size = len(data)
        if size <= PIECE:
            if size:
                _lib.BIO_write(self._incoming, data, size)
            self._read(0, True)
            return
        source = _ffi.from_buffer(data)
        total = 0
        for position in range(0, size, PIECE):
            length = min(PIECE, size - position)
            _lib.BIO_write(self._incoming, source + position, length)
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
            count = _lib.SSL_read(ssl, _BUFFER + total, SIZE - total)
            if count <= 0:
                break
            total += count
            if total == SIZE:
                self._deliver(_ffi.buffer(_BUFFER, total)[:])
                if self._left:
                    return 0
                total = 0
                _lib.ERR_clear_error()
        error = _lib.SSL_get_error(ssl, count)
        end = None if error == _WANT_READ else self._end(error)
        if end is None and not last:
            return total
        plain = _ffi.buffer(_BUFFER, total)[:] if total else b""
        if end is None:
            self._answer(self._pending())
        self._deliver(plain)
        if end is not None:
            self._over(end)
        return 0

    def _end(self, error: int) -> str:
        """What has ended TLS, by OpenSSL's queue of errors, which is empty after that."""
        code = _lib.ERR_get_error()
        text = _lib.ERR_reason_error_string(code) if code else _ffi.NULL
        _lib.ERR_clear_error()
        if error == _lib.SSL_ERROR_ZERO_RETURN:
            return GOODBYE
        return record_fault(_ffi.string(text).decode("ascii", "replace") if text else "")

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        size = len(data)
        if self._shut or not size:
            return
        if size > PIECE:
            self._write_pieces(data, size)
        elif _lib.SSL_write(self._ssl, data, size) == size:
            self._write_below(self._pending())
        else:
            self._fail()

    def _write_pieces(self, data: bytes, size: int) -> None:
        source = _ffi.from_buffer(data)
        ssl, outgoing = self._ssl, self._outgoing
        total = 0
        full: list[bytes] = []
        for position in range(0, size, PIECE):
            length = min(PIECE, size - position)
            if _lib.SSL_write(ssl, source + position, length) != length:
                self._fail()
                return
            total += _lib.BIO_read(outgoing, _BUFFER + total, SIZE - total)
            if total > SIZE - 2 * PIECE:
                full.append(_ffi.buffer(_BUFFER, total)[:])
                total = 0
        full.append(_ffi.buffer(_BUFFER, total)[:])
        # In one go: a producer that this pauses may write or close at once, which comes after all of it.
        self._write_below(full[0] if len(full) == 1 else b"".join(full))

    def _fail(self) -> None:
        """OpenSSL can write no more on this connection."""
        _lib.ERR_clear_error()
        self.abortConnection()

    def _pending(self) -> bytes:
        count = _lib.BIO_read(self._outgoing, _BUFFER, SIZE)
        return _ffi.buffer(_BUFFER, count)[:] if count > 0 else b""


def transport_class(connection: SSL.Connection) -> type[SecureTransport]:
    """The class for connections like this one."""
    usable = _ffi is not None and all(hasattr(_lib, name) for name in CALLS)
    if usable and all(getattr(connection, name, None) is not None for name in _OBJECTS):
        return FastTransport
    return SecureTransport

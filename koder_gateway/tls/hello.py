"""What is decided about a client's hello: OpenSSL's own callback for the server name, which can send an alert.

pyOpenSSL's callback can only raise, which prints a traceback and is not told which alert to send. pyOpenSSL
promises none of the names used here: without them its own callback serves, and every name is accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from OpenSSL import SSL
from twisted.logger import Logger

_log = Logger()

# Alerts (RFC 8446 section 6).
ACCESS_DENIED: Final = 49
INTERNAL_ERROR: Final = 80
UNRECOGNIZED_NAME: Final = 112

_lib: Any = getattr(SSL, "_lib", None)
_ffi: Any = getattr(SSL, "_ffi", None)
_connections: Any = getattr(SSL.Connection, "_reverse_mapping", None)
_NEEDED: Final = (
    "SSL_CTX_set_tlsext_servername_callback",
    "SSL_TLSEXT_ERR_ALERT_FATAL",
    "SSL_TLSEXT_ERR_OK",
    "SSL_get_session",
    "SSL_session_reused",
    "i2d_SSL_SESSION",
)
# The field of a session, as OpenSSL writes it in ASN.1, that has the name it was begun under.
_HOST_NAME: Final = 0xA6
# What an honest session needs is far below; a client cannot make one larger than its own certificates.
_LARGEST_SESSION: Final = 1 << 17


def callback(choose: Callable[[SSL.Connection], int]) -> Any:
    """A callback for `attach`. `choose` gets the connection and returns the alert to end it with, or 0.

    None where pyOpenSSL is not as it is expected.
    """
    if _connections is None or _ffi is None or not all(hasattr(_lib, name) for name in _NEEDED):
        return None

    def called(ssl: Any, alert: Any, argument: Any) -> Any:
        try:
            code = choose(_connections[ssl])
        except Exception:
            _log.failure("the certificate for a client could not be chosen")
            code = INTERNAL_ERROR
        if code:
            alert[0] = code
            return _lib.SSL_TLSEXT_ERR_ALERT_FATAL
        return _lib.SSL_TLSEXT_ERR_OK

    return _ffi.callback("int (*)(SSL *, int *, void *)", called)


def attach(context: SSL.Context, made: Any, otherwise: Callable[[SSL.Connection], None]) -> None:
    """Have OpenSSL ask the callback `made` in the handshakes that begin on a context; `otherwise` is pyOpenSSL's."""
    if made is None:
        context.set_tlsext_servername_callback(otherwise)
        return
    private: Any = context
    # OpenSSL knows only its address: it has to live as long as the context, where pyOpenSSL keeps its own.
    private._tlsext_servername_callback = made
    _lib.SSL_CTX_set_tlsext_servername_callback(private._context, made)


def resumed(connection: SSL.Connection) -> bool:
    """Whether the client goes on with a session of an earlier connection."""
    private: Any = connection
    return bool(_lib.SSL_session_reused(private._ssl))


def session_name(connection: SSL.Connection) -> bytes | None:
    """The server name that the connection's session was begun under; None when there was none."""
    private: Any = connection
    session = _lib.SSL_get_session(private._ssl)
    size = _lib.i2d_SSL_SESSION(session, _ffi.NULL)
    if not 0 < size <= _LARGEST_SESSION:
        return None
    memory = _ffi.new("unsigned char[]", size)
    _lib.i2d_SSL_SESSION(session, _ffi.new("unsigned char **", memory))
    return _host_name(_ffi.buffer(memory, size)[:])


def _host_name(der: bytes) -> bytes | None:
    """The host name of a session in DER: a SEQUENCE of fields, of which it is an OCTET STRING under a tag."""
    position, end = _content(der, 0)
    while position < end:
        tag = der[position]
        start, position = _content(der, position)
        if tag == _HOST_NAME:
            start, position = _content(der, start)
            return der[start:position]
    return None


def _content(der: bytes, position: int) -> tuple[int, int]:
    """Where the content of the element at a position begins and ends (X.690 section 8.1)."""
    length = der[position + 1]
    position += 2
    if length & 0x80:
        digits = length & 0x7F
        length = int.from_bytes(der[position : position + digits], "big")
        position += digits
    return position, position + length

"""What is decided about a client's hello: OpenSSL's own callback for the server name, which can send an alert.

pyOpenSSL's callback can only raise, which prints a traceback and is not told which alert to send. pyOpenSSL
promises none of the names used here. Without them no context is made: sessions would be resumed under other names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from OpenSSL import SSL
from twisted.logger import Logger

from . import client_hello
from .certificates import CertificateError

_log = Logger()

# Alerts (RFC 8446 section 6).
ILLEGAL_PARAMETER: Final = 47
ACCESS_DENIED: Final = 49
INTERNAL_ERROR: Final = 80
UNRECOGNIZED_NAME: Final = 112

_lib: Any = getattr(SSL, "_lib", None)
_ffi: Any = getattr(SSL, "_ffi", None)
_connections: Any = getattr(SSL.Connection, "_reverse_mapping", None)
CALLS: Final = (
    "SSL_CTX_set_tlsext_servername_callback",
    "SSL_TLSEXT_ERR_ALERT_FATAL",
    "SSL_TLSEXT_ERR_OK",
    "SSL_session_reused",
    *client_hello.CALLS,
)


def usable() -> bool:
    """Whether pyOpenSSL is as it is expected."""
    return _connections is not None and _ffi is not None and all(hasattr(_lib, name) for name in CALLS)


def callback(choose: Callable[[SSL.Connection], int]) -> Any:
    """A callback for `attach`. `choose` gets the connection and returns the alert to end it with, or 0.

    Raises CertificateError where pyOpenSSL is not as it is expected.
    """
    if not usable():
        raise CertificateError(
            "the installed pyOpenSSL cannot tell which name a client asks for before its session is resumed;"
            " install the version that the gateway asks for"
        )

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


def attach(context: SSL.Context, made: Any) -> None:
    """Have OpenSSL ask the callback `made` in the handshakes that begin on a context."""
    private: Any = context
    # OpenSSL knows only its address: it has to live as long as the context, where pyOpenSSL keeps its own.
    private._tlsext_servername_callback = made
    _lib.SSL_CTX_set_tlsext_servername_callback(private._context, made)


def resumed(connection: SSL.Connection) -> bool:
    """Whether the client goes on with a session of an earlier connection."""
    private: Any = connection
    return bool(_lib.SSL_session_reused(private._ssl))

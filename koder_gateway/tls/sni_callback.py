"""What is decided about a client's hello: OpenSSL's own callback for the server name, which can send an alert.

pyOpenSSL's callback can only raise, which prints a traceback and is not told which alert to send. pyOpenSSL
promises none of the names used here: without them its own callback serves, and every name is accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from OpenSSL import SSL
from twisted.logger import Logger

from . import client_hello

_log = Logger()

# Alerts (RFC 8446 section 6).
ILLEGAL_PARAMETER: Final = 47
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
    "SSL_session_reused",
    *client_hello.CALLS,
)


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

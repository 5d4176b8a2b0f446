"""A server's connection without what pyOpenSSL does for each one beside OpenSSL's own work.

pyOpenSSL's constructor takes twice as long as OpenSSL's, and a handshake that waits for more data costs an exception.
Both are left out here: by assigning pyOpenSSL's own attributes, and by calling OpenSSL as pyOpenSSL binds it. So this
depends on a version: `lean` says whether it is a known one. With another one connections are made by pyOpenSSL.
"""

from __future__ import annotations

from typing import Any, Final

import OpenSSL
from OpenSSL import SSL

from ..tls_bio.records import ffi, lib

# pyOpenSSL's.
VERSION: Final = OpenSSL.__version__
# The newest pyOpenSSL whose connections are known to have the attributes that are assigned here, and no others.
NEWEST: Final = (26, 4)
# OpenSSL's functions that are called here, and in the handshakes of a `TLSTransport`.
CALLS: Final = (
    "BIO_new",
    "BIO_s_mem",
    "SSL_do_handshake",
    "SSL_free",
    "SSL_get0_alpn_selected",
    "SSL_get_error",
    "SSL_new",
    "SSL_set_bio",
)
_PRIVATE: Final = ("_raise_ssl_error", "_reverse_mapping")
# All that pyOpenSSL's constructor sets. Those of a callback for certificates or cookies are None where a context has
# no such callback.
_ATTRIBUTES: Final = frozenset(
    (
        "_alpn_select_callback_args",
        "_app_data",
        "_context",
        "_cookie_generate_helper",
        "_cookie_verify_helper",
        "_from_ssl",
        "_into_ssl",
        "_socket",
        "_ssl",
        "_verify_callback",
        "_verify_helper",
    )
)


def lean(version: str = VERSION) -> bool:
    """Whether pyOpenSSL, in this version of it, is as it is expected here."""
    try:
        number = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        return False
    if number > NEWEST or ffi is None or not all(hasattr(lib, name) for name in CALLS):
        return False
    if not all(hasattr(SSL.Connection, name) for name in _PRIVATE):
        return False
    return vars(SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)).keys() == _ATTRIBUTES


LEAN: Final = lean()
_DO_HANDSHAKE: Any = getattr(lib, "SSL_do_handshake", None)
_GET_ERROR: Any = getattr(lib, "SSL_get_error", None)
_WANT_READ: Any = getattr(lib, "SSL_ERROR_WANT_READ", None)
_memory: Any = getattr(lib, "BIO_s_mem", None)
_new: Any = getattr(lib, "SSL_new", None)
_free: Any = getattr(lib, "SSL_free", None)
_connections: Any = getattr(SSL.Connection, "_reverse_mapping", None)
# Where OpenSSL puts the protocol that ALPN has chosen, and its length; read at once.
_selected: Any = None if ffi is None else ffi.new("unsigned char **")
_length: Any = None if ffi is None else ffi.new("unsigned int *")


class LeanConnection(SSL.Connection):
    """A connection over memory BIOs, of a context without callbacks for certificates and cookies."""

    _alpn_select_callback_args = _app_data = _socket = None
    _verify_helper = _verify_callback = _cookie_generate_helper = _cookie_verify_helper = None

    def __init__(self, context: SSL.Context) -> None:
        if not LEAN:
            super().__init__(context, None)
            return
        of: Any = context
        of._used = True
        self._context = context
        self._ssl = ssl = ffi.gc(_new(of._context), _free)
        # OpenSSL's callbacks find it there.
        _connections[ssl] = self
        # Both end with `ssl`.
        self._into_ssl = into = lib.BIO_new(_memory())
        self._from_ssl = out = lib.BIO_new(_memory())
        lib.SSL_set_bio(ssl, into, out)


def shake_hands(connection: SSL.Connection) -> bool:
    """Go on with the handshake; False where it waits for more data. Raises SSL.Error if it has failed."""
    private: Any = connection
    ssl = private._ssl
    result = _DO_HANDSHAKE(ssl)
    if result > 0:
        return True
    if _GET_ERROR(ssl, result) != _WANT_READ:
        private._raise_ssl_error(ssl, result)
    return False


def selected_protocol(connection: SSL.Connection) -> bytes:
    """The protocol that ALPN (RFC 7301) has chosen in the handshake; b"" for none."""
    private: Any = connection
    lib.SSL_get0_alpn_selected(private._ssl, _selected, _length)
    size = _length[0]
    return ffi.buffer(_selected[0], size)[:] if size else b""

"""Handshakes that fail: what is told of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from OpenSSL import SSL
from twisted.logger import Logger

_log = Logger()

# OpenSSL's reasons that are the fault of the client's certificate.
_REASONS: Final = frozenset(
    (
        "peer did not return a certificate",
        "certificate verify failed",
        "no certificate returned",
        "certificate required",
    )
)


class RefusalLog:
    """One line for a client whose certificate was refused, at most one in `interval` seconds."""

    def __init__(self, interval: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._next = 0.0
        self._untold = 0

    def note(self, error: SSL.Error, connection: SSL.Connection, peer: object) -> None:
        """A handshake has failed with this error. Says nothing when it was not about a client's certificate."""
        reason = _reason(error)
        if reason is None:
            return
        now = self._clock()
        if now < self._next:
            self._untold += 1
            return
        self._next = now + self._interval
        untold, self._untold = self._untold, 0
        _log.warn(
            "client certificate refused: {reason}; {peer} asked for {name}{more}",
            reason=_detail(connection) or reason,
            peer=getattr(peer, "host", None) or "somebody",
            name=_shown(connection.get_servername()),
            more=f" ({untold} more since the last line)" if untold else "",
        )


refusals = RefusalLog()


def _reason(error: SSL.Error) -> str | None:
    stack = error.args[0] if error.args else None
    if not isinstance(stack, list):
        return None
    reasons = (entry[-1] for entry in stack if isinstance(entry, tuple) and entry)
    return next((str(reason) for reason in reasons if reason in _REASONS), None)


def _detail(connection: SSL.Connection) -> str:
    """Why OpenSSL does not trust the certificate, in its own words; "" where that is not to be had."""
    lib, ffi = getattr(SSL, "_lib", None), getattr(SSL, "_ffi", None)
    ssl = getattr(connection, "_ssl", None)
    try:
        number = lib.SSL_get_verify_result(ssl)  # type: ignore[union-attr]
        text: bytes = ffi.string(lib.X509_verify_cert_error_string(number))  # type: ignore[union-attr]
    except (AttributeError, TypeError):
        return ""
    return text.decode("ascii", "replace") if number else ""


def _shown(name: bytes | None) -> str:
    """A server name as it stands in a log: of what a client may send, only what a name consists of."""
    if not name:
        return "no name"
    text = name[:253].decode("ascii", "replace")
    return text if text.isprintable() else ascii(text)

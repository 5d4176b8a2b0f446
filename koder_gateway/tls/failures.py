"""Handshakes that come to nothing, in the log: a line for each kind now and then, however many there are.

Half of what reaches an open port is no client at all. What a line is good for is the other half: a client that has no
version or cipher in common, one that speaks plain HTTP, one whose certificate is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from OpenSSL import SSL
from twisted.logger import Logger, LogLevel

_log = Logger()

# OpenSSL's reasons that are the fault of the client's certificate.
_CERTIFICATE: Final = frozenset(
    (
        "peer did not return a certificate",
        "certificate verify failed",
        "no certificate returned",
        "certificate required",
    )
)


class _Kind:
    """Lines of one kind: at most one in `interval` seconds, which says how many there were since the last."""

    def __init__(self, interval: float, clock: Callable[[], float]) -> None:
        self._interval = interval
        self._clock = clock
        self._next = 0.0
        self._untold = 0

    def tell(self, level: LogLevel, form: str, **values: object) -> None:
        """Log this, or count it."""
        now = self._clock()
        if now < self._next:
            self._untold += 1
            return
        self._next = now + self._interval
        untold, self._untold = self._untold, 0
        more = f" ({untold} more since the last line)" if untold else ""
        _log.emit(level, f"{form}{{more}}", more=more, **values)


class HandshakeLog:
    """What is said of the handshakes of a process."""

    def __init__(self, interval: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._certificates = _Kind(interval, clock)
        self._plain = _Kind(interval, clock)
        self._others = _Kind(interval, clock)

    def failed(self, error: SSL.Error, connection: SSL.Connection, peer: object) -> None:
        """A handshake has failed with this error."""
        reasons = _reasons(error)
        refused = next((reason for reason in reasons if reason in _CERTIFICATE), None)
        who, name = _host(peer), _shown(connection.get_servername())
        if refused is not None:
            self._certificates.tell(
                LogLevel.warn,
                "client certificate refused: {reason}; {peer} asked for {name}",
                reason=_detail(connection) or refused,
                peer=who,
                name=name,
            )
        else:
            self._others.tell(
                LogLevel.info,
                "TLS handshake failed: {reason}; {peer} asked for {name}",
                reason=reasons[0] if reasons else type(error).__name__,
                peer=who,
                name=name,
            )

    def plain(self, peer: object) -> None:
        """A plain HTTP request has come, and been answered with 400."""
        self._plain.tell(
            LogLevel.info,
            "plain HTTP on a port that speaks TLS, answered with 400: {peer} should use https",
            peer=_host(peer),
        )


handshakes = HandshakeLog()


def _reasons(error: SSL.Error) -> list[str]:
    stack = error.args[0] if error.args else None
    if not isinstance(stack, list):
        return []
    return [str(entry[-1]) for entry in stack if isinstance(entry, tuple) and entry]


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


def _host(peer: object) -> str:
    return getattr(peer, "host", None) or "somebody"


def _shown(name: bytes | None) -> str:
    """A server name as it stands in a log: of what a client may send, only what a name consists of."""
    if not name:
        return "no name"
    text = name[:253].decode("ascii", "replace")
    return text if text.isprintable() else ascii(text)

"""Failed handshakes: counted by reason, and logged rarely, since scanners make handshakes fail all day."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from OpenSSL import SSL
from twisted.logger import Logger

from ..tls_bio.openssl_errors import openssl_words
from ..tls_bio.records import ffi, lib
from ..wire.refusal_writer import RefusalWriter
from .completed_handshakes import CompletedHandshakes
from .young_connections import YoungConnections

_log = Logger()

# OpenSSL's functions that are called here.
CALLS: Final = ("SSL_get_verify_result", "X509_verify_cert_error_string")

PLAIN_HTTP: Final = "plain_http"
NOT_TLS: Final = "not_tls"
OLD_VERSION: Final = "old_version"
NO_COMMON_CIPHER: Final = "no_common_cipher"
NO_COMMON_PROTOCOL: Final = "no_common_protocol"
UNRECOGNIZED_NAME: Final = "unrecognized_name"
CLIENT_CERTIFICATE: Final = "client_certificate"
CLIENT_ALERT: Final = "client_alert"
OTHER: Final = "other"

_FAILED: Final = "TLS handshake failed: "
# Every reason that is counted, and its text in the log; `{}` is OpenSSL's message.
TOLD: Final = {
    PLAIN_HTTP: _FAILED + "a plain HTTP request, answered with 400",
    NOT_TLS: _FAILED + "the client did not send TLS",
    OLD_VERSION: _FAILED + "the client offers no TLS 1.2 or newer",
    NO_COMMON_CIPHER: _FAILED + "the client has no cipher, group or signature in common with the gateway ({})",
    NO_COMMON_PROTOCOL: _FAILED + "the client offers none of the protocols that are spoken here (ALPN)",
    UNRECOGNIZED_NAME: _FAILED + "there is no certificate for this name, and tls.strict_sni refuses such clients",
    CLIENT_CERTIFICATE: "client certificate refused: {}",
    CLIENT_ALERT: _FAILED + "the client aborted it ({})",
    OTHER: _FAILED + "{}",
}
# The reasons for which the log says that a client asked for no name: in other cases it may not have sent its name
# yet.
_NAMED: Final = (UNRECOGNIZED_NAME, CLIENT_CERTIFICATE)
# OpenSSL's messages about the client's certificate.
_CERTIFICATE_WORDS: Final = frozenset(
    (
        "peer did not return a certificate",
        "certificate verify failed",
        "no certificate returned",
        "certificate required",
    )
)
# The alert (RFC 8446 section 6) that the gateway sent says more about the reason than OpenSSL's message.
_BY_ALERT: Final = {
    40: NO_COMMON_CIPHER,
    70: OLD_VERSION,
    112: UNRECOGNIZED_NAME,
    120: NO_COMMON_PROTOCOL,
}
# A fatal alert in a record: type and length; between them is the version.
_ALERT_RECORD: Final = (0x15, b"\0\2\2")


class HandshakeFailures:
    """Counts failed handshakes by reason. It logs one at once and the next of its kind after `interval` seconds at
    the earliest; client certificates are a kind of their own, which the others must not hide.

    `charge` gets the address of each client whose handshake failed, and returns whether it has failed so often that
    it gets no response.
    """

    def __init__(self, interval: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts = dict.fromkeys(TOLD, 0)
        """How many failed for each reason, since the start."""
        self.completed = CompletedHandshakes()
        """The handshakes that did not fail."""
        self.young = YoungConnections()
        """Their connections, at first."""
        self.charge: Callable[[str], bool] = _never
        self.refusals: Callable[[], RefusalWriter] = RefusalWriter
        """What writes the refusal of a plain HTTP request."""
        self._clock = clock
        self._certificates, self._all_else = _LogInterval(interval), _LogInterval(interval)

    def failed(self, error: SSL.Error, connection: SSL.Connection, opening: bytes, sent: bytes, peer: object) -> bool:
        """A handshake has failed with this error; returns whether its client gets no response.

        `opening` are the first bytes of the connection, `sent` are the last ones that were sent. A client that has
        closed the connection properly is not counted.
        """
        if isinstance(error, SSL.ZeroReturnError):
            return False
        reason, words = _reason(error, opening, sent)
        if reason == CLIENT_CERTIFICATE:
            words = _verification(connection) or words
        return self.note(reason, peer, words, connection.get_servername())

    def note(self, reason: str, peer: object, words: str = "", name: bytes | None = None) -> bool:
        """A handshake has failed; returns whether its client gets no response. `reason` is one of `TOLD`, `name` is
        the server name that the client asked for."""
        self.counts[reason] += 1
        self._tell(reason, peer, words, name)
        return self.charge(getattr(peer, "host", None) or "")

    def _tell(self, reason: str, peer: object, words: str, name: bytes | None) -> None:
        certificate = reason == CLIENT_CERTIFICATE
        more = (self._certificates if certificate else self._all_else).next_line(reason, self._clock())
        if more is None:
            return
        host = getattr(peer, "host", None) or "an unknown client"
        # Only failures of client certificates are rare enough that an operator should look at each line.
        (_log.warn if certificate else _log.info)(
            "{what}; {who}{more}",
            what=TOLD[reason].format(words),
            who=f"{host} asked for {_shown(name)}" if name or reason in _NAMED else f"from {host}",
            more=more,
        )


def _never(host: str) -> bool:
    """The failures of addresses are not counted."""
    return False


class _LogInterval:
    """Lines of one kind, at most one in `interval` seconds."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next = 0.0
        self._untold: dict[str, int] = {}

    def next_line(self, reason: str, now: float) -> str | None:
        """The note about unlogged failures since the last line; None if this one is not logged either."""
        untold = self._untold
        if now < self._next:
            untold[reason] = untold.get(reason, 0) + 1
            return None
        self._next = now + self._interval
        if not untold:
            return ""
        self._untold = {}
        kinds = ", ".join(f"{count} {each}" for each, count in sorted(untold.items()))
        return f" ({sum(untold.values())} more since the last line: {kinds})"


def _reason(error: SSL.Error, opening: bytes, sent: bytes) -> tuple[str, str]:
    """The reason of a failed handshake, and OpenSSL's message."""
    said = openssl_words(error)
    words = said[0] if said else "OpenSSL gives no reason"
    for each in said:
        if each in _CERTIFICATE_WORDS:
            return CLIENT_CERTIFICATE, each
        if " alert " in each:
            return CLIENT_ALERT, each
    if opening[:1] >= b"\x80" and opening[2:3] == b"\1":
        # The hello of SSL 2 (RFC 5246 appendix E.2).
        return OLD_VERSION, words
    if opening[:2] != b"\x16\x03":
        return NOT_TLS, words
    alert = sent[-7:]
    kind, rest = _ALERT_RECORD
    number = alert[6] if len(alert) == 7 and alert[0] == kind and alert[3:6] == rest else 0
    reason = _BY_ALERT.get(number, OTHER)
    return reason, f"{words}, alert {number}" if number and reason == OTHER else words


def _verification(connection: SSL.Connection) -> str:
    """Why OpenSSL does not trust the certificate, in its own words; "" if they are not available."""
    ssl = getattr(connection, "_ssl", None)
    try:
        number = lib.SSL_get_verify_result(ssl)
        text: bytes = ffi.string(lib.X509_verify_cert_error_string(number))
    except (AttributeError, TypeError):
        return ""
    return text.decode("ascii", "replace") if number else ""


def _shown(name: bytes | None) -> str:
    """A server name for the log: only characters that a name can have."""
    if not name:
        return "no name"
    text = name[:253].decode("ascii", "replace")
    return text if text.isprintable() else ascii(text)

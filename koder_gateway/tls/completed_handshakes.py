"""Completed handshakes, counted by what they have negotiated."""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL

from ..tls_bio.records import lib

FULL: Final = "full"
RESUMED: Final = "resumed"
_reused: Any = getattr(lib, "SSL_session_reused", None)


class CompletedHandshakes:
    """`counts` has them by kind, version of TLS and key exchange group, by OpenSSL's names for both. The group is ""
    in a resumed session of TLS 1.2, which has none, and where OpenSSL does not tell. All three come from short lists
    of the gateway's own: what a client offers beside these is not chosen."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str, str], int] = {}

    def add(self, connection: SSL.Connection) -> None:
        """Count the handshake of this connection, which is complete."""
        private: Any = connection
        resumed = _reused is not None and _reused(private._ssl)
        key = (RESUMED if resumed else FULL, connection.get_protocol_version_name(), _group(private))
        self.counts[key] = self.counts.get(key, 0) + 1


def _group(connection: Any) -> str:
    # pyOpenSSL has it since 25.1, if OpenSSL is 3.2 or newer.
    try:
        return connection.get_group_name() or ""
    except (AttributeError, NotImplementedError):
        return ""

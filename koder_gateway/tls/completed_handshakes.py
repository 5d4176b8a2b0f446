"""Completed handshakes, counted by what they have negotiated."""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL

from ..tls_bio.records import ffi, lib

# OpenSSL's functions that are called here.
CALLS: Final = ("SSL_session_reused", "SSL_version", "SSL_get0_group_name")
FULL: Final = "full"
RESUMED: Final = "resumed"
_reused: Any = getattr(lib, "SSL_session_reused", None)
_version: Any = getattr(lib, "SSL_version", None)
# cryptography has it if OpenSSL is 3.2 or newer.
_group: Any = (
    getattr(lib, "SSL_get0_group_name", None) if getattr(lib, "Cryptography_HAS_SSL_GET0_GROUP_NAME", 0) else None
)
# OpenSSL's names of the versions that are served.
_VERSIONS: Final = {SSL.TLS1_2_VERSION: "TLSv1.2", SSL.TLS1_3_VERSION: "TLSv1.3"}


def complete() -> bool:
    """Whether OpenSSL tells everything that is counted."""
    return not (_reused is None or _version is None or _group is None)


class CompletedHandshakes:
    """Kept by what OpenSSL says of each without pyOpenSSL's help, and named when somebody asks."""

    def __init__(self) -> None:
        self._counts: dict[tuple[bool, int, bytes], int] = {}

    def add(self, connection: SSL.Connection) -> None:
        """Count the handshake of this connection, which is complete."""
        private: Any = connection
        ssl = private._ssl
        group = ffi.NULL if _group is None else _group(ssl)
        key = (
            _reused is not None and _reused(ssl) == 1,
            0 if _version is None else _version(ssl),
            ffi.string(group) if group else b"",
        )
        counts = self._counts
        counts[key] = counts.get(key, 0) + 1

    @property
    def counts(self) -> dict[tuple[str, str, str], int]:
        """How many there were, by kind, version of TLS and key exchange group, by OpenSSL's names for both. The group
        is "" in a resumed session of TLS 1.2, which has none, and where OpenSSL does not tell. All three come from
        short lists of the gateway's own: what a client offers beside these is not chosen."""
        return {
            (RESUMED if resumed else FULL, _VERSIONS.get(version, ""), group.decode("ascii")): count
            for (resumed, version, group), count in self._counts.items()
        }

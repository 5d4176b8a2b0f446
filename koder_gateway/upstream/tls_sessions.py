"""The TLS sessions of one address of a service: its next connections resume them, without certificates."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from OpenSSL import SSL

# So many are kept: those of the latest connections, enough for as many to be opened at once.
_KEPT: Final = 16
# Seconds after which the certificate must be verified again, however often the session was renewed. An expired or
# revoked one would otherwise be good for as long as the gateway runs.
_LIFE: Final = 3600.0


class CachedSession(NamedTuple):
    """A session, and when (monotonic seconds) the certificate behind it was verified."""

    session: SSL.Session
    verified: float


class SessionCache:
    """The newest sessions of an address. Each is used once: a ticket sent twice would show an eavesdropper that
    both connections are the same gateway's (RFC 8446 appendix C.4), and each connection brings a new one."""

    def __init__(self) -> None:
        self._kept: deque[CachedSession] = deque(maxlen=_KEPT)

    def __len__(self) -> int:
        return len(self._kept)

    def pop(self, now: float) -> CachedSession | None:
        """Take out the newest session that is still good."""
        while self._kept:
            newest = self._kept.pop()
            if now - newest.verified < _LIFE:
                return newest
        return None

    def keep(self, session: SSL.Session, verified: float) -> CachedSession:
        """Keep a session, in place of the oldest one where there are too many."""
        kept = CachedSession(session, verified)
        self._kept.append(kept)
        return kept

    def forget(self, kept: CachedSession) -> None:
        """Drop this one: its connection has failed."""
        if kept in self._kept:
            self._kept.remove(kept)

    def clear(self) -> None:
        """Drop all of them: a handshake has failed."""
        self._kept.clear()

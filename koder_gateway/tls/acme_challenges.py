"""TLS-ALPN-01 challenges (RFC 8737): certificates that an ACME authority asks for in a handshake of its own.

Each lies in a file for as long as an order needs it. It is looked for when a client asks for it, so that every
process that shares the folder answers: a look is one call of the kernel, and nothing else if there is no such file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from OpenSSL import SSL
from twisted.logger import Logger

from .certificates import CertificateError, CertificateFile, CertificateReader

_log = Logger()

# The one protocol that such a client offers (RFC 8737 section 4).
PROTOCOL: Final = b"acme-tls/1"
# What has become of the handshakes that offer it.
ANSWERED: Final = "answered"
UNKNOWN: Final = "unknown"
FAULTY: Final = "faulty"
# How many challenges' contexts are cached, 26 KiB each: an authority asks several times, and a stranger may.
ROOM: Final = 32


def counters() -> dict[str, int]:
    """How many handshakes that ask for a challenge were answered, or could not be."""
    return {ANSWERED: 0, UNKNOWN: 0, FAULTY: 0}


class ChallengePlace(Protocol):
    """Where the challenges are; equal ones are the same place."""

    def alpn_challenge(self, name: str) -> Path | None:
        """The file, with key and certificate, of a name in lower case; None for a text that is no name."""


class AlpnChallenges:
    """The challenges of a place. `build` makes a context of a certificate, `counts` (`counters`) has what has become
    of the handshakes that ask for one."""

    def __init__(
        self, place: ChallengePlace, build: Callable[[CertificateFile], SSL.Context], counts: dict[str, int]
    ) -> None:
        self.place = place
        self._build = build
        self._reader: CertificateReader | None = None
        self._made: dict[bytes, tuple[tuple[int, int, int], SSL.Context | None]] = {}
        self._counts = counts

    def context_for(self, name: bytes) -> SSL.Context | None:
        """The context that answers a challenge for a server name, in lower case without a trailing dot; None if there
        is no challenge for it."""
        path = self.place.alpn_challenge(name.decode("latin-1"))
        try:
            status = None if path is None else os.stat(path)
        except OSError:
            status = None
        if path is None or status is None:
            self._made.pop(name, None)
            self._counts[UNKNOWN] += 1
            return None
        version = (status.st_ino, status.st_size, status.st_mtime_ns)
        known = self._made.get(name)
        if known is None or known[0] != version:
            if len(self._made) >= ROOM:
                del self._made[next(iter(self._made))]
            known = self._made[name] = (version, self._read(path))
        self._counts[FAULTY if known[1] is None else ANSWERED] += 1
        return known[1]

    def _read(self, path: Path) -> SSL.Context | None:
        """The context of a challenge's file; None, and one line, if it cannot be used."""
        if self._reader is None:
            self._reader = CertificateReader()
        try:
            context = self._build(self._reader.read(path.stem, path, path))
        except CertificateError as error:
            _log.error("an ACME challenge cannot be answered: {fault}", fault=str(error))
            return None
        context.set_alpn_select_callback(_only_challenge)
        return context


def _only_challenge(connection: SSL.Connection, offered: list[bytes]) -> bytes:
    # A second hello may offer something else than the first (RFC 8446 section 4.1.2).
    if offered == [PROTOCOL]:
        return PROTOCOL
    raise SSL.Error

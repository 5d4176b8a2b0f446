"""Client certificates in the handshake: who is asked for one, and by which authorities it has to be issued.

The name that the client asks for (SNI) decides, in the callback in which it chooses the server's certificate.
OpenSSL does the rest: a certificate that is asked for and does not verify ends the handshake with the alert that
says why, also where none would have been fine. No callback of Python's takes part in verifying.

While any host asks, no session of that endpoint is resumed. A resumed one (RFC 8446 section 2.2) shows no
certificate anew, and its ticket may stem from another name, or from before a reload; OpenSSL has accepted it by the
time that the name is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

from OpenSSL import SSL, crypto
from twisted.logger import Logger

from ..config import Authorities
from ..policy.certificates import NONE, REQUIRED, ClientAuth

_log = Logger()

_VERIFY_MODES: Final = {True: SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, False: SSL.VERIFY_PEER}
# Which authorities each context verifies clients by.
_authorities: WeakKeyDictionary[SSL.Context, bytes] = WeakKeyDictionary()
# OpenSSL's reasons that are the fault of the client's certificate.
_REASONS: Final = frozenset(
    (
        "peer did not return a certificate",
        "certificate verify failed",
        "no certificate returned",
        "certificate required",
    )
)


@dataclass(frozen=True, slots=True)
class ClientVerification:
    """How the contexts of an endpoint verify clients; equal for equal settings, for whose contexts may stay.

    `patterns` say who is asked, as `ClientAuth` takes them.
    """

    authorities: Authorities
    patterns: tuple[tuple[str, str], ...]
    _auth: ClientAuth = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_auth", ClientAuth(self.patterns, self.authorities.digest))

    def prepare(self, context: SSL.Context) -> None:
        """Have a context verify by the authorities whom it will be told to ask (`ask`)."""
        store = context.get_cert_store()
        assert store is not None, "a context has a store from its beginning"
        # Who issues clients' certificates is trusted as it is, also where it is not the end of a chain.
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        for authority in self.authorities.certificates:
            store.add_cert(crypto.X509.from_cryptography(authority))
            context.add_client_ca(authority)
        context.set_options(SSL.OP_NO_TICKET)
        _authorities[context] = self.authorities.digest

    def ask(self, connection: SSL.Connection) -> None:
        """Ask the client of this connection for its certificate, if the name that it has come for wants one.

        Called in the handshake, when the server's certificate has been chosen.
        """
        name = (connection.get_servername() or b"").lower().removesuffix(b".")
        mode = self._auth.mode(name)
        if mode != NONE:
            connection.set_verify(_VERIFY_MODES[mode == REQUIRED])


def client_verification(
    authorities: Authorities | None, patterns: Sequence[tuple[str, str]]
) -> ClientVerification | None:
    """What the settings ask for; None when no host asks for a certificate."""
    return ClientVerification(authorities, tuple(patterns)) if authorities is not None and patterns else None


def authorities_of(context: SSL.Context) -> bytes:
    """The digest of the authorities that a context verifies clients by; b"" if it verifies none."""
    return _authorities.get(context, b"")


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

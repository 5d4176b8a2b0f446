"""Client certificates in the handshake: who is asked for one, and by which authorities it has to be issued.

The name that the client asks for (SNI) decides, in the callback in which it chooses the server's certificate.
OpenSSL does the rest: a certificate that is asked for and does not verify ends the handshake with the alert that
says why, also where none would have been fine. No callback of Python's takes part in verifying.

While any host asks, no session of that endpoint is resumed. A resumed one (RFC 8446 section 2.2) shows no
certificate anew, and its ticket may stem from another name, or from before a reload; OpenSSL has accepted it by the
time that the name is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

from OpenSSL import SSL, crypto

from ..config import Authorities
from ..policy.certificates import NONE, REQUIRED, ClientAuth

_VERIFY_MODES: Final = {True: SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, False: SSL.VERIFY_PEER}
# Which authorities each context verifies clients by.
_authorities: WeakKeyDictionary[SSL.Context, bytes] = WeakKeyDictionary()


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

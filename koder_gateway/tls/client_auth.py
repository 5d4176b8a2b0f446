"""Client certificates in the handshake: which clients are asked for one, and which authorities must have issued it.

The server name that the client asks for (SNI) decides, in the callback that selects the server's certificate. OpenSSL
does the rest: a certificate that fails verification ends the handshake with an alert that has the reason, even if it
was optional. No Python callback takes part in the verification.

While any host asks, no session of that endpoint is resumed: a resumed session (RFC 8446 section 2.2) shows no
certificate again, and its ticket may come from another name, or from before a reload; OpenSSL has already accepted it
when the name is known.
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
# The authorities of each context.
_authorities: WeakKeyDictionary[SSL.Context, bytes] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class ClientVerification:
    """How the contexts of an endpoint verify clients; equal for equal settings, so that their contexts can stay.
    `patterns` say which clients are asked, as `ClientAuth` takes them."""

    authorities: Authorities
    patterns: tuple[tuple[str, str], ...]
    _auth: ClientAuth = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_auth", ClientAuth(self.patterns, self.authorities.digest))

    def prepare(self, context: SSL.Context) -> None:
        """Have a context verify by these authorities the clients that it will be told to ask (`ask`)."""
        store = context.get_cert_store()
        assert store is not None, "a context has a store from its beginning"
        # The authorities are trusted as they are, even an intermediate without its root.
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        for authority in self.authorities.certificates:
            store.add_cert(crypto.X509.from_cryptography(authority))
            context.add_client_ca(authority)
        context.set_options(SSL.OP_NO_TICKET)
        _authorities[context] = self.authorities.digest

    def ask(self, connection: SSL.Connection) -> None:
        """Ask the client of this connection for its certificate, if the host that it asked for requires or accepts
        one.

        Called in the handshake, when the server's certificate has been selected.
        """
        name = (connection.get_servername() or b"").lower().removesuffix(b".")
        mode = self._auth.mode(name)
        if mode != NONE:
            connection.set_verify(_VERIFY_MODES[mode == REQUIRED])


def client_verification(
    authorities: Authorities | None, patterns: Sequence[tuple[str, str]]
) -> ClientVerification | None:
    """The verification that the settings ask for; None if no host asks for a certificate."""
    return ClientVerification(authorities, tuple(patterns)) if authorities is not None and patterns else None


def authorities_of(context: SSL.Context) -> bytes:
    """The digest of the authorities that a context verifies clients by; b"" if it verifies none."""
    return _authorities.get(context, b"")

"""TLS contexts for clients: one for each certificate, all with the same security settings, selected by server name.

Everything that a handshake needs is set on the context once, so that a connection costs one `LeanConnection` and
two Python callbacks, for the server name and for ALPN; with several certificates also a look at the hello
(`client_hello`). None of them reads from disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory, IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from ..tls_bio.records import lib
from . import sni_callback
from .acme_challenges import AlpnChallenges, ChallengePlace, counters
from .certificates import CertificateError, CertificateFile, use_certificate
from .client_auth import ClientVerification
from .client_hello import NamedConnection, plain_name
from .lean_connection import LeanConnection
from .sni_index import SniIndex

_log = Logger()

# How many contexts are cached; 26 KiB each.
ROOM = 1024
H2 = b"h2"
HTTP_1_1 = b"http/1.1"
# The name that old clients use (RFC 7301 section 6); the response is the same protocol's.
HTTP_1_0 = b"http/1.0"
HTTP_1 = (HTTP_1_1, HTTP_1_0)
HTTP_2 = (H2, *HTTP_1)

# Forward-secret and authenticated suites only; the fastest on clients' hardware come first.
_TLS13_SUITES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_TLS12_SUITES = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    b"ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
# No finite-field group: an anonymous client could make the server compute them by the thousand (CVE-2002-20001). The
# first, hybrid one protects what is recorded today from future quantum computers.
GROUPS = (b"X25519MLKEM768:X25519:P-256:P-384", b"X25519:P-256:P-384")
# A renegotiation costs the server far more than the client (CVE-2011-1473), and nothing here needs one.
_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_RENEGOTIATION


# SSL_MODE_NO_AUTO_CHAIN, which has no name in pyOpenSSL.
_MODE_NO_AUTO_CHAIN = 0x8


class NoCommonProtocolError(SSL.Error):
    """The client offers only unsupported protocols; its handshake ends with this exception."""


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """What an endpoint string may set for its contexts, besides the certificate."""

    minimum: int = SSL.TLS1_2_VERSION
    maximum: int = 0
    """0: the newest that OpenSSL supports."""
    protocols: tuple[bytes, ...] = HTTP_1
    """The ALPN protocols (RFC 7301) in the server's order of preference."""
    clients: ClientVerification | None = None
    """How clients are verified, if any host asks them for a certificate."""


def build_context(certificate: CertificateFile | None, options: ContextOptions) -> SSL.Context:
    """A context that serves one certificate, or none: connections then get another one in the handshake. Raises
    CertificateError if OpenSSL refuses it."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(options.minimum)
    context.set_max_proto_version(options.maximum)
    context.set_options(_OPTIONS)
    # Frees both record buffers (34 KiB) of an idle connection. The chain is exactly what its file has: OpenSSL would
    # search for more issuers in each handshake, even among the authorities of clients.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS | _MODE_NO_AUTO_CHAIN)
    # OpenSSL refuses a session with a verified client without it; `client_hello` replaces it by the name.
    context.set_session_id(b"koder-gateway")
    # Sessions are resumed by tickets, which the clients keep: a cache here would only cost memory.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    _set_suites(context)
    _set_alpn(context, options.protocols)
    if certificate is not None:
        _set_certificate(context, certificate)
    if options.clients is not None:
        options.clients.prepare(context)
    return context


@implementer(IOpenSSLServerConnectionCreator, IOpenSSLContextFactory)
class ServerContexts:
    """The contexts of one or more endpoints; the server name (SNI) selects among them.

    Every connection begins with the context of the default certificate, or with that of `tickets`, whose keys also
    encrypt all session tickets (RFC 8446 section 4.6.1); OpenSSL asks for the right context once it knows the name.
    Contexts are made when they are first needed, from certificates in memory; the least recently used are dropped.
    """

    def __init__(
        self,
        certificates: Sequence[CertificateFile] | SniIndex,
        *,
        default: str = "",
        options: ContextOptions | None = None,
        strict: bool = False,
        room: int = ROOM,
        tickets: Callable[[], SSL.Context | None] | None = None,
    ) -> None:
        """`tickets` returns the context that connections begin with, made by `build_context` without a certificate;
        None for that of the default certificate. No session is resumed while clients are asked for certificates, and
        it is not used then. `default` names the certificate for unknown names and for clients that send none; "": the
        first. With `strict` both are refused. `room` is how many contexts are cached.

        Raises CertificateError if there is no certificate, none of that name, or if OpenSSL refuses the default.
        """
        self.options = options or ContextOptions()
        self._room = room
        self._tickets = tickets
        self._made: dict[CertificateFile, SSL.Context] = {}
        self._unusable: set[CertificateFile] = set()
        self._callback = sni_callback.callback(self._choose)
        self._challenges: AlpnChallenges | None = None
        self.challenges = counters()
        """What has become of handshakes that ask for the challenge of an ACME authority."""
        self._strict = self._sole = False
        names = certificates if isinstance(certificates, SniIndex) else SniIndex(certificates, default)
        self._names = names
        self._begin(names.default, self.options)
        self.serve(names, strict)

    @property
    def certificates(self) -> tuple[CertificateFile, ...]:
        """The served certificates."""
        return self._names.certificates

    @property
    def names(self) -> SniIndex:
        """The served certificates, by name."""
        return self._names

    def serve(self, names: SniIndex, strict: bool | None = None, options: ContextOptions | None = None) -> None:
        """Serve these from the next connection on; existing connections keep theirs. None: as before.

        Raises CertificateError if OpenSSL refuses the default one, and then nothing has changed.
        """
        wanted = self.options if options is None else options
        if wanted != self.options:
            self._begin(names.default, wanted)
            self._made, self.options = {}, wanted
        elif not names.default.same(self._names.default):
            self._begin(names.default, wanted)
        present = set(names.certificates)
        self._made = {known: made for known, made in self._made.items() if known in present}
        self._unusable &= present
        self._names = names
        self._strict = self._strict if strict is None else strict
        self._simplify()

    def answer_challenges(self, place: ChallengePlace | None) -> None:
        """Answer the challenges of ACME authorities that are there from the next connection on; None: no longer."""
        if place is None:
            self._challenges = None
        elif self._challenges is None or self._challenges.place != place:
            self._challenges = AlpnChallenges(place, self._context_of_challenge, self.challenges)
        self._simplify()

    def _context_of_challenge(self, certificate: CertificateFile) -> SSL.Context:
        # Authorities show no certificate of theirs.
        return build_context(certificate, replace(self.options, clients=None))

    def _simplify(self) -> None:
        # With a single certificate there is nothing to select, and no session of another name.
        self._sole = (
            len(self._names.certificates) == 1
            and not self._strict
            and self.options.clients is None
            and self._challenges is None
        )

    def rotate(self) -> None:
        """Encrypt session tickets with new keys. A client with an old ticket makes one full handshake."""
        self._begin(self._names.default, self.options)

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """The TLS state of a new connection. Without `protocol` its owner ends it once a challenge is answered
        (`NamedConnection.answered`); with Twisted's none is answered."""
        if self._sole:
            return LeanConnection(self._context)
        connection = NamedConnection(self._context)
        connection.answerable = protocol is None
        return connection

    def getContext(self) -> SSL.Context:
        """The context that connections begin with, which selects the other ones by itself."""
        return self._context

    def context_for(self, name: bytes) -> SSL.Context:
        """The context for a server name, in any case of letters. Raises CertificateError if OpenSSL refuses it."""
        return self._of(self._names.find(name) or self._names.default)

    def _begin(self, default: CertificateFile, options: ContextOptions) -> None:
        """Begin connections with new keys for their tickets: those of a new context, unless all workers have some."""
        context = build_context(default, options)
        shared = None if self._tickets is None or options.clients is not None else self._tickets()
        begins = context if shared is None else shared
        sni_callback.attach(begins, self._callback)
        self._default, self._context = context, begins

    def _of(self, certificate: CertificateFile) -> SSL.Context:
        if certificate is self._names.default:
            return self._default
        made = self._made
        context = made.pop(certificate, None)
        if context is None:
            context = build_context(certificate, self.options)
            if len(made) >= self._room:
                del made[next(iter(made))]
        # The last one is the most recently used.
        made[certificate] = context
        return context

    def _choose(self, connection: SSL.Connection) -> int:
        """Give a connection the context of the name that its client asks for. Returns the alert if there is none,
        else 0."""
        if self._sole:
            if self._default is not self._context:
                connection.set_context(self._default)
            return 0
        names = self._names
        name = connection.get_servername()
        if alert := self._alert_for(connection, name):
            return alert
        if self._challenges is not None and self._answer(connection, self._challenges):
            return 0
        certificate = names.find(name) if name else None
        if certificate is None:
            if self._strict:
                return sni_callback.UNRECOGNIZED_NAME
            certificate = names.default
        try:
            context = self._of(certificate)
        except CertificateError as error:
            self._complain(certificate, error)
            return sni_callback.INTERNAL_ERROR
        if context is not connection.get_context():
            connection.set_context(context)
        if self.options.clients is not None:
            self.options.clients.ask(connection)
        return 0

    def _answer(self, connection: SSL.Connection, challenges: AlpnChallenges) -> bool:
        """Give an ACME authority the context of the challenge that it asks for; False if this is not one, or if there
        is no such challenge."""
        if not isinstance(connection, NamedConnection) or not (connection.challenge and connection.answerable):
            return False
        context = challenges.context_for(connection.began or b"")
        if context is None:
            return False
        connection.answered = True
        connection.set_context(context)
        return True

    def _alert_for(self, connection: SSL.Connection, name: bytes | None) -> int:
        """The alert for a client whose session may be another name's, else 0.

        OpenSSL has already refused such a session, except after a first hello that could not be parsed, and in a
        second hello that asks for another name than the first (RFC 8446 section 4.1.2).
        """
        began = getattr(connection, "began", None)
        if began is None:
            return sni_callback.ACCESS_DENIED if sni_callback.resumed(connection) else 0
        return 0 if began == plain_name(name) else sni_callback.ILLEGAL_PARAMETER

    def _complain(self, certificate: CertificateFile, error: CertificateError) -> None:
        if certificate not in self._unusable:
            self._unusable.add(certificate)
            _log.error("{fault}", fault=str(error))


def _set_certificate(context: SSL.Context, certificate: CertificateFile) -> None:
    leaf, *issuers = certificate.chain
    use_certificate(context, certificate.path, leaf, certificate.key)
    for issuer in issuers:
        context.add_extra_chain_cert(issuer)


def _set_suites(context: SSL.Context) -> None:
    context.set_tls13_ciphersuites(_TLS13_SUITES)
    context.set_cipher_list(_TLS12_SUITES)
    set_groups(context)


def set_groups(context: SSL.Context) -> bytes:
    """Offer the first list of groups that OpenSSL knows, and return it. Raises CertificateError if it knows none, or
    if pyOpenSSL is another inside: it has no public function for this, and OpenSSL's own list has finite fields."""
    private: Any = context
    try:
        for groups in GROUPS:
            if lib.SSL_CTX_set1_curves_list(private._context, groups):
                return groups
    except AttributeError:
        raise CertificateError(
            "the installed pyOpenSSL cannot choose key exchange groups; install the version that the gateway asks for"
        ) from None
    raise CertificateError("OpenSSL knows none of the key exchange groups that the gateway offers")


def _set_alpn(context: SSL.Context, protocols: tuple[bytes, ...]) -> None:
    def select(connection: SSL.Connection, offered: list[bytes]) -> bytes:
        for protocol in protocols:
            if protocol in offered:
                return protocol
        # A client of another protocol must not go on (RFC 7301 section 3.2), or an attacker could redirect it to this
        # server. Raising is pyOpenSSL's only way to that alert.
        raise NoCommonProtocolError

    context.set_alpn_select_callback(select)

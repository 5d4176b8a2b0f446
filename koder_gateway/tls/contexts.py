"""TLS contexts for the clients' side: one for each certificate, hardened alike, chosen by the name asked for.

The theory: everything that a handshake needs is put on the context once, so that a connection costs one
`Connection(context, None)` and two callbacks into Python, for the server name and for ALPN; with several
certificates, also a look at the hello (`greeting`). Nothing is read from disk by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory, IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from . import sni_callback
from .certificates import CertificateError, CertificateFile, use_certificate
from .client_auth import ClientVerification
from .client_hello import NamedConnection, plain_name
from .sni_index import Names

_log = Logger()

# Contexts that are kept; 26 KiB each.
ROOM = 1024
H2 = b"h2"
HTTP_1_1 = b"http/1.1"
# What a client of the old version calls itself (RFC 7301 section 6); the answer is the same protocol's.
HTTP_1_0 = b"http/1.0"
HTTP_1 = (HTTP_1_1, HTTP_1_0)
HTTP_2 = (H2, *HTTP_1)

# Forward secret and authenticated only; what the clients' hardware does fastest comes first.
_TLS13_SUITES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_TLS12_SUITES = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    b"ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
# No finite-field group: an anonymous client could make the server compute them by the thousand
# (CVE-2002-20001). The first, hybrid one keeps what is recorded today secret from tomorrow's quantum
# computers.
_GROUPS = (b"X25519MLKEM768:X25519:P-256:P-384", b"X25519:P-256:P-384")
# A renegotiated handshake costs the server far more than the client (CVE-2011-1473), and nothing here needs
# one.
_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_RENEGOTIATION


# SSL_MODE_NO_AUTO_CHAIN, which pyOpenSSL has no name for.
_MODE_NO_AUTO_CHAIN = 0x8


class NoCommonProtocolError(SSL.Error):
    """The client offers only protocols that are not spoken here; its handshake ends with this."""


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """What an endpoint string may ask of its contexts beyond the certificate."""

    minimum: int = SSL.TLS1_2_VERSION
    maximum: int = 0
    """0: the newest that OpenSSL knows."""
    protocols: tuple[bytes, ...] = HTTP_1
    """The ALPN protocols (RFC 7301) in the server's order of preference."""
    clients: ClientVerification | None = None
    """How clients are verified, where any host asks them for a certificate."""


def build_context(certificate: CertificateFile, options: ContextOptions) -> SSL.Context:
    """A context that serves one certificate. Raises CertificateError when OpenSSL refuses it."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(options.minimum)
    context.set_max_proto_version(options.maximum)
    context.set_options(_OPTIONS)
    # Frees both record buffers (34 KiB) of a connection that is idle. The chain is what its file has: OpenSSL would
    # look for more of it in each handshake, among clients' authorities.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS | _MODE_NO_AUTO_CHAIN)
    # A session with a verified client is refused without it; `greeting` puts the name in its place.
    context.set_session_id(b"koder-gateway")
    # Sessions are resumed by tickets, which the clients keep: a cache on this side would only be memory.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    _set_suites(context)
    _set_alpn(context, options.protocols)
    _set_certificate(context, certificate)
    if options.clients is not None:
        options.clients.prepare(context)
    return context


@implementer(IOpenSSLServerConnectionCreator, IOpenSSLContextFactory)
class ServerContexts:
    """The contexts of one or more endpoints; the name that the client asks for (SNI) picks among them.

    Every connection begins on the context of the default certificate, whose keys also seal all session tickets
    (RFC 8446 section 4.6.1); OpenSSL asks for the right one once it knows the name. Contexts are made when they are
    first needed, from what is in memory, and those not used for longest are forgotten.
    """

    def __init__(
        self,
        certificates: Sequence[CertificateFile] | Names,
        *,
        default: str = "",
        options: ContextOptions | None = None,
        strict: bool = False,
        room: int = ROOM,
    ) -> None:
        """`default` names the certificate for unknown names and for clients that send none; "": the first. With
        `strict` both are refused. `room` is how many contexts are kept.

        Raises CertificateError when there is no certificate, none of that name, or OpenSSL refuses the default.
        """
        self.options = options or ContextOptions()
        self._room = room
        self._made: dict[CertificateFile, SSL.Context] = {}
        self._unusable: set[CertificateFile] = set()
        self._callback = sni_callback.callback(self._choose)
        self._strict = self._sole = False
        names = certificates if isinstance(certificates, Names) else Names(certificates, default)
        self._names = names
        self._context = self._opened(names.default, self.options)
        self.serve(names, strict)

    @property
    def certificates(self) -> tuple[CertificateFile, ...]:
        """What is served."""
        return self._names.certificates

    @property
    def names(self) -> Names:
        """What is served, by name."""
        return self._names

    def serve(self, names: Names, strict: bool | None = None, options: ContextOptions | None = None) -> None:
        """Serve these from the next connection on; connections that exist keep theirs. None: as before.

        Raises CertificateError when OpenSSL refuses the default one, and then nothing has changed.
        """
        if strict and self._callback is None:
            raise CertificateError(
                "tls.strict_sni: the installed pyOpenSSL cannot send the alert; leave it out, or install"
                " the version that the gateway asks for"
            )
        wanted = self.options if options is None else options
        if wanted != self.options:
            self._context = self._opened(names.default, wanted)
            self._made, self.options = {}, wanted
        elif not names.default.same(self._names.default):
            self._context = self._opened(names.default, wanted)
        present = set(names.certificates)
        self._made = {known: made for known, made in self._made.items() if known in present}
        self._unusable &= present
        self._names = names
        self._strict = self._strict if strict is None else strict
        # With one certificate for everybody there is nothing to choose, nor a session that was begun with another.
        self._sole = len(names.certificates) == 1 and not self._strict and self.options.clients is None

    def rotate(self) -> None:
        """Seal session tickets with new keys. An old ticket costs its client a full handshake, once."""
        self._context = self._opened(self._names.default, self.options)

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """The TLS state of a new connection."""
        if self._sole or self._callback is None:
            return SSL.Connection(self._context, None)
        return NamedConnection(self._context)

    def getContext(self) -> SSL.Context:
        """The default certificate's context, which finds the other ones by itself."""
        return self._context

    def context_for(self, name: bytes) -> SSL.Context:
        """The context for a server name, in any case. Raises CertificateError when OpenSSL refuses it."""
        return self._of(self._names.find(name) or self._names.default)

    def _opened(self, certificate: CertificateFile, options: ContextOptions) -> SSL.Context:
        """A new context for new connections. OpenSSL draws the keys of its tickets with it."""
        context = build_context(certificate, options)
        sni_callback.attach(context, self._callback, self._switch)
        return context

    def _of(self, certificate: CertificateFile) -> SSL.Context:
        if certificate is self._names.default:
            return self._context
        made = self._made
        context = made.pop(certificate, None)
        if context is None:
            context = build_context(certificate, self.options)
            if len(made) >= self._room:
                del made[next(iter(made))]
        # Last is the one used most recently.
        made[certificate] = context
        return context

    def _choose(self, connection: SSL.Connection) -> int:
        """Give a connection the context that its client asks for; the alert when there is none, else 0."""
        if self._sole:
            return 0
        names = self._names
        name = connection.get_servername()
        if alert := self._doubtful(connection, name):
            return alert
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

    def _doubtful(self, connection: SSL.Connection, name: bytes | None) -> int:
        """The alert for a client whose session may be another name's, else 0.

        OpenSSL has refused it already, but for a first hello that could not be read, and for a second one that asks
        for another name than the first (RFC 8446 section 4.1.2).
        """
        if self._callback is None:
            return 0
        began = getattr(connection, "began", None)
        if began is None:
            return sni_callback.ACCESS_DENIED if sni_callback.resumed(connection) else 0
        return 0 if began == plain_name(name) else sni_callback.ILLEGAL_PARAMETER

    def _switch(self, connection: SSL.Connection) -> None:
        """As `_choose`, where pyOpenSSL lets nothing be refused in words."""
        self._choose(connection)

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
    # pyOpenSSL has no public name for this. Without it OpenSSL's own list serves, with its finite-field
    # groups.
    set_groups = getattr(getattr(SSL, "_lib", None), "SSL_CTX_set1_curves_list", None)
    private = getattr(context, "_context", None)
    if set_groups is None or private is None:
        return
    if not any(set_groups(private, groups) for groups in _GROUPS):
        raise CertificateError("OpenSSL knows none of the key exchange groups that the gateway offers")


def _set_alpn(context: SSL.Context, protocols: tuple[bytes, ...]) -> None:
    def select(connection: SSL.Connection, offered: list[bytes]) -> bytes:
        for protocol in protocols:
            if protocol in offered:
                return protocol
        # A client that came to speak something else must not go on (RFC 7301 section 3.2), or an attacker could
        # make it take this server for another kind of one. Raising is pyOpenSSL's only way to that alert.
        raise NoCommonProtocolError

    context.set_alpn_select_callback(select)

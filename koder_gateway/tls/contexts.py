"""TLS contexts for the clients' side: one for each certificate, hardened alike, chosen by the name asked for.

The theory: everything that a handshake needs is put on the context once, so that a connection costs one
`Connection(context, None)` and no callback into Python except ALPN's; the callback for the server name
exists only where there is more than one certificate to choose from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory, IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from .certificates import CertificateError, CertificateFile
from .client_auth import ClientVerification

H2 = b"h2"
HTTP_1_1 = b"http/1.1"
# What a client of the old version calls itself (RFC 7301 section 6); the answer is the same protocol's.
HTTP_1_0 = b"http/1.0"

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


class NoCommonProtocolError(SSL.Error):
    """The client offers only protocols that are not spoken here; its handshake ends with this."""


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """What an endpoint string may ask of its contexts beyond the certificate."""

    minimum: int = SSL.TLS1_2_VERSION
    maximum: int = 0
    """0: the newest that OpenSSL knows."""
    protocols: tuple[bytes, ...] = (H2, HTTP_1_1, HTTP_1_0)
    """The ALPN protocols (RFC 7301) in the server's order of preference."""
    clients: ClientVerification | None = None
    """How clients are verified, where any host asks them for a certificate."""


def build_context(certificate: CertificateFile, options: ContextOptions) -> SSL.Context:
    """A context that serves one certificate. Raises CertificateError when OpenSSL refuses it."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(options.minimum)
    context.set_max_proto_version(options.maximum)
    context.set_options(_OPTIONS)
    # Frees both record buffers (34 KiB) of a connection that is idle.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
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

    An exact name wins over a wildcard, a wildcard over the default. Of two certificates for one name the
    one that is valid for longer is served, so that a renewed one takes over while the old one still lies
    there.
    """

    def __init__(
        self,
        certificates: Sequence[CertificateFile],
        *,
        default: str = "",
        options: ContextOptions | None = None,
    ) -> None:
        """`default` names the certificate for unknown names and for clients that send none; "": the first.

        Raises CertificateError with a line for each certificate that OpenSSL refuses, or when none has that
        name.
        """
        self.options = options or ContextOptions()
        chosen = _default(certificates, default)
        contexts = _build_all(certificates, self.options)
        self._context = contexts[certificates.index(chosen)]
        if len(contexts) > 1 or self.options.clients is not None:
            self._context.set_tlsext_servername_callback(self._switch)
        self._by_name: dict[bytes, SSL.Context] = {}
        for certificate, context in sorted(
            zip(certificates, contexts, strict=True), key=lambda pair: pair[0].expires
        ):
            self._by_name.update((name.encode("ascii", "ignore"), context) for name in certificate.names)
        self.certificates = tuple(certificates)

    def adopt(self, other: ServerContexts) -> None:
        """Serve another one's certificates from the next connection on; those that exist keep theirs."""
        self._context = other._context
        self._by_name = other._by_name
        self.certificates = other.certificates

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """The TLS state of a new connection."""
        return SSL.Connection(self._context, None)

    def getContext(self) -> SSL.Context:
        """The default certificate's context, which finds the other ones by itself."""
        return self._context

    def context_for(self, name: bytes) -> SSL.Context:
        """The context for a server name, in any case."""
        name = name.lower()
        context = self._by_name.get(name)
        if context is None:
            # A wildcard stands for one whole label, the leftmost (RFC 6125 section 6.4.3).
            context = self._by_name.get(b"*." + name.partition(b".")[2])
        return self._context if context is None else context

    def _switch(self, connection: SSL.Connection) -> None:
        name = connection.get_servername()
        if name:
            context = self.context_for(name)
            if context is not connection.get_context():
                connection.set_context(context)
        if self.options.clients is not None:
            self.options.clients.ask(connection)


def _default(certificates: Sequence[CertificateFile], name: str) -> CertificateFile:
    if not certificates:
        raise CertificateError("no certificate to serve")
    if not name:
        return certificates[0]
    for certificate in certificates:
        if certificate.name == name:
            return certificate
    known = ", ".join(certificate.name for certificate in certificates)
    raise CertificateError(f'tls.default: no certificate is called "{name}"; name one of {known}')


def _build_all(certificates: Sequence[CertificateFile], options: ContextOptions) -> list[SSL.Context]:
    contexts: list[SSL.Context] = []
    faults: list[str] = []
    for certificate in certificates:
        try:
            contexts.append(build_context(certificate, options))
        except CertificateError as error:
            faults.extend(error.faults)
    if faults:
        raise CertificateError(*faults)
    return contexts


def _set_certificate(context: SSL.Context, certificate: CertificateFile) -> None:
    try:
        context.use_certificate(certificate.leaf)
        context.use_privatekey(certificate.key)  # type: ignore[arg-type]  # refused below where not supported
        for issuer in certificate.chain[1:]:
            context.add_extra_chain_cert(issuer)
        context.check_privatekey()
    except (SSL.Error, TypeError) as error:
        raise CertificateError(
            f"{certificate.path}: OpenSSL refuses it: {_openssl_reason(error)}; have it issued for an"
            " ECDSA P-256 key, or an RSA one of 2048 bits or more"
        ) from None


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


def _openssl_reason(error: Exception) -> str:
    """What OpenSSL says is wrong, in its own words and without its brackets."""
    stack = error.args[0] if error.args else None
    if isinstance(stack, list) and stack and isinstance(stack[-1], tuple):
        return str(stack[-1][-1]) or "no reason given"
    return str(error) or "no reason given"

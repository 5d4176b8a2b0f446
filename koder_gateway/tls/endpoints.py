"""Server endpoint strings: Twisted's own, with TLS on the gateway's contexts and certificates.

`ssl:443` serves the certificates of `[tls]`, else a self-signed one; `ssl:443:privateKey=F:certKey=F` a named
one; `tls:443` is the same as `ssl:443`, and `tls:FOLDER:443` serves that folder. `haproxy:` before any of
them reads the PROXY header where balancers send it: first on the connection, before TLS (PROXY protocol,
section 2). Everything else is left to Twisted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ServerEndpoint,
    serverFromString,
)
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.logger import Logger
from twisted.plugin import getPlugins
from zope.interface import implementer

from ..config import Authorities
from ..wire.clock import CoarseClock
from .certificates import CertificateError, CertificateFile, load_folder, load_pair, read_chain, self_signed
from .client_auth import client_verification
from .contexts import ContextOptions, ServerContexts
from .descriptions import BACKLOG, bounded, parse, port_number, ssl_arguments, with_backlog
from .proxied import ProxiedEndpoint, ProxyGate
from .stream import over_tls

_log = Logger()

_DEFAULT_OPTIONS = ContextOptions()
_METHODS = {
    "": _DEFAULT_OPTIONS,
    "TLS_METHOD": _DEFAULT_OPTIONS,
    "TLS_SERVER_METHOD": _DEFAULT_OPTIONS,
    "SSLv23_METHOD": _DEFAULT_OPTIONS,
    "TLSv1_2_METHOD": ContextOptions(maximum=SSL.TLS1_2_VERSION),
}


class EndpointError(Exception):
    """An endpoint string that cannot be served; the text says so in one line for each fault."""


class TlsSettings(Protocol):
    """The part of `[tls]` that endpoints need."""

    @property
    def certificates(self) -> Path | None:
        """The folder of certificates; None for none."""

    @property
    def default(self) -> str:
        """The name of the certificate for unknown names; "" for the first."""

    @property
    def client_ca(self) -> Authorities | None:
        """The authorities that clients' certificates are verified by."""

    @property
    def client_auth(self) -> Sequence[tuple[str, str]]:
        """Which hosts ask for one, as `ClientAuth` takes them."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the certificates of some contexts come from, to be read again on a reload."""

    read: Callable[[], Sequence[CertificateFile]]
    default: str = ""
    options: ContextOptions = _DEFAULT_OPTIONS

    def contexts(self, tls: TlsSettings) -> ServerContexts:
        """Contexts for what is there now, and for the clients that the settings ask. Raises CertificateError."""
        options = replace(self.options, clients=client_verification(tls.client_ca, tls.client_auth))
        return ServerContexts(self.read(), default=self.default, options=options)


@implementer(IStreamServerEndpoint)
class _TLSOver:
    """TLS inside what another endpoint carries."""

    def __init__(self, outer: IStreamServerEndpoint, contexts: ServerContexts) -> None:
        self._outer = outer
        self._contexts = contexts

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See IStreamServerEndpoint."""
        return self._outer.listen(over_tls(self._contexts, factory))


class Endpoints:
    """Makes the server endpoints of one gateway; those without a key of their own share their contexts, and those
    behind balancers the `gate`, whose owner sweeps it."""

    def __init__(
        self, reactor: Any, tls: TlsSettings, state_dir: Path, base_domain: str, gate: ProxyGate | None = None
    ) -> None:
        self._gate = gate or ProxyGate(CoarseClock())
        self._reactor = reactor
        self._tls = tls
        self._state_dir = state_dir
        self._base_domain = base_domain
        self._shared: ServerContexts | None = None
        self._named: list[tuple[str, ServerContexts, _Source]] = []

    def server(self, text: str) -> tuple[IStreamServerEndpoint, bool]:
        """The endpoint for a string, and whether clients speak TLS on it. Nothing listens yet.

        Raises EndpointError, each line of which names the string and what to change.
        """
        try:
            return self._server(text)
        except CertificateError as error:
            raise EndpointError("\n".join(f'endpoint "{text}": {fault}' for fault in error.faults)) from None
        # What Twisted's and its plugins' parsers raise for the strings that people write.
        except (ValueError, LookupError, TypeError, AttributeError, AssertionError, OSError) as error:
            raise EndpointError(f'endpoint "{text}": {_clue(error)}') from None

    def plain(self, text: str) -> IStreamServerEndpoint:
        """The endpoint for a string on which clients speak no TLS. Raises EndpointError."""
        # Looked at first: making the endpoint could make a self-signed certificate.
        kind, _, rest = text.lower().partition(":")
        if (rest if kind == "haproxy" else kind).startswith(("ssl", "tls")):
            raise EndpointError(
                f'endpoint "{text}": speaks TLS, and a redirect port must not; write it as in "tcp:80"'
            )
        return self.server(text)[0]

    @staticmethod
    def shares(text: str) -> bool:
        """Whether a string would use the certificates of the settings, naming none of its own. Nothing is read."""
        try:
            description = parse(text)
            if description.kind == "haproxy":
                description = parse(text.partition(":")[2])
            return description.kind in ("ssl", "tls") and _named_source(ssl_arguments(description)) is None
        except (ValueError, LookupError):
            return False

    def reload(self, tls: TlsSettings, base_domain: str | None = None) -> None:
        """Read every certificate again; what is there now serves from the next connection on.

        `base_domain` is for the self-signed one; None keeps it as it is.
        Raises EndpointError with a line for each fault, and then nothing has changed.
        """
        base_domain = base_domain or self._base_domain
        sources = list(self._named)
        if self._shared is not None:
            sources.append(("", self._shared, self._settings_source(tls, base_domain)))
        fresh: list[tuple[ServerContexts, ServerContexts]] = []
        faults: list[str] = []
        for text, contexts, source in sources:
            try:
                fresh.append((contexts, source.contexts(tls)))
            except CertificateError as error:
                faults.extend(f'endpoint "{text}": {fault}' if text else fault for fault in error.faults)
        if faults:
            raise EndpointError("\n".join(faults))
        for old, new in fresh:
            old.adopt(new)
        self._tls, self._base_domain = tls, base_domain

    def expiries(self) -> dict[str, float]:
        """When each certificate that is served expires, by its name, in seconds since the epoch."""
        every = [contexts for _, contexts, _ in self._named]
        if self._shared is not None:
            every.append(self._shared)
        return {served.name: served.expires for contexts in every for served in contexts.certificates}

    def _server(self, text: str) -> tuple[IStreamServerEndpoint, bool]:
        description = parse(text)
        proxied = description.kind == "haproxy"
        if proxied:
            description = parse(text.partition(":")[2])
        if description.kind == "ssl" or (description.kind == "tls" and not _third_party("tls")):
            return self._tls_endpoint(text, ssl_arguments(description), proxied), True
        endpoint = serverFromString(self._reactor, with_backlog(description).text())
        return (ProxiedEndpoint(endpoint, self._gate) if proxied else endpoint), description.kind == "tls"

    def _tls_endpoint(self, text: str, arguments: dict[str, str], proxied: bool) -> IStreamServerEndpoint:
        port = port_number(arguments.get("port", ""))
        backlog = bounded("backlog", arguments.get("backlog", str(BACKLOG)), 1 << 31)
        interface = arguments.get("interface", "")
        contexts = self._contexts(text, arguments)
        plain = TCP4ServerEndpoint(self._reactor, port, backlog, interface)
        return _TLSOver(ProxiedEndpoint(plain, self._gate) if proxied else plain, contexts)

    def _contexts(self, text: str, arguments: dict[str, str]) -> ServerContexts:
        """The contexts that an endpoint's arguments ask for; the shared ones where they ask for none."""
        source = _named_source(arguments)
        if source is None:
            if self._shared is None:
                self._shared = self._settings_source(self._tls, self._base_domain).contexts(self._tls)
            return self._shared
        contexts = source.contexts(self._tls)
        self._named.append((text, contexts, source))
        return contexts

    def _settings_source(self, tls: TlsSettings, base_domain: str) -> _Source:
        if tls.certificates is None:
            return _Source(lambda: [_own_certificate(self._state_dir, base_domain)])
        folder, default = tls.certificates, tls.default
        return _Source(lambda: _folder_certificates(folder, default), default)


def server_endpoint(
    reactor: Any, text: str, tls: TlsSettings, state_dir: Path, base_domain: str
) -> tuple[IStreamServerEndpoint, bool]:
    """One endpoint by itself, and whether clients speak TLS on it; `Endpoints` is for several, and reloads.

    Raises EndpointError.
    """
    return Endpoints(reactor, tls, state_dir, base_domain).server(text)


def _named_source(arguments: dict[str, str]) -> _Source | None:
    """Where the certificates come from that the arguments name; None when they name nothing."""
    options = _context_options(arguments)
    if "certificates" in arguments:
        folder = Path(arguments["certificates"])
        return _Source(lambda: _folder_certificates(folder, ""), options=options)
    key = arguments.get("privateKey") or arguments.get("certKey")
    if key:
        chain, extra = Path(arguments.get("certKey", key)), arguments.get("extraCertChain")
        return _Source(lambda: [_explicit_certificate(Path(key), chain, extra)], options=options)
    for name in ("extraCertChain", "sslmethod"):
        if name in arguments:
            raise ValueError(f"{name} needs privateKey and certKey beside it; name them, or leave {name} out")
    return None


def _context_options(arguments: dict[str, str]) -> ContextOptions:
    method = arguments.get("sslmethod", "")
    options = _METHODS.get(method)
    if options is None:
        raise ValueError(
            f"sslmethod {method} is not served, only TLS 1.2 and newer; write TLS_METHOD or leave it out"
        )
    if "dhParameters" in arguments:
        _log.warn("dhParameters is not used: key exchange is by elliptic curves, never by finite fields")
    return options


def _explicit_certificate(key: Path, chain: Path, extra: str | None) -> CertificateFile:
    certificate = load_pair(chain.stem, chain, key)
    if extra is not None:
        certificate = replace(certificate, chain=certificate.chain + read_chain(Path(extra)))
    for warning in certificate.doubts(time.time()):
        _log.warn("{warning}", warning=warning)
    return certificate


def _own_certificate(state_dir: Path, base_domain: str) -> CertificateFile:
    certificate = self_signed(state_dir, base_domain)
    _log.warn(
        "no certificate is configured: serving a self-signed one for {domain} and its subdomains,"
        " SHA-256 fingerprint {fingerprint} ({path}); set tls.certificates for one that clients trust",
        domain=base_domain,
        fingerprint=certificate.fingerprint,
        path=str(certificate.path),
    )
    return certificate


def _folder_certificates(folder: Path, default: str) -> Sequence[CertificateFile]:
    found = load_folder(folder, time.time())
    if found.faults:
        raise CertificateError(*found.faults)
    for warning in found.warnings:
        _log.warn("{warning}", warning=warning)
    if not default and len(found.certificates) > 1:
        _log.warn(
            "{folder}: clients that ask for no name or an unknown one get {name}; set tls.default to choose",
            folder=str(folder),
            name=found.certificates[0].name,
        )
    return found.certificates


def _third_party(prefix: str) -> bool:
    """Whether a package other than Twisted brings a parser for this kind of endpoint."""
    return any(
        plugin.prefix.lower() == prefix and type(plugin).__module__.partition(".")[0] != "twisted"
        for plugin in getPlugins(IStreamServerEndpointStringParser)
    )


def _clue(error: Exception) -> str:
    """What is wrong with an endpoint string, in one line, from what its parser raised."""
    text = " ".join(str(error).split()) or "cannot be read"
    if isinstance(error, OSError):
        return f"{text}; name what the gateway may read"
    if isinstance(error, LookupError):
        missing = "of that index" if isinstance(error, IndexError) else f"called {text}"
        return f"no descriptor {missing} was inherited; start the gateway by its socket unit, or name another"
    if "Unknown endpoint type" in text:
        return "no such kind of endpoint; write ssl:443, tcp:80, unix:PATH or another of Twisted's"
    if isinstance(error, ValueError) and "invalid literal" not in text:
        return text
    return f"its arguments are not those of its kind ({text}); write for example tcp:80:interface=127.0.0.1"

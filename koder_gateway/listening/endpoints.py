"""Server endpoint strings: Twisted's own, with TLS on the gateway's contexts and certificates.

`:443`, `[::]:443` and `0.0.0.0:443` are short for TLS there, `http://:8080` for plain HTTP; a port without an address
listens on IPv4 and IPv6.

`ssl:443` serves the certificates of `[tls]`, else a self-signed one; `ssl:443:privateKey=F:certKey=F` a specific one;
`tls:443` is the same as `ssl:443`, and `tls:FOLDER:443` serves that folder. `tls+` before any other kind, as in
`tls+systemd:domain=INET:index=0`, adds the same TLS to it.

`haproxy:` before any of them reads the PROXY header where balancers send it: first on the connection, before TLS
(PROXY protocol, section 2). Everything else is left to Twisted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.logger import Logger
from twisted.plugin import getPlugins
from zope.interface import implementer

from ..reactor.adopted_sockets import endpoint_of
from ..reactor.turns import Turns, turns_of
from ..tls.certificate_watcher import warn
from ..tls.certificates import CertificateError
from ..tls.contexts import HTTP_1, ContextOptions, ServerContexts
from ..tls.factory import over_tls
from ..tls.folder import CertificateLocation, files_location, folder_location
from ..tls.handshake_failures import HandshakeFailures
from ..tls.ticket_contexts import TicketContexts
from ..wire.clock import CoarseClock
from .both_families import BothFamiliesEndpoint
from .endpoint_contexts import DEFAULT_OPTIONS, AcmeFiles, EndpointContexts, TlsOptions
from .endpoint_faults import EndpointError, as_endpoint_error
from .endpoint_strings import (
    BACKLOG,
    EndpointString,
    bare_port,
    bounded,
    check_inherited,
    expand_shorthand,
    parse,
    port_number,
    ssl_arguments,
    with_backlog,
    without_tls,
)
from .proxy_protocol import ProxiedEndpoint, ProxyGate

_log = Logger()

_METHODS = {
    "": DEFAULT_OPTIONS,
    "TLS_METHOD": DEFAULT_OPTIONS,
    "TLS_SERVER_METHOD": DEFAULT_OPTIONS,
    "SSLv23_METHOD": DEFAULT_OPTIONS,
    "TLSv1_2_METHOD": ContextOptions(maximum=SSL.TLS1_2_VERSION),
}


@implementer(IStreamServerEndpoint)
class _TLSOver:
    """TLS over another endpoint."""

    def __init__(
        self, outer: IStreamServerEndpoint, contexts: ServerContexts, failures: HandshakeFailures, turns: Turns
    ) -> None:
        self._outer = outer
        self._contexts = contexts
        self._failures = failures
        self._turns = turns

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See IStreamServerEndpoint."""
        return self._outer.listen(over_tls(self._contexts, factory, self._failures, self._turns))


class Endpoints:
    """Makes the server endpoints of one gateway. Endpoints without a key of their own share their contexts; those
    behind balancers share the `gate`, whose owner sweeps it."""

    def __init__(
        self,
        reactor: Any,
        tls: TlsOptions,
        state_dir: Path,
        base_domain: str,
        gate: ProxyGate | None = None,
        *,
        warned: Callable[[list[str]], None] = warn,
        protocols: tuple[bytes, ...] = HTTP_1,
        listening: Any = None,
        tickets: TicketContexts | None = None,
        acme: AcmeFiles | None = None,
    ) -> None:
        """`warned` gets lines of warnings about the certificates that an endpoint begins with. `protocols` are the
        protocols of the factories that will listen, in their order of preference (RFC 7301). `listening` is what
        they listen on, by default the reactor; `tickets` are contexts that other processes have as well. `acme` is
        where an authority's certificates are, which are served beside those of `tls`."""
        self._gate = gate or ProxyGate(CoarseClock())
        self._reactor = reactor
        self._listening = listening or reactor
        self.contexts = EndpointContexts(
            reactor, tls, state_dir, base_domain, warned=warned, protocols=protocols, tickets=tickets, acme=acme
        )
        """The contexts of all of them, and their certificates."""
        self.failures = HandshakeFailures()
        """The failed handshakes on all of them."""

    def server(self, text: str) -> tuple[IStreamServerEndpoint, bool]:
        """The endpoint for a string, and whether it uses TLS. Nothing listens yet.

        Raises EndpointError, each line of which names the string and what to change.
        """
        with as_endpoint_error(text):
            return self._server(text)

    def plain(self, text: str) -> IStreamServerEndpoint:
        """The endpoint for a string without TLS. Raises EndpointError."""
        # Checked first: making the endpoint could create a self-signed certificate.
        _refuse_tls(text)
        return self.server(expand_shorthand(text, secure=False))[0]

    def examine_plain(self, text: str) -> None:
        """Raise what `plain` would, except for what only the daemon has."""
        _refuse_tls(text)
        self.examine(expand_shorthand(text, secure=False))

    def examine(self, text: str) -> None:
        """Raise what `server` would, except for what only the daemon has: sockets that systemd passes, and the
        self-signed certificate, which a check by another user would create with the wrong owner."""
        faults: list[str] = []
        for examine in (self._examine_carrier, self._examine_certificates):
            try:
                with as_endpoint_error(text):
                    examine(text)
            except EndpointError as error:
                faults += [fault for fault in str(error).splitlines() if fault not in faults]
        if faults:
            raise EndpointError("\n".join(faults))

    def certificate_faults(self) -> list[str]:
        """The faults of the configured certificates, for callers that can read no endpoint."""
        try:
            if self.contexts.configured:
                self._contexts("", {})
        except CertificateError as error:
            return list(error.faults)
        return []

    def _examine_carrier(self, text: str) -> None:
        _, carrier, arguments = taken_apart(text)
        if carrier.kind == "systemd":
            check_inherited(carrier)
        else:
            self._carrier(carrier, arguments)

    def _examine_certificates(self, text: str) -> None:
        _, _, arguments = taken_apart(text)
        if arguments is not None and (own_place(arguments) is not None or self.contexts.configured):
            self._contexts(text, arguments)

    def reload(
        self,
        tls: TlsOptions,
        base_domain: str | None = None,
        protocols: tuple[bytes, ...] | None = None,
        acme: AcmeFiles | None = None,
    ) -> None:
        """See `EndpointContexts.reload`."""
        self.contexts.reload(tls, base_domain, protocols, acme)

    def sweep(self, now: float) -> None:
        """Check for changed files, rotate the keys of session tickets, and give back the memory of handshakes; `now`
        is in monotonic seconds."""
        self.contexts.sweep(now)
        self.failures.young.sweep()

    def stop(self) -> None:
        """Stop watching files."""
        self.contexts.stop()

    def expiries(self) -> dict[str, float]:
        """See `EndpointContexts.expiries`."""
        return self.contexts.expiries()

    @property
    def faulty(self) -> int:
        """How many certificates on disk cannot be used, as of the last look."""
        return self.contexts.faulty

    def _server(self, text: str) -> tuple[IStreamServerEndpoint, bool]:
        proxied, description, arguments = taken_apart(text)
        carrier = self._carrier(description, arguments)
        if proxied:
            carrier = ProxiedEndpoint(carrier, self._gate)
        if arguments is None:
            return carrier, description.kind == "tls"
        contexts = self._contexts(text, arguments)
        return _TLSOver(carrier, contexts, self.failures, turns_of(self._reactor)), True

    def _carrier(self, description: EndpointString, arguments: dict[str, str] | None) -> IStreamServerEndpoint:
        """The endpoint that carries plain HTTP or TLS."""
        if arguments is None or description.kind not in ("ssl", "tls"):
            bare = bare_port(description)
            if bare is not None:
                return BothFamiliesEndpoint(self._listening, *bare)
            return endpoint_of(self._listening, with_backlog(description).text())
        port = port_number(arguments.get("port", ""))
        backlog = bounded("backlog", arguments.get("backlog", str(BACKLOG)), 1 << 31)
        interface = arguments.get("interface", "")
        if not interface:
            return BothFamiliesEndpoint(self._listening, port, backlog)
        if ":" in interface:
            return TCP6ServerEndpoint(self._listening, port, backlog, interface)
        return TCP4ServerEndpoint(self._listening, port, backlog, interface)

    def _contexts(self, text: str, arguments: dict[str, str]) -> ServerContexts:
        """The contexts for an endpoint's arguments; the shared ones if they ask for none of their own."""
        return self.contexts.of(text, _context_options(arguments), own_place(arguments))


def _refuse_tls(text: str) -> None:
    kind, _, rest = expand_shorthand(text, secure=False).lower().partition(":")
    if (rest if kind == "haproxy" else kind).startswith(("ssl", "tls")):
        raise EndpointError(f'endpoint "{text}": speaks TLS, and a redirect port must not; write it as in "tcp:80"')


def server_endpoint(
    reactor: Any, text: str, tls: TlsOptions, state_dir: Path, base_domain: str
) -> tuple[IStreamServerEndpoint, bool]:
    """A single endpoint, and whether it uses TLS; use `Endpoints` for several, and for reloads. Raises
    EndpointError."""
    return Endpoints(reactor, tls, state_dir, base_domain).server(text)


def taken_apart(text: str) -> tuple[bool, EndpointString, dict[str, str] | None]:
    """Whether the PROXY header comes first, the plain endpoint, and the arguments of TLS over it; None for no TLS, or
    if another package provides it."""
    description = parse(expand_shorthand(text))
    proxied = description.kind == "haproxy"
    if proxied:
        description = parse(expand_shorthand(text.partition(":")[2]))
    if description.kind == "ssl" or (description.kind == "tls" and not _third_party("tls")):
        return proxied, description, ssl_arguments(description)
    if description.kind.startswith("tls+"):
        return proxied, *without_tls(description)
    return proxied, description, None


def own_place(arguments: dict[str, str]) -> CertificateLocation | None:
    """Where the certificates are that the arguments name; None if they name none."""
    if "certificates" in arguments:
        return folder_location(Path(arguments["certificates"]))
    key = arguments.get("privateKey") or arguments.get("certKey")
    if key:
        extra = arguments.get("extraCertChain")
        return files_location(Path(key), Path(arguments.get("certKey", key)), None if extra is None else Path(extra))
    for name in ("extraCertChain", "sslmethod"):
        if name in arguments:
            raise ValueError(f"{name} needs privateKey and certKey as well; add them, or leave {name} out")
    return None


def _context_options(arguments: dict[str, str]) -> ContextOptions:
    method = arguments.get("sslmethod", "")
    options = _METHODS.get(method)
    if options is None:
        raise ValueError(
            f"sslmethod {method} is not supported, only TLS 1.2 and newer; write TLS_METHOD or leave it out"
        )
    if "dhParameters" in arguments:
        _log.warn("dhParameters is not used: key exchange is by elliptic curves, never by finite fields")
    return options


def _third_party(prefix: str) -> bool:
    """Whether a package other than Twisted provides a parser for this kind of endpoint."""
    return any(
        plugin.prefix.lower() == prefix and type(plugin).__module__.partition(".")[0] != "twisted"
        for plugin in getPlugins(IStreamServerEndpointStringParser)
    )

"""The ports of a gateway: the public ones, those that redirect to https, and the admin port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IProtocolFactory, IStreamServerEndpoint

from ..acme.layout import Layout
from ..config import Settings
from ..config.acme import TLS_ALPN
from ..listening.admin_ports import admin_endpoint
from ..listening.endpoint_contexts import AcmeFiles
from ..listening.endpoint_faults import EndpointError
from ..listening.endpoints import Endpoints
from ..listening.listeners import ListenError, Listeners, plain_endpoint
from ..listening.proxy_protocol import ProxyGate
from .frontends import protocols_of
from .process import Process


class Addresses(list[Any]):
    """All addresses that it listens on: `ports`, `redirect_ports` and `admin_ports`, each in the given order."""

    def __init__(self, ports: Sequence[Any], redirect_ports: Sequence[Any], admin_ports: Sequence[Any]) -> None:
        super().__init__([*ports, *redirect_ports, *admin_ports])
        self.ports = list(ports)
        self.redirect_ports = list(redirect_ports)
        self.admin_ports = list(admin_ports)


class Ports:
    """Binds endpoint strings and closes what is bound. `public`, `redirect` and `admin` are lists of them."""

    def __init__(
        self, reactor: Any, endpoints: Endpoints, public: Sequence[str], redirect: Sequence[str], admin: Sequence[str]
    ) -> None:
        self.public, self.redirect, self.admin = public, redirect, admin
        self._public = Listeners(_or_unusable(lambda text: endpoints.server(text)[0]))
        self._redirect = Listeners(_or_unusable(endpoints.plain))
        self._admin = Listeners(_or_unusable(lambda text: admin_endpoint(endpoints, plain_endpoint(reactor), text)))

    def bind(self, site: IProtocolFactory, redirect: IProtocolFactory, admin: IProtocolFactory) -> list[str]:
        """Bind every port, or none; returns the faults, a line each."""
        faults = self._public.bind(self.public, site) + self._redirect.bind(self.redirect, redirect)
        faults += self._admin.bind(self.admin, admin)
        if faults:
            for listeners in (self._public, self._redirect, self._admin):
                listeners.close()
        return faults

    @property
    def addresses(self) -> Addresses:
        """The addresses that are listened on."""
        return Addresses(self._public.addresses, self._redirect.addresses, self._admin.addresses)

    @property
    def endpoints(self) -> dict[str, list[str]]:
        """The endpoint strings, by their key in `[listen]`."""
        return {"port": [*self.public], "redirect_port": [*self.redirect], "admin_port": [*self.admin]}

    def __str__(self) -> str:
        redirecting = [f"{port} (to https)" for port in self.redirect]
        return ", ".join([*self.public, *redirecting]) or "no port of its own"

    def close_public(self) -> Deferred[Any]:
        """Accept no more clients; health and metrics are still served."""
        return DeferredList([self._public.close(), self._redirect.close()])

    def close_admin(self) -> Deferred[Any]:
        """Close the admin port too."""
        return self._admin.close()


def endpoints_of(settings: Settings, reactor: Any, gate: ProxyGate, process: Process) -> Endpoints:
    """What makes the endpoints of these settings."""
    return Endpoints(
        reactor,
        settings.tls,
        settings.state.dir,
        settings.tenants.base_domain,
        gate,
        protocols=protocols_of(settings),
        listening=process.listening_on(reactor),
        tickets=process.tickets,
        acme=acme_files_of(settings),
    )


def reload_endpoints(endpoints: Endpoints, settings: Settings) -> None:
    """Have endpoints serve as these settings say; see `Endpoints.reload`."""
    endpoints.reload(settings.tls, settings.tenants.base_domain, protocols_of(settings), acme_files_of(settings))


def acme_files_of(settings: Settings) -> AcmeFiles | None:
    """Where the certificates and challenges of an ACME authority are that the HTTPS ports show; None without one."""
    acme = settings.acme
    if acme.directory is None:
        return None
    layout = Layout.below(settings.state.dir)
    return AcmeFiles(layout, layout if acme.challenge == TLS_ALPN else None)


def _or_unusable(made: Callable[[str], IStreamServerEndpoint]) -> Callable[[str], IStreamServerEndpoint]:
    """The endpoint of a string, by `made`; a fault becomes a ListenError."""

    def endpoint(text: str) -> IStreamServerEndpoint:
        try:
            return made(text)
        except EndpointError as error:
            raise ListenError(str(error)) from None

    return endpoint

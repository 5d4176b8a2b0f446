"""The ways in for clients: the gateway's own site, the plain port's, and the tree for stock sites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..acme.layout import Layout
from ..config import Settings
from ..config.acme import HTTP
from ..downstream.ports import TreeClient
from ..downstream.site import GatewaySite
from ..exchange.states import Exchange
from ..listening.proxy_protocol import ProxyGate
from ..listening.redirect import RedirectSite
from ..policy.decision import Policy
from ..tenants.remote_registry import UnreadTenants
from ..tls.contexts import HTTP_1, HTTP_2
from ..tls.established import established
from ..tree.bounds import client_limits, client_timeouts
from ..tree.compose import Composition
from ..tree.protocols import PROTOCOLS
from ..twisted_site.adapter import SiteAdapter
from ..wire.clock import CoarseClock


class Frontends:
    """All ways in serve one generation at a time. `resource` is the tree for stock sites, `site` serves the public
    ports, `redirect` the plain one, and `gate` reads the PROXY header before them. `finished` is called once for
    every exchange, `time` gives monotonic seconds."""

    def __init__(
        self,
        composition: Composition,
        *,
        reactor: Any,
        clock: CoarseClock,
        time: Callable[[], float],
        finished: Callable[[Exchange], object],
    ) -> None:
        settings = composition.settings
        resource, policy, reader = composition.resource, composition.policy, composition.reader
        self.resource = SiteAdapter(resource, policy, reader, finished, time, established)
        self.site = GatewaySite(
            resource,
            policy,
            reader,
            PROTOCOLS,
            reactor=reactor,
            clock=clock,
            finished=finished,
            timeouts=client_timeouts(settings),
            limits=client_limits(settings),
            time=time,
            secured=established,
        )
        self.redirect = RedirectSite(self.site, settings.tls.acme_webroot, _tokens(settings))
        self.gate = ProxyGate(clock, self.site.channels, self.site.overfull)
        self.gate.trusts = policy.proxies.introduces

    def serve(self, composition: Composition) -> None:
        """Serve this generation from now on."""
        settings = composition.settings
        resource, policy, reader = composition.resource, composition.policy, composition.reader
        self.site.replace(resource, policy, reader, client_timeouts(settings), client_limits(settings))
        self.redirect.webroot, self.redirect.own = settings.tls.acme_webroot, _tokens(settings)
        self.gate.trusts = policy.proxies.introduces
        adapter = self.resource
        adapter.inner, adapter.policy, adapter.reader = resource, policy, reader
        self._end_suspended(policy)

    def _end_suspended(self, policy: Policy) -> None:
        """End open exchanges of tenants that are suspended or removed, which began while they were active."""
        if policy.registry.is_open or isinstance(policy.tenants, UnreadTenants):
            return
        here = [request for channel in self.site.channels for request in channel.under_way()]
        begun: list[TreeClient] = [*here, *self.resource.clients]
        # There may be many requests, and few tenants.
        ended = {request.exchange.tenant for request in begun}
        ended = {tenant for tenant in ended if policy.tenant_refusal(tenant, b"") is not None}
        for request in begun if ended else ():
            exchange = request.exchange
            refusal = policy.tenant_refusal(exchange.tenant, exchange.head.path) if exchange.tenant in ended else None
            if refusal is not None:
                request.give_up(refusal, refusal.code)


def protocols_of(settings: Settings) -> tuple[bytes, ...]:
    """The protocols over TLS, in the order of preference (RFC 7301)."""
    return HTTP_2 if settings.listen.http2 else HTTP_1


def _tokens(settings: Settings) -> Layout | None:
    """Where the challenges are that the plain port shows; None if the gateway orders nothing that asks for them."""
    acme = settings.acme
    return Layout.below(settings.state.dir) if acme.directory is not None and acme.challenge == HTTP else None

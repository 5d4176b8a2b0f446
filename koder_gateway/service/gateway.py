"""The gateway as a Twisted service: what listens, what sweeps, what a reload replaces, and how it ends.

from koder_gateway import Gateway, load

gateway = Gateway(load(path))
gateway.setServiceParent(application)         # or mount gateway.resource in a Site of your own
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from twisted.application.service import Service as TwistedService
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource

from ..config import Caution, ConfigurationError, Settings, misspelled_services, warning_lines
from ..config.faults import line
from ..config.registry import restless
from ..downstream.site import GatewaySite
from ..errors import CODES
from ..exchange.states import EARLY_ENDS
from ..listening.endpoints import Endpoints
from ..listening.proxy_protocol import ProxyGate
from ..listening.redirect import RedirectSite
from ..ops.access_log import AccessLogError
from ..ops.admin import admin_pages
from ..ops.admin_channel import AdminFactory
from ..ops.leavings import Leavings
from ..ops.logged_ending import LoggedEnding
from ..ops.memory import Trimmer
from ..ops.metrics import Counters, make_registry, render
from ..ops.notify import Notifier
from ..ops.refused_addresses import RefusedAddresses
from ..ops.reloads import Reloads
from ..ops.sweeper import Sweeper
from ..policy.clients import plain_host
from ..policy.decision import Policy
from ..policy.limits import address_key
from ..policy.tenants import Registry
from ..reactor.daemon_threads import threads_beside
from ..tenants.registry_losses import Losses
from ..tenants.remote_registry import UnreadTenants
from ..tenants.thread_pace import Pace
from ..tls.contexts import HTTP_1, HTTP_2
from ..tls.established import established
from ..tree.bounds import client_limits, client_timeouts, descriptors_now, shortage
from ..tree.compose import Composition, adopt, compose, doubts, probed_addresses, with_registry
from ..tree.protocols import PROTOCOLS
from ..twisted_site.adapter import Entrance
from ..upstream.health import Probes
from ..upstream.pool import Service
from ..version import VERSION
from ..wire.clock import CoarseClock
from .arguments import check_settings, read_mounts, read_port, read_ports
from .metrics_sources import sources_of
from .ports import Addresses, Ports
from .registry_follower import RegistryFollower
from .reload_files import read_files

_EVICTED_A_SECOND: Final = 5000
# What is wrong with settings that a reload refuses.
_REFUSED: Final = (ConfigurationError, AccessLogError, ValueError, OSError)
# Seconds before its end from which on a certificate that services are shown is spoken of.
_SOON: Final = 30 * 86_400.0
# What passes the time between two looks of a reload.
_wait = time.sleep


class StartError(Exception):
    """The gateway cannot start (or reload); each line says what to change."""


class Gateway(TwistedService):
    """One gateway. `resource` is its tree, to mount in any `twisted.web.server.Site`; started as a service it
    listens on `ports` (endpoint strings; those of the settings by default), on the admin port, and on
    `redirect_ports`, which answer with a redirect to https.

    `mounts` are resources of yours by path, behind the same tenants and limits. `local_hosts` lets localhost and
    addresses stand for the base domain. The owner of a tree that is mounted elsewhere still starts the service
    (with no ports), since deadlines are swept by it. Raises ValueError for a path that no request can have, and
    TypeError for what is no settings, endpoint string, path or resource; each says what to write.
    """

    log = Logger()
    name = "koder-gateway"

    def __init__(
        self,
        settings: Settings,
        *,
        ports: Sequence[str] | None = None,
        admin_port: str | None = None,
        redirect_ports: Sequence[str] | None = None,
        # What derives from Resource is one to every type checker, and not only to those that know zope.interface.
        mounts: Mapping[str, IResource | Resource] | None = None,
        local_hosts: bool = False,
        reactor: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_settings(settings)
        listen = settings.listen
        public = read_ports("ports", listen.port if ports is None else ports)
        admin = read_port("admin_port", listen.admin_port if admin_port is None else admin_port)
        redirecting = read_ports("redirect_ports", listen.redirect_port if redirect_ports is None else redirect_ports)
        self._mounts = read_mounts({} if mounts is None else mounts)
        if reactor is None:
            from twisted.internet import reactor
        self._reactor = reactor
        self._time = clock
        self._coarse = CoarseClock(clock())
        self._local_hosts = local_hosts
        self.counters = Counters()
        self.notifier = Notifier()
        self._ending = LoggedEnding(self.counters, settings.log, clock)
        self._retired: list[Service] = []
        self._retries_before = 0
        self._bound = False
        self._trimmer = Trimmer()
        self._leavings = Leavings()
        self._probes = Probes(reactor)
        self._refused_addresses = RefusedAddresses(self._coarse)
        losses = Losses(lambda: self.composition.policy.registry, lambda: self.composition.settings.tenants.max_loss)
        self._registry = RegistryFollower(reactor, losses, self.counters, self._refreshed, local_hosts=local_hosts)
        self._reloads = Reloads(
            threads_beside(reactor, "reload"), lambda: self._read(Pace()), self._take_up, self._refuse
        )
        self._drained: Deferred[None] | None = None
        self._stopping = False
        self._accepting = False
        self._drain_ends = 0.0
        self._sweeper = self._made_sweeper()
        self._take(self._composed(settings, None), None)
        policy = self.composition.policy
        self.resource, self.site = self._made_fronts()
        self.redirect = RedirectSite(self.site, settings.tls.acme_webroot)
        self._gate = ProxyGate(self._coarse, self.site.channels, self.site.overfull)
        self._gate.trusts = policy.proxies.introduces
        self._endpoints = Endpoints(
            reactor,
            settings.tls,
            settings.state.dir,
            settings.tenants.base_domain,
            self._gate,
            protocols=_protocols(settings),
        )
        self._endpoints.failures.charge = self._handshake_failed
        self._ports = Ports(reactor, self._endpoints, public, redirecting, [admin] if admin else [])
        sources = sources_of(lambda: self.composition, self._probes, self._endpoints, self._ending)
        self._metrics = make_registry(self.counters, sources, version=VERSION)

    def _made_sweeper(self) -> Sweeper:
        """What is done at each tick, and once a second."""
        return Sweeper(
            self._coarse,
            self._time,
            self._reactor,
            parts=(self._sweep_exchanges, self._watch, self._sweep_drain, lambda _: self._leavings.sweep()),
            seconds=(
                lambda _: self._ending.flush(),
                lambda _: self.notifier.watchdog(),
                lambda _: self.site.tick(),
                self._trimmer.look,
                lambda now: self.composition.policy.limiter.sweep(now, _EVICTED_A_SECOND),
                lambda now: self._refused_addresses.tell(self.composition.policy.limiter, now),
                lambda now: self._gate.complaints.sweep(now),
                lambda now: self.redirect.complaints.sweep(now),
            ),
        )

    def _made_fronts(self) -> tuple[Entrance, GatewaySite]:
        """The way in for stock sites, and the gateway's own."""
        composition, finished = self.composition, self._ending.finished
        settings = composition.settings
        resource, policy, reader = composition.resource, composition.policy, composition.reader
        entrance = Entrance(resource, policy, reader, finished, self._time, established)
        site = GatewaySite(
            resource,
            policy,
            reader,
            PROTOCOLS,
            reactor=self._reactor,
            clock=self._coarse,
            finished=finished,
            timeouts=client_timeouts(settings),
            limits=client_limits(settings),
            time=self._time,
            secured=established,
        )
        return entrance, site

    def _handshake_failed(self, host: str) -> bool:
        """Charge the limit on refusals with a handshake from this address; whether it is used up."""
        return self.composition.policy.limiter.refused(address_key(plain_host(host)), self._time())

    # -- composition and reload

    @property
    def settings(self) -> Settings:
        """The settings that are in force."""
        return self.composition.settings

    def _composed(
        self, settings: Settings, before: Composition | None, registry: Registry | None = None
    ) -> Composition:
        """The generation of these settings. The registry's tenants are not kept twice."""
        return compose(
            replace(settings, registered=None),
            settings.registered if registry is None else registry,
            reactor=self._reactor,
            clock=self._coarse,
            mounts=self._mounts,
            local_hosts=self._local_hosts,
            before=before,
        )

    def _take(self, composition: Composition, before: Composition | None) -> None:
        """Make a generation the present one."""
        if before is not None:
            adopt(composition, before)
        self.composition = composition
        now, authorities = time.time(), composition.settings.tls.client_ca
        told = () if authorities is None else authorities.doubts(now)
        for doubt in (*self._warnings(composition.settings), *doubts(composition, now, _SOON), *told):
            self.log.warn("{doubt}", doubt=doubt)
        self.composition = self._registry.follow(composition, before)
        self._probes.watch(probed_addresses(self.composition))
        self.counters.tenants = len(self.composition.policy.registry)
        self._leavings.follow(self.composition.policy.registry)
        self.counters.expect(("", *self.composition.services), (*CODES, *EARLY_ENDS))
        if before is not None:
            for name, service in before.services.items():
                if self.composition.services.get(name) is not service:
                    service.close_idle()
                    self._retired.append(service)

    @staticmethod
    def _warnings(settings: Settings) -> list[str]:
        """What is to be looked at, but what files have."""
        name = str(settings.source or "koder-gateway.toml")
        few = shortage(settings, descriptors_now(), "RLIMIT_NOFILE (LimitNOFILE of the unit, ulimit -n)")
        misspelled = [line(name, at, fault) for at, fault in misspelled_services(settings)]
        return [*misspelled, *warning_lines(settings), *(line(name, "listen.max_connections", each) for each in few)]

    def _serve_composition(self) -> None:
        composition = self.composition
        settings = composition.settings
        self.site.replace(
            composition.resource,
            composition.policy,
            composition.reader,
            client_timeouts(settings),
            client_limits(settings),
        )
        self.redirect.webroot = settings.tls.acme_webroot
        self._gate.trusts = composition.policy.proxies.introduces
        entrance = self.resource
        entrance.inner, entrance.policy, entrance.reader = (
            composition.resource,
            composition.policy,
            composition.reader,
        )
        self._end_suspended(composition.policy)

    def _end_suspended(self, policy: Policy) -> None:
        """End what is open of tenants that are suspended or gone: what they began while they were active."""
        if policy.registry.is_open or isinstance(policy.tenants, UnreadTenants):
            return
        here = [request for channel in self.site.channels for request in channel.under_way()]
        begun: list[Any] = [*here, *self.resource.clients]
        for request in begun:
            refusal = policy.tenant_refusal(request.exchange.tenant)
            if refusal is not None:
                request.give_up(refusal, refusal.code)

    def reload(self) -> bool:
        """Read configuration and tenants again; False when a fault left everything as it was. Certificates follow in
        a thread, each by itself: one that cannot be used leaves the one before it in place.

        Connections, pools and buckets stay. What is listened on changes only with a restart. Other connections wait
        while files are read, and half a second more where the registry file has changed: see `reload_aside`.
        """
        if self._stopping:
            self.log.info("not reloaded: the gateway is shutting down")
            return False
        self.notifier.reloading()
        try:
            return self._take_up(self._read(restless))
        except _REFUSED:
            return self._refuse(Failure())

    def reload_aside(self) -> None:
        """The same, but files are read in a thread, so that nobody waits. While one is under way it is asked for
        one more."""
        if self._stopping:
            self.log.info("not reloaded: the gateway is shutting down")
        else:
            self.notifier.reloading()
            self._reloads.ask()

    def _read(self, rest: Callable[[], object]) -> tuple[Settings, Registry]:
        """What the files have now. A registry file that is another one by now may be half written."""
        return read_files(self.settings, rest, Caution(self._registry.seen, _wait))

    def _take_up(self, read: tuple[Settings, Registry]) -> bool:
        """Serve by other settings, unless something in them cannot be used."""
        if self._stopping:
            return False
        before, (settings, registry) = self.composition, read
        log = None
        try:
            composition = self._composed(settings, before, registry)
            log = self._ending.opened_for(settings.log)
        except _REFUSED:
            if log is not None:
                log.close()
            return self._refuse(Failure())
        self._ending.follow(settings.log, log)
        self._take(composition, before)
        self._serve_composition()
        self._endpoints.reload(settings.tls, settings.tenants.base_domain, _protocols(settings))
        self._tell_of_ports(before.settings)
        self.counters.reloads_ok += 1
        self.log.info("reloaded {source}", source=str(settings.source or "the defaults"))
        self.notifier.ready("serving")
        return True

    def _refuse(self, failure: Failure) -> bool:
        """Say why nothing has changed."""
        self.counters.reloads_failed += 1
        if not failure.check(*_REFUSED):
            self.log.failure("reload refused, nothing has changed", failure=failure)
        for fault in failure.getErrorMessage().splitlines():
            self.log.error("reload refused, nothing has changed: {line}", line=fault)
        self.notifier.ready("reload refused; serving the previous configuration")
        return False

    def _tell_of_ports(self, before: Settings) -> None:
        """Say which ports of the configuration are others now: these need a restart."""
        for key in ("port", "redirect_port", "admin_port"):
            if getattr(before.listen, key) != getattr(self.settings.listen, key):
                self.log.warn("listen.{key} has changed, which a reload cannot apply; restart the gateway", key=key)

    def _refreshed(self, registry: Registry) -> None:
        """The registry has been read again."""
        composition = self.composition
        policy = with_registry(composition.policy, composition.settings, registry, self._local_hosts)
        self.composition = replace(composition, policy=policy)
        self.counters.tenants = len(registry)
        self._leavings.follow(registry)
        self._serve_composition()
        self.log.info("registry read again: {count} tenants", count=len(registry))

    # -- time

    def _sweep_exchanges(self, now: float) -> None:
        self.site.sweep(now)
        for service in self.composition.services.values():
            service.sweep(now)
        self.composition.tunnels.sweep(now)
        if self._retired:
            self._sweep_retired(now)

    def _watch(self, now: float) -> None:
        """Look after what is watched while it serves: services' names and health, certificates, the registry."""
        if self.running:
            self.composition.names.sweep()
            self._probes.sweep(now)
            self._endpoints.sweep(now)
            self._registry.sweep(now, self.settings)

    def _sweep_drain(self, now: float) -> None:
        drained = not self._accepting and not self.site.channels
        if self._drained is not None and (drained or now >= self._drain_ends):
            self._end_drain()

    def _sweep_retired(self, now: float) -> None:
        """Services that a reload has replaced live until their last exchange has ended."""
        for service in self._retired:
            service.sweep(now)
            if service.crowd.empty:
                self._retries_before += service.retried
        self._retired = [service for service in self._retired if not service.crowd.empty]

    # -- listening

    def privilegedStartService(self) -> None:
        """Bind every port while the process may. Raises StartError."""
        super().privilegedStartService()
        self._bind()

    def startService(self) -> None:
        """Begin to serve. Raises StartError."""
        self._bind()
        super().startService()
        self._stopping = False
        self._sweeper.start()
        where = str(self._ports)
        self.log.info("koder-gateway {version} serves on {where}", version=VERSION, where=where)
        self.log.info("at most {count} client connections at once", count=self.site.max_connections)
        self.notifier.ready(f"serving on {where}")

    def _bind(self) -> None:
        if self._bound:
            return
        self._bound = True
        pages = admin_pages(self.unready, lambda: self.metrics())
        admin = AdminFactory(pages, self._reactor, lambda: self.settings.listen.admin_hosts)
        faults = self._ports.bind(self.site, self.redirect, admin)
        if faults:
            raise StartError("\n".join(faults))

    @property
    def addresses(self) -> Addresses:
        """The addresses that are listened on: the ports', the redirect ports', the admin port's."""
        return self._ports.addresses

    # -- health

    def unready(self) -> list[str]:
        """Why the gateway should get no traffic; empty when it should."""
        if self.site.draining:
            return ["draining"]
        if not self.running:
            return ["not started"]
        unread = isinstance(self.composition.policy.tenants, UnreadTenants)
        return ["the tenant registry has not been read yet"] if unread else []

    def metrics(self) -> bytes:
        """The metrics page."""
        counters, site = self.counters, self.site
        counters.connections = site.accepted
        counters.connections_open = len(site.channels)
        counters.connections_rejected = site.rejected
        counters.http2_errors = site.http2_errors
        counters.exchanges = site.in_flight
        services = [*self.composition.services.values(), *self._retired]
        counters.retries = self._retries_before + sum(service.retried for service in services)
        return render(self._metrics)

    # -- the end

    def stopService(self) -> Deferred[None]:
        """Stop accepting, finish what is under way up to the drain deadline, close the rest."""
        super().stopService()
        if self._drained is not None:
            return self._drained
        self._stopping = True
        self.notifier.stopping()
        self._probes.stop()
        self._endpoints.stop()
        self._registry.stop()
        drained: Deferred[None] = Deferred()
        self._drained = drained
        self._accepting = True
        closing = self._ports.close_public()
        self._drain_ends = self._time() + self.settings.timeouts.drain
        self.site.drain()
        self.log.info("draining: {count} exchanges in flight", count=self.site.in_flight)
        # What was accepted last becomes a channel a turn after that.
        closing.addCallback(lambda _: self._reactor.callLater(0, self._all_accepted))
        return closing.addCallback(lambda _: drained)

    def _all_accepted(self) -> None:
        self._accepting = False
        if not self._sweeper.running or not self.site.channels:
            self._end_drain()

    def _end_drain(self) -> None:
        drained, self._drained = self._drained, None
        self._sweeper.stop()
        self.site.end_drain()
        for service in (*self.composition.services.values(), *self._retired):
            service.close_idle()
        self._ending.flush()
        closed = self._ports.close_admin()
        if drained is not None:
            # One more turn, so that what was written last leaves and closed connections are seen to be.
            closed.addCallback(lambda _: self._reactor.callLater(0, drained.callback, None))


def _protocols(settings: Settings) -> tuple[bytes, ...]:
    """What is spoken over TLS (RFC 7301)."""
    return HTTP_2 if settings.listen.http2 else HTTP_1

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

from ..config import ConfigurationError, Settings, StableReading
from ..ops.access_log import AccessLogError
from ..ops.counters import Counters
from ..ops.full_limits import FullLimits
from ..ops.logged_ending import LoggedEnding
from ..ops.memory import Trimmer
from ..ops.process_state import Present
from ..ops.refused_addresses import RefusedAddresses
from ..ops.reloads import Reloads
from ..ops.retired_registries import RetiredRegistries
from ..ops.service_report import ServiceReport
from ..ops.sweeper import Sweeper
from ..policy.clients import plain_host
from ..policy.limit_keys import address_key
from ..policy.sharded_index import no_pause
from ..policy.tenants import Registry
from ..reactor.daemon_threads import daemon_threads
from ..tenants.remote_registry import UnreadTenants
from ..tenants.thread_throttle import ThreadThrottle
from ..tree.compose import Composition, adopt, compose, probed_addresses, with_registry
from ..upstream.health import Probes
from ..version import VERSION
from ..wire.clock import CoarseClock
from .admin_port import AdminPort
from .arguments import check_settings, read_mounts, read_port, read_ports
from .configuration_warnings import changed_ports, warnings_of
from .drain import Drain
from .followers import Followers
from .frontends import Frontends
from .metrics_sources import count_connections, count_for, count_tenants, counted_of, limits_of, registry_of
from .ports import Addresses, Ports, endpoints_of, reload_endpoints
from .process import Process
from .registry_follower import RegistryFollower
from .reload_files import read_files
from .retired_services import RetiredServices

_EVICTED_A_SECOND: Final = 5000
# The exceptions of settings that a reload refuses.
_REFUSED: Final = (ConfigurationError, AccessLogError, ValueError, OSError)
# The function that waits between two looks of a reload.
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
        # Every type checker accepts subclasses of Resource, not only those that know zope.interface.
        mounts: Mapping[str, IResource | Resource] | None = None,
        local_hosts: bool = False,
        reactor: Any = None,
        clock: Callable[[], float] = time.monotonic,
        process: Process | None = None,
    ) -> None:
        check_settings(settings)
        listen = settings.listen
        public = read_ports("ports", listen.port if ports is None else ports)
        admin = read_port("admin_port", listen.admin_port if admin_port is None else admin_port)
        redirecting = read_ports("redirect_ports", listen.redirect_port if redirect_ports is None else redirect_ports)
        self._mounts = read_mounts({} if mounts is None else mounts)
        if reactor is None:
            from twisted.internet import reactor
        self._reactor, self._time, self._local_hosts = reactor, clock, local_hosts
        self._coarse = CoarseClock(clock(), clock)
        self.counters = Counters()
        self.process = process = process or Process()
        self.notifier = process.notifier()
        self._ending = LoggedEnding(self.counters, settings.log, clock, process.number)
        self._retired = RetiredServices()
        self._bound = False
        self._trimmer = Trimmer()
        self._leavings = RetiredRegistries()
        self._followers = Followers(reactor, clock, self._ending, process.number, bool(redirecting))
        self._probes = Probes(reactor)
        self._refused_addresses = RefusedAddresses(self._coarse)
        self._full_limits = FullLimits()
        self._registry = RegistryFollower(
            reactor, lambda: self.composition, self.counters, self._refreshed, local_hosts=local_hosts
        )
        self._reloads = Reloads(
            daemon_threads(reactor, "reload"),
            lambda: self._read(ThreadThrottle()),
            self._take_up,
            self._refuse,
            self._begin_reload,
        )
        self._stopping = False
        self._sweeper = self._made_sweeper()
        self._take(self._composed(settings, None), None)
        self._frontends = frontends = Frontends(
            self.composition, reactor=reactor, clock=self._coarse, time=clock, finished=self._ending.finished
        )
        self.resource, self.site, self.redirect = frontends.resource, frontends.site, frontends.redirect
        self._endpoints = endpoints_of(settings, reactor, frontends.gate, process)
        self._followers.acme.operators = lambda: self._endpoints.contexts.operators
        self._endpoints.failures.charge = self._handshake_failed
        self._endpoints.failures.refusals = lambda: self.composition.policy.refusals
        self._ports = Ports(
            process.listening_on(reactor), self._endpoints, public, redirecting, [admin] if admin else []
        )
        self._drain = Drain(reactor, clock, self.site, self._ports, self._sweeper, self._close)
        counting = (self._probes, self._endpoints, self._ending, self._followers, self._sweeper.lag)
        self._metrics = registry_of(self.counters, lambda: self.composition, *counting, self.redirect)
        self._report = ServiceReport(self.notifier, lambda: counted_of(self.counters, self.site))

    def _made_sweeper(self) -> Sweeper:
        """The work at each tick, and once a second."""
        return Sweeper(
            self._coarse,
            self._time,
            self._reactor,
            parts=(
                self._sweep_exchanges,
                self._watch,
                lambda now: self._drain.sweep(now),
                lambda _: self._leavings.sweep(),
            ),
            seconds=(
                lambda _: self._ending.flush(),
                lambda now: self._report.look(now),
                lambda _: self.site.tick(),
                lambda _: self.process.publish(self.sampled),
                self._trimmer.look,
                lambda now: self.composition.policy.limiter.sweep(now, _EVICTED_A_SECOND),
                lambda now: self._refused_addresses.tell(self.composition.policy.limiter, now),
                lambda now: self._full_limits.tell(self.composition.policy.limiter, now),
                lambda now: self._frontends.gate.fault_log.sweep(now),
                lambda now: self.redirect.fault_log.sweep(now),
            ),
        )

    def _handshake_failed(self, host: str) -> bool:
        """Charge the limit on refusals for a failed handshake of this address; returns whether it is used up."""
        return self.composition.policy.limiter.refused(address_key(plain_host(host)), self._time())

    # -- composition and reload

    @property
    def settings(self) -> Settings:
        """The settings that are in force."""
        return self.composition.settings

    def _composed(self, settings: Settings, before: Composition | None) -> Composition:
        """The generation of these settings, which need not keep the registry."""
        return compose(
            replace(settings, registered=None),
            settings.registered,
            reactor=self._reactor,
            clock=self._coarse,
            mounts=self._mounts,
            local_hosts=self._local_hosts,
            before=before,
        )

    def _take(self, composition: Composition, before: Composition | None) -> None:
        """Put a generation into force."""
        if before is not None:
            adopt(composition, before)
        self.composition = composition
        for warning in warnings_of(composition, time.time()):
            self.log.warn("{warning}", warning=warning)
        self.composition = self._registry.follow(composition, before)
        self._probes.watch(probed_addresses(self.composition))
        count_for(self.counters, self.composition)
        self._leavings.follow(self.composition.policy.registry)
        self._followers.follow(self.composition)
        if before is not None:
            self._retired.retire(before.services, self.composition.services)

    def reload(self) -> bool:
        """Read configuration and tenants again; False if a fault left everything as it was.

        Certificates follow in a thread, each by itself: one that cannot be used leaves the previous one in place.
        Connections, pools and buckets stay. Changed ports need a restart. Reading blocks the reactor: `reload_aside`.
        """
        if self._stopping:
            self.log.info("not reloaded: the gateway is shutting down")
            return False
        self._begin_reload()
        try:
            return self._take_up(self._read(no_pause))
        except _REFUSED:
            return self._refuse(Failure())

    def reload_aside(self) -> None:
        """The same with files read in a thread, so that nothing is blocked. During a reload one more is requested."""
        if self._stopping:
            self.log.info("not reloaded: the gateway is shutting down")
        else:
            self._reloads.ask()

    def _begin_reload(self) -> None:
        self.notifier.reloading()
        self.process.reloading()

    def _read(self, rest: Callable[[], object]) -> Settings:
        """The present contents of the files. A changed registry file may be half written."""
        caution = StableReading(self._registry.seen, _wait)
        return read_files(self.settings, rest, caution, self.composition.policy.registry)

    def _take_up(self, settings: Settings) -> bool:
        """Put new settings into force, unless something in them cannot be used."""
        if self._stopping:
            return False
        before = self.composition
        log = None
        try:
            composition = self._composed(settings, before)
            log = self._ending.opened_for(settings.log)
        except _REFUSED:
            if log is not None:
                log.close()
            return self._refuse(Failure())
        self._ending.follow(settings.log, log)
        self._take(composition, before)
        self._frontends.serve(self.composition)
        reload_endpoints(self._endpoints, settings)
        for key in changed_ports(before.settings, settings):
            self.log.warn("listen.{key} has changed, which a reload cannot apply; restart the gateway", key=key)
        self.counters.reloads_ok += 1
        self.log.info("reloaded {source}", source=str(settings.source or "the defaults"))
        self.notifier.ready(f"serving on {self._ports}")
        self.process.reloaded(None)
        return True

    def _refuse(self, failure: Failure) -> bool:
        """Log why nothing has changed."""
        self.counters.reloads_failed += 1
        self.counters.reload_refused = True
        if not failure.check(*_REFUSED):
            self.log.failure("reload refused, nothing has changed", failure=failure)
        faults = failure.getErrorMessage().splitlines()
        for fault in faults:
            self.log.error("reload refused, nothing has changed: {line}", line=fault)
        self.notifier.ready("reload refused; serving the previous configuration")
        self.process.reloaded(faults)
        return False

    def reopen_logs(self) -> None:
        """Open the access log's file again, after a rotation."""
        self._ending.reopen()

    def _refreshed(self, registry: Registry) -> None:
        """The registry has been read again."""
        composition = self.composition
        policy = with_registry(composition.policy, composition.settings, registry, self._local_hosts)
        self.composition = replace(composition, policy=policy)
        count_tenants(self.counters, self.composition)
        self._leavings.follow(registry)
        self._followers.refreshed(self.composition)
        self._frontends.serve(self.composition)
        self.log.info("registry read again: {count} tenants", count=len(registry))

    # -- time

    def _sweep_exchanges(self, now: float) -> None:
        self.site.sweep(now)
        for service in self.composition.services.values():
            service.sweep(now)
        self.composition.tunnels.sweep(now)
        self._retired.sweep(now)
        self._followers.sweep(now, bool(self.running))

    def _watch(self, now: float) -> None:
        """Start what is watched while it serves: services' names and health, certificates, the registry."""
        if self.running:
            self.composition.names.sweep()
            # Names may stand for other addresses than at the last tick.
            self._probes.watch(probed_addresses(self.composition))
            self._probes.sweep(now)
            self._endpoints.sweep(now)
            self._registry.sweep(now, self.settings)

    # -- listening

    def privilegedStartService(self) -> None:
        """Bind every port while the process still has the privilege. Raises StartError."""
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
        contexts = self._endpoints.contexts
        admin = AdminPort(self, self._ports.endpoints, self._time, contexts).factory(self._reactor)
        faults = self._ports.bind(self.site, self.redirect, admin)
        if faults:
            raise StartError("\n".join(faults))

    @property
    def addresses(self) -> Addresses:
        """The addresses that it listens on: the ports', the redirect ports', the admin port's."""
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
        return self.process.metrics_page(self.sampled)

    def sampled(self) -> Present:
        """The state of this process, as it is now."""
        services = self.composition.services.values()
        retries = self._retired.retries + sum(service.retried for service in services)
        count_connections(self.counters, self.site, retries)
        return Present(self._metrics, self.unready(), limits_of(self.composition.policy, self._time()))

    # -- the end

    def stopService(self) -> Deferred[None]:
        """Stop accepting, finish exchanges in flight up to the drain deadline, close the rest."""
        super().stopService()
        if self._drain.ended is not None:
            return self._drain.ended
        self._stopping = True
        self.notifier.stopping()
        self._probes.stop()
        self._endpoints.stop()
        self._registry.stop()
        self.composition.tunnels.go_away()
        stopped = self._drain.begin(self.settings.timeouts.drain)
        self.log.info("draining: {count} exchanges in flight", count=self.site.in_flight)
        return stopped

    def close_admin(self) -> None:
        """Serve no more admin pages; the end does that too."""
        self._ports.close_admin()

    def _close(self) -> Deferred[Any]:
        """The drain has ended: close what is still open."""
        for service in self.composition.services.values():
            service.close_idle()
        self._retired.close_idle()
        self._ending.flush()
        self.process.publish(self.sampled)
        return self._followers.close(self._ports.close_admin())

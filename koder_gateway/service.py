"""The gateway as a Twisted service: what listens, what sweeps, what a reload replaces, and how it ends.

from koder_gateway import Gateway, load

gateway = Gateway(load(path))
gateway.setServiceParent(application)         # or mount gateway.resource in a Site of your own
"""

from __future__ import annotations

import resource as limits_of_process
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from twisted.application.service import Service as TwistedService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from .config import ConfigurationError, ServiceSettings, Settings, load, load_tenants
from .front.site import FrontLimits, FrontTimeouts, GatewaySite
from .ops.access_log import AccessLog, AccessLogError, LogTarget, open_target
from .ops.admin import admin_resource, admin_site
from .ops.memory import Trimmer
from .ops.metrics import Counters, Sources, make_registry, render
from .ops.notify import Notifier
from .ops.registry import MAX_LIST, Place, RemoteRegistry, UnreadTenants
from .policy.tenants import Registry, Tenant
from .tls.endpoints import EndpointError, Endpoints
from .tree.compose import Composition, compose, tenant_policy, upstream_endpoint, with_tenants
from .tree.entrance import Entrance
from .upstream.fetch import Fetcher
from .upstream.health import Probes
from .upstream.pool import Address, Service
from .version import VERSION
from .wire.clock import CoarseClock
from .wire.exchange import EVENTS, Exchange

# Deadlines are looked at this often; what changes by the second is renewed every so many sweeps.
SWEEP: Final = 0.25
_SWEEPS_A_SECOND: Final = 4
_EVICTED_A_SECOND: Final = 5000
# Descriptors that are neither clients nor services: logs, the reactor's own, files being read.
_SPARE_DESCRIPTORS: Final = 128


class StartError(Exception):
    """The gateway cannot start (or reload); each line says what to change."""


class Gateway(TwistedService):
    """One gateway. `resource` is its tree, to mount in any `twisted.web.server.Site`; started as a service it
    listens on `ports` (endpoint strings; those of the settings by default) and on the admin port.

    `mounts` are resources of yours by path, behind the same tenants and limits. `local_hosts` lets localhost and
    addresses stand for the base domain. The owner of a tree that is mounted elsewhere still starts the service
    (with no ports), since deadlines are swept by it.
    """

    log = Logger()
    name = "koder-gateway"

    def __init__(
        self,
        settings: Settings,
        *,
        ports: Sequence[str] | None = None,
        admin_port: str | None = None,
        mounts: Mapping[str, IResource] | None = None,
        local_hosts: bool = False,
        reactor: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self._reactor = reactor
        self._time = clock
        self._coarse = CoarseClock(clock())
        self._mounts = {path.encode("ascii"): resource for path, resource in (mounts or {}).items()}
        self._local_hosts = local_hosts
        self._ports = tuple(settings.listen.port if ports is None else ports)
        self._admin_port = settings.listen.admin_port if admin_port is None else admin_port
        self.counters = Counters()
        self.notifier = Notifier()
        self._target: LogTarget | None = None
        self._access: AccessLog | None = None
        self._open_log(settings)
        self._listening: list[IListeningPort] = []
        self._admin: list[IListeningPort] = []
        self._retired: list[Service] = []
        self._retries_before = 0
        self._bound = False
        self._sweeps = 0
        self._trimmer = Trimmer()
        self._probes = Probes(reactor)
        self._remote: RemoteRegistry | None = None
        self._registry_seen: object = None
        self._refresh_due = 0.0
        self._refreshing: Deferred[None] | None = None
        self._drained: Deferred[None] | None = None
        self._drain_ends = 0.0
        self._sweeper = LoopingCall(self._sweep)
        self._sweeper.clock = reactor
        self._settle = lambda verdict, status, served, now: None
        self._compose(settings)
        composition = self.composition
        self.resource = Entrance(composition.resource, composition.policy, composition.reader, self._finished, clock)
        self.site = GatewaySite(
            composition.resource,
            composition.policy,
            composition.reader,
            reactor=reactor,
            clock=self._coarse,
            finished=self._finished,
            timeouts=_front_timeouts(settings),
            limits=_front_limits(settings),
            time=clock,
        )
        self._endpoints = Endpoints(reactor, settings.tls, settings.state.dir, settings.tenants.base_domain)
        self._metrics = make_registry(self.counters, self._sources(), version=VERSION)

    # -- composition and reload

    @property
    def settings(self) -> Settings:
        """The settings that are in force."""
        return self.composition.settings

    def _compose(self, settings: Settings) -> None:
        """Make the generation of these settings the present one. The registry's tenants are not kept twice."""
        before: Composition | None = getattr(self, "composition", None)
        self.composition = compose(
            replace(settings, registered=None),
            settings.registered,
            reactor=self._reactor,
            clock=self._coarse,
            mounts=self._mounts,
            local_hosts=self._local_hosts,
            before=before,
        )
        self._follow_registry(settings, before)
        self._probes.watch(_probed(self.composition))
        self._settle = self.composition.policy.limiter.settle
        self.counters.tenants = len(self.composition.policy.registry)
        self._registry_seen = self._registry_state(settings)
        if before is not None:
            for name, service in before.services.items():
                if self.composition.services.get(name) is not service:
                    service.close_idle()
                    self._retired.append(service)

    def _follow_registry(self, settings: Settings, before: Composition | None) -> None:
        """Have the registry read that is behind a URL. The tenants before it stay until then, if they were known."""
        url = settings.tenants.registry
        place = Place(url, settings.tenants.base_domain, settings.state.dir) if isinstance(url, str) else None
        remote = self._remote
        if remote is not None and remote.place != place:
            remote.stop()
            remote = None
        if place is not None:
            policy = self.composition.policy
            if before is None or before.policy.registry.is_open or isinstance(before.policy.tenants, UnreadTenants):
                policy = replace(policy, registry=Registry(()), tenants=UnreadTenants())
            else:
                registry = before.policy.registry
                tenants = tenant_policy(settings, registry, self._local_hosts)
                policy = replace(policy, registry=registry, tenants=tenants)
            self.composition = replace(self.composition, policy=policy)
            remote = remote or self._remote_registry(place, settings.timeouts.connect)
            remote.again()
        self._remote = remote

    def _remote_registry(self, place: Place, connect: float) -> RemoteRegistry:
        endpoint = upstream_endpoint(self._reactor, place.url, connect, ServiceSettings("registry", (place.url,)))
        source = Fetcher(self._reactor, endpoint, place.url, MAX_LIST)
        return RemoteRegistry(place, source, self.counters, self._refreshed, self._reactor)

    def _serve_composition(self) -> None:
        composition = self.composition
        settings = composition.settings
        self.site.replace(
            composition.resource,
            composition.policy,
            composition.reader,
            _front_timeouts(settings),
            _front_limits(settings),
        )
        entrance = self.resource
        entrance.inner, entrance.policy, entrance.reader = (
            composition.resource,
            composition.policy,
            composition.reader,
        )

    def reload(self) -> bool:
        """Read configuration, tenants and certificates again; False when a fault left everything as it was.

        Connections, pools and buckets stay. What is listened on changes only with a restart.
        """
        self.notifier.reloading()
        try:
            settings = load(self.settings.source) if self.settings.source is not None else self.settings
            if settings.source is None:
                settings = replace(settings, registered=self._tenants_again())
            self._endpoints.reload(settings.tls, settings.tenants.base_domain)
            self._reopen_log(settings)
        except (ConfigurationError, EndpointError, AccessLogError, ValueError) as error:
            self.counters.reloads_failed += 1
            for line in str(error).splitlines():
                self.log.error("reload refused, nothing has changed: {line}", line=line)
            self.notifier.ready("reload refused; serving the configuration before it")
            return False
        self._compose(settings)
        self._serve_composition()
        self.counters.reloads_ok += 1
        self.log.info("reloaded {source}", source=str(settings.source or "the defaults"))
        self.notifier.ready("serving")
        return True

    def _tenants_again(self) -> tuple[Tenant, ...] | None:
        registry = self.settings.tenants.registry
        if isinstance(registry, Path):
            return load_tenants(registry, self.settings.tenants.base_domain)
        return None

    @staticmethod
    def _registry_state(settings: Settings) -> object:
        registry = settings.tenants.registry
        if not isinstance(registry, Path):
            return None
        try:
            status = registry.stat()
        except OSError as error:
            return error.errno
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _refresh(self) -> None:
        """Read the registry again if its file has changed, away from the reactor's thread."""
        settings = self.settings
        registry = settings.tenants.registry
        state = self._registry_state(settings)
        if not isinstance(registry, Path) or state == self._registry_seen or self._refreshing is not None:
            return
        self._registry_seen = state
        work = deferToThreadPool(
            self._reactor, self._reactor.getThreadPool(), load_tenants, registry, settings.tenants.base_domain
        )
        self._refreshing = work.addCallbacks(self._refreshed, self._not_refreshed)

    def _refreshed(self, tenants: tuple[Tenant, ...]) -> None:
        self._refreshing = None
        composition = self.composition
        policy = with_tenants(composition.policy, composition.settings, tenants, self._local_hosts)
        self.composition = replace(composition, policy=policy)
        self.counters.tenants = len(policy.registry)
        self._serve_composition()
        self.log.info("registry read again: {count} tenants", count=len(tenants))

    def _not_refreshed(self, failure: Failure) -> None:
        self._refreshing = None
        self.counters.registry_failures += 1
        for line in failure.getErrorMessage().splitlines():
            self.log.error("registry not read again, the tenants before it stay: {line}", line=line)

    # -- the end of each exchange

    def _finished(self, exchange: Exchange) -> None:
        """Once for every exchange: charge what is owed, count, log."""
        now = self._time()
        verdict: Any = exchange.charges
        if verdict is not None and verdict.pending:
            # Besides refusals' codes there are those of exchanges that ended within an answer of the service's.
            served = not exchange.code or exchange.code in EVENTS
            self._settle(verdict, exchange.status, served, now)
        duration = now - exchange.started
        code = exchange.code
        counters = self.counters
        counters.observe(exchange.service, exchange.status, duration, exchange.bytes_in, exchange.bytes_out)
        if code:
            counters.refuse(code)
        access = self._access
        if access is not None:
            head = exchange.head
            access.line(
                time.time(),
                exchange.request_id,
                exchange.tenant,
                exchange.peer,
                head.method,
                head.path,
                exchange.route,
                exchange.service,
                exchange.status,
                code,
                exchange.bytes_in,
                exchange.bytes_out,
                duration,
            )

    def _open_log(self, settings: Settings) -> None:
        if not settings.log.access:
            self._target = self._access = None
            return
        self._target = open_target(settings.log.file)
        self._access = AccessLog(self._target)

    def _reopen_log(self, settings: Settings) -> None:
        """A file that was rotated away is opened again; another file, or none, is what the settings may say."""
        before = self.settings.log
        if settings.log != before:
            self._flush_log()
            old = self._target
            self._open_log(settings)
            if old is not None:
                old.close()
        elif self._target is not None:
            self._flush_log()
            self._target.reopen()

    def _flush_log(self) -> None:
        if self._access is not None:
            self._access.flush()

    # -- time

    def _sweep(self) -> None:
        now = self._coarse.now = self._time()
        self.site.sweep(now)
        for service in self.composition.services.values():
            service.sweep(now)
        if self._retired:
            self._sweep_retired(now)
        self._sweeps += 1
        if self._sweeps % _SWEEPS_A_SECOND == 0:
            self.site.tick()
            self._flush_log()
            self._trimmer.look(len(self.site.channels))
            self.composition.policy.limiter.sweep(now, _EVICTED_A_SECOND)
            if self.notifier.watchdog_interval is not None:
                self.notifier.watchdog()
        if now >= self._refresh_due:
            self._refresh_due = now + self.settings.tenants.refresh
            self._refresh()
        if self.running:
            self._probes.sweep(now)
            if self._remote is not None:
                self._remote.sweep(now, self.settings.tenants.refresh)
        if self._drained is not None and (not self.site.channels or now >= self._drain_ends):
            self._end_drain()

    def _sweep_retired(self, now: float) -> None:
        """Services that a reload has replaced live until their last exchange has ended."""
        for service in self._retired:
            service.sweep(now)
            if not service.active:
                self._retries_before += service.retried
        self._retired = [service for service in self._retired if service.active]

    # -- listening

    def privilegedStartService(self) -> None:
        """Bind every port while the process may. Raises StartError."""
        super().privilegedStartService()
        self._bind()

    def startService(self) -> None:
        """Begin to serve. Raises StartError."""
        self._bind()
        super().startService()
        self._sweeper.start(SWEEP, now=True)
        where = ", ".join(self._ports) or "no port of its own"
        self.log.info("koder-gateway {version} serves on {where}", version=VERSION, where=where)
        self.notifier.ready(f"serving on {where}")

    def _bind(self) -> None:
        if self._bound:
            return
        self._bound = True
        faults: list[str] = []
        for text in self._ports:
            self._listen(text, self.site, faults)
        if self._admin_port:
            root = admin_resource(self.unready, lambda: self.metrics())
            self._listen(self._admin_port, admin_site(root, self._reactor), faults, admin=True)
        if faults:
            self._close(self._listening)
            self._close(self._admin)
            raise StartError("\n".join(faults))

    def _listen(self, text: str, factory: Any, faults: list[str], *, admin: bool = False) -> None:
        try:
            if admin:
                endpoint = serverFromString(self._reactor, text)
            else:
                endpoint, _secure = self._endpoints.server(text)
        except EndpointError as error:
            faults.extend(str(error).splitlines())
            return
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            faults.append(f'endpoint "{text}": {error}; write it as in "tcp:9090:interface=127.0.0.1"')
            return
        deferred = maybeDeferred(endpoint.listen, factory)
        deferred.addCallback((self._admin if admin else self._listening).append)
        deferred.addErrback(lambda failure: faults.append(_bind_fault(text, failure)))

    @property
    def addresses(self) -> list[Any]:
        """The addresses that are listened on, the ports' before the admin port's."""
        return [port.getHost() for port in (*self._listening, *self._admin)]

    @staticmethod
    def _close(ports: list[IListeningPort]) -> list[Deferred[Any]]:
        closing = [maybeDeferred(port.stopListening) for port in ports]
        ports.clear()
        return closing

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
        counters.exchanges = site.in_flight
        services = [*self.composition.services.values(), *self._retired]
        counters.retries = self._retries_before + sum(service.retried for service in services)
        return render(self._metrics)

    def _sources(self) -> Sources:
        return Sources(
            upstream=lambda: {
                name: (service.idle, service.active) for name, service in self.composition.services.items()
            },
            healthy=lambda: self._probes.healthy,
            limits=lambda: [
                (meter.rule.name, meter.admitted, meter.refused, meter.shadowed)
                for meter in self.composition.policy.limiter.meters
            ],
            limit_entries=lambda: self.composition.policy.limiter.entries,
            certificates=lambda: self._endpoints.expiries(),
            log_dropped=lambda: self._access.dropped if self._access is not None else 0,
        )

    # -- the end

    def stopService(self) -> Deferred[None]:
        """Stop accepting, finish what is under way up to the drain deadline, close the rest."""
        super().stopService()
        if self._drained is not None:
            return self._drained
        self.notifier.stopping()
        self._probes.stop()
        if self._remote is not None:
            self._remote.stop()
        drained: Deferred[None] = Deferred()
        self._drained = drained
        closing = DeferredList(self._close(self._listening), consumeErrors=True)
        self._drain_ends = self._time() + self.settings.timeouts.drain
        self.site.drain()
        self.log.info("draining: {count} exchanges in flight", count=self.site.in_flight)
        if not self._sweeper.running or not self.site.channels:
            self._end_drain()
        return closing.addCallback(lambda _: drained)

    def _end_drain(self) -> None:
        drained, self._drained = self._drained, None
        if self._sweeper.running:
            self._sweeper.stop()
        self.site.end_drain()
        for service in (*self.composition.services.values(), *self._retired):
            service.close_idle()
        self._flush_log()
        closed = DeferredList(self._close(self._admin), consumeErrors=True)
        if drained is not None:
            # One more turn, so that what was written last leaves and closed connections are seen to be.
            closed.addCallback(lambda _: self._reactor.callLater(0, drained.callback, None))


def _probed(composition: Composition) -> Iterator[tuple[Address, str]]:
    """The addresses to probe, each with its health path."""
    for name, service in composition.services.items():
        path = composition.settings.services[name].health
        if path is not None:
            for address in service.addresses:
                yield address, path


def _front_timeouts(settings: Settings) -> FrontTimeouts:
    timeouts = settings.timeouts
    return FrontTimeouts(
        head=timeouts.head,
        body=timeouts.body,
        keepalive=timeouts.keepalive,
        linger=timeouts.linger,
        idle=timeouts.idle,
        exchange=timeouts.exchange,
    )


def _front_limits(settings: Settings) -> FrontLimits:
    requests = settings.requests
    return FrontLimits(
        max_head=requests.max_head,
        max_target=requests.max_target,
        max_fields=requests.max_fields,
        min_rate=requests.min_rate,
        max_connections=settings.listen.max_connections or _connections_allowed(settings),
    )


def _connections_allowed(settings: Settings) -> int:
    """As many clients as descriptors allow when every service has all its connections open."""
    soft, _hard = limits_of_process.getrlimit(limits_of_process.RLIMIT_NOFILE)
    if soft == limits_of_process.RLIM_INFINITY:
        soft = 1 << 20
    reserved = sum(settings.services[name].max_connections for name in {r.service for r in settings.routes})
    return max(soft // 2, soft - reserved - _SPARE_DESCRIPTORS)


def _bind_fault(text: str, failure: Failure) -> str:
    return f'endpoint "{text}": cannot listen: {failure.getErrorMessage()}'

"""The one place that builds the tree: settings in, policy, pools and resources out.

    SiteAdapter ─ TenantGuard ─ AccessGuard ─ RateGuard ─ Routes ─┬ ProxyResource (service)
                                                                  └ any mounted IResource

A reload composes a new tree beside the old one. Pools are carried over by service, buckets by rule.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from twisted.web.resource import IResource

from ..config import ServiceSettings, Settings
from ..policy.certificates import ClientAuth
from ..policy.clients import TrustedProxies
from ..policy.cors import CorsPolicy
from ..policy.decision import Policy
from ..policy.limits import Limiter
from ..policy.routing import PathSet, Route, RouteTable
from ..policy.sampling import Sampler
from ..policy.tenants import Registry, Tenant, TenantPolicy
from ..reactor.turns import turns_of
from ..upstream.address import Address
from ..upstream.failure_window import Ejection
from ..upstream.health import ProbePlan
from ..upstream.name_resolution import ResolvedNames
from ..upstream.pool import Service, ServiceTimeouts
from ..upstream.trust import Trust, read_trust
from ..upstream.tunnel import Tunnels
from ..wire.clock import CoarseClock
from ..wire.refusal_writer import RefusalWriter
from ..wire.request_reader import RequestReader
from ..wire.response import ResponseReader
from .bounds import shares_of
from .guards import guarded
from .limits_store import Sharing, make_sharing, secret_of
from .proxy import ProxyResource
from .routes import Routes
from .server_endpoints import named_addresses, upstream_endpoint

if TYPE_CHECKING:
    from ..policy.signed_context import ContextSigner


@dataclass(frozen=True, slots=True)
class Composition:
    """One generation of the gateway: what a reload replaces as one."""

    settings: Settings
    policy: Policy
    reader: RequestReader
    services: Mapping[str, Service]
    tunnels: Tunnels
    names: ResolvedNames
    resource: IResource
    registry: ServiceSettings | None = None
    """The service that has the registry, if that is behind a URL; its files as `registry_trust`."""
    registry_trust: Trust | None = None
    sharing: Sharing | None = None
    """The store that limits are shared on; None if they are not."""


def make_policy(
    settings: Settings,
    tenants: Iterable[Tenant] | None,
    *,
    mounts: Iterable[bytes] = (),
    local_hosts: bool = False,
    sharing: Sharing | None = None,
) -> Policy:
    """The policy of these settings and tenants (None: every slug is one)."""
    registry = tenants if isinstance(tenants, Registry) else Registry(tenants)
    shared = None if sharing is None else sharing.limits
    limiter = Limiter(settings.limits, settings.limits_store.max_entries, secret_of(sharing), shared)
    cors = settings.cors
    return Policy(
        registry=registry,
        tenants=tenant_policy(settings, registry, local_hosts),
        tenant_header=settings.tenants.header.encode("ascii"),
        cors=CorsPolicy(
            cors.origins,
            methods=cors.methods,
            headers=cors.headers,
            expose=_together(cors.expose, cors.expose_add),
            max_age=int(cors.max_age),
            credentials=cors.credentials,
        ),
        limiter=limiter,
        routes=_route_table(settings, mounts),
        proxies=TrustedProxies(settings.listen.trusted_proxies),
        max_body=settings.requests.max_body,
        hsts=_hsts_line(settings),
        client_auth=_client_auth(settings),
        forwarded_fields=_lower(settings.listen.forwarded_fields),
        signer=_signer(settings),
        sampler=_sampler(settings),
        refusals=RefusalWriter(settings.problems.docs_url),
        suspended_allow=PathSet(path.encode() for path in settings.tenants.suspended_allow),
    )


def _signer(settings: Settings) -> ContextSigner | None:
    context = settings.context
    if context.key_file is None:
        return None
    from ..policy.signed_context import ContextSigner

    return ContextSigner(context.key_file.key, [each.key for each in context.published_key_files], time.time)


def _sampler(settings: Settings) -> Sampler | None:
    tracing = settings.tracing
    return None if tracing.endpoint is None else Sampler(tracing.sample, tracing.client_traces)


def _route_table(settings: Settings, mounts: Iterable[bytes]) -> RouteTable:
    urls = {name: service.urls for name, service in settings.services.items()}
    return RouteTable([*settings.routes, *(Route(path, "") for path in mounts)], urls)


def _hsts_line(settings: Settings) -> bytes:
    value = settings.tls.hsts
    return b"Strict-Transport-Security: %b\r\n" % value.encode("ascii") if value else b""


def _client_auth(settings: Settings) -> ClientAuth:
    authorities = settings.tls.client_ca
    return ClientAuth() if authorities is None else ClientAuth(settings.tls.client_auth, authorities.digest)


def tenant_policy(settings: Settings, registry: Registry, local_hosts: bool) -> TenantPolicy:
    """How tenants are resolved with this registry."""
    tenants = settings.tenants
    return TenantPolicy(tenants.base_domain, tenants.header, tenants.default, registry, local_hosts)


def with_registry(policy: Policy, settings: Settings, registry: Registry, local_hosts: bool) -> Policy:
    """The same policy over a registry that was read again."""
    return replace(policy, registry=registry, tenants=tenant_policy(settings, registry, local_hosts))


def make_reader(settings: Settings) -> RequestReader:
    """The reader of requests' heads."""
    requests = settings.requests
    return RequestReader(
        settings.tenants.header.encode("ascii"),
        max_target=requests.max_target,
        max_fields=requests.max_fields,
        upgrades=requests.max_tunnels > 0,
        allowed_fields=_lower(requests.allow_fields),
        trailers=_lower(requests.allow_trailers),
    )


def _together(names: Iterable[str], added: Iterable[str]) -> list[str]:
    """Header names, each once regardless of case."""
    return list({name.lower(): name for name in (*names, *added)}.values())


def _lower(names: Iterable[str]) -> frozenset[bytes]:
    return frozenset(name.lower().encode("ascii") for name in names)


def _response_reader(settings: Settings) -> ResponseReader:
    return ResponseReader(settings.tenants.header.encode("ascii"), alt_svc=settings.listen.alt_svc)


def trust_of(entry: ServiceSettings) -> Trust | None:
    """The present files of a service, None for one without TLS. Raises ValueError, a line for each fault."""
    if not any(url.startswith("https:") for url in entry.urls):
        return None
    return read_trust(entry.ca, entry.client_cert, entry.client_key)


def registry_service(settings: Settings) -> ServiceSettings | None:
    """The service that has the list of tenants: the one at the same address, whose TLS settings then apply, else one
    that is not configured. None if the registry is not behind a URL."""
    url = settings.tenants.registry
    if not isinstance(url, str):
        return None
    origin = _origin(url)
    for entry in settings.services.values():
        if origin in map(_origin, entry.urls):
            return entry
    return ServiceSettings("registry", (url,))


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or parts.path, parts.port or (443 if parts.scheme == "https" else 80)


def make_services(
    settings: Settings,
    reactor: Any,
    clock: CoarseClock,
    before: Mapping[str, tuple[ServiceSettings, Service]],
    tunnels: Tunnels,
    names: ResolvedNames,
) -> dict[str, Service]:
    """The services that routes name. One whose settings have not changed, nor the contents of the files that they
    name, keeps its pool, and is not touched yet.

    Raises ValueError with a line for each fault of files that cannot be used.
    """
    reader = _response_reader(settings)
    services: dict[str, Service] = {}
    faults: list[str] = []
    for name in sorted({route.service for route in settings.routes}):
        entry = settings.services[name]
        old = before.get(name)
        try:
            trust = trust_of(entry)
            if old is not None and old[0] == entry and old[1].trust == trust:
                services[name] = old[1]
                continue
            connect = entry.connect or settings.timeouts.connect
            addresses = [(url, upstream_endpoint(reactor, url, connect, entry, trust, names)) for url in entry.urls]
            named = named_addresses(reactor, connect, entry, trust, names)
        except (OSError, ValueError) as error:
            faults += [f"services.{name}: {fault}" for fault in str(error).splitlines()]
            continue
        service = services[name] = Service(
            name,
            addresses,
            reader,
            clock,
            later=turns_of(reactor).later,
            timeouts=_service_timeouts(entry, settings),
            max_connections=entry.max_connections,
            tunnels=tunnels,
            trust=trust,
            isolate=entry.isolate,
            turns=turns_of(reactor),
            named=named,
            ejection=Ejection(entry.eject_failures, entry.eject_window, frozenset(entry.eject_statuses)),
            slow_start=entry.slow_start,
            retry_after=5 if entry.health is None else math.ceil(entry.health.interval),
        )
        if old is not None:
            service.keep_counts(old[1])
        _set_bounds(service, entry, settings)
    if faults:
        raise ValueError("\n".join(faults))
    return services


def _set_bounds(service: Service, entry: ServiceSettings, settings: Settings) -> None:
    service.set_timeouts(_service_timeouts(entry, settings))
    service.capacity.allow(shares_of(service.max_connections, settings), settings.timeouts.queue)


def _service_timeouts(entry: ServiceSettings, settings: Settings) -> ServiceTimeouts:
    timeouts = settings.timeouts
    return ServiceTimeouts(
        response=entry.response or timeouts.response,
        idle=timeouts.idle,
        keepalive=timeouts.upstream_keepalive if entry.keepalive is None else entry.keepalive,
    )


def _set_tunnel_bounds(tunnels: Tunnels, settings: Settings) -> None:
    timeouts, most = settings.timeouts, settings.requests.max_tunnels
    tunnels.allow(most, timeout=timeouts.tunnel, ending=timeouts.idle, shares=shares_of(most, settings))


def certificate_warnings(composition: Composition, now: float, ahead: float = 0.0) -> list[str]:
    """A line for each usable file of a service or of the store that is not valid now, or will not be in `ahead`
    seconds; `now`: seconds since the epoch."""
    trusts = {f"services.{name}": service.trust for name, service in composition.services.items()}
    trusts["tenants.registry"] = composition.registry_trust
    trusts["limits_store"] = None if composition.sharing is None else composition.sharing.trust
    told: dict[str, str] = {}
    for where, trust in trusts.items():
        for line in () if trust is None else trust.warnings(now, ahead):
            told.setdefault(line, f"{where}: {line}")
    return list(told.values())


def adopt(composition: Composition, before: Composition) -> None:
    """Let a generation take over from the previous one: its buckets, and under new timeouts the pools that it keeps.

    Before that nothing of the previous one has changed, so that a reload can still be refused.
    """
    settings = composition.settings
    composition.policy.limiter.adopt(before.policy.limiter)
    _set_tunnel_bounds(composition.tunnels, settings)
    for name, service in composition.services.items():
        if before.services.get(name) is service:
            service.reader = _response_reader(settings)
            _set_bounds(service, settings.services[name], settings)


def compose(
    settings: Settings,
    tenants: Iterable[Tenant] | None,
    *,
    reactor: Any,
    clock: CoarseClock,
    mounts: Mapping[bytes, IResource] | None = None,
    local_hosts: bool = False,
    before: Composition | None = None,
) -> Composition:
    """A new generation. For settings that `load` has accepted it raises ValueError where files that services name
    cannot be used."""
    mounted = dict(mounts or {})
    kept = {}
    if before is not None and before.settings.timeouts.connect == settings.timeouts.connect:
        kept = {name: (before.settings.services[name], service) for name, service in before.services.items()}
    if before is None:
        tunnels, names = Tunnels(clock), ResolvedNames(reactor)
        _set_tunnel_bounds(tunnels, settings)
    else:
        tunnels, names = before.tunnels, before.names
    registry, registry_trust, sharing = registry_service(settings), None, None
    faults: list[str] = []
    try:
        services = make_services(settings, reactor, clock, kept, tunnels, names)
    except ValueError as error:
        services, faults = {}, str(error).splitlines()
    try:
        registry_trust = None if registry is None else trust_of(registry)
    except ValueError as error:
        # The faults of a service that routes use have already been reported.
        told = {fault.partition(": ")[2] for fault in faults}
        faults += [f"tenants.registry: {fault}" for fault in str(error).splitlines() if fault not in told]
    try:
        sharing = make_sharing(settings, reactor, clock, names, None if before is None else before.sharing)
    except ValueError as error:
        faults += [f"limits_store: {fault}" for fault in str(error).splitlines()]
    if faults:
        raise ValueError("\n".join(faults))
    policy = make_policy(settings, tenants, mounts=mounted, local_hosts=local_hosts, sharing=sharing)
    policy.limiter.begin(clock.now)
    leaves: dict[bytes, IResource] = {route.path: ProxyResource(services[route.service]) for route in settings.routes}
    leaves.update(mounted)
    resource = guarded(Routes(leaves))
    return Composition(
        settings, policy, make_reader(settings), services, tunnels, names, resource, registry, registry_trust, sharing
    )


def probed_addresses(composition: Composition) -> Iterator[tuple[Address, ProbePlan]]:
    """The addresses to probe, each with how: the Host is that of requests, which a service may be particular about;
    with a name of its own in TLS that one."""
    settings = composition.settings
    for name, service in composition.services.items():
        entry = settings.services[name]
        health = entry.health
        if health is not None:
            plan = ProbePlan(
                health.path,
                health.host or entry.server_name or settings.tenants.base_domain,
                health.interval,
                health.timeout,
                health.unhealthy,
                health.healthy,
                health.status,
            )
            for address in service.addresses:
                yield address, plan

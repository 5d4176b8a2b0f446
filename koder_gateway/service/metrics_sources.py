"""Metrics that other objects count and that are queried when the page is read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from prometheus_client import CollectorRegistry

from ..config.acme import TLS_ALPN
from ..downstream.site import GatewaySite
from ..errors import CODES
from ..exchange.states import EARLY_ENDS, SERVICE_FAULTS
from ..limits_store.store import BOUNDS
from ..listening.endpoints import Endpoints
from ..listening.redirect import RedirectSite
from ..ops.acme_metrics import AcmeCollector, AcmeFigures
from ..ops.address_metrics import AddressCollector, AddressUse
from ..ops.counters import Counters
from ..ops.limits_page import RuleDocument, rule_documents
from ..ops.logged_ending import LoggedEnding
from ..ops.loop_lag import LoopLag
from ..ops.metric_sources import Sources, StoreFigures
from ..ops.metrics import make_registry
from ..ops.service_report import Counted
from ..policy.decision import Policy
from ..policy.limits import Limiter
from ..tree.compose import Composition
from ..tree.limits_store import Sharing
from ..upstream.health import Probes
from ..version import VERSION
from .acme_follower import AcmeFollower
from .dependencies import degraded
from .followers import Followers


def registry_of(
    counters: Counters,
    present: Callable[[], Composition],
    probes: Probes,
    endpoints: Endpoints,
    ending: LoggedEnding,
    followers: Followers,
    lag: LoopLag,
    redirect: RedirectSite,
) -> CollectorRegistry:
    """The metrics of one gateway. `present` returns the generation in force."""
    sources = Sources(
        upstream=lambda: {name: (service.idle, service.active) for name, service in present().services.items()},
        waiting=lambda: {name: service.capacity.waiting for name, service in present().services.items()},
        refused=lambda: {
            (name, reason): count
            for name, service in present().services.items()
            for reason, count in service.capacity.refused.items()
        },
        healthy=lambda: probes.healthy,
        available=lambda: {
            (name, address.url): not address.out(service.clock.now)
            for name, service in present().services.items()
            for address in service.addresses
        },
        ejections=lambda: {name: service.ejections for name, service in present().services.items()},
        retries_denied=lambda: {name: service.retry_budget.denied for name, service in present().services.items()},
        handshakes=lambda: endpoints.failures.completed.counts,
        handshakes_failed=lambda: endpoints.failures.counts,
        tunnels=lambda: present().tunnels.by_service(),
        tunnelled=lambda: present().tunnels.opened,
        limits=lambda: present().policy.limiter.counts(),
        limits_in_flight=lambda: present().policy.limiter.in_flight(),
        limit_entries=lambda: _limit_entries(present().policy.limiter),
        store=lambda: _store_figures(present().sharing),
        spans=lambda: followers.tracing.figures,
        loop_lag=lambda: lag,
        degraded=degraded,
        certificates=lambda: endpoints.expiries(),
        certificate_faults=lambda: endpoints.faulty,
        log_dropped=lambda: ending.dropped,
    )
    registry = make_registry(counters, sources, version=VERSION)
    registry.register(AddressCollector(lambda: _address_uses(present()), lambda: _service_failures(present())))
    registry.register(AcmeCollector(lambda: _acme_figures(present(), followers.acme, endpoints, redirect)))
    return registry


def _acme_figures(
    composition: Composition, acme: AcmeFollower, endpoints: Endpoints, redirect: RedirectSite
) -> AcmeFigures | None:
    settings = composition.settings.acme
    if settings.directory is None:
        return None
    asked = endpoints.contexts.challenges if settings.challenge == TLS_ALPN else redirect.challenges
    return AcmeFigures(
        acme.orders if acme.on else {},
        acme.names if acme.on else {},
        acme.next_renewal,
        {(settings.challenge, result): count for result, count in asked.items()},
    )


def _limit_entries(limiter: Limiter) -> tuple[int, int, int]:
    return limiter.entries, limiter.max_entries, limiter.crowded_out


def _address_uses(composition: Composition) -> Iterator[AddressUse]:
    """The present use of each address of each service."""
    for name, service in composition.services.items():
        for address in service.addresses:
            yield AddressUse(name, address.url, len(address.idle), address.pending)


def _service_failures(composition: Composition) -> Mapping[str, Mapping[str, int]]:
    """The failed exchanges of each service, by reason; all reasons are there from the start."""
    known = dict.fromkeys(SERVICE_FAULTS, 0)
    return {name: known | service.failures for name, service in composition.services.items()}


def _store_figures(sharing: Sharing | None) -> StoreFigures | None:
    if sharing is None:
        return None
    store = sharing.store
    return StoreFigures(store.up, store.missed, sharing.limits.without, BOUNDS, tuple(store.times), store.seconds)


def count_for(counters: Counters, composition: Composition) -> None:
    """Count for this generation from now on."""
    settings = composition.settings
    counters.configured_at, counters.config_digest, counters.reload_refused = time.time(), settings.digest, False
    if settings.registry_version is not None:
        counters.registry_skipped = settings.registry_skipped
    if not isinstance(settings.tenants.registry, str):
        # A file has been read with the configuration; a URL is asked later.
        counters.registry_unread = False
    counters.expect(("", *composition.services), (*CODES, *EARLY_ENDS))
    counters.keep_routes(route.path for route in composition.policy.routes.routes)
    count_tenants(counters, composition)


def count_tenants(counters: Counters, composition: Composition) -> None:
    """Count for the tenants of this generation's registry, which may have been read again."""
    registry = composition.policy.registry
    counters.tenants = len(registry)
    exists = None if registry.is_open else lambda slug: registry.find(slug) is not None
    counters.tenant_counts.follow(composition.settings.metrics.tenants, exists)


def count_connections(counters: Counters, site: GatewaySite, retries: int) -> None:
    """Take over what the site has counted, and the retries at services."""
    counters.connections = site.accepted
    counters.connections_open = len(site.channels)
    counters.connections_rejected = site.rejected
    counters.http2_errors = site.http2_errors
    counters.exchanges = site.in_flight
    counters.retries = retries


def counted_of(counters: Counters, site: GatewaySite) -> Counted:
    """What systemd's status line shows."""
    ended = sum(sum(series.classes) for series in counters.series.values())
    return Counted(ended, len(site.channels), counters.tenants)


def limits_of(policy: Policy, now: float) -> Callable[[], list[RuleDocument]]:
    """What returns the limits as this process knows them. `now` is monotonic seconds."""
    return partial(rule_documents, policy.limiter, policy.figures, now, time.time())

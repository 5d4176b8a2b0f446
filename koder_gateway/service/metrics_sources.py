"""Metrics that other objects count and that are queried when the page is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry

from ..downstream.site import GatewaySite
from ..exchange.states import SERVICE_FAULTS
from ..limits_store.store import BOUNDS
from ..listening.endpoints import Endpoints
from ..ops.address_metrics import AddressCollector, AddressUse
from ..ops.logged_ending import LoggedEnding
from ..ops.metrics import Counters, Sources, StoreFigures, make_registry
from ..ops.service_report import Counted
from ..tree.compose import Composition
from ..tree.limits_store import Sharing
from ..upstream.health import Probes
from ..version import VERSION


def registry_of(
    counters: Counters, present: Callable[[], Composition], probes: Probes, endpoints: Endpoints, ending: LoggedEnding
) -> CollectorRegistry:
    """The metrics of one gateway. `present` returns the generation in force."""
    registry = make_registry(counters, _sources_of(present, probes, endpoints, ending), version=VERSION)
    registry.register(
        AddressCollector(lambda: _address_uses(present()), lambda: _service_failures(present())),
    )
    return registry


def _sources_of(
    present: Callable[[], Composition], probes: Probes, endpoints: Endpoints, ending: LoggedEnding
) -> Sources:
    return Sources(
        upstream=lambda: {name: (service.idle, service.active) for name, service in present().services.items()},
        waiting=lambda: {name: service.capacity.waiting for name, service in present().services.items()},
        refused=lambda: {
            (name, reason): count
            for name, service in present().services.items()
            for reason, count in service.capacity.refused.items()
        },
        healthy=lambda: probes.healthy,
        handshakes_failed=lambda: endpoints.failures.counts,
        tunnels=lambda: present().tunnels.by_service(),
        tunnelled=lambda: present().tunnels.opened,
        limits=lambda: present().policy.limiter.counts(),
        limits_in_flight=lambda: present().policy.limiter.in_flight(),
        limit_entries=lambda: present().policy.limiter.entries,
        store=lambda: _store_figures(present().sharing),
        certificates=lambda: endpoints.expiries(),
        certificate_faults=lambda: endpoints.faulty,
        log_dropped=lambda: ending.dropped,
    )


def _address_uses(composition: Composition) -> Iterator[AddressUse]:
    """The present use of each address of each service."""
    for name, service in composition.services.items():
        now = service.clock.now
        for address in service.addresses:
            yield AddressUse(name, address.url, address.available(now), len(address.idle), len(address.busy))


def _service_failures(composition: Composition) -> Mapping[str, Mapping[str, int]]:
    """The failed exchanges of each service, by reason; all reasons are there from the start."""
    known = dict.fromkeys(SERVICE_FAULTS, 0)
    return {name: known | service.failures for name, service in composition.services.items()}


def _store_figures(sharing: Sharing | None) -> StoreFigures | None:
    if sharing is None:
        return None
    store = sharing.store
    return StoreFigures(store.up, store.missed, sharing.limits.without, BOUNDS, tuple(store.times), store.seconds)


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

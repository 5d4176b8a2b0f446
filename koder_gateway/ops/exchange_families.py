"""The metric families of exchanges: by service, by route and method, by protocol, by tenant.

Labels are not multiplied: each family has those of one question, so that their number stays the sum of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.core import Metric

from .counters import BUCKETS, Counters
from .metric_families import counter, cumulative, gauge, histogram
from .tenant_counts import CLASSES

# Classes that are shown from the first exchange on, of whatever class: the rate of a series that starts later misses
# its first event.
_ALWAYS: Final = frozenset(("2xx", "3xx", "4xx", "5xx"))


def exchange_families(counters: Counters) -> Iterator[Metric]:
    """The families of exchanges."""
    yield from _services(counters)
    yield gauge("exchanges_in_flight", "Exchanges that have begun and not ended.", value=counters.exchanges)
    refusals = counter("refusals", "Responses of the gateway itself, by code.", "code")
    for code, count in sorted(counters.refusals.items()):
        refusals.add_metric([code], count)
    yield refusals
    routes = counter("route_requests", "Exchanges that ended, by route and method.", "route", "method", "status")
    for (route, method), classes in sorted(counters.routes.items()):
        for name, count in _shown(classes):
            routes.add_metric([route, method, name], count)
    yield routes
    protocols = counter("protocol_requests", "Exchanges that ended, by protocol.", "protocol")
    for protocol, count in counters.protocols.items():
        protocols.add_metric([protocol], count)
    yield protocols
    tenants = counter("tenant_requests", "Exchanges that ended, by tenant.", "tenant", "status")
    for tenant, classes in counters.tenant_counts:
        for name, count in _shown(classes):
            tenants.add_metric([tenant, name], count)
    yield tenants


def _services(counters: Counters) -> Iterator[Metric]:
    requests = counter("requests", "Exchanges that ended, by service and class of status.", "service", "status")
    received = counter("received_bytes", "Bytes of request bodies from clients.", "service")
    sent = counter("sent_bytes", "Bytes of response bodies to clients.", "service")
    text = "Time from a request's complete head to the end of its exchange."
    duration = histogram("request_duration_seconds", text, "service")
    text = "Time from a request's way to its service until the head of the response."
    first_byte = histogram("service_first_byte_seconds", text, "service")
    for service, series in sorted(counters.series.items()):
        for name, count in zip(CLASSES, series.classes, strict=True):
            requests.add_metric([service, name], count)
        received.add_metric([service], series.bytes_in)
        sent.add_metric([service], series.bytes_out)
        duration.add_metric([service], cumulative(series.durations, BUCKETS), series.seconds)
        if service:
            first_byte.add_metric([service], cumulative(series.first_bytes, BUCKETS), series.first_seconds)
    yield from (requests, received, sent, duration, first_byte)


def _shown(classes: Sequence[int]) -> Iterator[tuple[str, int]]:
    for name, count in zip(CLASSES, classes, strict=True):
        if count or name in _ALWAYS:
            yield name, count

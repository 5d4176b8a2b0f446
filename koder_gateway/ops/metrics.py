"""The gateway's counters, and the metrics page (Prometheus text format).

The data path adds to plain integers; everything else happens when the page is read. Labels are services, rules and
certificates of the configuration, codes and reasons, never a value that a client chose.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from OpenSSL import SSL
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

import twisted

from ..exchange.ending import ExchangeCounts

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

# Upper bounds in seconds; the first ones tell a fast service from the gateway's own share.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_CLASSES = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")
_PREFIX = "koder_gateway_"


class _Series:
    """The exchanges of one service."""

    __slots__ = ("buckets", "bytes_in", "bytes_out", "classes", "seconds")

    def __init__(self) -> None:
        self.classes = [0] * len(_CLASSES)
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0
        self.bytes_in = 0
        self.bytes_out = 0


class Counters(ExchangeCounts):
    """Plain integers; the code that causes an event adds to its counter."""

    __slots__ = (
        "connections",
        "connections_open",
        "connections_rejected",
        "exchanges",
        "http2_errors",
        "refusals",
        "registry_failures",
        "registry_skipped",
        "reloads_failed",
        "reloads_ok",
        "retries",
        "series",
        "tenants",
    )

    def __init__(self) -> None:
        self.connections = 0
        """Client connections accepted since the start."""
        self.connections_open = 0
        self.connections_rejected = 0
        """Client connections over listen.max_connections since the start."""
        self.http2_errors = 0
        """HTTP/2 connections that were ended because their client broke the protocol or flooded them."""
        self.exchanges = 0
        """Exchanges in flight."""
        self.retries = 0
        """Requests sent to a service a second time because a kept-alive connection had died."""
        self.tenants = 0
        """Tenants in the registry; 0 if there is no registry."""
        self.registry_failures = 0
        """How often the tenant registry could not be read again."""
        self.registry_skipped = 0
        """Entries of the present registry that are left out for a fault."""
        self.reloads_ok = 0
        self.reloads_failed = 0
        self.refusals: dict[str, int] = {}
        """Responses of the gateway itself, by code."""
        self.series: dict[str, _Series] = {}
        """By service; "" if no service responded."""

    def observe(self, service: str, status: int, seconds: float, bytes_in: int, bytes_out: int) -> None:
        """Count an exchange that has ended. `status` 0: no response. Bytes are those of the bodies."""
        series = self.series.get(service)
        if series is None:
            series = self.series[service] = _Series()
        series.classes[status // 100 if 100 <= status < 600 else 0] += 1
        if status != 101:
            # The duration of a tunnel says nothing about the service.
            series.buckets[bisect_left(BUCKETS, seconds)] += 1
            series.seconds += seconds
        series.bytes_in += bytes_in
        series.bytes_out += bytes_out

    def expect(self, services: Iterable[str], codes: Iterable[str] = ()) -> None:
        """Start the known series at 0: the rate of a series that starts later misses its first event."""
        for service in services:
            self.series.setdefault(service, _Series())
        for code in codes:
            self.refusals.setdefault(code, 0)

    def refuse(self, code: str) -> None:
        """Count a response of the gateway itself; `code` is one of the documented codes."""
        self.refusals[code] = self.refusals.get(code, 0) + 1


def _nothing() -> Mapping[str, tuple[int, int]]:
    return {}


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """The shared store of limits: whether it can be asked, and what it did since it is configured.

    `missed` requests waited for a decision in vain, and `without` were decided without it, those among them. `times`
    are decisions by how long they took, up to each of `bounds` (seconds) and longer, `seconds` all together.
    """

    up: bool
    missed: int
    without: int
    bounds: tuple[float, ...]
    times: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Sources:
    """Values that are queried when the page is read, because other objects count them."""

    upstream: Callable[[], Mapping[str, tuple[int, int]]] = _nothing
    """Connections to each service: (idle, active)."""
    waiting: Callable[[], Mapping[str, int]] = dict
    """Requests that wait for a connection to each service."""
    refused: Callable[[], Mapping[tuple[str, str], int]] = dict
    """Requests that got no connection or tunnel since the start, by service and reason."""
    healthy: Callable[[], Mapping[tuple[str, str], bool]] = dict
    """Whether each probed address is healthy, by service and address."""
    available: Callable[[], Mapping[tuple[str, str], bool]] = dict
    """Whether each address gets requests, by service and address."""
    ejections: Callable[[], Mapping[str, int]] = dict
    """How often an address was taken out of use because its requests failed, by service."""
    retries_denied: Callable[[], Mapping[str, int]] = dict
    """Requests that were not sent again because too many were, by service."""
    handshakes_failed: Callable[[], Mapping[str, int]] = dict
    """TLS handshakes of clients that have failed since the start, by reason."""
    tunnels: Callable[[], Mapping[str, int]] = dict
    """Open tunnels, by service."""
    tunnelled: Callable[[], Mapping[str, int]] = dict
    """Tunnels since the start, by service."""
    limits: Callable[[], Iterable[tuple[str, int, int, int]]] = tuple
    """Each limit's name, and the requests that it admitted, refused and would have refused in shadow mode."""
    limits_in_flight: Callable[[], Mapping[str, int]] = dict
    """How many requests are in flight under each limit that counts these."""
    limit_entries: Callable[[], int] = int
    """Buckets in memory."""
    store: Callable[[], StoreFigures | None] = lambda: None
    """What the shared store of limits did; None if there is none."""
    certificates: Callable[[], Mapping[str, float]] = dict
    """When each certificate expires, in seconds since the epoch."""
    certificate_faults: Callable[[], int] = int
    """Certificates on disk that cannot be used."""
    log_dropped: Callable[[], int] = int
    """Access log lines that were lost."""


class GatewayCollector(Collector):
    """Turns the counters and sources into metric families."""

    def __init__(self, counters: Counters, sources: Sources, version: str) -> None:
        self._counters = counters
        self._sources = sources
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        yield from self._exchanges()
        yield from self._connections()
        yield from self._limits()
        yield from self._state()

    def _exchanges(self) -> Iterator[Metric]:
        requests = _counter("requests", "Exchanges that ended, by service and class of status.", "service", "status")
        received = _counter("received_bytes", "Bytes of request bodies from clients.", "service")
        sent = _counter("sent_bytes", "Bytes of response bodies to clients.", "service")
        duration = HistogramMetricFamily(
            _PREFIX + "request_duration_seconds",
            "Time from a request's complete head to the end of its exchange.",
            labels=["service"],
        )
        for service, series in sorted(self._counters.series.items()):
            for name, count in zip(_CLASSES, series.classes, strict=True):
                requests.add_metric([service, name], count)
            received.add_metric([service], series.bytes_in)
            sent.add_metric([service], series.bytes_out)
            duration.add_metric([service], _cumulative(series.buckets), series.seconds)
        yield from (requests, received, sent, duration)
        yield _gauge("exchanges_in_flight", "Exchanges that have begun and not ended.", self._counters.exchanges)
        refusals = _counter("refusals", "Responses of the gateway itself, by code.", "code")
        for code, count in sorted(self._counters.refusals.items()):
            refusals.add_metric([code], count)
        yield refusals

    def _connections(self) -> Iterator[Metric]:
        counters = self._counters
        yield _gauge("connections_open", "Client connections that are open.", counters.connections_open)
        yield _counter("connections", "Client connections accepted.", value=counters.connections)
        yield _counter(
            "connections_rejected",
            "Client connections turned away because there were too many.",
            value=counters.connections_rejected,
        )
        failures = _counter("tls_handshake_failures", "TLS handshakes of clients that have failed.", "reason")
        for reason, count in sorted(self._sources.handshakes_failed().items()):
            failures.add_metric([reason], count)
        yield failures
        yield _counter(
            "http2_connection_errors",
            "HTTP/2 connections ended by the gateway because of what their clients sent.",
            value=counters.http2_errors,
        )
        upstream = GaugeMetricFamily(
            _PREFIX + "upstream_connections", "Connections to services.", labels=["service", "state"]
        )
        for service, (idle, active) in sorted(self._sources.upstream().items()):
            upstream.add_metric([service, "idle"], idle)
            upstream.add_metric([service, "active"], active)
        yield upstream
        waiting = GaugeMetricFamily(
            _PREFIX + "upstream_waiting", "Requests that wait for a connection to a service.", labels=["service"]
        )
        for service, count in sorted(self._sources.waiting().items()):
            waiting.add_metric([service], count)
        yield waiting
        refused = _counter(
            "upstream_refused", "Requests that got no connection or tunnel to a service.", "service", "reason"
        )
        for (service, reason), count in sorted(self._sources.refused().items()):
            refused.add_metric([service, reason], count)
        yield refused
        healthy = GaugeMetricFamily(
            _PREFIX + "upstream_healthy",
            "Whether an address of a service is healthy, where it is probed.",
            labels=["service", "address"],
        )
        for (service, address), state in sorted(self._sources.healthy().items()):
            healthy.add_metric([service, address], state)
        yield healthy
        yield from self._addresses()
        tunnels = GaugeMetricFamily(_PREFIX + "tunnels_open", "Tunnels that are open.", labels=["service"])
        for service, count in sorted(self._sources.tunnels().items()):
            tunnels.add_metric([service], count)
        yield tunnels
        tunnelled = _counter("tunnels", "Tunnels opened.", "service")
        for service, count in sorted({**dict.fromkeys(self._known(), 0), **self._sources.tunnelled()}.items()):
            tunnelled.add_metric([service], count)
        yield tunnelled
        yield _counter("upstream_retries", "Requests sent again on a fresh connection.", value=counters.retries)

    def _addresses(self) -> Iterator[Metric]:
        available = GaugeMetricFamily(
            _PREFIX + "upstream_available",
            "Whether an address of a service gets requests.",
            labels=["service", "address"],
        )
        for (service, address), state in sorted(self._sources.available().items()):
            available.add_metric([service, address], state)
        yield available
        ejections = _counter(
            "upstream_ejections", "Times that an address got no requests because they had failed.", "service"
        )
        for service, count in sorted(self._sources.ejections().items()):
            ejections.add_metric([service], count)
        yield ejections
        denied = _counter(
            "upstream_retries_denied", "Requests not sent again because too many of the service's were.", "service"
        )
        for service, count in sorted(self._sources.retries_denied().items()):
            denied.add_metric([service], count)
        yield denied

    def _known(self) -> list[str]:
        return [service for service in self._counters.series if service]

    def _limits(self) -> Iterator[Metric]:
        decisions = _counter("limit_decisions", "Requests that a limit applied to.", "rule", "decision")
        for rule, admitted, refused, shadowed in self._sources.limits():
            decisions.add_metric([rule, "admitted"], admitted)
            decisions.add_metric([rule, "refused"], refused)
            decisions.add_metric([rule, "shadowed"], shadowed)
        yield decisions
        in_flight = GaugeMetricFamily(
            "koder_gateway_limit_in_flight", "Requests in flight under a limit on these.", labels=("rule",)
        )
        for rule, count in self._sources.limits_in_flight().items():
            in_flight.add_metric((rule,), count)
        yield in_flight
        yield _gauge("limit_entries", "Buckets in memory.", self._sources.limit_entries())
        store = self._sources.store()
        if store is not None:
            yield from _store(store)

    def _state(self) -> Iterator[Metric]:
        counters = self._counters
        yield _gauge("tenants", "Tenants in the registry; 0 when it is open.", counters.tenants)
        failures = counters.registry_failures
        yield _counter("registry_failures", "Times the tenant registry could not be read again.", value=failures)
        skipped = "Entries of the tenant registry that are left out for a fault."
        yield _gauge("registry_skipped", skipped, counters.registry_skipped)
        reloads = _counter("reloads", "Times the configuration was read again.", "result")
        reloads.add_metric(["ok"], counters.reloads_ok)
        reloads.add_metric(["failed"], counters.reloads_failed)
        yield reloads
        expiry = GaugeMetricFamily(
            _PREFIX + "certificate_expiry_timestamp_seconds",
            "When a certificate expires.",
            labels=["certificate"],
        )
        for name, expires in sorted(self._sources.certificates().items()):
            expiry.add_metric([name], expires)
        yield expiry
        faults = self._sources.certificate_faults()
        yield _gauge("certificate_faults", "Certificates on disk that cannot be used, as last seen.", faults)
        dropped = self._sources.log_dropped()
        yield _counter("access_log_dropped_lines", "Access log lines that were lost.", value=dropped)
        yield InfoMetricFamily(_PREFIX + "build", "What is running.", value=_build(self._version))


def _store(store: StoreFigures) -> Iterator[Metric]:
    yield _gauge("limits_store_up", "Whether the shared store of limits can be asked.", store.up)
    missed = "Requests that waited for the shared store in vain, and were then decided without it."
    yield _counter("limits_store_missed", missed, value=store.missed)
    decisions = _counter("limits_store_decisions", "Requests under limits, by who decided about them.", "by")
    decisions.add_metric(["store"], sum(store.times))
    decisions.add_metric(["on_failure"], store.without)
    yield decisions
    yield HistogramMetricFamily(
        _PREFIX + "limits_store_seconds",
        "Time from a question to the shared store until its answer.",
        buckets=_cumulative(store.times, store.bounds),
        sum_value=store.seconds,
    )


def make_registry(counters: Counters, sources: Sources | None = None, *, version: str) -> CollectorRegistry:
    """A registry for this gateway alone, so that two in one process do not mix; with the process's metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(GatewayCollector(counters, sources or Sources(), version))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """The metrics page, of type `CONTENT_TYPE`."""
    return generate_latest(registry)


def _counter(name: str, text: str, *labels: str, value: float | None = None) -> CounterMetricFamily:
    return CounterMetricFamily(_PREFIX + name, text, value=value, labels=labels or None)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(_PREFIX + name, text, value=value)


def _cumulative(counts: Sequence[int], bounds: Sequence[float] = BUCKETS) -> list[tuple[str, float]]:
    return list(zip([*map(repr, bounds), "+Inf"], accumulate(counts), strict=True))


def _build(version: str) -> dict[str, str]:
    return {
        "version": version,
        "python": platform.python_version(),
        "twisted": twisted.__version__,
        "openssl": SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode("ascii", "replace"),
    }

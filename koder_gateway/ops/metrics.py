"""The metrics page (Prometheus text format).

The data path adds to plain integers; everything else happens when the page is read. Labels are services, routes,
rules and certificates of the configuration, tenants of the registry, codes and reasons, never a value that a client
chose.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import Final

from OpenSSL import SSL
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.registry import Collector

import twisted

from .counters import Counters
from .exchange_families import exchange_families
from .exposition import exposition
from .loop_lag import BOUNDS as LAG_BOUNDS
from .loop_lag import LoopLag
from .metric_families import PREFIX, counter, cumulative, gauge, histogram
from .metric_sources import Sources, SpanFigures, StoreFigures

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"


class GatewayCollector(Collector):
    """Turns the counters and sources into metric families."""

    def __init__(self, counters: Counters, sources: Sources, version: str) -> None:
        self._counters = counters
        self._sources = sources
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        yield from exchange_families(self._counters)
        yield from self._connections()
        yield from self._limits()
        yield from self._state()

    def _connections(self) -> Iterator[Metric]:
        counters = self._counters
        yield gauge("connections_open", "Client connections that are open.", value=counters.connections_open)
        yield counter("connections", "Client connections accepted.", value=counters.connections)
        yield counter(
            "connections_rejected",
            "Client connections turned away because there were too many.",
            value=counters.connections_rejected,
        )
        yield from self._handshakes()
        yield counter(
            "http2_connection_errors",
            "HTTP/2 connections ended by the gateway because of what their clients sent.",
            value=counters.http2_errors,
        )
        upstream = gauge("upstream_connections", "Connections to services.", "service", "state")
        for service, (idle, active) in sorted(self._sources.upstream().items()):
            upstream.add_metric([service, "idle"], idle)
            upstream.add_metric([service, "active"], active)
        yield upstream
        waiting = gauge("upstream_waiting", "Requests that wait for a connection to a service.", "service")
        for service, count in sorted(self._sources.waiting().items()):
            waiting.add_metric([service], count)
        yield waiting
        refused = counter(
            "upstream_refused", "Requests that got no connection or tunnel to a service.", "service", "reason"
        )
        for (service, reason), count in sorted(self._sources.refused().items()):
            refused.add_metric([service, reason], count)
        yield refused
        healthy = gauge(
            "upstream_healthy",
            "Whether an address of a service is healthy, where it is probed.",
            "service",
            "address",
        )
        for (service, address), state in sorted(self._sources.healthy().items()):
            healthy.add_metric([service, address], state)
        yield healthy
        yield from self._addresses()
        tunnels = gauge("tunnels_open", "Tunnels that are open.", "service")
        for service, count in sorted(self._sources.tunnels().items()):
            tunnels.add_metric([service], count)
        yield tunnels
        tunnelled = counter("tunnels", "Tunnels opened.", "service")
        for service, count in sorted({**dict.fromkeys(self._known(), 0), **self._sources.tunnelled()}.items()):
            tunnelled.add_metric([service], count)
        yield tunnelled
        yield counter("upstream_retries", "Requests sent again on a fresh connection.", value=counters.retries)

    def _addresses(self) -> Iterator[Metric]:
        available = gauge(
            "upstream_available", "Whether an address of a service gets requests.", "service", "address"
        )
        for (service, address), state in sorted(self._sources.available().items()):
            available.add_metric([service, address], state)
        yield available
        text = "Times that an address got no requests because they had failed."
        ejections = counter("upstream_ejections", text, "service")
        for service, count in sorted(self._sources.ejections().items()):
            ejections.add_metric([service], count)
        yield ejections
        text = "Requests not sent again because too many of the service's were."
        denied = counter("upstream_retries_denied", text, "service")
        for service, count in sorted(self._sources.retries_denied().items()):
            denied.add_metric([service], count)
        yield denied

    def _handshakes(self) -> Iterator[Metric]:
        failed = self._sources.handshakes_failed()
        handshakes = counter(
            "tls_handshakes", "TLS handshakes of clients that have ended.", "kind", "version", "group"
        )
        for labels, count in sorted(self._sources.handshakes().items()):
            handshakes.add_metric(labels, count)
        handshakes.add_metric(["failed", "", ""], sum(failed.values()))
        yield handshakes
        failures = counter("tls_handshake_failures", "TLS handshakes of clients that have failed.", "reason")
        for reason, count in sorted(failed.items()):
            failures.add_metric([reason], count)
        yield failures

    def _known(self) -> list[str]:
        return [service for service in self._counters.series if service]

    def _limits(self) -> Iterator[Metric]:
        decisions = counter("limit_decisions", "Requests that a limit applied to.", "rule", "decision")
        for rule, admitted, refused, shadowed in self._sources.limits():
            decisions.add_metric([rule, "admitted"], admitted)
            decisions.add_metric([rule, "refused"], refused)
            decisions.add_metric([rule, "shadowed"], shadowed)
        yield decisions
        in_flight = gauge("limit_in_flight", "Requests in flight under a limit on these.", "rule")
        for rule, count in self._sources.limits_in_flight().items():
            in_flight.add_metric((rule,), count)
        yield in_flight
        entries, most, crowded_out = self._sources.limit_entries()
        yield gauge("limit_entries", "Buckets in memory.", value=entries)
        yield gauge("limit_entries_max", "Buckets that there may be in memory.", value=most)
        crowded = "Decisions of limits by a client's network, since there was no room for a bucket."
        yield counter("limit_crowded_out", crowded, value=crowded_out)
        store = self._sources.store()
        if store is not None:
            yield from _store(store)

    def _state(self) -> Iterator[Metric]:
        counters = self._counters
        yield gauge("tenants", "Tenants in the registry; 0 when it is open.", value=counters.tenants)
        failures = counters.registry_failures
        yield counter("registry_failures", "Times the tenant registry could not be read again.", value=failures)
        text = "Whether the tenant registry as it is now could be read, and was not refused."
        yield gauge("registry_last_read_successful", text, value=not counters.registry_unread)
        skipped = "Entries of the tenant registry that are left out for a fault."
        yield gauge("registry_skipped", skipped, value=counters.registry_skipped)
        reloads = counter("reloads", "Times the configuration was read again.", "result")
        reloads.add_metric(["ok"], counters.reloads_ok)
        reloads.add_metric(["failed"], counters.reloads_failed)
        yield reloads
        good = not counters.reload_refused
        yield gauge("config_last_reload_successful", "Whether the last reload was not refused.", value=good)
        text = "When the configuration in force was taken up, at the start or by a reload."
        yield gauge("config_last_reload_success_timestamp_seconds", text, value=counters.configured_at)
        digest = {"sha256": counters.config_digest}
        yield InfoMetricFamily(PREFIX + "config", "The configuration in force.", value=digest)
        yield from _lag(self._sources.loop_lag())
        text = "Whether a package is not as the gateway expects it, which costs time or figures."
        degraded = gauge("degraded", text, "package", "assumption")
        for labels, state in sorted(self._sources.degraded().items()):
            degraded.add_metric(labels, state)
        yield degraded
        expiry = gauge("certificate_expiry_timestamp_seconds", "When a certificate expires.", "certificate")
        for name, expires in sorted(self._sources.certificates().items()):
            expiry.add_metric([name], expires)
        yield expiry
        faults = self._sources.certificate_faults()
        yield gauge("certificate_faults", "Certificates on disk that cannot be used, as last seen.", value=faults)
        dropped = self._sources.log_dropped()
        yield counter("access_log_dropped_lines", "Access log lines that were lost.", value=dropped)
        spans = self._sources.spans()
        if spans is not None:
            yield from _spans(spans)
        yield InfoMetricFamily(PREFIX + "build", "What is running.", value=_build(self._version))


def _lag(lag: LoopLag) -> Iterator[Metric]:
    text = "By how much the periodic timer, due four times a second, was late."
    delays = histogram("event_loop_lag_seconds", text)
    delays.add_metric([], cumulative(lag.counts, LAG_BOUNDS), lag.seconds)
    yield delays
    yield gauge("event_loop_lag_max_seconds", "The longest such delay of the last minute or two.", value=lag.most)


def _store(store: StoreFigures) -> Iterator[Metric]:
    yield gauge("limits_store_up", "Whether the shared store of limits can be asked.", value=store.up)
    missed = "Requests that waited for the shared store in vain, and were then decided without it."
    yield counter("limits_store_missed", missed, value=store.missed)
    decisions = counter("limits_store_decisions", "Requests under limits, by who decided about them.", "by")
    decisions.add_metric(["store"], sum(store.times))
    decisions.add_metric(["on_failure"], store.without)
    yield decisions
    times = histogram("limits_store_seconds", "Time from a question to the shared store until its answer.")
    times.add_metric([], cumulative(store.times, store.bounds), store.seconds)
    yield times


def _spans(spans: SpanFigures) -> Iterator[Metric]:
    yield counter("spans_exported", "Spans that the collector has taken.", value=spans.exported)
    dropped = counter("spans_dropped", "Spans that were lost, by why.", "reason")
    dropped.add_metric(["full"], spans.dropped)
    dropped.add_metric(["undelivered"], spans.lost)
    yield dropped
    yield counter("span_export_failures", "Requests to the collector that failed.", value=spans.failures)


def make_registry(counters: Counters, sources: Sources | None = None, *, version: str) -> CollectorRegistry:
    """A registry for this gateway alone, so that two in one process do not mix; with the process's metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(GatewayCollector(counters, sources or Sources(), version))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """The metrics page, of type `CONTENT_TYPE`."""
    return exposition(registry.collect())


def _build(version: str) -> dict[str, str]:
    return {
        "version": version,
        "python": platform.python_version(),
        "twisted": twisted.__version__,
        "openssl": SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode("ascii", "replace"),
    }

"""Metrics of the services' single addresses, and of the failures of services."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from .metric_families import counter, gauge


@dataclass(frozen=True, slots=True)
class AddressUse:
    """One address of a service, and its connections."""

    service: str
    address: str
    idle: int
    active: int


class AddressCollector(Collector):
    """`addresses` returns the present use of every address, `failures` the failed exchanges of each service since the
    start, by reason."""

    def __init__(
        self,
        addresses: Callable[[], Iterable[AddressUse]],
        failures: Callable[[], Mapping[str, Mapping[str, int]]],
    ) -> None:
        self._addresses = addresses
        self._failures = failures

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        connections = gauge(
            "upstream_address_connections", "Connections to an address.", "service", "address", "state"
        )
        for use in self._addresses():
            connections.add_metric([use.service, use.address, "idle"], use.idle)
            connections.add_metric([use.service, use.address, "active"], use.active)
        yield connections
        failures = counter(
            "upstream_failures", "Exchanges that failed because of a service, by reason.", "service", "reason"
        )
        for service, reasons in self._failures().items():
            for reason, count in sorted(reasons.items()):
                failures.add_metric([service, reason], count)
        yield failures

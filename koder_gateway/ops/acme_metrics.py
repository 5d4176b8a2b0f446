"""Metrics of the certificates that are ordered from an ACME authority, and of its challenges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from .metric_families import counter, gauge


@dataclass(frozen=True, slots=True)
class AcmeFigures:
    """What this process knows. `orders` are those that have ended, by result, and `names` how many names are in each
    state; both are empty in a worker that does not order. `next_renewal` is in seconds since the epoch, 0 for none.
    `challenges` are those that were asked for, by kind and result."""

    orders: Mapping[str, int]
    names: Mapping[str, int]
    next_renewal: float
    challenges: Mapping[tuple[str, str], int]


class AcmeCollector(Collector):
    """The families of `figures`, which returns None where no certificate is ordered."""

    def __init__(self, figures: Callable[[], AcmeFigures | None]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        figures = self._figures()
        if figures is None:
            return
        orders = counter("acme_orders", "Orders of certificates that have ended.", "result")
        for result, count in figures.orders.items():
            orders.add_metric([result], count)
        yield orders
        names = gauge("acme_names", "Names that are to have a certificate by ACME.", "state")
        for state, count in figures.names.items():
            names.add_metric([state], count)
        yield names
        if figures.next_renewal:
            text = "When the next certificate by ACME is renewed."
            yield gauge("acme_next_renewal_timestamp_seconds", text, value=figures.next_renewal)
        challenges = counter("acme_challenges", "Challenges of an ACME authority asked for.", "challenge", "result")
        for labels, count in sorted(figures.challenges.items()):
            challenges.add_metric(labels, count)
        yield challenges

"""How metric families are made: names, and histograms from plain counts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

PREFIX: Final = "koder_gateway_"


def counter(name: str, text: str, *labels: str, value: float | None = None) -> CounterMetricFamily:
    """A counter, or, with `labels`, one to add metrics to."""
    return CounterMetricFamily(PREFIX + name, text, value=value, labels=labels or None)


def gauge(name: str, text: str, *labels: str, value: float | None = None) -> GaugeMetricFamily:
    """A gauge, or, with `labels`, one to add metrics to."""
    return GaugeMetricFamily(PREFIX + name, text, value=value, labels=labels or None)


def histogram(name: str, text: str, *labels: str) -> HistogramMetricFamily:
    """A histogram to add metrics to."""
    return HistogramMetricFamily(PREFIX + name, text, labels=labels)


def cumulative(counts: Sequence[int], bounds: Sequence[float]) -> list[tuple[str, float]]:
    """A histogram's buckets, of counts up to each bound and beyond the last one."""
    return list(zip([*map(repr, bounds), "+Inf"], accumulate(counts), strict=True))

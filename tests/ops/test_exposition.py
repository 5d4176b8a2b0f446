"""The page of metrics is what the reference implementation writes, and reads."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from koder_gateway.ops.exposition import exposition

Read = list[tuple[str, str, str, list[tuple[str, dict[str, str], float]]]]


class Shown(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def read(page: bytes) -> Read:
    """What the parser reads in a page."""
    return [
        (each.name, each.documentation, each.type, [(s.name, s.labels, s.value) for s in each.samples])
        for each in text_string_to_metric_families(page.decode())
    ]


def reference(families: list[Metric]) -> bytes:
    """The page of the reference implementation."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Shown(families))
    return generate_latest(registry)


def families(label: str, value: float, text: str = "Text.") -> list[Metric]:
    """One of each type."""
    counter = CounterMetricFamily("a", text, labels=["z", "b"])
    counter.add_metric([label, "x"], abs(value))
    counter.add_metric(["", label], 3)
    histogram = HistogramMetricFamily("h", text, labels=["l"])
    histogram.add_metric([label], [("0.1", 1), ("+Inf", 2)], abs(value))
    return [
        counter,
        histogram,
        GaugeMetricFamily("g", text, value=value),
        UnknownMetricFamily("u", text, value=value),
        InfoMetricFamily("i", text, value={"version": label}),
        CounterMetricFamily("empty", text, labels=["l"]),
    ]


@given(st.text(), st.floats(allow_nan=False), st.text(alphabet=st.characters(categories=("L", "P", "Zs"))))
def test_what_is_read_in_it_is_what_is_read_in_the_reference(label: str, value: float, text: str) -> None:
    shown = families(label, value, text)
    assert read(exposition(shown)) == read(reference(shown))


def test_lines_are_those_of_the_reference() -> None:
    """Byte for byte, but for numbers from a million on, which it writes with an exponent."""
    shown = families('a "quoted"\\ line\nand another', 0.25, "One line\nand a \\.")
    assert exposition(shown) == reference(shown)


def test_what_is_no_number_is_written_as_it_expects() -> None:
    for value in (math.nan, math.inf, -math.inf):
        assert exposition([GaugeMetricFamily("g", "t", value=value)]) == reference(
            [GaugeMetricFamily("g", "t", value=value)]
        )


def test_the_collectors_of_the_process_are_shown() -> None:
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    names = {name for name, *_ in read(exposition(registry.collect()))}
    assert {"process_open_fds", "process_cpu_seconds", "python_gc_collections"} <= names

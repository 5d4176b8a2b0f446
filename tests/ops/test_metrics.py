"""Metrics: what is counted, and the page that shows it, read by the reference parser."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from koder_gateway.ops.counters import BUCKETS, Counters
from koder_gateway.ops.metric_sources import Sources
from koder_gateway.ops.metrics import make_registry, render
from tests.kit.exchanges import count


def page(counters, sources=None):
    """The samples of the page: (name without prefix, label values by label) to value."""
    text = render(make_registry(counters, sources, version="1.2.3")).decode()
    return {
        (
            sample.name.removeprefix("koder_gateway_"),
            tuple(value for _, value in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_exchanges_are_counted_by_service_and_class():
    counters = Counters()
    count(counters, "identity", 200, 0.003, bytes_in=10, bytes_out=1000)
    count(counters, "identity", 204, 0.2, bytes_in=5, bytes_out=0)
    count(counters, "identity", 503, 99.0, bytes_in=0, bytes_out=7)
    count(counters, "", 404, 0.0001, bytes_in=0, bytes_out=300)
    count(counters, "", 0, 0.0)
    samples = page(counters)
    assert samples["requests_total", ("identity", "2xx")] == 2
    assert samples["requests_total", ("identity", "5xx")] == 1
    assert samples["requests_total", ("", "4xx")] == 1
    assert samples["requests_total", ("", "other")] == 1
    assert samples["requests_total", ("identity", "4xx")] == 0
    assert samples["requests_total", ("identity", "other")] == 0
    assert samples["requests_total", ("", "1xx")] == 0
    assert samples["received_bytes_total", ("identity",)] == 15
    assert samples["sent_bytes_total", ("identity",)] == 1007
    assert samples["sent_bytes_total", ("",)] == 300


@settings(max_examples=30)
@given(st.lists(st.floats(0, 100), min_size=1))
def test_the_histogram_is_cumulative_and_its_bounds_inclusive(durations):
    counters = Counters()
    for duration in durations:
        count(counters, "auth", 200, duration)
    samples = page(counters)
    for bound in BUCKETS:
        expected = sum(duration <= bound for duration in durations)
        assert samples["request_duration_seconds_bucket", (repr(bound), "auth")] == expected
    assert samples["request_duration_seconds_bucket", ("+Inf", "auth")] == len(durations)
    assert samples["request_duration_seconds_count", ("auth",)] == len(durations)
    assert math.isclose(samples["request_duration_seconds_sum", ("auth",)], sum(durations), abs_tol=1e-9)


def test_a_duration_on_a_bound_belongs_below_it():
    counters = Counters()
    count(counters, "auth", 200, BUCKETS[3])
    samples = page(counters)
    assert samples["request_duration_seconds_bucket", (repr(BUCKETS[2]), "auth")] == 0
    assert samples["request_duration_seconds_bucket", (repr(BUCKETS[3]), "auth")] == 1


@pytest.mark.parametrize("status", [-1, 0, 99, 600, 999])
def test_a_status_that_is_none_has_its_own_class(status):
    counters = Counters()
    count(counters, "auth", status, 0.1)
    assert page(counters)["requests_total", ("auth", "other")] == 1


def test_every_counter_is_on_the_page():
    counters = Counters()
    counters.connections, counters.connections_open, counters.exchanges = 7, 3, 2
    counters.retries, counters.tenants, counters.reloads_ok, counters.reloads_failed = 4, 11, 5, 1
    for code in ("no_route", "rate_limited", "no_route"):
        counters.refuse(code)
    samples = page(counters)
    expected = {
        ("connections_total", ()): 7,
        ("connections_open", ()): 3,
        ("exchanges_in_flight", ()): 2,
        ("upstream_retries_total", ()): 4,
        ("tenants", ()): 11,
        ("registry_last_read_successful", ()): 1,
        ("reloads_total", ("ok",)): 5,
        ("reloads_total", ("failed",)): 1,
        ("refusals_total", ("no_route",)): 2,
        ("refusals_total", ("rate_limited",)): 1,
        ("limit_entries", ()): 0,
        ("access_log_dropped_lines_total", ()): 0,
    }
    assert expected.items() <= samples.items()


def test_what_others_count_is_asked_for_each_time_the_page_is_read():
    upstream = {"identity": (1, 2)}
    sources = Sources(
        upstream=lambda: upstream,
        limits=lambda: [("login", 10, 3, 0), ("wide", 90, 0, 8)],
        limits_in_flight=lambda: {"reports": 3},
        limit_entries=lambda: (42, 50, 7),
        certificates=lambda: {"koder": 1_900_000_000.0},
        log_dropped=lambda: 6,
    )
    registry = make_registry(Counters(), sources, version="1.2.3")
    render(registry)
    upstream["identity"] = (5, 0)
    text = render(registry).decode()
    for line in (
        'koder_gateway_upstream_connections{service="identity",state="idle"} 5.0',
        'koder_gateway_upstream_connections{service="identity",state="active"} 0.0',
        'koder_gateway_limit_decisions_total{decision="refused",rule="login"} 3.0',
        'koder_gateway_limit_decisions_total{decision="admitted",rule="wide"} 90.0',
        'koder_gateway_limit_decisions_total{decision="shadowed",rule="wide"} 8.0',
        'koder_gateway_limit_in_flight{rule="reports"} 3.0',
        "koder_gateway_limit_entries 42.0",
        "koder_gateway_limit_entries_max 50.0",
        "koder_gateway_limit_crowded_out_total 7.0",
        'koder_gateway_certificate_expiry_timestamp_seconds{certificate="koder"} 1900000000.0',
        "koder_gateway_access_log_dropped_lines_total 6.0",
    ):
        assert line in text.splitlines()


def test_the_page_tells_what_runs_and_what_it_uses():
    text = render(make_registry(Counters(), version="1.2.3")).decode()
    assert 'version="1.2.3"' in text
    assert "process_open_fds" in text
    assert "process_resident_memory_bytes" in text


def test_two_gateways_in_one_process_do_not_mix():
    one, other = Counters(), Counters()
    one.connections = 5
    assert page(one)["connections_total", ()] == 5
    assert page(other)["connections_total", ()] == 0

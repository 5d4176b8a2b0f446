"""The metrics of several workers as one page."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from koder_gateway.ops.counters import Counters
from koder_gateway.ops.loop_lag import LoopLag
from koder_gateway.ops.metric_sources import Sources
from koder_gateway.ops.metrics import make_registry
from koder_gateway.ops.process_state import Present
from koder_gateway.workers.metrics_sum import (
    _LASTING_VALUES,
    FamilyCollector,
    Snapshot,
    read_snapshot,
    summed,
    taken,
    written,
)
from koder_gateway.workers.totals import Totals
from tests.kit.exchanges import count
from tests.kit.gateways import parse_metrics


def counted(requests: int, *, expires: float = 100.0, healthy: bool = True, tenants: int = 3) -> CollectorRegistry:
    """The registry of a gateway that has served so many requests of 3 milliseconds."""
    counters = Counters()
    counters.expect(("a",), ("no_route",))
    for _ in range(requests):
        count(counters, "a", 200, 0.003, bytes_in=1, bytes_out=10)
    counters.connections_open, counters.tenants = requests, tenants
    sources = Sources(certificates=lambda: {"default": expires}, healthy=lambda: {("a", "127.0.0.1:1"): healthy})
    return make_registry(counters, sources, version="1")


def page(past: Snapshot, *registries: CollectorRegistry) -> dict[str, float]:
    taken_each = (taken(Present(each, [], list), 1) for each in registries)
    workers = {number: read_snapshot(each).families for number, each in enumerate(taken_each, 1)}
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FamilyCollector(lambda: summed(past.families, workers)))
    return parse_metrics(generate_latest(registry).decode())


def test_counters_histograms_and_gauges_are_added_up() -> None:
    seen = page(Snapshot(), counted(3), counted(4))
    assert seen['koder_gateway_requests_total{service="a",status="2xx"}'] == 7
    assert seen['koder_gateway_sent_bytes_total{service="a"}'] == 70
    assert seen['koder_gateway_request_duration_seconds_bucket{le="0.0025",service="a"}'] == 0
    assert seen['koder_gateway_request_duration_seconds_bucket{le="0.005",service="a"}'] == 7
    assert seen['koder_gateway_request_duration_seconds_count{service="a"}'] == 7
    assert round(seen['koder_gateway_request_duration_seconds_sum{service="a"}'], 6) == 0.021
    assert seen["koder_gateway_connections_open"] == 7


def test_what_all_see_alike_is_shown_once() -> None:
    seen = page(Snapshot(), counted(0, expires=200.0), counted(0, expires=100.0, healthy=False, tenants=4))
    assert seen["koder_gateway_tenants"] == 4
    assert seen['koder_gateway_certificate_expiry_timestamp_seconds{certificate="default"}'] == 100
    assert seen['koder_gateway_upstream_healthy{address="127.0.0.1:1",service="a"}'] == 0
    assert [value for name, value in seen.items() if name.startswith("koder_gateway_build_info{")] == [1]


def test_what_is_of_a_process_has_its_worker() -> None:
    seen = page(Snapshot(), counted(0), counted(0))
    assert {name for name in seen if name.startswith("process_open_fds")} == {
        'process_open_fds{worker="1"}',
        'process_open_fds{worker="2"}',
    }


def test_the_page_of_one_worker_has_every_name_of_a_single_process() -> None:
    alone = parse_metrics(generate_latest(counted(5)).decode())
    seen = page(read_snapshot(Totals(1).pages[0].read()), counted(5))
    same = {name: value for name, value in alone.items() if name.startswith("koder_gateway_")}
    assert {name: seen[name] for name in same} == same


def test_the_counters_of_a_worker_that_has_ended_stay_and_its_gauges_go() -> None:
    totals = Totals(2)
    totals.pages[1].write(taken(Present(counted(3), [], list), 1))
    totals.fold(1)
    # Nothing is counted twice, however often.
    totals.fold(1)
    past = read_snapshot(totals.pages[0].read())
    assert past.ended == {1: 1}
    seen = page(past, counted(4))
    assert seen['koder_gateway_requests_total{service="a",status="2xx"}'] == 7
    assert seen["koder_gateway_connections_open"] == 4
    totals.pages[1].write(taken(Present(counted(10), [], list), 2))
    totals.fold(1)
    seen = page(read_snapshot(totals.pages[0].read()), counted(4))
    assert seen['koder_gateway_requests_total{service="a",status="2xx"}'] == 17


def test_a_worker_that_ended_before_it_counted_leaves_nothing() -> None:
    totals = Totals(1)
    totals.fold(1)
    assert read_snapshot(totals.pages[0].read()).ended == {}


def test_a_snapshot_survives_its_bytes() -> None:
    snapshot = read_snapshot(taken(Present(counted(3), [], list), 7))
    assert snapshot.run == 7
    assert read_snapshot(written(snapshot)) == snapshot


def test_workers_that_end_leave_no_more_tenants_than_there_may_be() -> None:
    """Each has had others. No exchange is lost."""
    totals = Totals(1)
    lives = 3
    for run in range(1, lives + 1):
        counters = Counters()
        counters.tenant_counts.follow(_LASTING_VALUES, lambda slug: True)
        for number in range(_LASTING_VALUES):
            count(counters, tenant=b"t%d-%d" % (run, number))
        totals.pages[1].write(taken(Present(make_registry(counters, version="1"), [], list), run))
        totals.fold(1)
    seen = page(read_snapshot(totals.pages[0].read()))
    tenants = {name: value for name, value in seen.items() if "tenant_requests" in name and "2xx" in name}
    # And those without a tenant, and the rest.
    assert len(tenants) == _LASTING_VALUES + 2
    assert sum(tenants.values()) == lives * _LASTING_VALUES
    assert tenants['koder_gateway_tenant_requests_total{status="2xx",tenant="t1-0"}'] == 1


def test_a_reload_of_all_workers_is_one_and_the_supervisor_has_its_verdict() -> None:
    counters = Counters()
    counters.reloads_ok = 2
    workers = [make_registry(counters, version="1") for _ in range(2)]
    totals = Totals(2)

    def seen() -> tuple[float, float, float]:
        shown = page(read_snapshot(totals.pages[0].read()), *workers)
        name = "koder_gateway_reloads_total"
        good = shown["koder_gateway_config_last_reload_successful"]
        return shown[f'{name}{{result="ok"}}'], shown[f'{name}{{result="failed"}}'], good

    assert seen() == (0, 0, 1)
    totals.decided([])
    assert seen() == (1, 0, 1)
    totals.decided(["nonsense: is an unknown key"])
    assert seen() == (1, 1, 0)
    totals.pages[1].write(taken(Present(workers[0], [], list), 1))
    totals.fold(1)
    assert seen() == (1, 1, 0)
    totals.decided([])
    assert seen() == (2, 1, 1)


def test_what_workers_say_of_their_configuration_and_their_delays() -> None:
    """The slowest counts; two configurations are seen as two."""

    def worker(digest: str, since: float, delay: float) -> CollectorRegistry:
        counters = Counters()
        counters.config_digest, counters.configured_at = digest, since
        lag = LoopLag()
        lag.add(delay, 0.0)
        return make_registry(counters, Sources(loop_lag=lambda: lag), version="1")

    seen = page(Snapshot(), worker("a", 20.0, 0.2), worker("a", 10.0, 0.7), worker("b", 30.0, 0.1))
    assert seen["koder_gateway_config_last_reload_success_timestamp_seconds"] == 10
    assert seen["koder_gateway_event_loop_lag_max_seconds"] == 0.7
    assert seen["koder_gateway_event_loop_lag_seconds_count"] == 3
    assert [name for name in seen if "config_info" in name] == [
        'koder_gateway_config_info{sha256="a"}',
        'koder_gateway_config_info{sha256="b"}',
    ]

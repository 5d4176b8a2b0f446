"""The page /status, made of metrics as the workers write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from koder_gateway.ops.address_metrics import AddressCollector, AddressUse
from koder_gateway.ops.counters import Counters
from koder_gateway.ops.metric_sources import Sources, StoreFigures
from koder_gateway.ops.metric_values import families_of
from koder_gateway.ops.metrics import make_registry
from koder_gateway.ops.process_state import _FAULTS, ProcessState, ReloadRecord, WorkerState
from koder_gateway.ops.status_document import CERTIFICATES, ServiceFacts, StatusFacts, status_document
from koder_gateway.workers.metrics_sum import summed
from tests.kit.exchanges import count

EPOCH = 1_800_000_000.0
RULE = {
    "name": "login",
    "key": ["tenant", "ip"],
    "rate": "10/m",
    "burst": 5,
    "in_flight": None,
    "paths": ["/v1/auth"],
    "methods": None,
    "mode": "enforce",
    "charge": "requests",
    "over": [{"key": {"tenant": "acme", "ip": "192.0.2.1"}, "left": 0, "of": 5, "wait": 6}],
    "near": [],
}


def registry_of(certificates: int = 1, requests: int = 3) -> Any:
    """The metrics of a process that has served so many requests of 3 milliseconds, and one of 40 seconds."""
    counters = Counters()
    counters.expect(("", "a", "b"), ("no_route",))
    for _ in range(requests):
        count(counters, "a", 200, 0.003, bytes_in=1, bytes_out=10)
    count(counters, "a", 502, 40.0, bytes_out=5)
    counters.refuse("no_route")
    counters.connections_open = 2
    sources = Sources(
        upstream=lambda: {"a": (1, 2), "b": (0, 0)},
        waiting=lambda: {"a": 4},
        healthy=lambda: {("a", "http://127.0.0.1:1"): False},
        available=lambda: {("a", "http://127.0.0.1:1"): False, ("b", "http://127.0.0.1:2"): True},
        limits=lambda: [("login", 7, 2, 1)],
        certificates=lambda: {f"c{number:03}": EPOCH + number * 86_400 for number in range(certificates)},
        store=lambda: StoreFigures(False, 0, 0, (1.0,), (0, 0), 0.0),
    )
    made = make_registry(counters, sources, version="1.2")
    uses = [AddressUse("a", "http://127.0.0.1:1", 1, 2), AddressUse("b", "http://127.0.0.1:2", 0, 0)]
    made.register(AddressCollector(lambda: uses, lambda: {"a": {"timeout": 3, "closed": 0}, "b": {}}))
    return made


FACTS = StatusFacts(
    version="1.2",
    unready=["draining"],
    configuration={"file": "/etc/g.toml", "sha256": "ab"},
    services=[ServiceFacts("a", ["http://127.0.0.1:1"], 10), ServiceFacts("b", ["http://127.0.0.1:2"], 20)],
    registry=True,
    store="redis://r",
)


def document(
    *registries: Any, workers: Sequence[WorkerState] = (), reloads: ReloadRecord | None = None, epoch: float = EPOCH
) -> Any:
    families = summed([], {number: families_of(each) for number, each in enumerate(registries, 1)})
    state = ProcessState(families, [RULE], list(workers), EPOCH - 90_000, reloads or ReloadRecord())
    made = status_document(state, FACTS, 12.5, epoch)
    assert json.loads(json.dumps(made)) == made
    return made


def test_requests_are_those_of_all_workers() -> None:
    made = document(registry_of(requests=3), registry_of(requests=4))
    requests = made["requests"]
    assert requests["total"] == 9
    assert requests["classes"] == {"other": 0, "1xx": 0, "2xx": 7, "3xx": 0, "4xx": 0, "5xx": 2}
    assert (requests["received_bytes"], requests["sent_bytes"]) == (7, 80)
    latency = requests["latency"]
    assert len(latency["counts"]) == len(latency["bounds"]) + 1
    assert latency["counts"][latency["bounds"].index(0.005)] == 7
    assert latency["counts"][-1] == 2
    assert sum(latency["counts"]) == 9
    assert latency["seconds"] == 80.021
    assert made["refusals"] == {"no_route": 2}
    assert made["connections"]["open"] == 4


def test_a_service_has_its_addresses_and_its_failures() -> None:
    a, b = document(registry_of())["services"]
    assert (a["name"], a["idle"], a["active"], a["waiting"], a["max_connections"]) == ("a", 1, 2, 4, 10)
    assert a["failures"] == {"timeout": 3, "closed": 0}
    assert a["requests"]["classes"]["5xx"] == 1
    address = {"address": "http://127.0.0.1:1", "available": False, "healthy": False, "idle": 1, "active": 2}
    assert a["addresses"] == [address]
    assert b["requests"]["total"] == 0
    assert b["addresses"][0]["healthy"] is None
    assert b["addresses"][0]["available"] is True


def test_the_registry_is_current_if_it_is_to_all_workers() -> None:
    good, bad = Counters(), Counters()
    bad.registry_unread = True
    for counters, current in (([good, good], True), ([good, bad], False)):
        workers = [make_registry(each, version="1") for each in counters]
        families = summed([], {number: families_of(each) for number, each in enumerate(workers, 1)})
        made = status_document(ProcessState(families, [], [], EPOCH, ReloadRecord()), FACTS, 0.0, EPOCH)
        assert made["tenants"]["current"] is current


def test_an_address_is_available_if_it_is_to_all_workers() -> None:
    facts = StatusFacts("1", [], {}, [ServiceFacts("b", ["http://b"], 1)], False, FACTS.store)
    workers = {1: families_of(_with(True, 1, 1)), 2: families_of(_with(False, 1, 0))}
    families = summed([], workers)
    (service,) = status_document(ProcessState(families, [], [], EPOCH, ReloadRecord()), facts, 0.0, EPOCH)["services"]
    (address,) = service["addresses"]
    assert (address["available"], address["idle"], address["active"]) == (False, 2, 1)


def _with(available: bool, idle: int, active: int) -> CollectorRegistry:
    registry = make_registry(Counters(), Sources(available=lambda: {("b", "http://b"): available}), version="1")
    registry.register(AddressCollector(lambda: [AddressUse("b", "http://b", idle, active)], dict))
    return registry


def test_limits_have_the_counts_of_all_and_the_keys_of_one() -> None:
    limits = document(registry_of(), registry_of())["limits"]
    assert (limits["store"], limits["store_up"]) == ("redis://r", False)
    (rule,) = limits["rules"]
    assert (rule["admitted"], rule["refused"], rule["would_have_refused"], rule["held"]) == (14, 4, 2, None)
    assert rule["over"] == RULE["over"]
    assert "paths" not in rule


def test_certificates_are_listed_by_the_days_that_are_left_up_to_a_bound() -> None:
    made = document(registry_of(certificates=CERTIFICATES + 5))["certificates"]
    assert made["count"] == CERTIFICATES + 5
    assert [each["name"] for each in made["first"]] == [f"c{number:03}" for number in range(CERTIFICATES)]
    assert made["first"][0] == {"name": "c000", "expires": "2027-01-15T08:00:00Z", "days_left": 0.0, "by_acme": False}
    assert made["first"][3]["days_left"] == 3.0
    assert document(registry_of(), epoch=EPOCH + 1)["certificates"]["first"][0]["days_left"] < 0


def test_readiness_times_and_workers() -> None:
    workers = [WorkerState(1, 11, [], 0, EPOCH - 0.5), WorkerState(2, 0, ["not started"], 3, 0.0)]
    made = document(registry_of(), workers=workers)
    assert (made["ready"], made["reasons"]) == (False, ["draining"])
    assert (made["started"], made["time"]) == ("2027-01-14T07:00:00Z", "2027-01-15T08:00:00Z")
    assert (made["uptime"], made["clock"]) == (90_000.0, 12.5)
    assert made["workers"] == [
        {"number": 1, "pid": 11, "ready": True, "reasons": [], "restarts": 0, "silent": 0.5},
        {"number": 2, "pid": None, "ready": False, "reasons": ["not started"], "restarts": 3, "silent": None},
    ]


def test_the_last_reload_has_its_reasons_and_the_configuration_its_time() -> None:
    record = ReloadRecord()
    made = document(registry_of(), reloads=record)
    assert made["reloads"] == {"accepted": 0, "refused": 0, "last": None}
    assert made["configuration"]["read"] == made["started"]
    record.decide(EPOCH - 60, None)
    record.decide(EPOCH - 30, ["x" * 10_000] * 50)
    made = document(registry_of(), reloads=record)
    assert made["configuration"] == {"file": "/etc/g.toml", "sha256": "ab", "read": "2027-01-15T07:59:00Z"}
    last = made["reloads"]["last"]
    assert (made["reloads"]["accepted"], made["reloads"]["refused"], last["accepted"]) == (1, 1, False)
    assert last["time"] == "2027-01-15T07:59:30Z"
    assert (len(last["faults"]), len(last["faults"][0])) == (_FAULTS, 500)

"""The metrics of all workers as one page: counters, histograms and most gauges are added up;
what every worker sees alike is shown once, and what belongs to a process is labelled with its worker."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from ..ops.limits_page import RuleDocument
from ..ops.metric_values import Family, Sampled, families_of
from ..ops.process_state import Present, ReloadRecord

# Families that say something about one process.
_OF_A_PROCESS: Final = ("process_", "python_")
# Gauges about what all workers see alike, and how several views become one: a certificate expires when the first
# worker says so, an address is healthy, or gets requests, if all say so.
_ALIKE: Final[dict[str, Callable[[Iterable[float]], float]]] = {
    "koder_gateway_build": max,
    "koder_gateway_certificate_expiry_timestamp_seconds": min,
    "koder_gateway_certificate_faults": max,
    "koder_gateway_config": max,
    "koder_gateway_config_last_reload_success_timestamp_seconds": min,
    "koder_gateway_degraded": max,
    "koder_gateway_event_loop_lag_max_seconds": max,
    "koder_gateway_limits_store_up": min,
    "koder_gateway_registry_last_read_successful": min,
    "koder_gateway_tenants": max,
    "koder_gateway_upstream_available": min,
    "koder_gateway_upstream_healthy": min,
}
# What the supervisor alone says: it decides on a reload, which is one however many workers take part, and those that
# it refuses itself they never hear of.
_OF_THE_SUPERVISOR: Final = ("koder_gateway_reloads", "koder_gateway_config_last_reload_successful")
# The labels whose values change while the gateway runs, by family, how many of them those that have ended leave, and
# the value that has the rest. Each worker names tenants of its own choice, within metrics.tenants.
_CHANGING: Final = {"koder_gateway_tenant_requests": "tenant", "koder_gateway_route_requests": "route"}
_LASTING_VALUES: Final = 1000
_REST: Final = "other"
# Where a worker that has ended leaves its counters.
_LASTING: Final = ("counter", "histogram")


class Snapshot(msgspec.Struct, array_like=True):
    """The metrics and the state of one process. `run` distinguishes the processes that were the same worker one after
    the other; `ended` has, by worker, the last run whose counters are contained here. `time` is when it was taken,
    and `started` when the supervisor began, both in seconds since the epoch; `reloads` are the supervisor's.
    `limits` are the rules as this process knows them."""

    run: int = 0
    families: list[Family] = []
    ended: dict[int, int] = {}
    pid: int = 0
    time: float = 0.0
    unready: list[str] = []
    started: float = 0.0
    reloads: ReloadRecord = msgspec.field(default_factory=ReloadRecord)
    limits: list[RuleDocument] = []


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Snapshot)


def taken(present: Present, run: int) -> bytes:
    """The present state of this process, as bytes."""
    families = families_of(present.registry)
    snapshot = Snapshot(run, families, {}, os.getpid(), time.time(), present.unready, limits=present.limits())
    return _encoder.encode(snapshot)


def read_snapshot(data: bytes) -> Snapshot:
    """A snapshot from its bytes; an empty one from none."""
    return _decoder.decode(data) if data else Snapshot()


def written(snapshot: Snapshot) -> bytes:
    """A snapshot as bytes."""
    return _encoder.encode(snapshot)


def lasting(snapshot: Snapshot) -> list[Family]:
    """The families whose values must not go back when their process ends."""
    return [each for each in snapshot.families if each.type in _LASTING and not each.name.startswith(_OF_A_PROCESS)]


def summed(past: list[Family], workers: dict[int, list[Family]]) -> list[Family]:
    """The families of all workers, by their number, and what is left of those that have ended, as one."""
    found: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
    for worker, families in [(0, past), *sorted(workers.items())]:
        for family in families:
            if worker and family.name in _OF_THE_SUPERVISOR:
                continue
            found.setdefault(family.name, family)
            samples = values.setdefault(family.name, {})
            own = {"worker": str(worker)} if family.name.startswith(_OF_A_PROCESS) else {}
            for sample in family.samples:
                labels = tuple({**sample.labels, **own}.items())
                samples.setdefault((sample.name, labels), []).append(sample.value)
    return [
        Family(
            name,
            family.text,
            family.type,
            [
                Sampled(sample, dict(labels), _ALIKE.get(name, sum)(each))
                for (sample, labels), each in values[name].items()
            ],
        )
        for name, family in found.items()
    ]


def bounded(families: list[Family]) -> list[Family]:
    """The same families without more values of a label than those of many workers, one after the other, may leave."""
    return [
        family if family.name not in _CHANGING else _bounded(family, _CHANGING[family.name]) for family in families
    ]


def _bounded(family: Family, label: str) -> Family:
    found = dict.fromkeys(value for sample in family.samples if (value := sample.labels[label]) not in ("", _REST))
    if len(found) <= _LASTING_VALUES:
        return family
    kept = {"", *list(found)[:_LASTING_VALUES]}
    totals: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for sample in family.samples:
        labels = sample.labels if sample.labels[label] in kept else {**sample.labels, label: _REST}
        key = sample.name, tuple(labels.items())
        totals[key] = totals.get(key, 0) + sample.value
    samples = [Sampled(name, dict(labels), value) for (name, labels), value in totals.items()]
    return Family(family.name, family.text, family.type, samples)


class FamilyCollector(Collector):
    """Shows families on a metrics page."""

    def __init__(self, families: Callable[[], Iterable[Family]]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        for family in self._families():
            metric: Any = Metric(family.name, family.text, family.type)
            metric.samples = [Sample(each.name, each.labels, each.value) for each in family.samples]
            yield metric

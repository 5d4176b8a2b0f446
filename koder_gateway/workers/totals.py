"""The supervisor's own page: the workers, the counters of those that have ended, and the reloads."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Final

from ..ops.metric_values import Family, Sampled
from ..ops.process_state import ReloadRecord
from .metrics_sum import Snapshot, bounded, lasting, read_snapshot, summed, written
from .shared_pages import SharedPage

_PREFIX: Final = "koder_gateway_"


class Totals:
    """`pages` are that of the supervisor, and one for each of `count` workers."""

    def __init__(self, count: int) -> None:
        self.pages = tuple(SharedPage(f"metrics-{number}") for number in range(count + 1))
        self.restarts = 0
        """Workers that have been started again."""
        self._count = count
        self._past: list[Family] = []
        self._ended: dict[int, int] = {}
        self._ready = 0
        self._started = time.time()
        self._reloads = ReloadRecord()
        self.publish(0)

    def fold(self, number: int) -> None:
        """A worker has ended: keep its counters."""
        snapshot = read_snapshot(self.pages[number].read())
        if snapshot.run > self._ended.get(number, 0):
            self._past = bounded(summed(self._past, {number: lasting(snapshot)}))
            self._ended[number] = snapshot.run
            self.publish(self._ready)

    def decided(self, refusals: Sequence[str]) -> None:
        """A reload has ended; `refusals` are the reasons why it was refused, none if it was not."""
        self._reloads.decide(time.time(), refusals)
        self.publish(self._ready)

    def publish(self, ready: int) -> None:
        """Show the present state, with so many workers that are ready."""
        self._ready = ready
        own = [
            _family("workers", "gauge", "Worker processes that should serve.", self._count),
            _family("workers_ready", "gauge", "Worker processes that serve.", ready),
            _family(
                "worker_restarts", "counter", "Worker processes that died and were started again.", self.restarts
            ),
            *_reloads(self._reloads),
        ]
        snapshot = Snapshot(
            0, [*self._past, *own], self._ended, os.getpid(), time.time(), [], self._started, self._reloads
        )
        self.pages[0].write(written(snapshot))


def _reloads(record: ReloadRecord) -> list[Family]:
    """As a process that is alone shows them."""
    name = f"{_PREFIX}reloads"
    counts = [
        Sampled(f"{name}_total", {"result": result}, count)
        for result, count in (("ok", record.accepted), ("failed", record.refused))
    ]
    good = float(record.last is None or not record.last.faults)
    return [
        Family(name, "Times the configuration was read again.", "counter", counts),
        _family("config_last_reload_successful", "gauge", "Whether the last reload was not refused.", good),
    ]


def _family(name: str, kind: str, text: str, value: float) -> Family:
    name = _PREFIX + name
    return Family(name, text, kind, [Sampled(f"{name}_total" if kind == "counter" else name, {}, value)])

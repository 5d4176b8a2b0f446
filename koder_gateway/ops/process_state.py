"""The state of the gateway's processes, and what became of the reloads, as operators see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry

from .limits_page import RuleDocument
from .metric_values import Family

# How many reasons of a refused reload are kept, and the characters of each.
_FAULTS: Final = 20
_LONGEST: Final = 500


class Verdict(msgspec.Struct, array_like=True):
    """What became of one reload. `time` is in seconds since the epoch; without `faults` it was accepted."""

    time: float
    faults: list[str]


class ReloadRecord(msgspec.Struct, array_like=True):
    """How many reloads were accepted and refused since the start, the last of them, and when the last one was
    accepted (seconds since the epoch, 0.0: none)."""

    accepted: int = 0
    refused: int = 0
    accepted_at: float = 0.0
    last: Verdict | None = None

    def decide(self, now: float, faults: Sequence[str] | None) -> None:
        """A reload has ended; `faults` are the reasons why it was refused, None or empty if it was not."""
        kept = [fault[:_LONGEST] for fault in faults or ()][:_FAULTS]
        if faults:
            self.refused += 1
        else:
            self.accepted += 1
            self.accepted_at = now
        self.last = Verdict(now, kept)


@dataclass(frozen=True, slots=True)
class Present:
    """The metrics of one process, why it should get no traffic (empty when it should), and what returns its limits as
    `/limits` shows them."""

    registry: CollectorRegistry
    unready: list[str]
    limits: Callable[[], list[RuleDocument]]


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One process that serves. `number` is 0 for one that is alone. `pid` is 0 while there is none, as between the
    end of a worker and the start of the next one. `restarts` is how often it was started again, `seen` when it was
    last heard, in seconds since the epoch (0.0: never)."""

    number: int
    pid: int
    unready: list[str]
    restarts: int
    seen: float


@dataclass(frozen=True, slots=True)
class ProcessState:
    """All processes of one gateway: their metrics and limits as one, each of them, when the gateway was started
    (seconds since the epoch), and its reloads."""

    families: list[Family]
    limits: list[RuleDocument]
    workers: list[WorkerState]
    started: float
    reloads: ReloadRecord

"""What the figures of a flood are held to, and how they are shown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from flood_errands import Errand
from flood_measuring import Phase, Round
from flood_swarm import Attack

# An attacker's request may cost so many served ones with the same answer, or so many times what it costs Go.
SERVED = 1.5
REFERENCE = 3.0
# Bytes of memory for a connection, by protocol, beyond what the configuration allows it.
MEMORY = 128 << 10
MEMORY_HTTP2 = 512 << 10
# Seconds of an honest client's p99 beside the flood, beyond so many times its quiet value.
WAIT = 0.05
QUIET = 3.0
# Fewer requests than this in all are too few to be told from noise: then it is the byte that is judged, beside Go's,
# where there were enough of those.
_REQUESTS = 300
_BYTES = 1 << 20
# What the process grows by whoever is connected, in bytes.
_OWN = 1 << 20


class Verdict(NamedTuple):
    """One mark of one case: what was seen, what is allowed, both as text, and whether it holds."""

    mark: str
    seen: str
    allowed: str
    holds: bool


@dataclass
class Case:
    """Everything that was measured of one attack, round by round; `reference` is empty without Go."""

    attack: Attack
    gateway: list[Round] = field(default_factory=list)
    reference: list[Round] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Its name and transport."""
        return f"{self.attack.name}/{self.attack.transport}"


@dataclass
class Outcome:
    """What arrived of an honest client's errand, round by round; `reference` is empty without Go."""

    errand: Errand
    gateway: list[int] = field(default_factory=list)
    reference: list[int] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Its name and transport."""
        return self.errand.name


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def cost(rounds: list[Round]) -> float | None:
    """Processor seconds of an attacker's request: over all phases of a round, then the median of the rounds."""
    return _median(_share(each, lambda phase: phase.requests) for each in rounds)


def byte_cost(rounds: list[Round]) -> float | None:
    """Processor seconds of an attacker's byte."""
    return _median(_share(each, lambda phase: phase.bytes) for each in rounds)


def _share(each: Round, number: Callable[[Phase], float]) -> float | None:
    spent = sum(phase.cost * phase.requests for phase in each.phases if phase.cost is not None)
    total = sum(number(phase) for phase in each.phases if phase.cost is not None)
    return spent / total if total >= 1 else None


def _total(rounds: list[Round], number: Callable[[Phase], float]) -> float:
    """All of these in all phases of all rounds."""
    return sum(number(phase) for each in rounds for phase in each.phases)


def memory(rounds: list[Round]) -> float:
    """The most memory that a connection took, in bytes."""
    return max((max(0, phase.memory - _OWN) / phase.attackers for each in rounds for phase in each.phases), default=0)


def left(rounds: list[Round]) -> float:
    """The most memory that stayed after the attackers had gone, in bytes."""
    return max((phase.left for each in rounds for phase in each.phases), default=0)


def waits(rounds: list[Round]) -> Iterator[tuple[int, float, float]]:
    """For each number of attackers: the median of p99, and of what is allowed."""
    sizes = sorted({phase.attackers for each in rounds for phase in each.phases})
    quiet = _median(each.quiet for each in rounds) or 0.0
    for size in sizes:
        seen = _median(phase.p99 for each in rounds for phase in each.phases if phase.attackers == size)
        yield size, seen or 0.0, WAIT + QUIET * quiet


def judge(case: Case | Outcome) -> list[Verdict]:
    """Every mark."""
    if isinstance(case, Outcome):
        arrived, wanted = min(case.gateway), case.errand.wanted
        return [Verdict("arrives", f"{arrived}", f"{wanted}", arrived == wanted)]
    verdicts = []
    ours, theirs = cost(case.gateway), cost(case.reference)
    served = _median(each.alike for each in case.gateway) or 0.0
    if ours is not None and _total(case.gateway, lambda phase: phase.requests) >= _REQUESTS:
        allowed = max(SERVED * served, REFERENCE * (theirs or 0.0))
        verdicts.append(Verdict(f"{case.attack.what}", f"{_us(ours)} us", f"{_us(allowed)} us", ours <= allowed))
    elif case.reference and _total(case.gateway, lambda phase: phase.bytes) >= _BYTES:
        spent, allowed = byte_cost(case.gateway) or 0.0, REFERENCE * (byte_cost(case.reference) or 0.0)
        verdicts.append(Verdict("byte", f"{_ns(spent)} ns", f"{_ns(allowed)} ns", spent <= allowed))
    bound = (MEMORY_HTTP2 if case.attack.transport == "h2" else MEMORY) + case.attack.allowance
    taken = memory(case.gateway)
    killed = any(phase.killed for each in case.gateway for phase in each.phases)
    seen = f"{taken / 1024:,.0f} KiB" + (", killed" if killed else "")
    verdicts.append(Verdict("memory", seen, f"{bound >> 10} KiB", taken <= bound and not killed))
    for size, wait, allowed in waits(case.gateway):
        verdicts.append(Verdict(f"p99 beside {size}", _ms(wait), _ms(allowed), wait <= allowed))
    return verdicts


def _us(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e6:.3g}" if seconds < 1e-3 else f"{seconds * 1e6:,.0f}"


def _ns(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e9:,.3g}" if seconds < 1e-6 else f"{seconds * 1e9:,.0f}"


def _ms(seconds: float) -> str:
    return "lost" if seconds == float("inf") else f"{seconds * 1e3:,.3g} ms" if seconds < 1 else f"{seconds:,.1f} s"


HEADER = (
    f"{'case':<28}{'item':<8}{'server':<9}{'served us':>10}{'unit':>9}{'us each':>9}{'ns/byte':>9}{'busy':>6}"
    f"{'KiB/conn':>10}{'left MiB':>9}  {'p99: quiet, then beside attackers':<36}"
)


def lines(case: Case | Outcome) -> Iterator[str]:
    """The figures of one case, a line for each server, and its marks."""
    yield from _errand_lines(case) if isinstance(case, Outcome) else _flood_lines(case)
    for verdict in judge(case):
        if not verdict.holds:
            yield f"    over: {verdict.mark}: {verdict.seen}, allowed {verdict.allowed}"


def _errand_lines(case: Outcome) -> Iterator[str]:
    for name, arrived in (("gateway", case.gateway), ("go", case.reference)):
        if arrived:
            yield f"{case.label:<28}{'7':<8}{name:<9} {min(arrived)} of {case.errand.wanted} frames arrived"


def _flood_lines(case: Case) -> Iterator[str]:
    for name, rounds in (("gateway", case.gateway), ("go", case.reference)):
        if not rounds:
            continue
        served = _us(_median(each.alike for each in rounds))
        busy = max((phase.busy for each in rounds for phase in each.phases), default=0.0)
        quiet = _ms(_median(each.quiet for each in rounds) or 0.0)
        beside = "  ".join(f"{size}: {_ms(wait)}" for size, wait, _ in waits(rounds))
        yield (
            f"{case.label:<28}{case.attack.item:<8}{name:<9}{served:>10}{case.attack.what:>9}"
            f"{_us(cost(rounds)):>9}{_ns(byte_cost(rounds)):>9}{busy:>6.0%}{memory(rounds) / 1024:>10,.0f}"
            f"{left(rounds) / 2**20:>9.1f}  {quiet}  {beside}"
        )


def table(cases: list[Case | Outcome]) -> Iterator[str]:
    """Every mark of every case: ok or over."""
    yield f"{'case':<28}{'mark':<16}{'seen':>22}{'allowed':>14}"
    for case in cases:
        for verdict in judge(case):
            state = "ok" if verdict.holds else "over"
            yield f"{case.label:<28}{verdict.mark:<16}{verdict.seen:>22}{verdict.allowed:>14}  {state}"


def over(cases: list[Case | Outcome]) -> int:
    """How many marks are over."""
    return sum(not verdict.holds for case in cases for verdict in judge(case))

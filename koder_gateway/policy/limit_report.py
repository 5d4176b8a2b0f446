"""Who is near a limit or over it, for a person to read.

A table may have millions of entries, and requests wait while it is read. So only a fixed number of entries is
examined, of each rule those that were used last, and the report says how many that were. The keys over their limit
are in the order in which they last asked, so the latest of them are always among these.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from typing import Final

from .buckets import SLACK, WHOLE
from .limit_keys import key_parts
from .limits import Limiter
from .meter import Meter

# Entries of all rules together that are examined, and how many of a rule are shown, over its limit and near it.
EXAMINED: Final = 8192
SHOWN: Final = 20
# A key is near its limit once so much of it is used.
NEAR: Final = 0.8
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What one key has used. `parts` are those of the key, by name, as text. Of the rule's burst `left` whole tokens
    are left, and in `wait` seconds there is one more; or `left` places in flight, and nobody knows when there is one."""

    parts: tuple[tuple[str, str], ...]
    left: int
    wait: int


@dataclass(frozen=True, slots=True)
class RuleUse:
    """The use of one rule: `entries` in memory, of which `examined` have been looked at, and those of them over the
    limit and near it, the fullest first."""

    meter: Meter
    entries: int
    examined: int
    over: tuple[KeyUse, ...]
    near: tuple[KeyUse, ...]


def rule_uses(limiter: Limiter, now: float, most: int = EXAMINED) -> list[RuleUse]:
    """The use of every rule at `now`, in monotonic seconds, in their order. At most `most` entries are examined, and
    nothing is charged."""
    uses: dict[str, RuleUse] = {}
    # The rules with few entries first: what they leave is for the others.
    waiting = sorted(limiter.meters, key=_entries)
    for index, meter in enumerate(waiting):
        use = _use(meter, now, most // (len(waiting) - index))
        most -= use.examined
        uses[meter.rule.name] = use
    return [uses[meter.rule.name] for meter in limiter.meters]


def _entries(meter: Meter) -> int:
    return len(meter.held if meter.rule.in_flight else meter.buckets)


def _use(meter: Meter, now: float, most: int) -> RuleUse:
    rule = meter.rule
    keys = islice(reversed(meter.held), most) if rule.in_flight else meter.buckets.latest(most)
    lefts = [(meter.left(key, now), key) for key in keys]
    edge = (rule.in_flight or rule.burst) * (1.0 - NEAR) + _ROUNDING
    over = nsmallest(SHOWN, (pair for pair in lefts if pair[0] < WHOLE))
    near = nsmallest(SHOWN, (pair for pair in lefts if WHOLE <= pair[0] <= edge))
    return RuleUse(
        meter,
        _entries(meter),
        len(lefts),
        tuple(_shown(meter, key, left, now) for left, key in over),
        tuple(_shown(meter, key, left, now) for left, key in near),
    )


def _shown(meter: Meter, key: bytes, left: float, now: float) -> KeyUse:
    return KeyUse(key_parts(meter.rule, key), int(left + SLACK), meter.retry_after(key, left, now))

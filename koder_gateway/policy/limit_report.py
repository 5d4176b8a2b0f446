"""Who is near a limit or over it, for a person to read.

A table may have millions of entries, and requests wait while it is read. So only a fixed number of entries is
examined, of each rule those that were used last, and the report says how many that were. The keys over their limit
are in the order in which they last asked, so the latest of them are always among these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from typing import Final

from .buckets import SLACK, WHOLE
from .limit_keys import key_parts
from .limit_rules import RateOverride
from .limits import Limiter
from .meter import Meter

# Entries of all rules together that are examined, and how many of a rule are shown, over its limit and near it.
EXAMINED: Final = 2048
SHOWN: Final = 20
# A key is near its limit once so much of it is used.
NEAR: Final = 0.8
_ROUNDING: Final = 1e-9
# The figures that the tenant with this slug has in place of rules' own, by rule.
Figures = Callable[[bytes], Mapping[str, RateOverride]]


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What one key has used. `parts` are those of the key, by name, as text. Of `most` whole tokens (the burst)
    `left` are left, and in `wait` seconds there is one more; or places in flight, and nobody knows when one will be
    free."""

    parts: tuple[tuple[str, str], ...]
    left: int
    most: int
    wait: int


@dataclass(frozen=True, slots=True)
class RuleUse:
    """The use of one rule: `entries` in memory, of which `examined` have been looked at, and those of them over the
    limit and near it, the fullest first. Tenants with figures of their own are among them."""

    meter: Meter
    entries: int
    examined: int
    over: tuple[KeyUse, ...]
    near: tuple[KeyUse, ...]


def rule_uses(limiter: Limiter, figures: Figures, now: float, most: int = EXAMINED) -> list[RuleUse]:
    """The use of every rule at `now`, in monotonic seconds, in their order. At most `most` entries are examined, and
    nothing is charged."""
    groups = {meter: [meter] for meter in limiter.meters}
    for base, meter in limiter.overridden():
        # Requests in flight are counted together where the rule counts by tenant.
        if not (meter.rule.in_flight and meter.held is base.held):
            groups[base].append(meter)
    uses: dict[Meter, RuleUse] = {}
    # The rules with few entries first: what they leave is for the others.
    waiting = sorted(groups.items(), key=lambda group: sum(map(_entries, group[1])))
    for index, (base, meters) in enumerate(waiting):
        use = _use(base, meters, figures, now, most // (len(waiting) - index))
        most -= use.examined
        uses[base] = use
    return [uses[base] for base in limiter.meters]


def _entries(meter: Meter) -> int:
    return len(meter.held if meter.rule.in_flight else meter.buckets)


# A meter, one of its keys, what that has left and how much it may have.
_Found = tuple[float, int, bytes, Meter]


def _use(base: Meter, meters: list[Meter], figures: Figures, now: float, most: int) -> RuleUse:
    found: list[_Found] = []
    # Those of tenants first: the rule's own meter may have millions.
    for meter in reversed(meters):
        found += _examined(meter, figures, now, most - len(found))
    over = (each for each in found if each[0] < WHOLE)
    near = (each for each in found if WHOLE <= each[0] <= each[1] * (1.0 - NEAR) + _ROUNDING)
    return RuleUse(base, sum(map(_entries, meters)), len(found), _shown(over, now), _shown(near, now))


def _examined(meter: Meter, figures: Figures, now: float, most: int) -> Iterator[_Found]:
    rule = meter.rule
    if not rule.in_flight:
        for key in meter.buckets.latest(most):
            yield meter.left(key, now), rule.burst, key, meter
        return
    for key, held in islice(reversed(meter.held.items()), most):
        places = _places(meter, key, figures)
        yield float(places - held), places, key, meter


def _places(meter: Meter, key: bytes, figures: Figures) -> int:
    """How many requests in flight the tenant of this key may have."""
    slug = dict(key_parts(meter.rule, key)).get("tenant")
    own = None if slug is None else figures(slug.encode()).get(meter.rule.name)
    return meter.rule.in_flight if own is None else own.in_flight or meter.rule.in_flight


def _shown(found: Iterator[_Found], now: float) -> tuple[KeyUse, ...]:
    first = nsmallest(SHOWN, found, key=lambda each: each[0])
    return tuple(
        KeyUse(
            key_parts(meter.rule, key), max(0, int(left + SLACK)), most, meter.retry_after(key, max(0.0, left), now)
        )
        for left, most, key, meter in first
    )

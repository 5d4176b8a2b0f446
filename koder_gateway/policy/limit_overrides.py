"""Figures that a tenant has in place of a rule's own, as the registry says.

Requests of such a tenant are counted by another meter of the same rule, which tenants with the same figures share. If
the rule does not count by tenant, these requests have buckets of their own, by tenant: one bucket cannot have two
rates, and a tenant's figures must not change what clients of the others may do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from .bucket_room import Room
from .limit_plan import Plan
from .limit_rules import LimitRule, RateOverride
from .meter import InFlightMeter, Meter

# How many meters there may be beside those of the rules; beyond that a rule's own figures hold.
_METERS: Final = 4096
# How many plans of tenants are kept prepared; beyond that the oldest is dropped.
_PLANS: Final = 4096


def misfit(rule: LimitRule | None, override: RateOverride) -> str | None:
    """Why an override has no effect on this rule (None: there is none of the name), None if it has."""
    if rule is None:
        return "is none of the limits"
    if rule.charge == "refusals":
        return "is a limit on refusals, which may have no tenant"
    if rule.in_flight and not override.in_flight:
        return "is a limit on requests in flight; write in_flight"
    if override.in_flight and not rule.in_flight:
        return "is a limit on a rate; write rate and burst"
    return None


def overridden(rule: LimitRule, override: RateOverride) -> LimitRule:
    """The rule with these figures; it counts by tenant."""
    key = rule.key if "tenant" in rule.key else ("tenant", *rule.key)
    return replace(
        rule,
        key=key,
        quota=override.quota,
        window=override.window or 1,
        burst=override.burst or override.quota,
        in_flight=override.in_flight,
    )


class Overrides:
    """The meters of overridden rules, made when they are first needed, and the plans of tenants that have any.

    `made` makes a plan of meters.
    """

    __slots__ = ("_apart", "_made", "_meters", "_plans", "_room", "_secret")

    def __init__(self, room: Room, secret: bytes, made: Callable[[tuple[Meter, ...]], Plan] = Plan) -> None:
        self._room = room
        self._secret = secret
        self._made = made
        self._meters: dict[tuple[Meter, RateOverride], Meter] = {}
        self._plans: dict[tuple[bytes, tuple[Meter, ...]], tuple[Mapping[str, RateOverride], Plan]] = {}
        # What is in flight under rules that do not count by tenant.
        self._apart: dict[Meter, dict[bytes, int]] = {}

    def __iter__(self) -> Iterator[tuple[Meter, Meter]]:
        """Each meter, behind the one of the rule's own figures."""
        return ((base, meter) for (base, _), meter in self._meters.items())

    def plan(self, plan: Plan, tenant: bytes, limits: Mapping[str, RateOverride]) -> Plan:
        """The same rules with the figures of this tenant."""
        key = tenant, plan.meters
        found = self._plans.get(key)
        if found is not None and (found[0] is limits or found[0] == limits):
            return found[1]
        meters = tuple(self._meter(meter, limits.get(meter.rule.name)) for meter in plan.meters)
        made = plan if meters == plan.meters else self._made(meters)
        if len(self._plans) >= _PLANS:
            del self._plans[next(iter(self._plans))]
        self._plans[key] = limits, made
        return made

    def _meter(self, base: Meter, override: RateOverride | None) -> Meter:
        if override is None or misfit(base.rule, override) is not None:
            return base
        made = self._meters.get((base, override))
        if made is not None:
            return made
        if len(self._meters) >= _METERS:
            self._drop_idle()
            if len(self._meters) >= _METERS:
                return base
        rule = overridden(base.rule, override)
        if rule.in_flight:
            made = InFlightMeter(rule, self._secret)
            made.held = base.held if "tenant" in base.rule.key else self._apart.setdefault(base, {})
        else:
            made = Meter(rule, self._room, self._secret, guaranteed=False)
        self._meters[base, override] = made
        return made

    def sweep(self, now: float, budget: int) -> None:
        """Drop buckets that are full again, and the meters that have none left."""
        for meter in self._meters.values():
            meter.buckets.sweep(now, budget)
        self._drop_idle()

    def _drop_idle(self) -> None:
        idle = [key for key, meter in self._meters.items() if meter.idle]
        for key in idle:
            base, meter = key[0], self._meters.pop(key)
            base.count(meter)
            if not meter.rule.in_flight:
                meter.buckets.leave()
        if idle:
            self._plans.clear()

    def adopt(self, old: Overrides, bases: Iterable[tuple[Meter, Meter]]) -> None:
        """Take over from the overrides before a reload; `bases` are pairs of rules' meters, the old one first."""
        now = dict(bases)
        for (base, override), meter in old._meters.items():
            mine = now.get(base)
            if mine is None:
                continue
            if base in old._apart and mine.counts_like(base):
                self._apart[mine] = old._apart[base]
            made = self._meter(mine, override)
            if made is mine:
                mine.count(meter)
            else:
                made.adopt(meter)

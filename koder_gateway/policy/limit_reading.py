"""What the limits of a running gateway would say of a request, read without charging anybody."""

from __future__ import annotations

from collections.abc import Mapping

from .buckets import SLACK, WHOLE
from .limit_plan import Plan
from .limit_rules import RateOverride
from .limits import Limiter
from .meter import CROWDED_WAIT, Crowded, LimitResult, Meter


class LimitReading(Limiter):
    """Takes the place of `live` for one request that is explained. `lefts` are then the whole tokens, or places in
    flight, that each rule had left for it, by the rule's name. The view is that of this process."""

    __slots__ = ("_live", "lefts")

    def __init__(self, live: Limiter) -> None:
        # Nothing of its own: a limiter's parts are used, not made.
        self._live = live
        self.meters = live.meters
        self.over = live.over
        # A store that is shared is not asked: this is one process's view.
        self.shared = None
        self._refusals = live._refusals
        self.lefts: dict[str, int] = {}

    def refused(self, address: bytes, now: float) -> bool:
        """See Limiter."""
        over = False
        for meter in self._refusals:
            left = _left(meter, address, now)
            self.lefts[meter.rule.name] = max(0, int(left + SLACK))
            over = over or (left < WHOLE and meter.enforced)
        return over

    def plan(self, method: bytes, path: bytes, plain: bool = False) -> Plan | None:
        """See Limiter."""
        plan = self._live.plan(method, path, plain)
        return None if plan is None else _ReadPlan(plan, self)

    def for_tenant(self, plan: Plan, tenant: bytes, limits: Mapping[str, RateOverride]) -> Plan:
        """See Limiter."""
        origin = plan.origin if isinstance(plan, _ReadPlan) else plan
        return _ReadPlan(self._live.for_tenant(origin, tenant, limits), self)


class _ReadPlan(Plan):
    """The rules of `origin`, which decide as for a request and charge nothing."""

    __slots__ = ("_reading", "origin")

    def __init__(self, origin: Plan, reading: LimitReading) -> None:
        super().__init__(origin.meters)
        self.sole = None
        self.origin = origin
        self._reading = reading

    def decide(self, keys: list[bytes], now: float, network: bytes = b"") -> LimitResult:
        """See Plan."""
        lefts: list[float] = []
        refused, wait, made = None, 0, LimitResult
        for meter, key in zip(self.meters, keys, strict=True):
            left = _left(meter, key, now)
            crowded = left >= WHOLE and meter.crowded(key, left)
            lefts.append(left)
            self._reading.lefts[meter.rule.name] = max(0, int(left + SLACK))
            if meter.enforced and (crowded or left < WHOLE):
                seconds = CROWDED_WAIT if crowded else meter.retry_after(key, left, now)
                if seconds > wait:
                    refused, wait, made = meter.rule, seconds, Crowded if crowded else LimitResult
        if refused is not None:
            return made(refused, self.fields(lefts) + b"Retry-After: %d\r\n" % wait)
        # As after it has been charged.
        charged = [left - (left >= WHOLE and not meter.pends) for left, meter in zip(lefts, self.meters, strict=True)]
        return LimitResult(None, self.fields(charged))


def _left(meter: Meter, key: bytes, now: float) -> float:
    """What a key has left. A key that is not known has all, and no room is made for it."""
    if meter.rule.in_flight or key in meter.buckets:
        return meter.left(key, now)
    return float(meter.rule.burst)

"""Limits that a store decides about for several gateways, and what is decided where it cannot.

The buckets in this process are kept in step with the store's answers. So where it does not answer, the rules with
`on_failure = "local"` go on from what was last known. Those with "open" let the request pass, uncharged, and their
fields say nothing; those with "closed" refuse it. A shadow is counted as long as its buckets are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import ceil
from typing import Final

from .limit_plan import Plan
from .limit_rules import LimitRule
from .meter import LimitResult, Meter, Settling
from .shared_store import CROWDED, OK, SharedAnswer, SharedQuestion, SharedRule, SharedStore

# Plans that are kept prepared. There are few, but for paths that services read in different ways.
_PREPARED: Final = 1024


class Undecided(LimitResult):
    """The store could not decide, and `refused` is a rule that then refuses everything."""

    __slots__ = ()


def shared_rule(meter: Meter) -> SharedRule:
    """A rule as the store knows it. A rule of the same name that means something else has buckets of its own."""
    rule = meter.rule
    meaning = blake2b(repr(_meaning(rule)).encode(), digest_size=6).hexdigest()
    name = f"{rule.name}:{meaning}".encode("ascii")
    buckets = meter.buckets
    return SharedRule(name, buckets.rate, buckets.burst, buckets.most, meter.enforced, meter.afterwards)


def _meaning(rule: LimitRule) -> tuple[object, ...]:
    return rule.key, rule.ipv6_prefix, rule.quota, rule.window, rule.burst, rule.charge


class SharedLimits:
    """A store, and the plans that it decides about. `now` gives the time (monotonic seconds)."""

    def __init__(self, store: SharedStore, now: Callable[[], float]) -> None:
        self.store = store
        self.now = now
        self._plans: dict[tuple[Meter, ...], SharedPlan] = {}
        self.without = 0
        """Requests since the start that were decided without the store."""

    def plan(self, plan: Plan) -> SharedPlan:
        """The same plan, decided by the store."""
        shared = self._plans.get(plan.meters)
        if shared is None:
            if len(self._plans) >= _PREPARED:
                self._plans.clear()
            shared = self._plans[plan.meters] = SharedPlan(plan, self)
        return shared


class SharedPlan:
    """The rules that apply to a request, decided together by the store."""

    __slots__ = (
        "_closed",
        "_limits",
        "_local",
        "_now",
        "_places",
        "_plan",
        "_question",
        "_rules",
        "_store",
        "afterwards",
    )

    def __init__(self, plan: Plan, limits: SharedLimits) -> None:
        self._plan = plan
        self._limits = limits
        self._store = limits.store
        self._now = limits.now
        self._rules = tuple(shared_rule(meter) for meter in plan.meters)
        self._question: SharedQuestion = limits.store.question(self._rules)
        self.afterwards = any(meter.afterwards for meter in plan.meters)
        # What is decided without the store: by which meters, at which places among all, and which rule refuses.
        self._places = [at for at, meter in enumerate(plan.meters) if meter.rule.on_failure == "local"]
        self._local = Plan(tuple(plan.meters[at] for at in self._places)) if self._places else None
        closed = (meter for meter in plan.meters if meter.rule.on_failure == "closed" and meter.enforced)
        self._closed = next(closed, None)

    def decide(self, keys: list[bytes], decided: Callable[[LimitResult], None]) -> None:
        """Tell `decided` the verdict: at once where the store is away, else within its timeout. Each of `keys` is
        that of the plan's meter."""
        store = self._store
        if not store.up:
            decided(self.without_store(keys))
            return
        request = store.request() if self.afterwards else b""

        def answered(answer: SharedAnswer) -> None:
            decided(self.without_store(keys) if answer is None else self._verdict(keys, request, answer))

        self._question.ask(keys, request, answered)

    def without_store(self, keys: list[bytes]) -> LimitResult:
        """The verdict where the store cannot decide."""
        self._limits.without += 1
        if self._closed is not None:
            self._closed.refused += 1
            return Undecided(self._closed.rule)
        if self._local is None:
            return LimitResult()
        return self._local.decide([keys[at] for at in self._places], self._now())

    def _verdict(self, keys: list[bytes], request: bytes, answer: Sequence[tuple[float, int]]) -> LimitResult:
        """The verdict that the store's answer means, as `Plan.decide` would say it."""
        now = self._now()
        lefts: list[float] = []
        refused, wait = None, 0
        shadowed: tuple[str, ...] = ()
        for meter, key, (left, state) in zip(self._plan.meters, keys, answer, strict=True):
            meter.buckets.learn(key, left, now)
            lefts.append(0.0 if state == CROWDED else max(0.0, left))
            if state == OK:
                continue
            if not meter.enforced:
                meter.shadowed += 1
                shadowed += (meter.rule.name,)
                continue
            meter.refused += 1
            seconds = meter.wait(lefts[-1]) + ceil(max(0.0, -left) / meter.buckets.rate)
            if seconds > wait:
                refused, wait = meter.rule, seconds
        if refused is not None:
            return LimitResult(refused, self._plan.fields(lefts) + b"Retry-After: %d\r\n" % wait, shadowed)
        pending: tuple[tuple[Settling, bytes], ...] = ()
        for meter, rule, key, (_, state) in zip(self._plan.meters, self._rules, keys, answer, strict=True):
            if state == OK:
                meter.admitted += 1
                if meter.afterwards:
                    meter.held[key] = meter.held.get(key, 0) + 1
                    pending += ((SharedEnd(meter, rule, self._store, self._now, request), key),)
        return LimitResult(None, self._plan.fields(lefts), shadowed, pending)


class SharedEnd(Settling):
    """What a request that the store has admitted owes to a rule that charges failures, in place of its meter."""

    __slots__ = ("_meter", "_now", "_request", "_shared", "_store")

    def __init__(
        self, meter: Meter, shared: SharedRule, store: SharedStore, now: Callable[[], float], request: bytes
    ) -> None:
        self._meter = meter
        self._shared = shared
        self._store = store
        self._now = now
        self._request = request

    @property
    def rule(self) -> LimitRule:
        """The rule."""
        return self._meter.rule

    def settle(self, key: bytes, failed: bool, now: float) -> None:
        """See `Meter.settle`."""
        meter = self._meter
        meter.settle(key, failed, now)

        def answered(answer: SharedAnswer) -> None:
            if answer is not None:
                meter.buckets.learn(key, answer[0][0], self._now())

        self._store.settle(self._shared, key, self._request, failed, answered)

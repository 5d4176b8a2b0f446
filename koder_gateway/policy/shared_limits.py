"""Limits that a store decides about for several gateways, and what is decided where it cannot.

The buckets in this process are kept in step with the store's answers, as of when it was asked: so they lack more than
the store's own only where that has forgotten something (by a restart, or because it dropped a key), or where this
process decided alone. Each question has what they lack, and the store takes the emptier of the two. Where it does not
answer, the rules with `on_failure = "local"` go on from what was last known. Those with "open" let the request pass,
uncharged, and their fields say nothing; those with "closed" refuse it. A shadow is counted as long as its buckets are
known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import ceil
from typing import Final

from .buckets import WHOLE
from .limit_plan import Plan
from .limit_rules import LimitRule
from .meter import CROWDED_WAIT, Crowded, LimitResult, Meter, Settling
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
    """A store, which reloads keep, and what is counted about it. `now` gives the time (monotonic seconds)."""

    def __init__(self, store: SharedStore, now: Callable[[], float]) -> None:
        self.store = store
        self.now = now
        self.without = 0
        """Requests since the start that were decided without the store."""


class SharedPlans:
    """The plans of one limiter that a store decides about. They end with the limiter: a plan has its buckets."""

    __slots__ = ("_plans", "limits", "store")

    def __init__(self, limits: SharedLimits) -> None:
        self.store = limits.store
        self.limits = limits
        self._plans: dict[tuple[Meter, ...], SharedPlan] = {}

    def plan(self, plan: Plan) -> SharedPlan:
        """The same plan, decided by the store."""
        shared = self._plans.get(plan.meters)
        if shared is None:
            if len(self._plans) >= _PREPARED:
                self._plans.clear()
            shared = self._plans[plan.meters] = SharedPlan(plan, self.limits)
        return shared


class SharedPlan:
    """The rules that apply to a request, decided together: those with a rate by the store, those on requests in
    flight here."""

    __slots__ = (
        "_afterwards",
        "_at",
        "_closed",
        "_in_flight",
        "_limits",
        "_local",
        "_local_at",
        "_plan",
        "_question",
        "_rules",
    )

    def __init__(self, plan: Plan, limits: SharedLimits) -> None:
        meters = plan.meters
        self._plan = plan
        self._limits = limits
        # The places, among all, of the rules that the store decides, and of those that it does not.
        self._at = [at for at, meter in enumerate(meters) if meter.rule.quota]
        self._in_flight = [at for at, meter in enumerate(meters) if not meter.rule.quota]
        self._rules = tuple(shared_rule(meters[at]) for at in self._at)
        self._question: SharedQuestion = limits.store.question(self._rules)
        self._afterwards = any(rule.afterwards for rule in self._rules)
        # What is decided without the store, and which rule then refuses.
        self._local_at = [at for at, meter in enumerate(meters) if meter.rule.on_failure == "local"]
        self._local = Plan(tuple(meters[at] for at in self._local_at)) if self._local_at else None
        closed = (meter for meter in meters if meter.rule.on_failure == "closed" and meter.enforced)
        self._closed = next(closed, None)

    def decide(self, keys: list[bytes], network: bytes, decided: Callable[[LimitResult], None]) -> None:
        """Tell `decided` the verdict: at once where the store need not or cannot be asked, else within its timeout.
        Each of `keys` is that of the plan's meter, `network` the client's."""
        limits = self._limits
        if not limits.store.up:
            decided(self.without_store(keys, network))
            return
        places = self._take_places(keys) if self._in_flight else ()
        if places is None:
            # Refused for want of a place. Nothing is charged, so it does not matter what the store knows.
            decided(self._plan.decide(list(keys), limits.now(), network))
            return
        request = limits.store.request() if self._afterwards else b""

        asked = limits.now()

        def answered(answer: SharedAnswer) -> None:
            if answer is None:
                self._give_back(places)
                decided(self.without_store(keys, network))
            else:
                decided(self._verdict(keys, asked, request, places, answer))

        meters = self._plan.meters
        missing = [meters[at].buckets.missing(keys[at], asked) for at in self._at]
        self._question.ask([keys[at] for at in self._at], missing, request, answered)

    def _take_places(self, keys: list[bytes]) -> tuple[tuple[Settling, bytes], ...] | None:
        """Count the request as in flight under the rules on these; None if one refuses it."""
        free = []
        for at in self._in_flight:
            meter, key = self._plan.meters[at], keys[at]
            if meter.left(key, 0.0) >= WHOLE:
                free.append((meter, key))
            elif meter.enforced:
                return None
        for meter, key in free:
            meter.held[key] = meter.held.get(key, 0) + 1
        return tuple(free)

    def _give_back(self, places: tuple[tuple[Settling, bytes], ...]) -> None:
        for meter, key in places:
            meter.settle(key, False, 0.0)

    def without_store(self, keys: list[bytes], network: bytes) -> LimitResult:
        """The verdict where the store cannot decide."""
        self._limits.without += 1
        if self._closed is not None:
            self._closed.refused += 1
            return Undecided(self._closed.rule)
        if self._local is None:
            return LimitResult()
        return self._local.decide([keys[at] for at in self._local_at], self._limits.now(), network)

    def _verdict(
        self,
        keys: list[bytes],
        asked: float,
        request: bytes,
        places: tuple[tuple[Settling, bytes], ...],
        answer: Sequence[tuple[float, int]],
    ) -> LimitResult:
        """The verdict that the store's answer means, as `Plan.decide` would say it."""
        meters = self._plan.meters
        lefts = [0.0] * len(meters)
        refused, wait, made = None, 0, LimitResult
        shadowed: tuple[str, ...] = ()
        for at, (left, state) in zip(self._at, answer, strict=True):
            meter, key = meters[at], keys[at]
            meter.buckets.learn(key, left, asked)
            lefts[at] = left if left > 0.0 else 0.0
            if state == OK:
                continue
            if not meter.enforced:
                meter.shadowed += 1
                shadowed += (meter.rule.name,)
                continue
            meter.refused += 1
            crowded = state == CROWDED
            owed = ceil(max(0.0, -left) / meter.buckets.rate)
            seconds = CROWDED_WAIT if crowded else meter.wait(lefts[at]) + owed
            if seconds > wait:
                refused, wait, made = meter.rule, seconds, Crowded if crowded else LimitResult
        if refused is not None:
            self._give_back(places)
            return made(refused, self._plan.fields(lefts) + b"Retry-After: %d\r\n" % wait, shadowed)
        pending = self._admitted(keys, request, answer) + places
        if self._in_flight:
            shadowed += self._count_in_flight(places)
        return LimitResult(None, self._plan.fields(lefts), shadowed, pending)

    def _admitted(
        self, keys: list[bytes], request: bytes, answer: Sequence[tuple[float, int]]
    ) -> tuple[tuple[Settling, bytes], ...]:
        """Count the request as admitted by the rules that the store has decided; what it owes to them."""
        pending: tuple[tuple[Settling, bytes], ...] = ()
        for at, rule, (_, state) in zip(self._at, self._rules, answer, strict=True):
            if state == OK:
                meter, key = self._plan.meters[at], keys[at]
                meter.admitted += 1
                if meter.afterwards:
                    meter.held[key] = meter.held.get(key, 0) + 1
                    pending += ((SharedEnd(meter, rule, self._limits, request), key),)
        return pending

    def _count_in_flight(self, places: tuple[tuple[Settling, bytes], ...]) -> tuple[str, ...]:
        """Count it by the rules on requests in flight; the names of the shadows that would have refused it."""
        taken = {meter.rule.name for meter, _ in places}
        shadowed: tuple[str, ...] = ()
        for at in self._in_flight:
            meter = self._plan.meters[at]
            if meter.rule.name in taken:
                meter.admitted += 1
            else:
                meter.shadowed += 1
                shadowed += (meter.rule.name,)
        return shadowed


class SharedEnd(Settling):
    """What a request that the store has admitted owes to a rule that charges failures, in place of its meter."""

    __slots__ = ("_limits", "_meter", "_request", "_shared")

    def __init__(self, meter: Meter, shared: SharedRule, limits: SharedLimits, request: bytes) -> None:
        self._meter = meter
        self._shared = shared
        self._limits = limits
        self._request = request

    @property
    def rule(self) -> LimitRule:
        """The rule."""
        return self._meter.rule

    def settle(self, key: bytes, failed: bool, now: float) -> None:
        """See `Meter.settle`."""
        meter, limits = self._meter, self._limits
        asked = limits.now()
        missing = meter.buckets.missing(key, asked)
        meter.settle(key, failed, now)

        def answered(answer: SharedAnswer) -> None:
            if answer is not None:
                meter.buckets.learn(key, answer[0][0], asked)

        limits.store.settle(self._shared, key, missing, self._request, failed, answered)

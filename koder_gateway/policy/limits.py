"""Rate limits: which rules apply to a request, what they charge, and the header lines that announce them.

A rule that charges failures does so when the response is known (`Limiter.settle`). Until then a request may be a
guess: for a key with `left` tokens, at most `SIDE_BY_SIDE * left` requests are in flight. A key that has not failed
lately has room for a whole office, one that has used up most of its bucket has little. Failures beyond the bucket are
owed, so that over time there are no more than the rate.

A rule that charges refusals is separate: it applies only to what the gateway itself refuses, before or after the
tenant is known, and counts by address (`Limiter.refused`). It never affects requests that are served. It is not a
quota to plan with, so no header announces it.

The headers are those of draft-ietf-httpapi-ratelimit-headers-10, for every enforced rule that applies:

- `RateLimit-Policy: "name";q=BURST;w=SECONDS`: the burst, and the seconds in which an empty bucket refills, rounded
  up. A client that keeps to q requests in any w seconds is never refused. With the default burst this is the rate as
  configured (10/m: q=10;w=60); with burst 5 it is q=5;w=30, since q=10;w=60 would allow ten at once.
- `RateLimit: "name";r=LEFT;t=SECONDS`: the whole tokens left, and the seconds, rounded up, until there is one more;
  for a full bucket t is the time in which one token refills.
- `Retry-After` with a refusal: the longest t of the rules that refuse.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

from .buckets import SLACK, WHOLE, Buckets
from .clients import parse_address
from .episodes import Episodes
from .limit_rules import LimitRule
from .routing import PathSet, PrefixTable, lenient_path, lenient_paths

# Requests in flight for each token that is left, under a rule that charges failures.
SIDE_BY_SIDE = 4


@lru_cache(maxsize=4096)
def address_key(text: str) -> bytes:
    """The key under which limits count an address.

    An IPv6 host owns its whole /64, so that is one key; an IPv4-mapped address is the IPv4 one. A peer without an
    address (on a UNIX socket) is its own text.
    """
    address = parse_address(text)
    return text.encode("utf-8") if address is None else address.packed[:8]


@dataclass(slots=True)
class LimitResult:
    """The verdict of the limits on one request, which nobody changes. (Made for each request: what is frozen, or a
    named tuple, takes twice as long to make.)

    `refused` is the rule that refuses, None if the request may pass. `fields` are finished header lines for its
    response. `shadowed` names the shadow rules that would have refused. `pending` are the meters and keys that
    `Limiter.settle` charges if the response is a failure.
    """

    refused: LimitRule | None = None
    fields: bytes = b""
    shadowed: tuple[str, ...] = ()
    pending: tuple[tuple[Meter, bytes], ...] = ()


UNLIMITED = LimitResult()


class Meter:
    """One rule at work: its buckets, its counters, its part of the header lines.

    `admitted`, `refused` and `shadowed` (would have refused) count requests since the start.
    """

    __slots__ = (
        "_by_address",
        "_by_tenant",
        "_line",
        "admitted",
        "afterwards",
        "buckets",
        "enforced",
        "held",
        "item",
        "policy",
        "refused",
        "rule",
        "shadowed",
    )

    def __init__(self, rule: LimitRule, max_entries: int) -> None:
        self.rule = rule
        self.enforced = rule.mode == "enforce"
        self.afterwards = rule.charge == "failures"
        debt = (SIDE_BY_SIDE - 1) * rule.burst if self.afterwards else 0
        self.buckets = Buckets(rule.rate, rule.burst, max_entries, debt)
        self.admitted = self.refused = self.shadowed = 0
        # How many requests of each key are in flight, under a rule that charges failures.
        self.held: dict[bytes, int] = {}
        self._by_tenant = "tenant" in rule.key
        self._by_address = "ip" in rule.key
        # A structured-field String (RFC 9651 section 3.3.3).
        name = b'"' + rule.name.replace("\\", r"\\").replace('"', r"\"").encode("ascii") + b'"'
        refill = -(-rule.burst * rule.window // rule.quota)
        self.policy = b"%b;q=%d;w=%d" % (name, rule.burst, refill)
        self.item = name.replace(b"%", b"%%") + b";r=%d;t=%d"
        policy_line = b"RateLimit-Policy: %b\r\n" % self.policy
        self._line = policy_line.replace(b"%", b"%%") + b"RateLimit: " + self.item + b"\r\n"

    def key(self, tenant: bytes, address: bytes) -> bytes:
        """The key that a request is counted under; a slug never contains the slash that separates the two parts."""
        if self._by_tenant:
            return tenant + b"/" + address if self._by_address else tenant
        return address if self._by_address else b""

    def wait(self, left: float) -> int:
        """Whole seconds, at least 1, until a bucket with this much left has one more whole token."""
        missing = int(left + SLACK) + 1.0 - left - SLACK
        return ceil(missing / self.buckets.rate) or 1

    def retry_after(self, key: bytes, left: float, now: float) -> int:
        """The same for a key that has been refused and may owe tokens."""
        return self.wait(left) + ceil(self.buckets.owed(key, now) / self.buckets.rate)

    def adopt(self, old: Meter) -> None:
        """Continue the counters of the previous rule of the same name, and its buckets if they mean the same."""
        self.admitted, self.refused, self.shadowed = old.admitted, old.refused, old.shadowed
        mine, theirs = self.rule, old.rule
        if (mine.key, mine.rate, mine.burst) == (theirs.key, theirs.rate, theirs.burst):
            old.buckets.resize(self.buckets.max_entries)
            self.buckets = old.buckets
            self.held = old.held

    def crowded(self, key: bytes, left: float) -> bool:
        """Whether the key has as many requests in flight as its remaining tokens allow."""
        return self.afterwards and self.held.get(key, 0) >= SIDE_BY_SIDE * left

    def settle(self, key: bytes, failed: bool, now: float) -> None:
        """A request that was admitted is over."""
        held = self.held.pop(key, 1) - 1
        if held:
            self.held[key] = held
        if failed:
            self.buckets.charge(key, now)

    def judge(self, tenant: bytes, address: bytes, now: float) -> LimitResult:
        """The verdict if only this rule applies, enforced and charged for each request."""
        left = self.buckets.spend(self.key(tenant, address), now)
        if left >= 0.0:
            self.admitted += 1
            # `wait`, inlined: this runs for each request.
            left += SLACK
            whole = int(left)
            return LimitResult(None, self._line % (whole, ceil((whole + 1.0 - left) / self.buckets.rate) or 1))
        self.refused += 1
        seconds = self.wait(left + 1.0)
        return LimitResult(self.rule, self._line % (0, seconds) + b"Retry-After: %d\r\n" % seconds)


class _Plan:
    """The rules that apply to one path prefix and method, decided together: all of them are charged, or none."""

    __slots__ = ("_lines", "_meters", "_shown", "sole")

    def __init__(self, meters: tuple[Meter, ...]) -> None:
        self._meters = meters
        # For each rule that the headers show: its index among the meters, and the seconds in which a token refills.
        self._shown = tuple((index, 1.0 / meter.buckets.rate) for index, meter in enumerate(meters) if meter.enforced)
        policies = b", ".join(meter.policy for meter in meters if meter.enforced)
        items = b", ".join(meter.item for meter in meters if meter.enforced)
        self._lines = b"RateLimit-Policy: %b\r\nRateLimit: %b\r\n" % (policies.replace(b"%", b"%%"), items)
        only = meters[0] if len(meters) == 1 else None
        self.sole = only if only is not None and only.enforced and not only.afterwards else None

    @property
    def rules(self) -> tuple[LimitRule, ...]:
        return tuple(meter.rule for meter in self._meters)

    def judge(self, tenant: bytes, address: bytes, now: float) -> LimitResult:
        """The verdict of several rules, or of a single one that is a shadow or is charged afterwards."""
        keys: list[bytes] = []
        lefts: list[float] = []
        refused, wait = None, 0
        shadowed: tuple[str, ...] = ()
        for meter in self._meters:
            key = meter.key(tenant, address)
            left = meter.buckets.left(key, now)
            keys.append(key)
            crowded = left >= WHOLE and meter.crowded(key, left)
            lefts.append(0.0 if crowded else left)
            if left < WHOLE or crowded:
                if not crowded:
                    meter.buckets.knock(key, now)
                if not meter.enforced:
                    meter.shadowed += 1
                    shadowed += (meter.rule.name,)
                    continue
                meter.refused += 1
                if (seconds := meter.retry_after(key, lefts[-1], now)) > wait:
                    refused, wait = meter.rule, seconds
        if refused is not None:
            return LimitResult(refused, self._fields(lefts) + b"Retry-After: %d\r\n" % wait, shadowed)
        return self._admit(keys, lefts, shadowed, now)

    def _admit(self, keys: list[bytes], lefts: list[float], shadowed: tuple[str, ...], now: float) -> LimitResult:
        pending: tuple[tuple[Meter, bytes], ...] = ()
        for index, meter in enumerate(self._meters):
            if lefts[index] < WHOLE:
                continue  # A shadow: as if it had refused, it is not charged.
            meter.admitted += 1
            key = keys[index]
            if meter.afterwards:
                meter.held[key] = meter.held.get(key, 0) + 1
                pending += ((meter, key),)
            else:
                lefts[index] = meter.buckets.spend(key, now)
        return LimitResult(None, self._fields(lefts), shadowed, pending)

    def _fields(self, lefts: list[float]) -> bytes:
        if not self._shown:
            return b""
        values: list[int] = []
        for index, period in self._shown:
            left = lefts[index] + SLACK
            whole = int(left)
            values.append(whole)
            values.append(ceil((whole + 1.0 - left) * period) or 1)
        return self._lines % tuple(values)


class _Plans:
    """The plans of one path prefix by method."""

    __slots__ = ("by_method", "meters", "other")

    def __init__(self, meters: tuple[Meter, ...]) -> None:
        self.meters = meters
        named = {method for meter in meters for method in meter.rule.methods or ()}
        self.by_method = {method: self._plan(meters, method) for method in named}
        self.other = self._plan(meters, None)

    @staticmethod
    def _plan(meters: tuple[Meter, ...], method: bytes | None) -> _Plan | None:
        apply = tuple(meter for meter in meters if meter.rule.methods is None or method in meter.rule.methods)
        return _Plan(apply) if apply else None


class Limiter:
    """All rules at work. `max_entries` bounds their buckets together, in equal parts. `over` records the addresses
    that have passed a limit on refusals."""

    __slots__ = ("_plans", "_refusals", "meters", "over")

    def __init__(self, rules: Iterable[LimitRule], max_entries: int) -> None:
        listed = tuple(rules)
        self.over = Episodes()
        share = max_entries // max(1, len(listed))
        self.meters = tuple(Meter(rule, share) for rule in listed)
        self._refusals = tuple(meter for meter in self.meters if meter.rule.charge == "refusals")
        reaches = [tuple(lenient_path(path, path.count(b"/")) for path in rule.paths or (b"/",)) for rule in listed]
        prefixes = {b"/"}.union(*reaches)
        reach = [
            (meter, PathSet(paths))
            for meter, paths in zip(self.meters, reaches, strict=True)
            if meter not in self._refusals
        ]
        self._plans = PrefixTable(
            {prefix: _Plans(tuple(meter for meter, paths in reach if paths.covers(prefix))) for prefix in prefixes}
        )

    @property
    def entries(self) -> int:
        """How many buckets are in memory."""
        return sum(len(meter.buckets) for meter in self.meters)

    def admit(
        self, tenant: bytes, address: bytes, method: bytes, path: bytes, now: float, plain: bool = False
    ) -> LimitResult:
        """Decide about one request and charge it.

        `address` is the result of `address_key`, `path` and `plain` are those of its head, `now` is monotonic
        seconds. A path that is not `plain` is read in every way that a lenient service may. For rules that charge
        failures pass the verdict to `settle` once, when the exchange has ended.
        """
        plans = self._plans.match(path) if plain else self._lenient_plans(path)
        plan = plans.by_method.get(method, plans.other) if plans is not None else None
        if plan is None:
            return UNLIMITED
        if plan.sole is not None:
            return plan.sole.judge(tenant, address, now)
        return plan.judge(tenant, address, now)

    def rules_for(self, method: bytes, path: bytes) -> tuple[LimitRule, ...]:
        """The rules that apply to a request, for explanation."""
        plans = self._lenient_plans(path)
        plan = plans.by_method.get(method, plans.other) if plans is not None else None
        return plan.rules if plan is not None else ()

    @property
    def refusal_rules(self) -> tuple[LimitRule, ...]:
        """The rules that apply to refusals of the gateway, for explanation."""
        return tuple(meter.rule for meter in self._refusals)

    def refused(self, address: bytes, now: float) -> bool:
        """Charge a refusal of the gateway. Returns whether this address has had so many that it gets no response.

        `address` is the result of `address_key`, `now` is monotonic seconds.
        """
        over = False
        for meter in self._refusals:
            if meter.buckets.spend(address, now) >= 0.0:
                meter.admitted += 1
            elif meter.enforced:
                meter.refused += 1
                over = True
                self.over.note(meter.rule.name, address, now)
            else:
                meter.shadowed += 1
        return over

    @staticmethod
    def settle(verdict: LimitResult, status: int, served: bool, now: float) -> None:
        """Charge the rules that charge failures for a request that was one.

        A failure is a 4xx response of the service (`served`), other than its 429. A request that ended without a
        status is charged as well: a client that disconnects before the response must not guess for free.
        """
        failed = (served and 400 <= status < 500 and status != 429) or not status
        for meter, key in verdict.pending:
            meter.settle(key, failed, now)

    def sweep(self, now: float, budget: int) -> None:
        """Drop buckets that are full again; call it now and then with the number of entries to check per rule."""
        for meter in self.meters:
            meter.buckets.sweep(now, budget)

    def adopt(self, old: Limiter) -> None:
        """Take over from the limiter before a reload.

        Counters continue under the same name; buckets do if key, rate and burst are also the same. Both limiters then
        share them, so exchanges that are still in flight are settled in the right place.
        """
        self.over = old.over
        before = {meter.rule.name: meter for meter in old.meters}
        for meter in self.meters:
            earlier = before.get(meter.rule.name)
            if earlier is not None:
                meter.adopt(earlier)

    def _lenient_plans(self, path: bytes) -> _Plans | None:
        table = self._plans
        readings = lenient_paths(path, table.depth) if table.depth else (path,)
        found = {table.match(reading) for reading in readings}
        if len(found) == 1:
            return found.pop()
        # Services disagree on what it means, so all meanings count.
        apply = {meter for plans in found if plans for meter in plans.meters}
        return _Plans(tuple(meter for meter in self.meters if meter in apply))

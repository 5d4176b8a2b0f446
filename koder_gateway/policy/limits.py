"""Rate limits: which rules apply to a request, and what a refusal of the gateway itself is charged.

A rule that charges failures does so when the response is known (`Limiter.settle`). Until then a request may be a
guess: for a key with `left` tokens, at most `SIDE_BY_SIDE * left` requests are in flight. A key that has not failed
lately has room for a whole office, one that has used up most of its bucket has little. Failures beyond the bucket are
owed, so that over time there are no more than the rate.

A rule on requests in flight counts those of a key that were admitted and have not ended, however they end; a tunnel
ends with its last byte.

A rule that charges refusals is separate: it applies only to what the gateway itself refuses, before or after the
tenant is known, and counts by address (`Limiter.refused`). It never affects requests that are served. It is not a
quota to plan with, so no header announces it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from .bucket_room import Room, overflow_key
from .buckets import NO_ROOM
from .episodes import Episodes
from .limit_keys import SECRET
from .limit_overrides import Overrides
from .limit_plan import Plan, Plans
from .limit_rules import LimitRule, RateOverride
from .meter import UNLIMITED, InFlightMeter, LimitResult, Meter
from .path_readings import lenient_path
from .routing import PathSet, PrefixTable
from .shared_limits import SharedLimits, SharedPlans


class Limiter:
    """All rules at work. `max_entries` bounds their buckets together; hashes in keys are made with `secret`. `over`
    records the addresses that have passed a limit on refusals. With `shared` a store decides, for who can wait for
    it; `admit` decides without."""

    __slots__ = ("_every", "_overrides", "_plans", "_refusals", "_room", "meters", "over", "shared")

    def __init__(
        self,
        rules: Iterable[LimitRule],
        max_entries: int,
        secret: bytes = SECRET,
        shared: SharedLimits | None = None,
    ) -> None:
        listed = tuple(rules)
        self.over = Episodes()
        self.shared = None if shared is None else SharedPlans(shared)
        self._room = Room(max_entries)
        self.meters = tuple(
            InFlightMeter(rule, secret) if rule.in_flight else Meter(rule, self._room, secret) for rule in listed
        )
        self._overrides = Overrides(self._room, secret, lambda meters: Plan(meters, shared is not None))
        self._refusals = tuple(meter for meter in self.meters if meter.rule.charge == "refusals")
        reaches = [tuple(lenient_path(path, path.count(b"/")) for path in rule.paths or (b"/",)) for rule in listed]
        prefixes = {b"/"}.union(*reaches)
        reach = [
            (meter, PathSet(paths))
            for meter, paths in zip(self.meters, reaches, strict=True)
            if meter not in self._refusals
        ]
        self._plans = PrefixTable(
            {prefix: self._made_plans(meter for meter, paths in reach if paths.covers(prefix)) for prefix in prefixes}
        )
        # Those of a path that may be any.
        self._every = self._made_plans(meter for meter, _ in reach)

    def begin(self, now: float) -> None:
        """Count from now on, in monotonic seconds, until `adopt` continues earlier counts."""
        for meter in self.meters:
            meter.since = now

    @property
    def entries(self) -> int:
        """How many buckets are in memory."""
        return len(self._room)

    @property
    def max_entries(self) -> int:
        """How many buckets there may be."""
        return self._room.max_entries

    @property
    def crowded_out(self) -> int:
        """How often the key of a request found no room for a bucket since the start: it was counted by the network of
        its client, or not at all if it ended then."""
        return self._room.crowded_out

    def plan(self, method: bytes, path: bytes, plain: bool = False) -> Plan | None:
        """The rules that apply to a request, None if there are none.

        `path` and `plain` are those of its head. A path that is not `plain` is read in every way that a lenient
        service may.
        """
        plans = self._plans.match(path) if plain else self._lenient_plans(path)
        return plans.by_method.get(method, plans.other) if plans is not None else None

    def for_tenant(self, plan: Plan, tenant: bytes, limits: Mapping[str, RateOverride]) -> Plan:
        """The same rules with the figures that this tenant has in place of their own."""
        return self._overrides.plan(plan, tenant, limits)

    def counts(self) -> Iterator[tuple[str, int, int, int]]:
        """Each rule's name, and the requests since the start that it admitted, refused and would have refused in
        shadow mode."""
        sums = {meter: [meter.admitted, meter.refused, meter.shadowed] for meter in self.meters}
        for base, meter in self._overrides:
            for at, count in enumerate((meter.admitted, meter.refused, meter.shadowed)):
                sums[base][at] += count
        return ((meter.rule.name, counted[0], counted[1], counted[2]) for meter, counted in sums.items())

    def counts_as_it_is(self) -> Iterator[tuple[str, int, int, int]]:
        """The same since each rule is as it is now (`Meter.since`): the verdict of a rule that is tried out must not
        be that of another one."""
        for meter, (name, *counted) in zip(self.meters, self.counts(), strict=True):
            admitted, refused, shadowed = (count - noted for count, noted in zip(counted, meter.noted, strict=True))
            yield name, admitted, refused, shadowed

    def overridden(self) -> Iterator[tuple[Meter, Meter]]:
        """Each meter of tenants with figures of their own, behind that of the rule."""
        return iter(self._overrides)

    def at_work(self) -> Iterator[Meter]:
        """All meters: those of the rules, and those of tenants with figures of their own."""
        yield from self.meters
        for _, meter in self._overrides:
            yield meter

    def in_flight(self) -> dict[str, int]:
        """How many requests are in flight under each rule on these, also those of tenants with their own figures."""
        # Meters may have one count together.
        counts = {(meter.rule.name, id(meter.held)): meter.held for meter in self.at_work() if meter.rule.in_flight}
        sums: dict[str, int] = {}
        for (name, _), held in counts.items():
            sums[name] = sums.get(name, 0) + sum(held.values())
        return sums

    def admit(
        self, tenant: bytes, address: bytes, method: bytes, path: bytes, now: float, plain: bool = False
    ) -> LimitResult:
        """Decide about one request and charge it, where no rule needs more of it (`Plan.needs`).

        `address` is the result of `address_key`, `now` is monotonic seconds. For rules that charge failures pass the
        verdict to `settle` once, when the exchange has ended.
        """
        plan = self.plan(method, path, plain)
        if plan is None:
            return UNLIMITED
        if plan.sole is not None:
            return plan.sole.judge(tenant, address, now)
        return plan.judge(tenant, address, now)

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
            left = meter.buckets.spend(address, now)
            if left == NO_ROOM:
                left = meter.buckets.spend(overflow_key(address), now)
            if left >= 0.0:
                meter.admitted += 1
            elif meter.enforced:
                meter.refused += 1
                over = True
                self.over.note(meter.rule.name, address, now)
            else:
                meter.shadowed += 1
        return over

    @staticmethod
    def settle(verdict: LimitResult, status: int, served: bool, now: float, ended: bool = True) -> None:
        """Charge the rules that charge failures for a request that was one, and free its places if it has `ended`.

        A failure is a response of the service (`served`) with one of the rule's statuses. A request that was served
        and ended without a status (0) is charged as well: a client that disconnects before the response must not
        guess for free.
        """
        for meter, key in verdict.pending:
            if ended or not meter.rule.in_flight:
                meter.settle(key, served and (not status or status in meter.rule.statuses), now)

    def sweep(self, now: float, budget: int) -> None:
        """Drop buckets that are full again; call it now and then with the number of entries to check per rule."""
        for meter in self.meters:
            meter.buckets.sweep(now, budget)
        self._overrides.sweep(now, budget)

    def adopt(self, old: Limiter) -> None:
        """Take over from the limiter before a reload.

        Counters continue under the same name; the report's begin anew if anything about the rule has changed. Buckets
        continue if key, rate and burst are the same. Both limiters then
        share them, so exchanges that are still in flight are settled in the right place.
        """
        self.over = old.over
        self._room.crowded_out += old.crowded_out
        before = {meter.rule.name: meter for meter in old.meters}
        pairs = [(before[meter.rule.name], meter) for meter in self.meters if meter.rule.name in before]
        for earlier, meter in pairs:
            meter.adopt(earlier)
        self._overrides.adopt(old._overrides, pairs)
        changed = {meter for earlier, meter in pairs if meter.rule != earlier.rule}
        for meter, (_, *counted) in zip(self.meters, self.counts(), strict=True):
            if meter in changed:
                meter.noted = counted[0], counted[1], counted[2]
        self._room.shrink()

    def _lenient_plans(self, path: bytes) -> Plans | None:
        table = self._plans
        readings = table.readings(path)
        if readings is None:
            return self._every
        found = {table.match(reading) for reading in readings}
        if len(found) == 1:
            return found.pop()
        # Services disagree on what it means, so all meanings count.
        apply = {meter for plans in found if plans for meter in plans.meters}
        return self._made_plans(meter for meter in self.meters if meter in apply)

    def _made_plans(self, meters: Iterable[Meter]) -> Plans:
        return Plans(tuple(meters), self.shared is not None)

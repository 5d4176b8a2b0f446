"""The rate limits of one path and method, decided together: all of them are charged, or none."""

from __future__ import annotations

from math import ceil
from typing import Final

from .bucket_room import overflow_key
from .buckets import SLACK, WHOLE
from .limit_keys import Subject
from .limit_rules import LimitRule
from .meter import CROWDED_WAIT, Crowded, LimitResult, Meter, Settling
from .repeated_refusal import RepeatedRefusal, may_repeat

# Among what a plan needs (`Plan.needs`): a shared store decides.
STORE: Final = "store"


class Plan:
    """The rules that apply to one path prefix and method, decided together: all of them are charged, or none. With
    `shared` a store decides (`policy.shared_limits`)."""

    __slots__ = ("_alike", "_lines", "_refused", "_repeated", "_shown", "meters", "needs", "sole")

    def __init__(self, meters: tuple[Meter, ...], shared: bool = False) -> None:
        self.meters = meters
        # The parts of keys for which a Subject is needed, and STORE.
        self.needs = frozenset(name for meter in meters if meter.key_of is not None for name in meter.rule.key)
        # Places in flight are counted by each gateway.
        shared = shared and any(meter.rule.quota for meter in meters)
        if shared:
            self.needs |= {STORE}
        # For each rule that the headers show: its index among the meters, and the seconds in which a token refills.
        self._shown = tuple(
            (index, 1.0 / meter.buckets.rate) for index, meter in enumerate(meters) if meter.announced
        )
        policies = b", ".join(meter.policy for meter in meters if meter.announced)
        items = b", ".join(meter.item for meter in meters if meter.announced)
        self._lines = b"RateLimit-Policy: %b\r\nRateLimit: %b\r\n" % (policies.replace(b"%", b"%%"), items)
        # The keys of the last request, if it was refused, and from the second in a row on what each gets.
        self._refused: list[bytes] = []
        self._repeated: RepeatedRefusal | None = None
        # Most limits have the key of the shipped ones.
        self._alike = all(meter.keys_like(meters[0]) for meter in meters)
        only = meters[0] if len(meters) == 1 and not shared else None
        self.sole = only if only is not None and _is_usual(only) else None

    @property
    def rules(self) -> tuple[LimitRule, ...]:
        return tuple(meter.rule for meter in self.meters)

    def judge(self, tenant: bytes, address: bytes, now: float) -> LimitResult:
        """Decide about a request and charge it, where no rule needs a Subject. `address` is its network."""
        meters = self.meters
        if self._alike:
            keys = [meters[0].key(tenant, address)] * len(meters)
        else:
            keys = [meter.key(tenant, address) for meter in meters]
        return self.decide(keys, now, address)

    def judge_subject(self, subject: Subject, now: float) -> LimitResult:
        """Decide about any request and charge it."""
        return self.decide(self.keys(subject), now, subject.network)

    def keys(self, subject: Subject) -> list[bytes]:
        """What each of the meters counts this request under."""
        tenant, network = subject.tenant, subject.network
        return [
            meter.key(tenant, network) if meter.key_of is None else meter.key_of(subject) for meter in self.meters
        ]

    def decide(self, keys: list[bytes], now: float, network: bytes = b"") -> LimitResult:
        """The verdict of several rules, or of a single one that is no usual one. Each of `keys` is its meter's; where
        there is no room for one, that of the `network` counts."""
        repeated = self._repeated
        if repeated is not None:
            if repeated.holds(keys, now):
                return repeated.again(now)
            self._repeated = None
        lefts: list[float] = []
        refused, wait, made = None, 0, LimitResult
        shadowed: tuple[str, ...] = ()
        uncharged: tuple[int, ...] = ()
        for index, meter in enumerate(self.meters):
            key = keys[index]
            left = meter.left(key, now)
            if left < 0.0:  # NO_ROOM
                key = keys[index] = overflow_key(network)
                left = meter.left(key, now)
            crowded = meter.afterwards and left >= WHOLE and meter.crowded(key, left)
            lefts.append(left)
            if left < WHOLE or crowded:
                if not crowded:
                    meter.knock(key, now)
                if not meter.enforced:
                    meter.shadowed += 1
                    shadowed += (meter.rule.name,)
                    uncharged += (index,)
                    continue
                meter.refused += 1
                seconds = CROWDED_WAIT if crowded else meter.retry_after(key, left, now)
                if seconds > wait:
                    refused, wait, made = meter.rule, seconds, Crowded if crowded else LimitResult
        if refused is not None:
            result = made(refused, self.fields(lefts) + b"Retry-After: %d\r\n" % wait, shadowed)
            if keys != self._refused:
                self._refused = keys
            elif may_repeat(self.meters, keys, lefts):
                self._repeated = RepeatedRefusal(result, self.meters, keys, lefts, now)
            return result
        return self._admit(keys, lefts, shadowed, uncharged, now)

    def _admit(
        self,
        keys: list[bytes],
        lefts: list[float],
        shadowed: tuple[str, ...],
        uncharged: tuple[int, ...],
        now: float,
    ) -> LimitResult:
        pending: tuple[tuple[Settling, bytes], ...] = ()
        for index, meter in enumerate(self.meters):
            if index in uncharged:
                continue  # A shadow: as if it had refused, it is not charged.
            meter.admitted += 1
            key = keys[index]
            if meter.pends:
                meter.held[key] = meter.held.get(key, 0) + 1
                pending += ((meter, key),)
            else:
                lefts[index] = meter.buckets.spend(key, now)
        return LimitResult(None, self.fields(lefts), shadowed, pending)

    def fields(self, lefts: list[float]) -> bytes:
        """The header lines that announce what is left of each rule."""
        if not self._shown:
            return b""
        values: list[int] = []
        for index, period in self._shown:
            left = lefts[index] + SLACK
            whole = int(left)
            values.append(whole)
            values.append(ceil((whole + 1.0 - left) * period) or 1)
        return self._lines % tuple(values)


def _is_usual(meter: Meter) -> bool:
    """Whether `Meter.judge` does if this is the only one."""
    return meter.announced and not meter.pends and meter.key_of is None


class Plans:
    """The plans of one path prefix by method."""

    __slots__ = ("_shared", "by_method", "meters", "other")

    def __init__(self, meters: tuple[Meter, ...], shared: bool = False) -> None:
        self.meters = meters
        self._shared = shared
        named = {method for meter in meters for method in meter.rule.methods or ()}
        if b"GET" in named:
            named.add(b"HEAD")
        self.by_method = {method: self._plan(meters, method) for method in named}
        self.other = self._plan(meters, None)

    def _plan(self, meters: tuple[Meter, ...], method: bytes | None) -> Plan | None:
        apply = tuple(meter for meter in meters if meter.rule.covers(method))
        return Plan(apply, self._shared) if apply else None

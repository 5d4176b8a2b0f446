"""One rate limit at work: what a request is counted under, what it is charged, and what is left for its client.

The headers are those of draft-ietf-httpapi-ratelimit-headers-10, for every enforced rule that applies:

- `RateLimit-Policy: "name";q=BURST;w=SECONDS`: the burst, and the seconds in which an empty bucket refills, rounded
  up. A client that keeps to q requests in any w seconds is never refused. With the default burst this is the rate as
  configured (10/m: q=10;w=60); with burst 5 it is q=5;w=30, since q=10;w=60 would allow ten at once.
- `RateLimit: "name";r=LEFT;t=SECONDS`: the whole tokens left, and the seconds, rounded up, until there is one more;
  for a full bucket t is the time in which one token refills.
- `Retry-After` with a refusal: the longest t of the rules that refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Protocol

from .bucket_room import OVERFLOW, Room, overflow_key
from .buckets import NO_ROOM, SLACK, Buckets
from .limit_keys import SECRET, key_of
from .limit_rules import LimitRule

# Requests in flight for each token that is left, under a rule that charges failures.
SIDE_BY_SIDE = 4
# Seconds after which to ask again where too many are in flight: nobody knows when one of them will end.
CROWDED_WAIT = 1


class Settling(Protocol):
    """What a request that was admitted owes to a rule that charges failures."""

    @property
    def rule(self) -> LimitRule:
        """The rule."""

    def settle(self, key: bytes, failed: bool, now: float) -> None:
        """The request is over; `now` is monotonic seconds."""


@dataclass(slots=True)
class LimitResult:
    """The verdict of the limits on one request, which nobody changes. (Made for each request: what is frozen, or a
    named tuple, takes twice as long to make.)

    `refused` is the rule that refuses, None if the request may pass. `fields` are finished header lines for its
    response. `shadowed` names the shadow rules that would have refused. `pending` are the meters and keys that
    `Limiter.settle` tells of the end: they charge for a failure, or have a place again.
    """

    refused: LimitRule | None = None
    fields: bytes = b""
    shadowed: tuple[str, ...] = ()
    pending: tuple[tuple[Settling, bytes], ...] = ()

    def may_fail(self, status: int) -> bool:
        """Whether a response with this status is charged as a failure."""
        return any(status in meter.rule.statuses and meter.rule.charge == "failures" for meter, _ in self.pending)

    def still_in_flight(self) -> LimitResult | None:
        """What is left to be told once it is known whether the request was a failure, None for nothing."""
        pending = tuple(each for each in self.pending if each[0].rule.in_flight)
        return LimitResult(pending=pending) if pending else None


UNLIMITED = LimitResult()


class Crowded(LimitResult):
    """`refused` is a rule that has tokens left for the key, but as many of its requests in flight as these allow."""

    __slots__ = ()


class Meter:
    """One rule at work: its buckets, its counters, its part of the header lines.

    `admitted`, `refused` and `shadowed` (would have refused) count requests, also those under earlier figures of the
    rule. It is the same rule since `since`, in monotonic seconds, when the three, with those of tenants that have
    figures of their own, were `noted`.
    """

    __slots__ = (
        "_by_address",
        "_by_tenant",
        "_line",
        "admitted",
        "afterwards",
        "announced",
        "buckets",
        "enforced",
        "held",
        "item",
        "key_of",
        "left",
        "noted",
        "pends",
        "policy",
        "refused",
        "rule",
        "shadowed",
        "since",
    )

    def __init__(self, rule: LimitRule, room: Room, secret: bytes = SECRET, *, guaranteed: bool = True) -> None:
        self.rule = rule
        self.enforced = rule.mode == "enforce"
        self.afterwards = rule.charge == "failures"
        debt = (SIDE_BY_SIDE - 1) * rule.burst if self.afterwards else 0
        self.buckets = Buckets(rule.rate, rule.burst, room, debt, guaranteed=guaranteed)
        # What is left for a key at a time. An attribute, so that a plan needs one call and not two.
        self.left: Callable[[bytes, float], float] = self.buckets.left
        self.admitted = self.refused = self.shadowed = 0
        self.since = 0.0
        self.noted = (0, 0, 0)
        # Whether the meter is told of the end of each request that it has admitted, and how many of each key have
        # not ended yet.
        self.pends = self.afterwards
        self.held: dict[bytes, int] = {}
        self.announced = self.enforced
        # How a key is made of more than tenant and network, None where these are all.
        self.key_of = key_of(rule, secret)
        self._by_tenant = "tenant" in rule.key
        self._by_address = "ip" in rule.key
        self.policy = self.item = self._line = b""
        if rule.quota:
            self._announce(rule)

    def _announce(self, rule: LimitRule) -> None:
        """Prepare what the headers say of the rule."""
        # A structured-field String (RFC 9651 section 3.3.3).
        name = b'"' + rule.name.replace("\\", r"\\").replace('"', r"\"").encode("ascii") + b'"'
        refill = -(-rule.burst * rule.window // rule.quota)
        self.policy = b"%b;q=%d;w=%d" % (name, rule.burst, refill)
        self.item = name.replace(b"%", b"%%") + b";r=%d;t=%d"
        policy_line = b"RateLimit-Policy: %b\r\n" % self.policy
        self._line = policy_line.replace(b"%", b"%%") + b"RateLimit: " + self.item + b"\r\n"

    def key(self, tenant: bytes, address: bytes) -> bytes:
        """The key that a request is counted under if `key_of` is None; `address` is its network (`address_key`). A
        slug never contains the slash that separates the two."""
        if self._by_tenant:
            return tenant + b"/" + address if self._by_address else tenant
        return address if self._by_address else b""

    def keys_like(self, other: Meter) -> bool:
        """Whether every request has the same key for both."""
        mine, theirs = (self._by_tenant, self._by_address), (other._by_tenant, other._by_address)
        return self.key_of is None and other.key_of is None and mine == theirs

    def wait(self, left: float) -> int:
        """Whole seconds, at least 1, until a bucket with this much left has one more whole token."""
        left += SLACK
        return ceil((int(left) + 1.0 - left) / self.buckets.rate) or 1

    def retry_after(self, key: bytes, left: float, now: float) -> int:
        """The same for a key that has been refused and may owe tokens."""
        buckets = self.buckets
        if buckets.most <= buckets.burst:
            return self.wait(left)  # nobody can owe any
        return self.wait(left) + ceil(max(0.0, buckets.owed(key, now) - SLACK) / buckets.rate)

    def adopt(self, old: Meter) -> None:
        """Continue the counters of the previous rule of the same name, and its buckets if they mean the same."""
        self._continue(old)
        mine, theirs = self.rule, old.rule
        if self.counts_like(old) and (mine.rate, mine.burst) == (theirs.rate, theirs.burst):
            old.buckets.replace(self.buckets)
            self.buckets = old.buckets
            self.left = self.buckets.left
            self.held = old.held

    def _continue(self, old: Meter) -> None:
        self.admitted, self.refused, self.shadowed = old.admitted, old.refused, old.shadowed
        if self.rule == old.rule:
            self.since, self.noted = old.since, old.noted

    def counts_like(self, other: Meter) -> bool:
        """Whether a key means the same for both."""
        mine, theirs = self.rule, other.rule
        return (mine.key, mine.ipv6_prefix) == (theirs.key, theirs.ipv6_prefix)

    @property
    def idle(self) -> bool:
        """Whether nothing is lost with this meter but its counters."""
        return self.buckets.idle and not self.held

    def count(self, other: Meter) -> None:
        """Add the counters of a meter that is no longer used."""
        self.admitted += other.admitted
        self.refused += other.refused
        self.shadowed += other.shadowed

    def knock(self, key: bytes, now: float) -> None:
        """A key that has nothing left has asked again."""
        self.buckets.knock(key, now)

    def crowded(self, key: bytes, left: float) -> bool:
        """Whether the key has as many requests in flight as its remaining tokens allow."""
        return self.afterwards and self.held.get(key, 0) >= SIDE_BY_SIDE * left

    def settle(self, key: bytes, failed: bool, now: float) -> None:
        """A request that was admitted is over."""
        held = self.held.pop(key, 1) - 1
        if held:
            self.held[key] = held
        if failed and self.afterwards and not self.buckets.charge(key, now):
            # The room has gone since it was admitted. Where the key does not say of which network it is, nobody pays.
            network = self._network(key)
            if network is not None:
                self.buckets.charge(overflow_key(network), now)

    def _network(self, key: bytes) -> bytes | None:
        """The client's network in a key that `key` has made, None if there is none in it."""
        if self.key_of is not None or not self._by_address or key.startswith(OVERFLOW):
            return None
        return key.partition(b"/")[2] if self._by_tenant else key

    def judge(self, tenant: bytes, address: bytes, now: float) -> LimitResult:
        """The verdict if only this rule applies, enforced and charged for each request."""
        left = self.buckets.spend(self.key(tenant, address), now)
        if left >= 0.0:
            self.admitted += 1
            # `wait`, inlined: this runs for each request.
            left += SLACK
            whole = int(left)
            return LimitResult(None, self._line % (whole, ceil((whole + 1.0 - left) / self.buckets.rate) or 1))
        if left == NO_ROOM:
            left = self.buckets.spend(overflow_key(address), now)
            if left >= 0.0:
                self.admitted += 1
                return LimitResult(None, self._line % (int(left + SLACK), self.wait(left)))
        self.refused += 1
        seconds = self.wait(left + 1.0)
        return LimitResult(self.rule, self._line % (0, seconds) + b"Retry-After: %d\r\n" % seconds)


class InFlightMeter(Meter):
    """A rule on requests in flight at work: it counts them, and has no buckets. Its refusal says to ask again in a
    second, since nobody knows when a request will end. No header announces it: RateLimit is for rates."""

    __slots__ = ()

    def __init__(self, rule: LimitRule, secret: bytes = SECRET) -> None:
        super().__init__(rule, Room(1), secret)
        self.left = self._places
        self.pends = True
        self.announced = False

    def _places(self, key: bytes, now: float) -> float:
        # Fewer than are under way may be allowed since a reload, or by a tenant's own figure.
        return float(max(0, self.rule.in_flight - self.held.get(key, 0)))

    def knock(self, key: bytes, now: float) -> None:
        """Nothing is kept of a refused request."""

    def retry_after(self, key: bytes, left: float, now: float) -> int:
        """Seconds after which to ask again."""
        return CROWDED_WAIT

    def adopt(self, old: Meter) -> None:
        """Continue the counters of the previous rule of the same name, and its count if it counted the same; those
        that are still in flight are told to the old meter, which has the same count."""
        self._continue(old)
        if old.rule.in_flight and self.counts_like(old):
            self.held = old.held

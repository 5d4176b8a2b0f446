"""Token buckets in bounded memory: how many requests a key has left.

A bucket is one number: the time at which it is full again (GCRA, the virtual-scheduling form of the token bucket).
The unit is the rule's own tokens, `seconds * rate`, so that charging adds exactly 1.0 and rounding errors do not add
up over millions of charges. A full bucket needs no entry.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import Final

from .bucket_room import OVERFLOW, Room

# A token counts as whole this much too early: a client that comes back exactly at the announced time must not be
# refused because of a rounding error.
SLACK: Final = 1e-6
WHOLE: Final = 1.0 - SLACK
# How many entries are checked to find one that can be dropped.
_HANDFUL: Final = 8


# There is neither a bucket for a key nor room for one: its network's counts (`bucket_room.overflow_key`).
NO_ROOM: Final = float("-inf")


class Buckets:
    """The buckets of one rule: size `burst`, refilled with `rate` tokens per second, as many as there is `room` for.

    There are two ordered pools. `_spare` has the buckets with at least one whole token when last charged, `_spent`
    those without, the one that asked last at the end. Where the room is needed a spare bucket is dropped: of the
    oldest few the one nearest to full; the others of the few move to the end (second chance). A spent bucket is never
    dropped, so that no flood of new keys can erase a used-up limit. `charge`, which runs after the fact, may overdraw
    a bucket by up to `debt` tokens. `_overflow` has the buckets of whole networks, a fixed number at most.
    """

    __slots__ = ("_overflow", "_room", "_spare", "_spent", "burst", "full", "guaranteed", "most", "rate")

    def __init__(self, rate: float, burst: int, room: Room, debt: int = 0, *, guaranteed: bool = True) -> None:
        self.rate = rate
        self.burst = burst
        self.full = float(burst)
        self.most = burst + debt
        self._spare: OrderedDict[bytes, float] = OrderedDict()
        self._spent: OrderedDict[bytes, float] = OrderedDict()
        self._overflow: dict[bytes, float] = {}
        self.guaranteed = 0
        self._room = room
        room.join(self, guaranteed)

    def __len__(self) -> int:
        return len(self._spare) + len(self._spent)

    def __contains__(self, key: bytes) -> bool:
        return key in self._spare or key in self._spent

    @property
    def spare(self) -> int:
        """How many of the buckets had a token when last charged."""
        return len(self._spare)

    @property
    def idle(self) -> bool:
        """Whether every bucket is full."""
        return not (self._spare or self._spent or self._overflow)

    def replace(self, other: Buckets) -> None:
        """Take the place of others in their room."""
        self._room.leave(self)
        self._room = other._room
        self._room.replace(other, self)

    def leave(self) -> None:
        """Give up their place; they are not used any more."""
        self._room.leave(self)

    def left(self, key: bytes, now: float) -> float:
        """The tokens left, from 0 to the burst; NO_ROOM if they cannot be counted."""
        clock = now * self.rate
        full_at = self._spare.get(key)
        if full_at is None:
            full_at = self._spent.get(key)
            if full_at is None:
                # Mostly a client that has never failed, under a rule that charges failures.
                room = self._room
                if room.used < room.common and not self._overflow:
                    return self.full
                if not key.startswith(OVERFLOW):
                    return self.full if room.make(self, now) else NO_ROOM
                full_at = self._overflow.get(key, clock)
        if full_at <= clock:
            return self.full
        return max(0.0, self.burst - (full_at - clock))

    def spend(self, key: bytes, now: float) -> float:
        """Take a token if a whole one is there.

        Returns the tokens then left; a negative number means that none was taken and this much is missing, NO_ROOM
        that they cannot be counted.
        """
        clock = now * self.rate
        full_at = self._spare.get(key)
        if full_at is None:
            return self._spend_rare(key, clock, now)
        full_at = (full_at if full_at > clock else clock) + 1.0
        left = self.burst - (full_at - clock)
        if left < WHOLE:
            return self._spend_rare(key, clock, now)
        self._spare[key] = full_at
        return left

    def knock(self, key: bytes, now: float) -> None:
        """Note that a key without tokens still asks, so that it is dropped last."""
        full_at = self._spent.get(key)
        if full_at is None or full_at - now * self.rate > self.most:
            self.spend(key, now)
        else:
            self._spent.move_to_end(key)

    def _spend_rare(self, key: bytes, clock: float, now: float) -> float:
        """`spend` for a key that is new, moves to the other pool, or has no token left."""
        known = self._spent.get(key)
        if known is not None:
            missing = known - clock
            if self.burst - WHOLE < missing <= self.most:
                self._spent.move_to_end(key)
                return self.burst - missing - 1.0
            del self._spent[key]
        else:
            known = self._spare.pop(key, None)
            if known is None:
                if key.startswith(OVERFLOW):
                    return self._spend_overflow(key, clock)
                room = self._room
                if room.used >= room.common and not room.make(self, now):
                    return NO_ROOM
                room.added(self)
                known = clock
        # A bucket emptier than possible: the clock was set back. It owes the maximum, not the whole jump.
        full_at = min(max(known, clock), clock + self.most)
        left = self.burst - (full_at - clock)
        if left < WHOLE:
            self._spent[key] = full_at
            return left - 1.0
        left = max(0.0, left - 1.0)
        (self._spare if left >= WHOLE else self._spent)[key] = full_at + 1.0
        return left

    def _spend_overflow(self, key: bytes, clock: float) -> float:
        full_at = min(max(self._overflow.get(key, clock), clock), clock + self.most)
        left = self.burst - (full_at - clock)
        self._overflow[key] = full_at if left < WHOLE else full_at + 1.0
        return left - 1.0 if left < WHOLE else max(0.0, left - 1.0)

    def charge(self, key: bytes, now: float) -> bool:
        """Take a token whether one is there or not. False: it cannot be counted."""
        clock = now * self.rate
        known = self._take_out(key, clock, now)
        if known is None:
            return False
        self._put(key, min(max(known, clock) + 1.0, clock + self.most), clock)
        return True

    def _take_out(self, key: bytes, clock: float, now: float) -> float | None:
        """When a bucket is full, to be put back. One that is new is full; None if there is no room for it."""
        known = self._spare.pop(key, None)
        if known is None:
            known = self._spent.pop(key, None)
        if known is None:
            if key.startswith(OVERFLOW):
                return self._overflow.pop(key, clock)
            if not self._room.make(self, now):
                return None
            known = clock
            self._room.added(self)
        return known

    def _put(self, key: bytes, full_at: float, clock: float) -> None:
        if key.startswith(OVERFLOW):
            self._overflow[key] = full_at
        elif self.burst - (full_at - clock) >= WHOLE:
            self._spare[key] = full_at
        else:
            self._spent[key] = full_at

    def learn(self, key: bytes, left: float, now: float) -> None:
        """Set what is left, negative where tokens are owed: a shared store has charged this bucket. Does nothing if
        there is no room."""
        clock = now * self.rate
        if WHOLE <= left < self.burst and key in self._spare:
            self._spare[key] = clock + (self.burst - left)
        elif left < self.burst:
            if self._take_out(key, clock, now) is not None:
                self._put(key, clock + min(self.burst - left, self.most), clock)
        elif self._spare.pop(key, None) is not None or self._spent.pop(key, None) is not None:
            self._room.removed(self)

    def full_at(self, key: bytes) -> float | None:
        """When the bucket of a key is full again, in the rule's tokens; None for one that has no entry of its own."""
        full_at = self._spent.get(key)
        return self._spare.get(key) if full_at is None else full_at

    def missing(self, key: bytes, now: float) -> float:
        """The tokens that a bucket lacks, at most its burst: what a shared store must know of it at least."""
        full_at = self._spare.get(key) or self._spent.get(key)
        return 0.0 if full_at is None else min(max(0.0, full_at - now * self.rate), self.full)

    def owed(self, key: bytes, now: float) -> float:
        """The tokens that must be refilled before the bucket has any."""
        full_at = self._spent.get(key) or self._overflow.get(key, 0.0)
        return max(0.0, full_at - now * self.rate - self.burst)

    def sweep(self, now: float, budget: int) -> None:
        """Drop buckets that are full again, checking at most `budget` entries of each pool."""
        clock = now * self.rate
        self._recover(clock, budget)
        for key in list(islice(self._spare, budget)):
            full_at = self._spare[key]
            if full_at <= clock:
                del self._spare[key]
                self._room.removed(self)
            else:
                self._spare[key] = min(full_at, clock + self.most)
                self._spare.move_to_end(key)
        for key in [key for key, full_at in self._overflow.items() if full_at <= clock]:
            del self._overflow[key]

    def latest(self, most: int) -> list[bytes]:
        """At most so many keys, those first that were used up when they last asked, the last to ask first."""
        spent = list(islice(reversed(self._spent), most))
        return spent + list(islice(reversed(self._spare), most - len(spent)))

    def recover(self, now: float) -> None:
        """Move a few spent buckets that have a whole token again to the spare ones."""
        self._recover(now * self.rate, _HANDFUL)

    def _recover(self, clock: float, budget: int) -> None:
        """Move spent buckets that have a whole token again to the spare ones.

        The pool is ordered by when each key last asked, so the first that is still spent ends the search: any bucket
        behind it was used within the time of one token.
        """
        for key in list(islice(self._spent, budget)):
            full_at = self._spent[key]
            if full_at - clock > self.burst - WHOLE:
                self._spent[key] = min(full_at, clock + self.most)
                return
            self._spare[key] = self._spent.pop(key)

    def forget_one(self) -> None:
        """Drop a spare bucket; a spent one if there are no others, which only a smaller bound asks for."""
        pool = self._spare or self._spent
        oldest = list(islice(pool, _HANDFUL))
        victim = min(oldest, key=pool.__getitem__)
        del pool[victim]
        self._room.removed(self)
        if pool is self._spare:
            for key in oldest:
                if key is not victim:
                    pool.move_to_end(key)

"""Token buckets in bounded memory: how many requests a key has left.

A bucket is one number: the time at which it is full again (GCRA, the virtual-scheduling form of the token bucket).
The unit is the rule's own tokens, `seconds * rate`, so that charging adds exactly 1.0 and rounding errors do not add
up over millions of charges. A full bucket needs no entry.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import Final

# A token counts as whole this much too early: a client that comes back exactly at the announced time must not be
# refused because of a rounding error.
SLACK: Final = 1e-6
WHOLE: Final = 1.0 - SLACK
# How many entries are checked to find one that can be dropped.
_HANDFUL: Final = 8


class Buckets:
    """The buckets of one rule: size `burst`, refilled with `rate` tokens per second, at most `max_entries` of them.

    There are two ordered pools. `_spare` has the buckets with at least one whole token when last charged, `_spent`
    those without, the one that asked last at the end. At the bound a spare bucket is dropped: of the oldest few the
    one nearest to full; the others of the few move to the end (second chance). A spent bucket is dropped only if
    there is no spare one, so a flood of new keys cannot erase a used-up limit. `charge`, which runs after the fact,
    may overdraw a bucket by up to `debt` tokens.
    """

    __slots__ = ("_most", "_spare", "_spent", "burst", "max_entries", "rate")

    def __init__(self, rate: float, burst: int, max_entries: int, debt: int = 0) -> None:
        self.rate = rate
        self.burst = burst
        self._most = burst + debt
        self.max_entries = max(1, max_entries)
        self._spare: OrderedDict[bytes, float] = OrderedDict()
        self._spent: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._spare) + len(self._spent)

    def __contains__(self, key: bytes) -> bool:
        return key in self._spare or key in self._spent

    def left(self, key: bytes, now: float) -> float:
        """The tokens left, from 0 to the burst."""
        clock = now * self.rate
        full_at = self._spare.get(key)
        if full_at is None:
            full_at = self._spent.get(key, clock)
        if full_at <= clock:
            return float(self.burst)
        return max(0.0, self.burst - (full_at - clock))

    def spend(self, key: bytes, now: float) -> float:
        """Take a token if a whole one is there.

        Returns the tokens then left; a negative number means that none was taken and this much is missing.
        """
        clock = now * self.rate
        full_at = self._spare.get(key)
        if full_at is None:
            return self._spend_rare(key, clock)
        full_at = (full_at if full_at > clock else clock) + 1.0
        left = self.burst - (full_at - clock)
        if left < WHOLE:
            return self._spend_rare(key, clock)
        self._spare[key] = full_at
        return left

    def knock(self, key: bytes, now: float) -> None:
        """Note that a key without tokens still asks, so that it is dropped last."""
        full_at = self._spent.get(key)
        if full_at is None or full_at - now * self.rate > self._most:
            self.spend(key, now)
        else:
            self._spent.move_to_end(key)

    def _spend_rare(self, key: bytes, clock: float) -> float:
        """`spend` for a key that is new, moves to the other pool, or has no token left."""
        known = self._spare.pop(key, None)
        if known is None:
            known = self._spent.pop(key, None)
        if known is None:
            if len(self) >= self.max_entries:
                self._make_room(clock)
            known = clock
        # A bucket emptier than possible: the clock was set back. It owes the maximum, not the whole jump.
        full_at = min(max(known, clock), clock + self._most)
        left = self.burst - (full_at - clock)
        if left < WHOLE:
            self._spent[key] = full_at
            return left - 1.0
        left = max(0.0, left - 1.0)
        (self._spare if left >= WHOLE else self._spent)[key] = full_at + 1.0
        return left

    def charge(self, key: bytes, now: float) -> None:
        """Take a token whether one is there or not."""
        clock = now * self.rate
        known = self._spare.pop(key, None)
        if known is None:
            known = self._spent.pop(key, None)
        if known is None:
            if len(self) >= self.max_entries:
                self._make_room(clock)
            known = clock
        full_at = min(max(known, clock) + 1.0, clock + self._most)
        (self._spare if self.burst - (full_at - clock) >= WHOLE else self._spent)[key] = full_at

    def owed(self, key: bytes, now: float) -> float:
        """The tokens that must be refilled before the bucket has any."""
        return max(0.0, self._spent.get(key, 0.0) - now * self.rate - self.burst)

    def sweep(self, now: float, budget: int) -> None:
        """Drop buckets that are full again, checking at most `budget` entries of each pool."""
        clock = now * self.rate
        self._recover(clock, budget)
        for key in list(islice(self._spare, budget)):
            full_at = self._spare[key]
            if full_at <= clock:
                del self._spare[key]
            else:
                self._spare[key] = min(full_at, clock + self._most)
                self._spare.move_to_end(key)

    def latest(self, most: int) -> list[bytes]:
        """At most so many keys, those first that were used up when they last asked, the last to ask first."""
        spent = list(islice(reversed(self._spent), most))
        return spent + list(islice(reversed(self._spare), most - len(spent)))

    def resize(self, max_entries: int) -> None:
        """Set the bound, and drop the entries beyond it."""
        self.max_entries = max(1, max_entries)
        while len(self) > self.max_entries:
            self._forget_one()

    def _make_room(self, clock: float) -> None:
        self._recover(clock, _HANDFUL)
        self._forget_one()

    def _recover(self, clock: float, budget: int) -> None:
        """Move spent buckets that have a whole token again to the spare ones.

        The pool is ordered by when each key last asked, so the first that is still spent ends the search: any bucket
        behind it was used within the time of one token.
        """
        for key in list(islice(self._spent, budget)):
            full_at = self._spent[key]
            if full_at - clock > self.burst - WHOLE:
                self._spent[key] = min(full_at, clock + self._most)
                return
            self._spare[key] = self._spent.pop(key)

    def _forget_one(self) -> None:
        pool = self._spare or self._spent
        oldest = list(islice(pool, _HANDFUL))
        victim = min(oldest, key=pool.__getitem__)
        del pool[victim]
        if pool is self._spare:
            for key in oldest:
                if key is not victim:
                    pool.move_to_end(key)

"""The bound that the buckets of all limits share: who may have an entry more, and whose entry goes for it.

A rule that needs little leaves the rest to the others. An eighth of the entries is guaranteed to the rules in equal
parts, the others belong to whoever needs them. If these are all in use, an entry of the pool goes that has the most
spare ones. A spent entry never goes, nor one of the last eighth of a pool: keys that push each other out in a circle
would have a fresh bucket each time. Where that leaves no room, the key counts in a bucket that its whole network has
(`overflow_key`): many keys are cheap, and many networks are not.
"""

from __future__ import annotations

from typing import Final, Protocol

# The part of the entries that is guaranteed to the rules, and the part of a pool that newcomers do not push out.
_PART: Final = 8
# For how many requests for room a pool stays the one that gives it: looking for the largest costs time for each pool.
_TURNS: Final = 64
# The buckets of one rule for all newcomers when there is no room.
OVERFLOW_SLOTS: Final = 1024
OVERFLOW: Final = b"\xff(overflow)"


def overflow_key(network: bytes) -> bytes:
    """The key that counts for a client of this network (`limit_keys.address_key`) when there is no room for its own:
    the same for a whole IPv6 /32 or IPv4 /16, and for few others."""
    wide = network[:2] if len(network) == 4 else network[:4]
    # Python's hash of bytes has a secret of the process.
    return b"%b%04x" % (OVERFLOW, hash(wide) % OVERFLOW_SLOTS)


class Pool(Protocol):
    """The entries of one rule. `guaranteed` are those that it may have whatever the others do."""

    guaranteed: int

    def __len__(self) -> int: ...

    @property
    def spare(self) -> int:
        """How many of its entries have a token."""

    def recover(self, now: float) -> None:
        """Find a few entries that have a token again."""

    def forget_one(self) -> None:
        """Drop a spare entry."""


class Room:
    """The room of several pools: at most `max_entries` together. Beyond the guarantees there may be `common` entries,
    and `used` of these are there. `crowded_out` counts how often a key found no room."""

    __slots__ = ("_giver", "_pools", "_turns", "common", "crowded_out", "max_entries", "used")

    def __init__(self, max_entries: int) -> None:
        self.max_entries = max(1, max_entries)
        # With each pool whether it has a part of what is guaranteed.
        self._pools: dict[Pool, bool] = {}
        self.common = self.max_entries
        self.used = 0
        self.crowded_out = 0
        self._giver: Pool | None = None
        self._turns = 0

    def __len__(self) -> int:
        return sum(map(len, self._pools))

    def join(self, pool: Pool, guaranteed: bool = True) -> None:
        """A pool belongs here from now on, with its entries; it has a part of those that are guaranteed, or none."""
        self._pools[pool] = guaranteed
        if guaranteed:
            self._share_out()
        else:
            pool.guaranteed = 0
            self.used += len(pool)

    def leave(self, pool: Pool) -> None:
        """A pool belongs here no longer."""
        if self._pools.pop(pool):
            self._share_out()
        else:
            self.used -= len(pool)
            self._giver, self._turns = None, 0

    def replace(self, pool: Pool, other: Pool) -> None:
        """Another pool takes the place of this one."""
        self._pools[other] = self._pools.pop(pool)
        self._share_out()

    def _share_out(self) -> None:
        rules = sum(self._pools.values())
        each = self.max_entries // _PART // rules if rules else 0
        for pool, guaranteed in self._pools.items():
            pool.guaranteed = each if guaranteed else 0
        self.common = self.max_entries - each * rules
        self.used = sum(max(0, len(pool) - pool.guaranteed) for pool in self._pools)
        self._giver, self._turns = None, 0

    def added(self, pool: Pool) -> None:
        """The pool gets one entry more, for which there is room (`make`)."""
        if len(pool) >= pool.guaranteed:
            self.used += 1

    def removed(self, pool: Pool) -> None:
        """The pool has one entry less."""
        if len(pool) >= pool.guaranteed:
            self.used -= 1

    def make(self, pool: Pool, now: float) -> bool:
        """Make room for one more entry of the pool, if need be by dropping another. False: there is none."""
        if len(pool) < pool.guaranteed or self.used < self.common:
            return True
        if self._turns == 0:
            self._giver = max(self._pools, key=lambda each: each.spare if len(each) > each.guaranteed else 0)
            self._turns = _TURNS
        self._turns -= 1
        giver = self._giver
        if giver is not None and len(giver) > giver.guaranteed and _gives(giver, now):
            giver.forget_one()
            return True
        if giver is not pool and _gives(pool, now):
            pool.forget_one()
            return True
        self.crowded_out += 1
        return False

    def shrink(self) -> None:
        """Drop what is over the bound, after it became less."""
        while self._pools and len(self) > self.max_entries:
            largest = max(self._pools, key=len)
            for _ in range(min(_TURNS, len(largest), len(self) - self.max_entries)):
                largest.forget_one()


def _gives(pool: Pool, now: float) -> bool:
    pool.recover(now)
    return pool.spare > len(pool) // _PART

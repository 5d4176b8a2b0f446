"""An index of a million names whose every operation is short: in parts, each a dictionary of a few thousand.

One dictionary of a million entries stops the interpreter for tens of milliseconds when it grows, is copied or is
freed. Of parts none takes longer than a fraction of a millisecond, and a copy shares those that it does not change.
Keys and values without references to other objects keep the parts out of the garbage collector's sight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

V = TypeVar("V")

# How many parts: those of a million entries have four thousand each.
PARTS: Final = 256
MASK: Final = PARTS - 1


def no_pause() -> None:
    """No other work needs to run."""


class ShardedIndex(Generic[V]):
    """Values by name. Of a copy, `parts` that neither side has changed are the same objects."""

    __slots__ = ("_count", "_own", "parts")

    def __init__(self) -> None:
        self.parts: list[dict[bytes, V]] = [{} for _ in range(PARTS)]
        # Which parts no other index has.
        self._own = bytearray(b"\1" * PARTS)
        self._count = 0

    def copy(self) -> ShardedIndex[V]:
        """An index with the same entries, which from now on is another one."""
        other: ShardedIndex[V] = ShardedIndex.__new__(ShardedIndex)
        other.parts = list(self.parts)
        other._own = bytearray(PARTS)
        other._count = self._count
        self._own = bytearray(PARTS)
        return other

    def __len__(self) -> int:
        return self._count

    def __contains__(self, name: bytes) -> bool:
        return name in self.parts[hash(name) & MASK]

    def __iter__(self) -> Iterator[bytes]:
        for part in self.parts:
            yield from part

    def get(self, name: bytes) -> V | None:
        """The value of a name; None if it has none."""
        return self.parts[hash(name) & MASK].get(name)

    def put(self, name: bytes, value: V) -> None:
        """Set the value of a name."""
        part = self._changed(hash(name) & MASK)
        before = len(part)
        part[name] = value
        self._count += len(part) - before

    def drop(self, name: bytes) -> None:
        """Forget a name, if it has a value."""
        part = self._changed(hash(name) & MASK)
        before = len(part)
        part.pop(name, None)
        self._count += len(part) - before

    def _changed(self, number: int) -> dict[bytes, V]:
        """A part that may be changed."""
        if not self._own[number]:
            self.parts[number] = self.parts[number].copy()
            self._own[number] = 1
        return self.parts[number]

    def count_missing(self, other: ShardedIndex[V], rest: Callable[[], object] = no_pause) -> int:
        """How many of these names `other` lacks. `rest` is called between any two parts."""
        missing = 0
        for here, there in zip(self.parts, other.parts, strict=True):
            if here is not there:
                missing += len(here.keys() - there.keys())
                rest()
        return missing

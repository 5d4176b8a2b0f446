"""A queue in which addresses take turns, so that one with a thousand connections counts like one with a single
one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

Work = Callable[[], object]


class FairQueue:
    """Waiting work. Each address gets one in turn; within an address in order of arrival."""

    __slots__ = ("_order", "_size", "_works")

    def __init__(self) -> None:
        self._works: dict[object, deque[Work]] = {}
        self._order: deque[object] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, address: object, work: Work) -> None:
        """Wait, after all others of the same address. `address` is any value that identifies one."""
        works = self._works.get(address)
        if works is None:
            works = self._works[address] = deque()
            self._order.append(address)
        works.append(work)
        self._size += 1

    def pop(self) -> Work:
        """The next one. Raises IndexError if none waits."""
        address = self._order.popleft()
        works = self._works[address]
        work = works.popleft()
        self._size -= 1
        if works:
            self._order.append(address)
        else:
            del self._works[address]
        return work

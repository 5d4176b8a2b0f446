"""Unused registries, taken apart a little at a time: dropping a million tenants at once would block the process."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Final
from weakref import finalize

from ..policy.tenants import Registry

# Seconds of work at each tick, and how many tenants between two looks at the clock.
_WORK: Final = 0.004
_STEPS: Final = 128


class RetiredRegistries:
    """The rest of registries that are no longer used."""

    def __init__(self) -> None:
        # Appended to in the thread that drops a registry.
        self._left: deque[dict[Any, Any]] = deque()

    def __len__(self) -> int:
        """How many entries are left."""
        return sum(map(len, self._left))

    def follow(self, registry: Registry) -> None:
        """Take it apart when its last user has dropped it."""
        finalize(registry, self._left.extend, registry.indices).atexit = False

    def sweep(self) -> None:
        """Take apart as much as a tick has time for."""
        left = self._left
        ends = time.monotonic() + _WORK
        while left:
            index = left[0]
            for _ in range(min(_STEPS, len(index))):
                index.popitem()
            if not index:
                left.popleft()
            if time.monotonic() >= ends:
                return

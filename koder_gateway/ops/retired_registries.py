"""Unused registries, taken apart a little at a time: dropping a million tenants at once would block the process."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Final
from weakref import finalize

from ..policy.tenants import Registry

# Seconds of work at each tick; a part takes a fraction of that.
_WORK: Final = 0.004


class RetiredRegistries:
    """The parts of registries that are no longer used, most of which a successor may share."""

    def __init__(self) -> None:
        # Appended to in the thread that drops a registry.
        self._left: deque[list[dict[bytes, Any]]] = deque()

    def __len__(self) -> int:
        """How many parts are left."""
        return sum(map(len, self._left))

    def follow(self, registry: Registry) -> None:
        """Take it apart when its last user has dropped it."""
        finalize(registry, self._left.extend, [index.parts for index in registry.indices]).atexit = False

    def sweep(self) -> None:
        """Take apart as much as a tick has time for."""
        left = self._left
        ends = time.monotonic() + _WORK
        while left:
            parts = left[0]
            if parts:
                parts.pop()
            else:
                left.popleft()
            if time.monotonic() >= ends:
                return

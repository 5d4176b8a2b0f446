"""Episodes in which a limit is used up for one key: each is reported once, however many requests it refuses."""

from __future__ import annotations

from collections import deque
from typing import Final

# Seconds without another refusal after which an episode is over.
QUIET: Final = 300.0
# How many keys, and how many new episodes, are remembered; beyond that the oldest is dropped.
_KEPT: Final = 1024


class Episodes:
    """The episodes of one kind, by key; `now` is monotonic seconds and never goes back."""

    __slots__ = ("_begun", "_latest")

    def __init__(self) -> None:
        # When each key was refused last, the latest at the end.
        self._latest: dict[bytes, float] = {}
        self._begun: deque[tuple[str, bytes]] = deque(maxlen=_KEPT)

    def note(self, name: str, key: bytes, now: float) -> None:
        """The limit of this name has refused `key`."""
        latest = self._latest
        before = latest.pop(key, None)
        if before is None or now - before >= QUIET:
            self._begun.append((name, key))
            if len(latest) >= _KEPT:
                del latest[next(iter(latest))]
        latest[key] = now

    def begun(self) -> list[tuple[str, bytes]]:
        """The limit and the key of each episode that has begun since the last call."""
        begun = list(self._begun)
        self._begun.clear()
        return begun

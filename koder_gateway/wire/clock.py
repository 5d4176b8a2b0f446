"""A coarse clock: the time as of the last sweep, so that deadlines cost the data path no call at all."""

from __future__ import annotations


class CoarseClock:
    """`now` is monotonic seconds, at most one sweep old; whoever owns the sweep sets it."""

    __slots__ = ("now",)

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

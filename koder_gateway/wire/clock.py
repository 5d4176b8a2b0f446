"""A coarse clock: the time of the last sweep, so that deadlines cost the data path no call."""

from __future__ import annotations


class CoarseClock:
    """`now` is monotonic seconds, at most one sweep old; the owner of the sweep sets it."""

    __slots__ = ("now",)

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

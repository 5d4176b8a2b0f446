"""A coarse clock: the time of the last sweep, so that deadlines cost the data path no call."""

from __future__ import annotations

from collections.abc import Callable


class CoarseClock:
    """`now` is monotonic seconds, at most one sweep old; the owner of the sweep sets it. `precise` gives them as they
    are, for what is measured and not only bounded; where none is given that is `now`."""

    __slots__ = ("now", "precise")

    def __init__(self, now: float = 0.0, precise: Callable[[], float] | None = None) -> None:
        self.now = now
        self.precise = precise or (lambda: self.now)

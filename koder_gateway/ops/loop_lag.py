"""How late the reactor is: by how much its timer fires after the moment it was due.

A timer that fires late says that something else kept the reactor busy, and every client waited as long. It is a
sample, taken as often as the timer is due: a pause that ends before it is seen by nobody.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

# Upper bounds in seconds.
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
# How many seconds a window has, of which the present and the previous one make the maximum.
_WINDOW: Final = 60.0


class LoopLag:
    """`counts` are delays up to each of `BOUNDS` and longer, `seconds` all together."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self._most = self._most_before = 0.0
        self._until = 0.0

    def add(self, delay: float, now: float) -> None:
        """The timer has fired so many seconds late; `now` is monotonic seconds. One that is early is on time."""
        delay = max(0.0, delay)
        self.counts[bisect_left(BOUNDS, delay)] += 1
        self.seconds += delay
        if now >= self._until:
            # After a longer silence nothing is known of the window before.
            self._most_before = self._most if now < self._until + _WINDOW else 0.0
            self._most = 0.0
            self._until = now + _WINDOW
        self._most = max(self._most, delay)

    @property
    def most(self) -> float:
        """The longest delay of the last minute or two."""
        return max(self._most, self._most_before)

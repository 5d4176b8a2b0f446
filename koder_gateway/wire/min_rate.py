"""The pace at which a peer takes what waits for it: so many bytes a second, averaged over a grace.

A peer that takes one byte now and then takes something, and still holds what waits for as long as it likes. So each
byte that it takes puts its deadline off by the time which that byte is worth, and by no more than the grace from now.
"""

from __future__ import annotations

import math


class MinRate:
    """One peer's pace, or one stream's. `due` is when it will have taken too little unless it takes more, in
    monotonic seconds; infinite while nothing waits.

    `taken` is always the count of all bytes that the peer has ever taken, and never falls. Whoever owns this calls
    `begin` when something begins to wait, `keeps` when `due` has passed (earlier does no harm), `end` when nothing
    waits any more.
    """

    __slots__ = ("_taken", "due")

    def __init__(self) -> None:
        self.due = math.inf
        self._taken = 0

    def begin(self, taken: int, now: float, grace: float) -> None:
        """Something waits from now on. Nothing changes where something has waited already."""
        if self.due == math.inf:
            self.due = now + grace
            self._taken = taken

    def keeps(self, taken: int, now: float, seconds_per_byte: float, grace: float) -> bool:
        """Whether the peer may go on; puts `due` off by what it has taken since this was last asked.

        `seconds_per_byte` is the inverse of the rate, infinite where none is asked for: then any byte will do.
        """
        if self.due == math.inf:
            return True
        more = taken - self._taken
        if more > 0:
            self._taken = taken
            self.due = min(self.due + more * seconds_per_byte, now + grace)
        return self.due > now

    def put_off(self, now: float, grace: float) -> None:
        """What waits does not wait for the peer at present: its time begins anew."""
        if self.due != math.inf:
            self.due = now + grace

    def end(self) -> None:
        """Nothing waits any more."""
        self.due = math.inf

"""The minimum rate at which a peer must read waiting data: bytes per second, averaged over a grace period.

A peer that reads one byte now and then could hold the waiting data for as long as it likes. So each byte that it
reads extends its deadline by the time that the byte is worth, and to at most the grace period from now.
"""

from __future__ import annotations

import math


class MinRate:
    """The rate of one peer, or of one stream.

    `due` is when the peer will have read too little unless it reads more, in monotonic seconds; infinite while
    nothing waits. `taken` is always the number of all bytes that the peer has ever read, and never decreases. The
    owner calls `begin` when data begins to wait, `keeps` when `due` has passed (earlier does no harm), and `end` when
    nothing waits any more.
    """

    __slots__ = ("_taken", "due")

    def __init__(self) -> None:
        self.due = math.inf
        self._taken = 0

    def begin(self, taken: int, now: float, grace: float) -> None:
        """Data waits from now on. Does nothing if data already waits."""
        if self.due == math.inf:
            self.due = now + grace
            self._taken = taken

    def keeps(self, taken: int, now: float, seconds_per_byte: float, grace: float) -> bool:
        """Whether the peer is fast enough; extends `due` by what it has read since the last call.

        `seconds_per_byte` is the inverse of the rate, infinite for no rate: then any byte is enough.
        """
        if self.due == math.inf:
            return True
        more = taken - self._taken
        if more > 0:
            self._taken = taken
            self.due = min(self.due + more * seconds_per_byte, now + grace)
        return self.due > now

    def put_off(self, now: float, grace: float) -> None:
        """The waiting data does not wait for the peer at present: its time starts again."""
        if self.due != math.inf:
            self.due = now + grace

    def end(self) -> None:
        """Nothing waits any more."""
        self.due = math.inf

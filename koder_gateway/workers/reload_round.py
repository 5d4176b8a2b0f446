"""One reload by all workers: whose verdict is awaited, and for how long."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from .seats import Seat

# Seconds that a worker has for its verdict: less than `systemctl reload` waits (the unit's TimeoutStartSec). One that
# hangs must neither keep who asks waiting for ever, nor every later reload.
_PATIENCE: Final = 45.0
_PARTLY: Final = (
    "it serves the previous configuration, the other workers the new one; reload again, or kill it: then it is"
    " started again with the new one"
)


class ReloadRound:
    """True while verdicts are awaited. `now` is monotonic seconds everywhere."""

    def __init__(self) -> None:
        self.refusals: list[str] = []
        """The reasons why this reload, or the last one, is refused; none if it is not."""
        self.partly = False
        """Whether some workers have reloaded all the same."""
        self._asked: set[Seat] = set()
        self._reloaded: list[Seat] = []
        self._due = math.inf

    def __bool__(self) -> bool:
        return bool(self._asked)

    @property
    def due(self) -> float:
        """When `late` is to be called next."""
        return self._due if self._asked else math.inf

    def begin(self, refusals: Sequence[str], seats: Iterable[Seat], now: float) -> None:
        """The configuration has been read; ask the workers in `seats`, unless there are `refusals` already."""
        self.refusals = list(refusals)
        self.partly = False
        self._reloaded.clear()
        self._due = now + _PATIENCE
        if refusals:
            return
        for seat in seats:
            if seat.channel is not None:
                self._asked.add(seat)
                seat.channel.send(do="reload")

    def judged(self, seat: Seat, refusals: Sequence[str] | None = None) -> bool:
        """A worker has said what it thinks, or has ended and will not any more. Returns whether it was the last."""
        if seat not in self._asked:
            return False
        self._asked.discard(seat)
        if refusals:
            self.refusals += [f"worker {seat.number} (process {seat.pid}): {each}" for each in refusals]
        else:
            self._reloaded.append(seat)
        if not self._asked:
            self._conclude()
        return not self._asked

    def late(self, now: float) -> bool:
        """Returns whether the time is up; workers that have not answered then have refused."""
        if now < self.due:
            return False
        self.refusals += [
            f"worker {seat.number} (process {seat.pid}): hangs, it has not answered within {_PATIENCE:.0f} s"
            for seat in sorted(self._asked, key=lambda each: each.number)
        ]
        self._asked.clear()
        self._conclude()
        return True

    def _conclude(self) -> None:
        """All verdicts are there: say what it means if they differ."""
        self.partly = bool(self.refusals and self._reloaded)
        if self.partly:
            self.refusals = [f"{each}; {_PARTLY}" for each in self.refusals]

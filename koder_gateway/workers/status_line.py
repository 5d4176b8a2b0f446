"""The status line of several workers for systemd: how many serve, and their figures together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from ..ops.notify import Notifier
from .seats import Seat

# Seconds between two lines of figures.
_PACE: Final = 2.0


class StatusLine:
    """Sums what the workers in `seats` say of themselves. `str` is the line without figures."""

    def __init__(self, notifier: Notifier, seats: Sequence[Seat]) -> None:
        self._notifier = notifier
        self._seats = seats
        self._earliest = -math.inf
        self.due = math.inf
        """When `look` is to be called next."""

    def __str__(self) -> str:
        return f"serving with {self.ready} of {len(self._seats)} workers"

    @property
    def ready(self) -> int:
        """How many workers serve."""
        return sum(seat.ready for seat in self._seats)

    @property
    def complete(self) -> bool:
        """Whether all workers serve."""
        return self.ready == len(self._seats)

    def heard(self, seat: Seat, figures: Sequence[int]) -> None:
        """A worker has said its requests a second, its connections and its tenants."""
        requests, connections, tenants = figures
        seat.figures = requests, connections, tenants
        self.due = self._earliest

    def look(self, now: float) -> None:
        """Send the figures if they are due; the notifier does not repeat a line."""
        if now < self.due:
            return
        self._earliest, self.due = now + _PACE, math.inf
        running = [seat.figures for seat in self._seats if seat.pid]
        self._notifier.figures(
            sum(figures[0] for figures in running),
            sum(figures[1] for figures in running),
            max((figures[2] for figures in running), default=0),
        )

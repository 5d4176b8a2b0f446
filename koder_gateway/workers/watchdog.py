"""Systemd's watchdog over several workers (sd_watchdog_enabled(3)): it hears of the unit while no worker hangs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

from ..ops.notify import Notifier
from .seats import Seat

# Seconds between two keep-alives, those of a worker to the supervisor too: what the sweeper calls a second.
_PACE: Final = 1.0
# A worker that is late, by a long turn of its reactor, does not hang yet: seconds, however short systemd's period is.
_LEAST_PATIENCE: Final = 3.0
# Seconds that a worker may take from its start until it serves, as systemd allows a unit by default.
_START: Final = 90.0


class Watchdog:
    """Sends a keep-alive each second unless a worker has been silent for too long: half of systemd's period, or at
    least 3 s; from its start until it serves 90 s; and once it stops, as long as `ending` returns (seconds).

    Seats without a process do not count. `tell` is called with a line when a worker falls silent or is heard again.
    Nothing is sent before one is ready, unless the unit is `serving` already: a keep-alive would begin systemd's
    period during the start. Does nothing where systemd has no watchdog. `now` is monotonic seconds everywhere.
    """

    def __init__(
        self, notifier: Notifier, ending: Callable[[], float], tell: Callable[[str], object], serving: bool = False
    ) -> None:
        self.interval = notifier.watchdog_interval
        """Half of systemd's period in seconds; None if it has no watchdog."""
        self._patience = max(self.interval or 0.0, _LEAST_PATIENCE)
        self._notifier = notifier
        self._ending = ending
        self._tell = tell
        self._serving = serving
        self._silent: set[Seat] = set()
        self.due = math.inf if self.interval is None else -math.inf
        """When `look` is to be called next."""

    def started(self, seat: Seat, now: float) -> None:
        """A worker has been started."""
        seat.silent_until = now + _START
        self._silent.discard(seat)

    def heard(self, seat: Seat, notice: str, now: float) -> None:
        """A worker has sent this notice, as for systemd; any message shows that it does not hang."""
        until = now + self._patience
        if notice == "STOPPING=1":
            # At its end it cannot say any more that it lives.
            seat.silent_until = now + self._ending()
        elif notice == "READY=1":
            seat.silent_until = until
            self._serving = True
        else:
            seat.silent_until = max(seat.silent_until, until)

    def look(self, seats: Iterable[Seat], now: float) -> None:
        """Send a keep-alive if it is due and no worker hangs."""
        if now < self.due:
            return
        self.due = now + _PACE
        silent = {seat for seat in seats if seat.pid and now >= seat.silent_until}
        for seat in silent - self._silent:
            self._tell(
                f"worker {seat.number} (process {seat.pid}) hangs: systemd's watchdog gets no keep-alive until it is"
                " heard"
            )
        for seat in self._silent - silent:
            if seat.pid:
                self._tell(f"worker {seat.number} (process {seat.pid}) is heard again")
        self._silent = silent
        if self._serving and not silent:
            self._notifier.watchdog()

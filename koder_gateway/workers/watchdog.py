"""Workers that hang are killed, so that others take their place; and systemd's watchdog over several workers
(sd_watchdog_enabled(3)): it hears of the unit while no worker hangs."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterable
from typing import Final

from ..ops.notify import Notifier
from .seats import Seat

# Seconds between two looks and keep-alives, those of a worker to the supervisor too: what the sweeper calls a second.
_PACE: Final = 1.0
# A worker that is late, by a long turn of its reactor, does not hang yet: seconds, however short the periods are.
_LEAST_PATIENCE: Final = 3.0
# Seconds that a worker may take from its start until it serves, as systemd allows a unit by default.
_START: Final = 90.0


class Watchdog:
    """Looks each second who has been silent for too long. Such a worker is killed after `limit` seconds (a call
    returns those in force; 0: never), and systemd gets its keep-alive only while none is silent for half of its
    period. Both are at least 3 s, and the former not shorter than the latter.

    More is allowed from a start until the worker serves, 90 s; from an order to reload until its verdict, or until
    the time is up; and once it stops, as long as `ending` returns (seconds). What counts is the time in which this
    process turns: one that stands still hears nobody.

    Seats without a process do not count. `tell` is called with a line when a worker falls silent or is heard again
    where systemd has a watchdog. Nothing is sent before one is ready, unless the unit is `serving` already: a
    keep-alive would begin systemd's period during the start. `now` is monotonic seconds everywhere.
    """

    def __init__(
        self,
        notifier: Notifier,
        ending: Callable[[], float],
        limit: Callable[[], float],
        tell: Callable[[str], object],
        serving: bool = False,
        kill: Callable[[int, int], object] = os.kill,
    ) -> None:
        self._watched = notifier.watchdog_interval is not None
        self._patience = max(notifier.watchdog_interval or 0.0, _LEAST_PATIENCE)
        self._notifier = notifier
        self._ending = ending
        self._limit = limit
        self._tell = tell
        self._serving = serving
        self._kill = kill
        self._silent: set[Seat] = set()
        self.due = -math.inf
        """When `look` is to be called next."""

    def started(self, seat: Seat, now: float) -> None:
        """A worker has been started."""
        seat.silent_until = now + _START
        self._silent.discard(seat)

    def asked(self, seats: Iterable[Seat], due: float) -> None:
        """These have been told to reload, and have until `due` for their verdict."""
        for seat in seats:
            if due < math.inf:
                seat.silent_until = max(seat.silent_until, due)

    def answered(self, seat: Seat, now: float) -> None:
        """A worker has said what it thinks of a reload."""
        if not seat.ends:
            seat.silent_until = now + self._patience

    def heard(self, seat: Seat, notice: str, now: float) -> None:
        """A worker has sent this notice, as for systemd; any message shows that it does not hang."""
        until = now + self._patience
        if notice == "STOPPING=1":
            # At its end it cannot say any more that it lives.
            seat.silent_until = now + self._ending()
            seat.ends = True
        elif notice == "READY=1":
            seat.silent_until = until
            self._serving = True
        else:
            seat.silent_until = max(seat.silent_until, until)

    def look(self, seats: Iterable[Seat], now: float) -> None:
        """Kill who hangs, and send a keep-alive, if it is time for a look and no worker is silent."""
        if now < self.due:
            return
        running = [seat for seat in seats if seat.pid]
        if -math.inf < self.due < now - _PACE:
            # This process stood still itself, and may have all their messages before it.
            for seat in running:
                seat.silent_until += now - self.due
        self.due = now + _PACE
        silent = {seat for seat in running if now >= seat.silent_until}
        if self._watched:
            self._say_who(silent)
        more = max(0.0, (self._limit() or math.inf) - self._patience)
        for seat in silent:
            if now >= seat.silent_until + more and not seat.hung:
                seat.hung = True
                self._kill(seat.pid, signal.SIGKILL)
        self._silent = silent
        if self._serving and not silent:
            self._notifier.watchdog()

    def _say_who(self, silent: set[Seat]) -> None:
        for seat in silent - self._silent:
            self._tell(
                f"worker {seat.number} (process {seat.pid}) hangs: systemd's watchdog gets no keep-alive until it is"
                " heard or replaced"
            )
        for seat in self._silent - silent:
            if seat.pid:
                self._tell(f"worker {seat.number} (process {seat.pid}) is heard again")

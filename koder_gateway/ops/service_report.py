"""What systemd hears of a gateway that serves: that it still does, and figures for `systemctl status`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

from .notify import Notifier

# Seconds between two lines of figures.
_PACE: Final = 5.0


class Counted(NamedTuple):
    """Exchanges that have ended since the start, client connections and tenants (0: no registry)."""

    ended: int
    connections: int
    tenants: int


class ServiceReport:
    """Reports from the sweep: a keep-alive at each call of `look`, and figures each five seconds.

    `count` is asked only where somebody listens. Nothing is sent while the figures stay the same.
    """

    def __init__(self, notifier: Notifier, count: Callable[[], Counted]) -> None:
        self._notifier = notifier
        self._count = count
        self._before: tuple[float, int] | None = None
        self._due = math.inf if not notifier.listened else -math.inf

    def look(self, now: float) -> None:
        """To be called once a second; `now` is in monotonic seconds."""
        self._notifier.watchdog()
        if now < self._due:
            return
        self._due = now + _PACE
        counted = self._count()
        if self._before is not None:
            since, ended = self._before
            rate = (counted.ended - ended) / max(now - since, 1e-3)
            self._notifier.figures(round(rate), counted.connections, counted.tenants)
        self._before = now, counted.ended

"""The sweep: the gateway's only periodic timer, and the work at each of its ticks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ..wire.clock import CoarseClock
from .loop_lag import LoopLag

Part = Callable[[float], object]

# Seconds between ticks, and how many ticks make a second for slower work.
SWEEP: Final = 0.25
_TICKS_A_SECOND: Final = 4
_SILENCE: Final = 60.0


class Sweeper:
    """Calls `parts` at each tick and `seconds` once a second, each with the time (monotonic seconds), which it also
    sets `clock` to.

    An exception in one part prevents neither the other parts nor its own next call: timeouts, the log and the drain
    all depend on this timer. It is logged at most once a minute. `lag` is by how much the ticks are late.
    """

    log = Logger()

    def __init__(
        self,
        clock: CoarseClock,
        time: Callable[[], float],
        reactor: Any,
        parts: Sequence[Part],
        seconds: Sequence[Part],
    ) -> None:
        self._clock = clock
        self._time = time
        self._parts = tuple(parts)
        self._seconds = tuple(seconds)
        self._ticks = 0
        self._silent_until = -math.inf
        self._call = LoopingCall(self._tick)
        self._call.clock = reactor
        self.lag = LoopLag()
        # When the next tick is due, in monotonic seconds.
        self._due = math.inf

    @property
    def running(self) -> bool:
        """Whether there will be another tick."""
        return self._call.running

    def start(self) -> None:
        """Tick at once, and then every `SWEEP` seconds."""
        self._due = math.inf
        self._call.start(SWEEP, now=True)

    def stop(self) -> None:
        """Stop ticking; does nothing if it is stopped."""
        if self._call.running:
            self._call.stop()

    def _tick(self) -> None:
        now = self._clock.now = self._time()
        if self._due < math.inf:
            self.lag.add(now - self._due, now)
        self._ticks += 1
        parts = self._parts
        if self._ticks % _TICKS_A_SECOND == 0:
            parts = self._seconds + parts
        for part in parts:
            try:
                part(now)
            except Exception:
                if now >= self._silent_until:
                    self._silent_until = now + _SILENCE
                    self.log.failure("a periodic task failed; the others go on, and it is retried")
        # The next one is at the next multiple of the interval, by the reactor's own clock.
        since_last = (self._call.clock.seconds() - (self._call.starttime or 0.0)) % SWEEP
        self._due = self._time() + SWEEP - since_last

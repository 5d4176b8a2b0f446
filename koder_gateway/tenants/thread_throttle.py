"""The pace of long work in a thread: it yields the interpreter to the reactor's thread again and again."""

from __future__ import annotations

import time
from typing import Final

# Seconds of work after which the thread sleeps, and for how long. Without that the reactor would wait for the
# interpreter each time that it has something to do (`reactor.daemon_threads`).
_WORK: Final = 0.0005
_REST: Final = 0.0005
# Calls between two looks at the clock.
_STEPS: Final = 8


class ThreadThrottle:
    """Called between any two steps of the work; it sleeps when it is time to. For one thread."""

    def __init__(self) -> None:
        self._steps = 0
        self._ends = time.monotonic() + _WORK

    def __call__(self) -> None:
        """One step is done."""
        self._steps += 1
        if self._steps % _STEPS == 0 and time.monotonic() >= self._ends:
            time.sleep(_REST)
            self._ends = time.monotonic() + _WORK

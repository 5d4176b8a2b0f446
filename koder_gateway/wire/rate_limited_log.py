"""Log lines that peers can cause: a flood of faults becomes a few lines and a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .clock import CoarseClock

_LINES: Final = 10
_SECONDS: Final = 10.0


class RateLimitedLog:
    """At most ten lines in ten seconds; then the number of left-out lines, with the next line or when `sweep` finds
    that there was none.

    `warn` is a logger's method: it gets a format, and values by name.
    """

    __slots__ = ("_begun", "_clock", "_left_out", "_said", "_warn")

    def __init__(self, clock: CoarseClock, warn: Callable[..., Any]) -> None:
        self._clock = clock
        self._warn = warn
        self._begun = float("-inf")
        self._said = 0
        self._left_out = 0

    def warn(self, line: str) -> None:
        """Log a warning that a peer, or a file that a peer asks for, has caused."""
        now = self._clock.now
        if now - self._begun >= _SECONDS:
            self._begun = now
            self._said = 0
        if self._said >= _LINES:
            self._left_out += 1
            return
        self._said += 1
        left_out, self._left_out = self._left_out, 0
        if left_out:
            self._warn("{line} ({left_out} similar lines were left out before)", line=line, left_out=left_out)
        else:
            self._warn("{line}", line=line)

    def sweep(self, now: float) -> None:
        """Log the number of left-out lines, once their ten seconds are over; called about every second."""
        if self._left_out and now - self._begun >= _SECONDS:
            left_out, self._left_out = self._left_out, 0
            self._warn("{left_out} more similar lines were left out", left_out=left_out)

"""Log lines that peers can cause: a flood of faults is a few lines and a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .clock import CoarseClock

_LINES: Final = 10
_SECONDS: Final = 10.0


class RateLimitedLog:
    """At most ten lines in ten seconds; then how many were left out, with the next line or when `sweep` finds that
    there was none.

    `warn` is a logger's method: it gets a format, and what to fill in by name.
    """

    __slots__ = ("_begun", "_clock", "_left_out", "_said", "_warn")

    def __init__(self, clock: CoarseClock, warn: Callable[..., Any]) -> None:
        self._clock = clock
        self._warn = warn
        self._begun = float("-inf")
        self._said = 0
        self._left_out = 0

    def warn(self, line: str) -> None:
        """Warn of something that a peer, or a file that a peer asks for, is the cause of."""
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
        """Say what has not been said, once its ten seconds are over; called every second or so."""
        if self._left_out and now - self._begun >= _SECONDS:
            left_out, self._left_out = self._left_out, 0
            self._warn("{left_out} more similar lines were left out", left_out=left_out)

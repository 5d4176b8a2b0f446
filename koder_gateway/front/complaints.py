"""Log lines that peers can cause: a flood of faults is a few lines and a number."""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger

from ..wire.clock import CoarseClock

_LINES: Final = 10
_SECONDS: Final = 10.0


class Complaints:
    """At most ten warnings in ten seconds; the next one says how many were left out."""

    __slots__ = ("_begun", "_clock", "_left_out", "_log", "_said")

    def __init__(self, clock: CoarseClock, log: Logger) -> None:
        self._clock = clock
        self._log = log
        self._begun = float("-inf")
        self._said = 0
        self._left_out = 0

    def say(self, line: str) -> None:
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
        more = f" ({left_out} more of these lines were left out before)" if left_out else ""
        self._log.warn("{line}{more}", line=line, more=more)

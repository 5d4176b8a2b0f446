"""Logs that the table of limits is full, so that clients are counted by their networks, and what to set."""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger

from ..policy.limits import Limiter

# Seconds between two such lines.
_QUIET: Final = 300.0


class FullLimits:
    """A line every five minutes at most, however many keys find no room; the owner calls `tell` every second."""

    log = Logger()

    def __init__(self) -> None:
        self._told = 0
        self._due = float("-inf")

    def tell(self, limiter: Limiter, now: float) -> None:
        """Log how many decisions found no room since the last line; `now` is monotonic seconds."""
        crowded_out = limiter.crowded_out - self._told
        if crowded_out <= 0 or now < self._due:
            return
        self._told += crowded_out
        self._due = now + _QUIET
        self.log.warn(
            "the table of limits is full, all {most} entries are in use: {count} decisions were made by the network"
            " of the client, which it shares with others; raise limits_store.max_entries",
            most=limiter.max_entries,
            count=crowded_out,
        )

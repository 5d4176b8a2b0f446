"""Connections to services that close as soon as the service has taken what was written, each by its deadline."""

from __future__ import annotations

from typing import Final, Protocol

from ..wire.clock import CoarseClock

# So many may be closing at once; what is too many is reset.
_MOST: Final = 1024


class ClosingConnection(Protocol):
    """A connection that has begun to close."""

    def abandon(self) -> None:
        """The service has not taken it in time: close at once."""


class GracefulCloses:
    """The connections that are closing. Each has so many `seconds`. The owner calls `sweep`."""

    def __init__(self, clock: CoarseClock, seconds: float) -> None:
        self.seconds = seconds
        self._clock = clock
        self._due: dict[ClosingConnection, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    @property
    def full(self) -> bool:
        """Whether one more that could be reset as well has to be."""
        return len(self._due) >= _MOST

    def add(self, connection: ClosingConnection) -> None:
        """One more has begun to close."""
        self._due[connection] = self._clock.now + self.seconds

    def discard(self, connection: ClosingConnection) -> None:
        """It is closed; nothing for one that was never here."""
        self._due.pop(connection, None)

    def sweep(self, now: float) -> None:
        """Close those whose deadline has passed; called once a tick."""
        for connection in [connection for connection, due in self._due.items() if due <= now]:
            connection.abandon()

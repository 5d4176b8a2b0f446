"""Session tickets that every worker can read: contexts that are made before the workers are forked.

OpenSSL encrypts tickets with keys that it generates with a context, and pyOpenSSL has no way to set or read them. But
a fork inherits them, and a connection that gets another context keeps the ticket keys of the one that it began with.
So connections begin with a context that all workers inherited, one for each period, and get that of their certificate
in the handshake. All workers go on to the next one at the same time, by the system's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from OpenSSL import SSL

# Seconds for which the same keys encrypt session tickets (RFC 9325 section 3.4 asks for less than a week). A session
# ends after two hours, so few tickets meet other keys.
TICKETS: Final = 12 * 3600.0
# How many periods there are keys for, 64 days: a context takes 14 KiB, which workers share, and half a millisecond.
PERIODS: Final = 128


class TicketContexts:
    """The contexts of all endpoints, a row of them for each. `begun` is when the first period begins, in monotonic
    seconds."""

    def __init__(self, begun: float, periods: int = PERIODS) -> None:
        self._begun = begun
        self._periods = periods
        self._rows: list[list[SSL.Context | None]] = []

    def make_row(self, number: int, make: Callable[[], SSL.Context]) -> None:
        """Make the contexts of an endpoint, by its number from 0, unless they are there."""
        while len(self._rows) <= number:
            self._rows.append([make() for _ in range(self._periods)])

    def at(self, number: int, now: float) -> SSL.Context | None:
        """The context of an endpoint at this time; None after the last period. Those of periods that have passed are
        dropped, and their keys with them."""
        period = int((now - self._begun) // TICKETS)
        row = self._rows[number]
        row[: min(period, len(row))] = [None] * min(period, len(row))
        return row[period] if period < len(row) else None

    def next_period(self, now: float) -> float:
        """When the next period begins."""
        return self._begun + ((now - self._begun) // TICKETS + 1) * TICKETS

"""The bytes of answers that wait for clients: of one connection, and of all of them together."""

from __future__ import annotations

from typing import Final

# What may wait for one client, on all its streams together, before every service that answers it is paused.
CONNECTION: Final = 196608


class Buffered:
    """All connections together: `total` bytes wait, where `bound` may. Beyond it each connection's own bound is
    what one read brings: its services are paused as soon as anything waits."""

    __slots__ = ("bound", "total")

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.total = 0

    @property
    def room(self) -> int:
        """What may wait for one client at present."""
        return CONNECTION if self.total <= self.bound else 0

"""The bytes of responses that wait for clients: of one connection, and of all of them together."""

from __future__ import annotations

from typing import Final

# What may wait for one client, on all its streams together, before only what leaves at once is read of its responses.
CONNECTION: Final = 65536
# And before every service that answers it is paused.
MOST: Final = 393216


class Buffered:
    """All connections together: `total` bytes wait, where `bound` may. Beyond it no connection may have more waiting
    than what one read brings."""

    __slots__ = ("bound", "total")

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.total = 0

    @property
    def room(self) -> int:
        """What may wait for one client before no more is read than leaves at once."""
        return CONNECTION if self.total <= self.bound else 0

    @property
    def most(self) -> int:
        """What may wait for one client at present."""
        return MOST if self.total <= self.bound else CONNECTION

"""How much is read from a peer at once, if its transport supports that.

Data that has been read and cannot be sent on at once waits here, and even a little of it keeps the whole buffer of
its read in memory. So from a peer that sends much, no more is read at once than the other side has room for, but
always some, or nothing would progress.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

# After a read of so many bytes, reads are bounded.
MUCH: Final = 1 << 15


def room_of(transport: Any) -> int:
    """Bytes that `transport` accepts at once, 0 if it does not report it."""
    return int(getattr(transport, "room", 0))


def read_bounded(transport: Any, room: Callable[[], int] | None = None) -> None:
    """Read no more than a bound at once from now on, or as much as `room` says that there is room for (bytes)."""
    bounded = getattr(transport, "read_bounded", None)
    if bounded is not None:
        bounded(room)


def read_fitting(transport: Any, room: Callable[[], int]) -> None:
    """Read as much at once as `room` says that there is room for (bytes), and much anyway: for bulk."""
    fitting = getattr(transport, "read_fitting", None)
    if fitting is not None:
        fitting(room)


def read_freely(transport: Any) -> None:
    """Read without a bound."""
    freely = getattr(transport, "read_freely", None)
    if freely is not None:
        freely()

"""How much of a peer is read at once, where its transport can be told.

What has been read and cannot be sent on at once waits here, and even a little of it keeps the whole read in memory.
So of a peer that brings much no more is read at once than the other side has room for; some at least, or nothing
would go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

# A read of so many bytes is followed by bounded ones.
MUCH: Final = 1 << 15


def room_of(transport: Any) -> int:
    """Bytes that `transport` takes at once, 0 where it does not tell."""
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
    """Read as much as comes."""
    freely = getattr(transport, "read_freely", None)
    if freely is not None:
        freely()

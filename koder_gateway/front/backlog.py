"""What still waits for a client, in the kernel and before it: the only sign of one that takes an answer slowly."""

from __future__ import annotations

import fcntl
import struct
import termios
from typing import Any

from ..wire.pace import Pace


def backlog(transport: Any) -> int:
    """Bytes that were sent and that the client's side has not acknowledged; -1 where nobody can tell."""
    try:
        handle = transport.getHandle()
        waiting: int = struct.unpack("i", fcntl.ioctl(handle.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]
    except (AttributeError, OSError, ValueError):
        return -1
    return waiting


class Uptake:
    """Whether one client takes its answers as fast as it has to: known from what was written for an exchange, and how
    much of that still waits."""

    __slots__ = ("_exchange", "_pace")

    def __init__(self) -> None:
        self._exchange: object = self
        self._pace = Pace()

    def keeps(
        self, transport: Any, exchange: object, written: int, now: float, seconds_per_byte: float, grace: float
    ) -> bool:
        """Whether something waits, and enough of it has been taken since this was asked for the first time.
        `written`: bytes written for the present `exchange`, which is None between two; `grace`: seconds that it may
        fall behind."""
        waiting = backlog(transport)
        if waiting < 0:
            return False
        # What the transport itself holds, where it tells.
        waiting += getattr(transport, "unsent", 0)
        if not waiting:
            return False
        if exchange is not self._exchange:
            self._exchange, self._pace = exchange, Pace()
            self._pace.begin(written - waiting, now, grace)
        return self._pace.keeps(written - waiting, now, seconds_per_byte, grace)

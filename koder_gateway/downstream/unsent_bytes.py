"""The data that waits for a client, in the kernel and before it, and whether the client reads it fast enough.

The kernel accepts several hundred KiB at once, long before the client has them. So the written bytes say nothing
about the client: only what its side has acknowledged does.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from typing import Any, Final

from ..wire.min_rate import MinRate

# Linux's struct tcp_info as far as tcpi_bytes_acked, its last field here.
_INFO_BYTES: Final = 128
_BYTES_ACKED: Final = 120
# How fast a slow client empties its kernel's buffer, in bytes a second; a buffer that is too small to matter; and how
# many times its grace it has for that at most.
_SLOW: Final = 1024.0
_SMALL: Final = 1 << 14
_LULLS: Final = 3


def backlog(transport: Any) -> int:
    """Bytes that were sent and that the client's side has not acknowledged; -1 if that is unknown."""
    try:
        handle = transport.getHandle()
        waiting: int = struct.unpack("i", fcntl.ioctl(handle.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]
    except (AttributeError, OSError, ValueError):
        return -1
    return waiting


def acknowledged(transport: Any) -> int:
    """Bytes that the client's side has acknowledged since it connected; -1 where that is not TCP's to tell."""
    try:
        info = transport.getHandle().getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        taken: int = struct.unpack_from("Q", info, _BYTES_ACKED)[0]
    except (AttributeError, OSError, ValueError, struct.error):
        return -1
    return taken


class ClientPace:
    """Whether one client reads its responses fast enough, from the moment that this is made: when data begins to wait
    for it.

    `exchange` is the one in flight, None between two, and `written` are its bytes so far: they show what was read
    where TCP does not, as on a UNIX socket. `grace`: seconds that the client may fall behind; `now` is monotonic
    seconds.
    """

    __slots__ = ("_acknowledges", "_base", "_exchange", "_goal", "_pace", "_taken", "_transport", "moved", "waiting")

    def __init__(self, transport: Any, exchange: object, written: int, now: float, grace: float) -> None:
        self._transport = transport
        self.waiting = 0
        """Bytes that waited at the last look, as far as known."""
        self.moved = False
        """Whether anything had been taken then since the look before."""
        self._taken = self._base = 0
        # Whether TCP tells what was taken; else what waits does, and hides nothing.
        self._acknowledges = False
        self._exchange = exchange
        self._look(exchange, written)
        self._begin(now, grace)

    @property
    def due(self) -> float:
        """When the client will have read too little unless it reads more."""
        return self._pace.due

    def _begin(self, now: float, grace: float) -> None:
        self._goal = self._taken + self.waiting
        self._pace = MinRate()
        self._pace.begin(self._taken, now, grace + self._lull(grace))

    def _lull(self, grace: float) -> float:
        """Seconds in which a slow client acknowledges nothing although it reads: its kernel opens a closed window
        only when much of its buffer is free. That buffer has grown to no more than what was read. A client that reads
        nothing at all looks the same, so there is a bound."""
        if not self._acknowledges:
            return 0.0
        return min(_LULLS * grace, max(0, self._taken - _SMALL) / _SLOW)

    def _look(self, exchange: object, written: int) -> None:
        """See what has been taken and what waits."""
        transport = self._transport
        waited = self.waiting
        # What the transport itself holds, where it tells.
        self.waiting = max(0, backlog(transport)) + int(getattr(transport, "unsent", 0))
        taken = acknowledged(transport)
        self._acknowledges = taken >= 0
        if taken < 0:
            if exchange is not self._exchange:
                # The count begins anew with it; as much as waits less was taken at least.
                self._base = self._taken + max(0, waited - self.waiting) - written + self.waiting
                self._exchange = exchange
            taken = self._base + written - self.waiting
        self.moved = taken > self._taken
        self._taken = taken

    def keeps(
        self, exchange: object, written: int, now: float, seconds_per_byte: float, grace: float, *, full: bool
    ) -> bool:
        """Whether the client may go on. `full`: more waits than the transport wants to hold.

        A client that has taken all that waited when it was measured first is measured anew: it takes no more than
        it is sent.
        """
        self._look(exchange, written)
        if not full and self._taken >= self._goal:
            self._begin(now, grace)
            return True
        return self._pace.keeps(self._taken, now, seconds_per_byte, grace + self._lull(grace))

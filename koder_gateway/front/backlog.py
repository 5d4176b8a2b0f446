"""What the kernel still holds for a client: the only sign of one that takes an answer slowly."""

from __future__ import annotations

import fcntl
import struct
import termios
from typing import Any


def backlog(transport: Any) -> int:
    """Bytes that were sent and that the client's side has not acknowledged; -1 where nobody can tell."""
    try:
        handle = transport.getHandle()
        waiting: int = struct.unpack("i", fcntl.ioctl(handle.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]
    except (AttributeError, OSError, ValueError):
        return -1
    return waiting

"""Messages between the supervisor and a worker: one JSON object on each line, over a pair of sockets.

Its end is a message too: the other process has ended, however that happened.
"""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from typing import Any, Final

# The longest message in bytes; a reload that is refused has a line for each fault.
_LONGEST: Final = 1 << 20
_READ: Final = 1 << 16

Message = dict[str, Any]


class Channel:
    """One end of the pair. Nothing here blocks."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._received = bytearray()
        self._unsent = bytearray()

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._socket.fileno()

    @property
    def blocked(self) -> bool:
        """Whether messages wait until the other side reads; the next `send` tries again, and so does `flush`."""
        return bool(self._unsent)

    def send(self, **message: Any) -> None:
        """Send a message; to a process that has ended, nothing."""
        if len(self._unsent) < _LONGEST:
            self._unsent += json.dumps(message).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as it goes."""
        with suppress(OSError):
            while self._unsent:
                sent = self._socket.send(self._unsent)
                del self._unsent[:sent]

    def receive(self) -> list[Message] | None:
        """The messages that have arrived; None once the other process has ended."""
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, rest = (bytes(self._received) + data).split(b"\n")
        self._received = bytearray(rest)
        if len(rest) > _LONGEST:
            return None
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Close this end."""
        self._socket.close()


def channel_pair() -> tuple[Channel, Channel]:
    """Both ends."""
    one, other = socket.socketpair()
    return Channel(one), Channel(other)

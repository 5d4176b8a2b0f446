"""The frames of a WebSocket as they pass (RFC 6455 section 5.2): where one ends, and a Close frame may be put in.

Nothing is decoded. A frame in between is allowed at every end of a frame, also within a message of several frames,
when it is a control frame (section 5.4).
"""

from __future__ import annotations

from typing import Final

# The status of an endpoint that goes away (section 7.4.1).
GOING_AWAY: Final = 1001
_CLOSE: Final = 0x88
_MASK: Final = 0x80
# The length that says that two bytes of length follow; the next one says eight.
_TWO: Final = 126


def close_frame(status: int) -> bytes:
    """The Close frame of a server, whose frames have no mask."""
    return bytes((_CLOSE, 2)) + status.to_bytes(2, "big")


class FrameBoundaries:
    """Follows the frames of one direction. `between` says whether the bytes so far end with a frame."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        # How much of the present frame is still to come; the beginning of a head that is not complete.
        self._left = 0
        self._head = b""

    @property
    def between(self) -> bool:
        """Whether the last byte was the last one of a frame."""
        return not self._left and not self._head

    def follow(self, data: bytes) -> int:
        """More bytes have passed. Returns how many of them belong to frames that are complete with them, -1 if no
        frame has ended."""
        left = self._left
        size = len(data)
        if not left and not self._head and size > 1 and data[1] == size - 2 < _TWO:
            # One small message, as most reads bring.
            return size
        if left >= size:
            self._left = left - size
            return -1 if left > size else size
        before = len(self._head)
        if before:
            data = self._head + data
            size += before
            self._head = b""
        position = left
        ended = position if position else -1
        while position < size:
            end = _end_of_frame(data, position, size)
            if not end:
                self._head = data[position:]
                position = size
            else:
                position = end
                if end <= size:
                    ended = end
        self._left = position - size
        return ended - before if ended >= 0 else -1


def _end_of_frame(data: bytes, start: int, size: int) -> int:
    """Where the frame that begins at `start` ends, perhaps behind the data; 0 if its head is not complete."""
    if size - start < 2:
        return 0
    length = data[start + 1]
    head = 2
    if length >= _MASK:
        length -= _MASK
        head = 6
    if length < _TWO:
        return start + head + length
    more = 2 if length == _TWO else 8
    if size - start < 2 + more:
        return 0
    return start + head + more + int.from_bytes(data[start + 2 : start + 2 + more], "big")

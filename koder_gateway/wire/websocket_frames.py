"""The frames of a WebSocket as they pass (RFC 6455 section 5.2): where one ends, and a Close frame may be put in.

Nothing is decoded. A frame in between is allowed at every end of a frame, also within a message of several frames,
when it is a control frame (section 5.4).

A service may send thousands of tiny frames in one read. Frames of the same length are skipped many at a time; others
cost a step each, and there is an allowance for those: one frame for each `_WORTH` bytes. If more come for long, they
are not followed any more, and the connection then ends without a Close frame.
"""

from __future__ import annotations

from typing import Final

# The status of an endpoint that goes away (section 7.4.1).
GOING_AWAY: Final = 1001
_CLOSE: Final = 0x88
_MASK: Final = 0x80
# The length that says that two bytes of length follow; the next one says eight.
_TWO: Final = 126
# What the mask adds to a short frame whose second byte is at least `_MASK`, beyond that byte's value: the mask's four
# bytes, less the bit.
_MASKED: Final = 4 - _MASK
# Of frames of the same length in a row so many are compared at first, and at most so many at a time.
_FIRST: Final = 16
_MOST: Final = 1024
# A frame for so many bytes, and so many of each read, are followed however many come; and so many more.
_WORTH: Final = 32
_EACH_READ: Final = 4
_ALLOWANCE: Final = 1024


def close_frame(status: int) -> bytes:
    """The Close frame of a server, whose frames have no mask."""
    return bytes((_CLOSE, 2)) + status.to_bytes(2, "big")


class FrameBoundaries:
    """Follows the frames of one direction. `between` says whether the bytes so far end with a frame; False for ever
    once it is `lost`, which it is after too many tiny frames."""

    __slots__ = ("_head", "_left", "_spare", "lost")

    def __init__(self) -> None:
        # How much of the present frame is still to come; the beginning of a head that is not complete.
        self._left = 0
        self._head = b""
        self._spare = _ALLOWANCE
        self.lost = False

    @property
    def between(self) -> bool:
        """Whether the last byte was the last one of a frame."""
        return not self._left and not self._head and not self.lost

    def follow(self, data: bytes) -> int:
        """More bytes have passed. Returns how many of them belong to frames that are complete with them, -1 if no
        frame has ended, or if it is lost."""
        left = self._left
        size = len(data)
        if not left and not self._head and size > 1 and data[1] == size - 2 < _TWO and not self.lost:
            # One small message, as most reads bring.
            return size
        if self.lost:
            return -1
        if left >= size:
            self._left = left - size
            return -1 if left > size else size
        before = len(self._head)
        if before:
            data = self._head + data
            size += before
            self._head = b""
        self._spare += _EACH_READ + size // _WORTH
        ended, end = self._ends(data, left, size)
        if end < 0:
            self.lost = True
            return -1
        self._left = end - size
        return ended - before if ended >= 0 else -1

    def _ends(self, data: bytes, position: int, size: int) -> tuple[int, int]:
        """Where the last complete frame ends, -1 if none does, and where the last one that has begun will: -1 once
        there were too many. `position` is where the first frame begins."""
        ended = position if position else -1
        spare, last, edge = self._spare, 0, size - 1
        while position < edge:
            spare -= 1
            length = data[position + 1]
            kind = length & ~_MASK
            if kind < _TWO:
                end = position + 2 + (length if length < _MASK else length + _MASKED)
                if length == last and end < edge and data[end + 1] == length:
                    spare -= 1
                    end = _end_of_run(data, end, end - position, size)
                last = length
            else:
                end = _end_of_long_frame(data, position, size)
                if not end:
                    break
            if end > size:
                self._spare = min(spare, _ALLOWANCE)
                return ended, end
            position = ended = end
            if spare < 0:
                return -1, -1
        self._spare = min(spare, _ALLOWANCE)
        self._head = data[position:]
        return ended, size


def _end_of_run(data: bytes, position: int, step: int, size: int) -> int:
    """Where the last complete one ends of the frames of `step` bytes that follow one of them at `position`."""
    length = data[position + 1 - step : position + 2 - step]
    window = _FIRST
    while True:
        lengths = data[position + 1 : position + 1 + window * step : step]
        count = len(lengths) - len(lengths.lstrip(length))
        position += count * step
        if count < window:
            # The last one may be cut off.
            return position if position <= size else position - step
        window = min(window * 8, _MOST)


def _end_of_long_frame(data: bytes, start: int, size: int) -> int:
    """Where the frame that begins at `start` ends, perhaps behind the data, if its length does not fit into seven
    bits; 0 if its head is not complete."""
    length = data[start + 1]
    head = 2 if length < _MASK else 6
    more = 2 if length & ~_MASK == _TWO else 8
    if size - start < 2 + more:
        return 0
    return start + head + more + int.from_bytes(data[start + 2 : start + 2 + more], "big")

"""The field block that is under way on an HTTP/2 connection: HEADERS, and the CONTINUATION frames behind it."""

from __future__ import annotations

import math
from typing import Final

from ..wire.frames import END_STREAM, ENHANCE_YOUR_CALM, Http2Error

# Times as many bytes as the head that it becomes, a block may have: of many short fields, or a cookie in crumbs, most
# is what stands around them.
_BLOCK_FACTOR: Final = 2
_MAX_CONTINUATIONS: Final = 32


class FieldBlock:
    """No more than one at a time: `stream` is the number of its stream, 0 while there is none. `ended`: it ends its
    stream. `due` is when it has to be whole, in monotonic seconds."""

    __slots__ = ("_pieces", "_size", "due", "ended", "stream")

    def __init__(self) -> None:
        self.stream = 0
        self.ended = 0
        self.due = math.inf
        self._pieces: list[bytes] = []
        self._size = 0

    def begin(self, stream: int, flags: int, piece: bytes, due: float) -> None:
        """A HEADERS frame does not end its block."""
        self.stream, self.ended = stream, flags & END_STREAM
        self._pieces, self._size = [piece], len(piece)
        self.due = due

    def add(self, piece: bytes, max_head: int) -> None:
        """A CONTINUATION frame has come. Raises Http2Error."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > max_head * _BLOCK_FACTOR or len(self._pieces) > _MAX_CONTINUATIONS:
            raise Http2Error(ENHANCE_YOUR_CALM, "a field block is over the limit")

    def whole(self) -> bytes:
        """All of it has come; there is none under way any more."""
        block, self._pieces = b"".join(self._pieces), []
        self.stream, self.due = 0, math.inf
        return block

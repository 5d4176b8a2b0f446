"""The field block that is still arriving on an HTTP/2 connection: HEADERS, and the CONTINUATION frames behind it."""

from __future__ import annotations

import math
from typing import Final

from ..wire.http2_frames import END_STREAM

# Times as many bytes as the largest head, and so many frames, of a block are kept: of many short fields, or a cookie
# in crumbs, most is what stands around them, and a head that is a few times too large is still read, for its response
# and for the table's sake.
_BLOCK_FACTOR: Final = 4
_MAX_CONTINUATIONS: Final = 32


class HeaderBlock:
    """No more than one at a time: `stream` is the number of its stream, 0 while there is none. `ended`: it ends its
    stream. `due` is when it has to be whole, in monotonic seconds."""

    __slots__ = ("_pieces", "_size", "due", "ended", "stream")

    def __init__(self) -> None:
        self.stream = 0
        self.ended = 0
        self.due = math.inf
        self._pieces: list[bytes] | None = []
        self._size = 0

    def begin(self, stream: int, flags: int, piece: bytes, due: float) -> None:
        """A HEADERS frame does not end its block."""
        self.stream, self.ended = stream, flags & END_STREAM
        self._pieces, self._size = [piece], len(piece)
        self.due = due

    def add(self, piece: bytes, max_head: int) -> bool:
        """A CONTINUATION frame has come; false where the block is too large to be kept, this piece included."""
        self._size += len(piece)
        pieces = self._pieces
        if pieces is None:
            return False
        pieces.append(piece)
        if self._size > max_head * _BLOCK_FACTOR or len(pieces) > _MAX_CONTINUATIONS:
            self._pieces = None
            return False
        return True

    def whole(self) -> bytes | None:
        """The whole block; from now on none is arriving. None where it was too large to be kept."""
        pieces, self._pieces = self._pieces, []
        self.stream, self.due = 0, math.inf
        return None if pieces is None else b"".join(pieces)

"""Bytes from a client that have come and are not read yet."""

from __future__ import annotations

import re
from typing import Final

_HEAD_END: Final = b"\r\n\r\n"
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+")
# What is read of a buffer that grows stays at its front until it is this much.
_COMPACT: Final = 65536


class ReceiveBuffer:
    """Takes bytes in pieces of any size and gives them back as they are read, each byte copied and searched once.

    `data` holds them from position `_at` on; it is empty exactly when nothing is unread. One read of the transport
    stays as it came; only when more comes behind it a growing buffer takes its place.
    """

    __slots__ = ("_at", "_looked", "_searched", "data")

    def __init__(self) -> None:
        self.data: bytes | bytearray = b""
        self._at = 0
        # Up to where no head ends, and up to where a partial head has been looked at.
        self._searched = 0
        self._looked = 0

    def __len__(self) -> int:
        return len(self.data) - self._at

    def add(self, data: bytes) -> None:
        """More has come."""
        if not self.data:
            self.data = data
            return
        if isinstance(self.data, bytes):
            self._drop_front(bytearray(memoryview(self.data)[self._at :]))
        self.data += data

    def skip_empty_lines(self) -> None:
        """Empty lines before a request are ignored (RFC 9112 section 2.2); so is their number, cheaply."""
        lines = _EMPTY_LINES.match(self.data, self._at)
        if lines is not None:
            self._advance(lines.end())

    def head_size(self) -> int:
        """How many bytes the first head has, with the empty line that ends it; 0 while it is not whole."""
        end = self.data.find(_HEAD_END, max(self._at, self._searched))
        if end < 0:
            self._searched = max(self._at, len(self.data) - len(_HEAD_END) + 1)
            return 0
        return end + len(_HEAD_END) - self._at

    def read(self, size: int) -> bytes:
        """The next `size` bytes, or what there is of them."""
        end = self._at + size
        data = self.data
        piece = data if not self._at and end >= len(data) else data[self._at : end]
        self._advance(end)
        return bytes(piece)

    def put_back(self, data: bytes) -> None:
        """These were taken last, and are not read after all."""
        if len(data) > self._at:
            self.data = data + self.data[self._at :]
            self._at = 0
        else:
            self._at -= len(data)
        self._searched = self._looked = self._at

    def new(self) -> bytes:
        """What has come since this was last asked, of what is still unread."""
        piece = bytes(self.data[max(self._at, self._looked) :])
        self._looked = len(self.data)
        return piece

    def so_far(self) -> bytes | bytearray:
        """All of it, to be looked at."""
        if self._at:
            self._drop_front(bytearray(memoryview(self.data)[self._at :]))
        return self.data

    def clear(self) -> None:
        """Forget all of it."""
        self.data = b""
        self._at = self._searched = self._looked = 0

    def _advance(self, end: int) -> None:
        if end >= len(self.data):
            self.clear()
        else:
            self._at = self._searched = self._looked = end
            if end > _COMPACT and isinstance(self.data, bytearray):
                del self.data[:end]
                self._at = self._searched = self._looked = 0

    def _drop_front(self, rest: bytearray) -> None:
        self.data = rest
        self._searched = max(0, self._searched - self._at)
        self._looked = max(0, self._looked - self._at)
        self._at = 0

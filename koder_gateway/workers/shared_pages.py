"""What every worker shows the others: a page of bytes each, in memory that they share.

A page has two copies. Its one writer writes the one that is not shown, and then shows it; so a writer that is stopped
or killed in the middle hinders no reader. One that reads so slowly that the copy is written again meanwhile sees that
by the checksum, and reads the other one. No lock: a worker that is stopped must not stop the others.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import Final

# Length and checksum of what follows.
_HEADER: Final = struct.Struct("<QL")
# Where they are: before them there is the number of the copy that is shown, in the first one.
_START: Final = 64
# How often a reader reads again.
_ATTEMPTS: Final = 100


class SharedPage:
    """A page in files without a name, which child processes inherit."""

    def __init__(self, name: str) -> None:
        self._copies = tuple(os.memfd_create(f"koder-gateway-{name}-{number}") for number in range(2))
        self._last = b""

    def write(self, data: bytes) -> None:
        """Replace the contents."""
        other = 1 - self._shown()
        os.pwrite(self._copies[other], _HEADER.pack(len(data), zlib.crc32(data)) + data, _START)
        os.pwrite(self._copies[0], bytes((other,)), 0)

    def read(self) -> bytes:
        """The contents, b"" if nothing has been written."""
        for _ in range(_ATTEMPTS):
            copy = self._copies[self._shown()]
            size = os.fstat(copy).st_size - _START
            data = os.pread(copy, size, _START) if size > 0 else b""
            if len(data) < _HEADER.size:
                break
            length, checksum = _HEADER.unpack_from(data)
            body = data[_HEADER.size : _HEADER.size + length]
            if len(body) == length and zlib.crc32(body) == checksum:
                self._last = body
                break
        return self._last

    def _shown(self) -> int:
        return (os.pread(self._copies[0], 1, 0) or b"\0")[0]

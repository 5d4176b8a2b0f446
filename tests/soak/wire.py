"""What clients and services of the soak say to each other: each answer follows from what was asked, so a byte of
another exchange shows."""

from __future__ import annotations

import asyncio
import hashlib
import os
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tests.kit.http1 import IncompleteError, Message, read_message

# Bytes of the largest answers and uploads.
LARGE = 192 * 1024
_TEXT, _CLOSE = 0x81, 0x88
# One frame has up to 125 bytes: its length is then one byte (RFC 6455 section 5.2).
LONGEST_FRAME = 125


class Cut(Exception):
    """The connection has ended within an exchange."""


@dataclass(frozen=True)
class Ask:
    """One request. `size` is that of the answer, `upload` that of the body; `pieces`: the answer comes in two, with a
    pause between; `chunked`: its framing."""

    token: str
    tenant: str
    service: str
    size: int = 0
    upload: int = 0
    chunked: bool = False
    pieces: bool = False

    @property
    def target(self) -> str:
        """Path and query."""
        return f"/{self.service}/{self.token}?{self.size}.{int(self.chunked)}.{int(self.pieces)}"

    @property
    def method(self) -> str:
        """GET, or POST where there is a body."""
        return "POST" if self.upload else "GET"

    @property
    def host(self) -> str:
        """The tenant's host."""
        return f"{self.tenant}.id.test"

    @property
    def body(self) -> bytes:
        """What is uploaded."""
        return text_of(self.token[::-1], self.upload)

    def encoded(self) -> bytes:
        """The request over HTTP/1.1."""
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: {self.host}", f"X-Request-ID: {self.token}"]
        if self.upload:
            lines.append(f"Content-Length: {self.upload}")
        return "\r\n".join([*lines, "", ""]).encode() + self.body

    def fault(self, status: int, values: Callable[[bytes], Sequence[bytes]], body: bytes) -> str:
        """What is wrong with a service's answer; "" if nothing is."""
        wanted = {
            b"x-request-id": self.token.encode(),
            b"x-seen-tenant": self.tenant.encode(),
            b"x-seen-target": self.target.encode(),
            b"x-seen-body": digest(self.body),
        }
        for name, value in wanted.items():
            if values(name) != [value]:
                return f"{self.target}: {name!r} is {values(name)}, not {value!r}"
        if status != 200 or body != text_of(self.token, self.size):
            return f"{self.target}: status {status}, {len(body)} bytes that begin with {body[:80]!r}"
        return ""


def new_token() -> str:
    """A name for one exchange."""
    return os.urandom(12).hex()


def text_of(token: str, size: int) -> bytes:
    """So many bytes that say whose they are."""
    line = token.encode() + b"\n"
    return (line * (size // len(line) + 1))[:size]


def digest(body: bytes) -> bytes:
    """What a service says of a body that it got."""
    return hashlib.sha256(body).hexdigest().encode()


async def read_answer(read: Callable[[], Awaitable[bytes]], buffer: bytearray, most: float = 60.0) -> Message:
    """The next answer; `buffer` keeps what comes after it. Raises Cut, Malformed, and TimeoutError."""
    async with asyncio.timeout(most):
        while True:
            try:
                message, rest = read_message(bytes(buffer))
            except IncompleteError:
                data = await read()
                if not data:
                    raise Cut(f"after {bytes(buffer[:80])!r}") from None
                buffer += data
                continue
            buffer[:] = rest
            return message


def frame(payload: bytes, *, masked: bool, closes: bool = False) -> bytes:
    """A WebSocket frame of at most `LONGEST_FRAME` bytes."""
    first = bytes([_CLOSE if closes else _TEXT])
    if not masked:
        return first + bytes([len(payload)]) + payload
    mask = os.urandom(4)
    return first + bytes([0x80 | len(payload)]) + mask + _masked(payload, mask)


def take_frame(buffer: bytearray) -> tuple[bool, bytes] | None:
    """The next frame, out of the buffer: whether it is a Close, and what it says; None while it is incomplete."""
    if len(buffer) < 2:
        return None
    masked, size = bool(buffer[1] & 0x80), buffer[1] & 0x7F
    start = 6 if masked else 2
    if len(buffer) < start + size:
        return None
    if buffer[0] not in (_TEXT, _CLOSE) or size > LONGEST_FRAME:
        raise ValueError(f"a frame that nobody sent: {bytes(buffer[:16])!r}")
    closes, payload = buffer[0] == _CLOSE, bytes(buffer[start : start + size])
    if masked:
        payload = _masked(payload, bytes(buffer[2:6]))
    del buffer[: start + size]
    return closes, payload


def _masked(payload: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


NORMAL = struct.pack(">H", 1000)

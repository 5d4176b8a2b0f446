"""A service of the soak, as a process that may be killed: `python -m tests.soak.service PORT FAULTS`.

It reads strictly, and writes a line into the file FAULTS for everything that is no proper request.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys
from pathlib import Path
from typing import cast

import uvloop

from tests.kit.http1 import IncompleteError, Malformed, Message, read_message
from tests.soak.wire import digest, frame, take_frame, text_of

# Seconds between the two pieces of an answer.
_PAUSE = 0.05
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def answer_of(message: Message) -> tuple[bytes, bool]:
    """The answer, and whether it comes in two pieces."""
    path, _, query = message.target.decode().partition("?")
    size, chunked, pieces = map(int, query.split("."))
    body = text_of(path.rpartition("/")[2], size)
    seen = {
        b"X-Seen-Tenant": message.one(b"x-tenant-id"),
        b"X-Seen-Target": message.target,
        b"X-Seen-Body": digest(message.body),
        b"X-Request-ID": message.one(b"x-request-id"),
    }
    lines = [b"HTTP/1.1 200 OK", *(b"%b: %b" % pair for pair in seen.items())]
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
        half = len(body) // 2
        chunks = [chunk for chunk in (body[:half], body[half:]) if chunk]
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    else:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", b""]) + body, bool(pieces)


class Connection(asyncio.Protocol):
    """One connection of the gateway's."""

    transport: asyncio.Transport

    def __init__(self, faults: Path) -> None:
        self._faults = faults
        self._buffer = bytearray()
        self._tunnel = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none of its subclasses

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            if self._tunnel:
                self._echo()
            else:
                self._read()
        except Exception as error:
            with self._faults.open("a") as file:
                file.write(f"{error!r} in {bytes(self._buffer[:300])!r}\n")
            self.transport.abort()

    def _read(self) -> None:
        try:
            message, rest = read_message(bytes(self._buffer))
        except IncompleteError:
            return
        if rest:
            raise Malformed("more than one request")
        self._buffer.clear()
        key = message.value(b"sec-websocket-key")
        if key is not None:
            self._upgrade(key, message)
            return
        answer, pieces = answer_of(message)
        if pieces:
            self.transport.write(answer[: len(answer) // 2])
            asyncio.get_running_loop().call_later(_PAUSE, self.transport.write, answer[len(answer) // 2 :])
        else:
            self.transport.write(answer)

    def _upgrade(self, key: bytes, message: Message) -> None:
        accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
        lines.append(b"Sec-WebSocket-Accept: " + accept)
        self.transport.write(b"\r\n".join([*lines, b"", b""]))
        self._tunnel = True

    def _echo(self) -> None:
        while (found := take_frame(self._buffer)) is not None:
            closes, payload = found
            self.transport.write(frame(payload, masked=False, closes=closes))
            if closes:
                self.transport.close()


async def serve(port: int, faults: Path) -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(faults), "127.0.0.1", port, backlog=4096, reuse_address=True
    )
    print("serves", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2])))

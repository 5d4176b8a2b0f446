"""The services behind the gateways: small and large answers, event streams, and tunnels that echo, in one loop each.

One is for honest clients and for what attackers take away from them; another one has the attackers' bulk, so that it
is the server under test that makes honest clients wait, and not its service.
"""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from multiprocessing import get_context
from typing import Any

import httptools
import uvloop
from servers import LARGE, LARGE_PATH, Cores

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_JSON = b'{"id":"01HZX","email":"a@example.com","name":"Ada","tenant":"acme"}'
EVENTS = 3000
EVENT = b"data: x\n\n"
_EVENT_PAUSE = 0.001


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


_SMALL = _answer(_JSON)
_LARGE = {name: _answer(b"x" * size) for name, size in ((b"60k", 60_000), (b"250k", 250_000), (b"5m", 5_000_000))}
_LARGE[LARGE_PATH.rpartition("/")[2].encode()] = _answer(bytes(LARGE))
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class _Exchange(asyncio.Protocol):
    """One connection. Answers come when the request's body is over, and pause while nobody takes them."""

    def __init__(self) -> None:
        self._parser: Any = httptools.HttpRequestParser(self)
        self._tunnel = False
        self._target = b""
        self._key = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._tunnel:
            self._transport.write(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._tunnel = True
            rest = data[upgrade.args[0] :]
            if rest:
                self._transport.write(rest)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_message_begin(self) -> None:
        self._target = self._key = b""

    def on_url(self, target: bytes) -> None:
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"sec-websocket-key":
            self._key = value

    def on_message_complete(self) -> None:
        if self._key:
            accept = b64encode(sha1(self._key + _GUID, usedforsecurity=False).digest())
            self._transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
            )
        elif self._target.endswith(b"/events"):
            self._task = asyncio.get_running_loop().create_task(self._events())
        else:
            self._transport.write(_LARGE.get(self._target.rpartition(b"/")[2], _SMALL))

    async def _events(self) -> None:
        self._transport.write(_STREAM)
        for _ in range(EVENTS):
            self._transport.write(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
            await asyncio.sleep(_EVENT_PAUSE)
        self._transport.write(b"0\r\n\r\n")


class Service:
    """The service on a port of its own, which is bound when this is made."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._server = self._loop.run_until_complete(
            self._loop.create_server(_Exchange, "127.0.0.1", 0, backlog=4096)
        )
        self.port: int = self._server.sockets[0].getsockname()[1]

    def run(self) -> None:
        """Serve until `stop` is called."""
        self._loop.run_forever()
        self._server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def stop(self) -> None:
        """End it, from any thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)


@contextmanager
def serving(cores: Cores, nice: int) -> Iterator[int]:
    """A service in a process of its own on the load's cores; its port."""
    made = Service()

    def body() -> None:
        os.nice(nice)
        os.sched_setaffinity(0, {int(core) for core in cores.load.split(",")})
        made.run()

    process = get_context("fork").Process(target=body, daemon=True)
    process.start()
    try:
        yield made.port
    finally:
        process.terminate()
        process.join()

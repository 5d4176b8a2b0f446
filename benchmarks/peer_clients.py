"""The project's own load over HTTP/1.1, for where wrk or h2load is missing: one process, one loop, kept connections.

    python benchmarks/peer_clients.py PORT CONNECTIONS SECONDS [--tls HOST] [--close] [--rate N] < REQUEST

It sends the request that stands on its standard input over and over and prints one object as JSON: `seconds` that it
took, `statuses` (how many answers had each), and with `--rate`, the requests a second of all connections together,
`times`: how long each answer took, in milliseconds. It is slower than wrk: what a figure of it tells of the server is
its processor time for each request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
import time
from collections import Counter
from typing import Any

import httptools
import uvloop


class Load:
    """What all clients share."""

    def __init__(self, options: argparse.Namespace, request: bytes) -> None:
        self.options = options
        self.request = request
        self.statuses: Counter[int] = Counter()
        self.times: list[float] = []
        self.over = False
        self.failure: Exception | None = None
        self.interval = options.connections / options.rate if options.rate else 0.0
        self._context = ssl.create_default_context() if options.tls else None
        if self._context is not None:
            self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE

    async def connect(self) -> Client:
        """A new connection, which asks at once."""
        loop = asyncio.get_running_loop()
        to = {"ssl": self._context, "server_hostname": self.options.tls}
        _, client = await loop.create_connection(lambda: Client(self), "127.0.0.1", self.options.port, **to)
        return client

    async def run(self) -> dict[str, Any]:
        """Load until the time is over; what came of it."""
        loop = asyncio.get_running_loop()
        clients = await asyncio.gather(*(self.connect() for _ in range(self.options.connections)))
        self.statuses.clear()
        self.times.clear()
        began = loop.time()
        await asyncio.sleep(self.options.seconds)
        took, self.over = loop.time() - began, True
        result = {"seconds": took, "statuses": dict(self.statuses), "times": self.times}
        for client in clients:
            client.abort()
        if self.failure is not None:
            raise self.failure
        return result


class Client(asyncio.Protocol):
    """One connection with one request under way."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._due = time.perf_counter()
        self._ask()

    def _ask(self) -> None:
        self._parser: Any = httptools.HttpResponseParser(self)
        self._asked = time.perf_counter()
        self._answered = False
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return
        self._answered = True
        load = self._load
        load.statuses[status] += 1
        if load.over:
            return
        if load.options.close:
            self._transport.abort()
        elif load.interval:
            now = time.perf_counter()
            load.times.append((now - self._asked) * 1000)
            self._due = max(self._due + load.interval, now)
            self._loop.call_later(self._due - now, self._ask)
        else:
            self._loop.call_soon(self._ask)

    def connection_lost(self, error: Exception | None) -> None:
        load = self._load
        if load.over:
            return
        if load.options.close and self._answered:
            self._task = self._loop.create_task(load.connect())
        else:
            load.failure = error or ConnectionError("the server has closed a connection")

    def abort(self) -> None:
        """Be gone."""
        self._transport.abort()


def main() -> int:
    """Parse the command line, load, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("port", type=int)
    parser.add_argument("connections", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--tls", metavar="HOST", help="over TLS, by this server name")
    parser.add_argument("--close", action="store_true", help="a connection for each request")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second; default: as fast as it goes")
    load = Load(parser.parse_args(), sys.stdin.buffer.read())
    print(json.dumps(uvloop.run(load.run())))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Well-behaved clients over HTTP/1.1 and WebSockets: each checks every byte that it gets."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from tests.kit.http1 import Malformed, Message
from tests.soak.ledger import Ledger
from tests.soak.wire import LARGE, LONGEST_FRAME, NORMAL, Ask, Cut, frame, new_token, read_answer, take_frame

# Seconds that anything may take that is not stuck; connecting too, while the gateway accepts nobody for a while.
_PATIENCE = 60.0
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_REFUSING = b"application/problem+json"
GUEST = "guest"


@dataclass
class Doors:
    """Where clients connect, and what they share. `think` is the mean time between two requests, in seconds; where it
    is 0 there is none. `steady` are tenants that are served at any time."""

    plain: int
    secure: int
    trust: ssl.SSLContext
    trust_http2: ssl.SSLContext
    ledger: Ledger
    services: tuple[str, ...]
    steady: tuple[str, ...]
    think: float
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def pause(self, rng: random.Random, factor: float = 1.0) -> None:
        """Think; not once the load ends."""
        await self.linger(rng.uniform(0, 2 * self.think) * factor)

    async def linger(self, seconds: float) -> None:
        """Wait so long, or until the load ends."""
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return


@dataclass
class Client:
    """One client: its number, its address, and its dice."""

    doors: Doors
    number: int
    rng: random.Random

    @property
    def source(self) -> str:
        """An address of its own, of loopback."""
        return f"127.1.{self.number // 250}.{1 + self.number % 250}"

    def ask(self, *, most: int = 4096, upload: int = 0) -> Ask:
        """A request of any kind."""
        rng, doors = self.rng, self.doors
        return Ask(
            new_token(),
            rng.choice(doors.steady),
            rng.choice(doors.services),
            rng.randrange(most),
            rng.randrange(1, upload) if upload and rng.random() < 0.3 else 0,
            rng.random() < 0.3,
            rng.random() < 0.2,
        )

    @asynccontextmanager
    async def connected(
        self, *, secure: bool = False, http2: bool = False, resets: bool = False
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection to the gateway, over TLS where it is `secure`; left, it is closed, by `resets` at once."""
        doors = self.doors
        options: dict[str, object] = {}
        if secure:
            context = doors.trust_http2 if http2 else doors.trust
            options = {"ssl": context, "server_hostname": f"{doors.steady[0]}.id.test"}
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1",
                doors.secure if secure else doors.plain,
                local_addr=(self.source, 0),
                limit=LARGE,
                **options,  # type: ignore[arg-type]
            )
        try:
            yield reader, writer
        finally:
            if resets:
                writer.transport.abort()
            else:
                writer.close()


def settle(ledger: Ledger, kind: str, ask: Ask, answer: Message, began: float) -> None:
    """Count an answer over HTTP/1.1: right, a refusal of the gateway's, or wrong."""
    if answer.value(b"content-type") != _REFUSING:
        fault = ask.fault(answer.status, answer.values, answer.body)
        if fault:
            ledger.wrong(kind, fault)
        else:
            ledger.answered(kind)
        return
    problem = answer.problem
    if problem["request_id"] != ask.token:
        ledger.wrong(kind, f"{ask.target} got the refusal of another: {problem}")
    else:
        ledger.missed(kind, problem["code"], ask, began, problem["detail"])


class Kept:
    """A connection of HTTP/1.1, which was begun at `alive`. After an answer that is when its request was sent: it may
    have ended any time since, unseen, however late the client reads what came before that."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, alive: float) -> None:
        self.reader = reader
        self.writer = writer
        self.buffer = bytearray()
        self.alive = alive


async def http1(client: Client) -> None:
    """Requests on kept connections, over TLS and plain, some of them pipelined, some with a body, and answers that
    are read slowly."""
    secure = client.number % 2 == 0
    kind = "HTTP/1.1 over TLS" if secure else "HTTP/1.1"
    began = time.monotonic()
    async with client.connected(secure=secure) as pair:
        kept = Kept(*pair, began)
        for _ in range(client.rng.randrange(2, 20)):
            count = client.rng.choice((1, 1, 1, 1, 1, 3))
            large = client.rng.random() < 0.05
            asks = [client.ask(most=LARGE if large else 4096, upload=LARGE if large else 8192) for _ in range(count)]
            if not await exchange(client, kind, asks, kept):
                return
            if client.doors.stopping.is_set():
                return
            await client.doors.pause(client.rng)


async def exchange(client: Client, kind: str, asks: list[Ask], kept: Kept) -> bool:
    """Send these at once, and check the answers in turn. False if the connection is of no more use."""
    ledger, began, alive = client.doors.ledger, time.monotonic(), kept.alive
    slowly = client.rng.random() < 0.02

    async def read() -> bytes:
        if slowly:
            await client.doors.linger(0.05)
        return await kept.reader.read(8192 if slowly else 1 << 16)

    waiting, present = list(asks), asks[0]
    try:
        kept.writer.write(b"".join(ask.encoded() for ask in asks))
        while waiting:
            present = waiting[0]
            answer = await read_answer(read, kept.buffer, _PATIENCE)
            settle(ledger, kind, waiting.pop(0), answer, began)
            if waiting and answer.values(b"connection") == [b"close"]:
                raise Cut("closed after an earlier answer")
    except (Cut, OSError) as error:
        # Those that wait behind an answer that is cut, or that ends the connection as the refusal of an upload does,
        # end with it, whatever their own service.
        for _ in waiting:
            ledger.missed(kind, "cut", present, alive, repr(error))
        return False
    except (Malformed, TimeoutError, AssertionError) as error:
        ledger.wrong(kind, f"{waiting[0].target}: {error!r}")
        return False
    kept.alive = began
    return answer.values(b"connection") != [b"close"]


async def websocket(client: Client) -> None:
    """A WebSocket, whose messages come back, and whose end is answered."""
    kind, doors = "WebSocket", client.doors
    ask, began = client.ask(), time.monotonic()
    async with client.connected(secure=client.number % 2 == 0) as (reader, writer):
        lines = [f"GET /{ask.service}/{ask.token} HTTP/1.1", f"Host: {ask.host}", f"X-Request-ID: {ask.token}"]
        lines += [
            "Connection: Upgrade",
            "Upgrade: websocket",
            f"Sec-WebSocket-Key: {_KEY}",
            "Sec-WebSocket-Version: 13",
        ]
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode())
            async with asyncio.timeout(_PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101 "):
                buffer = bytearray(head)
                answer = await read_answer(lambda: reader.read(1 << 16), buffer, _PATIENCE)
                settle(doors.ledger, kind, ask, answer, began)
                return
            await _messages(client, ask, reader, writer)
        except (Cut, OSError, asyncio.IncompleteReadError) as error:
            doors.ledger.missed(kind, "cut", ask, began, repr(error))
        except (Malformed, TimeoutError, ValueError) as error:
            doors.ledger.wrong(kind, f"{ask.target}: {error!r}")


async def _messages(client: Client, ask: Ask, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    buffer = bytearray()
    for number in range(client.rng.randrange(1, 12)):
        size = client.rng.randrange(40, LONGEST_FRAME)
        said = f"{ask.token} {number} ".encode().ljust(size, b"w")
        writer.write(frame(said, masked=True))
        if await _next(reader, buffer) != (False, said):
            raise ValueError(f"message {number} did not come back")
        client.doors.ledger.answered("WebSocket")
        await client.doors.pause(client.rng)
        if client.doors.stopping.is_set():
            break
    writer.write(frame(NORMAL, masked=True, closes=True))
    if await _next(reader, buffer) != (True, NORMAL):
        raise ValueError("the Close frame was not answered")


async def _next(reader: asyncio.StreamReader, buffer: bytearray) -> tuple[bool, bytes]:
    async with asyncio.timeout(_PATIENCE):
        while (found := take_frame(buffer)) is None:
            data = await reader.read(4096)
            if not data:
                raise Cut("within a WebSocket")
            buffer += data
    return found


async def guest(client: Client) -> None:
    """Requests of a tenant that is suspended now and then."""
    began = time.monotonic()
    async with client.connected() as pair:
        kept = Kept(*pair, began)
        for _ in range(10):
            ask = replace(client.ask(), tenant=GUEST)
            if not await exchange(client, "guest", [ask], kept) or client.doors.stopping.is_set():
                return
            await client.doors.pause(client.rng)

"""The clients of the soak, in an event loop and a thread of their own."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import uvloop

from tests.soak import honest, honest_http2, rude
from tests.soak.honest import Client, Doors

Role = Callable[[Client], Awaitable[None]]

# Each role with its part of a hundred connections.
ROLES: tuple[tuple[int, Role], ...] = (
    (42, honest.http1),
    (14, honest_http2.http2),
    (12, honest.websocket),
    (3, honest.guest),
    (8, rude.slow),
    (12, rude.aborting),
    (9, rude.malformed),
)
# Kinds of well-behaved clients, as the ledger names them.
KINDS = frozenset(("HTTP/1.1", "HTTP/1.1 over TLS", honest_http2.KIND, "WebSocket"))
_HONEST = (honest.http1, honest_http2.http2, honest.websocket, honest.guest)


def roles(count: int) -> list[Role]:
    """What each of so many connections does: the parts hold for any hundred in a row."""
    hundred = [role for part, role in ROLES for _ in range(part)]
    # 37 and 100 have no common divisor, so each role is spread over the hundred.
    return [hundred[number * 37 % 100] for number in range(count)]


class Load:
    """So many clients, which begin within `ramp` seconds. A context manager: left, all have ended, each after what it
    was doing."""

    def __init__(self, doors: Doors, count: int, seed: int, ramp: float = 0.0) -> None:
        self._doors = doors
        self._count = count
        self._seed = seed
        self._ramp = ramp
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._doors.stopping.set)
        self._thread.join()

    def _run(self) -> None:
        # It warns of each byte that is sent on a connection that the other side has closed.
        logging.getLogger("asyncio").setLevel(logging.ERROR)
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(self._failed)
        try:
            self._loop.run_until_complete(self._all())
            # Connections that were closed end in the loop's next turns.
            self._loop.run_until_complete(asyncio.sleep(0.1))
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    def _failed(self, loop: object, context: dict[str, object]) -> None:
        error = context.get("exception")
        # A connection that ends without close_notify, or within its shutdown, is the other side's matter.
        if not isinstance(error, OSError | TimeoutError):
            self._doors.ledger.wrong("load", repr(context))

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number, role in enumerate(roles(self._count)):
                group.create_task(self._live(number, role))

    async def _live(self, number: int, role: Role) -> None:
        doors = self._doors
        client = Client(doors, number, random.Random(self._seed * 1_000_003 + number))
        await doors.linger(client.rng.uniform(0, self._ramp))
        while not doors.stopping.is_set():
            began = time.monotonic()
            try:
                await role(client)
            except (OSError, TimeoutError) as error:
                if role in _HONEST:
                    doors.ledger.missed(role.__name__, "cut", None, began, f"no connection: {error!r}")
            except Exception as error:
                doors.ledger.wrong(role.__name__, repr(error))
            await doors.pause(client.rng)

"""Well-behaved clients over HTTP/2, by the library h2: several streams at once on kept connections."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from tests.soak.honest import Client
from tests.soak.ledger import Ledger
from tests.soak.wire import Ask, Cut

_PATIENCE = 60.0
KIND = "HTTP/2"
Fields = list[tuple[bytes, bytes]]


@dataclass
class _Stream:
    """One exchange, as far as it has come."""

    ask: Ask
    began: float
    fields: Fields = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)

    def values(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.fields if each == name]

    def settle(self, ledger: Ledger) -> None:
        """Count the answer, which is complete."""
        if self.values(b"content-type") != [b"application/problem+json"]:
            fault = self.ask.fault(int(self.values(b":status")[0]), self.values, bytes(self.body))
            if fault:
                ledger.wrong(KIND, fault)
            else:
                ledger.answered(KIND)
            return
        problem = json.loads(bytes(self.body))
        if problem["request_id"] != self.ask.token:
            ledger.wrong(KIND, f"{self.ask.target} got the refusal of another: {problem}")
        else:
            ledger.missed(KIND, problem["code"], self.ask, self.began, problem["detail"])


class _Connection:
    """The client's side of one connection, which was begun at `alive`."""

    def __init__(
        self, client: Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, alive: float
    ) -> None:
        self._ledger = client.doors.ledger
        self._reader, self._writer = reader, writer
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        self._streams: dict[int, _Stream] = {}
        # When the last requests that were answered had been sent: it may have ended any time since, unseen.
        self._alive = alive
        self.usable = True

    async def exchange(self, asks: list[Ask]) -> None:
        """Ask all of these at once, and check what comes."""
        began = time.monotonic()
        for ask in asks:
            self._begin(ask, began)
        try:
            self._writer.write(self._h2.data_to_send())
            async with asyncio.timeout(_PATIENCE):
                while self._streams:
                    data = await self._reader.read(1 << 16)
                    if not data:
                        raise Cut("the connection")
                    self._take(data)
            self._alive = began
        except (Cut, OSError) as error:
            self._lose(repr(error))
        except (h2.exceptions.ProtocolError, TimeoutError, ValueError) as error:
            self.usable = False
            self._ledger.wrong(KIND, f"{[each.ask.target for each in self._streams.values()]}: {error!r}")

    def _begin(self, ask: Ask, began: float) -> None:
        stream = self._h2.get_next_available_stream_id()
        head = [(":method", ask.method), (":scheme", "https"), (":path", ask.target), (":authority", ask.host)]
        self._h2.send_headers(stream, [*head, ("x-request-id", ask.token)], end_stream=not ask.upload)
        if ask.upload:
            self._h2.send_data(stream, ask.body, end_stream=True)
        self._streams[stream] = _Stream(ask, began)

    def _take(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self._streams[event.stream_id].fields = list(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                self._streams[event.stream_id].body += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self._streams.pop(event.stream_id).settle(self._ledger)
            elif isinstance(event, h2.events.StreamReset):
                stream = self._streams.pop(event.stream_id)
                self._ledger.missed(KIND, "cut", stream.ask, stream.began, f"reset: {event.error_code}")
            elif isinstance(event, h2.events.ConnectionTerminated):
                self._lose(f"GOAWAY: {event.error_code}")
        self._writer.write(self._h2.data_to_send())

    def _lose(self, why: str) -> None:
        self.usable = False
        for stream in self._streams.values():
            self._ledger.missed(KIND, "cut", stream.ask, self._alive, why)
        self._streams.clear()


async def http2(client: Client) -> None:
    """Batches of streams on one connection."""
    began = time.monotonic()
    async with client.connected(secure=True, http2=True) as (reader, writer):
        connection = _Connection(client, reader, writer, began)
        for _ in range(client.rng.randrange(2, 12)):
            large = client.rng.random() < 0.05
            count = client.rng.randrange(1, 7)
            await connection.exchange([client.ask(most=65536 if large else 4096, upload=8192) for _ in range(count)])
            if not connection.usable or client.doors.stopping.is_set():
                return
            await client.doors.pause(client.rng, count)

"""What the gateway tells its exporter, and the exporter the gateway: messages on a stream, each after its length.

The gateway sends `Terms` once, then an `ExchangeRecord` for each sampled exchange. The exporter answers with
`Progress`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

import msgspec

T = TypeVar("T")

# Bytes of the length before each message, which is big-endian.
HEADER: Final = 4


class Terms(msgspec.Struct, array_like=True):
    """Where spans go, and as whose. `url` is the whole one, `timeout` seconds for each request to the collector. `ca`
    is a PEM file, "" for the system's authorities. `resource` are the attributes of this process."""

    url: str
    headers: list[tuple[str, str]]
    ca: str
    timeout: float
    resource: list[tuple[str, str]]


class AttemptRecord(msgspec.Struct, array_like=True):
    """One attempt at a service; see `exchange.trace.Attempt`."""

    span: bytes
    url: str
    begun: float
    ended: float
    fault: str


class ExchangeRecord(msgspec.Struct, array_like=True):
    """One exchange. `offset` turns its monotonic seconds into those since the epoch; `answered` is when the head of
    the service's response came (0: never). The path has no query; what else a client chose is as it came."""

    trace_id: bytes
    span: bytes
    parent: bytes
    flags: int
    offset: float
    started: float
    answered: float
    ended: float
    method: bytes
    path: bytes
    route: bytes
    host: bytes
    secure: bool
    protocol: str
    client: bytes
    tenant: bytes
    request_id: bytes
    service: str
    status: int
    code: str
    bytes_in: int
    bytes_out: int
    attempts: list[AttemptRecord]

    @property
    def spans(self) -> int:
        """How many spans it is."""
        return 1 + len(self.attempts)


class Progress(msgspec.Struct, array_like=True):
    """What has become of spans since the last message. `lost` were refused by the collector, or given up; `failures`
    are requests to it that failed. `fault` is why they do now, "" once one has succeeded, None where nothing has
    changed.
    """

    exported: int = 0
    lost: int = 0
    failures: int = 0
    fault: str | None = None


_encoder: Final = msgspec.msgpack.Encoder()


def framed(message: msgspec.Struct) -> bytes:
    """A message with its length before it."""
    data = _encoder.encode(message)
    return len(data).to_bytes(HEADER, "big") + data


class Messages(Generic[T]):
    """Takes a stream apart into messages of one type; `longest` is the most bytes that one may have."""

    def __init__(self, kind: type[T], longest: int) -> None:
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._longest = longest
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[T]:
        """The messages that are complete with these bytes. Raises ValueError where they are none."""
        self._buffer += data
        while len(self._buffer) >= HEADER:
            size = int.from_bytes(self._buffer[:HEADER], "big")
            if size > self._longest:
                raise ValueError("a message is too long")
            if len(self._buffer) < HEADER + size:
                return
            body = bytes(self._buffer[HEADER : HEADER + size])
            del self._buffer[: HEADER + size]
            yield self._decoder.decode(body)

"""Messages between a gateway and its helper processes: msgpack on a stream, each after its length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

import msgspec

T = TypeVar("T")

# Bytes of the length before each message, which is big-endian.
HEADER: Final = 4

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


def first_message(receive: Callable[[int], bytes], kind: type[T], longest: int) -> T | None:
    """The first message, and not a byte more; None if the stream ends before it. `receive` returns at most so many
    bytes, none at the end. Raises ValueError where there is another message."""
    header = _exactly(receive, HEADER)
    size = int.from_bytes(header, "big")
    # A longer one is refused by its header alone.
    data = _exactly(receive, size) if size <= longest else b""
    return next(Messages(kind, longest).feed(header + data), None)


def _exactly(receive: Callable[[int], bytes], size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = receive(size - len(data))
        if not more:
            return b""
        data += more
    return data

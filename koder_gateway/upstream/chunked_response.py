"""A chunked response: decoded a slice of work a turn, however small its chunks are.

While bytes wait here for a later turn, their connection reads nothing more. They go on when their turn comes and the
client takes them; if the connection is lost before that, at once.
"""

from __future__ import annotations

from typing import Final, Protocol

from ..exchange.ports import Producer
from ..exchange.states import INVALID
from ..reactor.turns import Turns
from ..wire.body import BodyError, ChunkedDecoder
from ..wire.response import ResponseHead
from .ports import ResponseReceiver

# Chunks that are decoded before the clock is looked at.
_CHUNKS: Final = 256


class ChunkSource(Producer, Protocol):
    """The connection that a chunked response comes from. `paused`: the client does not take the response."""

    paused: bool

    def hold(self) -> None:
        """Read nothing more for the time being."""

    def read_on(self) -> None:
        """Read more, unless the client does not take it."""

    def chunks_ended(self, relay: ResponseReceiver, trailers: list[bytes], surplus: bool) -> None:
        """The last chunk has been decoded; `surplus`: bytes came behind it."""


class ChunkedResponse:
    """Belongs to a connection until the response's end. `holding`: bytes wait here, so it does not read."""

    __slots__ = ("_asked", "_at", "_connection", "_decoder", "_relay", "_turns", "_unread", "holding")

    def __init__(
        self, connection: ChunkSource, relay: ResponseReceiver, decoder: ChunkedDecoder, turns: Turns | None
    ) -> None:
        self._connection = connection
        self._relay = relay
        self._decoder = decoder
        self._turns = turns
        self._unread = b""
        self._at = 0
        self._asked = False
        self.holding = False

    def begin(self, head: ResponseHead, data: bytes) -> None:
        """The response's head, and what came with it. Where the first of that is broken, nothing is passed on."""
        if data:
            self._decode(data, 0, whole=False, head=head)
        else:
            self._relay.answered(head, b"", False, False)

    def feed(self, data: bytes) -> None:
        """More of the response."""
        if self._unread:
            # The transport had it already when it was told to read no more.
            self._unread = self._unread[self._at :] + data
            self._at = 0
        else:
            self._decode(data, 0, whole=False)

    def _decode(self, data: bytes, position: int, *, whole: bool, head: ResponseHead | None = None) -> None:
        """Pass on what there is; unless it has to be the `whole`, as much as a slice of this turn is worth. `head` is
        passed on before it, where that has not been done."""
        connection, relay, decoder, turns = self._connection, self._relay, self._decoder, self._turns
        until = 0.0
        while True:
            try:
                payload = decoder.feed(data, position, _CHUNKS)
            except BodyError as error:
                relay.failed(INVALID, str(error))
                return
            position = decoder.taken
            if head is not None:
                relay.answered(head, payload, False, False)
                head = None
            elif payload:
                relay.body(payload)
            if relay.connection is not connection:
                return
            if decoder.done:
                connection.chunks_ended(relay, decoder.trailers, bool(decoder.rest))
                return
            if position == len(data):
                return
            if whole or turns is None:
                continue
            if not until:
                until = turns.slice()
            if connection.paused or turns.time() >= until:
                self._wait(data, position)
                return

    def _wait(self, data: bytes, position: int) -> None:
        self._unread = data
        self._at = position
        if not self.holding:
            self.holding = True
            if not self._connection.paused:
                self._connection.hold()
        self.go_on()

    def go_on(self) -> bool:
        """Whether bytes wait here: they are passed on in a later turn, if the client takes them."""
        if self._unread and not self._asked and not self._connection.paused and self._turns is not None:
            self._asked = True
            self._turns.later(self._take_turn)
        return self.holding

    def _take_turn(self) -> None:
        self._asked = False
        connection = self._connection
        if self._relay.connection is not connection or connection.paused:
            return
        data, self._unread = self._unread, b""
        self._decode(data, self._at, whole=False)
        if not self._unread and self.holding and self._relay.connection is connection:
            self.holding = False
            connection.read_on()

    def read_all(self) -> bool:
        """The connection is lost: pass on all that waits. Returns whether that was the response's end."""
        data, self._unread = self._unread, b""
        self.holding = False
        if data:
            self._decode(data, self._at, whole=True)
        return self._relay.connection is not self._connection

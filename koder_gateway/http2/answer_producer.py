"""The producer of an HTTP/2 stream's response: paused while too much waits, and asked for more when that can be
sent."""

from __future__ import annotations

from typing import Final, Protocol

from ..exchange.ports import Producer
from .frame_scheduler import Sender
from .ports import Connection

# The service is paused while more than this waits for the client's windows.
HIGH: Final = 65536
# Where much waits on the connection already, a service goes on if so much leaves at once: one of which no more is
# read than that, and another.
_EXACT: Final = 512
LITTLE: Final = 16384


class HeldAnswer(Protocol):
    """A request whose service may be paused before it has begun to answer."""

    def hold_answer(self) -> None:
        """There is no room any more."""


class SendingStream(Protocol):
    """A stream, as its sending side sees it. `request` is None once the exchange is over."""

    connection: Connection
    number: int
    request: HeldAnswer | None

    def answered(self) -> None:
        """Everything is sent."""

    def over(self, code: int | None) -> None:
        """The stream is closed; with a code the client is told."""


class AnswerProducer(Sender):
    """Base of a stream's sending side, which sets all attributes: those here are of whoever produces the response.

    `window` is what the client takes of the stream, in bytes; `waiting` the body that waits for it, and
    `_waiting_size` how many bytes that is.
    """

    __slots__ = (
        "_asked",
        "_connection",
        "_exact",
        "_producer",
        "_producer_paused",
        "_pulled",
        "_stream",
        "_waiting_size",
        "closed",
        "listed",
        "waiting",
        "window",
    )

    window: int
    waiting: list[bytes | memoryview]
    # None once the stream is over.
    _stream: SendingStream | None
    _connection: Connection
    _waiting_size: int
    # Who is paused while much waits. `_pulled`: it is asked for each piece; `_asked`: that is about to be done.
    _producer: Producer | None
    _producer_paused: bool
    _pulled: bool
    _asked: bool
    # Whether no more is read of its service than leaves at once.
    _exact: bool

    @property
    def goes_on(self) -> bool:
        """Whether more of the response may be read: where much waits on the connection, what leaves at once."""
        out = self._connection.out
        if not out.full:
            return True
        if self.waiting or out.blocked or (out.choked and not self._exact):
            return False
        needed = min(_EXACT if self._exact else LITTLE, out.initial_window)
        return min(self.window, out.window, out.space) >= max(1, needed)

    def follow(self, producer: Producer, streaming: bool) -> None:
        """Pause and resume `producer` as the client takes the response. A pull producer (not streaming) is asked for
        more."""
        if producer is self._producer:
            # A relay's connection, which is a tunnel's now.
            return
        self._producer = producer
        self._pulled = not streaming
        if self._connection.out.full:
            self._bound()
        self._producer_paused = self._waiting_size > HIGH or not self.goes_on
        if self._pulled:
            if not self._producer_paused:
                self._ask()
        elif self._producer_paused:
            producer.pauseProducing()

    def unfollow(self) -> None:
        """The producer is done."""
        self._producer = None

    def pause(self) -> None:
        """Too much waits here, or on the connection: pause the producer."""
        if self._producer is None:
            if self._stream is not None and self._stream.request is not None:
                self._stream.request.hold_answer()
        elif not self._producer_paused:
            self._producer_paused = True
            if not self._pulled:
                self._producer.pauseProducing()

    def restrain(self) -> None:
        """Much waits on the connection: read only what leaves at once."""
        self._bound()
        if self._producer is None or not self.goes_on:
            # For a service that has not begun to answer `follow` decides, from now on.
            self.pause()

    def _bound(self) -> None:
        bound = getattr(self._producer, "read_what_fits", None)
        self._exact = bound is not None and bound()

    def resume(self) -> None:
        """The connection may have room again."""
        if not self.waiting:
            self._refill()

    def _refill(self) -> None:
        """Nothing waits any more: resume the producer."""
        if self._producer_paused and self._producer is not None and self.goes_on:
            self._producer_paused = False
            if self._pulled:
                self._ask()
            else:
                self._producer.resumeProducing()

    def _ask(self) -> None:
        """Ask a pull producer for more in the next turn; once, even if another one is registered by then."""
        if not self._asked:
            self._asked = True
            self._connection.site.soon(self._pull)

    def _pull(self) -> None:
        self._asked = False
        if self._producer is not None and self._pulled and not self._producer_paused:
            self._producer.resumeProducing()
            if self._producer is not None and not self._producer_paused:
                self._ask()

"""The ports of an exchange: what its two sides ask of each other. A class that implements one inherits from it.

An exchange has a client's side (`Client`). While a request's body or a tunnel is open, a `BodySink` takes what the
client sends. Neither knows the other's class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..errors import Refusal
from ..wire.response import ResponseHead
from .states import Exchange


class Producer(Protocol):
    """A push producer, as `twisted.internet.interfaces.IPushProducer` describes it."""

    __slots__ = ()

    def pauseProducing(self) -> None:
        """Produce no more for the time being."""

    def resumeProducing(self) -> None:
        """Produce again."""

    def stopProducing(self) -> None:
        """Produce no more, ever."""


class BodySink(Protocol):
    """What takes a request's body as it arrives, or the raw bytes of a tunnel."""

    __slots__ = ()

    @property
    def streams(self) -> bool:
        """Whether it passes on what arrives; else it keeps the body until that is complete."""

    @property
    def connection(self) -> Producer | None:
        """The connection to the service; None where there is none, or not yet."""

    def body_room(self) -> int:
        """Bytes that are passed on at once. Asked only of one that `streams`."""

    def body_received(self, data: bytes, /) -> None:
        """More of the body, not empty."""

    def body_ended(self, trailers: list[bytes]) -> None:
        """The body is complete."""

    def client_leaves(self) -> None:
        """The client has closed its side, and not all of what it sent before has been read. Does nothing where that
        makes no difference."""

    def client_failed(self, event: str) -> None:
        """The client is gone, or its body is late, broken or too large."""

    def abandon(self) -> None:
        """Release the connection to the service; the caller ends the exchange."""


class Client(Protocol):
    """The client's side of an exchange. Each method may end the client's connection, none raises.

    `body` is the part of the request's body that came with its head, or before the exchange was let pass;
    `body_done`: it is the whole body, with `trailers` behind it. `sink` takes what the client sends: who waits for a
    decision about the exchange, the relay, or a tunnel once protocols are switched.
    """

    exchange: Exchange
    body: bytes
    body_done: bool
    trailers: list[bytes]
    sink: BodySink | None

    @property
    def connects(self) -> bool:
        """Whether a 2xx would tell the client that a tunnel is open (RFC 9110 section 9.3.6). Asked only of a client
        whose `exchange.head.upgrade` is not None."""

    @property
    def crowded(self) -> bool:
        """Whether so many clients wait that only as much of a response is read as there is room for."""

    @property
    def paused_early(self) -> bool:
        """Whether there is no room for a response at present: it is then held back before it begins."""

    def respond(self, head: ResponseHead, body: bytes, done: bool) -> None:
        """Send the final response's head, and the part of its body that is here; `done`: that is all of it."""

    def send_body(self, data: bytes) -> None:
        """Send more of the response's body."""

    def end_body(self, trailers: list[bytes]) -> None:
        """The response is complete."""

    def now(self) -> float:
        """Monotonic seconds, by the clock by which the exchange has begun."""

    def interim(self, head: ResponseHead) -> None:
        """Send an interim response (1xx) where the client understands them."""

    def ask_for_body(self) -> None:
        """Send a 100 to a client that waits for it before it sends its body (RFC 9110 section 10.1.1), once."""

    def switch(self, head: ResponseHead, data: bytes) -> None:
        """The service has switched to `head.upgrade`: send that, with `data` as the first raw bytes behind it.

        Asked only of a client whose `exchange.head.upgrade` is not None. From here on the `raw_writer` sends raw
        bytes to the client, and `end_body` says that no more will come. The client's own raw bytes go to
        `sink.body_received`, those first that have waited, and its end to `sink.body_ended`. The exchange is over
        when its phase is ENDED; the client's side checks that whenever either direction has ended.
        """

    def raw_writer(self) -> Callable[[bytes], None]:
        """What sends raw bytes to the client, and counts them, until the exchange is over."""

    def refuse(self, refusal: Refusal) -> None:
        """Respond with a refusal; no response has begun."""

    def cut(self, *, at_once: bool = False) -> None:
        """End the response so that it is seen to be incomplete; `at_once`: what was sent may be lost."""

    def taking(self) -> bool:
        """Whether something waits for the client, and the client takes it fast enough."""

    def room(self) -> int:
        """Bytes of a response that can be sent at once, at present; 0 where that is not known."""

    def stream_from(self, producer: Producer) -> None:
        """Pause and resume `producer` as the client takes the response. Called when the response's head has been
        passed on; and earlier, as soon as the request has been sent, where the client is `paused_early`."""

    def pause_body(self) -> None:
        """Take no more of the request's body from the client."""

    def resume_body(self) -> None:
        """Take the request's body again."""

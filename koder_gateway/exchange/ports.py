"""The ports of an exchange: what its two sides ask of each other. Whoever implements one inherits from it.

An exchange has a client's side (`Client`) and, while a body or a tunnel is under way, somebody who takes what the
client sends (`BodySink`). Neither knows the other's class.
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
    """Whoever takes a request's body as it arrives, or the raw bytes of a tunnel."""

    __slots__ = ()

    @property
    def streams(self) -> bool:
        """Whether what arrives is passed on; else it is kept here until the body is complete."""

    @property
    def connection(self) -> Producer | None:
        """The connection to the service; None where there is none, or not yet."""

    def body_room(self) -> int:
        """Bytes that are passed on at once. Asked only of one that `streams`."""

    def body_received(self, data: bytes, /) -> None:
        """More of the body, not empty."""

    def body_ended(self, trailers: list[bytes]) -> None:
        """The body is complete."""

    def client_failed(self, event: str) -> None:
        """The client is gone, or its body is late, broken or too large."""

    def abandon(self) -> None:
        """Let go of everything; whoever asks for this ends the exchange."""


class Client(Protocol):
    """The side of an exchange that asked. Each method may end the client's connection, none raises.

    `body` is what of the request's body was there when the exchange began; `body_done`: that is all, with `trailers`.
    `sink` takes what the client sends: the relay, and once protocols have been switched a tunnel.
    """

    exchange: Exchange
    body: bytes
    body_done: bool
    trailers: list[bytes]
    sink: BodySink | None

    @property
    def connects(self) -> bool:
        """Whether a 2xx would tell it that a tunnel stands (RFC 9110 section 9.3.6). Asked only of a client whose
        `exchange.head.upgrade` is not None."""

    @property
    def crowded(self) -> bool:
        """Whether so many clients wait that no more is read of an answer than there is room for."""

    @property
    def paused_early(self) -> bool:
        """Whether it has no room for an answer at present, which is then held back before it begins."""

    def respond(self, head: ResponseHead, body: bytes, done: bool) -> None:
        """Send the final answer's head with what there is of its body; `done` when that is all."""

    def send_body(self, data: bytes) -> None:
        """Send more of the answer's body."""

    def end_body(self, trailers: list[bytes]) -> None:
        """The answer is complete."""

    def interim(self, head: ResponseHead) -> None:
        """Send an interim answer (1xx) where the client understands them."""

    def switch(self, head: ResponseHead, data: bytes) -> None:
        """The service has switched to `head.upgrade`: send that, with `data` as the first raw bytes behind it.

        Asked only of a client whose `exchange.head.upgrade` is not None. From here on the `raw_writer` carries raw
        bytes and `end_body` says that no more will come, while the client may still send: raw bytes by
        `sink.body_received`, those first that have waited, and its end by `sink.body_ended`. The exchange is over
        when its phase is ENDED, which a client looks at after each end that it tells or is told of.
        """

    def raw_writer(self) -> Callable[[bytes], None]:
        """What sends raw bytes to the client, and counts them, until the exchange is over."""

    def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal; nothing has been sent before."""

    def cut(self, *, at_once: bool = False) -> None:
        """End the client's message so that it is seen to be incomplete; `at_once`: what was sent may be lost."""

    def taking(self) -> bool:
        """Whether something waits for the client, and it takes that as fast as it has to."""

    def room(self) -> int:
        """Bytes of an answer that go on their way to it at once, at present; 0 where that is not known."""

    def stream_from(self, producer: Producer) -> None:
        """Pause and resume `producer` as the client takes the answer. Called when the answer's head has been passed
        on; and before, where the client is `paused_early`, as soon as the request has been sent."""

    def pause_body(self) -> None:
        """Take no more of the request's body from the client."""

    def resume_body(self) -> None:
        """Take the request's body again."""

"""What the services' side needs from an exchange. Every implementer of one of these inherits from it.

Capacity, pool and connection know an exchange by these alone, so that imports point one way: relay -> pool ->
connection -> connection_reader -> here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..exchange.ports import Client, Producer
from ..exchange.states import Exchange
from ..reactor.turns import Turns
from ..wire.clock import CoarseClock
from ..wire.response import ResponseHead, ResponseReader


class Forwarded(Protocol):
    """An exchange that is forwarded to a service. `deadline` is monotonic seconds, checked by the sweep."""

    __slots__ = ()

    client: Client
    exchange: Exchange
    deadline: float

    def failed(self, event: str, detail: str = "") -> None:
        """It cannot go on: `event` is one of `exchange.states`."""

    def expired(self) -> None:
        """The deadline has passed."""


class PlaceSeeker(Forwarded, Protocol):
    """One that needs a place at the service."""

    __slots__ = ()

    def waits(self, deadline: float) -> None:
        """There is none yet: the exchange has to wait, until then at most."""

    def granted(self) -> None:
        """A place is free for the exchange that has waited for one."""


class ResponseReceiver(Forwarded, Protocol):
    """One whose response a connection reads. Each method may let go of the connection."""

    __slots__ = ()

    @property
    def connection(self) -> Producer | None:
        """The connection that it has now."""

    def may_repeat(self) -> bool:
        """Whether the request can be sent once more, and does no harm where the service has had it already."""

    def interim(self, head: ResponseHead) -> None:
        """An interim response (1xx) has come."""

    def answered(self, head: ResponseHead, body: bytes, done: bool, keep_alive: bool) -> None:
        """The head of the final response has come, with the beginning of its body. Where that is all of it (`done`),
        `keep_alive` says whether the connection can serve another exchange."""

    def body(self, data: bytes) -> None:
        """More of the response's body."""

    def ended(self, trailers: list[bytes], keep_alive: bool) -> None:
        """The response is complete."""

    def switched(self, head: ResponseHead, data: bytes) -> None:
        """The service has switched protocols as it was asked to; `data` came behind its 101."""

    def progressed(self) -> None:
        """One side has taken what the other sent."""


class TunnelEnd(Protocol):
    """The tunnel that has taken the place of an exchange whose protocols were switched. `body` takes raw bytes."""

    __slots__ = ()

    client: Client
    body: Callable[[bytes], None]

    def ended(self, *, gone: bool) -> None:
        """The service sends no more; `gone`: nor does it read."""

    def failed(self, detail: str, *, reset: bool) -> None:
        """The connection was cut; `reset`: by the service, else TLS has ended without close_notify."""

    def progressed(self) -> None:
        """One side has taken what the other sent."""


class RespondingService(Protocol):
    """A service as the reader of its responses sees it."""

    __slots__ = ()

    reader: ResponseReader
    clock: CoarseClock
    turns: Turns | None

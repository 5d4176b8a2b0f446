"""What the parts of the clients' side need from each other: from the site, a connection, a request and its channel.

Every implementer of a Protocol inherits from it. So the site does not know which protocols it serves, and no package
of one way in knows that of another.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.python.failure import Failure
from twisted.web.resource import IResource

from ..errors import Refusal
from ..exchange.context import RequestContext
from ..exchange.known_contexts import KnownContexts
from ..exchange.pending import Outcome
from ..exchange.ports import Client, Producer
from ..exchange.states import Exchange
from ..policy.certificates import TlsInfo
from ..policy.decision import Policy
from ..reactor.resets import ResetWatcher
from ..reactor.turns import Turns
from ..wire.clock import CoarseClock
from ..wire.request_reader import RequestReader
from .buffered import Buffered
from .limits import ClientTimeouts


class Segments(Protocol):
    """A path as stock resources descend by it: the segments behind and those ahead."""

    prepath: list[bytes]
    postpath: list[bytes]


class TreeClient(Client, Protocol):
    """The client's side of an exchange, as the resource tree sees it."""

    def answer(self, status: int, reason: bytes, fields: bytes, body: bytes) -> None:
        """Send a response of the gateway itself and end the exchange."""

    def hand_over(self) -> Segments:
        """A mounted resource answers: the request that it gets."""

    def go_on(self, resource: IResource) -> None:
        """Have what the tree has from `resource` on answer, now that the request has waited. Raises nothing."""

    def give_up(self, refusal: Refusal, code: str = ...) -> None:
        """The gateway stops waiting. `code` is that of a response which has begun and is cut."""


class TreeRequest(Segments, Protocol):
    """A request on its way through the tree: one of the gateway's own, or one that `SiteAdapter` has let in."""

    @property
    def gateway(self) -> TreeClient:
        """The client's side of its exchange."""


class Guarding(Protocol):
    """A resource that takes a step of `exchange.admission` before what it wraps."""

    inner: IResource

    @abstractmethod
    def admit(self, exchange: Exchange) -> Outcome:
        """Why this exchange goes no further, or does not yet; None lets it pass."""


class Descending(Protocol):
    """A resource that knows by the raw path who answers."""

    @abstractmethod
    def descend(self, client: TreeClient) -> IResource:
        """Who answers at the client's path."""


class Forwarding(Protocol):
    """A resource that forwards an exchange to a service."""

    @abstractmethod
    def forward_exchange(self, client: TreeClient) -> None:
        """Begin to forward it."""


class ClientRequest(TreeClient, Protocol):
    """A request that has begun and not ended, as the site sees it. `postpath` is None until it is handed over."""

    postpath: list[bytes] | None

    def render_stock(self, resource: IResource) -> None:
        """Have an ordinary resource render, once the whole body is there."""

    def expire(self) -> None:
        """The whole exchange has had its time."""


class ClientConnection(Protocol):
    """A client's connection, as the site sees it. `deadline` is monotonic seconds; `peer` is the client's address."""

    deadline: float
    peer: str

    @property
    def waiting(self) -> int:
        """Bytes of responses that wait here for the client, beside those that its transport holds."""

    def under_way(self) -> Iterable[ClientRequest]:
        """The requests that have begun and not ended."""

    def expire(self) -> None:
        """The deadline has passed."""

    def relieve(self) -> None:
        """Too many bytes wait for all clients together, and most of them here: end the responses that wait."""

    def close_idle(self) -> None:
        """The gateway drains: take only requests that are already on their way."""

    def give_up(self, refusal: Refusal) -> None:
        """End whatever is in flight: with a response where none has begun, else visibly cut."""


class NewConnection(ClientConnection, Protocol):
    """A connection that has just been accepted."""

    def turn_away(self, refusal: Refusal, *, answered: bool) -> None:
        """Refuse a connection before it has said anything."""


class PacedConnection(Protocol):
    """A connection whose client has to take its responses at a pace. `pace_due` is monotonic seconds."""

    @property
    def pace_due(self) -> float:
        """When its client's reading speed must be checked."""

    def check_pace(self) -> None:
        """`pace_due` has passed: end the connection of a client that takes too little."""

    def watch_end(self) -> None:
        """It is not read at present: notice if its client is gone."""


class FlushedConnection(Protocol):
    """A connection whose transport may have kept something for the next response."""

    def flush(self) -> None:
        """The transport sends it now."""


class Successor(ClientConnection, Protocol):
    """A connection that takes a transport over from another protocol."""

    def start(self) -> None:
        """Begin: the transport is the successor's from now on."""

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client, in pieces of any size."""

    def readConnectionLost(self) -> None:
        """The client sends no more, but may still read."""

    def connectionLost(self, reason: Failure = ...) -> None:
        """The connection is gone."""


class ClientSite(Protocol):
    """What all connections share. `time` gives monotonic seconds, `soon` calls in the reactor's next turn, `secured`
    says what TLS has established on a transport, and `finished` is called once for every exchange that has ended.

    `http2` makes what takes a transport over, from a peer, where ALPN has chosen HTTP/2.

    `watched` are HTTP/1.1 connections with unsent bytes, now or lately; `paused` are those that are not read at
    present, because their service or client takes nothing; `unflushed` are those whose transport has kept something
    for the next response, at most until the next sweep.
    """

    clock: CoarseClock
    time: Callable[[], float]
    soon: Callable[[Callable[[], object]], object]
    secured: Callable[[Any], TlsInfo | None]
    finished: Callable[[Exchange], object]
    policy: Policy
    reader: RequestReader
    timeouts: ClientTimeouts
    max_head: int
    max_line: int
    max_fields: int
    max_streams: int
    seconds_per_byte: float
    date_line: bytes
    contexts: KnownContexts
    draining: bool
    http2_errors: int
    turns: Turns
    resets: ResetWatcher
    buffered: Buffered
    watched: set[PacedConnection]
    paused: set[PacedConnection]
    unflushed: set[FlushedConnection]
    http2: Callable[[ClientSite, Any, str], Successor]

    @property
    def crowded(self) -> bool:
        """Whether so many connections wait that each may only buffer a little."""

    def opened(self, channel: NewConnection) -> None:
        """A client has connected."""

    def succeeded(self, channel: NewConnection, successor: Successor) -> None:
        """Another channel has taken a client's connection over."""

    def closed(self, channel: ClientConnection) -> None:
        """A client's connection is gone."""

    def share_refusal(self, channel: ClientConnection, context: RequestContext) -> Refusal | None:
        """The refusal of a request with which its connection would become one too many of its tenant's."""

    def dispatch(self, request: ClientRequest) -> None:
        """Answer a request."""

    def walk(self, request: ClientRequest, resource: IResource) -> None:
        """Have what the tree has at the request's path, from `resource` on, answer it."""


@dataclass(frozen=True, slots=True)
class ClientProtocols:
    """The protocols that a site serves. `http1` gives what makes a connection over HTTP/1.1, by whether a client that
    has ended its side is still answered; `http2` takes a transport over from a peer where ALPN has chosen HTTP/2."""

    http1: Callable[[bool], Callable[[ClientSite], NewConnection]]
    http2: Callable[[ClientSite, Any, str], Successor]


class RequestChannel(Protocol):
    """What a request needs from its connection or stream. `keep_alive`: whether that outlives the exchange;
    `lingers`: whether the client may still send data that will not be read."""

    site: ClientSite
    transport: Any
    keep_alive: bool
    lingers: bool

    def exchange_over(self, finished: bool) -> None:
        """The request's response is complete, or never will be."""

    def cut(self, plain: bool) -> None:
        """End within a response; with `plain` the data sent so far may still arrive."""

    def end_sending(self) -> bool:
        """Tell the client that no more will come; False where that cannot be said by itself."""

    def taking(self) -> bool:
        """Whether the client takes what is on its way to it."""

    def hold_body(self) -> None:
        """The service does not take the body: the client's time stands still."""

    def release_body(self) -> None:
        """The service takes the body again."""

    def registerProducer(self, producer: Producer, streaming: bool) -> None:
        """Pause and resume `producer` as the client takes the response."""

    def unregisterProducer(self) -> None:
        """The producer is done."""

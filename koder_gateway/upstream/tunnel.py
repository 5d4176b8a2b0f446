"""Tunnels: connections that have switched protocols, and carry raw bytes both ways from then on.

A tunnel takes over from the relay of the exchange. Each direction ends by itself, as in TCP; the tunnel is over when
both have. Bytes in either direction put its deadline off. Where one side is reset, or the deadline has passed, the
other side is reset too: a plain close would look like a complete transfer.
"""

from __future__ import annotations

import math
from typing import Any, Final

from ..exchange.ending import settle
from ..exchange.ports import BodySink, Client
from ..exchange.states import CLOSED, END, TIMEOUT, TUNNELLING
from ..policy.shares import ADDRESS, FULL, Counts, Owner, Shares
from ..reactor.read_sizes import room_of
from ..wire.clock import CoarseClock
from ..wire.response import ResponseHead
from ..wire.upgrade import WEBSOCKET
from ..wire.websocket_frames import GOING_AWAY
from .connection import UpstreamConnection
from .graceful_close import GracefulCloses
from .ports import TunnelEnd
from .websocket_end import WebSocketEnd

# Seconds that the client of a WebSocket has to answer the Close frame of a gateway that ends.
_MOMENT: Final = 5.0


class Tunnels:
    """Every tunnel of one gateway: how many there are and may be, and when they end for want of bytes.

    `due` is the deadline of a tunnel through which bytes come now, `due_ending` that of one with a side that has
    ended. `opened` counts them since the start, by service. There is none before
    `allow`. The owner calls `sweep`.
    """

    def __init__(self, clock: CoarseClock) -> None:
        self.clock = clock
        # Of connections whose tunnel or response has ended.
        self.graceful_closes = GracefulCloses(clock, 0.0)
        self.open: set[Tunnel] = set()
        self._counts = Counts()
        self.opened: dict[str, int] = {}
        self.allow(0, timeout=0.0, ending=0.0)

    def allow(self, limit: int, *, timeout: float, ending: float, shares: Shares | None = None) -> None:
        """Set the bounds: the most at once, and of one address and one tenant; seconds without a byte either way (0:
        any), and those in which what one side has ended must come to its end on the other."""
        self.limit = limit
        self.shares = shares or Shares(limit, limit)
        self.graceful_closes.seconds = ending
        self._timeout = timeout or math.inf
        self._set_due(self.clock.now)

    def _set_due(self, now: float) -> None:
        self.due = now + self._timeout
        self.due_ending = now + min(self._timeout, self.graceful_closes.seconds)

    def refusal(self, owner: Owner) -> str:
        """Why there is no place for one more of `owner`'s: "full", "address" or "tenant"; "" where there is one."""
        return FULL if len(self.open) >= self.limit else self._counts.reached(owner, self.shares)

    def has_share(self, owner: Owner) -> bool:
        """Whether `owner`'s address has as many as one may."""
        return self._counts.reached(Owner(owner.address, b""), self.shares) == ADDRESS

    def ended(self, tunnel: Tunnel) -> None:
        """One is open no more."""
        if tunnel in self.open:
            self.open.remove(tunnel)
            self._counts.remove(tunnel.owner)

    def begun(self, tunnel: Tunnel) -> None:
        """One more is open."""
        self.open.add(tunnel)
        self._counts.add(tunnel.owner)
        name = tunnel.exchange.service
        self.opened[name] = self.opened.get(name, 0) + 1

    def by_service(self) -> dict[str, int]:
        """The tunnels that are open, by service; 0 for one that had some."""
        counts = dict.fromkeys(self.opened, 0)
        for tunnel in self.open:
            counts[tunnel.exchange.service] += 1
        return counts

    def go_away(self) -> None:
        """The gateway ends: tell the clients of WebSockets."""
        for tunnel in list(self.open):
            tunnel.go_away()

    def sweep(self, now: float) -> None:
        """Put off the deadlines of those that have carried something since the last tick, and expire what has passed
        its own; called once a tick."""
        self._set_due(now)
        for tunnel in self.open:
            exchange = tunnel.exchange
            carried = exchange.bytes_in + exchange.bytes_out
            if carried != tunnel.carried:
                tunnel.carried = carried
                tunnel.progressed()
        for tunnel in [tunnel for tunnel in self.open if tunnel.deadline <= now]:
            tunnel.expired()
        self.graceful_closes.sweep(now)


class Tunnel(TunnelEnd, BodySink):
    """The bytes of one exchange after its 101, between a client (exchange.ports.Client) and a connection.

    To the client it is the sink of what it sends: `body_received` takes raw bytes, `body_ended` says that no more
    will come. `body` takes those of the service. Each of the two sides calls until `exchange.phase` is ENDED.

    Each direction is one function that counts and writes, and no more. The sweep sees by the counts (`carried`: at
    the last tick) whether the deadline is to be put off.
    """

    __slots__ = (
        "_client_done",
        "_client_leaves",
        "_leaves",
        "_service_done",
        "_transport",
        "body",
        "carried",
        "client",
        "connection",
        "deadline",
        "exchange",
        "owner",
        "tunnels",
        "websocket",
    )
    streams = True
    connection: UpstreamConnection

    def __init__(self, client: Client, connection: UpstreamConnection, tunnels: Tunnels, owner: Owner) -> None:
        self.client = client
        self.exchange = exchange = client.exchange
        self.connection = connection
        self.tunnels = tunnels
        self.owner = owner
        self.deadline = tunnels.due
        self.carried = exchange.bytes_in + exchange.bytes_out
        self.body = client.raw_writer()
        self._transport: Any = connection.transport
        self._client_done = False
        self._client_leaves = False
        self._service_done = False
        self._leaves = False
        self.websocket: WebSocketEnd | None = None

    def start(self, head: ResponseHead, data: bytes) -> None:
        """Tell the client of the switch; `data` came right behind the service's 101."""
        client, connection, exchange = self.client, self.connection, self.exchange
        # Whether it was a failed guess is known now, which may be days before the end.
        settle(exchange, self.tunnels.clock.now, ended=False)
        self.tunnels.begun(self)
        if head.upgrade is not None and head.upgrade.lower() == WEBSOCKET:
            self.websocket = WebSocketEnd(self.body, data)
            self.body = self.websocket.pass_on
        connection.tunnel_through(self)
        client.sink = self
        client.switch(head, data)
        if exchange.phase is TUNNELLING:
            # Not before: what the client has sent ahead may already fill the connection to the service.
            connection.pull_from_client()
            client.stream_from(connection)

    def go_away(self) -> None:
        """The gateway ends: tell the client of a WebSocket, which has a moment to say goodbye. Of other protocols
        nothing is known, and so nothing is said."""
        if self.websocket is not None and not self._service_done:
            self._leaves = True
            self.deadline = self.tunnels.clock.now + _MOMENT
            self.websocket.end(GOING_AWAY)

    # -- from the client

    def body_received(self, data: bytes) -> None:
        """Bytes for the service."""
        self.exchange.bytes_in += len(data)
        write = self._transport.write
        write(data)

    def body_room(self) -> int:
        """Bytes of the client's that go on their way to the service at once."""
        return room_of(self.connection.transport)

    def body_ended(self, trailers: list[bytes]) -> None:
        """The client sends no more."""
        if self._client_done or self.exchange.phase is not TUNNELLING:
            return
        self._client_done = True
        if self._service_done or not self.connection.end_sending():
            self._end()
        else:
            self.progressed()

    def client_leaves(self) -> None:
        """See `BodySink`: the tunnel has as long as one with a side that has ended."""
        if not self._client_leaves:
            self._client_leaves = True
            self.progressed()

    def client_failed(self, event: str) -> None:
        """The client is gone. The service's side is reset unless the client had ended its own."""
        self.exchange.move(event)
        self._leave(in_order=self._client_done)

    def abandon(self) -> None:
        """Release the service; the caller ends the exchange."""
        self._leave(in_order=True)

    # -- from the service

    def ended(self, *, gone: bool) -> None:
        """The service sends no more; `gone`: nor does it read."""
        if self._service_done and not gone:
            return
        self._service_done = True
        if self._client_done or gone:
            self._end()
        else:
            self.progressed()
        self.client.end_body([])

    def failed(self, detail: str, *, reset: bool) -> None:
        """The service has reset the connection; or (`reset` false) it has closed without close_notify, as many do at
        a regular end, so the client still gets what is on its way."""
        service = self.connection.address.service
        self.exchange.move(CLOSED)
        self._leave(in_order=False)
        self.client.cut(at_once=reset)
        if reset:
            service.failed(CLOSED, detail)

    # -- time

    def progressed(self) -> None:
        """One side has taken what the other sent."""
        if self._leaves:
            return
        ending = self._client_done or self._service_done or self._client_leaves
        self.deadline = self.tunnels.due_ending if ending else self.tunnels.due

    def expired(self) -> None:
        """No byte has come for too long; but what came before may still be on its slow way to the client."""
        if self._leaves:
            self._end()
            self.client.end_body([])
            return
        if self.connection.paused and self.client.taking():
            self.progressed()
            return
        self.exchange.move(TIMEOUT)
        self._leave(in_order=False)
        self.client.cut(at_once=True)

    # -- the end

    def _end(self) -> None:
        self.exchange.move(END)
        self._leave(in_order=True)

    def _leave(self, *, in_order: bool) -> None:
        self.deadline = math.inf
        self.tunnels.ended(self)
        if in_order:
            self.connection.finish()
        else:
            self.connection.abort()

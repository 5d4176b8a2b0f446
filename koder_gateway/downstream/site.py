"""The factory of clients' connections: what all connections share, the sweep of their deadlines, and the count.

The tree and the policy are replaced as one by a reload; connections, buckets and pools stay.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.interfaces import IAddress, ISSLTransport
from twisted.logger import Logger
from twisted.web.http import datetimeToString
from twisted.web.resource import IResource, getChildForRequest
from twisted.web.server import Site

from ..errors import DRAINING, OVERLOADED, Refusal
from ..exchange.admission import Step, before_tree
from ..exchange.context import RequestContext
from ..exchange.known_contexts import KnownContexts
from ..exchange.states import Exchange
from ..policy.certificates import TlsInfo
from ..policy.clients import NOWHERE
from ..policy.decision import Policy
from ..policy.limit_keys import address_key
from ..policy.shares import Shares
from ..reactor.resets import reset_watcher_of
from ..reactor.turns import PIECES, turns_of
from ..wire.clock import CoarseClock
from ..wire.rate_limited_log import RateLimitedLog
from ..wire.request_reader import RequestReader
from .buffered import Buffered
from .connection_counts import ConnectionCounts
from .limits import ClientLimits, ClientTimeouts
from .ports import (
    ClientConnection,
    ClientProtocols,
    ClientRequest,
    ClientSite,
    FlushedConnection,
    Guarding,
    NewConnection,
    PacedConnection,
    Successor,
    TreeClient,
)
from .stopped_resource import stop

# Excess connections that get a 503: of all clients together, and of one address. Further ones are reset.
_TURNED_AWAY = 1024
_ADDRESS_TURNED_AWAY = 64
# Connections that may wait for their peer while each holds a whole read of the reactor.
_FEW = 16
_PRESENT = TlsInfo()


def tls_presence(transport: Any) -> TlsInfo | None:
    """Whether a transport has TLS, which is all that every transport can say."""
    return _PRESENT if ISSLTransport.providedBy(transport) else None


def _guard(resource: IResource) -> Guarding | None:
    """The resource, if it is one of the gateway's guards."""
    return cast(Guarding, resource) if hasattr(resource, "admit") else None


class GatewaySite(Site, ClientSite):
    """Serves a resource tree through connections of the protocols that it is given.

    `finished` is called once for every exchange that has ended, with the exchange. `time` gives monotonic
    seconds; the owner calls `sweep` a few times a second and `tick` keeps the Date field. `secured` says what TLS
    has established on a transport.
    """

    noisy = False
    logger = Logger()

    def __init__(
        self,
        resource: IResource,
        policy: Policy,
        reader: RequestReader,
        protocols: ClientProtocols,
        *,
        reactor: Any,
        clock: CoarseClock,
        finished: Callable[[Exchange], object],
        timeouts: ClientTimeouts,
        limits: ClientLimits,
        time: Callable[[], float] = time.monotonic,
        secured: Callable[[Any], TlsInfo | None] = tls_presence,
    ) -> None:
        super().__init__(resource, reactor=reactor)
        self._use_tree(resource)
        self.clock = clock
        self.time = time
        self.secured = secured
        self._protocols = protocols
        self.http2 = protocols.http2
        self.finished = finished
        # Besides clients', those that wait for a balancer's header before they become one (`proxy_protocol`).
        self.channels: set[ClientConnection] = set()
        self._turned_away: set[ClientConnection] = set()
        # HTTP/1.1 connections with unsent bytes, now or lately.
        self.watched: set[PacedConnection] = set()
        # HTTP/1.1 connections that are not read at present, because their service or client takes nothing.
        self.paused: set[PacedConnection] = set()
        # HTTP/1.1 connections whose transport has kept something for the next response.
        self.unflushed: set[FlushedConnection] = set()
        # Connections whose deadline has passed, but whose `expire` has not been called yet.
        self._due: deque[ClientConnection] = deque()
        self.connection_counts = ConnectionCounts(Shares(0, 0))
        self.fault_log = RateLimitedLog(clock, self.logger.warn)
        self.http2_errors = 0
        self.turns = turns_of(reactor)
        self.resets = reset_watcher_of(reactor)
        self.buffered = Buffered(0)
        # Cheap where the reactor has a queue of its own for it.
        self.soon: Callable[[Callable[[], object]], object] = getattr(
            reactor, "soon", lambda call: reactor.callLater(0, call)
        )
        self.accepted = 0
        self.rejected = 0
        self.draining = False
        self.date_line = b""
        self.policy = policy
        self.contexts = KnownContexts()
        self.reader = reader
        self._set_bounds(timeouts, limits)
        self.tick()

    def _set_bounds(self, timeouts: ClientTimeouts, limits: ClientLimits) -> None:
        self.timeouts = timeouts
        self.max_head = limits.max_head
        self.max_line = limits.max_line
        self.max_fields = limits.max_fields
        self.seconds_per_byte = 1 / limits.min_rate if limits.min_rate else math.inf
        self.max_connections = limits.max_connections
        self.max_streams = limits.max_streams
        self.channel_class = self._protocols.http1(limits.half_close)
        self.buffered.bound = limits.max_buffered
        self.connection_counts.shares = limits.shares or Shares(limits.max_connections, limits.max_connections)

    def replace(
        self,
        resource: IResource,
        policy: Policy,
        reader: RequestReader,
        timeouts: ClientTimeouts,
        limits: ClientLimits,
    ) -> None:
        """Serve another tree from the next request on; exchanges in flight keep what they began with."""
        self._use_tree(resource)
        self.policy = policy
        self.contexts = KnownContexts()
        self.reader = reader
        self._set_bounds(timeouts, limits)

    def _use_tree(self, resource: IResource) -> None:
        """Serve this tree. The guards around it are found once, not for each request."""
        self.resource = resource
        # Each with what it guards.
        self._steps: list[tuple[Step, IResource]] = []
        while (guard := _guard(resource)) is not None:
            resource = guard.inner
            self._steps.append((guard.admit, resource))
        self._guarded = resource
        self._descend: Callable[[TreeClient], IResource] | None = getattr(resource, "descend", None)

    # -- the stock factory's life, without its log and its timer

    def startFactory(self) -> None:
        """Nothing to start: the owner sweeps."""

    def stopFactory(self) -> None:
        """Nothing to stop."""

    def log(self, request: object) -> None:
        """The access log is written from exchanges."""

    def buildProtocol(self, addr: IAddress | None) -> NewConnection:  # type: ignore[override]
        """A channel for a new connection."""
        return self.channel_class(self)

    # -- connections

    def opened(self, channel: NewConnection) -> None:
        """A client has connected."""
        self.accepted += 1
        self.channels.add(channel)
        if self.draining:
            channel.close_idle()
        # Connections that are being turned away do not count against the bound.
        full = len(self.channels) - len(self._turned_away) > self.max_connections
        beyond = self.connection_counts.opened(channel, self._counted_as(channel.peer))
        if full or beyond > 0:
            self.rejected += 1
            self._turned_away.add(channel)
            if beyond == 1:
                most = f"{self.connection_counts.shares.address} of {self.max_connections}"
                self.fault_log.warn(
                    f"{channel.peer} has reached its share of client connections ({most}); further"
                    " ones are refused (shares.address)"
                )
            # In a flood a response for each would cost too much memory.
            answered = len(self._turned_away) <= _TURNED_AWAY and beyond <= _ADDRESS_TURNED_AWAY
            channel.turn_away(OVERLOADED.closing(), answered=answered)

    def _counted_as(self, peer: str) -> bytes:
        """The address that a connection counts for; b"" for one that stands for many clients."""
        return b"" if peer == NOWHERE or self.policy.proxies.trusts(peer) else address_key(peer)

    def share_refusal(self, channel: ClientConnection, context: RequestContext) -> Refusal | None:
        """The refusal of a request with which its connection would become one too many of its tenant's. It ends the
        connection."""
        tenant = context.owner
        if tenant is None or self.connection_counts.asks_for(channel, tenant.wire):
            return None
        self.rejected += 1
        return OVERLOADED.closing()

    def succeeded(self, channel: NewConnection, successor: Successor) -> None:
        """Another channel has taken a client's connection over."""
        self.connection_counts.succeeded(channel, successor)
        self.channels.discard(channel)
        self.watched.discard(channel)
        self.paused.discard(channel)
        self.channels.add(successor)
        if self.draining:
            successor.close_idle()

    def overfull(self) -> bool:
        """Whether there is no room even for a connection that gets a 503; if so it counts as turned away."""
        full = len(self.channels) >= self.max_connections + _TURNED_AWAY
        self.rejected += full
        return full

    def closed(self, channel: ClientConnection) -> None:
        """A client's connection is gone."""
        self.channels.discard(channel)
        self.watched.discard(channel)
        self.paused.discard(channel)
        self.unflushed.discard(channel)
        self._turned_away.discard(channel)
        self.connection_counts.closed(channel)

    @property
    def in_flight(self) -> int:
        """Exchanges that have begun and not ended."""
        return sum(1 for channel in self.channels for _ in channel.under_way())

    # -- exchanges

    def dispatch(self, request: ClientRequest) -> None:
        """Answer a request: before the tree, by a guard's refusal, or by what the tree has at its path."""
        exchange = request.exchange
        answer = before_tree(exchange)
        if answer is not None:
            if isinstance(answer, Refusal):
                request.refuse(answer)
            else:
                request.answer(204, b"No Content", answer.fields, b"")
            return
        for step, inner in self._steps:
            outcome = step(exchange)
            if outcome is not None:
                stop(request, outcome, inner)
                return
        resource = self._guarded
        if self._descend is not None:
            # The first steps of `walk`, inlined: this runs for most requests.
            resource = self._descend(request)
            if (forward := getattr(resource, "forward_exchange", None)) is not None:
                forward(request)
                return
        self.walk(request, resource)

    def walk(self, request: ClientRequest, resource: IResource) -> None:
        """Go down the tree from `resource` on, and have what is at the request's path answer."""
        descend: Callable[[TreeClient], IResource] | None
        forward: Callable[[TreeClient], None] | None
        # The gateway's own resources know the way by the raw path; segments are for everybody else's.
        while True:
            if (descend := getattr(resource, "descend", None)) is not None:
                resource = descend(request)
            elif (forward := getattr(resource, "forward_exchange", None)) is not None:
                forward(request)
                return
            elif (guard := _guard(resource)) is not None:
                outcome = guard.admit(request.exchange)
                if outcome is not None:
                    stop(request, outcome, guard.inner)
                    return
                resource = guard.inner
            else:
                break
        if not getattr(resource, "streams_body", False):
            if request.postpath is None:
                request.hand_over()
            if not resource.isLeaf:
                resource = getChildForRequest(resource, request)
        if getattr(resource, "streams_body", False):
            resource.render(request)
        else:
            request.render_stock(resource)

    # -- time

    def tick(self) -> None:
        """Renew what changes with the second."""
        self.date_line = b"Date: %b\r\n" % datetimeToString()

    def sweep(self, now: float) -> None:
        """Expire every channel whose deadline has passed."""
        self.turns.tick(now)
        self.fault_log.sweep(now)
        if not self._due:
            self._due.extend(channel for channel in self.channels if channel.deadline <= now)
            self._expire()
        late, self.unflushed = self.unflushed, set()
        for unflushed in late:
            unflushed.flush()
        for paused in self.paused:
            paused.watch_end()
        for watched in [watched for watched in self.watched if watched.pace_due <= now]:
            watched.check_pace()
        if self.buffered.total > self.buffered.bound:
            self._relieve()
        if self.timeouts.exchange:
            begun = now - self.timeouts.exchange
            for channel in list(self.channels):
                for request in channel.under_way():
                    if request.exchange.started <= begun:
                        request.expire()

    @property
    def crowded(self) -> bool:
        """Whether so many connections wait for their peer that each may only hold a little. A few may hold a whole
        read of the reactor: smaller reads cost a bulk transfer a tenth of its processor time."""
        return len(self.paused) >= _FEW or len(self.watched) >= _FEW

    def _expire(self) -> None:
        """Expire the connections that are due, a slice of a turn at a time: thousands may be due at once."""
        turns, due = self.turns, self._due
        until, left = turns.slice(), PIECES
        while due:
            channel = due.popleft()
            if channel.deadline <= self.clock.now:
                channel.expire()
            left -= 1
            if left <= 0 and due and turns.time() >= until:
                turns.later(self._expire)
                return

    def _relieve(self) -> None:
        """More bytes wait for clients than may: end the responses of those connections on which most wait."""
        holding = [channel for channel in self.channels if channel.waiting]
        for channel in sorted(holding, key=lambda channel: channel.waiting, reverse=True):
            if self.buffered.total <= self.buffered.bound:
                return
            channel.relieve()

    def drain(self) -> None:
        """Take only requests that are already on their way."""
        self.draining = True
        for channel in list(self.channels):
            channel.close_idle()

    def end_drain(self) -> None:
        """The drain's deadline has passed: answer what can still be answered, close the rest."""
        for channel in list(self.channels):
            channel.give_up(DRAINING)

"""One client connection over HTTP/1.1: finds the heads, counts the bodies, and keeps the responses in order.

A client may end its side of the connection once its request is complete, and still gets its response: the connection
ends with that. An end within a request is a goodbye, and so is a reset.

A connection is always in one phase:

    IDLE ──first byte──► HEAD ──head complete──► BODY ──body complete──► BUSY ──answer complete──► IDLE
                           └──────── refused ───────┴───► LINGER ──quiet──► CLOSING ──all sent──► GONE
                                    BUSY ──protocols switched──► TUNNEL ──both sides ended──┘

While an exchange is in flight, bytes of the next request wait (BUSY, a bounded buffer). LINGER reads and forgets
what a client still sends after a response that ended its connection, so that the response is not lost to a reset
(RFC 9112 section 9.6). CLOSING waits for a slow client to take what was written, as long as it keeps its pace.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from ..downstream.lingering_close import can_half_close
from ..downstream.ports import ClientSite, NewConnection, PacedConnection
from ..errors import BAD_FRAMING, BODY_TOO_LARGE, REQUEST_TIMEOUT, Refusal
from ..exchange.context import RequestContext
from ..exchange.opening import HeadSource, open_exchange
from ..exchange.states import SLOW
from ..policy.clients import plain_host
from ..policy.decision import Policy
from ..reactor.read_sizes import read_bounded, read_freely
from ..wire.body import BodyError
from ..wire.request_head import RequestHead
from .message_reader import MessageReader
from .phases import BODY, BUSY, CLOSING, GONE, HEAD, IDLE, LINGER, TUNNEL
from .request import Http1Request, RequestConnection

# What HTTP/2 over TLS is called in ALPN (RFC 9113 section 3.1).
H2: Final = b"h2"
_NO_TRAILERS: Final[list[bytes]] = []
# The rest of a body that a response did not wait for is read to the end when it is no more than this: behind a
# refusal, and behind a service's response, where closing would cost an honest client's next request a handshake.
_SETTLE_BOUND: Final = 65536
_SERVED_BOUND: Final = 1 << 20
# How many bytes of responses may wait before their producer is paused, and no further request is read.
_UNSENT: Final = 16384


@implementer(IHandshakeListener, IPushProducer)
class Http1Channel(MessageReader, Protocol, RequestConnection, NewConnection, PacedConnection, HeadSource):
    """Made by `GatewaySite` for each connection. `keep_alive`: whether the connection outlives this exchange;
    `lingers`: whether the client may still be sending what nobody is going to read."""

    log = Logger()
    # The transport has all that waits for the client.
    waiting = 0
    lingers = False

    def __init__(self, site: ClientSite) -> None:
        super().__init__(site)
        self.keep_alive = True
        self.request: Http1Request | None = None
        self.peer = ""
        self.deadline = math.inf
        self.write: Callable[[bytes], object] = _forget
        self._context: RequestContext | None = None
        self._asked = False

    # -- the connection

    def connectionMade(self) -> None:
        """A client has connected; until its first head is complete it has the time for a head."""
        transport: Any = self.transport
        self.peer = plain_host(getattr(transport.getPeer(), "host", None))
        self.write = transport.write
        set_no_delay = getattr(transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(True)
        # In addition to the kernel's buffer, which is enough to keep any client busy.
        transport.bufferSize = _UNSENT
        transport.registerProducer(self, True)
        # Read little at once, but as much of a body as its service takes.
        read_bounded(transport, self.body_room)
        site = self.site
        if getattr(transport, "turns", None) is None:
            self._turns = site.turns
        self.deadline = site.clock.now + site.timeouts.head
        site.opened(self)

    def handshakeCompleted(self) -> None:
        """TLS stands: where ALPN has chosen HTTP/2, a channel for that takes the connection over."""
        transport: Any = self.transport
        if transport.negotiatedProtocol != H2:
            return
        if self._phase != IDLE:
            # It was turned away before ALPN was known. This client cannot read the HTTP/1.1 response.
            transport.abortConnection()
        else:
            self._phase = GONE
            self.write = _forget
            transport.unregisterProducer()
            if not self.site.crowded:
                read_freely(transport)
            successor = self.site.http2(self.site, transport, self.peer)
            # A wrapper may hold a reference to this protocol, so its methods lead straight to the successor.
            self.dataReceived = successor.dataReceived  # type: ignore[method-assign]
            self.readConnectionLost = successor.readConnectionLost  # type: ignore[method-assign]
            self.connectionLost = successor.connectionLost  # type: ignore[method-assign]
            # Its SETTINGS must be its first frame, before the GOAWAY of a drain.
            successor.start()
            self.site.succeeded(self, successor)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone, and so is the exchange on it."""
        self._phase = GONE
        self.deadline = math.inf
        self.forget_reset()
        self.site.closed(self)
        request = self.request
        if request is not None:
            request.lose(reason)
        self._unread.clear()
        self._context = self._head = self._decoder = self._producer = None
        if self._client_pace is not None:
            self._client_pace = None
        self.__dict__.pop("dataReceived", None)
        self.write = _forget
        self.transport = None

    def _begin(self, head: RequestHead) -> None:
        """A head is complete: begin its exchange."""
        site = self.site
        self.keep_alive = head.keep_alive and not site.draining and site.timeouts.keepalive > 0
        body, refusal = b"", head.refusal
        self._remaining = 0
        self._trailers = _NO_TRAILERS
        self._asked = True
        if (head.chunked or head.length) and (refusal is None or not refusal.close):
            # Read the body of a refused request too: taken for a request it could smuggle one in.
            try:
                body = self._first_of_body(head)
                if head.chunked and self._chunked_bytes > site.policy.max_body:
                    refusal = refusal or BODY_TOO_LARGE
            except BodyError as error:
                refusal = BAD_FRAMING.because(str(error))
        # In two steps, as in `tls.stream`.
        now = site.time
        exchange = open_exchange(self, head, refusal, self._context, site.policy, now())
        exchange.bytes_in = len(body)
        done = not self._remaining and self._decoder is None
        request = self.request = Http1Request(self, exchange, body, done, self._trailers)
        if done:
            self._phase = BUSY
            self.deadline = math.inf
        else:
            self._phase = BODY
            self.deadline = site.clock.now + site.timeouts.body
        request.begin()

    def context_for(self, policy: Policy, head: RequestHead) -> RequestContext:
        """The context of this head, which another connection of the client may have had before."""
        return self.site.contexts.context(policy, head, self.peer, self.secured())

    def keep_context(self, context: RequestContext) -> Refusal | None:
        """The refusal of a request whose tenant has its share of connections without this one, which then ends."""
        full = self.site.share_refusal(self, context)
        # What a head too large to be kept has brought is not kept either.
        self._context = context if context.lasting and self._head is not None and full is None else None
        return full

    # -- a tunnel

    def tunnel(self) -> None:
        """The service has switched protocols: pass on to it what has waited and whatever comes."""
        if self._phase == GONE:
            return
        self._phase = TUNNEL
        self.keep_alive = False
        self.deadline = math.inf
        # Behind a balancer the transport asks the protocol that read the PROXY header, not this one.
        outer = getattr(self.transport, "protocol", None)
        alsoProvides(outer if hasattr(type(outer), "readConnectionLost") else self, IHalfCloseableProtocol)
        request = self.request
        assert request is not None
        if request.sink is not None:
            self.dataReceived = receive = request.sink.body_received  # type: ignore[method-assign, assignment]
            data = self._unread.read(len(self._unread))
            if data:
                receive(data)
        self._regulate()
        if self._ended:
            self.forget_reset()
            self.readConnectionLost()

    def end_sending(self) -> bool:
        """Tell the client that no more will come; False where this transport has no half-closed connections."""
        transport: Any = self.transport
        if not can_half_close(transport):
            return False
        self._let_go_of_transport()
        transport.loseWriteConnection()
        return True

    # -- a client that has ended its side

    def readConnectionLost(self) -> None:
        """The client sends no more, but may still read."""
        if self._phase != TUNNEL:
            if not self._ended:
                self._ended = True
                self._judge_end()
        elif ISSLTransport.providedBy(self.transport):
            # The end of TLS is that of both sides of a tunnel.
            self.loseConnection()
        elif self.request is not None:
            self.request.half_closed()

    def writeConnectionLost(self) -> None:
        """All that was written has been sent, and the end of it."""

    def _judge_end(self) -> None:
        """Answer the requests that are complete, in order, and close. An incomplete one cannot become complete."""
        phase, waiting = self._phase, bool(self._unread.data)
        if phase == BUSY:
            # What waits may be a whole request, or none.
            self.keep_alive = self.keep_alive and waiting
            self.watch_for_reset()
        elif waiting and (self._held or self._full or self._turn_over):
            self.watch_for_reset()
        elif phase == BODY and self.request is not None:
            transport: Any = self.transport
            transport.abortConnection()
        elif phase in (IDLE, HEAD, BODY, LINGER):
            self._close()

    # -- the end of an exchange

    def settle_rest(self) -> None:
        """A response is about to be sent before its request's body has come: decide whether to keep the
        connection."""
        request = self.request
        bound = _SETTLE_BOUND if request is None or request.exchange.code else _SERVED_BOUND
        if self._decoder is not None or self._remaining > bound:
            self.keep_alive = False
        elif request is not None and request.exchange.head.expects:
            self.keep_alive = False  # the client may send the body or not (RFC 9110 section 10.1.1)

    def exchange_over(self, finished: bool) -> None:
        """The request's response is complete, or never will be."""
        self.request = None
        if self._held:
            self._held = False
            self._regulate()
        if not finished or self._phase == GONE:
            return
        if not self.keep_alive:
            if self._phase == BODY or self.lingers:
                self._linger()
            else:
                self._close()
            return
        if self._phase == BODY:
            self.deadline = self.site.clock.now + self.site.timeouts.linger
            return
        self._settled()

    def _settled(self) -> None:
        """Ready for the next request, which may be here already."""
        if not self.keep_alive:
            self._close()
            return
        self._phase = IDLE
        self.deadline = math.inf if self._full else self.idle_until()
        if self._unread.data or self._paused:
            self._read_on()

    def _linger(self) -> None:
        """Close so that the client can read the response; what one sends that has ended its side hinders nothing."""
        if self._ended:
            self._close()
        else:
            super()._linger()

    def _enter_linger(self) -> None:
        self._phase = LINGER
        self._forget_rest()

    def _enter_closing(self) -> None:
        self._phase = CLOSING
        self.forget_reset()
        self._forget_rest()

    def _wait(self, seconds: float) -> None:
        self.deadline = self.site.clock.now + seconds

    def _forget_rest(self) -> None:
        """Discard whatever still comes, and let the transport close without a producer."""
        self._unread.clear()
        self._decoder = None
        self._held = self._full = False
        self._let_go_of_transport()
        self._regulate()
        # Most are closed by the next sweep. For the others something waits, so their pace is checked.
        self.site.watched.add(self)

    def cut(self, plain: bool) -> None:
        """Close in the midst of a response; with `plain` what was sent may still arrive."""
        transport: Any = self.transport
        if self._phase == GONE:
            return
        if plain:
            self._close()
        else:
            transport.abortConnection()

    # -- what the site asks of it

    def close_idle(self) -> None:
        """Close soon if no exchange is in flight: the gateway drains."""
        request = self.request
        # A client that has a head without Connection: close may send its next request behind this response.
        if request is None or not request.head_sent:
            self.keep_alive = False
        if self._phase == IDLE:
            # A request may be on the way: give it a moment. One that comes is served, with Connection: close.
            site = self.site
            self.deadline = min(self.deadline, site.clock.now + site.timeouts.linger)

    def relieve(self) -> None:
        """What waits here is bounded for each connection."""

    def turn_away(self, refusal: Refusal, *, answered: bool) -> None:
        """Refuse a connection before it has said anything."""
        if answered:
            self._refuse_unread(b"", refusal)
        else:
            transport: Any = self.transport
            transport.abortConnection()

    def give_up(self, refusal: Refusal) -> None:
        """End whatever is in flight: with a response where none has begun, else visibly cut."""
        request = self.request
        if request is not None:
            request.give_up(refusal)
        if self.transport is not None:
            self.loseConnection()

    def expire(self) -> None:
        """The deadline has passed."""
        phase = self._phase
        if self._turn_over and phase <= BODY:
            # Its bytes came in time and only wait for their turn.
            self.deadline = self.site.clock.now + self.site.timeouts.linger
        elif phase == HEAD:
            self._refuse_unread(bytes(self._unread.so_far()), REQUEST_TIMEOUT)
        elif phase == BODY and self.request is not None:
            self.keep_alive = False
            self.request.body_failed(SLOW)
        elif phase == BODY and self._remaining > _SETTLE_BOUND:
            # Much is still to come behind a service's response, which the client can still read.
            self._linger()
        elif phase in (LINGER, CLOSING):
            self._watch_pace()
            self._expire_closing(phase == LINGER)
        elif phase == IDLE:
            self._close()
        elif phase != GONE:
            transport: Any = self.transport
            transport.abortConnection()

    def _too_slow(self) -> None:
        """The client reads too slowly: discard what waits for it."""
        request = self.request
        if request is not None:
            request.too_slow()
        else:
            transport: Any = self.transport
            transport.abortConnection()

    def under_way(self) -> Iterable[Http1Request]:
        """The request that has begun and not ended."""
        return () if self.request is None else (self.request,)


@implementer(IHalfCloseableProtocol)
class HalfClosingChannel(Http1Channel):
    """A channel that its transport tells of a client's end of its side; to others that is the end of both sides."""


def channel_class(half_close: bool) -> type[Http1Channel]:
    """What makes connections; `half_close`: whether a client that has ended its side is still answered."""
    return HalfClosingChannel if half_close else Http1Channel


def _forget(data: bytes) -> None:
    """The write method of a connection that is gone."""

"""One client connection over HTTP/1.1: finds the heads, counts the bodies, and keeps the answers in order.

A connection is always in one phase:

    IDLE ──first byte──► HEAD ──head complete──► BODY ──body complete──► BUSY ──answer complete──► IDLE
                           └──────── refused ───────┴───► LINGER ──quiet──► CLOSING ──all sent──► GONE
                                    BUSY ──protocols switched──► TUNNEL ──both sides ended──┘

While an exchange is under way, bytes of the next request wait (BUSY, a bounded buffer). LINGER reads and forgets
what a client still sends after an answer that ended its connection, so that the answer is not lost to a reset
(RFC 9112 section 9.6). CLOSING waits for a slow client to take what was written, as long as it takes anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from ..errors import BAD_FRAMING, BODY_TOO_LARGE, REQUEST_TIMEOUT, URI_TOO_LONG, Refusal
from ..policy.clients import plain_host
from ..wire.body import BodyError, ChunkedDecoder
from ..wire.exchange import BROKEN, TOO_LARGE
from ..wire.request import HeadProbe, RequestHead, oversized, sole_origin
from .backlog import backlog
from .http2 import Http2Channel
from .request import GatewayRequest
from .stock import StockChannel

if TYPE_CHECKING:
    from .site import GatewaySite

IDLE, HEAD, BODY, BUSY, TUNNEL, LINGER, CLOSING, GONE = range(8)

# What HTTP/2 over TLS is called in ALPN (RFC 9113 section 3.1).
H2: Final = b"h2"
_LEADING_LINES: Final = re.compile(rb"\A(?:\r\n)+")
_NO_TRAILERS: Final[list[bytes]] = []
# The rest of a body that an answer did not wait for is read to the end when it is no more than this.
_SETTLE_BOUND: Final = 65536
# What may wait unread behind the exchange under way before reading pauses.
_PIPELINE_BOUND: Final = 65536


@implementer(IHandshakeListener)
class GatewayChannel(StockChannel, Protocol):
    """Made by `GatewaySite` for each connection. `keep_alive`: whether the connection outlives this exchange;
    `lingers`: whether the client may still be sending what nobody is going to read."""

    log = Logger()

    def __init__(self, site: GatewaySite) -> None:
        self.site = site
        self.keep_alive = True
        self.request: GatewayRequest | None = None
        self.peer = ""
        self.deadline = math.inf
        self._phase = IDLE
        self._buffer = b""
        self._probe: HeadProbe | None = None
        self._remaining = 0
        self._decoder: ChunkedDecoder | None = None
        self._reading = False
        self._standing: Any = None
        self._head: RequestHead | None = None
        self._held = False
        self._held_for = 0.0
        self._paused = False
        self._backlog = -1
        self.lingers = False
        self._chunked_bytes = 0
        self._trailers = _NO_TRAILERS
        self.write: Callable[[bytes], object] = _forget

    # -- the connection

    def connectionMade(self) -> None:
        """A client has connected; until its first head is complete it has the time for a head."""
        transport: Any = self.transport
        self.peer = plain_host(getattr(transport.getPeer(), "host", None))
        self.write = transport.write
        set_no_delay = getattr(transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(True)
        site = self.site
        self.deadline = site.clock.now + site.timeouts.head
        site.opened(self)

    def handshakeCompleted(self) -> None:
        """TLS stands: where ALPN has chosen HTTP/2, a channel for that takes the connection over."""
        transport: Any = self.transport
        if transport.negotiatedProtocol != H2:
            return
        if self._phase != IDLE:
            # Turned away before it could be known: what is about to be said is of no use to this client.
            transport.abortConnection()
        else:
            self._phase = GONE
            self.write = _forget
            successor = Http2Channel(self.site, transport, self.peer)
            # Whoever wraps this protocol has no other name for it: what comes for it goes straight on.
            self.dataReceived = successor.dataReceived  # type: ignore[method-assign]
            self.connectionLost = successor.connectionLost  # type: ignore[method-assign]
            # Its settings come before whatever a drain has it say.
            successor.start()
            self.site.succeeded(self, successor)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone, and so is the exchange on it."""
        self._phase = GONE
        self.deadline = math.inf
        self.site.closed(self)
        request = self.request
        if request is not None:
            request.lost(reason)
        self._buffer = b""
        self._standing = None
        self._head = None
        self._decoder = None
        self.__dict__.pop("dataReceived", None)
        self.write = _forget
        self.transport = None

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client, in pieces of any size."""
        phase = self._phase
        if phase in (IDLE, HEAD):
            self._read_heads(self._buffer + data if self._buffer else data, data)
        elif phase == BODY:
            self._read_body(data)
            if self._phase == IDLE and self._buffer:
                self._read_heads(self._buffer, self._buffer)
        elif phase == BUSY:
            self._buffer += data
            if len(self._buffer) > _PIPELINE_BOUND:
                self._pause_reading()

    # -- heads

    def _read_heads(self, data: bytes, piece: bytes) -> None:
        """Read one request after another while each is answered at once."""
        self._reading = True
        while True:
            if data[:2] == b"\r\n":
                # Empty lines before a request are ignored (RFC 9112 section 2.2); so is their number, cheaply.
                data = _LEADING_LINES.sub(b"", data)
            end = data.find(b"\r\n\r\n") if data else -1
            if end < 0:
                self._keep_partial(data, piece)
                break
            end += 4
            raw, self._buffer = (data, b"") if end == len(data) else (data[:end], data[end:])
            self._probe = None
            if end > self.site.max_head:
                self._refuse_unread(raw, oversized(raw, self.site.max_line))
                break
            head = self._head = self.site.reader.read(raw, self._head)
            self._begin(head)
            if self._phase != IDLE:
                break
            data = piece = self._buffer
            if not data:
                break
        self._reading = False

    def _keep_partial(self, data: bytes, piece: bytes) -> None:
        """No whole head yet: look whether it can still become one."""
        self._buffer = data
        if not data:
            return
        site = self.site
        if self._phase == IDLE:
            self._phase = HEAD
            self.deadline = site.clock.now + site.timeouts.head
        if self._probe is None:
            self._probe, piece = HeadProbe(), data
        if len(data) > site.max_head:
            self._refuse_unread(data, oversized(data, site.max_line))
        elif len(data) > site.max_line and b"\n" not in data:
            self._refuse_unread(data, URI_TOO_LONG)
        else:
            fault = self._probe.fault(piece, data)
            if fault is not None:
                self._refuse_unread(data, fault)

    def _refuse_unread(self, raw: bytes, refusal: Refusal) -> None:
        """Refuse what is no readable head: nothing after it on this connection is a request."""
        method = raw[:8].partition(b" ")[0]
        head = RequestHead(b"HEAD" if method == b"HEAD" else b"", b"", 1, [])
        head.refusal = refusal.closing()
        head.origin = sole_origin(raw)
        head.keep_alive = False
        self._buffer = b""
        self._begin(head)

    def _begin(self, head: RequestHead) -> None:
        """A head is complete: begin its exchange."""
        site = self.site
        self.keep_alive = head.keep_alive and not site.draining and site.timeouts.keepalive > 0
        body, refusal = b"", head.refusal
        self._remaining = 0
        self._trailers = _NO_TRAILERS
        if refusal is None or not refusal.close:
            # A refused request's body is a body too: read as a request it would smuggle one in.
            try:
                body = self._first_of_body(head)
                if head.chunked and self._chunked_bytes > site.policy.max_body:
                    refusal = refusal or BODY_TOO_LARGE
            except BodyError as error:
                refusal = BAD_FRAMING.because(str(error))
        standing = self._standing
        if standing is None or not standing.fits(site.policy, head):
            standing = self._standing = site.policy.standing(head, self.peer, self.secured())
        exchange = site.identity.open(head, standing, site.time())
        exchange.bytes_in = len(body)
        done = not self._remaining and self._decoder is None
        request = self.request = GatewayRequest(self, exchange, standing, body, done, self._trailers)
        if done:
            self._phase = BUSY
            self.deadline = math.inf
        else:
            self._phase = BODY
            self.deadline = site.clock.now + site.timeouts.body
        if refusal is not None:
            request.refuse(refusal)
            return
        try:
            site.dispatch(request)
        except Exception:
            self.log.failure("the resource tree failed")
            request.crashed()

    def _first_of_body(self, head: RequestHead) -> bytes:
        """What has come of the body with the head."""
        buffer = self._buffer
        if head.chunked:
            self._decoder = self.site.reader.body_decoder()
            self._chunked_bytes = 0
            return self._decode(buffer) if buffer else b""
        length = head.length or 0
        body = buffer[:length]
        self._remaining = length - len(body)
        self._buffer = buffer[length:]
        return body

    # -- bodies

    def _decode(self, data: bytes) -> bytes:
        decoder = self._decoder
        assert decoder is not None
        self._buffer = b""
        body = decoder.feed(data)
        self._chunked_bytes = decoder.received
        if decoder.done:
            self._buffer = decoder.rest
            self._trailers = decoder.trailers
            self._decoder = None
        return body

    def _read_body(self, data: bytes) -> None:
        request = self.request
        decoder = self._decoder
        if decoder is not None:
            try:
                body = self._decode(data)
            except BodyError as error:
                self._body_failed(BROKEN, BAD_FRAMING.because(str(error)))
                return
            if decoder.received > self.site.policy.max_body and request is not None:
                self._body_failed(TOO_LARGE, BODY_TOO_LARGE)
                return
            done, trailers = decoder.done, decoder.trailers
        else:
            body = data[: self._remaining]
            self._buffer = data[self._remaining :]
            self._remaining -= len(body)
            done, trailers = not self._remaining, []
        if request is None:
            if done:
                self._settled()
            return
        if body and not self._held:
            # The time that a body has grows with what has come, but never beyond its grace from now.
            timeouts = self.site.timeouts
            self.deadline = min(
                self.deadline + len(body) * self.site.seconds_per_byte, self.site.clock.now + timeouts.body
            )
        request.exchange.bytes_in += len(body)
        if done:
            self._phase = BUSY
            self.deadline = math.inf
            request.body_done = True
        sink = request.sink
        if sink is None:
            return
        if body:
            sink.body_received(body)
        if done and request.sink is sink:
            sink.body_ended(trailers)

    def _body_failed(self, event: str, refusal: Refusal) -> None:
        request = self.request
        self.keep_alive = False
        if request is None:
            self._linger()
        elif request.sink is not None:
            request.sink.client_failed(event)
        else:
            request.refuse(refusal)

    def hold_body(self) -> None:
        """The service does not take the body: the client's time stands still."""
        if not self._held and self._phase in (BODY, TUNNEL):
            self._held = True
            self._held_for = self.deadline - self.site.clock.now
            self.deadline = math.inf
            self._pause_reading()

    def release_body(self) -> None:
        """The service takes the body again."""
        if self._held:
            self._held = False
            if self._phase == BODY:
                self.deadline = self.site.clock.now + self._held_for
            self._resume_reading()

    def _pause_reading(self) -> None:
        if not self._paused and self._phase != GONE:
            self._paused = True
            transport: Any = self.transport
            transport.pauseProducing()

    def _resume_reading(self) -> None:
        if self._paused and not self._held and self._phase != GONE:
            self._paused = False
            transport: Any = self.transport
            transport.resumeProducing()

    # -- a tunnel

    def tunnel(self) -> None:
        """The service has switched protocols: whatever comes, and what has waited, is its."""
        self._phase = TUNNEL
        self.keep_alive = False
        self.deadline = math.inf
        # What stands between, as behind a balancer, is what the transport asks in place of this.
        outer = getattr(self.transport, "protocol", None)
        alsoProvides(outer if hasattr(type(outer), "readConnectionLost") else self, IHalfCloseableProtocol)
        request = self.request
        assert request is not None
        if request.sink is not None:
            self.dataReceived = receive = request.sink.body_received  # type: ignore[method-assign]
            data, self._buffer = self._buffer, b""
            if data:
                receive(data)
        self._resume_reading()

    def end_sending(self) -> bool:
        """Tell the client that no more will come; False where this transport has no half-closed connections."""
        transport: Any = self.transport
        if not hasattr(type(transport), "loseWriteConnection"):
            return False
        transport.loseWriteConnection()
        return True

    def readConnectionLost(self) -> None:
        """The client sends no more, but may still read."""
        if self.request is not None:
            self.request.half_closed()

    def writeConnectionLost(self) -> None:
        """All that was written has been sent, and the end of it."""

    # -- the end of an exchange

    def settle_rest(self) -> None:
        """An answer is about to be sent before its request's body has come: shall the connection go on?"""
        if self._decoder is not None or self._remaining > _SETTLE_BOUND:
            self.keep_alive = False
        elif self.request is not None and self.request.exchange.head.expects:
            self.keep_alive = False  # the client may send the body or not (RFC 9110 section 10.1.1)

    def exchange_over(self, finished: bool) -> None:
        """The request's answer is complete, or never will be."""
        self.request = None
        if self._held:
            self._held = False
            self._resume_reading()
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
        self.deadline = self.site.clock.now + self.site.timeouts.keepalive
        if self._reading:
            return
        data = self._buffer
        if data:
            self._read_heads(data, data)
        if len(self._buffer) <= _PIPELINE_BOUND:
            self._resume_reading()

    def _linger(self) -> None:
        """Close so that the client can read the answer: stop writing, forget what still comes, then close."""
        self._phase = LINGER
        self._buffer = b""
        self._decoder = None
        self.deadline = self.site.clock.now + self.site.timeouts.linger
        self._resume_reading()
        transport: Any = self.transport
        # Asked of the class: a wrapper that passes on what it does not know would half-close beneath itself.
        if hasattr(type(transport), "loseWriteConnection"):
            transport.loseWriteConnection()

    def _close(self) -> None:
        """Close once the client has taken what was written."""
        self._phase = CLOSING
        self._buffer = b""
        self._decoder = None
        self.deadline = self.site.clock.now + self.site.timeouts.idle
        self._resume_reading()
        transport: Any = self.transport
        transport.loseConnection()

    def cut(self, plain: bool) -> None:
        """Close in the midst of an answer; with `plain` what was sent may still arrive."""
        transport: Any = self.transport
        if self._phase == GONE:
            return
        if plain:
            self._close()
        else:
            transport.abortConnection()

    def close_idle(self) -> None:
        """Close if no exchange is under way: the gateway drains."""
        self.keep_alive = False
        if self._phase == IDLE and self._head is None:
            # Its first request may be on the way: it is not turned away unheard.
            site = self.site
            self.deadline = min(self.deadline, site.clock.now + site.timeouts.linger)
        elif self._phase == IDLE:
            self._close()

    def turn_away(self, refusal: Refusal, *, told: bool) -> None:
        """Refuse a connection before it has said anything."""
        if told:
            self._refuse_unread(b"", refusal)
        else:
            transport: Any = self.transport
            transport.abortConnection()

    def give_up(self, refusal: Refusal) -> None:
        """End whatever is under way: with an answer where none has begun, else visibly cut."""
        request = self.request
        if request is not None:
            request.give_up(refusal)
        transport: Any = self.transport
        if transport is not None:
            transport.loseConnection()

    def expire(self) -> None:
        """The deadline has passed."""
        phase = self._phase
        if phase == HEAD:
            self._refuse_unread(self._buffer, REQUEST_TIMEOUT)
        elif phase == BODY and self.request is not None:
            self.keep_alive = False
            self.request.late()
        elif phase in (LINGER, CLOSING) and self.taking():
            timeouts = self.site.timeouts
            self.deadline = self.site.clock.now + (timeouts.linger if phase == LINGER else timeouts.idle)
        elif phase in (IDLE, LINGER):
            self._close()
        elif phase != GONE:
            transport: Any = self.transport
            transport.abortConnection()

    def taking(self) -> bool:
        """Whether the kernel holds less, or more, for the client than when this was last asked."""
        before, self._backlog = self._backlog, backlog(self.transport)
        return self._backlog >= 0 and self._backlog != before

    def under_way(self) -> Iterable[GatewayRequest]:
        """The request that has begun and not ended."""
        return () if self.request is None else (self.request,)

    def getPeer(self) -> IAddress:
        """The address that the connection comes from."""
        transport: Any = self.transport
        return transport.getPeer()  # type: ignore[no-any-return]


def _forget(data: bytes) -> None:
    """The write method of a connection that is gone."""

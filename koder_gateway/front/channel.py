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
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IHandshakeListener, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from ..errors import BAD_FRAMING, BODY_TOO_LARGE, REQUEST_TIMEOUT, URI_TOO_LONG, Refusal
from ..layers.turns import FULL_READ, PIECES, end_turn
from ..policy.clients import plain_host
from ..wire.body import BodyError, ChunkedDecoder
from ..wire.exchange import BROKEN, TOO_LARGE
from ..wire.request import HeadProbe, RequestHead, oversized, sole_origin
from .backlog import backlog
from .http2 import Http2Channel
from .request import GatewayRequest
from .stock import StockChannel
from .unread import Unread

if TYPE_CHECKING:
    from .site import GatewaySite

IDLE, HEAD, BODY, BUSY, TUNNEL, LINGER, CLOSING, GONE = range(8)

# What HTTP/2 over TLS is called in ALPN (RFC 9113 section 3.1).
H2: Final = b"h2"
_HEAD_END: Final = b"\r\n\r\n"
_CR: Final = 0x0D
_NO_TRAILERS: Final[list[bytes]] = []
# The rest of a body that an answer did not wait for is read to the end when it is no more than this.
_SETTLE_BOUND: Final = 65536
# What may wait unread behind the exchange under way before reading pauses.
_PIPELINE_BOUND: Final = 65536
# Of a chunked body as much is decoded before the clock is looked at.
_CHUNKED_PIECE: Final = 16384
# The last head is kept up to this size, in bytes: the next one is mostly the same.
_KEPT_HEAD: Final = 2048
# In which a further request may be read; in which something may still be written; in which nothing is read any more.
_READY: Final = frozenset((IDLE, HEAD, BUSY))
_WRITING: Final = frozenset((IDLE, HEAD, BODY, BUSY, TUNNEL))
_FORGETFUL: Final = frozenset((LINGER, CLOSING, GONE))


@implementer(IHandshakeListener, IPushProducer)
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
        self.lingers = False
        self.write: Callable[[bytes], object] = _forget
        self._phase = IDLE
        self._unread = Unread()
        self._probe: HeadProbe | None = None
        self._remaining = 0
        self._decoder: ChunkedDecoder | None = None
        self._chunked_bytes = 0
        self._trailers = _NO_TRAILERS
        self._standing: Any = None
        self._head: RequestHead | None = None
        self._asked = False
        # Why nothing is read, or nothing more than has been: somebody reads already, the turn is over, the service
        # does not take the body, the client does not take its answers; and whether the transport has been told.
        self._reading = False
        self._turn_over = False
        self._held = False
        self._full = False
        self._paused = False
        self._held_for = 0.0
        # Who is paused while the client does not take its answers; `_pulled` where it is asked for each piece.
        self._producer: Any = None
        self._pulled = False
        self._backlog = -1

    # -- the connection

    def connectionMade(self) -> None:
        """A client has connected; until its first head is complete it has the time for a head."""
        transport: Any = self.transport
        self.peer = plain_host(getattr(transport.getPeer(), "host", None))
        self.write = transport.write
        set_no_delay = getattr(transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(True)
        transport.registerProducer(self, True)
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
            transport.unregisterProducer()
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
        self._unread.clear()
        self._standing = self._head = self._decoder = self._producer = None
        self.__dict__.pop("dataReceived", None)
        self.write = _forget
        self.transport = None

    # -- reading

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client, in pieces of any size."""
        unread, phase = self._unread, self._phase
        if not unread.data:
            if phase == IDLE:
                # One head and nothing else, as almost always.
                size = data.find(_HEAD_END) + len(_HEAD_END)
                if 3 < size == len(data) <= self.site.max_head and data[0] != _CR and not self._full:
                    self._reading = True
                    self._read_head(data)
                    self._reading = False
                    return
            elif phase == BODY and self._decoder is None:
                self._read_length(data)
                if len(data) >= FULL_READ:
                    end_turn(self.transport)
                if unread.data:
                    self._read_on()
                return
        if phase in _FORGETFUL:
            return
        unread.add(data)
        self._read_on()

    def _read_on(self) -> None:
        """Read what there is, while nobody has to be waited for and the slice of this turn lasts."""
        if self._reading or self._turn_over:
            return
        turns = self.site.turns
        until, left = turns.slice(), PIECES
        self._reading = True
        while self._read_piece():
            left -= 1
            if self._unread.data and (not left or turns.time() >= until):
                # Others go first.
                self._turn_over = True
                turns.later(self._next_turn)
                break
        self._reading = False
        self._regulate()

    def _next_turn(self) -> None:
        self._turn_over = False
        if self._phase != GONE:
            self._read_on()

    def _read_piece(self) -> bool:
        """Read one head, or one piece of a body; false where there is none, or where it has to wait."""
        unread, phase = self._unread, self._phase
        if not unread.data:
            return False
        if phase == BODY:
            if self._held:
                return False
            if self._decoder is None:
                self._read_length(unread.take(len(unread)))
            else:
                self._read_chunks(unread.take(_CHUNKED_PIECE))
            return True
        if phase > HEAD or self._full:
            return False
        unread.skip_empty_lines()
        size = unread.head_size()
        if not size or size > self.site.max_head:
            self._keep_partial()
            return False
        self._read_head(unread.take(size))
        return True

    def _regulate(self) -> None:
        """Have the transport read, or not."""
        phase = self._phase
        stop = (
            self._held
            or self._turn_over
            or (self._full and phase in _READY)
            or (phase == BUSY and len(self._unread) > _PIPELINE_BOUND)
        )
        if stop is not self._paused and phase != GONE:
            self._paused = stop
            transport: Any = self.transport
            if stop:
                transport.pauseProducing()
            else:
                transport.resumeProducing()

    # -- what the transport says of the client (IPushProducer)

    def pauseProducing(self) -> None:
        """The client does not take its answers: whoever produces one is paused, and no further request is read."""
        self._full = True
        if self._producer is not None:
            self._producer.pauseProducing()
        if self._phase in (IDLE, HEAD):
            self.deadline = self.site.clock.now + self.site.timeouts.idle
        self._regulate()

    def resumeProducing(self) -> None:
        """The client has taken what was written."""
        self._full = False
        if self._producer is not None:
            self._producer.resumeProducing()
        phase, site = self._phase, self.site
        if phase in (IDLE, HEAD):
            self.deadline = site.clock.now + (site.timeouts.keepalive if phase == IDLE else site.timeouts.head)
        if self._unread.data and not self._turn_over:
            self._turn_over = True
            site.turns.later(self._next_turn)
        else:
            self._regulate()

    def stopProducing(self) -> None:
        """The transport is going away; it says so by `connectionLost` too."""
        if self._producer is not None:
            self._producer.stopProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause and resume `producer` as the client takes its answer; one that is not streaming is asked for more."""
        self._producer = producer
        if not streaming:
            # The transport knows when it has nothing left to send.
            self._pulled = True
            self._full = False
            self._let_go_of_transport()
            self.transport.registerProducer(producer, False)
        elif self._full:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """The producer is done."""
        self._producer = None
        if self._pulled:
            self._pulled = False
            self._let_go_of_transport()
            if self._phase in _WRITING:
                self.transport.registerProducer(self, True)

    def _let_go_of_transport(self) -> None:
        """The transport asks no producer any more, and does not wait for one when it is closed."""
        if self._phase != GONE:
            self.transport.unregisterProducer()

    # -- heads

    def _keep_partial(self) -> None:
        """No whole head yet: look whether it can still become one."""
        unread, site = self._unread, self.site
        size = len(unread)
        if not size:
            return
        if self._phase == IDLE:
            self._phase = HEAD
            self.deadline = site.clock.now + site.timeouts.head
        so_far = unread.so_far()
        if size > site.max_head:
            self._refuse_unread(bytes(so_far[: site.max_head]), oversized(bytes(so_far), site.max_line))
            return
        if size > site.max_line and so_far.find(b"\n", 0, site.max_line + 1) < 0:
            self._refuse_unread(bytes(so_far), URI_TOO_LONG)
            return
        if self._probe is None:
            self._probe = HeadProbe()
        fault = self._probe.fault(unread.new(), so_far)
        if fault is not None:
            self._refuse_unread(bytes(so_far), fault)

    def _read_head(self, raw: bytes) -> None:
        """A head is whole."""
        self._probe = None
        head = self.site.reader.read(raw, self._head)
        # The next one may be the same; a large one is not worth its memory until then.
        self._head = head if len(raw) <= _KEPT_HEAD else None
        self._begin(head)

    def _refuse_unread(self, raw: bytes, refusal: Refusal) -> None:
        """Refuse what is no readable head: nothing after it on this connection is a request."""
        method = raw[:8].partition(b" ")[0]
        head = RequestHead(b"HEAD" if method == b"HEAD" else b"", b"", 1, [])
        head.refusal = refusal.closing()
        head.origin = sole_origin(raw)
        head.keep_alive = False
        self._probe = None
        self._unread.clear()
        self._begin(head)

    def _begin(self, head: RequestHead) -> None:
        """A head is complete: begin its exchange."""
        site = self.site
        self.keep_alive = head.keep_alive and not site.draining and site.timeouts.keepalive > 0
        body, refusal = b"", head.refusal
        self._remaining = 0
        self._trailers = _NO_TRAILERS
        self._asked = True
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
            standing = site.policy.standing(head, self.peer, self.secured())
            self._standing = standing if standing.lasting and self._head is not None else None
            refusal = refusal or site.share_refusal(self, standing)
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
        """What has come of the body with the head, or its first piece."""
        unread = self._unread
        if head.chunked:
            self._decoder = ChunkedDecoder(tenant_header=self.site.policy.tenant_header)
            self._chunked_bytes = 0
            return self._decode(unread.take(_CHUNKED_PIECE)) if unread.data else b""
        length = head.length or 0
        body = unread.take(length) if length and unread.data else b""
        self._remaining = length - len(body)
        return body

    # -- bodies

    def _decode(self, data: bytes) -> bytes:
        decoder = self._decoder
        assert decoder is not None
        body = decoder.feed(data)
        self._chunked_bytes = decoder.received
        if decoder.done:
            self._unread.put_back(decoder.rest)
            self._trailers = decoder.trailers
            self._decoder = None
        return body

    def _read_chunks(self, data: bytes) -> None:
        decoder = self._decoder
        assert decoder is not None
        try:
            body = self._decode(data)
        except BodyError as error:
            self._body_failed(BROKEN, BAD_FRAMING.because(str(error)))
            return
        if decoder.received > self.site.policy.max_body and self.request is not None:
            self._body_failed(TOO_LARGE, BODY_TOO_LARGE)
            return
        self._pass_on(body, decoder.done, decoder.trailers)

    def _read_length(self, data: bytes) -> None:
        remaining = self._remaining
        if len(data) > remaining:
            self._unread.put_back(data[remaining:])
            data = data[:remaining]
        self._remaining -= len(data)
        self._pass_on(data, not self._remaining, _NO_TRAILERS)

    def _pass_on(self, body: bytes, done: bool, trailers: list[bytes]) -> None:
        """Give a piece of the body to whoever takes it."""
        request = self.request
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
            self._regulate()

    def release_body(self) -> None:
        """The service takes the body again."""
        if self._held:
            self._held = False
            if self._phase == BODY:
                self.deadline = self.site.clock.now + self._held_for
            self._read_on()

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
            data = self._unread.take(len(self._unread))
            if data:
                receive(data)
        self._regulate()

    def end_sending(self) -> bool:
        """Tell the client that no more will come; False where this transport has no half-closed connections."""
        transport: Any = self.transport
        if not hasattr(type(transport), "loseWriteConnection"):
            return False
        self._let_go_of_transport()
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
        timeouts = self.site.timeouts
        self.deadline = self.site.clock.now + (timeouts.idle if self._full else timeouts.keepalive)
        if self._unread.data or self._paused:
            self._read_on()

    def _linger(self) -> None:
        """Close so that the client can read the answer: stop writing, forget what still comes, then close."""
        self._phase = LINGER
        self.deadline = self.site.clock.now + self.site.timeouts.linger
        self._forget_rest()
        transport: Any = self.transport
        # Asked of the class: a wrapper that passes on what it does not know would half-close beneath itself.
        if hasattr(type(transport), "loseWriteConnection"):
            transport.loseWriteConnection()

    def _close(self) -> None:
        """Close once the client has taken what was written."""
        self._phase = CLOSING
        self.deadline = self.site.clock.now + self.site.timeouts.idle
        self._forget_rest()
        transport: Any = self.transport
        transport.loseConnection()

    def loseConnection(self) -> None:
        """A stock request asks for the end: once all is written."""
        if not self._pulled:
            self._let_go_of_transport()
        self.transport.loseConnection()

    def _forget_rest(self) -> None:
        """Nothing of what still comes is read, so that it may come, and the transport waits for nobody."""
        self._unread.clear()
        self._decoder = None
        self._held = self._full = False
        self._let_go_of_transport()
        self._regulate()

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
        if self._phase == IDLE and not self._asked:
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
        if self.transport is not None:
            self.loseConnection()

    def expire(self) -> None:
        """The deadline has passed."""
        phase = self._phase
        if self._full and phase in (IDLE, HEAD):
            self._expire_untaken()
        elif phase == HEAD:
            self._refuse_unread(bytes(self._unread.so_far()), REQUEST_TIMEOUT)
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

    def _expire_untaken(self) -> None:
        """Answers wait for a client that has asked for more of them meanwhile."""
        if self.taking():
            self.deadline = self.site.clock.now + self.site.timeouts.idle
        else:
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

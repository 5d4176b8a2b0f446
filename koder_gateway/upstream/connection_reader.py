"""Reads the responses of one connection to a service, one at a time, no faster than its client takes them.

A head may come in any pieces, with interim responses before it. A body ends by its length, by its last chunk, or with
the connection. After any other end, or with bytes behind it, the connection is not used again.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import Any, Final

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from ..exchange.states import CLOSED, INVALID
from ..reactor.read_sizes import MUCH, read_bounded, read_fitting
from ..reactor.turns import ARRIVALS, FULL_READ, LITTLE, end_turn
from ..wire.request_head import RequestHead
from ..wire.response import ResponseError, ResponseHead
from ..wire.upgrade import KEY, switch_fault
from .chunked_response import ChunkedResponse, ChunkSource
from .ports import Forwarded, RespondingService, ResponseReceiver, TunnelEnd

# States. IDLE: pooled. HEAD: waits for a response's head. LENGTH, CHUNKED, UNTIL_CLOSE: reads such a body. WHOLE: the
# response is complete, with nothing behind it. GONE: closed, or about to be.
IDLE, HEAD, LENGTH, CHUNKED, UNTIL_CLOSE, WHOLE, GONE = range(7)

_MAX_HEAD: Final = 65536
_MAX_INTERIM: Final = 32
# A service may send one small chunk an event, for days: framing may outweigh data by this many bytes.
_CHUNK_SLACK: Final = 1 << 20
# Bodies have so many seconds of a turn more than heads: to wait costs their connections as much as some reads do.
_BODIES: Final = ARRIVALS
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_VERSION: Final = b"HTTP/1."
# A 408 that is the first word on a kept connection, so many seconds behind a request, may speak of the time
# before it.
_GAVE_UP_WITHIN: Final = 1.0


@implementer(IPushProducer)
class ConnectionReader(Protocol, ChunkSource):
    """The half of a connection that reads. The client pauses it, as a push producer, while it takes nothing.

    `relay` gets the present response; `tunnel` is in its place once the service has switched protocols. `reused`: an
    exchange has been served before. `heard`: bytes of the present response have come. `begun` is when the present
    request was sent (monotonic seconds), `kept_for` how many the service keeps an idle connection, None where it has
    not said.
    """

    begun = 0.0
    kept_for: int | None = None
    # What of a response has come when the turn was over.
    _late = b""
    _bounded = False
    _exact = False
    # Whether the present response is large: no more of it is read at once than its client takes.
    _large = False
    # Whether one has been: then the first read of a later one is bounded.
    _bulky = False

    def __init__(self, service: RespondingService) -> None:
        self.relay: ResponseReceiver | None = None
        self.tunnel: TunnelEnd | None = None
        self.reused = False
        self.heard = False
        self.paused = False
        self._service = service
        self._state = IDLE
        self._buffer: bytes | bytearray = b""
        # What is to come of a body; without a known length, how many bytes until it is large.
        self._remaining = 0
        self._chunks: ChunkedResponse | None = None
        self._keep_alive = False
        self._interim = 0

    @abstractmethod
    def abort(self) -> None:
        """Close at once; nothing more is sent or read."""

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the service, in pieces of any size."""
        relay = self.relay
        if relay is None:
            if self.tunnel is not None:
                self.tunnel.body(data)
            else:
                # Nobody asked: whatever this is, no later request may get it.
                self.abort()
            return
        self.heard = True
        state = self._state
        # A little of a body, such as an event, is passed on at once. So is any of it over HTTP/2, which sends it in
        # turns of its own: if a hundred streams of a client waited here, none would pause the others.
        if state == HEAD or self._late or (len(data) > LITTLE and not relay.exchange.head.http2):
            turns = self._service.turns
            patience = 0.0 if state == HEAD else _BODIES
            # Two steps, as in `tls.stream`.
            if self._late or (turns is not None and turns.time() >= turns.ends + patience and turns.over()):
                self._put_off(relay, data)
                return
        self._read(relay, data)

    def _read(self, relay: ResponseReceiver, data: bytes) -> None:
        state = self._state
        if state == HEAD:
            self._read_head(relay, data)
        elif state == LENGTH:
            self._read_length(relay, data)
        else:
            if self._chunks is not None:
                self._chunks.feed(data)
            else:
                relay.body(data)
            if not self._large and self.relay is relay:
                self._count(len(data))
        if len(data) >= MUCH:
            if self._large:
                # By now more may wait than when it began.
                self._read_much()
            if len(data) >= FULL_READ:
                end_turn(self.transport)

    # -- the turn

    def _put_off(self, relay: ResponseReceiver, data: bytes) -> None:
        """The turn is over: a response that begins now, and much of its body, is read in a later one. It waits in the
        line of its client's address, so that one client's thousand responses do not come before those of others."""
        first, self._late = not self._late, self._late + data
        if first:
            self.hold()
            self._ask_turn(relay)

    def _ask_turn(self, relay: Forwarded) -> None:
        turns = self._service.turns
        if turns is not None:
            turns.arrived(len(self._late), relay.exchange.context.key, self._next_turn)

    def _next_turn(self) -> None:
        if self._late and not self.paused:
            self._read_late()
            if self._chunks is None or not self._chunks.holding:
                self.read_on()

    def _read_late(self) -> None:
        """Read what was put off."""
        data, self._late = self._late, b""
        if self.relay is not None:
            self._read(self.relay, data)

    # -- the head

    def _read_head(self, relay: ResponseReceiver | None, data: bytes) -> None:
        buffer = self._buffer
        if buffer:
            assert isinstance(buffer, bytearray)
            before = len(buffer)
            buffer += data
            if buffer.find(b"\r\n\r\n", max(0, before - 3)) < 0:
                self._look_at_partial(buffer, max(0, before - 1))
                return
            data = bytes(buffer)
            self._buffer = b""
        while relay is not None:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = bytearray(data)
                self._look_at_partial(self._buffer, 0)
                return
            end += 4
            raw, data = (data, b"") if end == len(data) else (data[:end], data[end:])
            exchange = relay.exchange
            try:
                if end > _MAX_HEAD:
                    raise ResponseError("its head is over the limit")
                reader = self._service.reader
                head = reader.read(
                    raw, exchange.head.method == b"HEAD", exchange.limited, exchange.drops_hsts, exchange.readable
                )
                if head.status == 101:
                    _check_switch(exchange.head, head)
                elif exchange.head.upgrade is not None and 200 <= head.status < 300 and relay.client.connects:
                    raise ResponseError(f"it answered a CONNECT with {head.status} instead of switching protocols")
            except ResponseError as error:
                relay.failed(INVALID, str(error))
                return
            if head.status >= 200:
                if head.status == 408 and self._may_have_crossed(head) and relay.may_repeat():
                    self.heard = False
                    relay.failed(CLOSED, "it closed a kept-alive connection with 408 as the request arrived")
                    return
                self._buffer = b""
                self._begin_body(relay, head, data)
                return
            if head.status == 101:
                self._buffer = b""
                relay.switched(head, data)
                return
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                relay.failed(INVALID, "it sent too many interim responses")
                return
            relay.interim(head)
            relay = self.relay
            if not data:
                self._buffer = b""
                return

    def _may_have_crossed(self, head: ResponseHead) -> bool:
        """Whether this 408 may be about the time in which the connection was idle, as services say it that close then
        (RFC 9110 section 15.5.9). It looks the same where the service has read the request, so a request is repeated
        only where that does no harm; for any other the 408 is its response."""
        unasked = self.reused and not head.keep_alive and not self._interim
        return unasked and self._service.clock.now - self.begun < _GAVE_UP_WITHIN

    def _look_at_partial(self, so_far: bytearray, position: int) -> None:
        """What has come of a head, from `position` on not looked at yet."""
        fault = _partial_fault(so_far, position)
        if fault is not None and self.relay is not None:
            self.relay.failed(INVALID, fault)

    # -- the body

    def _begin_body(self, relay: ResponseReceiver, head: ResponseHead, data: bytes) -> None:
        """The final head is here, with `data` after it."""
        self._keep_alive = head.keep_alive
        self.kept_for = head.kept_for
        length = head.length
        if length is not None:
            surplus = len(data) - length
            if surplus >= 0:
                if surplus:
                    # Bytes after the end of a response: the connection is not used again.
                    data = data[:length]
                    self._keep_alive = False
                else:
                    self._state = WHOLE
                relay.answered(head, data, True, self._keep_alive)
                return
            self._state = LENGTH
            self._remaining = -surplus
            relay.answered(head, data, False, False)
            if surplus <= -MUCH and self.relay is relay:
                self._read_much()
            return
        if head.chunked:
            self._state = CHUNKED
            service = self._service
            decoder = service.reader.body_decoder(head, _CHUNK_SLACK)
            self._chunks = ChunkedResponse(self, relay, decoder, service.turns)
            self._chunks.begin(head, data)
        else:
            self._state = UNTIL_CLOSE
            relay.answered(head, data, False, False)
        if self.relay is relay:
            self._remaining = MUCH
            self._count(len(data))

    def _read_length(self, relay: ResponseReceiver, data: bytes) -> None:
        remaining = self._remaining - len(data)
        self._remaining = remaining
        if remaining > 0:
            relay.body(data)
            return
        relay.body(data[:remaining] if remaining else data)
        if self.relay is relay:
            if not remaining:
                self._state = WHOLE
            relay.ended([], self._keep_alive and not remaining)

    def chunks_ended(self, relay: ResponseReceiver, trailers: list[bytes], surplus: bool) -> None:
        """The last chunk has been read."""
        if not surplus and self._state == CHUNKED:
            self._state = WHOLE
        relay.ended(trailers, self._keep_alive and not surplus)

    # -- how much is read at once

    def _count(self, size: int) -> None:
        """More of a body without a known length: small reads too make a large response."""
        self._remaining -= size
        if self._remaining <= 0:
            self._read_much()

    def _read_much(self) -> None:
        """The response is large, by its length or by what has come of it, and what is read waits for its client: read
        no more at once than there is room for. Before the next read, which would take all that has come by then."""
        relay, first = self.relay, not self._large
        if relay is not None:
            self._large = self._bulky = True
            if relay.client.crowded:
                self.bound_reads()
            elif first and not self._bounded:
                read_fitting(self.transport, self._room)

    def bound_reads(self) -> None:
        """Read no more at once of this response than there is room for on its way to the client."""
        if not self._bounded and self.transport is not None:
            self._bounded = True
            read_bounded(self.transport, self._room)

    def read_what_fits(self) -> bool:
        """Read nothing that does not leave at once; whether this transport can do that to the byte."""
        exactly = getattr(self.transport, "read_exactly", None)
        if exactly is None:
            self.bound_reads()
        elif not self._exact:
            self._bounded = self._exact = True
            exactly(self._room)
        return self._exact

    def _room(self) -> int:
        source = self.relay or self.tunnel
        return 0 if source is None else source.client.room()

    # -- IPushProducer, for the client's transport

    def pauseProducing(self) -> None:
        """The client does not take the response as fast as it comes."""
        if (self.relay is not None or self.tunnel is not None) and not self.paused:
            self.paused = True
            self.hold()

    def hold(self) -> None:
        """Read nothing until there is a turn."""
        transport: Any = self.transport
        if transport is not None:
            transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The client takes the response again."""
        if self.paused:
            self.paused = False
            source = self.relay or self.tunnel
            if source is not None:
                source.progressed()
            if self._late and self.relay is not None:
                self._ask_turn(self.relay)
            elif self._chunks is None or not self._chunks.go_on():
                self._resume()

    def read_on(self) -> None:
        """What has been read is passed on: read more, unless the client does not take it."""
        if not self.paused:
            self._resume()

    def _resume(self) -> None:
        transport: Any = self.transport
        if transport is not None and self._state != GONE:
            transport.resumeProducing()

    def stopProducing(self) -> None:
        """The client's transport is going away; its protocol says so to the relay."""


def _partial_fault(so_far: bytearray, position: int) -> str | None:
    """What is wrong with the beginning of a head, from `position` on not looked at yet; None for nothing so far."""
    if not so_far.startswith(_VERSION[: len(so_far)]):
        return "it does not begin with an HTTP/1 status line"
    if _BARE_LF.search(so_far, position):
        return "a line of its head ends without CR LF"
    return "its head is over the limit" if len(so_far) > _MAX_HEAD else None


def _check_switch(request: RequestHead, head: ResponseHead) -> None:
    """Raise ResponseError for a 101 that is no response to this request."""
    key = request.value(KEY)
    reason = switch_fault(request.upgrade, key and key.strip(b" \t"), head.upgrade, head.lines)
    if reason:
        raise ResponseError(reason)

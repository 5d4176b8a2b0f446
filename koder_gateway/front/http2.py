"""One client connection over HTTP/2: takes its frames apart, keeps its windows and its tables (RFC 9113).

    OPENING ──preface and SETTINGS──► OPEN ──GOAWAY, last stream over──► CLOSING ──all sent──► GONE
        └──────────── an error ────────┴──► LINGER ──quiet──► CLOSING

Frames that ask for work and give none (resets, pings, settings, empty ones) are paid for from a patience that
grows again with time and with what is served: whoever uses it up gets GOAWAY with ENHANCE_YOUR_CALM. What is sent
in one turn of the reactor leaves in one write.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import Refusal
from ..wire import frames
from ..wire.frames import (
    ACK,
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    HEADER,
    HEADER_SIZE,
    MAX_STREAM,
    MAX_WINDOW,
    NO_ERROR,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WITH_PRIORITY,
    Http2Error,
    StreamError,
)
from ..wire.http2 import HeadReader, read_trailers
from ..wire.patience import FRAME, RESET, SERVED, WINDOW, WORTH_WHILE, Patience
from ..wire.request import RequestHead
from .backlog import backlog
from .http2_request import Http2Request
from .inflow import CONNECTION_WINDOW, STREAM_WINDOW, ConnectionWindow
from .outbox import Outbox
from .stream import Stream

if TYPE_CHECKING:
    from .request import GatewayRequest
    from .site import GatewaySite

OPENING, OPEN, LINGER, CLOSING, GONE = range(5)

# Streams that were reset here, on which the client may still be sending what it sent before it knew.
_RESETS_REMEMBERED: Final = 128
_BLOCK_SLACK: Final = 1024
# Seconds that a stream waits for a window to open further before it fills what there is.
_HELD_BACK: Final = 0.2
_MAX_CONTINUATIONS: Final = 32


class Http2Channel(Protocol):
    """Takes over a connection on which ALPN has chosen h2. `streams` are those that are open, by their numbers."""

    log = Logger()

    def __init__(self, site: GatewaySite, transport: Any, peer: str) -> None:
        self.site = site
        self.transport = transport
        self.peer = peer
        self.secured = site.secured(transport)
        self.streams: dict[int, Stream] = {}
        self.deadline = math.inf
        self.out = Outbox(transport, site.soon, self._held_back)
        self.window = ConnectionWindow(self.out)
        self.patience = Patience(site.clock.now)
        self._phase = OPENING
        self._buffer = b""
        self._heads = HeadReader(site.max_head)
        self._last = 0
        self._current = 0
        self._block: list[bytes] = []
        self._block_stream = 0
        self._block_flags = 0
        self._block_size = 0
        self._block_due = math.inf
        self._standing: Any = None
        self._resets: dict[int, None] = {}
        # As announced: a reload holds for connections to come.
        self._max_streams = site.max_streams
        # When the connection has had nothing to do for too long; when a drain has the last stream said.
        self._idle_due = math.inf
        self._last_due = math.inf
        self._client_leaves = False
        self._draining = False
        self._said_last = MAX_STREAM
        self._windows_opened = False
        self._backlog = -1
        self._handlers: tuple[Callable[[int, int, bytes], None], ...] = (
            self._on_data,
            self._on_headers,
            self._on_priority,
            self._on_reset,
            self._on_settings,
            self._on_push,
            self._on_ping,
            self._on_goaway,
            self._on_window,
            self._on_continuation,
        )

    # -- the connection

    def start(self) -> None:
        """Say the settings; the client's preface comes next."""
        site = self.site
        self.deadline = site.clock.now + site.timeouts.head
        self.out.open()
        settings = {
            frames.ENABLE_CONNECT_PROTOCOL: int(site.reader.upgrades),
            frames.MAX_CONCURRENT_STREAMS: self._max_streams,
            frames.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            frames.MAX_HEADER_LIST_SIZE: site.max_head,
        }
        self.out.send(frames.settings_frame(settings) + frames.window_frame(0, CONNECTION_WINDOW - DEFAULT_WINDOW))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone, and so is every exchange on it."""
        self._phase = GONE
        self.deadline = math.inf
        self.out.drop()
        self.site.closed(self)
        for stream in list(self.streams.values()):
            stream.reset()
        self._heads.forget()
        self._handlers = ()
        self._standing = None
        self._buffer = b""
        self.transport = None

    def dataReceived(self, data: bytes) -> None:
        """Frames, in pieces of any size."""
        if self._phase > OPEN:
            return
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        self.out.gathering = True
        try:
            if self._phase == OPENING:
                data = self._open(data)
            if data:
                self._read(data)
            if self._windows_opened and self._phase == OPEN:
                self._windows_opened = False
                self.out.reopened()
        except Http2Error as error:
            self._fail(error)
        self.out.gathering = False
        self.out.flush()

    def _open(self, data: bytes) -> bytes:
        """The client's preface (section 3.4); what comes after it."""
        preface = data[: len(PREFACE)]
        if preface != PREFACE[: len(preface)]:
            raise Http2Error(PROTOCOL_ERROR, "the connection preface is malformed")
        if len(data) < len(PREFACE) + HEADER_SIZE:
            self._buffer = data
            return b""
        _, _, kind, flags, _ = HEADER.unpack_from(data, len(PREFACE))
        if kind != SETTINGS or flags & ACK:
            raise Http2Error(PROTOCOL_ERROR, "the first frame is no SETTINGS frame")
        self._phase = OPEN
        timeouts = self.site.timeouts
        self._idle_due = self.deadline = self.site.clock.now + max(timeouts.head, timeouts.keepalive)
        self.wake(self._last_due)
        return data[len(PREFACE) :]

    def _read(self, data: bytes) -> None:
        """Each whole frame in `data`; the rest is kept. Raises Http2Error."""
        position, end = 0, len(data)
        unpack = HEADER.unpack_from
        handlers = self._handlers
        while end - position >= HEADER_SIZE:
            high, low, kind, flags, stream = unpack(data, position)
            size = high << 8 | low
            if size > DEFAULT_FRAME_SIZE:
                raise Http2Error(FRAME_SIZE_ERROR, "a frame is over SETTINGS_MAX_FRAME_SIZE")
            start = position + HEADER_SIZE
            position = start + size
            if position > end:
                frames.check_header(kind, size, stream & MAX_STREAM)
                position = start - HEADER_SIZE
                break
            stream &= MAX_STREAM
            if self._block_stream and (kind != frames.CONTINUATION or stream != self._block_stream):
                raise Http2Error(PROTOCOL_ERROR, "a field block is interrupted by another frame")
            if kind > frames.CONTINUATION:
                self._spend(FRAME)
                continue
            self._current = stream
            try:
                handlers[kind](flags, stream, data[start:position])
            except StreamError as error:
                self._fail_stream(self._current, error)
            if self._phase != OPEN:
                return
        self._buffer = data[position:]

    # -- errors and abuse

    def _fail(self, error: Http2Error) -> None:
        """The client broke the protocol: say why, end every stream, and close so that it can read that."""
        self._phase = LINGER
        self.site.http2_errors += 1
        self.out.send(frames.goaway_frame(min(self._last, self._said_last), error.code, error.reason))
        self._said_last = self._last
        for stream in list(self.streams.values()):
            stream.fail_silently(error.code)
        self._linger()

    def _fail_stream(self, number: int, error: StreamError) -> None:
        """End one stream. To provoke this is as cheap for a client as to reset, so it costs the same."""
        self._spend(RESET)
        stream = self.streams.get(number)
        if stream is not None:
            stream.fail(error.code)
        else:
            self.was_reset(number)
            self.out.send(frames.reset_frame(number, error.code))

    def _spend(self, cost: float) -> None:
        self.patience.spend(cost, self.site.clock.now)

    # -- requests

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number & 1:
            raise Http2Error(PROTOCOL_ERROR, "a client's streams have odd numbers")
        block = frames.unpadded(flags, payload)
        if flags & WITH_PRIORITY:
            if len(block) < 5:
                raise Http2Error(FRAME_SIZE_ERROR, "a HEADERS frame ends within its priority")
            if frames.word(block) == number:
                raise Http2Error(PROTOCOL_ERROR, "a stream depends on itself")
            block = block[5:]
        if flags & END_HEADERS:
            self._take_block(number, flags & END_STREAM, block)
            return
        self._block_stream, self._block_flags = number, flags
        self._block, self._block_size = [block], len(block)
        self._block_due = self.site.clock.now + self.site.timeouts.head
        self.wake(self._block_due)

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if not self._block_stream:
            raise Http2Error(PROTOCOL_ERROR, "a CONTINUATION frame continues nothing")
        self._block.append(payload)
        self._block_size += len(payload)
        if self._block_size > self.site.max_head + _BLOCK_SLACK or len(self._block) > _MAX_CONTINUATIONS:
            raise Http2Error(ENHANCE_YOUR_CALM, "a field block is over the limit")
        if flags & END_HEADERS:
            block, self._block = b"".join(self._block), []
            self._block_stream, self._block_due = 0, math.inf
            self._take_block(number, self._block_flags & END_STREAM, block)

    def _take_block(self, number: int, ended: int, block: bytes) -> None:
        """A whole field block. Whatever becomes of its stream, the table has to follow it."""
        if number > self._last:
            self._open_stream(number, ended, block)
            return
        fields = self._heads.decode(block)
        stream = self.streams.get(number)
        if stream is None:
            if number not in self._resets:
                raise Http2Error(STREAM_CLOSED, "HEADERS on a stream that is closed")
            self._spend(FRAME)
        elif stream.remote_done:
            raise StreamError(STREAM_CLOSED, "HEADERS on a stream that its client has ended")
        elif not ended:
            raise StreamError(PROTOCOL_ERROR, "trailers that do not end their stream")
        else:
            stream.receive_trailers(read_trailers(fields, self.site.policy.tenant_header))

    def _open_stream(self, number: int, ended: int, block: bytes) -> None:
        self._last = number
        site = self.site
        head = self._heads.read(block, ended, site.reader)
        if number > self._said_last:
            # The client knows that it is not going to be answered here, or is about to hear of it.
            self.was_reset(number)
            self._spend(FRAME)
            return
        if len(self.streams) >= self._max_streams:
            raise StreamError(REFUSED_STREAM, "more streams than SETTINGS_MAX_CONCURRENT_STREAMS")
        unknown = head.chunked or head.upgrade is not None or head.refusal is not None
        length = None if unknown else head.length
        stream = Stream(self, number, bool(ended), length)
        if not self.streams:
            self._idle_due = math.inf
            self.deadline = min(self._block_due, self._last_due)
        self.streams[number] = stream
        self._begin(stream, head)

    def _begin(self, stream: Stream, head: RequestHead) -> None:
        """A head is complete: begin its exchange."""
        site = self.site
        standing = self._standing
        if standing is None or not standing.fits(site.policy, head):
            standing = self._standing = site.policy.standing(head, self.peer, self.secured)
        exchange = site.identity.open(head, standing, site.time())
        stream.upgrading = head.upgrade is not None
        done = stream.remote_done or stream.upgrading
        request = stream.request = Http2Request(stream, exchange, standing, b"", done, [])  # type: ignore[arg-type]
        if not done:
            stream.deadline = site.clock.now + site.timeouts.body
            self.wake(stream.deadline)
        if head.refusal is not None:
            request.refuse(head.refusal)
            return
        try:
            site.dispatch(request)
        except Exception:
            self.log.failure("the resource tree failed")
            request.crashed()

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self.window.take(size)
        data = frames.unpadded(flags, payload)
        stream = self.streams.get(number)
        if stream is None:
            if not number or number > self._last:
                raise Http2Error(PROTOCOL_ERROR, "DATA on a stream that is idle")
            self.window.pay(size)
            self._spend(FRAME)
            if number not in self._resets:
                raise StreamError(STREAM_CLOSED, "DATA on a stream that is closed")
            return
        ended = flags & END_STREAM
        if not data and not ended:
            self._spend(FRAME)
        try:
            stream.receive(data, bool(ended), size)
        except StreamError:
            # The stream ends with these bytes untaken; to the connection's window they count.
            self.window.pay(size)
            raise

    def _on_reset(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Http2Error(FRAME_SIZE_ERROR, "an RST_STREAM frame is not four bytes")
        if not number or number > self._last:
            raise Http2Error(PROTOCOL_ERROR, "RST_STREAM on a stream that is idle")
        stream = self.streams.get(number)
        if stream is not None:
            stream.reset()
        self._spend(RESET)

    # -- the rest of the protocol

    def _on_priority(self, flags: int, number: int, payload: bytes) -> None:
        if not number:
            raise Http2Error(PROTOCOL_ERROR, "PRIORITY on the connection itself")
        if len(payload) != 5:
            # On an idle stream a reset would break the protocol as well.
            raise Http2Error(FRAME_SIZE_ERROR, "a PRIORITY frame is not five bytes")
        if frames.word(payload) == number:
            raise Http2Error(PROTOCOL_ERROR, "a stream depends on itself")
        self._spend(FRAME)

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise Http2Error(PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & ACK:
            if payload:
                raise Http2Error(FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS with a payload")
            self._spend(FRAME)
            return
        # Of several values for one setting the last holds; each costs, since each could be for all streams.
        settings = dict(values := frames.settings_values(payload))
        self._spend(RESET + FRAME * len(values))
        if frames.MAX_FRAME_SIZE in settings:
            # Larger frames would let one stream hold up the others for longer.
            self.out.max_frame = min(settings[frames.MAX_FRAME_SIZE], DEFAULT_FRAME_SIZE)
        if frames.INITIAL_WINDOW_SIZE in settings:
            self._resize_windows(settings[frames.INITIAL_WINDOW_SIZE])
        self.out.send(frames.frame(SETTINGS, ACK, 0, b""))

    def _resize_windows(self, size: int) -> None:
        grown = size - self.out.initial_window
        self.out.initial_window = size
        try:
            for stream in self.streams.values():
                stream.outflow.grant(grown)
        except StreamError as error:
            raise Http2Error(error.code, error.reason) from None
        self.out.pump()

    def _on_push(self, flags: int, number: int, payload: bytes) -> None:
        raise Http2Error(PROTOCOL_ERROR, "a client must not push")

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise Http2Error(PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise Http2Error(FRAME_SIZE_ERROR, "a PING frame is not eight bytes")
        self._spend(FRAME)
        if not flags & ACK:
            self.out.send(frames.frame(PING, ACK, 0, payload))
        elif self._draining and self._said_last == MAX_STREAM:
            self._say_last()

    def _on_goaway(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise Http2Error(PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise Http2Error(FRAME_SIZE_ERROR, "a GOAWAY frame is shorter than eight bytes")
        self._spend(RESET)
        self._client_leaves = True
        if not self.streams:
            self._close()

    def _on_window(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Http2Error(FRAME_SIZE_ERROR, "a WINDOW_UPDATE frame is not four bytes")
        size = frames.word(payload)
        self._spend(WINDOW if size >= WORTH_WHILE else FRAME)
        if not number:
            if not size:
                raise Http2Error(PROTOCOL_ERROR, "a window is enlarged by nothing")
            self.out.window += size
            if self.out.window > MAX_WINDOW:
                raise Http2Error(FLOW_CONTROL_ERROR, "the connection's window is over 2^31-1 bytes")
            # Filled once all is read: what opens in several steps is filled in one.
            self._windows_opened = True
            return
        if number > self._last or not number & 1:
            raise Http2Error(PROTOCOL_ERROR, "WINDOW_UPDATE on a stream that is idle")
        if not size:
            raise StreamError(PROTOCOL_ERROR, "a window is enlarged by nothing")
        stream = self.streams.get(number)
        if stream is not None:
            stream.outflow.grant(size)
            self._windows_opened = True

    # -- what streams ask of their connection

    def was_reset(self, number: int) -> None:
        """Remember a stream that was reset here."""
        if len(self._resets) >= _RESETS_REMEMBERED:
            del self._resets[next(iter(self._resets))]
        self._resets[number] = None

    def stream_over(self, stream: Stream, served: bool) -> None:
        """A stream is closed; `served`: its answer was sent to the end."""
        if self.streams.pop(stream.number, None) is None:
            return
        if served:
            self.patience.earn(SERVED)
        if not self.streams and self._phase == OPEN:
            if self._client_leaves or self._said_last != MAX_STREAM:
                self._close()
            else:
                self._idle_due = self.site.clock.now + self.site.timeouts.keepalive
                self.deadline = min(self._idle_due, self._block_due, self._last_due)

    def _held_back(self) -> None:
        self.wake(self.site.clock.now + _HELD_BACK)

    def wake(self, deadline: float) -> None:
        """Be looked at when this deadline passes."""
        self.deadline = min(self.deadline, deadline)

    # -- the transport

    def getPeer(self) -> IAddress:
        """The address that the connection comes from."""
        transport: Any = self.transport
        return transport.getPeer()  # type: ignore[no-any-return]

    def getHost(self) -> IAddress:
        """The address that the client has connected to."""
        transport: Any = self.transport
        return transport.getHost()  # type: ignore[no-any-return]

    def taking(self) -> bool:
        """Whether the kernel holds less, or more, for the client than when this was last asked."""
        before, self._backlog = self._backlog, backlog(self.transport)
        return self._backlog >= 0 and self._backlog != before

    # -- the end

    def _linger(self) -> None:
        """Close so that the client can read what was said: stop writing, forget what still comes, then close."""
        self._phase = LINGER
        self._buffer = b""
        self.out.close()
        transport: Any = self.transport
        if transport is None:
            return
        self.deadline = self.site.clock.now + self.site.timeouts.linger
        if hasattr(type(transport), "loseWriteConnection"):
            transport.loseWriteConnection()

    def _close(self) -> None:
        """Close once the client has taken what was written."""
        if self._phase >= CLOSING:
            return
        lingering = self._phase == LINGER
        self._phase = CLOSING
        self._buffer = b""
        if not lingering:
            self.out.close()
        self.deadline = self.site.clock.now + self.site.timeouts.idle
        transport: Any = self.transport
        transport.loseConnection()

    def under_way(self) -> Iterable[GatewayRequest]:
        """The requests that have begun and not ended."""
        return [stream.request for stream in self.streams.values() if stream.request is not None]

    def close_idle(self) -> None:
        """The gateway drains: take no further requests than those that are on their way (section 6.8)."""
        if self._phase > OPEN or self._draining:
            return
        self._draining = True
        self.out.send(frames.goaway_frame(MAX_STREAM, NO_ERROR) + frames.frame(PING, 0, 0, b"draining"))
        self._last_due = self.site.clock.now + self.site.timeouts.linger
        self.wake(self._last_due)

    def _say_last(self) -> None:
        """The client has had the time to hear of the end: what it begins now is not answered any more."""
        self._said_last = self._last
        self._last_due = math.inf
        self.out.send(frames.goaway_frame(self._last, NO_ERROR))
        if not self.streams:
            self._close()

    def give_up(self, refusal: Refusal) -> None:
        """End whatever is under way: with an answer where none has begun, else visibly cut."""
        for request in self.under_way():
            request.give_up(refusal)
        if self._phase <= OPEN:
            self.out.send(frames.goaway_frame(self._last, NO_ERROR))
        self._close()

    def expire(self) -> None:
        """A deadline has passed: the connection's own or one of its streams'."""
        now = self.site.clock.now
        phase = self._phase
        if phase == OPENING:
            self._fail(Http2Error(frames.SETTINGS_TIMEOUT, "no connection preface in time"))
        elif phase == OPEN:
            self._expire_open(now)
        elif phase in (LINGER, CLOSING) and self.taking():
            timeouts = self.site.timeouts
            self.deadline = now + (timeouts.linger if phase == LINGER else timeouts.idle)
        elif phase == LINGER:
            self._close()
        elif phase == CLOSING:
            transport: Any = self.transport
            transport.abortConnection()

    def _expire_open(self, now: float) -> None:
        if self._block_due <= now:
            self._fail(Http2Error(ENHANCE_YOUR_CALM, "a field block did not arrive in time"))
            return
        if self._last_due <= now:
            self._say_last()
        if self._idle_due <= now and self._phase == OPEN:
            self.out.send(frames.goaway_frame(self._last, NO_ERROR))
            self._close()
        if self._phase != OPEN:
            return
        for stream in [stream for stream in self.streams.values() if stream.deadline <= now]:
            if stream.deadline <= now:
                stream.expire()
        if self.out.held:
            self.out.force()
        if self._phase == OPEN:
            dues = [stream.deadline for stream in self.streams.values()]
            self.deadline = min(self._idle_due, self._block_due, self._last_due, *dues)
            if self.out.held:
                self._held_back()

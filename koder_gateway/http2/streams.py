"""The streams of one HTTP/2 connection: opened by HEADERS, fed by DATA, ended by RST_STREAM (RFC 9113 section 5)."""

from __future__ import annotations

from typing import Final

from ..errors import Refusal
from ..exchange.context import RequestContext
from ..exchange.opening import HeadSource, open_exchange
from ..policy.decision import Policy
from ..policy.limit_keys import address_key
from ..reactor.turns import PIECES
from ..wire import http2_frames
from ..wire.flood_budget import EXCESS_BYTE, EXCESS_FIELD, FRAME, RESET, SERVED
from ..wire.hpack import OversizedBlock
from ..wire.http2_frames import (
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    WITH_PRIORITY,
    Http2Error,
    StreamError,
)
from ..wire.http2_head import HeadReader, read_trailers
from ..wire.request_head import RequestHead
from ..wire.small_data import gather
from .header_block import HeaderBlock
from .phases import OPEN
from .ports import Connection, OpenStreams
from .request import Http2Request
from .send_window import SendWindow
from .stream import Stream

# Streams that were reset here, on which the client may still be sending what it sent before it knew.
_RESETS_REMEMBERED: Final = 128


class Streams(OpenStreams, HeadSource):
    """Those that are `open`, by their numbers; `last` is the highest number that the client has used.

    `block` is the field block that is still arriving, `heads` reads those that are complete.
    """

    def __init__(self, connection: Connection, heads: HeadReader) -> None:
        self.open: dict[int, Stream] = {}
        self.last = 0
        self.block = HeaderBlock()
        # As announced: a reload holds for connections to come.
        self.max_streams = connection.site.max_streams
        self._connection = connection
        self.peer = connection.peer
        self.heads = heads
        self._context: RequestContext | None = None
        self._resets: dict[int, None] = {}

    def __len__(self) -> int:
        """How many are open."""
        return len(self.open)

    def send_windows(self) -> list[SendWindow]:
        """What each of those that are open sends."""
        return [stream.send_window for stream in self.open.values()]

    # -- field blocks

    def on_headers(self, flags: int, number: int, payload: bytes) -> None:
        """A request begins, or trailers end its body (section 8.1)."""
        if not number & 1:
            raise Http2Error(PROTOCOL_ERROR, "a client's streams have odd numbers")
        block = http2_frames.unpadded(flags, payload)
        if flags & WITH_PRIORITY:
            if len(block) < 5:
                raise Http2Error(FRAME_SIZE_ERROR, "a HEADERS frame ends within its priority")
            if http2_frames.read_uint31(block) == number:
                raise Http2Error(PROTOCOL_ERROR, "a stream depends on itself")
            block = block[5:]
        if flags & END_HEADERS:
            self._take_block(number, flags & END_STREAM, block)
            return
        connection = self._connection
        self.block.begin(number, flags, block, connection.site.clock.now + connection.site.timeouts.head)
        connection.wake(self.block.due)

    def on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        """More of the field block that is still arriving (section 6.10)."""
        block = self.block
        if not block.stream:
            raise Http2Error(PROTOCOL_ERROR, "a CONTINUATION frame without an open field block")
        if not block.add(payload, self._connection.site.max_head):
            self._connection.spend(FRAME + len(payload) * EXCESS_BYTE)
        if flags & END_HEADERS:
            self._take_block(number, block.ended, block.whole())

    def _take_block(self, number: int, ended: int, block: bytes | None) -> None:
        """A whole field block; None for one that was too large to be kept. Whatever becomes of its stream, the table
        has to follow it: where it cannot, no further request is taken."""
        try:
            if number > self.last:
                self._open_stream(number, ended, block)
            else:
                self._take_trailers(number, ended, block)
        except StreamError as error:
            self.fail(number, error)
        if self.heads.lost and self._connection.lifecycle.phase == OPEN:
            self._connection.lifecycle.turn_away(OversizedBlock())

    def _take_trailers(self, number: int, ended: int, block: bytes | None) -> None:
        """A field block that begins no request. Once the table is lost nobody knows what trailers say: they are left
        out, as any may be (RFC 9110 section 6.5)."""
        unknown = self.heads.lost
        fields = self.heads.decode(block)
        if fields is None and block is not None and not self.heads.lost:
            self._charge(block)
        stream = self.open.get(number)
        if stream is None:
            if number > self._connection.lifecycle.said_last:
                self._pass_over(block)
                return
            if number not in self._resets:
                raise Http2Error(STREAM_CLOSED, "HEADERS on a stream that is closed")
            self._connection.spend(RESET)
        elif stream.remote_done:
            raise StreamError(STREAM_CLOSED, "HEADERS on a stream that its client has ended")
        elif not ended:
            raise StreamError(PROTOCOL_ERROR, "trailers that do not end their stream")
        elif unknown:
            stream.receive_trailers([])
        else:
            reader = self._connection.site.reader
            stream.receive_trailers(None if fields is None else read_trailers(fields, reader))

    def _charge(self, block: bytes) -> None:
        """A block was over the limits: following it costs, and brings nothing. Raises Http2Error."""
        self._connection.spend(self.heads.excess * EXCESS_FIELD + len(block) * EXCESS_BYTE)

    def _pass_over(self, block: bytes | None) -> None:
        """A field block of a stream beyond the last that the client has been told of. Raises Http2Error."""
        self._connection.spend(FRAME + len(block or b"") * EXCESS_BYTE)

    def _open_stream(self, number: int, ended: int, block: bytes | None) -> None:
        self.last = number
        connection = self._connection
        beyond = number > connection.lifecycle.said_last
        if beyond and self.heads.lost:
            self._pass_over(block)
            return
        head = self.heads.read(block, ended, connection.site.reader)
        if head.reader is None and block is not None and not self.heads.lost:
            self._charge(block)
        if beyond:
            # The client knows that it is not going to be answered here, or is about to hear of it.
            self.was_reset(number)
            connection.spend(RESET)
            return
        if len(self.open) >= self.max_streams:
            raise StreamError(REFUSED_STREAM, "more streams than SETTINGS_MAX_CONCURRENT_STREAMS")
        unknown = head.chunked or head.upgrade is not None or head.refusal is not None
        length = None if unknown else head.length
        stream = Stream(connection, number, bool(ended), length)
        if not self.open:
            connection.lifecycle.busy()
        self.open[number] = stream
        self._begin(stream, head)

    def _begin(self, stream: Stream, head: RequestHead) -> None:
        """A head is complete: begin its exchange."""
        connection = self._connection
        site = connection.site
        now = site.time
        exchange = open_exchange(self, head, head.refusal, self._context, site.policy, now())
        stream.upgrading = head.upgrade is not None
        done = stream.remote_done or stream.upgrading
        request = stream.request = Http2Request(stream, exchange, b"", done, [])
        if not done:
            stream.deadline = site.clock.now + site.timeouts.body
            connection.wake(stream.deadline)
        request.begin()

    def context_for(self, policy: Policy, head: RequestHead) -> RequestContext:
        """The context of this head, which another connection of the client may have had before."""
        return self._connection.site.contexts.context(policy, head, self.peer, self._connection.secured)

    def keep_context(self, context: RequestContext) -> Refusal | None:
        """The refusal of a request whose tenant has its share of connections without this one, which then ends."""
        full = self._connection.site.share_refusal(self._connection, context)
        self._context = context if full is None else None
        if full is not None:
            self._connection.close_idle()
        return full

    # -- what follows them

    def on_data(self, flags: int, number: int, payload: bytes) -> None:
        """A body, or the bytes of a tunnel (section 6.1)."""
        size = len(payload)
        connection = self._connection
        connection.window.receive(size)
        data = http2_frames.unpadded(flags, payload)
        stream = self.open.get(number)
        if stream is None:
            if self._is_idle(number):
                raise Http2Error(PROTOCOL_ERROR, "DATA on a stream that is idle")
            connection.window.pay(size)
            connection.spend(FRAME)
            if number not in self._resets and number <= connection.lifecycle.said_last:
                raise StreamError(STREAM_CLOSED, "DATA on a stream that is closed")
            return
        ended = flags & END_STREAM
        if not data and not ended:
            connection.spend(FRAME)
        self._receive(stream, data, bool(ended), size)

    def on_small_data(self, payload: bytes, position: int) -> int:
        """Small DATA frames in a row, from `position` on; where they end. Raises Http2Error."""
        pieces, position = gather(payload, position, self.open)
        for number, data, size in pieces:
            self._connection.window.receive(size)
            stream = self.open.get(number)
            try:
                if stream is None:
                    # What came before it in this row has ended it.
                    self._connection.window.pay(size)
                else:
                    self._receive(stream, data, False, size)
            except StreamError as error:
                self.fail(number, error)
        return position

    def _receive(self, stream: Stream, data: bytes, ended: bool, size: int) -> None:
        try:
            stream.receive(data, ended, size)
        except StreamError:
            # The stream ends with these bytes untaken; to the connection's window they count.
            self._connection.window.pay(size)
            raise

    def on_reset(self, flags: int, number: int, payload: bytes) -> None:
        """The client gives a stream up (section 6.4)."""
        if len(payload) != 4:
            raise Http2Error(FRAME_SIZE_ERROR, "an RST_STREAM frame is not four bytes")
        if self._is_idle(number):
            raise Http2Error(PROTOCOL_ERROR, "RST_STREAM on a stream that is idle")
        stream = self.open.get(number)
        if stream is not None:
            stream.reset()
        connection = self._connection
        connection.spend(RESET if number <= connection.lifecycle.said_last else FRAME)

    def _is_idle(self, number: int) -> bool:
        """Whether this stream was never opened: the even ones would be the server's, which pushes nothing."""
        return number > self.last or not number & 1

    # -- ends

    def was_reset(self, number: int) -> None:
        """Remember a stream that was reset here."""
        if len(self._resets) >= _RESETS_REMEMBERED:
            del self._resets[next(iter(self._resets))]
        self._resets[number] = None

    def over(self, number: int, served: bool) -> None:
        """This stream is closed; `served`: its response was sent to the end."""
        if self.open.pop(number, None) is None:
            return
        if served:
            self._connection.budget.earn(SERVED)
        if not self.open:
            self._connection.lifecycle.idle()

    def fail(self, number: int, error: StreamError) -> None:
        """End one stream. To provoke this is as cheap for a client as to reset, so it costs the same."""
        stream = self.open.get(number)
        if stream is not None:
            stream.fail(error.code)
        else:
            self.was_reset(number)
            self._connection.out.send(http2_frames.reset_frame(number, error.code))
        self._connection.spend(RESET)

    def client_ended(self) -> None:
        """The client sends no more: streams that it has not ended by now it never will."""
        for stream in list(self.open.values()):
            stream.cut_short()

    def lose(self) -> None:
        """The connection is gone, and so is every exchange on it; a turn ends no more of them than fit into its
        slice, and none once it is over: a hundred connections may be lost together."""
        for stream in self.open.values():
            # From now on nothing of their responses is kept.
            stream.send_window.closed = True
        self.heads.forget()
        self._context = None
        turns = self._connection.site.turns
        if self.open and turns.time() >= turns.ends and turns.over():
            turns.later(self._lose_next, address_key(self.peer))
        else:
            self._lose_next()

    def _lose_next(self) -> None:
        turns = self._connection.site.turns
        until, left = turns.slice(), PIECES
        for stream in list(self.open.values()):
            stream.reset()
            left -= 1
            if self.open and (not left or turns.time() >= until):
                turns.later(self._lose_next, address_key(self.peer))
                return

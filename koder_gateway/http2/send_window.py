"""What one HTTP/2 stream sends: its frames, and the body that waits for windows.

What the service sends goes out as far as the client's windows and the transport let it; the rest waits here, and
while more than a little waits the service is paused.
"""

from __future__ import annotations

from typing import Final, cast

from ..reactor.read_sizes import room_of
from ..wire.flood_budget import DATA_SENT, REPLIES_TO_DATA, WORTH_WHILE
from ..wire.hpack import encode_lines
from ..wire.http2_frames import (
    DATA,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    HEADER,
    INTERNAL_ERROR,
    MAX_WINDOW,
    StreamError,
    frame,
    header_frames,
)
from ..wire.min_rate import MinRate
from .answer_producer import HIGH, LITTLE, AnswerProducer, SendingStream

# A piece may keep a buffer alive that is so many times its size.
_PINNED: Final = 4
_EMPTY: Final = b""
# So many pieces wait as they came; with the next one they become a single one.
_PIECES: Final = 64
# The pace of streams for which nothing has ever waited: one object for all.
_UNASKED: Final = MinRate()


class SendWindow(AnswerProducer):
    """The sending side of a stream, which takes turns with others while it is `listed` in their `FrameScheduler`.

    `window` is what the client takes of it, in bytes. `ended`: our end is queued; `all_sent`: so it has left;
    `closed`: nothing may be sent any more. With `cut` the stream is reset once what waits has been sent.
    """

    __slots__ = (
        "_counted",
        "_last_block",
        "_least",
        "_number",
        "_sent",
        "all_sent",
        "cut",
        "ended",
        "pace",
    )

    def __init__(self, stream: SendingStream) -> None:
        out = stream.connection.out
        self.window = out.initial_window
        self.waiting = []
        self.listed = False
        self.ended = False
        self.all_sent = False
        self.closed = False
        self.cut = False
        self._stream = stream
        self._connection = stream.connection
        self._number = stream.number
        self._least = min(out.max_frame, out.initial_window) // 2
        self._waiting_size = 0
        # Of that, what the connection knows of.
        self._counted = 0
        self.pace = _UNASKED
        self._last_block = _EMPTY
        self._producer = None
        self._pulled = False
        self._producer_paused = False
        self._exact = False
        self._asked = False
        self._sent = 0

    # -- from the response

    def send_head(self, block: bytes, ended: bool) -> None:
        """Send a field block; `ended` when nothing follows it."""
        if self.closed:
            return
        out = self._connection.out
        out.send(header_frames(self._number, out.prefixed(block), END_STREAM if ended else 0, out.max_frame))
        if ended:
            self._end()

    def send_whole(self, block: bytes, body: bytes) -> None:
        """Send a field block and a whole body, in one piece where the windows and frames allow it."""
        out = self._connection.out
        size = len(body)
        if size > out.max_frame or size > self.window or size > out.window:
            self.send_head(block, False)
            self.send_body(body, True)
            return
        out.window -= size
        self._sent += size
        self._connection.budget.replies += REPLIES_TO_DATA
        out.send(
            b"%b%b%b"
            % (
                header_frames(self._number, out.prefixed(block), 0, out.max_frame),
                HEADER.pack(size >> 8, size & 0xFF, DATA, END_STREAM, self._number),
                body,
            )
        )
        self._end()

    def send_body(self, data: bytes, ended: bool) -> None:
        """Send more of the body, or let it wait; `ended` when that was all."""
        if self.closed:
            return
        if data:
            self.waiting.append(data)
            if len(self.waiting) > _PIECES:
                # Many small ones would hold several times their size.
                self.waiting[:] = [b"".join(self.waiting)]
            self._waiting_size += len(data)
        if ended:
            self._end()
        self._go_on()

    def send_trailers(self, lines: list[bytes]) -> None:
        """End the body with these finished field lines."""
        self._last_block = encode_lines(b"".join(lines))
        self.end()

    def end(self) -> None:
        """Nothing follows what was given."""
        self._end()
        self._go_on()

    def exchange_over(self) -> None:
        """The response is complete, whether or not its end was said."""
        if not self.ended:
            self.ended = True
            self._go_on()
        elif not self.waiting and not self.listed and not self._last_block:
            self._finish()

    # -- towards the client

    @property
    def room(self) -> int:
        """Bytes that can leave at once: a little, where windows let it, until the transport says that it is full."""
        out = self._connection.out
        if self.waiting or out.blocked:
            return 0
        return min(self.window, out.window, out.space, max(LITTLE, room_of(self._connection.transport)))

    def _go_on(self) -> None:
        """Let what waits go as far as it can now."""
        out = self._connection.out
        if not self.listed:
            out.enlist(self)
        out.pump()
        if self._waiting_size != self._counted:
            self._count()
        if self._waiting_size > HIGH or (out.full and not self.goes_on):
            self.pause()

    def _count(self) -> None:
        """Say how much waits here; while anything does, the client has to take it at its pace."""
        size = self._waiting_size
        more, self._counted = size - self._counted, size
        connection = self._connection
        if size:
            site = connection.site
            if self.pace is _UNASKED:
                self.pace = MinRate()
            self.pace.begin(self._sent, site.clock.now, site.timeouts.idle)
            connection.wake(self.pace.due)
            connection.lifecycle.watch_windows()
        elif self.pace is not _UNASKED:
            self.pace.end()
        connection.out.count(more)

    def keeps_pace(self, now: float) -> bool:
        """Whether the client takes what waits here fast enough; all its streams share the rate that is asked for.

        While the transport takes nothing more, it is not this stream's window that is waited for: then the pace of
        the whole connection decides (`Lifecycle.watch`).
        """
        connection = self._connection
        site = connection.site
        if connection.out.blocked:
            self.pace.put_off(now, site.timeouts.idle)
            return True
        share = site.seconds_per_byte * max(1, len(connection.streams))
        return self.pace.keeps(self._sent, now, share, site.timeouts.idle)

    def emit(self, forced: bool = False) -> bool:
        """Send one frame of what waits; whether there is more that could go at once.

        A window that opens by crumbs is not filled by crumbs, or it would stay cut into them (RFC 9293 section
        3.8.6.2.1, for TCP): then more is waited for, unless it is `forced`.
        """
        out, waiting = self._connection.out, self.waiting
        if waiting:
            room = min(out.window, self.window, out.max_frame)
            if room <= 0:
                # A grant enlarges its own window; for the connection's window it stays in the list.
                return self.window > 0
            if room < self._least and len(waiting[0]) > room and not forced:
                out.hold(self)
                return False
            data = self._next(room)
            size = len(data)
            self._waiting_size -= size
            self._sent += size
            if self._counted:
                self._count()
            self.window -= size
            out.window -= size
            out.let_out += size
            last = self.ended and not waiting and not self._last_block
            out.send(HEADER.pack(size >> 8, size & 0xFF, DATA, END_STREAM if last else 0, self._number))
            out.send(data)
            budget = self._connection.budget
            if size >= WORTH_WHILE:
                budget.replies += REPLIES_TO_DATA
                budget.earn(DATA_SENT)
            elif not waiting:
                # It is small because there was no more of it, not because of a window.
                budget.replies += REPLIES_TO_DATA
            if waiting:
                return True
            if self.cut:
                if self._stream is not None:
                    self._stream.over(INTERNAL_ERROR)
                return False
            if not self.ended:
                self._refill()
                return False
            if last:
                self._finish()
                return False
        if self.ended:
            if self._last_block:
                block = out.prefixed(self._last_block)
                out.send(header_frames(self._number, block, END_STREAM, out.max_frame))
            else:
                out.send(frame(DATA, END_STREAM, self._number, _EMPTY))
            self._finish()
        return False

    def _next(self, room: int) -> bytes | memoryview:
        """What waits first, as much of it as there is room for."""
        waiting = self.waiting
        data = waiting.pop(0)
        if len(data) > room:
            view = memoryview(data)
            rest, whole = view[room:], cast(bytes, view.obj)
            # A small rest must not keep the whole buffer alive.
            waiting.insert(0, rest if _PINNED * len(rest) > len(whole) else bytes(rest))
            return view[:room]
        return self._gathered(data, room) if waiting and len(data) + len(waiting[0]) <= room else data

    def _gathered(self, data: bytes | memoryview, room: int) -> bytes:
        """Several small pieces that wait, as one."""
        pieces = [data]
        size = len(data)
        while self.waiting and size + len(self.waiting[0]) <= room:
            pieces.append(self.waiting.pop(0))
            size += len(pieces[-1])
        return b"".join(pieces)

    def _end(self) -> None:
        """Our side ends with what was given; only what waits is still to be sent."""
        self.ended = True
        stream = self._stream
        if not self.waiting and not self.listed and not self._last_block and stream and stream.request is None:
            self._finish()

    def _finish(self) -> None:
        """Everything is sent."""
        self._last_block = _EMPTY
        self.ended = self.all_sent = True
        if self._stream is not None:
            self._stream.answered()

    def grant(self, size: int) -> None:
        """The client takes this much more, or less where it has changed its settings. Raises StreamError."""
        self.window += size
        if self.window > MAX_WINDOW:
            raise StreamError(FLOW_CONTROL_ERROR, "a stream's window is over 2^31-1 bytes")
        if self.waiting:
            if not self.listed and self.window > 0:
                self._connection.out.enlist(self)
        elif self._producer_paused:
            self._refill()

    def close(self) -> None:
        """The stream is over: what waits is forgotten, and who produces it stopped."""
        self.closed = True
        self.ended = True
        self.waiting.clear()
        self._waiting_size = 0
        self._stream = None
        producer, self._producer = self._producer, None
        if self._counted:
            self._count()
        if producer is not None:
            producer.stopProducing()

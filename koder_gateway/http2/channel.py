"""One client connection over HTTP/2: splits the bytes into frames and passes each to its handler (RFC 9113).

Each of its parts knows one thing: `Streams` what comes on streams, `Control` the frames that carry no request,
`Lifecycle` phases and deadlines, `ConnectionWindow` what may still come, and `FrameScheduler` what leaves.

Frames that cause work and carry no request or body (resets, pings, settings, empty ones), and that reply to no frame
of ours, are charged to a flood budget, which refills with time and with what is served. A client that uses it up gets
GOAWAY with ENHANCE_YOUR_CALM, and only what is in flight is served (`Lifecycle.flooded`).

What is sent in one turn of the reactor leaves in one write, and what comes is read for a slice of a turn
(`reactor.turns`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from ..downstream.ports import ClientRequest, ClientSite, Successor
from ..downstream.reset_watch import ResetWatch
from ..downstream.unsent_bytes import backlog
from ..errors import Refusal
from ..policy.limit_keys import address_key
from ..reactor.turns import PIECES, SLICE, read_little
from ..wire import http2_frames
from ..wire.flood_budget import FRAME, REPLY, FloodBudget, FloodContinues
from ..wire.hpack import announced_size
from ..wire.http2_frames import (
    ACK,
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    FRAME_SIZE_ERROR,
    HEADER,
    HEADER_SIZE,
    MAX_STREAM,
    PADDED,
    PREFACE,
    PROTOCOL_ERROR,
    SETTINGS,
    Http2Error,
    StreamError,
)
from ..wire.http2_head import HeadReader
from ..wire.small_data import SMALL
from .control import Control
from .frame_scheduler import FrameScheduler
from .lifecycle import Lifecycle
from .phases import OPEN, OPENING
from .ports import Connection
from .receive_window import CONNECTION_WINDOW, STREAM_WINDOW, ConnectionWindow
from .streams import Streams

# Seconds that a stream waits for a window to open further before it fills what there is.
_HELD_BACK: Final = 0.2
# The time is looked at after so many frames, or so many bytes of them.
_FRAMES_A_LOOK: Final = 4
_BYTES_A_LOOK: Final = 2048


class Http2Channel(ResetWatch, Protocol, Connection, Successor):
    """Takes over a connection on which ALPN has chosen h2. `deadline` is monotonic seconds, for the site's sweep."""

    # Whether the client has ended its side.
    _ended = False

    def __init__(self, site: ClientSite, transport: Any, peer: str) -> None:
        self.site = site
        self.transport = transport
        self.peer = peer
        self.secured = site.secured(transport)
        self.deadline = math.inf
        self.out = FrameScheduler(
            transport,
            site.soon,
            self.held_back,
            self._flow_turned,
            site.buffered,
            lambda: self.streams.send_windows(),
        )
        self.window = ConnectionWindow(self.out)
        self.budget = FloodBudget(site.clock.now)
        self.streams = streams = Streams(self, HeadReader(site.max_head, site.max_fields))
        self.lifecycle = lifecycle = Lifecycle(self, streams)
        # Whether what is being read has opened windows.
        self.windows_opened = False
        # The start of an incomplete frame; or, while the connection is `_behind`, everything unread from `_position`
        # on, and what has arrived since.
        self._buffer = b""
        self._behind = False
        self._position = 0
        self._arrived: list[bytes] = []
        self._turn_asked = False
        self._reading = True
        # Whether nothing is read any more while what is in flight is served.
        self._deaf = False
        self._backlog = -1
        self._taken_at = 0.0
        control = Control(self, streams, lifecycle)
        self._handlers: tuple[Callable[[int, int, bytes], None], ...] = (
            streams.on_data,
            streams.on_headers,
            control.on_priority,
            streams.on_reset,
            control.on_settings,
            control.on_push,
            control.on_ping,
            control.on_goaway,
            control.on_window,
            streams.on_continuation,
        )

    # -- the connection

    def start(self) -> None:
        """Say the settings; the client's preface comes next."""
        site = self.site
        self.lifecycle.begin()
        self.out.open()
        settings = {
            http2_frames.ENABLE_CONNECT_PROTOCOL: int(site.reader.upgrades),
            http2_frames.MAX_CONCURRENT_STREAMS: self.streams.max_streams,
            http2_frames.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            http2_frames.MAX_HEADER_LIST_SIZE: announced_size(site.max_head, site.max_fields),
        }
        self.budget.replies += REPLY
        self.out.send(
            http2_frames.settings_frame(settings) + http2_frames.window_frame(0, CONNECTION_WINDOW - DEFAULT_WINDOW)
        )

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone, and so is every exchange on it."""
        self.lifecycle.gone()
        self.forget_reset()
        self.out.drop()
        self.site.closed(self)
        self.streams.lose()
        self._handlers = ()
        self.transport = None
        self._forget()

    def readConnectionLost(self) -> None:
        """The client sends no more, but may still read: what it has asked for whole is answered."""
        if not self._ended:
            self._ended = True
            self._judge_end()

    def _judge_end(self) -> None:
        """The client sends no more. Act on that once everything that has come is read."""
        if self._behind:
            self.watch_for_reset()
            return
        self.lifecycle.client_ended()
        if self.streams:
            self.watch_for_reset()

    def dataReceived(self, data: bytes) -> None:
        """Frames, in pieces of any size."""
        if self.lifecycle.phase > OPEN or self._deaf:
            return
        if self._behind or self.out.blocked:
            self._arrived.append(data)
            self._fall_behind(self._buffer, self._position)
            return
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        self._work(data, 0)

    def _work(self, data: bytes, position: int) -> None:
        """Read what has come, for a slice of a turn."""
        lifecycle = self.lifecycle
        self.out.gathering = True
        try:
            if lifecycle.phase == OPENING:
                data = self._open(data)
            if data:
                self._read(data, position)
        except FloodContinues:
            self._stop_reading()
        except Http2Error as error:
            lifecycle.fail(error)
        if self.windows_opened and lifecycle.phase == OPEN:
            self.windows_opened = False
            self.out.reopened()
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
            raise Http2Error(PROTOCOL_ERROR, "the first frame is not a SETTINGS frame")
        self.lifecycle.opened()
        return data[len(PREFACE) :]

    def _read(self, data: bytes, position: int) -> None:
        """Each whole frame in `data`, as far as a slice goes; the rest is kept. Raises Http2Error."""
        end = len(data)
        count, now = 0, self.site.turns.time
        until, look = now() + SLICE, position + _BYTES_A_LOOK
        unpack = HEADER.unpack_from
        handlers, lifecycle, block = self._handlers, self.lifecycle, self.streams.block
        while end - position >= HEADER_SIZE:
            high, low, kind, flags, stream = unpack(data, position)
            size = high << 8 | low
            if size > DEFAULT_FRAME_SIZE:
                raise Http2Error(FRAME_SIZE_ERROR, "a frame is over SETTINGS_MAX_FRAME_SIZE")
            start = position + HEADER_SIZE
            position = start + size
            if position > end:
                http2_frames.check_header(kind, size, stream & MAX_STREAM)
                position = start - HEADER_SIZE
                break
            stream &= MAX_STREAM
            if block.stream and (kind != http2_frames.CONTINUATION or stream != block.stream):
                raise Http2Error(PROTOCOL_ERROR, "a field block is interrupted by another frame")
            if kind > http2_frames.CONTINUATION:
                self.spend(FRAME)
                continue
            try:
                handlers[kind](flags, stream, data[start:position])
            except StreamError as error:
                self.streams.fail(stream, error)
            if not kind and size <= SMALL and not flags & ~PADDED and position < end:
                # Small DATA frames often come in rows.
                position = self.streams.on_small_data(data, position)
            if lifecycle.phase != OPEN:
                return
            count += 1
            # A request is some work, and a field block as much as it is long.
            if (position >= look or not count % _FRAMES_A_LOOK) and end - position >= HEADER_SIZE:
                look = position + _BYTES_A_LOOK
                if now() >= until or count >= PIECES:
                    self._fall_behind(data, position)
                    return
        self._buffer = data[position:] if position else data

    # -- its share of the reactor's time

    @property
    def awaits_turn(self) -> bool:
        """Whether unread bytes only wait for this connection's turn."""
        return self._behind and not self.out.blocked

    def _fall_behind(self, data: bytes, position: int) -> None:
        """The rest of what has come is read in a later turn; and not while the client does not take what is sent."""
        self._buffer, self._position, self._behind = data, position, True
        read_little(self.transport)
        self._flow_turned()

    def _flow_turned(self) -> None:
        """Read from the transport while nothing waits to be read here and the client takes what is sent."""
        if self.out.blocked:
            self.lifecycle.watch()
        if self.awaits_turn and not self._turn_asked:
            self._turn_asked = True
            self.site.turns.later(self._catch_up, address_key(self.peer))
        reading = not (self._behind or self.out.blocked or self._deaf)
        transport: Any = self.transport
        if reading is not self._reading and transport is not None:
            self._reading = reading
            if reading:
                transport.resumeProducing()
            else:
                transport.pauseProducing()

    def _catch_up(self) -> None:
        """It is this connection's turn."""
        self._turn_asked = False
        if not self.awaits_turn:
            return
        data, position = self._buffer, self._position
        if self._arrived:
            data, position = data[position:] + b"".join(self._arrived), 0
        self._forget()
        self._work(data, position)
        self._flow_turned()
        if self._ended:
            self._judge_end()

    # -- what its parts ask of it

    def spend(self, cost: float) -> None:
        """Charge the flood budget. A client that has used it up may begin no further stream;
        raises Http2Error where none is in flight, or where that has been said before."""
        try:
            self.budget.spend(cost, self.site.clock.now)
        except Http2Error as error:
            self.lifecycle.flooded(error)

    def replied(self, cost: float) -> None:
        """A frame that answers one of ours has come, or one that nothing asked for. Raises Http2Error as above."""
        try:
            self.budget.reply(cost, self.site.clock.now)
        except Http2Error as error:
            self.lifecycle.flooded(error)

    def held_back(self) -> None:
        """A stream waits for a larger window: check it again soon."""
        self.wake(self.site.clock.now + _HELD_BACK)

    def wake(self, deadline: float) -> None:
        """Expire no later than at this deadline."""
        self.deadline = min(self.deadline, deadline)

    def let_go(self) -> None:
        """Discard what is unread, and read on only to see how the client ends the connection."""
        self._deaf = False
        self._forget()
        self._flow_turned()

    def _stop_reading(self) -> None:
        """Discard what is unread and read nothing more. Only a reset is still noticed."""
        self._deaf = True
        self._forget()
        self.streams.block.whole()
        self.lifecycle.deafened()
        self._flow_turned()
        self.watch_for_reset()

    def _forget(self) -> None:
        self._buffer, self._position, self._behind = b"", 0, False
        self._arrived.clear()

    # -- the transport

    def getPeer(self) -> IAddress:
        """The address that the connection comes from."""
        transport: Any = self.transport
        return transport.getPeer()  # type: ignore[no-any-return]

    def getHost(self) -> IAddress:
        """The address that the client has connected to."""
        transport: Any = self.transport
        return transport.getHost()  # type: ignore[no-any-return]

    def taking(self, grace: float) -> bool:
        """Whether what the kernel holds for the client has changed in the last `grace` seconds, as far as was seen
        when this was asked: each stream asks for itself."""
        now, held = self.site.clock.now, backlog(self.transport)
        if held != self._backlog:
            self._backlog, self._taken_at = held, now
        return held >= 0 and now - self._taken_at < grace

    # -- what the site asks of it

    @property
    def waiting(self) -> int:
        """Bytes of responses that wait here for the client, on all its streams."""
        return self.out.waiting

    def relieve(self) -> None:
        """Too many bytes wait for all clients together, and most of them here: end the responses that wait."""
        for stream in list(self.streams.open.values()):
            if stream.send_window.waiting:
                stream.too_slow()

    def under_way(self) -> Iterable[ClientRequest]:
        """The requests that have begun and not ended."""
        return [stream.request for stream in self.streams.open.values() if stream.request is not None]

    def close_idle(self) -> None:
        """The gateway drains: take only requests that are already on their way."""
        self.lifecycle.drain()

    def give_up(self, refusal: Refusal) -> None:
        """End whatever is in flight: with a response where none has begun, else visibly cut."""
        self.lifecycle.give_up(refusal)

    def expire(self) -> None:
        """A deadline has passed: the connection's own or one of its streams'."""
        self.lifecycle.expire()

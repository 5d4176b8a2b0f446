"""The life of one HTTP/2 connection: its phases, its own deadlines, and every way to its end (RFC 9113 section 6.8).

OPENING ──preface and SETTINGS──► OPEN ──GOAWAY, last stream over──► CLOSING ──all sent──► GONE
    └──────────── an error ────────┴──► LINGER ──quiet──► CLOSING

A protocol error ends everything at once. A client that is only turned away (`turn_away`) stays OPEN until the
requests in flight are served: behind a proxy they may be other people's. Its further field blocks are skipped
undecoded. If it floods on, the connection is no longer read, and the requests in flight have `timeouts.idle`.

A closing connection waits for the client to take what was written, as long as the client keeps its pace.
"""

from __future__ import annotations

import math
from typing import Any

from ..downstream.lingering_close import LingeringClose
from ..downstream.unsent_bytes import ClientPace
from ..errors import Refusal
from ..exchange.states import CLIENT_GONE
from ..wire import http2_frames
from ..wire.flood_budget import REPLY, FloodContinues
from ..wire.http2_frames import CANCEL, ENHANCE_YOUR_CALM, MAX_STREAM, NO_ERROR, PING, Http2Error
from ..wire.min_rate import MinRate
from .phases import CLOSING, GONE, LINGER, OPEN, OPENING
from .ports import Connection, Phases
from .streams import Streams


class Lifecycle(Phases, LingeringClose):
    """`phase` is where the connection stands, `said_last` the highest stream that its client has been told it will
    have a response to. Keeps the connection's `deadline` at the first of all that there are."""

    def __init__(self, connection: Connection, streams: Streams) -> None:
        self.phase = OPENING
        self.said_last = MAX_STREAM
        self.site = connection.site
        self._connection = connection
        self._streams = streams
        # When the connection has had nothing to do for too long; when a drain has the last stream said.
        self._idle_due = math.inf
        self._last_due = math.inf
        # When what is in flight has been served for long enough without reading.
        self._deaf_due = math.inf
        self._client_leaves = False
        # Whether the client has ended its side: then no window opens any more.
        self._client_ended = False
        self._draining = False
        # Whether requests have been turned away that may still be on their way.
        self._turned_away = False
        # Whether the flood budget has been used up once.
        self._flooded = False
        # How fast the client takes what was written; None while nothing waits, as far as anybody has noticed.
        self._client_pace: ClientPace | None = None
        # How fast it opens windows while something waits for them.
        self._windows = MinRate()

    # -- its beginning, and what keeps it going

    def begin(self) -> None:
        """The client has the time of a head to send its preface."""
        site = self.site
        self._connection.deadline = site.clock.now + site.timeouts.head

    def opened(self) -> None:
        """The preface is here: the first request may take its time."""
        self.phase = OPEN
        connection = self._connection
        timeouts = self.site.timeouts
        self._idle_due = connection.deadline = self.site.clock.now + max(timeouts.head, timeouts.keepalive)
        connection.wake(self._last_due)

    def busy(self) -> None:
        """A stream is about to be opened where there was none."""
        connection = self._connection
        self._idle_due = math.inf
        connection.deadline = min(self._streams.block.due, self._last_due, self._pace_due)

    def idle(self) -> None:
        """The last stream is over."""
        if self.phase != OPEN:
            return
        connection = self._connection
        if self._turned_away and not self._client_leaves:
            self._linger()
        elif self._client_leaves or self.said_last != MAX_STREAM:
            self.close()
        else:
            site = self.site
            self._idle_due = site.clock.now + site.timeouts.keepalive
            self._windows.end()
            dues = self._streams.block.due, self._last_due, self._pace_due
            connection.deadline = min(self._idle_due, *dues)

    # -- its end

    def fail(self, error: Http2Error) -> None:
        """The client broke the protocol: say why, end every stream, and close so that it can read that."""
        connection = self._connection
        streams = self._streams
        self.phase = LINGER
        self.site.http2_errors += 1
        connection.out.send(http2_frames.goaway_frame(min(streams.last, self.said_last), error.code, error.reason))
        self.said_last = streams.last
        for stream in list(streams.open.values()):
            stream.fail_silently(error.code)
        self._linger()

    def turn_away(self, error: Http2Error) -> None:
        """Take no further request. Those that were taken are served: behind a proxy they may be other people's. The
        connection ends with the last of them."""
        connection = self._connection
        if self.phase != OPEN or not self._streams:
            self.fail(error)
        elif self.said_last == MAX_STREAM:
            self.site.http2_errors += 1
            self._turned_away = True
            # No further stream needs the decoder's table.
            self._streams.heads.lost = True
            self.said_last = self._streams.last
            self._last_due = math.inf
            connection.out.send(http2_frames.goaway_frame(self.said_last, error.code, error.reason))

    def flooded(self, error: Http2Error) -> None:
        """The flood budget is used up: take no further request, with a new budget for what is in flight. Raises
        `error` where nothing is, and FloodGoesOn where the new one is used up too."""
        connection = self._connection
        if self.phase != OPEN:
            return
        if not self._streams:
            raise error
        if self._flooded:
            raise FloodContinues
        self._flooded = True
        connection.budget.renew(self.site.clock.now)
        self.turn_away(error)

    def deafened(self) -> None:
        """Nothing more is read: the requests in flight get a deadline."""
        site = self.site
        self._deaf_due = site.clock.now + site.timeouts.idle
        self._connection.wake(self._deaf_due)

    def _enter_linger(self) -> None:
        connection = self._connection
        self.phase = LINGER
        connection.let_go()
        connection.out.close()
        self.watch()

    def close(self) -> None:
        """Close once the client has taken what was written, unless that has begun."""
        if self.phase < CLOSING:
            self._close()

    def _enter_closing(self) -> None:
        connection = self._connection
        lingering = self.phase == LINGER
        self.phase = CLOSING
        connection.let_go()
        if not lingering:
            connection.out.close()
        connection.forget_reset()
        self.watch()

    def _wait(self, seconds: float) -> None:
        due = self.site.clock.now + seconds
        self._connection.deadline = due if self.phase == LINGER else min(due, self._pace_due)

    def gone(self) -> None:
        """The connection is lost: there is nothing left to wait for."""
        self.phase = GONE
        self._client_pace = None
        self._connection.deadline = math.inf

    def client_leaves(self) -> None:
        """The client opens no further streams."""
        self._client_leaves = True
        if not self._streams:
            self.close()

    def client_ended(self) -> None:
        """The client sends no more: what it has not asked for whole it never will, the rest is answered."""
        if self.phase == OPEN:
            self._client_ended = True
            self._streams.client_ended()
            self._end_unsendable()
            self.client_leaves()
        else:
            self.close()

    def drain(self) -> None:
        """The gateway drains: take only requests that are already on their way (section 6.8)."""
        if self.phase > OPEN or self._draining:
            return
        connection = self._connection
        self._draining = True
        if self.said_last != MAX_STREAM:
            # The last stream is announced already, and its number must not grow.
            return
        connection.budget.replies += REPLY
        connection.out.send(
            http2_frames.goaway_frame(MAX_STREAM, NO_ERROR) + http2_frames.frame(PING, 0, 0, b"draining")
        )
        self._last_due = self.site.clock.now + self.site.timeouts.linger
        connection.wake(self._last_due)

    def acknowledged(self) -> None:
        """A PING has come back: in a drain, the one that was sent with its GOAWAY."""
        if self._draining and self.said_last == MAX_STREAM:
            self._say_last()

    def _say_last(self) -> None:
        """The client has had time to read the first GOAWAY: send the last one. Later streams are not served."""
        connection = self._connection
        self.said_last = self._streams.last
        self._last_due = math.inf
        connection.out.send(http2_frames.goaway_frame(self.said_last, NO_ERROR))
        if not self._streams:
            self.close()

    def give_up(self, refusal: Refusal) -> None:
        """End whatever is in flight: with a response where none has begun, else visibly cut."""
        connection = self._connection
        for request in connection.under_way():
            request.give_up(refusal)
        if self.phase <= OPEN:
            connection.out.send(http2_frames.goaway_frame(min(self._streams.last, self.said_last), NO_ERROR))
        self.close()

    # -- deadlines

    def expire(self) -> None:
        """A deadline has passed: the connection's own or one of its streams'."""
        now = self.site.clock.now
        phase = self.phase
        if phase == OPENING:
            self.fail(Http2Error(http2_frames.SETTINGS_TIMEOUT, "no connection preface in time"))
        elif phase == OPEN:
            self._expire_open(now)
        elif phase in (LINGER, CLOSING):
            self._expire_closing(phase == LINGER)

    def _expire_open(self, now: float) -> None:
        connection = self._connection
        streams, out = self._streams, connection.out
        if self._pace_due <= now and not self._takes():
            self._cut()
            return
        if self._deaf_due <= now:
            self.fail(FloodContinues())
            return
        # Bytes that wait for their turn have come in time.
        awaits_turn = connection.awaits_turn
        if streams.block.due <= now and not awaits_turn:
            self.fail(Http2Error(ENHANCE_YOUR_CALM, "a field block did not arrive in time"))
            return
        if self._last_due <= now and not awaits_turn:
            self._say_last()
        if self._idle_due <= now and not awaits_turn and self.phase == OPEN:
            out.send(http2_frames.goaway_frame(streams.last, NO_ERROR))
            self.close()
        if self.phase != OPEN:
            return
        for stream in [stream for stream in streams.open.values() if stream.deadline <= now]:
            if stream.deadline <= now:
                stream.expire()
        self._end_slow_streams(now)
        if out.held:
            out.force()
        if self._client_ended:
            self._end_unsendable()
        if self.phase == OPEN:
            dues = [min(stream.deadline, stream.send_window.pace.due) for stream in streams.open.values()]
            dues += [self._idle_due, streams.block.due, self._last_due, self._deaf_due, self._pace_due]
            connection.deadline = min(dues)
            connection.wake(self._windows.due)
            if out.held:
                connection.held_back()

    def watch_windows(self) -> None:
        """Something waits for windows: check from now on that the client opens them fast enough."""
        connection = self._connection
        site = self.site
        if self._client_ended:
            connection.wake(site.clock.now)
        elif self._windows.due == math.inf:
            self._windows.begin(connection.out.let_out, site.clock.now, site.timeouts.idle)
            connection.wake(self._windows.due)

    def _opens_windows(self, now: float) -> bool:
        """Whether the client lets all its streams together send fast enough, or nothing waits for that."""
        out, windows, site = self._connection.out, self._windows, self.site
        if windows.due > now:
            return True
        if not out.waiting:
            windows.end()
        elif out.blocked:
            windows.put_off(now, site.timeouts.idle)
        else:
            return windows.keeps(out.let_out, now, site.seconds_per_byte, site.timeouts.idle)
        return True

    def _end_unsendable(self) -> None:
        """End the streams of which more waits than their windows let go. A client that has ended its side opens none
        any more, so their services would wait for nothing."""
        out = self._connection.out
        for stream in list(self._streams.open.values()):
            send_window = stream.send_window
            if send_window.waiting and min(send_window.window, out.window) <= 0:
                stream.fail(CANCEL, CLIENT_GONE)

    def _end_slow_streams(self, now: float) -> None:
        """Reset the streams whose windows open too slowly; where they all do, also those that wait to begin: they
        would hold their services' connections, and then wait in turn."""
        if not self._opens_windows(now):
            self._windows.end()
            for stream in list(self._streams.open.values()):
                if stream.send_window.waiting or stream.remote_done:
                    stream.too_slow()
            self.watch()
            return
        slow = [stream for stream in self._streams.open.values() if stream.send_window.pace.due <= now]
        for stream in slow:
            if not stream.send_window.keeps_pace(now):
                stream.too_slow()
                # A client that takes nothing at all does not see the reset.
                self.watch()

    # -- what the client takes of what was written last

    @property
    def _pace_due(self) -> float:
        return math.inf if self._client_pace is None else self._client_pace.due

    def watch(self) -> None:
        """Check from now on that the client takes what was written on all its streams fast enough."""
        if self._client_pace is None and self.transport is not None:
            self._connection.wake(self._begin_pace().due)

    @property
    def transport(self) -> Any:
        """The connection's; None once that is lost."""
        return self._connection.transport

    def _sending(self) -> tuple[object, int, bool]:
        # All streams count as one: the kernel does not say whose bytes it holds.
        out = self._connection.out
        return self, out.written, out.blocked

    def _takes(self) -> bool:
        """Whether the client takes what was written fast enough, or nothing waits for it."""
        pace = self._client_pace
        if pace is None:
            return True
        keeps = self._keeps_pace(pace)
        if not self._connection.out.blocked and not pace.waiting:
            self._client_pace = None
        return keeps

    def _cut(self) -> None:
        """The client does not take what was written: end the connection. Resets alone would only let other streams
        begin, which then wait in their place."""
        self.phase = CLOSING
        connection = self._connection
        connection.let_go()
        for stream in list(self._streams.open.values()):
            stream.send_window.closed = True
            stream.too_slow()
        connection.deadline = math.inf
        self.transport.abortConnection()

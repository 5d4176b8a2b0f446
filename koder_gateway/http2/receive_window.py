"""The receive windows of an HTTP/2 connection and its streams: how much a client may send before a service takes it.

Windows are enlarged by what a service has taken, so a service that takes nothing stops the client (RFC 9113 section
5.2).
"""

from __future__ import annotations

from typing import Final

from ..wire.http2_frames import FLOW_CONTROL_ERROR, PROTOCOL_ERROR, Http2Error, StreamError, window_frame
from .frame_scheduler import FrameScheduler

# Bytes that a client may send on all streams together before it is paid back.
CONNECTION_WINDOW: Final = 1 << 19
# What a stream may send before it is paid back, in bytes.
STREAM_WINDOW: Final = 131072
# While the services of so many streams take nothing, the connection's window is not enlarged: each of these services
# has a full transport buffer besides.
_MAX_HELD: Final = 4


class ConnectionWindow:
    """What a client may send on all streams of a connection together; `out` takes what tells it of more. `held` is
    how many streams have a service that does not take what comes; who makes it less calls `pay`."""

    __slots__ = ("_left", "_owed", "held", "out")

    def __init__(self, out: FrameScheduler) -> None:
        self._left = CONNECTION_WINDOW
        self._owed = 0
        self.held = 0
        self.out = out

    def receive(self, size: int) -> None:
        """A DATA frame has come. Raises Http2Error."""
        self._left -= size
        if self._left < 0:
            raise Http2Error(FLOW_CONTROL_ERROR, "DATA beyond the connection's window")

    def pay(self, size: int) -> None:
        """Bytes have been taken: let the client send as many more, half a window at a time."""
        self._owed += size
        if self._owed >= CONNECTION_WINDOW // 2 and self.held < _MAX_HELD:
            self._left += self._owed
            self.out.send(window_frame(0, self._owed))
            self._owed = 0


class ReceiveWindow:
    """The body that comes on a stream, counted against the connection's `window` too: `length` bytes of it, where its
    head has said so; `received` have come."""

    __slots__ = ("_left", "_length", "_number", "_owed", "_unsaid", "_window", "received")

    def __init__(self, window: ConnectionWindow, number: int, length: int | None) -> None:
        self.received = 0
        self._window = window
        self._number = number
        self._length = length
        self._left = STREAM_WINDOW
        # Taken by the service; and of that, paid back and not yet said.
        self._owed = 0
        self._unsaid = 0

    def receive(self, length: int, size: int, ended: bool) -> None:
        """A DATA frame has come: `size` counts its padding too. What is taken is owed. Raises StreamError."""
        self._left -= size
        if self._left < 0:
            raise StreamError(FLOW_CONTROL_ERROR, "DATA beyond the stream's window")
        self.received += length
        stated = self._length
        if stated is not None and (self.received > stated or (ended and self.received < stated)):
            raise StreamError(PROTOCOL_ERROR, "the body's length differs from its content-length")
        self._owed += size

    def end(self) -> None:
        """The body ends without a further byte. Raises StreamError."""
        if self._length is not None and self.received != self._length:
            raise StreamError(PROTOCOL_ERROR, "the body's length differs from its content-length")

    def pay(self, *, more: bool) -> None:
        """Pay back what the service has taken, half a window at a time; with `more` the client has more to send."""
        owed = self._owed
        if not owed:
            return
        self._owed = 0
        window = self._window
        window.pay(owed)
        if more:
            self._left += owed
            # Small increments would cost a frame each, so the window is enlarged by halves.
            self._unsaid += owed
            if self._unsaid >= STREAM_WINDOW // 2:
                window.out.send(window_frame(self._number, self._unsaid))
                self._unsaid = 0

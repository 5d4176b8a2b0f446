"""The frames of an HTTP/2 connection that carry no request: SETTINGS, PING, GOAWAY, WINDOW_UPDATE and PRIORITY."""

from __future__ import annotations

from ..wire import http2_frames
from ..wire.flood_budget import FRAME, RESET, WINDOW, WORTH_WHILE
from ..wire.http2_frames import (
    ACK,
    DEFAULT_FRAME_SIZE,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    MAX_WINDOW,
    PING,
    PROTOCOL_ERROR,
    SETTINGS,
    Http2Error,
    StreamError,
)
from .lifecycle import Lifecycle
from .ports import Connection
from .streams import Streams


class Control:
    """Handles these frames. Each method raises Http2Error for a frame that breaks the protocol, or for too many."""

    def __init__(self, connection: Connection, streams: Streams, lifecycle: Lifecycle) -> None:
        self._connection = connection
        self._streams = streams
        self._lifecycle = lifecycle

    def on_priority(self, flags: int, number: int, payload: bytes) -> None:
        """Checked and ignored (section 5.3.2)."""
        if not number:
            raise Http2Error(PROTOCOL_ERROR, "PRIORITY on the connection itself")
        if len(payload) != 5:
            # On an idle stream a reset would break the protocol as well.
            raise Http2Error(FRAME_SIZE_ERROR, "a PRIORITY frame is not five bytes")
        if http2_frames.read_uint31(payload) == number:
            raise Http2Error(PROTOCOL_ERROR, "a stream depends on itself")
        self._connection.spend(FRAME)

    def on_settings(self, flags: int, number: int, payload: bytes) -> None:
        """What the client takes (section 6.5)."""
        if number:
            raise Http2Error(PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & ACK:
            if payload:
                raise Http2Error(FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS with a payload")
            self._connection.replied(FRAME)
            return
        # Of several values for one setting the last holds; each costs, since each could be for all streams.
        settings = dict(values := http2_frames.settings_values(payload))
        self._connection.spend(RESET + FRAME * len(values))
        if http2_frames.MAX_FRAME_SIZE in settings:
            # Larger frames would let one stream hold up the others for longer.
            self._connection.out.max_frame = min(settings[http2_frames.MAX_FRAME_SIZE], DEFAULT_FRAME_SIZE)
        if http2_frames.INITIAL_WINDOW_SIZE in settings:
            self._resize_windows(settings[http2_frames.INITIAL_WINDOW_SIZE])
        self._connection.out.send(http2_frames.frame(SETTINGS, ACK, 0, b""))

    def _resize_windows(self, size: int) -> None:
        connection = self._connection
        grown = size - connection.out.initial_window
        connection.out.initial_window = size
        try:
            for stream in self._streams.open.values():
                stream.send_window.grant(grown)
        except StreamError as error:
            raise Http2Error(error.code, error.reason) from None
        connection.out.pump()

    def on_push(self, flags: int, number: int, payload: bytes) -> None:
        """Only a server may (section 8.4)."""
        raise Http2Error(PROTOCOL_ERROR, "a client must not push")

    def on_ping(self, flags: int, number: int, payload: bytes) -> None:
        """Answered at once (section 6.7)."""
        if number:
            raise Http2Error(PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise Http2Error(FRAME_SIZE_ERROR, "a PING frame is not eight bytes")
        self._connection.replied(FRAME)
        if not flags & ACK:
            self._connection.out.send(http2_frames.frame(PING, ACK, 0, payload))
        else:
            self._lifecycle.acknowledged()

    def on_goaway(self, flags: int, number: int, payload: bytes) -> None:
        """The client leaves (section 6.8)."""
        if number:
            raise Http2Error(PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise Http2Error(FRAME_SIZE_ERROR, "a GOAWAY frame is shorter than eight bytes")
        self._connection.spend(RESET)
        self._lifecycle.client_leaves()

    def on_window(self, flags: int, number: int, payload: bytes) -> None:
        """The client takes more (section 6.9)."""
        if len(payload) != 4:
            raise Http2Error(FRAME_SIZE_ERROR, "a WINDOW_UPDATE frame is not four bytes")
        size = http2_frames.read_uint31(payload)
        connection = self._connection
        connection.replied(WINDOW if size >= WORTH_WHILE else FRAME)
        if not number:
            if not size:
                raise Http2Error(PROTOCOL_ERROR, "a WINDOW_UPDATE has an increment of 0")
            connection.out.window += size
            if connection.out.window > MAX_WINDOW:
                raise Http2Error(FLOW_CONTROL_ERROR, "the connection's window is over 2^31-1 bytes")
            # Streams go on once all frames are read, so several updates cost one round.
            connection.windows_opened = True
            return
        if number > self._streams.last or not number & 1:
            raise Http2Error(PROTOCOL_ERROR, "WINDOW_UPDATE on a stream that is idle")
        if not size:
            raise StreamError(PROTOCOL_ERROR, "a WINDOW_UPDATE has an increment of 0")
        stream = self._streams.open.get(number)
        if stream is not None:
            stream.send_window.grant(size)
            connection.windows_opened = True

"""The end of a WebSocket by the gateway: a Close frame in the place of what the service would still send."""

from __future__ import annotations

from collections.abc import Callable

from ..wire.websocket_frames import FrameBoundaries, close_frame


class WebSocketEnd:
    """What a service sends over a WebSocket on its way to `write`, followed so that a Close frame can be put in."""

    __slots__ = ("_frames", "_status", "_write", "ended")

    def __init__(self, write: Callable[[bytes], None], first: bytes) -> None:
        """`first` are bytes of the service that have gone to the client already."""
        self._write = write
        self._frames = FrameBoundaries()
        self._status = 0
        self.ended = False
        """Whether the Close frame has been sent; nothing of the service's goes on after that."""
        if first:
            self._frames.follow(first)

    def pass_on(self, data: bytes) -> None:
        """More of what the service sends."""
        if self.ended:
            return
        complete = self._frames.follow(data)
        if not self._status:
            write = self._write
            write(data)
        elif complete < 0:
            self._write(data)
        else:
            self._write(data[:complete])
            self._close()

    def end(self, status: int) -> None:
        """Send a Close frame with this status, now or as soon as a frame of the service has ended."""
        if self._status:
            return
        self._status = status
        if self._frames.between:
            self._close()

    def _close(self) -> None:
        self.ended = True
        self._write(close_frame(self._status))

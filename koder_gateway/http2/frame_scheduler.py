"""Sends the frames of an HTTP/2 connection: one write in each turn of the reactor, as far as the windows allow.

Streams that have something to send take turns, a frame each, while the connection's window and the transport take
more. The bytes that wait here are bounded; the rest wait with their stream. Both are counted. Beyond a bound the
connection is `full`: services whose responses wait are paused, and of the others no more is read than their windows
let out at once, so that a stream which its client does not read holds up no other. Beyond a second bound every
service that answers on the connection is paused, also those that have not begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from ..downstream.buffered import Buffered
from ..wire.http2_frames import DEFAULT_FRAME_SIZE, DEFAULT_WINDOW

# What waits for the reactor's next turn; streams are asked for no more than this at a time.
_BATCH: Final = 131072
# So many frames of theirs are made in a turn: small ones are as much work as large ones.
_FRAMES: Final = 256
# Of the services that were paused, so many go on in a turn.
_RESUMED: Final = 8


class Sender(Protocol):
    """What a stream sends, which takes turns with others while it is `listed`. `waiting` is what waits for windows,
    `closed`: nothing may be sent any more."""

    # Not a literal, which mypy would take for the list of all attributes that there may be.
    __slots__ = tuple[str, ...]()

    listed: bool
    closed: bool
    waiting: list[bytes | memoryview]

    def emit(self, forced: bool = False) -> bool:
        """Send one frame of what waits, a small one if `forced`; whether there is more that could go at once."""

    def restrain(self) -> None:
        """Much waits on the connection: read only what leaves at once."""

    def resume(self) -> None:
        """The connection may have room again."""


@implementer(IPushProducer)
class FrameScheduler:
    """The sending side of one connection. `soon` calls in the reactor's next turn; `held_back` is called when a
    stream begins to wait for more of its window, whose owner calls `force` if that takes too long; `turned` when
    `blocked` has changed, which says that the client does not take what is sent. `streams` are those that are open,
    `buffered` what waits for all clients.

    `window` is what the client takes of all bodies together, `initial_window` what it takes of a new stream's, and
    `max_frame` the payload of a frame; all in bytes. While `gathering` nothing leaves: whoever set it calls `flush`.
    """

    def __init__(
        self,
        transport: Any,
        soon: Callable[[Callable[[], object]], object],
        held_back: Callable[[], object],
        turned: Callable[[], object],
        buffered: Buffered,
        streams: Callable[[], Iterable[Sender]],
    ) -> None:
        self.window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        self.max_frame = DEFAULT_FRAME_SIZE
        self.gathering = False
        self._transport = transport
        self._soon = soon
        # The first field block says that no dynamic table is used (RFC 7541 section 4.2).
        self._prefix = b"\x20"
        self._frames: list[bytes | memoryview] = []
        self._size = 0
        # All bytes that were handed to the transport; and of bodies, all that windows have let out.
        self.written = 0
        self.let_out = 0
        self._turn_asked = False
        self.blocked = False
        self._turned = turned
        # Bytes that wait for the client, and how many of them were given to a transport that takes no more.
        self.waiting = 0
        self._pushed = 0
        # Whether so much waits that services are read only as far as their bytes leave at once; and paused streams
        # that may go on, a few in each turn.
        self.full = False
        self._paused: deque[Sender] = deque()
        self._again = False
        self._buffered = buffered
        self._streams = streams
        self._listed: deque[Sender] = deque()
        self._pumping = False
        # Streams that wait for more of their windows.
        self.held: set[Sender] = set()
        self._held_back = held_back

    def open(self) -> None:
        """Begin to follow what the transport takes."""
        self._transport.registerProducer(self, True)

    def close(self) -> None:
        """Send what is here, and no more of the streams."""
        self._listed.clear()
        self.flush()
        if self._transport is not None:
            self._transport.unregisterProducer()
            if self.blocked:
                self.blocked = False
                self._taken()
                self._turned()

    def drop(self) -> None:
        """The connection is gone."""
        self._transport = None
        self._frames.clear()
        self._listed.clear()
        self.held.clear()
        self._paused.clear()
        self._taken()

    def prefixed(self, block: bytes) -> bytes:
        """A field block for this connection."""
        prefix = self._prefix
        if not prefix:
            return block
        self._prefix = b""
        return prefix + block

    def send(self, data: bytes | memoryview) -> None:
        """Send with whatever else this turn of the reactor brings."""
        self._frames.append(data)
        self._size += len(data)
        if not self.gathering and not self._turn_asked:
            self._turn_asked = True
            self._soon(self.flush)

    def flush(self) -> None:
        """Hand what has gathered to the transport."""
        self._turn_asked = False
        frames = self._frames
        if not frames or self._transport is None:
            return
        data = b"".join(frames)
        frames.clear()
        self._size = 0
        self.written += len(data)
        if self.blocked:
            self._pushed += len(data)
            self.count(len(data))
        self._transport.write(data)
        if self._listed and not self.blocked:
            self.pump()
        if self.full:
            self._look_again()

    def enlist(self, stream: Sender) -> None:
        """A stream has something to send."""
        stream.listed = True
        self._listed.append(stream)

    def hold(self, stream: Sender) -> None:
        """A stream waits for more of its window to open; its connection is looked at when that takes too long."""
        self.held.add(stream)
        self._held_back()

    def reopened(self) -> None:
        """The client has enlarged windows: streams that waited for that try again."""
        held, self.held = self.held, set()
        for stream in held:
            if not stream.closed and not stream.listed:
                self.enlist(stream)
        self.pump()
        if self.full:
            self._look_again()

    def force(self) -> None:
        """Send what fits into the windows, however little."""
        held, self.held = self.held, set()
        for stream in held:
            if not stream.closed and not stream.listed and stream.emit(forced=True) and not stream.listed:
                self.enlist(stream)

    def pump(self) -> None:
        """Let each stream that has something to send do so, a frame in turn, as far as windows and transport go."""
        if self._pumping:
            return
        self._pumping = True
        try:
            self._take_turns()
        finally:
            self._pumping = False

    def _take_turns(self) -> None:
        listed = self._listed
        starved = turns = 0
        while len(listed) > starved and not self.blocked and self._size < _BATCH and turns < _FRAMES:
            turns += 1
            stream = listed.popleft()
            if stream.closed:
                stream.listed = False
            elif stream.waiting and self.window <= 0:
                # Without a window only the end of a body can be sent.
                listed.append(stream)
                starved += 1
            else:
                stream.listed = False
                if stream.emit() and not stream.listed:
                    self.enlist(stream)

    # -- what waits

    @property
    def awaited(self) -> bool:
        """Whether data waits in a stream, where its client's speed is checked."""
        return self.waiting > self._pushed

    def count(self, more: int) -> None:
        """So many bytes more, or less, wait for the client."""
        buffered, before = self._buffered, self.waiting
        buffered.total += more
        self.waiting += more
        room, most = buffered.room, buffered.most
        if more > 0:
            if self.waiting > room and (not self.full or before <= most < self.waiting):
                self.full = True
                for stream in self._streams():
                    stream.restrain()
        elif self.full and (self.waiting <= room // 2 or self.waiting <= most < before):
            self.full = self.waiting > room // 2
            self._look_again()

    @property
    def space(self) -> int:
        """Bytes that can still leave with the reactor's next turn."""
        return max(0, _BATCH - self._size)

    @property
    def choked(self) -> bool:
        """Whether more waits for the client than may."""
        return self.waiting > self._buffered.most

    def _look_again(self) -> None:
        """There may be room again for paused streams."""
        if self._paused:
            # Streams that have been tried already are tried once more.
            self._again = True
        elif self._transport is not None:
            self._paused.extend(self._streams())
            self._resume_some()

    def _resume_some(self) -> None:
        """Resume a few paused streams; the others follow in later turns, as far as there is room then."""
        paused = self._paused
        for _ in range(_RESUMED):
            if not paused:
                break
            paused.popleft().resume()
        if not paused and self._again:
            self._again = False
            paused.extend(self._streams())
        if paused:
            self._soon(self._resume_some)

    def _taken(self) -> None:
        """The transport has sent what it held."""
        pushed, self._pushed = self._pushed, 0
        if pushed:
            self.count(-pushed)

    # -- IPushProducer, for the transport

    def pauseProducing(self) -> None:
        """The client does not take what is sent: read nothing more from it, or responses would pile up."""
        self.blocked = True
        self._turned()

    def resumeProducing(self) -> None:
        """The client takes more."""
        self.blocked = False
        self._taken()
        self._turned()
        self.pump()
        if self.full:
            self._look_again()

    def stopProducing(self) -> None:
        """The transport is going away; the protocol hears of it."""

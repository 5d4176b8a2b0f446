"""How much of one connection is read at once: as much as arrives, or what there is room for where it goes on to.

uvloop reads into a buffer of its own and hands over a copy. A protocol with `get_buffer` (asyncio.BufferedProtocol)
names the buffer itself, and so the size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

from koder_gateway.reactor.turns import FULL_READ
from koder_gateway.transports.owner import OwningReactor

# How much is read at once if reads are bounded: enough for bulk data at full speed. If the room at the receiver is
# known, as much as that: at least `LITTLE` and at most `MOST`.
LITTLE: Final = 1 << 14
BOUND: Final = 1 << 16
MOST: Final = 1 << 18
# How much is read at once if exactly the room at the receiver would be read, but there is next to none.
_FEW: Final = 512
# One buffer for all connections: its contents are taken out before the next read.
_buffer: Final = memoryview(bytearray(MOST))
FIRST: Final = _buffer[:512]
_little: Final = _buffer[:LITTLE]
_bounded: Final = _buffer[:BOUND]


# After so many full reads of `LITTLE`, each of which was no more work than a slice, the peer's bytes are not
# expensive: what took longer before was interrupted by another process.
_FORGIVEN: Final = 64


class _Always(dict[int, memoryview]):
    """A mapping that returns the same buffer for every hint: looking it up calls no Python code, and each read does
    it."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer

    def __missing__(self, hint: int) -> memoryview:
        self[hint] = self._buffer
        return self._buffer


FIRST_BUFFER: Final[Callable[[int], memoryview]] = _Always(FIRST).__getitem__
_bounded_buffer: Final[Callable[[int], memoryview]] = _Always(_bounded).__getitem__
_little_buffer: Final[Callable[[int], memoryview]] = _Always(_little).__getitem__


class BoundedReads(ABC):
    """The reading half of `Flow`, which bounds each read."""

    # Set while uvloop is to read into a buffer of ours, and not there otherwise: it looks for them.
    __slots__ = ("__dict__", "__weakref__", "buffer_updated", "get_buffer")

    _starting = False
    _held: list[bytes] | None = None
    # Whether the rest of this turn is others'.
    _turn_ended = False
    _reads_little = False
    # How many more cheap reads end that.
    _until_forgiven = 0
    # The function that returns the room at the receiver, and how much of that is left.
    _room: Callable[[], int] | None
    _budget: int
    _native: Any = None

    reactor: OwningReactor
    data_received: Callable[[bytes], None]
    get_buffer: Callable[[int], memoryview]
    buffer_updated: Callable[[int], None]

    def __init__(self) -> None:
        # What only some instances have would cost each of those a dictionary of its own.
        self._reads_bounded = False
        self._budget = 0
        self._room = None

    @abstractmethod
    def getPeer(self) -> Any: ...

    @abstractmethod
    def next_turn(self) -> None:
        """It is this connection's turn again."""

    @abstractmethod
    def end_turn(self) -> None:
        """A read has filled the buffer: let others go first if it is their turn."""

    def read_little(self) -> None:
        """Read at most `LITTLE` bytes at once, for a peer that sends more than needed, until that proves cheap."""
        self._until_forgiven = _FORGIVEN
        if self._native is None or self._reads_little or self._starting:
            return
        self._reads_little = True
        self._read_into(_little_buffer, self._little_read)

    def read_bounded(self, room: Callable[[], int] | None = None) -> None:
        """Read at most `BOUND` bytes at once from now on, since unread data would be kept here.

        With `room`, which returns how many bytes the receiver accepts at once: at most `LITTLE`, and from a peer that
        fills that, as many as there is room for. A read costs one more call; the copy made here is one that uvloop
        does not make.
        """
        if self._native is None or self._reads_little:
            return
        self._reads_bounded = True
        self._room, self._budget = room, 0
        if self._held is None:
            self._read_within_bounds()

    def _read_within_bounds(self) -> None:
        if self._room is None:
            self._read_into(_bounded_buffer, self._bounded_read)
        else:
            self._read_into(_little_buffer, self._first_read)

    def read_fitting(self, room: Callable[[], int]) -> None:
        """Read as much at once as `room` says that the receiver accepts (bytes), and up to `BOUND` in any case: for
        bulk data, of which no whole read may wait here. `room` is called once for many reads."""
        if self._native is None or self._reads_little or self._held is not None:
            return
        self._reads_bounded = True
        # What the kernel needs for its own keeping is up to as much again.
        self._room, self._budget = room, room() >> 1
        self._read_into(self._bulk_buffer, self._bulk_read)

    def _bulk_buffer(self, _hint: int) -> memoryview:
        budget = self._budget
        if self.reactor.turns.late:
            # It would wait for a later turn, beside what a hundred other connections have read.
            return _little
        if budget <= BOUND:
            return _bounded
        return _buffer if budget >= MOST else _buffer[:budget]

    def _bulk_read(self, size: int) -> None:
        budget = self._budget
        self._budget = budget - size
        self.data_received(bytes(_buffer[:size]))
        if self._budget < MOST and self._room is not None:
            self._budget = self._room() >> 1
        if BOUND <= size < FULL_READ and size >= budget:
            # It was full, which its receiver does not know.
            self.end_turn()

    def read_exactly(self, room: Callable[[], int]) -> None:
        """Read at most as much at once as `room` says (bytes), or `_FEW`. For little data: such small reads are
        expensive."""
        if self._native is None or self._reads_little:
            return
        self._reads_bounded = True
        self._room = room
        if self._held is None:
            self._read_into(self._exact_buffer, self._exact_read)

    def _exact_buffer(self, _hint: int) -> memoryview:
        return _buffer[: max(_FEW, 0 if self._room is None else self._room())]

    def _exact_read(self, size: int) -> None:
        self.data_received(bytes(_buffer[:size]))

    def read_freely(self) -> None:
        """Read as much as arrives again."""
        if self._native is not None and self._reads_bounded and not self._reads_little:
            self._reads_bounded = False
            self._room = None
            if self._held is None:
                self._read_unbounded()

    def _read_unbounded(self) -> None:
        reading = self._native.is_reading()
        self._native.pause_reading()
        del self.get_buffer, self.buffer_updated
        self._native.set_protocol(self)
        if reading:
            self._native.resume_reading()

    def _read_into(self, get: Callable[[int], memoryview], updated: Callable[[int], None]) -> None:
        """Have uvloop read into the given buffer (asyncio.BufferedProtocol)."""
        native = self._native
        # Only a change of the way of reading needs a pause.
        reading = not hasattr(self, "get_buffer") and native.is_reading()
        if reading:
            native.pause_reading()
        self.get_buffer = get
        self.buffer_updated = updated
        native.set_protocol(self)
        if reading:
            native.resume_reading()

    def _bounded_read(self, size: int) -> None:
        self.data_received(bytes(_bounded[:size]))

    def _first_read(self, size: int) -> None:
        # In two steps, as in `tls.stream`.
        receive = self.data_received
        receive(_little[:size].tobytes())
        if size == LITTLE and self._room is not None:
            self._look_for_room(self._room)

    def _read_on_later(self) -> None:
        """A read was full, and the loop would read up to 31 times more before it sends the results."""
        native = self._native
        if native is not None and native.is_reading():
            self._turn_ended = True
            native.pause_reading()
            if self.reactor.turns.may_read_on(self):
                self.reactor.loop.call_soon(self.next_turn)

    def _look_for_room(self, room: Callable[[], int]) -> None:
        """The peer sends more than a little: read as much at once as there is room for."""
        if self._native is None or not self._reads_bounded:
            return
        # What the kernel needs for its own keeping is up to as much again.
        self._budget = room() >> 1
        if self._budget > LITTLE:
            self._read_into(self._fitting_buffer, self._fitting_read)
        self._read_on_later()

    def _fitting_buffer(self, _hint: int) -> memoryview:
        budget = self._budget
        if budget <= LITTLE or self.reactor.turns.late:
            return _little
        return _buffer if budget >= MOST else _buffer[:budget]

    def _fitting_read(self, size: int) -> None:
        self._budget -= size
        self.data_received(bytes(_buffer[:size]))
        if self._budget <= LITTLE and self._room is not None and self._native is not None and self._reads_bounded:
            self._budget = self._room() >> 1
            if self._budget <= LITTLE:
                self._read_into(_little_buffer, self._first_read)
            if self._budget < MOST:
                self._read_on_later()

    def _little_read(self, size: int) -> None:
        self.data_received(bytes(_buffer[:size]))
        native = self._native
        if size == LITTLE and native is not None and native.is_reading():
            self._until_forgiven -= 1
            if not self._until_forgiven:
                self._reads_little = False
                if self._reads_bounded:
                    self._read_within_bounds()
                else:
                    self._read_unbounded()
            # There is more data, each byte of which may be expensive.
            self._turn_ended = True
            native.pause_reading()
            self.reactor.turns.read_later(self)

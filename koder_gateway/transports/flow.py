"""Back-pressure of one connection: Twisted's producers and consumers on top of asyncio's flow control."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

from koder_gateway.transports.owner import Owner

# How much is read at once if reads are bounded: enough for bulk data at full speed. If the room at the receiver is
# known, as much as that: at least `LITTLE` and at most `MOST`.
LITTLE: Final = 1 << 14
BOUND: Final = 1 << 16
MOST: Final = 1 << 18
# How much is read at once if exactly the room at the receiver would be read, but there is next to none.
_FEW: Final = 512
# One buffer for all connections: its contents are taken out before the next read.
_buffer: Final = memoryview(bytearray(MOST))
_first: Final = _buffer[:512]
_little: Final = _buffer[:LITTLE]
_bounded: Final = _buffer[:BOUND]


class _Always(dict[int, memoryview]):
    """A mapping that returns the same buffer for every hint: looking it up calls no Python code, and each read does
    it."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer

    def __missing__(self, hint: int) -> memoryview:
        self[hint] = self._buffer
        return self._buffer


_first_buffer: Final[Callable[[int], memoryview]] = _Always(_buffer[:512]).__getitem__
_bounded_buffer: Final[Callable[[int], memoryview]] = _Always(_bounded).__getitem__
_little_buffer: Final[Callable[[int], memoryview]] = _Always(_little).__getitem__


def drop(_data: object) -> None:
    """Write to a connection that accepts no more data: does nothing, as Twisted promises."""


class Flow(ABC):
    """Pauses and resumes both directions; the base of `StreamTransport`, which owns the connection.

    uvloop calls `pause_writing` when data waits that the kernel does not accept (more than `bufferSize`), and
    `resume_writing` when it has accepted it. A push producer is notified of both. A pull producer is asked for more
    each time its last write has been accepted; while one is registered, `write` records that it wrote.
    """

    connected = False
    disconnecting = False
    disconnected = False
    producer: Any = None
    streamingProducer = False
    producerPaused = False
    TLS = False
    _full = False
    _half_closing = False
    _starting = False
    _held: list[bytes] | None = None
    # Whether the protocol has stopped reading, and whether the rest of this iteration belongs to others.
    _stopped = False
    _turn_ended = False
    _reads_little = False
    _reads_bounded = False
    # The function that returns the room at the receiver, and how much of that is left.
    _room: Callable[[], int] | None = None
    _budget = 0
    protocol: Any = None
    _native: Any = None

    reactor: Owner
    write: Callable[[bytes], None]
    data_received: Callable[[bytes], None]
    get_buffer: Callable[[int], memoryview]
    buffer_updated: Callable[[int], None]

    @abstractmethod
    def getPeer(self) -> Any: ...

    @abstractmethod
    def loseConnection(self) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...

    @abstractmethod
    def _half_close(self) -> None: ...

    @abstractmethod
    def _half_closed(self) -> None: ...

    @abstractmethod
    def _fail(self, error: Exception) -> None: ...

    # What uvloop calls

    def pause_writing(self) -> None:
        self._full = True
        if self.producer is not None and self.streamingProducer:
            self._pause(self.producer)

    def resume_writing(self) -> None:
        self._full = False
        if self.producer is None:
            if self._half_closing:
                self.reactor.loop.call_soon(self._half_closed)
        elif not self.streamingProducer or self.producerPaused:
            self._resume(self.producer)

    # IConsumer: writing

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let `producer` write here; it is stopped when the connection is lost, or at once if it already is.

        Raises RuntimeError while another one is registered.
        """
        if self.producer is not None:
            raise RuntimeError(f"Cannot register producer {producer}: {self.producer} was never unregistered.")
        if self.disconnected:
            producer.stopProducing()
            return
        self.producer, self.streamingProducer, self.producerPaused = producer, streaming, False
        if not streaming:
            if not self._half_closing:
                self.write = self._write_pulled
            producer.resumeProducing()
            self._pull_soon()  # for what was written before
        elif self._full:
            self._pause(producer)

    def unregisterProducer(self) -> None:
        """The producer has finished; a close that waited for it continues."""
        if self.producer is None:
            return
        self.producer = None
        if not self.connected:
            return
        self._write_natively()
        if self.disconnecting:
            self._close()
        elif self._half_closing:
            self._half_close()

    def _write_natively(self) -> None:
        if not self.TLS:
            self.write = self._native.write

    def _write_pulled(self, data: bytes) -> None:
        self._native.write(data)
        self._pull_soon()

    def _pull_soon(self) -> None:
        if not self._full and not self.producerPaused:
            self.producerPaused = True  # until it is asked for more, which is under way
            self.reactor.loop.call_soon(self._pull, self.producer)

    def _pull(self, producer: Any) -> None:
        if producer is self.producer and not self._full:
            self._resume(producer)

    def _resume(self, producer: Any) -> None:
        self.producerPaused = False
        try:
            producer.resumeProducing()
        except Exception as error:
            self._fail(error)

    def _pause(self, producer: Any) -> None:
        self.producerPaused = True
        try:
            producer.pauseProducing()
        except Exception as error:
            self._fail(error)

    # IPushProducer: reading

    def pauseProducing(self) -> None:
        """Read nothing until `resumeProducing`; meanwhile a lost peer is not noticed."""
        self._stopped = True
        if self._starting:
            self._hold_first()
        elif self._native is not None:
            self._native.pause_reading()

    def resumeProducing(self) -> None:
        self._stopped = False
        if not self.connected or self.disconnecting:
            return
        if self._held is None:
            if not self._turn_ended:
                self._native.resume_reading()
        elif self._starting:
            self._resume_held()
        else:
            self.reactor.loop.call_soon(self._resume_held)

    def _hold_first(self) -> None:
        """uvloop reads at least once, even if `connectionMade` pauses: read as little as possible."""
        if self._held is None:
            self._held = []
            self.get_buffer = _first_buffer
            self.buffer_updated = self._keep_first
            self._native.set_protocol(self)

    def _keep_first(self, size: int) -> None:
        self._native.pause_reading()
        if self._held is not None:
            self._held.append(bytes(_first[:size]))

    def _resume_held(self) -> None:
        """Deliver what arrived between `connectionMade`, which paused, and the moment when the pause took effect."""
        held, self._held = self._held, None
        if not self.connected or self.disconnecting or held is None:
            return
        del self.get_buffer, self.buffer_updated
        if self._reads_bounded:
            self._read_within_bounds()
        else:
            self._native.set_protocol(self)
        self._native.resume_reading()
        if held:
            try:
                self.protocol.dataReceived(b"".join(held))
            except Exception as error:
                self._fail(error)

    def end_turn(self) -> None:
        """A read has filled the buffer, and the loop would read up to 31 times more: let others go first if it is
        their turn."""
        native = self._native
        if native is not None and native.is_reading() and not self.reactor.turns.may_read_on(self):
            self._turn_ended = True
            native.pause_reading()

    def next_turn(self) -> None:
        """It is this connection's turn again."""
        self._turn_ended = False
        if self.connected and not self.disconnecting and not self._stopped:
            self._native.resume_reading()

    def read_little(self) -> None:
        """Read at most `LITTLE` bytes at once from now on, for a peer that sends more than needed."""
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
        return _buffer if budget >= MOST else _buffer[: max(BOUND, budget)]

    def _bulk_read(self, size: int) -> None:
        self._budget -= size
        self.data_received(bytes(_buffer[:size]))
        if self._budget < MOST and self._room is not None:
            self._budget = self._room() >> 1

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
            if self._held is not None:
                return
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
        reading = "get_buffer" not in self.__dict__ and native.is_reading()
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
        return _buffer if budget >= MOST else _buffer[: max(LITTLE, budget)]

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
            # There is more data, each byte of which may be expensive.
            self._turn_ended = True
            native.pause_reading()
            self.reactor.turns.read_later(self)

    def deliver_to(self, receiver: Callable[[bytes], None]) -> None:
        """Deliver data to `receiver` from now on, in place of the protocol's `dataReceived`: one call less for each
        read.

        Only this transport's own protocol may call this, each time that its `dataReceived` changes.
        """
        if self.connected and self._held is None:
            self._deliver_to(receiver)

    def _deliver_to(self, receiver: Callable[[bytes], None]) -> None:
        """Let uvloop call this function with the data, instead of the protocol, until further notice."""
        self.data_received = receiver
        self._native.set_protocol(self)

    def reading(self) -> bool:
        """Whether anything is read at present."""
        if self._native is None or self._held is not None or self.disconnecting:
            return False
        return bool(self._starting or (self._turn_ended and not self._stopped) or self._native.is_reading())

    def startReading(self) -> None:
        """`resumeProducing`, under the name that Twisted's own transports also have for it."""
        self.resumeProducing()

    def stopReading(self) -> None:
        """`pauseProducing`, under the name that Twisted's own transports also have for it."""
        self.pauseProducing()

    @property
    def bufferSize(self) -> int:
        """Bytes that may wait to be sent before the producer is paused; it is resumed at a quarter of them."""
        _low, high = self._native.get_write_buffer_limits()
        return int(high)

    @bufferSize.setter
    def bufferSize(self, size: int) -> None:
        self._native.set_write_buffer_limits(size)

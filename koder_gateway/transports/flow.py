"""Back-pressure of one connection: Twisted's producers and consumers on top of asyncio's flow control."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final

from koder_gateway.transports.bounded_reads import FIRST, FIRST_BUFFER, BoundedReads

# Bytes of one connection that may wait for the end of the turn: several responses. A larger write saves nothing.
JOINED: Final = 1 << 14


def drop(_data: object) -> None:
    """Write to a connection that accepts no more data: does nothing, as Twisted promises."""


class Flow(BoundedReads):
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
    # What waits for the end of the turn.
    _joined = b""
    # Whether the protocol has stopped reading.
    _stopped = False
    protocol: Any = None

    write: Callable[[bytes], None]

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
            # It is asked for more when all that was written is accepted, so nothing waits here.
            self.flush()
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
            self.write = self._write

    def _write(self, data: bytes) -> None:
        """Send this at once; or, while the reactor is busy, with whatever else is written in this turn."""
        native, joined = self._native, self._joined
        if joined:
            if type(data) is bytes and len(joined) + len(data) <= JOINED:
                self._joined = joined + data
                return
            self.flush()
        elif native is None:
            return
        elif type(data) is bytes and len(data) <= JOINED and self.reactor.turns.joined.takes(self):
            self._joined = data
            return
        native.write(data)

    def flush(self) -> None:
        """Send what waits for the end of the turn, if anything does."""
        joined = self._joined
        if joined:
            self._joined = b""
            try:
                self._native.write(joined)
            except Exception as error:
                self._fail(error)

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
            self.get_buffer = FIRST_BUFFER
            self.buffer_updated = self._keep_first
            self._native.set_protocol(self)

    def _keep_first(self, size: int) -> None:
        self._native.pause_reading()
        if self._held is not None:
            self._held.append(bytes(FIRST[:size]))

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

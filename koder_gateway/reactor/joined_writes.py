"""Writes that wait for the end of the reactor's turn, while its thread is busy.

Each write wakes its receiver. On a busy machine that one takes the processor, or has another one interrupted to get
it, and finds a single message. So a busy reactor does all work of a turn first and then writes: receivers find more
at once, and a connection that has written several times sends all of it in one go. That delays a response by the rest
of the turn. So it is done only while the thread is busy (`early_reads`): with time to spare, bytes go out at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

# Connections whose bytes wait in one turn: those after them write at once. With `transports.flow.JOINED` bytes for
# each that is 4 MiB.
MOST: Final = 256


class Writer(Protocol):
    """A transport whose bytes wait."""

    def flush(self) -> None:
        """Send what waits, if anything does; must not raise."""


class JoinedWrites:
    """The transports whose bytes wait for the end of the present turn. `soon` calls in the reactor's next turn,
    before the reactor waits for anything. `wanted`: whether bytes may wait at all."""

    def __init__(self, soon: Callable[[Callable[[], None]], object]) -> None:
        self.wanted = False
        self._soon = soon
        self._writers: list[Writer] = []

    def takes(self, writer: Writer) -> bool:
        """Whether what `writer` has to send may wait; its `flush` is called when the turn ends. It may ask again
        after it has flushed by itself."""
        if not self.wanted:
            return False
        writers = self._writers
        if not writers:
            self._soon(self.send)
        elif len(writers) >= MOST:
            return False
        writers.append(writer)
        return True

    def send(self) -> None:
        """Have all of them send. Not from within a protocol: a producer of any of them may be paused."""
        writers = self._writers
        if writers:
            self._writers = []
            for writer in writers:
                writer.flush()


def send_joined(transport: Any) -> None:
    """Have `transport` send now what waits there for the end of the turn, if it lets anything wait."""
    flush = getattr(transport, "flush", None)
    if flush is not None:
        flush()

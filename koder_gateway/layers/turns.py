"""Turns: how the reactor's time is shared among connections that bring more work than one turn is worth.

The reactor calls a connection with whatever has come, up to a quarter of a MiB at a time. Whoever finds that this is
more than a slice of work stops reading, keeps the rest, and asks for a later turn. The waiting have their turns one
after the other, and all of them together have no more than `TURN` seconds of each turn of the reactor: what arrives
on other connections, timers, accepts and the drain come in between, however many wait here. A connection that brings
little never waits, since it is served when its bytes come.

A slice is over after `SLICE` seconds or `PIECES` pieces of work (requests, frames, chunks), whichever comes first.

Bytes that are only passed on, of bodies and tunnels, are shared by reads. One that fills the reactor's buffer would
be followed by up to 31 others of the same connection, and by as many of each other one. In each turn there are
`READS` of them; who asks for more waits, and of those who wait one goes on in each turn. That one has the turn's
reads for itself, since each pause costs its peer and the gateway as much as several reads.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

# Seconds of work on one connection before others have their turn, and of all who wait, in one turn of the reactor.
SLICE: Final = 0.001
TURN: Final = 0.002
# Pieces of work on one connection before others have their turn.
PIECES: Final = 64
# A read of so many bytes may have filled the reactor's buffer: whoever gets one calls `end_turn`.
FULL_READ: Final = 1 << 17
# Such reads in one turn of the reactor. Over TLS they are some four milliseconds.
READS: Final = 16

Work = Callable[[], object]


class Reader(Protocol):
    """A transport that reads on by itself."""

    def next_turn(self) -> None:
        """Read again."""


class Turns:
    """The queue of those who wait. `soon` calls in the reactor's next turn, `time` gives monotonic seconds.

    `yielded` counts how often somebody has asked for a later turn.
    """

    def __init__(self, soon: Callable[[Work], object], time: Callable[[], float] = time.monotonic) -> None:
        self.time = time
        self.yielded = 0
        self._soon = soon
        self._waiting: deque[Work] = deque()
        self._asked = False
        self._readers: deque[Reader] = deque()
        self._reads = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def slice(self) -> float:
        """When a slice that begins now is over."""
        return self.time() + SLICE

    def later(self, work: Work) -> None:
        """Call `work` in a later turn, after those who wait already. It works for one slice, and asks again when it
        has more to do; it must not raise. Who has gone by then has nothing to do in it."""
        self.yielded += 1
        self._waiting.append(work)
        if not self._asked:
            self._asked = True
            self._soon(self._run)

    def _run(self) -> None:
        """Each of those who wait now at most once, until this turn's time is over."""
        waiting, now = self._waiting, self.time
        end = now() + TURN
        try:
            for _ in range(len(waiting)):
                waiting.popleft()()
                if now() >= end:
                    break
        finally:
            self._asked = bool(waiting)
            if waiting:
                self._soon(self._run)

    # -- reads that fill the reactor's buffer

    def may_read_on(self, reader: Reader) -> bool:
        """Whether `reader` may read on in this turn; if not it stops, and is called when it is its turn again."""
        if not self._reads:
            self._soon(self._next_reads)
        self._reads += 1
        if self._reads < READS:
            return True
        self.yielded += 1
        self._readers.append(reader)
        return False

    def read_later(self, reader: Reader) -> None:
        """`reader` has stopped, and is called when it is its turn."""
        if not self._reads:
            self._soon(self._next_reads)
        self._reads = READS
        self.yielded += 1
        self._readers.append(reader)

    def _next_reads(self) -> None:
        readers = self._readers
        self._reads = 0
        if readers:
            readers.popleft().next_turn()
        if readers:
            self._reads = 1
            self._soon(self._next_reads)


def turns_of(reactor: Any) -> Turns:
    """The one queue of a reactor, which keeps it as its `turns`; made when it is first asked for."""
    turns = getattr(reactor, "turns", None)
    if isinstance(turns, Turns):
        return turns
    # Cheap where the reactor has a queue of its own for it.
    soon = getattr(reactor, "soon", None) or (lambda call: reactor.callLater(0, call))
    reactor.turns = Turns(soon)
    return turns_of(reactor)


def end_turn(transport: Any) -> None:
    """A read has filled the buffer: let others go first where it is their turn, if `transport` reads on by itself."""
    end = getattr(transport, "end_turn", None)
    if end is not None:
        end()


def read_little(transport: Any) -> None:
    """Its peer brings more than a slice of work at a time: read less of it at once, where `transport` can."""
    little = getattr(transport, "read_little", None)
    if little is not None:
        little()

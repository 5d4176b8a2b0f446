"""Turns: how the reactor's time is shared among connections that bring more work than one turn is worth.

The reactor calls a connection with whatever has come, up to a quarter of a MiB at a time. Whoever finds that this is
more than a slice of work stops reading, keeps the rest, and asks for a later turn. The waiting have their turns one
after the other, and all of them together have no more than `TURN` seconds of each turn of the reactor: what arrives
on other connections, timers, accepts and the drain come in between, however many wait here.

A slice is over after `SLICE` seconds or `PIECES` pieces of work (requests, frames, chunks), whichever comes first.

A connection that brings little is served when its bytes come. But thousands may bring something in the same turn,
and the first slice of each adds up. Once a turn of the reactor has lasted for `ARRIVALS` seconds to twice that,
what comes is only kept (`over`), and served after the reactor's timers and whatever else had to wait. Who has
brought little then stands in a line of its own (`arrived`), so that it does not wait for those who bring a lot; and
so do handshakes (`greeted`), which are more work than most requests and which anybody may begin. In each line
addresses take turns.

Bytes that are only passed on, of bodies and tunnels, are shared by reads. One that fills the reactor's buffer would
be followed by up to 31 others of the same connection, and by as many of each other one. In each turn there are
`READS` of them; who asks for more waits, and of those who wait one goes on in each turn, address by address. That one
has the turn's reads for itself, since each pause costs its peer and the gateway as much as several reads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from .fair_queue import FairQueue, Work

# Seconds of work on one connection before others have their turn; and of all who wait in one line, in one turn of the
# reactor.
SLICE: Final = 0.001
TURN: Final = 0.002
# Seconds of a turn of the reactor in which whoever brings something is served at once; and, in a later turn, of those
# who came after that and brought little.
ARRIVALS: Final = 0.003
# Bytes that are little: an ordinary head, and some.
LITTLE: Final = 4096
# Pieces of work on one connection before others have their turn.
PIECES: Final = 64
# A read of so many bytes may have filled the reactor's buffer: whoever gets one calls `end_turn`.
FULL_READ: Final = 1 << 17
# Such reads in one turn of the reactor. Over TLS they are some four milliseconds.
READS: Final = 16


class BulkReader(Protocol):
    """A transport that reads on by itself."""

    def getPeer(self) -> Any:
        """The address whose turn it is, as Twisted's addresses are; of one without a host each peer is its own."""

    def next_turn(self) -> None:
        """Read again."""


class Turns:
    """The queue of those who wait. `soon` calls in the reactor's next turn, `time` gives monotonic seconds. Not
    `bounded`, a turn may last for as long as it likes, which is for clocks that tests move.

    `yielded` counts how often somebody has asked for a later turn. Before `ends` the turn is not `over`.
    """

    def __init__(
        self, soon: Callable[[Work], object], time: Callable[[], float] = time.monotonic, *, bounded: bool = True
    ) -> None:
        self.time = time
        self.yielded = 0
        self._soon = soon
        # Until when whoever brings something is served at once; and whether that has begun in the present turn.
        self.ends = 0.0 if bounded else math.inf
        self._marked = False
        self._arrived = FairQueue()
        self._greeted = FairQueue()
        self._waiting = FairQueue()
        self._asked = False
        self._readers = FairQueue()
        self._reads = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._arrived) + len(self._greeted) + len(self._waiting)

    def beside(self) -> Turns:
        """Another queue of the same reactor, whose members do not wait for those of this one."""
        return Turns(self._soon, self.time, bounded=self.ends != math.inf)

    def slice(self) -> float:
        """When a slice that begins now is over."""
        return self.time() + SLICE

    def over(self) -> bool:
        """Whether what has just come has to wait, since this turn has lasted long enough.

        Who comes in a later turn is served at once, also before those who wait: in this way those who come when
        there is no such crowd do not notice it, while a part of each turn is for those who do wait.
        """
        now = self.time()
        if now < self.ends:
            return False
        if self._marked:
            return True
        # A mark for each turn would cost as much as a tenth of a small request: so a turn may have what is left of an
        # older window, and then one of its own.
        self.ends = now + ARRIVALS
        self._marked = True
        self._soon(self._turned)
        return False

    def _turned(self) -> None:
        self._marked = False

    def arrived(self, size: int, address: object, work: Work) -> None:
        """Call `work` in a later turn, for a slice: a connection has brought `size` bytes late in this one."""
        self._wait(self._arrived if size <= LITTLE else self._waiting, address, work)

    def greeted(self, address: object, work: Work) -> None:
        """Call `work` in a later turn: a connection has brought its handshake late in this one."""
        self._wait(self._greeted, address, work)

    def later(self, work: Work, address: object = None) -> None:
        """Call `work` in a later turn, after those of this `address` who wait already. It works for one slice, and
        asks again when it has more to do; it must not raise. Who has gone by then has nothing to do in it."""
        self._wait(self._waiting, address, work)

    def _wait(self, line: FairQueue, address: object, work: Work) -> None:
        self.yielded += 1
        line.add(address, work)
        self._ask()

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            self._soon(self._run)

    def _run(self) -> None:
        """Each of those who wait now at most once, until this turn's time for their line is over."""
        try:
            self._serve(self._arrived, ARRIVALS)
            self._serve(self._greeted, TURN)
            self._serve(self._waiting, TURN)
        finally:
            self._asked = False
            if len(self):
                self._ask()

    def _serve(self, line: FairQueue, seconds: float) -> None:
        now = self.time
        end = now() + seconds
        for _ in range(len(line)):
            line.pop()()
            if now() >= end:
                break

    # -- reads that fill the reactor's buffer

    def may_read_on(self, reader: BulkReader) -> bool:
        """Whether `reader` may read on in this turn; if not it stops, and is called when it is its turn again."""
        if not self._reads:
            self._soon(self._next_reads)
        self._reads += 1
        if self._reads < READS:
            return True
        self.yielded += 1
        self._add(reader)
        return False

    def read_later(self, reader: BulkReader) -> None:
        """`reader` has stopped, and is called when it is its turn."""
        if not self._reads:
            self._soon(self._next_reads)
        self._reads = READS
        self.yielded += 1
        self._add(reader)

    def _add(self, reader: BulkReader) -> None:
        self._readers.add(getattr(reader.getPeer(), "host", reader), reader.next_turn)

    def _next_reads(self) -> None:
        readers = self._readers
        self._reads = 0
        if len(readers):
            readers.pop()()
        if len(readers):
            self._reads = 1
            self._soon(self._next_reads)


def turns_of(reactor: Any) -> Turns:
    """The one queue of a reactor, which keeps it as its `turns`; made when it is first asked for."""
    turns = getattr(reactor, "turns", None)
    if isinstance(turns, Turns):
        return turns
    reactor.turns = Turns(lambda call: reactor.callLater(0, call), bounded=hasattr(reactor, "doIteration"))
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

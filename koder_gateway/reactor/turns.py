"""Turns: how the reactor's time is shared among connections with more work than fits into one turn.

The reactor passes a connection all data that has arrived, up to a quarter of a MiB at a time. A connection for
which that is more than a slice of work stops reading, keeps the rest, and asks for a later turn. Waiting work is
done in order, and all of it together gets no more than `TURN` seconds of each turn of the reactor: data on other
connections, timers, new connections and the drain come in between, however many wait here.

A slice is over after `SLICE` seconds or `PIECES` pieces of work (requests, frames, chunks), whichever comes first.

A connection with little data is served when the data arrives. But thousands may become readable in the same turn,
and their first slices add up. Once a turn of the reactor has lasted for `ARRIVALS` seconds to twice that, arriving
data is only buffered (`over`), and served after the reactor's timers and other waiting work. Little data then waits
in a queue of its own (`arrived`), so that it does not wait behind much data; and so do handshakes (`greeted`),
which are more work than most requests and which any client can begin. In each queue addresses take turns.

Data that is only passed on, of bodies and tunnels, is shared by reads. A read that fills the reactor's buffer would
be followed by up to 31 more of the same connection, and by as many of each other one. In each turn `READS` of them
are allowed; connections that need more wait, and one of them goes on in each turn, address by address. That one has
the turn's reads for itself, since each pause costs its peer and the gateway as much as several reads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from .early_reads import EarlyReads
from .fair_queue import FairQueue, Work
from .joined_writes import JoinedWrites

# Seconds of work on one connection before others have their turn; and for everything in one queue, in one turn of the
# reactor.
SLICE: Final = 0.001
TURN: Final = 0.002
# Seconds of a turn of the reactor in which arriving data is served at once; and, in a later turn, the time for little
# data that arrived after that.
ARRIVALS: Final = 0.003
# How many bytes count as little: an ordinary head, and some more.
LITTLE: Final = 4096
# Pieces of work on one connection before others have their turn.
PIECES: Final = 64
# A read of so many bytes may have filled the reactor's buffer: its receiver calls `end_turn`. Of smaller buffers the
# transport knows that they are full.
FULL_READ: Final = 1 << 17
# How many such reads are allowed in one turn of the reactor. Over TLS they take about four milliseconds.
READS: Final = 16


class BulkReader(Protocol):
    """A transport that reads on by itself."""

    def getPeer(self) -> Any:
        """The address whose turn it is, as Twisted's addresses are; of one without a host each peer is its own."""

    def next_turn(self) -> None:
        """Read again."""


class Turns:
    """The queue of waiting work. `soon` calls in the reactor's next turn, `time` returns monotonic seconds. If it is
    not `bounded`, a turn may last for any time, which is for clocks that tests move. `yielded` counts the requests
    for a later turn. Before `ends` the turn is not `over`. `early` reads responses before further requests,
    `joined` keeps what is written until the turn ends."""

    def __init__(
        self, soon: Callable[[Work], object], time: Callable[[], float] = time.monotonic, *, bounded: bool = True
    ) -> None:
        self.time = time
        self.yielded = 0
        self.early = EarlyReads()
        self.joined = JoinedWrites(soon)
        self._soon = soon
        # Until when arriving data is served at once; and whether that period has begun in the present turn.
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
        """The end of a slice that begins now."""
        return self.time() + SLICE

    def tick(self, now: float) -> None:
        """See how busy the thread is: called a few times a second, with monotonic seconds."""
        self.early.tick(now)
        self.joined.wanted = self.early.busy

    def over(self) -> bool:
        """Whether data that has just arrived must wait, since this turn has lasted long enough.

        Data that arrives in a later turn is served at once, even before waiting work: in this way clients that arrive
        after a burst do not notice it, while a part of each turn is for the waiting work.
        """
        now = self.time()
        if now < self.ends:
            return False
        if self._marked:
            return True
        # Marking each turn would cost a tenth of a small request: so a turn may have the rest of an older period, and
        # then one of its own.
        self.ends = now + ARRIVALS
        self._marked = True
        self._soon(self._turned)
        return False

    @property
    def late(self) -> bool:
        """Whether arriving data waits, as `over` has found in this turn: who can reads little of it at once now, as
        all of it is held here."""
        return self._marked and self.time() >= self.ends

    def _turned(self) -> None:
        self._marked = False

    def arrived(self, size: int, address: object, work: Work) -> None:
        """Call `work` in a later turn, for a slice: a connection's `size` bytes have arrived late in this one."""
        self._wait(self._arrived if size <= LITTLE else self._waiting, address, work)

    def greeted(self, address: object, work: Work) -> None:
        """Call `work` in a later turn: a connection's handshake has arrived late in this one."""
        self._wait(self._greeted, address, work)

    def later(self, work: Work, address: object = None) -> None:
        """Call `work` in a later turn, after the waiting work of the same `address`. It works for one slice, and asks
        again if it has more to do; it must not raise, and must do nothing if its connection is gone by then."""
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
        """Run each waiting work at most once, until this turn's time for its queue is over."""
        # What was written before is not to wait for this too.
        self.joined.send()
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
        """Whether `reader` may go on reading in this turn; if not it stops, and is called when it is its turn
        again."""
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
        self.joined.send()
        readers = self._readers
        self._reads = 0
        if len(readers):
            readers.pop()()
        if len(readers):
            self._reads = 1
            self._soon(self._next_reads)


def turns_of(reactor: Any) -> Turns:
    """The single queue of a reactor, which keeps it as its `turns`; created on first use."""
    turns = getattr(reactor, "turns", None)
    if isinstance(turns, Turns):
        return turns
    reactor.turns = Turns(lambda call: reactor.callLater(0, call), bounded=hasattr(reactor, "doIteration"))
    return turns_of(reactor)


def end_turn(transport: Any) -> None:
    """A read has filled the buffer: let others go first if it is their turn, if `transport` goes on reading by
    itself."""
    end = getattr(transport, "end_turn", None)
    if end is not None:
        end()


def read_little(transport: Any) -> None:
    """Its peer sends more than a slice of work at a time: read less at once, if `transport` supports that."""
    little = getattr(transport, "read_little", None)
    if little is not None:
        little()

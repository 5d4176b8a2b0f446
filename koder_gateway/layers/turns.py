"""Turns: how the reactor's time is shared among connections that bring more work than one turn is worth.

The reactor calls a connection with whatever has come, up to a quarter of a MiB at a time. Whoever finds that this is
more than a slice of work stops reading, keeps the rest, and asks for a later turn. The waiting have their turns one
after the other, and all of them together have no more than `TURN` seconds of each turn of the reactor: what arrives
on other connections, timers, accepts and the drain come in between, however many wait here. A connection that brings
little never waits, since it is served when its bytes come.

A slice is over after `SLICE` seconds or `PIECES` pieces of work (requests, frames, chunks), whichever comes first.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

# Seconds of work on one connection before others have their turn, and of all who wait, in one turn of the reactor.
SLICE: Final = 0.001
TURN: Final = 0.003
# Pieces of work on one connection before others have their turn.
PIECES: Final = 64
# One read that fills the reactor's buffer is followed by another one in the same turn: from this many bytes on
# whoever has read them lets others go first.
FULL_READ: Final = 1 << 17

Work = Callable[[], object]


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


_turns: WeakKeyDictionary[Any, Turns] = WeakKeyDictionary()


def turns_of(reactor: Any) -> Turns:
    """The one queue of a reactor, made when it is first asked for."""
    turns = _turns.get(reactor)
    if turns is None:
        # Cheap where the reactor has a queue of its own for it.
        soon = getattr(reactor, "soon", None) or (lambda call: reactor.callLater(0, call))
        turns = _turns[reactor] = Turns(soon)
    return turns


def end_turn(transport: Any) -> None:
    """Read nothing more from `transport` in this turn of the reactor, where that would read on by itself."""
    end = getattr(transport, "end_turn", None)
    if end is not None:
        end()

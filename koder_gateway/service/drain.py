"""The end of a gateway: no new clients; exchanges in flight go on, up to a deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from ..downstream.site import GatewaySite
from ..ops.sweeper import Sweeper
from .ports import Ports


class Drain:
    """One drain at a time. `close` ends what the drain has left: the Deferred that it returns fires when that is
    done. `time` gives monotonic seconds. The owner calls `sweep`."""

    def __init__(
        self,
        reactor: Any,
        time: Callable[[], float],
        site: GatewaySite,
        ports: Ports,
        sweeper: Sweeper,
        close: Callable[[], Deferred[Any]],
    ) -> None:
        self._reactor = reactor
        self._time = time
        self._site = site
        self._ports = ports
        self._sweeper = sweeper
        self._close = close
        # Fires when the drain has ended; None if there is no drain.
        self.ended: Deferred[None] | None = None
        self._accepting = False
        self._deadline = 0.0

    def begin(self, seconds: float) -> Deferred[None]:
        """Accept no more clients and finish the exchanges in flight, for at most so many seconds."""
        ended: Deferred[None] = Deferred()
        self.ended = ended
        self._accepting = True
        closing = self._ports.close_public()
        self._deadline = self._time() + seconds
        self._site.drain()
        # The last accepted connections become channels one iteration later.
        closing.addCallback(lambda _: self._reactor.callLater(0, self._all_accepted))
        return closing.addCallback(lambda _: ended)

    def _all_accepted(self) -> None:
        self._accepting = False
        if not self._sweeper.running or not self._site.channels:
            self._end()

    def sweep(self, now: float) -> None:
        """End the drain when nothing is left, or when its deadline has passed; called once a tick."""
        drained = not self._accepting and not self._site.channels
        if self.ended is not None and (drained or now >= self._deadline):
            self._end()

    def _end(self) -> None:
        ended, self.ended = self.ended, None
        self._sweeper.stop()
        self._site.end_drain()
        closed = self._close()
        if ended is not None:
            # One more turn, so that what was written last leaves and closed connections are seen to be.
            closed.addCallback(lambda _: self._reactor.callLater(0, ended.callback, None))

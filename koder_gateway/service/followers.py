"""What serves beside a gateway's requests, and follows its settings: the shared store of limits, the export of spans,
and the orders of certificates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from ..exchange.ending import Ending
from ..tree.compose import Composition
from .acme_follower import AcmeFollower
from .store_follower import StoreFollower
from .tracing_follower import TracingFollower


class Followers:
    """Each follows the generation in force; see `StoreFollower`, `TracingFollower` and `AcmeFollower`."""

    def __init__(self, reactor: Any, time: Callable[[], float], ending: Ending, worker: int, redirects: bool) -> None:
        self._store = StoreFollower()
        self.tracing = TracingFollower(reactor, time, ending, worker)
        self.acme = AcmeFollower(reactor, time, worker, redirects)

    def follow(self, composition: Composition) -> None:
        """This generation is in force from now on."""
        self._store.follow(composition.sharing)
        self.tracing.follow(composition.settings.tracing)
        self.acme.follow(composition)

    def refreshed(self, composition: Composition) -> None:
        """The same generation has another registry."""
        self.acme.follow(composition)

    def sweep(self, now: float, running: bool) -> None:
        """Look after all; called four times a second. `running`: the gateway serves."""
        self._store.sweep(now, running)
        self.tracing.sweep(now, running)
        self.acme.sweep(now, running)

    def close(self, others: Deferred[Any]) -> Deferred[Any]:
        """End all. The Deferred fires when they have ended, and `others` have fired."""
        return self.acme.close(self.tracing.close(self._store.close(others)))

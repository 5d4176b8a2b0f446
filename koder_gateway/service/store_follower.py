"""The shared store of limits, as long as a gateway serves: started, swept, replaced by a reload, and closed."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from ..tree.limits_store import Sharing


class StoreFollower:
    """Owns the store of the generation in force, if there is one."""

    def __init__(self) -> None:
        self._sharing: Sharing | None = None

    def follow(self, sharing: Sharing | None) -> None:
        """This is the store from now on. The previous one still answers what it was asked, and closes."""
        before, self._sharing = self._sharing, sharing
        if before is not None and before is not sharing:
            before.store.close()

    def sweep(self, now: float, running: bool) -> None:
        """Start it, if the gateway serves and it has not begun; and let it renew what is in flight."""
        if self._sharing is not None:
            if running:
                self._sharing.store.start()
            self._sharing.store.sweep(now)

    def close(self, others: Deferred[Any]) -> Deferred[Any]:
        """Close it. The Deferred fires when it has answered what it was asked, and `others` have fired."""
        if self._sharing is None:
            return others
        return DeferredList([others, self._sharing.store.close()])

"""A client's connection that is watched for a reset while nothing of it is read: once its client has ended its side,
or while the service of its tunnel takes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .ports import ClientSite


class ResetWatch:
    """The base of the channels of both protocols: a reset ends their connection."""

    site: ClientSite
    transport: Any
    # The descriptor that is watched, -1 for none.
    _watched = -1

    def watch_for_reset(self, closed: Callable[[], object] | None = None) -> None:
        """Nothing is read any more that would tell of it; `closed` is called if the client closes its side, where it
        has not yet."""
        transport = self.transport
        if self._watched < 0 and transport is not None:
            self._watched = self.site.resets.watch(transport, transport.abortConnection, closed)

    def forget_reset(self) -> None:
        """The connection is about to end, or has."""
        if self._watched >= 0:
            self.site.resets.forget(self._watched)
            self._watched = -1

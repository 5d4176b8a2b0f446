"""What a transport needs from the reactor that owns it."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from koder_gateway.reactor.turns import Turns


class OwningReactor(Protocol):
    """A reactor as its transports see it."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that reads and writes."""

    @property
    def turns(self) -> Turns:
        """Shares the reactor's time among connections."""

    @property
    def streams(self) -> set[Any]:
        """The transports that are connected; each adds and removes itself."""

"""How a client's connection ends, and the pace at which its client has to take what waits for it until then.

The kernel resets a connection that is closed while its client still sends, and the client may lose its response. So
the connection lingers first: it ends our side, discards what the client still sends, and closes only then (RFC 9112
section 9.6). A closing connection waits for its client to take what was written, as long as the client keeps its
pace.
"""

from __future__ import annotations

import math
from typing import Any

from .ports import ClientSite
from .unsent_bytes import ClientPace


def can_half_close(transport: Any) -> bool:
    """Whether our side of a connection can be ended by itself. Asked of the class: a wrapper that passes on what it
    does not know would half-close beneath itself."""
    return hasattr(type(transport), "loseWriteConnection")


class LingeringClose:
    """Base of what ends a client's connection. Subclasses say what is being sent (`_sending`), enter the two phases
    (`_enter_linger`, `_enter_closing`) and set the deadline of the connection (`_wait`).

    `_client_pace` is how fast the client takes what waits for it; None where nothing has waited lately.
    """

    site: ClientSite
    transport: Any
    _client_pace: ClientPace | None

    def _sending(self) -> tuple[object, int, bool]:
        """The exchange in flight, its bytes so far, and whether more waits than the transport wants to hold."""
        return None, 0, False

    def _enter_linger(self) -> None:
        """Write nothing more, and forget what still comes."""

    def _enter_closing(self) -> None:
        """Nothing of what still comes is read."""

    def _wait(self, seconds: float) -> None:
        """Expire after so many seconds."""

    # -- pace

    def _begin_pace(self) -> ClientPace:
        """Something waits for the client: check its pace from now on."""
        pace = self._client_pace
        if pace is None:
            site = self.site
            exchange, written, _ = self._sending()
            pace = self._client_pace = ClientPace(
                self.transport, exchange, written, site.clock.now, site.timeouts.idle
            )
        return pace

    def _keeps_pace(self, pace: ClientPace) -> bool:
        """Whether the client takes what waits for it fast enough."""
        site = self.site
        exchange, written, full = self._sending()
        return pace.keeps(exchange, written, site.clock.now, site.seconds_per_byte, site.timeouts.idle, full=full)

    # -- the end

    def _linger(self) -> None:
        """Close so that the client can read what was said: stop writing, forget what still comes, then close."""
        self._enter_linger()
        if self.transport is not None:
            self._wait(self.site.timeouts.linger)
            if can_half_close(self.transport):
                self.transport.loseWriteConnection()

    def _close(self) -> None:
        """Close once the client has taken what was written."""
        self._enter_closing()
        self._wait(self.site.timeouts.idle)
        self.transport.loseConnection()

    def _expire_closing(self, lingering: bool) -> None:
        """The deadline of a connection that ends has passed. A client that takes what was written gets more time; to
        linger, only one that has taken something since the look before."""
        timeouts, pace = self.site.timeouts, self._client_pace
        takes = pace is not None and self._keeps_pace(pace) and pace.waiting > 0
        if lingering and takes and pace is not None and pace.moved:
            self._wait(timeouts.linger)
        elif lingering:
            self._close()
        elif takes:
            self._wait(timeouts.idle)
        else:
            self._wait(math.inf)
            self.transport.abortConnection()

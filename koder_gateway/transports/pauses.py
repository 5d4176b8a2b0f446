"""What ports say of accepting that pauses and goes on: where, in plain words, and at the pace of complaints."""

from __future__ import annotations

import os
from typing import Any, Final

from twisted.internet.address import UNIXAddress
from twisted.logger import Logger

from koder_gateway.wire.clock import CoarseClock
from koder_gateway.wire.rate_limited_log import Complaints

# Seconds until it is told how many lines were left out, when none has followed.
_LATER: Final = 10.0

_log = Logger()


class Pauses:
    """The lines of all ports of one reactor, whose clients can make a port pause and go on many times a second."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._clock = CoarseClock()
        self._complaints = Complaints(self._clock, _log.warn)
        # The event loop that calls `_sweep`; a daemon has another one than the process that it comes from.
        self._swept_by: Any = None

    def say(self, port: Any, what: str) -> None:
        """Log what becomes of accepting on this port."""
        loop = self._reactor.loop
        self._clock.now = loop.time()
        self._complaints.say(f"Accepting on {place(port.getHost())} {what}")
        if self._swept_by is not loop:
            self._swept_by = loop
            loop.call_later(_LATER, self._sweep)

    def _sweep(self) -> None:
        self._swept_by = None
        self._clock.now = self._reactor.loop.time()
        self._complaints.sweep(self._clock.now)


def place(address: Any) -> str:
    """Where a port listens, as people write it."""
    if isinstance(address, UNIXAddress):
        return f"the UNIX socket {os.fsdecode(address.name or b'')!r}"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"

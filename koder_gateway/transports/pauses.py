"""Log lines of ports that pause and resume accepting: the address, in plain words, and rate-limited."""

from __future__ import annotations

import os
from typing import Any, Final

from twisted.internet.address import UNIXAddress
from twisted.logger import Logger

from koder_gateway.wire.clock import CoarseClock
from koder_gateway.wire.rate_limited_log import RateLimitedLog

# Seconds until the number of left-out lines is logged, if no line has followed.
_LATER: Final = 10.0

_log = Logger()


class AcceptPauseLog:
    """The lines of all ports of one reactor; clients can make a port pause and resume many times a second."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._clock = CoarseClock()
        self._fault_log = RateLimitedLog(self._clock, _log.warn)
        # The event loop that calls `_sweep`; a daemon has another one than the process that it was forked from.
        self._swept_by: Any = None

    def say(self, port: Any, what: str) -> None:
        """Log a change of accepting on this port."""
        loop = self._reactor.loop
        self._clock.now = loop.time()
        self._fault_log.warn(f"Accepting on {port_text(port.getHost())} {what}")
        if self._swept_by is not loop:
            self._swept_by = loop
            loop.call_later(_LATER, self._sweep)

    def _sweep(self) -> None:
        self._swept_by = None
        self._clock.now = self._reactor.loop.time()
        self._fault_log.sweep(self._clock.now)


def port_text(address: Any) -> str:
    """The address of a port, as people write it."""
    if isinstance(address, UNIXAddress):
        return f"the UNIX socket {os.fsdecode(address.name or b'')!r}"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"

"""Responses that are read before further requests, so that the first of a burst does not wait for all of it.

A turn of the reactor serves everything that was readable when it began. All requests of a burst are passed on, then
all of its responses are read: the first one waits for the last request, and the median is nearly the length of the
burst. So after each `AHEAD` requests the connections to services are looked at, and what has come there is read
before the next request.

Such a read costs some microseconds more than one of the reactor's own. A reactor with time to spare can afford that.
A busy one cannot, and there the order of work does not change the mean. So it is done only while the reactor's thread
is busy for less than `_BUSY` of the time. (While it is busy for more, `joined_writes` saves time.)
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

# Requests that are passed on before responses are looked for.
AHEAD: Final = 4
# Responses that are read in one look; the reactor reads the others.
_MOST: Final = 64
# The share of the time for which the thread may be busy.
_BUSY: Final = 0.5
# Seconds that are looked at, at least: of several gateways in one process each calls, and right behind another one's
# call the thread has not been idle.
_LOOK: Final = 0.1


class EarlyReader(Protocol):
    """A transport that can read when it is told to."""

    def fileno(self) -> int:
        """Its descriptor, which stays the transport's; -1 where it has none any more."""

    def read_now(self) -> None:
        """Read and deliver what has come, once. Does nothing where nothing may be read; must not raise."""


class EarlyReads:
    """The connections to services that are looked at. `sent` counts the requests since the last look: from `most` on
    whoever has read one calls `look`. `busy`: whether the thread had no time to spare lately, as far as known. `used`
    returns the seconds for which it has been busy."""

    def __init__(self, used: Callable[[], float] = time.thread_time) -> None:
        self.sent = 0
        self.most: float = math.inf
        self.busy = False
        self._used = used
        self._used_before = math.nan
        self._before = -math.inf
        # Made with the first connection: a process that forks before does not share it.
        self._poller: Any = None
        self._readers: dict[int, EarlyReader] = {}

    def watch(self, transport: Any) -> int:
        """Look at this transport from now on, if it can read early and the process has a descriptor for that. Returns
        its key for `forget`, or -1."""
        if not hasattr(type(transport), "read_now") or not hasattr(select, "epoll"):
            return -1
        descriptor: int = transport.fileno()
        if descriptor < 0:
            return -1
        # Each arrival is told once: what cannot be read yet is left to the reactor.
        try:
            if self._poller is None:
                self._poller = select.epoll()
            self._poller.register(descriptor, select.EPOLLIN | select.EPOLLET)
        except OSError:
            return -1
        self._readers[descriptor] = transport
        return descriptor

    def forget(self, descriptor: int, transport: object) -> None:
        """Look at it no longer. Its descriptor may be another transport's already."""
        if self._readers.get(descriptor) is transport:
            del self._readers[descriptor]
            with suppress(OSError):
                self._poller.unregister(descriptor)

    def look(self) -> None:
        """Read what services have sent. Only from the end of a read of the reactor's: any other protocol may be
        called."""
        self.sent = 0
        if self._poller is not None:
            for descriptor, _events in self._poller.poll(0, _MOST):
                reader = self._readers.get(descriptor)
                if reader is not None:
                    reader.read_now()

    def tick(self, now: float) -> None:
        """Decide whether there is time to spare: called a few times a second, with monotonic seconds."""
        if now - self._before < _LOOK:
            return
        used = self._used()
        share = (used - self._used_before) / (now - self._before)
        # Before the second tick nothing is known: neither is done.
        self.busy = share >= _BUSY
        self.most = AHEAD if share < _BUSY else math.inf
        self._used_before, self._before = used, now

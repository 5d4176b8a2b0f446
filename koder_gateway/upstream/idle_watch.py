"""Watches idle connections to a service for what no request has asked for: their end, or stray bytes.

An idle connection is looked at before a request is sent on it: bytes that are there already would be read as the
response. The reactor would report them too, but may serve the client first. One system call looks at all connections
of a service, at most every `LOOK_EVERY` seconds. Bytes that arrive after that look would escape a look at each
connection as well: they can always arrive while the request is on its way.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

# Seconds for which one look at a service's connections is good.
LOOK_EVERY: Final = 0.0002


class Watched(Protocol):
    """A connection as this watch sees it. `idle`: no request on it waits for its response. (An attribute and no
    property: each look asks it of all connections on which a response has just come.)"""

    idle: bool

    def unasked(self) -> None:
        """Something has arrived."""


def _poller() -> Any:
    """Linux's own keeps the set in the kernel, so that a look costs what it finds."""
    return select.epoll() if hasattr(select, "epoll") else select.poll()


class IdleWatch:
    """The connections of one service, by file descriptor. Each is added when it can be read, and removed when it is
    gone or not read for a while: one that is full of bytes would be found by every look.

    `time` gives monotonic seconds.
    """

    def __init__(self, time: Callable[[], float] = time.monotonic) -> None:
        self._time = time
        self._poller = _poller()
        self._connections: dict[int, Watched] = {}
        self._until = float("-inf")

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, descriptor: int, connection: Watched) -> None:
        """Look at this connection from now on."""
        if self._connections.get(descriptor) is not connection:
            # One that was closed has left the kernel's set by itself, and its number may be another's.
            with contextlib.suppress(FileExistsError):
                self._poller.register(descriptor, select.POLLIN | select.POLLHUP | select.POLLERR)
            self._connections[descriptor] = connection

    def remove(self, descriptor: int, connection: Watched) -> None:
        """Look at it no more. It may be closed already."""
        if self._connections.get(descriptor) is connection:
            del self._connections[descriptor]
            with contextlib.suppress(KeyError, OSError, ValueError):
                self._poller.unregister(descriptor)

    def look(self) -> None:
        """Tell each idle connection on which something has arrived."""
        # In two steps, as in `tls.stream`.
        monotonic = self._time
        now = monotonic()
        if now < self._until:
            return
        self._until = now + LOOK_EVERY
        connections = self._connections
        for descriptor, _ in self._poller.poll(0):
            connection = connections.get(descriptor)
            if connection is not None and connection.idle:
                connection.unasked()

"""Detects resets of connections on which nothing more is read, such as those of a half-closed peer.

After that half-close a reactor reads no further, and notices a reset only when a write fails, which may be minutes
later. The kernel reports a reset without being asked for an event (EPOLLERR, EPOLLHUP): one epoll for each reactor
watches for it, and costs nothing while nothing is watched. A connection that is only not read for a while is watched
for the end of the peer's sending side as well (EPOLLRDHUP).
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer


@implementer(IReadDescriptor)
class ResetWatcher:
    """The watched connections of one reactor, by descriptor, and their callbacks."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll: select.epoll | None = None
        self._watched: dict[int, Callable[[], object]] = {}
        self._closing: dict[int, Callable[[], object]] = {}

    def __len__(self) -> int:
        """How many are watched."""
        return len(self._watched)

    def watch(self, transport: Any, gone: Callable[[], object], closed: Callable[[], object] | None = None) -> int:
        """Call `gone` once when the connection is reset; and `closed`, perhaps several times, when the peer has
        closed its side. Without `closed` the peer has, and the connection counts as reset too when both sides are.

        The result is for `forget`, before or when the connection ends; -1 if the transport has no descriptor, or the
        process has none left for it: then only a write that fails tells of the reset.
        """
        try:
            descriptor: int = transport.getHandle().fileno()
        except (AttributeError, OSError):
            return -1
        if descriptor < 0:
            return -1
        # No event is requested: these two are always reported; where a reset is not all, once each.
        if not self._register(descriptor, 0 if closed is None else select.EPOLLRDHUP | select.EPOLLET):
            return -1
        self._watched[descriptor] = gone
        if closed is not None:
            self._closing[descriptor] = closed
        return descriptor

    def _register(self, descriptor: int, events: int) -> bool:
        """Whether the kernel could be asked: not where the process has no descriptor left for the epoll, or the user
        has as many watches as epoll(7) allows."""
        try:
            if self._epoll is None:
                self._epoll = select.epoll()
                self._reactor.addReader(self)
            self._epoll.register(descriptor, events)
        except FileExistsError:
            return True
        except OSError:
            self._close_unused()
            return False
        return True

    def forget(self, descriptor: int) -> None:
        """Stop watching the connection."""
        if self._watched.pop(descriptor, None) is None:
            return
        self._closing.pop(descriptor, None)
        if self._epoll is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)  # unless it has been closed meanwhile
        self._close_unused()

    def doRead(self) -> None:
        """Watched connections have an event."""
        if self._epoll is None:
            return
        for descriptor, events in self._epoll.poll(0):
            closed = self._closing.get(descriptor)
            if closed is not None and not events & select.EPOLLERR:
                closed()
                continue
            gone = self._watched.get(descriptor)
            self.forget(descriptor)
            if gone is not None:
                gone()

    def doWrite(self) -> None:
        """Never asked for. A reactor may call it for what an earlier descriptor of this number was ready for."""

    def _close_unused(self) -> None:
        if self._epoll is not None and not self._watched:
            self._reactor.removeReader(self)
            self._close()

    def _close(self) -> None:
        epoll, self._epoll = self._epoll, None
        if epoll is not None:
            epoll.close()

    # -- IReadDescriptor

    def fileno(self) -> int:
        """The epoll's own descriptor."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def connectionLost(self, reason: object) -> None:
        """The reactor ends."""
        self._watched.clear()
        self._closing.clear()
        self._close()

    def logPrefix(self) -> str:
        """See ILoggingContext."""
        return "resets"


def reset_watcher_of(reactor: Any) -> ResetWatcher:
    """The single watcher of a reactor, which keeps it as its `resets`; created on first use."""
    resets = getattr(reactor, "resets", None)
    if not isinstance(resets, ResetWatcher):
        resets = reactor.resets = ResetWatcher(reactor)
    return resets

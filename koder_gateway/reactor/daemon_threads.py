"""Threads for work that may block: one for each piece of work, for none of which the process's end waits.

A pool is shared: once something has blocked all of its threads (a name server that does not answer, a network file
system that has gone), what would not have blocked waits as well, and so does the reactor's end, which joins the
pool. Whoever gives work away here has one piece under way at a time, so that there are few threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.python.failure import Failure


class DaemonThreads:
    """What `twisted.internet.threads.deferToThreadPool` asks of a reactor and of its pool, both in one. `name` is
    what the threads are called."""

    def __init__(self, reactor: Any, name: str) -> None:
        self._reactor = reactor
        self._name = name

    def getThreadPool(self) -> DaemonThreads:
        """This."""
        return self

    def callFromThread(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        """Call in the reactor's thread; nothing when its loop has ended."""
        with suppress(RuntimeError):
            self._reactor.callFromThread(call, *arguments, **named)

    def callInThreadWithCallback(
        self, done: Callable[[bool, Any], Any], work: Callable[..., Any], *arguments: Any, **named: Any
    ) -> None:
        """Do the work in a thread, in which `done` then gets whether it succeeded, and its result or Failure."""

        def run() -> None:
            try:
                result = work(*arguments, **named)
            except Exception:
                done(False, Failure())
            else:
                done(True, result)

        threading.Thread(target=run, name=self._name, daemon=True).start()


def daemon_threads(reactor: Any, name: str) -> Any:
    """`DaemonThreads`; the reactor itself where it has no threads, as one for tests or checks."""
    return DaemonThreads(reactor, name) if hasattr(reactor, "callFromThread") else reactor

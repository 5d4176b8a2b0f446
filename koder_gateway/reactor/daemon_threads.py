"""Threads for work that may block: one for each piece of work; the end of the process waits for none of them.

A pool is shared: once something has blocked all of its threads (an unreachable name server, a network file system
that is gone), all other work waits as well, and so does the reactor's end, which joins the pool. Each caller has only
one piece of work in progress, so that there are few threads.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from twisted.python.failure import Failure

# Seconds for which the reactor waits at most for the interpreter while such a thread computes. Each event that it
# handles waits that long, and a request is several; Python's own value is ten times as much.
_SWITCH: Final = 0.0005


class _BriefTurns:
    """Has threads pass on the interpreter sooner, while there are any of these."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._usual = 0.0

    @contextmanager
    def one(self) -> Iterator[None]:
        """For the work of one thread."""
        with self._lock:
            self._threads += 1
            if self._threads == 1:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(min(_SWITCH, self._usual))
        try:
            yield
        finally:
            with self._lock:
                self._threads -= 1
                if not self._threads:
                    sys.setswitchinterval(self._usual)


_brief_turns: Final = _BriefTurns()


class DaemonThreads:
    """What `twisted.internet.threads.deferToThreadPool` needs from a reactor and from its pool, both in one. `name`
    is the name of the threads."""

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
        """Do the work in a thread, where `done` then gets whether it succeeded, and its result or Failure."""

        def run() -> None:
            try:
                with _brief_turns.one():
                    result = work(*arguments, **named)
            except Exception:
                done(False, Failure())
            else:
                done(True, result)

        threading.Thread(target=run, name=self._name, daemon=True).start()


def daemon_threads(reactor: Any, name: str) -> Any:
    """`DaemonThreads`; the reactor itself where it has no threads, as one for tests or checks."""
    return DaemonThreads(reactor, name) if hasattr(reactor, "callFromThread") else reactor

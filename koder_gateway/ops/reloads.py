"""Reloads on request: the slow part runs in a thread, and only one reload runs at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

T = TypeVar("T")


class Reloads(Generic[T]):
    """`begin` is called, then `read` in a thread, then `take` in the reactor's thread with its result, or `refuse`
    with its exception. If another reload is requested meanwhile, everything runs once more, since the result may be
    out of date."""

    def __init__(
        self,
        reactor: Any,
        read: Callable[[], T],
        take: Callable[[T], object],
        refuse: Callable[[Failure], object],
        begin: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._read = read
        self._take = take
        self._refuse = refuse
        self._begin = begin
        self._busy = False
        self._again = False

    def ask(self) -> None:
        """Begin a reload, or request one more after the present one."""
        if self._busy:
            self._again = True
            return
        self._busy = True
        self._begin()
        reading: Deferred[T] = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._read)
        reading.addCallback(self._take).addErrback(self._refuse).addBoth(self._over)

    def _over(self, result: object) -> object:
        self._busy = False
        if self._again:
            self._again = False
            self.ask()
        return result

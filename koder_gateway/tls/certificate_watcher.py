"""Checks the certificates' files every few seconds, in a thread, and applies the changes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from .certificate_store import StoreChanges, shortened
from .certificates import CertificateError
from .contexts import ServerContexts
from .issued_store import WatchedStore
from .ticket_contexts import TICKETS, TicketContexts

_log = Logger()

# Seconds between two looks. A change takes effect within five seconds: the longest pause, the shortest pause for
# files that must be seen twice, and the time that reading takes. Up to about ten thousand files, looking takes at
# most a fiftieth of a processor.
_SHORTEST: Final = 1.0
_LONGEST: Final = 3.0
_SHARE: Final = 50
# After a look that failed unexpectedly.
_RECOVERY: Final = 60.0


@dataclass(slots=True, eq=False)
class WatchedContexts:
    """Contexts, and the source of their certificates; `text` is the endpoint that they are for, "" for several."""

    text: str
    store: WatchedStore
    contexts: ServerContexts
    faulty: int = 0


class CertificateWatcher:
    """Checks everything in `watched`, which its owner may change at any time. With `tickets` their keys are changed
    when those of all workers are."""

    def __init__(self, reactor: Any, tickets: TicketContexts | None = None) -> None:
        self._next_rotation = (lambda now: now + TICKETS) if tickets is None else tickets.next_period
        self.watched: list[WatchedContexts] = []
        self._reactor = reactor
        self._threads: Any = getattr(reactor, "getThreadPool", None)
        self._looking = False
        self._again = False
        self._stopped = False
        self._begun = -math.inf
        self._pause = 0.0
        self._rotation = math.inf

    def sweep(self, now: float) -> None:
        """Look if it is time; `now` is in monotonic seconds."""
        if self._rotation == math.inf:
            self._rotation = self._next_rotation(now)
        if now >= self._rotation:
            self._rotation = self._next_rotation(now)
            for each in self.watched:
                each.contexts.rotate()
        if now >= self._begun + self._pause and not self._looking:
            self._begun = now
            self._start(False)

    def again(self) -> None:
        """Read everything again at once, and report all faults, even those reported before."""
        if self._looking:
            self._again = True
        else:
            self._start(True)

    def stop(self) -> None:
        """Stop looking. The result of a look in progress is ignored, and must not delay the end of the process."""
        self._stopped = True
        for each in self.watched:
            each.store.stop()

    def _start(self, settled: bool) -> None:
        if self._stopped or not self.watched:
            return
        pairs = [(each, each.store) for each in self.watched]
        stores = [store for _, store in pairs]
        if self._threads is None:
            self._found(_look(stores, settled), pairs)
            return
        self._looking = True
        work = deferToThreadPool(self._reactor, self._threads(), _look, stores, settled)
        work.addCallback(self._found, pairs).addErrback(self._failed)

    def _found(
        self, found: tuple[list[StoreChanges], float], pairs: list[tuple[WatchedContexts, WatchedStore]]
    ) -> None:
        self._looking = False
        if self._stopped:
            return
        looks, took = found
        self._pause = min(max(_SHORTEST, took * _SHARE), _LONGEST)
        for (each, store), look in zip(pairs, looks, strict=True):
            # A reload may have replaced it.
            if each.store is store:
                _serve(each, look)
            if look.unsettled:
                self._pause = _SHORTEST
        if self._again:
            self._again = False
            self._start(True)

    def _failed(self, failure: Failure) -> None:
        self._looking = False
        self._pause = _RECOVERY
        _log.failure("the certificates could not be checked; the previous ones stay", failure)


def _look(stores: Sequence[WatchedStore], settled: bool) -> tuple[list[StoreChanges], float]:
    """A look at each, and how many seconds they took together."""
    begun = time.monotonic()
    now = time.time()
    return [store.look(now, settled) for store in stores], time.monotonic() - begun


def _serve(watched: WatchedContexts, look: StoreChanges) -> None:
    label = f'endpoint "{watched.text}": ' if watched.text else ""
    watched.faulty = look.faulty
    if look.names is not None:
        try:
            watched.contexts.serve(look.names)
        except CertificateError as error:
            look.errors.append(f"{error}; the previous certificates stay")
        else:
            _log.info("{label}certificates read again: {count}", label=label, count=len(look.names.certificates))
    for line in shortened(look.restored):
        _log.info("{label}{line}", label=label, line=line)
    for line in look.errors:
        _log.error("{label}{line}", label=label, line=line)
    for line in look.warnings:
        _log.warn("{label}{line}", label=label, line=line)


def warn(lines: list[str]) -> None:
    """Log warnings, the first of many."""
    for line in shortened(lines):
        _log.warn("{line}", line=line)

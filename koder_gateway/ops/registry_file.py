"""The registry in a file: read again when the file has changed, away from the reactor's thread."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config import file_version, load_tenants
from ..policy.tenants import Registry
from .metrics import Counters
from .pace import Pace
from .registry_losses import Losses

_log = Logger()

# Seconds between the two looks that must agree: a file that is being written has changed again by then.
SECOND_LOOK: Final = 1.0


class Changing(Exception):
    """The file has changed while it was read."""


class RegistryFile:
    """Watches one file, of which the version `seen` has been read already. `read` gets the registry of each other
    version that two looks agree on; one that cannot be read, or that lacks more tenants than `losses` allows, leaves
    the tenants before it in place, and is said and counted once."""

    def __init__(
        self,
        path: Path,
        base_domain: str,
        seen: object,
        losses: Losses,
        counters: Counters,
        read: Callable[[Registry], object],
        reactor: Any,
    ) -> None:
        self._path = path
        self._base_domain = base_domain
        self._losses = losses
        self._counters = counters
        self._read = read
        self._reactor = reactor
        self._seen = seen
        # Whether it has been another file since its tenants are in force, and a version that was looked at once.
        self._replaced = False
        self._noticed: object = None
        self._due = -math.inf
        self._reading: Deferred[None] | None = None
        self._stopped = False

    def sweep(self, now: float, refresh: float) -> None:
        """Look whether the file has changed, every `refresh` seconds, and again soon when it has."""
        if now < self._due or self._reading is not None or self._stopped:
            return
        self._due = now + refresh
        state = file_version(self._path)
        if state == self._seen:
            self._noticed = None
            return
        if state != self._noticed:
            self._replaced |= not _same_file(state, self._noticed or self._seen)
            self._noticed = state
            self._due = now + min(refresh, SECOND_LOOK)
            return
        self._seen = state
        work = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._work, state)
        self._reading = work.addCallbacks(self._succeeded, self._failed)

    def stop(self) -> None:
        """Watch no more; what is being read just now comes too late."""
        self._stopped = True

    def _work(self, state: object) -> Registry:
        """In a thread."""
        pace = Pace()
        registry = Registry(load_tenants(self._path, self._base_domain, pace), pace)
        if file_version(self._path) != state:
            raise Changing
        self._losses.check(str(self._path), registry, not self._replaced, pace)
        return registry

    def _succeeded(self, registry: Registry) -> None:
        self._reading = None
        if not self._stopped:
            self._replaced = False
            self._read(registry)

    def _failed(self, failure: Failure) -> None:
        self._reading = None
        if self._stopped:
            return
        if failure.check(Changing):
            # What has been read is nothing yet: two looks must agree again.
            self._seen = None
            self._due = -math.inf
            return
        self._counters.registry_failures += 1
        for line in failure.getErrorMessage().splitlines():
            _log.error("registry not read again, the tenants before it stay: {line}", line=line)


def _same_file(one: object, other: object) -> bool:
    """Whether two versions are of the same file, written in place, and not of one that has replaced the other."""
    return isinstance(one, tuple) and isinstance(other, tuple) and one[0] == other[0]

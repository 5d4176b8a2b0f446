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
from ..policy.tenants import Tenant
from .metrics import Counters

_log = Logger()

# Seconds between the look that finds a change and the one that must find the same, in which an editor has written it.
SETTLE: Final = 1.0


class RegistryFile:
    """Watches one file, of which the version `seen` with `count` tenants has been read already. `read` gets the
    tenants of each other version; one that cannot be read leaves the tenants before it in place, and is said and
    counted once.

    A file that is being written may look like a whole one, whose last tenant is not suspended, or whose other tenants
    do not exist. So a version is read once two looks agree on it, and one with fewer tenants than before must have
    been moved into place.
    """

    def __init__(
        self,
        path: Path,
        base_domain: str,
        seen: object,
        count: int,
        counters: Counters,
        read: Callable[[tuple[Tenant, ...]], object],
        reactor: Any,
    ) -> None:
        self._path = path
        self._base_domain = base_domain
        self._counters = counters
        self._read = read
        self._reactor = reactor
        self._seen = seen
        self._count = count
        # The version that the last look has found, and the one that was read before what is being read.
        self._found: object = seen
        self._before: object = seen
        self._due = -math.inf
        self._reading: Deferred[None] | None = None
        self._stopped = False

    def sweep(self, now: float, refresh: float) -> None:
        """Look whether the file has changed, every `refresh` seconds, and soon again once it has."""
        if now < self._due or self._reading is not None or self._stopped:
            return
        self._due = now + refresh
        state = file_version(self._path)
        if state == self._seen:
            return
        if state != self._found:
            self._found = state
            self._due = now + min(refresh, SETTLE)
            return
        self._before, self._seen = self._seen, state
        work = deferToThreadPool(
            self._reactor, self._reactor.getThreadPool(), load_tenants, self._path, self._base_domain
        )
        self._reading = work.addCallbacks(self._succeeded, self._failed)

    def stop(self) -> None:
        """Watch no more; what is being read just now comes too late."""
        self._stopped = True

    def _succeeded(self, tenants: tuple[Tenant, ...]) -> None:
        self._reading = None
        if self._stopped:
            return
        if file_version(self._path) != self._seen:
            # It has changed while it was read: the next look finds a version that may be whole.
            self._seen = self._before
            return
        if len(tenants) < self._count and _same_file(self._before, self._seen):
            self._refuse(
                f"{self._path}: it has {len(tenants)} tenants in place of {self._count} and was changed in place, "
                "as if it was still being written; write another file and move it there (mv)"
            )
            return
        self._count = len(tenants)
        self._read(tenants)

    def _failed(self, failure: Failure) -> None:
        self._reading = None
        if self._stopped:
            return
        self._refuse(failure.getErrorMessage())

    def _refuse(self, message: str) -> None:
        self._counters.registry_failures += 1
        for line in message.splitlines():
            _log.error("registry not read again, the tenants before it stay: {line}", line=line)


def _same_file(one: object, other: object) -> bool:
    """Whether two versions are of one inode: whoever moves a file into place brings another."""
    return isinstance(one, tuple) and isinstance(other, tuple) and one[0] == other[0]

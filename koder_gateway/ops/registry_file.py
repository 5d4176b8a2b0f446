"""The registry in a file: read again when the file has changed, away from the reactor's thread."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config import load_tenants
from ..policy.tenants import Tenant
from .metrics import Counters

_log = Logger()
# Seconds; longer than a registry of millions takes to be read.
_LATELY: Final = 300.0


class RegistryFile:
    """Watches one file, which has been read already. `read` gets the tenants of each later version; one that cannot
    be read leaves the tenants before it in place, and is said and counted once."""

    def __init__(
        self,
        path: Path,
        base_domain: str,
        counters: Counters,
        read: Callable[[tuple[Tenant, ...]], object],
        reactor: Any,
    ) -> None:
        self._path = path
        self._base_domain = base_domain
        self._counters = counters
        self._read = read
        self._reactor = reactor
        # Who has changed the file lately may have done so after it was read: then it is read once more.
        self._seen = self._state() if self._rests() else None
        self._due = -math.inf
        self._reading: Deferred[None] | None = None
        self._stopped = False

    def sweep(self, now: float, refresh: float) -> None:
        """Look whether the file has changed, every `refresh` seconds."""
        if now < self._due or self._reading is not None or self._stopped:
            return
        self._due = now + refresh
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        work = deferToThreadPool(
            self._reactor, self._reactor.getThreadPool(), load_tenants, self._path, self._base_domain
        )
        self._reading = work.addCallbacks(self._succeeded, self._failed)

    def stop(self) -> None:
        """Watch no more; what is being read just now comes too late."""
        self._stopped = True

    def _state(self) -> object:
        try:
            status = self._path.stat()
        except OSError as error:
            return error.errno
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _rests(self) -> bool:
        try:
            return time.time() - self._path.stat().st_mtime > _LATELY
        except OSError:
            return False

    def _succeeded(self, tenants: tuple[Tenant, ...]) -> None:
        self._reading = None
        if not self._stopped:
            self._read(tenants)

    def _failed(self, failure: Failure) -> None:
        self._reading = None
        if self._stopped:
            return
        self._counters.registry_failures += 1
        for line in failure.getErrorMessage().splitlines():
            _log.error("registry not read again, the tenants before it stay: {line}", line=line)

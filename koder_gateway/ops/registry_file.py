"""The registry in a file: read again when the file has changed, away from the reactor's thread."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config import file_version, load_tenants
from ..policy.tenants import Tenant
from .metrics import Counters

_log = Logger()


class RegistryFile:
    """Watches one file, of which the version `seen` has been read already. `read` gets the tenants of each other
    version; one that cannot be read leaves the tenants before it in place, and is said and counted once."""

    def __init__(
        self,
        path: Path,
        base_domain: str,
        seen: object,
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
        self._due = -math.inf
        self._reading: Deferred[None] | None = None
        self._stopped = False

    def sweep(self, now: float, refresh: float) -> None:
        """Look whether the file has changed, every `refresh` seconds."""
        if now < self._due or self._reading is not None or self._stopped:
            return
        self._due = now + refresh
        state = file_version(self._path)
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

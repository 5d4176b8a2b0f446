"""The copy on disk of the tenants in force, for the next start: in a thread, and with each fault told once."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from twisted.logger import Logger

from ..config import ConfigurationError, ListContext
from ..config.faults import reason
from ..policy.tenants import Registry
from .tenant_list import read_cache, write_cache
from .thread_throttle import ThreadThrottle

CACHE_NAME: Final = "tenants-cache.json"


class RegistryCache:
    """The cache of one registry in a state folder. `source` is its URL or path: the tenants of another registry say
    nothing about it. Both methods are for a thread."""

    log = Logger()

    def __init__(self, state: Path, source: str, base_domain: str) -> None:
        self.path = state / CACHE_NAME
        self._source = source
        self._base_domain = base_domain
        self._unkept = ""

    def read(self) -> Registry | None:
        """The tenants that were kept; None if there are none that can be used."""
        try:
            return read_cache(self.path, self._source, ListContext(self._base_domain, rest=ThreadThrottle()))
        except ConfigurationError as error:
            self.log.warn("the cached tenants are not used: {fault}", fault=error.faults[0])
            return None

    def write(self, registry: Registry) -> None:
        """Keep these tenants."""
        try:
            write_cache(self.path, self._source, registry, ThreadThrottle())
        except OSError as error:
            unkept = f"{self.path}: {reason(error)}"
            if unkept != self._unkept:
                self.log.warn("the tenants could not be cached for the next start: {fault}", fault=unkept)
            self._unkept = unkept
        else:
            self._unkept = ""

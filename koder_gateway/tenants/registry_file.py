"""The registry in a file: read again when the file has changed, in a thread."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config import TenantList, Version, file_state, parse_tenants, read_once
from ..config.registry import MAX_LIST
from ..policy.tenants import Registry
from .registry_cache import RegistryCache
from .registry_in_force import RegistryCounters, RegistryInForce
from .rename_watch import RenameWatch
from .thread_throttle import ThreadThrottle

T = TypeVar("T")

_log = Logger()

# Seconds between the two looks that must agree: a file that is being written changes within this time.
SECOND_LOOK: Final = 1.0


class RegistryFile:
    """Watches one file, of which the version `seen` has already been read.

    `read` gets the registry of each other version that two looks agree on, without its bad entries, which are logged.
    A version that cannot be read, or that has more bad entries or lacks more tenants than `in_force` allows, leaves
    the previous tenants in place, and is logged and counted once. A list that lacks any tenant must have been renamed
    to its name: a file that was written in place, or removed and created again, may be incomplete, however long it
    stays unchanged.

    `cache` keeps the tenants for the next start, where they decide who had a domain that several claim: if
    `contested`, the version that was read at the start is read once more with them.
    """

    def __init__(
        self,
        path: Path,
        base_domain: str,
        seen: Version | None,
        in_force: RegistryInForce,
        counters: RegistryCounters,
        read: Callable[[Registry], object],
        reactor: Any,
        cache: RegistryCache | None = None,
        contested: bool = False,
    ) -> None:
        # The version that two looks agreed on last, accepted or not.
        self.seen = seen
        self._path = path
        self._base_domain = base_domain
        self._in_force = in_force
        self._counters = counters
        self._read = read
        self._reactor = reactor
        # A newer version that has been seen once, and whether it was renamed to its name.
        self._noticed: Version | None = None
        self._renamed = False
        # Created at the first look, since a gateway may never be started.
        self._arrivals: RenameWatch | None = None
        self._came: bool | None = None
        self._due = -math.inf
        self._looking: Deferred[None] | None = None
        self._stopped = False
        self._cache = cache
        # What is to be done once at the start.
        self._kept_until_now = cache is None
        self._contested = contested

    def sweep(self, now: float, refresh: float) -> None:
        """Check whether the file has changed, every `refresh` seconds, and again soon after a change."""
        if now < self._due or self._looking is not None or self._stopped:
            return
        if self._arrivals is None:
            self._arrivals = RenameWatch(self._path)
        if not self._kept_until_now:
            self._kept_until_now = True
            self._in_thread(self._begin, self._looked)
            return
        self._due = now + refresh
        if self.seen is not None and file_state(self._path) == self.seen.state:
            self._noticed = None
            return
        self._due = now + min(refresh, SECOND_LOOK)
        self._in_thread(lambda: self._look(self._noticed, self._renamed), self._looked)

    def _in_thread(self, work: Callable[[], T], done: Callable[[T], object]) -> None:
        doing: Any = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)
        self._looking = doing.addCallbacks(done, self._failed)

    def stop(self) -> None:
        """Stop watching; the result of a read in progress is ignored."""
        self._stopped = True
        if self._arrivals is not None:
            self._arrivals.close()

    def _begin(self) -> TenantList | None:
        """In a thread: settle by the tenants of the last run what the version at the start left open; None if there
        is nothing to settle."""
        assert self._cache is not None, "there is a cache"
        before = self._cache.read() if self._contested else None
        look = None if before is None else read_once(self._path, str(self._path), MAX_LIST)
        if before is not None and look is not None and look.version == self.seen:
            context = replace(self._in_force.context(self._base_domain, ThreadThrottle()), before=before)
            found = parse_tenants(look.data(), str(self._path), context)
            self._in_force.check_faults(str(self._path), found)
            return found
        self._cache.write(self._in_force.before())
        return None

    def _look(self, noticed: Version | None, renamed: bool) -> Version | TenantList:
        """In a thread: the present version, or its contents if it is the one that was noticed."""
        look = read_once(self._path, str(self._path), MAX_LIST)
        if look.version != noticed:
            return look.version
        name, pace = str(self._path), ThreadThrottle()
        found = parse_tenants(look.data(), name, self._in_force.context(self._base_domain, pace))
        self._in_force.check_faults(name, found)
        self._in_force.check_losses(name, found.registry, not renamed, pace)
        return found

    def _looked(self, found: Version | TenantList | None) -> None:
        self._looking = None
        if self._stopped or found is None:
            return
        if isinstance(found, Version):
            self._notice(found)
            return
        self._agreed()
        self._counters.registry_skipped = found.skipped
        self._counters.registry_unread = False
        self._read(found.registry)
        for line in found.faults:
            _log.error("left out of the registry: {line}", line=line)
        if self._cache is not None:
            registry, cache = found.registry, self._cache
            self._in_thread(lambda: cache.write(registry), self._written)

    def _written(self, _: object) -> None:
        self._looking = None

    def _notice(self, version: Version) -> None:
        """Remember a version for the next look to compare with."""
        before, self._noticed = self._noticed or self.seen, version
        # Asked after the look, so that its event has already been reported.
        came = None if self._arrivals is None else self._arrivals.latest()
        if came is not None:
            self._came = self._renamed = came
        elif before is not None and _same_file(version.state, before.state):
            # Written in place, unless only its modification time differs.
            self._renamed = self._renamed and version.content == before.content
        elif self._came is not None:
            self._renamed = self._came
        else:
            # There are no events: a file with another inode counts as renamed.
            self._renamed = before is not None and isinstance(before.state, tuple)

    def _agreed(self) -> None:
        self.seen, self._noticed = self._noticed or self.seen, None

    def _failed(self, failure: Failure) -> None:
        self._looking = None
        if self._stopped:
            return
        self._agreed()
        self._counters.registry_failures += 1
        self._counters.registry_unread = True
        for line in failure.getErrorMessage().splitlines():
            _log.error("registry not read again, the previous tenants stay: {line}", line=line)


def _same_file(one: object, other: object) -> bool:
    """Whether two states are of the same file, written in place, and not of two files of which one replaced the
    other."""
    return isinstance(one, tuple) and isinstance(other, tuple) and one[0] == other[0]

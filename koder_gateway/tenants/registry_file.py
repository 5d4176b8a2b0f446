"""The registry in a file: read again when the file has changed, in a thread."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config import Version, file_state, parse_tenants, read_once
from ..config.registry import MAX_LIST
from ..policy.tenants import Registry
from .registry_losses import FailureCount, LossLimit
from .rename_watch import RenameWatch
from .thread_throttle import ThreadThrottle

_log = Logger()

# Seconds between the two looks that must agree: a file that is being written changes within this time.
SECOND_LOOK: Final = 1.0


class RegistryFile:
    """Watches one file, of which the version `seen` has already been read.

    `read` gets the registry of each other version that two looks agree on. A version that cannot be read, or that
    lacks more tenants than `losses` allows, leaves the previous tenants in place, and is logged and counted once. A
    list that lacks any tenant must have been renamed to its name: a file that was written in place, or removed and
    created again, may be incomplete, however long it stays unchanged.
    """

    def __init__(
        self,
        path: Path,
        base_domain: str,
        seen: Version | None,
        losses: LossLimit,
        counters: FailureCount,
        read: Callable[[Registry], object],
        reactor: Any,
    ) -> None:
        # The version that two looks agreed on last, accepted or not.
        self.seen = seen
        self._path = path
        self._base_domain = base_domain
        self._losses = losses
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

    def sweep(self, now: float, refresh: float) -> None:
        """Check whether the file has changed, every `refresh` seconds, and again soon after a change."""
        if now < self._due or self._looking is not None or self._stopped:
            return
        if self._arrivals is None:
            self._arrivals = RenameWatch(self._path)
        self._due = now + refresh
        if self.seen is not None and file_state(self._path) == self.seen.state:
            self._noticed = None
            return
        self._due = now + min(refresh, SECOND_LOOK)
        pool = self._reactor.getThreadPool()
        work = deferToThreadPool(self._reactor, pool, self._look, self._noticed, self._renamed)
        self._looking = work.addCallbacks(self._looked, self._failed)

    def stop(self) -> None:
        """Stop watching; the result of a read in progress is ignored."""
        self._stopped = True
        if self._arrivals is not None:
            self._arrivals.close()

    def _look(self, noticed: Version | None, renamed: bool) -> Version | Registry:
        """In a thread: the present version, or its contents if it is the one that was noticed."""
        look = read_once(self._path, str(self._path), MAX_LIST)
        if look.version != noticed:
            return look.version
        pace = ThreadThrottle()
        registry = Registry(parse_tenants(look.data(), str(self._path), self._base_domain, pace), pace)
        self._losses.check(str(self._path), registry, not renamed, pace)
        return registry

    def _looked(self, found: Version | Registry) -> None:
        self._looking = None
        if self._stopped:
            return
        if isinstance(found, Version):
            self._notice(found)
            return
        self._agreed()
        self._read(found)

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
        for line in failure.getErrorMessage().splitlines():
            _log.error("registry not read again, the previous tenants stay: {line}", line=line)


def _same_file(one: object, other: object) -> bool:
    """Whether two states are of the same file, written in place, and not of two files of which one replaced the
    other."""
    return isinstance(one, tuple) and isinstance(other, tuple) and one[0] == other[0]

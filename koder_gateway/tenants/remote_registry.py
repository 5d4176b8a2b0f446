"""The tenant registry behind a URL: fetched, validated as a whole, and cached on disk for a start without it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config import ConfigurationError, TenantList
from ..config.registry import MAX_LIST
from ..errors import OVERLOADED, Refusal
from ..policy.tenants import Registry, Tenant, TenantPolicy
from .registry_cache import RegistryCache
from .registry_in_force import RegistryCounters, RegistryInForce
from .tenant_list import parse_tenant_list
from .thread_throttle import ThreadThrottle

# Seconds for one complete response.
TIMEOUT: Final = 10.0


class UnreadTenants(TenantPolicy):
    """The policy of a registry that has not been read: the tenants are unknown, so none is refused as unknown."""

    __slots__ = ()

    _REFUSAL = OVERLOADED.because("The tenant registry has not been read yet.")

    def __init__(self) -> None:
        """Every answer is the same, and no name belongs to a tenant."""
        super().__init__("", "", "", Registry(()))

    def resolve(self, host: bytes, named: Sequence[bytes]) -> Tenant | Refusal:
        """503, to be asked again."""
        return self._REFUSAL

    def host_refusal(self, host: bytes) -> Refusal | None:
        """503, to be asked again."""
        return self._REFUSAL


class RegistrySource(Protocol):
    """Fetches the list."""

    def get(self, headers: Mapping[str, str]) -> Deferred[tuple[int, str, bytes | bytearray | None]]:
        """Status, ETag and body of a response, the body None if it is longer than `MAX_LIST`. Fails with an exception
        whose text has the reason, or after `cut` with CancelledError."""

    def cut(self) -> None:
        """Cancel the request in flight."""


@dataclass(frozen=True, slots=True)
class RegistryLocation:
    """Where a registry is read from: a list that was good for one place says nothing about another."""

    url: str
    base_domain: str
    state: Path


class RemoteRegistry:
    """Follows the registry at a URL: `read` gets its tenants whenever they have changed.

    A list that cannot be fetched changes nothing except the log and a counter; nor does one that has more bad
    entries, or lacks more tenants, than `in_force` allows. A few bad entries are left out, and logged. The first list
    after `again` may lack any, and so may the very first one. Before the first good list the cached one is used, and
    the first list is compared with it. `sweep` provides the time; the work is done in the reactor's threads.
    """

    log = Logger()

    def __init__(
        self,
        place: RegistryLocation,
        source: RegistrySource,
        in_force: RegistryInForce,
        counters: RegistryCounters,
        read: Callable[[Registry], object],
        reactor: Any,
    ) -> None:
        self.place = place
        # Queries may contain secrets, which do not belong in logs.
        self._name = place.url.partition("?")[0]
        self._cache = RegistryCache(place.state, place.url, place.base_domain)
        self._source = source
        self._in_force = in_force
        # Whether the next good list is accepted whatever it lacks.
        self._asked_for = True
        self._counters = counters
        self._read = read
        self._reactor = reactor
        self._stopped = False
        self._busy = False
        self._first = True
        self._now = 0.0
        self._due = float("-inf")
        self._deadline = float("inf")
        # The ETag of the last good list: that of a bad list would make the next "not modified" look good.
        self._etag = ""
        # The digest of the last list that was validated, and its faults.
        self._judged: tuple[bytes, tuple[str, ...]] = (b"", ())
        self._told: tuple[str, ...] = ()
        # The faults of entries that were left out, as they were logged last.
        self._left_out: tuple[str, ...] = ()

    # -- time

    def sweep(self, now: float, refresh: float) -> None:
        """Do what is due: fetch the list every `refresh` seconds. `now`: monotonic seconds."""
        self._now = now
        if now >= self._deadline:
            self._deadline = float("inf")
            self._source.cut()
        elif now >= self._due and not self._busy:
            self._due = now + refresh
            self._busy = True
            Deferred.fromCoroutine(self._refresh()).addErrback(self._broken)

    def again(self) -> None:
        """Fetch at the next sweep instead of after the usual time; a list that was refused for its losses is then
        accepted."""
        self._asked_for = True
        self._due = float("-inf")

    def stop(self) -> None:
        """Stop following; the result of a request in flight is ignored."""
        self._stopped = True
        self._deadline = float("inf")
        self._source.cut()

    # -- one refresh

    async def _refresh(self) -> None:
        try:
            if self._first:
                self._first = False
                await self._start_with_cache()
            if not self._stopped:
                await self._fetch()
        finally:
            self._busy = False

    async def _start_with_cache(self) -> None:
        registry = await self._in_thread(self._cache.read)
        if registry is not None and not self._stopped:
            self.log.info(
                "starting with {count} tenants cached in {path}", count=len(registry), path=self._cache.path
            )
            self._asked_for = False
            self._read(registry)

    async def _fetch(self) -> None:
        headers = {"Accept": "application/json"}
        if self._etag:
            headers["If-None-Match"] = self._etag
        self._deadline = self._now + TIMEOUT
        try:
            status, etag, body = await self._source.get(headers)
        except CancelledError:
            self._failed([f"{self._name}: no complete response within {TIMEOUT:g} seconds"])
            return
        except Exception as error:
            self._failed([f"{self._name}: {error}"])
            return
        finally:
            self._deadline = float("inf")
        if status == 304 and self._etag:
            self._asked_for = False
            self._succeeded()
        elif status != 200:
            self._failed([f"{self._name}: responds with {status}, not 200"])
        elif body is None:
            self._failed([f"{self._name}: is longer than {MAX_LIST} bytes"])
        else:
            await self._judge(body, etag)

    async def _judge(self, body: bytes | bytearray, etag: str) -> None:
        """Use a list, unless it is the previous one or cannot be used."""
        asked_for, self._asked_for = self._asked_for, False
        try:
            found = await self._in_thread(self._work, body, asked_for)
        except ConfigurationError as error:
            # `again` asks for a good list, which may still come.
            self._asked_for |= asked_for
            self._failed(error.faults)
            return
        if self._stopped:
            return
        self._etag = etag
        if found is not None:
            self._take(found)
        self._succeeded()
        if found is not None:
            await self._in_thread(self._cache.write, found.registry)

    def _take(self, found: TenantList) -> None:
        self._counters.registry_skipped = found.skipped
        self._read(found.registry)
        if found.faults != self._left_out:
            for line in found.faults:
                self.log.error("left out of the registry: {line}", line=line)
        self._left_out = found.faults

    def _work(self, body: bytes | bytearray, asked_for: bool) -> TenantList | None:
        """In a thread: what the list says, None for the previous list."""
        digest = hashlib.sha256(body).digest()
        judged, faults = self._judged
        if digest == judged and not (faults and asked_for):
            if faults:
                raise ConfigurationError(faults)
            return None
        pace = ThreadThrottle()
        try:
            found = parse_tenant_list(body, self._name, self._in_force.context(self.place.base_domain, pace))
            self._in_force.check_faults(self._name, found)
            if not asked_for:
                self._in_force.check_losses(self._name, found.registry, False, pace)
        except ConfigurationError as error:
            self._judged = digest, tuple(error.faults)
            raise
        self._judged = digest, ()
        return found

    def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work, *arguments)

    # -- what became of it

    def _succeeded(self) -> None:
        if self._told:
            self.log.info("{registry} can be read again", registry=self._name)
        self._told = ()

    def _failed(self, faults: Sequence[str]) -> None:
        if self._stopped:
            return
        self._counters.registry_failures += 1
        told = tuple(faults)
        # A registry that stays unreachable is logged once, and so is each new reason.
        if told == self._told:
            return
        self._told = told
        for fault in told:
            self.log.error("registry not read, the previous tenants stay: {line}", line=fault)

    def _broken(self, failure: Failure) -> None:
        self._counters.registry_failures += 1
        self.log.failure("registry not read", failure=failure)

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
from ..errors import OVERLOADED, Refusal
from ..policy.tenants import Registry, Tenant, TenantPolicy
from .list_reader import MAX_PAGE, LastList, ListReader, changes_url
from .registry_cache import RegistryCache
from .registry_in_force import RegistryCounters, RegistryInForce
from .thread_throttle import ThreadThrottle

# Seconds for one complete response, and for all pages of a list.
TIMEOUT: Final = 10.0
LONGEST: Final = 600.0
# Statuses below 500 that say nothing about the list: who asks may not, or is too early.
_NOT_NOW: Final = (401, 403, 408, 429)


class NoAnswer(ConfigurationError):
    """The service could not be reached, or did not answer: what is known of its list still holds."""


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


class Response(Protocol):
    """A response: its ETag is "" where it has none, its body None if it is longer than `MAX_PAGE`; `links` are the
    values of its Link headers."""

    @property
    def status(self) -> int:
        """The status."""

    @property
    def etag(self) -> str:
        """The ETag."""

    @property
    def body(self) -> bytes | bytearray | None:
        """The body."""

    @property
    def links(self) -> Sequence[str]:
        """The Link headers."""


class RegistrySource(Protocol):
    """Fetches the list."""

    def get(self, headers: Mapping[str, str], url: str) -> Deferred[Any]:
        """The Response at this URL. Fails with an exception whose text has the reason, or after `cut` with
        CancelledError."""

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
    the first list is compared with it. If the service offers it, only changes are fetched, and the whole list every
    hour. `sweep` provides the time; the work is done in the reactor's threads.
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
        self._due = self._interval = float("-inf")
        self._deadline = self._end = float("inf")
        self._good = LastList()
        # The digest of the last list of one page that was refused, and its faults.
        self._refused: tuple[bytes, tuple[str, ...]] = (b"", ())
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
            self._interval = refresh
            self._due = now + refresh
            self._busy = True
            Deferred.fromCoroutine(self._refresh()).addErrback(self._broken)

    def again(self) -> None:
        """Fetch at the next sweep instead of after the usual time, and the whole list; one that was refused for its
        losses is then accepted."""
        self._asked_for = True
        # A list in flight belongs to the one before: it does not count as the whole list that is asked for here.
        self._good = LastList()
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
            if self._now >= self._due > float("-inf"):
                # It took longer than the interval: without a pause the next one would begin at once.
                self._due = self._now + self._interval

    async def _start_with_cache(self) -> None:
        registry = await self._in_thread(self._cache.read)
        if registry is not None and not self._stopped:
            self.log.info(
                "starting with {count} tenants cached in {path}", count=len(registry), path=self._cache.path
            )
            self._asked_for = False
            self._read(registry)

    async def _fetch(self) -> None:
        asked_for, self._asked_for = self._asked_for, False
        try:
            found = await self._transferred(asked_for)
        except ConfigurationError as error:
            # `again` asks for a good list, which may still come. After changes that make no sense: the whole list.
            self._asked_for |= asked_for
            if not isinstance(error, NoAnswer):
                self._good.forget()
            self._failed(error.faults)
            return
        if self._stopped:
            return
        if found is not None:
            self._take(found)
        self._succeeded()
        if found is not None:
            await self._in_thread(self._cache.write, found.registry)

    async def _transferred(self, asked_for: bool) -> TenantList | None:
        """The list; None if it is the previous one. Raises ConfigurationError for one that is not to be used."""
        good, self._end = self._good, self._now + LONGEST
        since = good.as_of if self._now < good.whole_due else ""
        # What is compared with when it is resolved must be what was in force when the changes were asked for.
        context = self._in_force.context(self.place.base_domain, ThreadThrottle())
        reader = ListReader(self._name, self.place.url, context, since)
        url = changes_url(self.place.url, since) if since else self.place.url
        digest = b""
        while url and not self._stopped:
            page = None if since else good.pages.get(url)
            response = await self._get(url, "" if page is None else page.etag)
            if response.status == 304 and page is not None and page.etag:
                url = reader.keep(url, page)
            elif response.status != 200:
                message = f"responds with {response.status}, not 200"
                raise self._no_answer(message) if _is_failure(response.status) else self._fault(message)
            elif response.body is None:
                raise self._fault(f"is longer than {MAX_PAGE} bytes")
            else:
                if not reader.pages:
                    digest = await self._in_thread(lambda body: hashlib.sha256(body).digest(), response.body)
                    if self._is_previous(digest, good, asked_for):
                        good.confirm(self._now)
                        return None
                url = await self._in_thread(reader.read, url, response.body, response.etag, response.links)
        alone = digest if len(reader.pages) == 1 and not reader.since else b""
        if self._stopped:
            return None
        if not reader.says_anything:
            if reader.since:
                good.follow(reader, alone, self._now)
            else:
                good.confirm(self._now)
            return None
        try:
            found: TenantList = await self._in_thread(self._judged, reader, asked_for)
        except ConfigurationError as error:
            self._refused = alone, tuple(error.faults)
            raise
        self._refused = b"", ()
        good.follow(reader, alone, self._now)
        return found

    async def _get(self, url: str, etag: str) -> Response:
        headers = {"Accept": "application/json"}
        if etag:
            headers["If-None-Match"] = etag
        if self._now >= self._end:
            raise self._fault(f"its pages do not end within {LONGEST:g} seconds")
        self._deadline = self._now + TIMEOUT
        try:
            response: Response = await self._source.get(headers, url)
        except CancelledError:
            raise self._no_answer(f"no complete response within {TIMEOUT:g} seconds") from None
        except Exception as error:
            raise self._no_answer(str(error)) from None
        finally:
            self._deadline = float("inf")
        return response

    def _is_previous(self, digest: bytes, good: LastList, asked_for: bool) -> bool:
        """Whether a list of one page is the one before. Raises ConfigurationError if that was refused."""
        refused, faults = self._refused
        if digest == refused and not asked_for:
            raise ConfigurationError(faults)
        return digest == good.digest

    def _judged(self, reader: ListReader, asked_for: bool) -> TenantList:
        """In a thread: what the pages say, if it may be used."""
        found = reader.result()
        self._in_force.check_faults(self._name, found)
        if not asked_for:
            self._in_force.check_losses(self._name, found.registry, False, ThreadThrottle())
        return found

    def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work, *arguments)

    # -- what became of it

    def _take(self, found: TenantList) -> None:
        # Entries of the whole list that are left out stay so after changes to others.
        self._counters.registry_skipped = found.skipped + (self._counters.registry_skipped if found.changes else 0)
        self._read(found.registry)
        if found.faults != self._left_out:
            for line in found.faults:
                self.log.error("left out of the registry: {line}", line=line)
        if not found.changes:
            self._left_out = found.faults

    def _succeeded(self) -> None:
        self._counters.registry_unread = False
        if self._told:
            self.log.info("{registry} can be read again", registry=self._name)
        self._told = ()

    def _fault(self, message: str) -> ConfigurationError:
        return ConfigurationError([f"{self._name}: {message}"])

    def _no_answer(self, message: str) -> NoAnswer:
        return NoAnswer([f"{self._name}: {message}"])

    def _failed(self, faults: Sequence[str]) -> None:
        if self._stopped:
            return
        self._counters.registry_failures += 1
        self._counters.registry_unread = True
        told = tuple(faults)
        # A registry that stays unreachable is logged once, and so is each new reason.
        if told == self._told:
            return
        self._told = told
        for fault in told:
            self.log.error("registry not read, the previous tenants stay: {line}", line=fault)

    def _broken(self, failure: Failure) -> None:
        self._counters.registry_failures += 1
        self._counters.registry_unread = True
        self.log.failure("registry not read", failure=failure)


def _is_failure(status: int) -> bool:
    """Whether a response says nothing about the list. Any other one does, such as 410 to a mark that has expired."""
    return status >= 500 or status in _NOT_NOW

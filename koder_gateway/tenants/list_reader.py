"""The Admin service's list, page by page: what a response says besides its tenants, and how the list goes on.

A response is an array, or an object with the array as its member `tenants`. The object may also have these members:

    next           the URL of the next page, on the same server; a Link header says the same (RFC 8288, rel="next")
    next_cursor    or its cursor: the next page is at the same URL with `cursor=...` in the query
    as_of          a mark of this moment: the service can say later what has changed since
    updated_since  the mark that was asked for, by which the service says that these are only the changes since
    removed        the slugs of tenants that are gone since
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import msgspec

from ..config import ConfigurationError, ListContext, TenantList
from ..config.faults import shown
from ..config.json_elements import Elements, Malformed
from ..config.registry import MAX_ENTRY, MAX_LIST
from ..config.tenant_entries import TenantListReading
from ..policy.tenants import is_slug
from .tenant_list import read_elements

# Bytes of one response.
MAX_PAGE: Final = 64 << 20
# Characters of a mark, and of the URL of a page.
_LONGEST_MARK: Final = 256
_LONGEST_URL: Final = 2048
_MAX_PAGES: Final = 10_000
# Pages in a row without a tenant that no page before had: the list has no end.
_MAX_IDLE: Final = 100
# Seconds after which the whole list is fetched again, if the service offers changes.
WHOLE: Final = 3600.0
_MEMBERS: Final = (b"next", b"next_cursor", b"as_of", b"updated_since", b"removed")
_SLUGS: Final = msgspec.json.Decoder(list[str])
_LINK: Final = re.compile(r'<([^<>]*)>((?:[ \t]*;[ \t]*[\w*-]+(?:=(?:"[^"]*"|[^",; \t]*))?)*)')
_NEXT: Final = re.compile(r';[ \t]*rel=(?:"(?:[^"]*[ \t])?next(?:[ \t][^"]*)?"|next(?![^; \t]))', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Page:
    """What is kept of a page: its `etag`, the URL of the next one ("" after the last), and the slugs of its tenants.
    Without an ETag it is read again each time."""

    etag: str
    following: str
    slugs: tuple[bytes, ...]


class ListReader:
    """Reads the pages of one list, which messages call `name`.

    `since` is the mark of the changes that it has, "" if it is the whole list; `as_of` is the next such mark, "" if
    the service offers none. The methods are for a thread, and raise ConfigurationError for an unusable list.
    """

    def __init__(self, name: str, url: str, context: ListContext, since: str = "") -> None:
        self.name = name
        self.as_of = ""
        self.pages: dict[str, Page] = {}
        self._url = url
        self.since = since
        self._context = context
        self._reading: TenantListReading | None = None
        self._size = 0
        self._removed = False
        # Pages in a row that have brought nothing.
        self._idle = 0
        # Pages that have not changed: their tenants are taken once something else has.
        self._kept: list[Page] = []

    @property
    def says_anything(self) -> bool:
        """Whether any page was read, and of changes whether there were any."""
        return self._reading is not None and (not self.since or self._reading.entries > 0 or self._removed)

    def read(self, url: str, body: bytes | bytearray, etag: str, links: Sequence[str]) -> str:
        """Read the page at this URL; returns the URL of the next one."""
        self._size += len(body)
        if self._size > MAX_LIST:
            raise self._fault(f"all pages together are longer than {MAX_LIST >> 20} MiB")
        elements = Elements(body, MAX_ENTRY, _MEMBERS, self._context.rest)
        try:
            reading = self._reading = self._reading or self._begun(body)
            faults = reading.tally.count
            reading.page = []
            read_elements(reading, body, elements)
            following = self._following(url, elements, links)
            if not self.pages:
                self.as_of = _text(elements, b"as_of", _LONGEST_MARK)
        except Malformed as error:
            raise self._fault(f"is not a list of tenants: {error}") from None
        # Changes are never the same again, and of several pages one with a fault may have another's slug.
        alone = not self.pages and not following
        self._check_progress(bool(reading.page) or b"removed" in elements.members)
        usable = bool(etag) and not self.since and (alone or reading.tally.count == faults)
        slugs = tuple(reading.page) if usable and not alone else ()
        return self._add(url, Page(etag if usable else "", following, slugs))

    def keep(self, url: str, page: Page) -> str:
        """Take a page as it was; returns the URL of the next one."""
        self._kept.append(page)
        self._check_progress(bool(page.slugs))
        return self._add(url, page)

    def _check_progress(self, brings_any: bool) -> None:
        self._idle = 0 if brings_any else self._idle + 1
        if self._idle >= _MAX_IDLE:
            raise self._fault(f"has {_MAX_IDLE} pages in a row that bring no other tenant")

    def _add(self, url: str, page: Page) -> str:
        self.pages[url] = page
        following = page.following
        if following in self.pages:
            raise self._fault("its pages go round in a circle")
        if following and len(self.pages) >= _MAX_PAGES:
            raise self._fault(f"has more than {_MAX_PAGES:,} pages")
        return following

    def result(self) -> TenantList:
        """What all pages say together."""
        assert self._reading is not None, "a page was read"
        for page in self._kept:
            for slug in page.slugs:
                if not self._reading.keep(slug):
                    raise self._fault("has a page that has not changed, of tenants that are no longer known")
        found = self._reading.result("tenants")
        self._distrust(self._reading.contested)
        return found

    def _distrust(self, contested: frozenset[bytes]) -> None:
        """Forget the ETags of pages of which a tenant is not in the registry as the page has it: a 304 would keep it
        so. A page that is the whole list is judged as before."""
        if not contested or len(self.pages) == 1:
            return
        for url, page in self.pages.items():
            self._context.rest()
            if page.etag and not contested.isdisjoint(page.slugs):
                self.pages[url] = replace(page, etag="", slugs=())

    def _begun(self, body: bytes | bytearray) -> TenantListReading:
        """The reading of the first page, which says whether these are only changes."""
        if not self.since:
            return TenantListReading(self.name, self._context)
        skeleton = Elements(body, MAX_ENTRY, _MEMBERS, self._context.rest)
        for _ in skeleton:
            self._context.rest()
        if b"updated_since" not in skeleton.members:
            self.since = ""
            return TenantListReading(self.name, self._context)
        return TenantListReading(self.name, replace(self._context, changes=True))

    def _following(self, url: str, elements: Elements, links: Sequence[str]) -> str:
        """The URL of the next page."""
        self._check_changes(elements)
        following = _text(elements, b"next", _LONGEST_URL) or _next_link(links)
        cursor = _text(elements, b"next_cursor", _LONGEST_URL)
        if cursor and not following:
            following = _with_query(url, "cursor", cursor)
        if not following:
            return ""
        following = urljoin(url, following)
        if len(following) > _LONGEST_URL or not (following.isascii() and following.isprintable()):
            raise Malformed("the URL of its next page is too long, or is none")
        try:
            same = _origin(following) == _origin(self._url)
        except ValueError:
            same = False
        if not same:
            elsewhere = shown(following)
            raise Malformed(f"its next page is on another server, {elsewhere}, which is not asked")
        return following

    def _check_changes(self, elements: Elements) -> None:
        """Every page of changes says since when, and which tenants are gone."""
        if not self.since:
            return
        since = _text(elements, b"updated_since", _LONGEST_MARK)
        if since != self.since:
            raise Malformed(f"it has changes since {shown(since)}, not since {shown(self.since)}")
        assert self._reading is not None, "this page was read"
        for slug in _slugs(elements.members.get(b"removed", b"[]")):
            self._removed = True
            self._reading.remove(slug)

    def _fault(self, message: str) -> ConfigurationError:
        return ConfigurationError([f"{self.name}: {message}"])


class LastList:
    """The last good list: its pages by URL, its mark ("" if the service offers no changes), when the whole list is
    due, and the digest of a list of one page."""

    def __init__(self) -> None:
        self.pages: Mapping[str, Page] = {}
        self.as_of = ""
        self.whole_due = float("-inf")
        self.digest = b""

    def forget(self) -> None:
        """A later list could not be used: changes to this one may make no sense, and so may unchanged pages."""
        if self.as_of or len(self.pages) > 1:
            self.pages, self.digest = {}, b""
        self.as_of = ""

    def confirm(self, now: float) -> None:
        """The whole list was read again, and is the same."""
        self.whole_due = now + WHOLE

    def follow(self, reader: ListReader, digest: bytes, now: float) -> None:
        """This list is the last good one, as of `now` in monotonic seconds."""
        if not reader.since:
            self.pages, self.digest, self.whole_due = reader.pages, digest, now + WHOLE
        elif reader.says_anything:
            # The tenants are no longer those of the whole list: if that comes again, it is another one.
            self.pages, self.digest = {}, b""
        self.as_of = reader.as_of


def changes_url(url: str, since: str) -> str:
    """The URL of the changes since a mark."""
    return _with_query(url, "updated_since", since)


def _with_query(url: str, name: str, value: str) -> str:
    parts = urlsplit(url)
    pairs = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != name]
    return parts._replace(query=urlencode([*pairs, (name, value)])).geturl()


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise ValueError("a user")
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _next_link(links: Sequence[str]) -> str:
    for value in links:
        for match in _LINK.finditer(value[: 2 * _LONGEST_URL]):
            if _NEXT.search(match[2]):
                return match[1]
    return ""


def _text(elements: Elements, name: bytes, longest: int) -> str:
    """A member that is a short string, or null."""
    raw = elements.members.get(name, b"null")
    try:
        text = msgspec.json.decode(raw, type=str | None) or ""
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Malformed(f"{name.decode()} is not a string") from None
    if len(text) > longest:
        raise Malformed(f"{name.decode()} is longer than {longest} characters")
    return text


def _slugs(raw: bytes) -> list[bytes]:
    try:
        slugs = _SLUGS.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Malformed("removed is not a list of slugs") from None
    return [slug.encode() for slug in slugs if slug.isascii() and is_slug(slug.encode())]

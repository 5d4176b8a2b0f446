"""The tenants file: TOML to tenants, or its faults.

Memory and time are bounded by parts of the file, not by the whole: TOML's parser makes objects of dozens of times the
size of its input. So a large file is read a few hundred entries at a time, split where an entry begins with
`[[tenant]]` on a line of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from ..policy.tenants import Tenant, conflicts
from .document import parse_document
from .faults import UNKNOWN, BoundedFaults, ConfigurationError, ReadError, below, step, unknown_key
from .kinds import Kind, Where, choice, listing
from .misplaced_keys import misplaced_in_tenants
from .stable_reads import StableReading, Version, read_once, read_stable
from .tables import array, made, read_array, setting
from .values import DOMAIN, ORIGIN, SLUG

# The largest list of tenants in bytes, in any format (about half a million tenants), and the largest entry in it.
MAX_LIST: Final = 64 << 20
MAX_ENTRY: Final = 256 << 10
# How many bytes of a file are parsed at once.
_PART: Final = 64 << 10
_HEADER: Final = re.compile(rb"""^[ \t]*\[\[[ \t]*(?:tenant|"tenant"|'tenant')[ \t]*\]\]""", re.MULTILINE)
_ANYWHERE: Final = Where(Path("/"), Path("/"))


def no_pause() -> None:
    """No other work needs to run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantEntry:
    """One table of tenants."""

    slug: str = setting(SLUG)
    domains: tuple[str, ...] = setting(listing(DOMAIN), [])
    status: str = setting(choice("active", "suspended"), "active")
    cors_origins: tuple[str, ...] = setting(listing(ORIGIN), [])


def _tenant(entry: TenantEntry) -> Tenant:
    status = cast(Literal["active", "suspended"], entry.status)
    return Tenant(entry.slug, entry.domains, status, entry.cors_origins)


TENANT: Final = made(TenantEntry, _tenant)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantsFile:
    """The whole file, as in the reference."""

    tenant: tuple[Tenant, ...] = setting(array(TENANT))


def file_version(path: Path) -> Version:
    """The version of a registry file."""
    return read_once(path, str(path), MAX_LIST).version


def load_tenants(path: Path, base_domain: str) -> tuple[Tenant, ...]:
    """The tenants in the present registry file; raises what `parse_tenants` does."""
    return read_tenants(path, str(path), base_domain)[0]


def read_tenants(
    path: Path,
    name: str,
    base_domain: str,
    rest: Callable[[], object] = no_pause,
    caution: StableReading | None = None,
) -> tuple[tuple[Tenant, ...], Version]:
    """The tenants of a registry file that the user knows as `name`, and its version; raises what `parse_tenants`
    does.

    With caution, a version other than the known one is accepted when two looks agree on it.
    """
    look = read_stable(path, name, MAX_LIST, caution)
    return parse_tenants(look.data(), name, base_domain, rest), look.version


def parse_tenants(
    data: bytes, name: str, base_domain: str, rest: Callable[[], object] = no_pause
) -> tuple[Tenant, ...]:
    """The tenants in these bytes; ConfigurationError with ten faults and the number of the others.

    Takes time in proportion to the file, about a minute for a million tenants: do not call it in the reactor's
    thread. `rest` is called between any two entries, and may let others run.
    """
    reading = _TenantsReading(name, rest)
    whole = False
    for part, lines in _parts(data, name):
        if whole:
            message = "was already given as one list; write [[tenant]] for each, or all in that list"
            raise ConfigurationError([f"{name}: line {lines + 1}, column 1: tenant {message}"])
        document = parse_document(part, name, lines)
        whole = "tenant" in document and _HEADER.search(part) is None
        reading.add(document)
    return reading.tenants(base_domain)


def _parts(data: bytes, name: str) -> Iterator[tuple[bytes, int]]:
    """The file in parts that are TOML documents of their own, each with the number of lines before it."""
    start = lines = 0
    if not data:
        yield data, 0
    while start < len(data):
        end = _cut(data, start)
        if end - start > _PART + MAX_ENTRY:
            at = f"line {lines + 1}, column 1"
            raise ConfigurationError(
                [f"{name}: {at}: no [[tenant]] within {MAX_ENTRY >> 10} KiB; begin each tenant with that line"]
            )
        part = data[start:end]
        yield part, lines
        start, lines = end, lines + part.count(b"\n")


def _cut(data: bytes, start: int) -> int:
    """The end of the part that begins there: at the beginning of an entry, at the end, or too far away."""
    soonest, latest = start + _PART, start + _PART + MAX_ENTRY
    if len(data) <= soonest:
        return len(data)
    header = _HEADER.search(data, data.rfind(b"\n", start, soonest) + 1 or start, latest)
    while header is not None and header.start() <= start:
        header = _HEADER.search(data, header.end(), latest)
    if header is not None:
        return header.start()
    return min(len(data), latest + 1)


class _TenantsReading:
    """The tenants and faults read so far."""

    def __init__(self, name: str, rest: Callable[[], object]) -> None:
        self._tally = BoundedFaults(name)
        self._rest = rest
        self._unknown: set[str] = set()
        self._listed = False
        self._count = 0
        self._tenants: list[Tenant] = []

    def add(self, document: dict[str, Any]) -> None:
        """Read the next part, whose entries are numbered from 0."""
        for field in document.keys() - {"tenant"} - self._unknown:
            self._unknown |= {field} if len(self._unknown) < BoundedFaults.KEPT else set()
            unknown = unknown_key(field, ("tenant",))
            self._tally.add(step(field), misplaced_in_tenants(field, document[field], unknown))
        if "tenant" not in document:
            return
        self._listed = True
        try:
            values = read_array(document["tenant"])
        except ReadError as misread:
            self._tally.add_all(below("tenant", misread.faults))
            return
        for value in values:
            self._rest()
            self._entry(value)

    def _entry(self, value: object) -> None:
        index, self._count = self._count, self._count + 1
        try:
            tenant = TENANT.read(value, _ANYWHERE)
        except ReadError as misread:
            faults = [(at, self._elsewhere(at, message)) for at, message in misread.faults]
            self._tally.add_all(below(f"tenant[{index}]", faults))
            # So that contradictions are reported together with the faults.
            if isinstance(value, dict) and _reads(SLUG, value.get("slug")):
                domains = {domain.lower() for domain in _list(value.get("domains")) if _reads(DOMAIN, domain)}
                self._tenants.append(Tenant(value["slug"], tuple(domains)))
        else:
            self._tenants.append(tenant)

    @staticmethod
    def _elsewhere(at: str, message: str) -> str:
        return misplaced_in_tenants(at.removeprefix("."), None, message) if message.startswith(UNKNOWN) else message

    def tenants(self, base_domain: str) -> tuple[Tenant, ...]:
        """All tenants; ConfigurationError if there was a fault or a contradiction between them."""
        if not self._listed:
            # A file that is still being written must not read as "there are no tenants".
            self._tally.add("tenant", 'is missing; write [[tenant]] for each, or "tenant = []" to refuse all')
        for sentence in conflicts(self._resting(), base_domain):
            self._tally.add("tenant", sentence)
        self._tally.check()
        return tuple(self._tenants)

    def _resting(self) -> Iterator[Tenant]:
        for tenant in self._tenants:
            self._rest()
            yield tenant


def _reads(kind: Kind[Any], value: object) -> bool:
    try:
        kind.read(value, _ANYWHERE)
    except ReadError:
        return False
    return True


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []

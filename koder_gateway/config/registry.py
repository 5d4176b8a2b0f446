"""The tenants file: TOML to tenants, or its faults.

Memory and time are bounded by parts of the file, not by the whole: TOML's parser makes objects of dozens of times the
size of its input. So a large file is read a few dozen entries at a time, split where an entry begins with
`[[tenant]]` on a line of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..policy.tenants import Tenant
from .document import parse_document
from .faults import UNKNOWN, BoundedFaults, ConfigurationError, Located, ReadError, below, step, unknown_key
from .misplaced_keys import misplaced_in_tenants
from .plain_entries import plain_entries
from .stable_reads import StableReading, Version, read_once, read_stable
from .tables import array, read_array, setting
from .tenant_entries import TENANT, ListContext, TenantList, TenantListReading

# The largest list of tenants in bytes, in any format (some two million tenants), and the largest entry in it.
MAX_LIST: Final = 256 << 20
MAX_ENTRY: Final = 256 << 10
# How many bytes of a file are parsed at once: about a millisecond's work.
_PART: Final = 2 << 10
_HEADER: Final = re.compile(rb"""^[ \t]*\[\[[ \t]*(?:tenant|"tenant"|'tenant')[ \t]*\]\]""", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantsFile:
    """The whole file, as in the reference."""

    tenant: tuple[Tenant, ...] = setting(
        array(TENANT),
        about="One table for each tenant; `tenant = []`: none, every request is refused.",
    )


def file_version(path: Path) -> Version:
    """The version of a registry file."""
    return read_once(path, str(path), MAX_LIST).version


def load_tenants(path: Path, base_domain: str) -> TenantList:
    """The tenants in the present registry file; raises what `parse_tenants` does."""
    return read_tenants(path, str(path), ListContext(base_domain))[0]


def read_tenants(
    path: Path, name: str, context: ListContext, caution: StableReading | None = None
) -> tuple[TenantList, Version]:
    """The tenants of a registry file that the user knows as `name`, and its version; raises what `parse_tenants`
    does.

    With caution, a version other than the known one is accepted when two looks agree on it.
    """
    look = read_stable(path, name, MAX_LIST, caution)
    return parse_tenants(look.data(), name, context), look.version


def parse_tenants(data: bytes, name: str, context: ListContext) -> TenantList:
    """The tenants in these bytes, without those that have a fault; ConfigurationError if the file as a whole cannot
    be read.

    Takes time in proportion to the file, some ten seconds for a million tenants: do not call it in the reactor's
    thread.
    """
    reading = TenantListReading(name, context)
    file = _FileReading(name, reading)
    whole = False
    for part, lines in _parts(data, name, context.rest):
        if whole:
            message = "was already given as one list; write [[tenant]] for each, or all in that list"
            raise ConfigurationError([f"{name}: line {lines + 1}, column 1: tenant {message}"])
        if part is None:
            file.add_long(lines)
            continue
        document = plain_entries(part) or parse_document(part, name, lines)
        whole = "tenant" in document and _HEADER.search(part) is None
        file.add(document)
    found = reading.result("tenant")
    file.check(found)
    return found


def _parts(data: bytes, name: str, rest: Callable[[], object]) -> Iterator[tuple[bytes | None, int]]:
    """The file in parts that are TOML documents of their own, each with the number of lines before it; None for an
    entry that is too long."""
    start = lines = 0
    if not data:
        yield data, 0
    while start < len(data):
        end = _cut(data, start)
        if end - start > _PART + MAX_ENTRY:
            last = _last_header(data, start)
            if last is None:
                at = f"line {lines + 1}, column 1"
                raise ConfigurationError(
                    [f"{name}: {at}: no [[tenant]] within {MAX_ENTRY >> 10} KiB; begin each tenant with that line"]
                )
            if last == start:
                yield None, lines
                end = _next_header(data, start + MAX_ENTRY, rest)
                start, lines = end, lines + data.count(b"\n", start, end)
                continue
            end = last
        part = data[start:end]
        yield part, lines
        start, lines = end, lines + part.count(b"\n")


def _last_header(data: bytes, start: int) -> int | None:
    """Where the last entry begins of a part that is too long; None if none does."""
    last = None
    for header in _HEADER.finditer(data, start, start + _PART + MAX_ENTRY):
        last = header.start()
    return last


def _next_header(data: bytes, at: int, rest: Callable[[], object]) -> int:
    """Where the next entry begins, or the end. No step is longer than an entry."""
    while at < len(data):
        rest()
        bound = min(at + MAX_ENTRY, len(data))
        header = _HEADER.search(data, at, bound)
        if header is not None:
            return header.start()
        line = data.rfind(b"\n", at, bound - 1) + 1
        at = line if line > at and bound < len(data) else bound
    return at


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


class _FileReading:
    """The parts of a file that were read so far. What is wrong with the file itself, and not with one of its entries,
    refuses all of it."""

    def __init__(self, name: str, reading: TenantListReading) -> None:
        self._name = name
        self._reading = reading
        self._faults = BoundedFaults(name)
        self._unknown: set[str] = set()
        self._listed = False

    def add(self, document: dict[str, Any]) -> None:
        """Read the next part, whose entries are numbered from 0."""
        for field in document.keys() - {"tenant"} - self._unknown:
            self._unknown |= {field} if len(self._unknown) < BoundedFaults.KEPT else set()
            unknown = unknown_key(field, ("tenant",))
            self._faults.add(step(field), misplaced_in_tenants(field, document[field], unknown))
        if "tenant" not in document:
            return
        self._listed = True
        try:
            values = read_array(document["tenant"])
        except ReadError as misread:
            self._faults.add_all(below("tenant", misread.faults))
            return
        for value in values:
            self._reading.add(f"tenant[{self._reading.entries}]", value, _elsewhere)

    def add_long(self, lines: int) -> None:
        """Leave out an entry that is too long, and has so many lines before it."""
        self._listed = True
        message = f"is longer than {MAX_ENTRY >> 10} KiB (from line {lines + 1})"
        self._reading.add_unreadable(f"tenant[{self._reading.entries}]", message)

    def check(self, found: TenantList) -> None:
        """Raise ConfigurationError for a file that is none of tenants, with the faults of its entries as well."""
        if not self._listed:
            # A file that is still being written must not read as "there are no tenants".
            self._faults.add("tenant", 'is missing; write [[tenant]] for each, or "tenant = []" to refuse all')
        if self._faults.count:
            raise ConfigurationError([*self._faults.lines(), *found.faults])


def _elsewhere(fault: Located) -> Located:
    """The fault of an entry, completed for a key that belongs in the main file."""
    at, message = fault
    return at, misplaced_in_tenants(at.removeprefix("."), None, message) if message.startswith(UNKNOWN) else message

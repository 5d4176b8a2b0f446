"""The list of tenants of the Admin service (JSON), and the copy of the last good one on disk."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

import msgspec

from ..config import ConfigurationError
from ..config.faults import reason
from ..config.json_elements import Elements, Malformed
from ..config.registry import MAX_ENTRY, MAX_LIST
from ..config.tenant_entries import ListContext, TenantList, TenantListReading
from ..files.private_file import write_private
from ..policy.limit_rules import RateOverride
from ..policy.sharded_index import no_pause
from ..policy.tenants import Registry, Tenant

_MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_PLACE: Final = re.compile(r"\(byte ([0-9]+)\)")
_WINDOWS: Final = {1: "s", 60: "m", 3600: "h", 86400: "d"}
_DIGITS: Final = 18
# Tenants that are written to the disk at once.
_BATCH: Final = 256


class _Listed(msgspec.Struct, omit_defaults=True):
    """One tenant of the list; other members are ignored, null means no domains, origins and limits."""

    slug: str
    domains: list[str] | None = None
    status: str = "active"
    cors_origins: list[str] | None = None
    # Whatever it is, only a fault of the limits: as in a file it costs nobody the tenant.
    limits: Any = None

    def entry(self) -> dict[str, Any]:
        """The same as an entry of the tenants file."""
        entry: dict[str, Any] = {"slug": self.slug, "status": self.status}
        if self.domains:
            entry["domains"] = self.domains
        if self.cors_origins:
            entry["cors_origins"] = self.cors_origins
        if self.limits is not None and self.limits != {}:
            entry["limits"] = self.limits
        return entry


_decode: Final = msgspec.json.Decoder(_Listed).decode


def parse_tenant_list(data: bytes | bytearray, name: str, context: ListContext) -> TenantList:
    """The tenants of a JSON list, bare or as the member `tenants` of an object, by the rules of the tenants file.

    Raises ConfigurationError for what is no such list; messages call it `name`.
    """
    reading = TenantListReading(name, context)
    try:
        read_elements(reading, data, Elements(data, MAX_ENTRY, rest=context.rest))
    except Malformed as error:
        raise ConfigurationError([f"{name}: is not a list of tenants: {error}"]) from None
    return reading.result("tenants")


def read_elements(reading: TenantListReading, data: bytes | bytearray, elements: Iterable[tuple[int, int]]) -> None:
    """Read the tenants that begin and end at these places. Raises Malformed for what is no JSON."""
    view = memoryview(data)
    for start, end in elements:
        at = f"tenants[{reading.entries}]"
        if end - start > MAX_ENTRY:
            reading.add_unreadable(at, f"is longer than {MAX_ENTRY >> 10} KiB (at byte {start})")
            continue
        if reading.tally.full and data[start] != 0x7B:
            # Not an object: another fault, which is only counted.
            reading.add_unreadable(at, "")
            continue
        try:
            entry = _decode(view[start:end]).entry()
        except msgspec.ValidationError as error:
            reading.add_unreadable(at, f"is not a tenant: {error}", _loosely(view[start:end]))
        except RecursionError:
            # Its brackets are closed, so the next one can be read.
            reading.add_unreadable(at, "is not a tenant: nested too deeply")
        except _MALFORMED as error:
            # The decoder takes no half of a character, but the grammar does (RFC 8259 section 8.2).
            try:
                _add_with_halves(reading, at, view[start:end])
            except (ValueError, RecursionError):
                raise Malformed(f"{at}: {_sentence(error, start)}") from None
        else:
            reading.add(at, entry)


def _add_with_halves(reading: TenantListReading, at: str, element: memoryview) -> None:
    """Read an entry with lone surrogates. In members that are ignored they are ignored; in another one the entry is
    left out. Raises ValueError for what is no JSON."""
    value = json.loads(bytes(element), parse_constant=_no_number, parse_int=_number)
    if isinstance(value, dict):
        value = {name: value[name] for name in _Listed.__struct_fields__ if name in value}
    if not _is_text(value):
        reading.add_unreadable(
            at, "is not a tenant: it has one half of a character, a lone surrogate", _claims(value)
        )
        return
    try:
        entry = msgspec.convert(value, _Listed).entry()
    except msgspec.ValidationError as error:
        reading.add_unreadable(at, f"is not a tenant: {error}", value)
    else:
        reading.add(at, entry)


def _is_text(value: object) -> bool:
    """Whether all strings in it can be encoded."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _claims(value: object) -> object:
    """What an entry that is left out claims, as far as it can be read."""
    if not isinstance(value, dict) or not _is_text(value.get("slug")):
        return None
    domains = value.get("domains")
    return {
        "slug": value.get("slug"),
        "domains": list(filter(_is_text, domains if isinstance(domains, list) else ())),
    }


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _number(digits: str) -> float:
    """An integer; as a float if it has more digits than any setting."""
    return int(digits) if len(digits) < _DIGITS else float(digits)


def _loosely(element: memoryview) -> object:
    """Whatever an element is; None for what is no JSON."""
    try:
        return msgspec.json.decode(element)
    except _MALFORMED:
        return None


def _sentence(error: Exception, start: int = 0) -> str:
    """The message of a decoder; it names positions and types, never contents. `start` is the offset of the
    element."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return _PLACE.sub(lambda place: f"(byte {int(place[1]) + start})", str(error))


def read_cache(path: Path, source: str, context: ListContext) -> Registry | None:
    """The last good list of the registry with this name, a URL or a path; None if none was cached, or another
    registry's.

    Raises ConfigurationError for one that cannot be used.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LIST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError([f"{path}: cannot be used: {reason(error)}"]) from None
    if len(data) > MAX_LIST:
        raise ConfigurationError([f"{path}: cannot be used: it is longer than {MAX_LIST} bytes"])
    elements = Elements(data, MAX_ENTRY, (b"registry",), context.rest)
    reading = TenantListReading(str(path), context)
    try:
        # The members before the array are known with its first element, or at the end.
        listed = iter(elements)
        first = list(islice(listed, 1))
        if msgspec.json.decode(elements.members.get(b"registry", b""), type=str) != source:
            return None
        read_elements(reading, data, chain(first, listed))
    except (Malformed, *_MALFORMED) as error:
        raise ConfigurationError([f"{path}: cannot be used: {_sentence(error)}"]) from None
    found = reading.result("tenants")
    if found.faults:
        raise ConfigurationError([f"{path}: cannot be used: {found.faults[0].removeprefix(f'{path}: ')}"])
    return found.registry


def write_cache(path: Path, source: str, registry: Registry, rest: Callable[[], object] = no_pause) -> None:
    """Cache a good list atomically, readable by its owner only. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, lambda file: _write(file, source, registry, rest))


def _write(file: BinaryIO, source: str, registry: Registry, rest: Callable[[], object]) -> None:
    """Written part by part: the whole would need two more copies in memory."""
    file.write(b'{"registry":%b,"tenants":[' % msgspec.json.encode(source))
    tenants = iter(registry)
    between = b""
    while batch := [_listed(tenant) for tenant in islice(tenants, _BATCH)]:
        rest()
        file.write(between + msgspec.json.encode(batch)[1:-1])
        between = b","
    file.write(b"]}")


def _listed(tenant: Tenant) -> _Listed:
    limits = {name: _figures(override) for name, override in tenant.limits.items()}
    domains, origins = list(tenant.domains), list(tenant.cors_origins)
    return _Listed(tenant.slug, domains or None, tenant.status, origins or None, limits or None)


def _figures(override: RateOverride) -> dict[str, Any]:
    if override.in_flight:
        return {"in_flight": override.in_flight}
    return {"rate": f"{override.quota}/{_WINDOWS[override.window]}", "burst": override.burst}

"""The list of tenants of the Admin service (JSON), and the copy of the last good one on disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from ..config import ConfigurationError
from ..config.faults import BoundedFaults, ReadError, below, reason
from ..config.json_elements import Elements, Malformed
from ..config.kinds import Where
from ..config.registry import MAX_ENTRY, MAX_LIST, TENANT, no_pause
from ..files.private_file import write_private
from ..policy.tenants import Tenant, conflicts

# No value of a tenant depends on the place of the list.
_ANYWHERE: Final = Where(Path("/"), Path("/"))
_MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_PLACE: Final = re.compile(r"\(byte ([0-9]+)\)")
# Tenants that are written to the disk at once.
_BATCH: Final = 256


class _Listed(msgspec.Struct, omit_defaults=True):
    """One tenant of the list; other members are ignored, null means no domains and no origins."""

    slug: str
    domains: list[str] | None = None
    status: str = "active"
    cors_origins: list[str] | None = None


def parse_tenant_list(
    data: bytes | bytearray, name: str, base_domain: str, rest: Callable[[], object] = no_pause
) -> tuple[Tenant, ...]:
    """The tenants of a JSON list, bare or as the member `tenants` of an object, by the rules of the tenants file.

    Raises ConfigurationError with ten faults and the number of the others; messages call the list `name`. For a
    thread: `rest` is called between any two entries, and may let other work run.
    """
    try:
        return _tenants(data, Elements(data, MAX_ENTRY), name, base_domain, rest)
    except Malformed as error:
        raise ConfigurationError([f"{name}: is not a list of tenants: {error}"]) from None


def _tenants(
    data: bytes | bytearray,
    elements: Iterable[tuple[int, int]],
    name: str,
    base_domain: str,
    rest: Callable[[], object],
) -> tuple[Tenant, ...]:
    tenants: list[Tenant] = []
    tally = BoundedFaults(name)
    decode = msgspec.json.Decoder(_Listed).decode
    view = memoryview(data)
    for index, (start, end) in enumerate(elements):
        rest()
        if tally.full and data[start] != 0x7B:
            # Not an object: another fault, which is only counted.
            tally.add("", "")
            continue
        try:
            listed = decode(view[start:end])
            tenants.append(TENANT.read(_entry(listed), _ANYWHERE))
        except ReadError as misread:
            tally.add_all(below(f"tenants[{index}]", misread.faults))
        except msgspec.ValidationError as error:
            tally.add(f"tenants[{index}]", f"is not a tenant: {error}")
        except _MALFORMED as error:
            raise Malformed(_sentence(error, start)) from None
    for sentence in conflicts(_resting(tenants, rest), base_domain):
        tally.add("tenants", sentence)
    tally.check()
    return tuple(tenants)


def _entry(listed: _Listed) -> dict[str, Any]:
    return {
        "slug": listed.slug,
        "domains": listed.domains or [],
        "status": listed.status,
        "cors_origins": listed.cors_origins or [],
    }


def _resting(tenants: Iterable[Tenant], rest: Callable[[], object]) -> Iterable[Tenant]:
    for tenant in tenants:
        rest()
        yield tenant


def _sentence(error: Exception, start: int = 0) -> str:
    """The message of a decoder; it names positions and types, never contents. `start` is the offset of the
    element."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return _PLACE.sub(lambda place: f"(byte {int(place[1]) + start})", str(error))


def read_cache(
    path: Path, url: str, base_domain: str, rest: Callable[[], object] = no_pause
) -> tuple[Tenant, ...] | None:
    """The last good list of the registry at `url`; None if none was cached, or another registry's.

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
    elements = Elements(data, MAX_ENTRY)
    try:
        # The members before the array are known with its first element, or at the end.
        listed = iter(elements)
        first = next(listed, None)
        if msgspec.json.decode(elements.members.get(b'"registry"', b""), type=str) != url:
            return None
        spans = () if first is None else _chained(first, listed)
        return _tenants(data, spans, str(path), base_domain, rest)
    except (Malformed, *_MALFORMED) as error:
        raise ConfigurationError([f"{path}: cannot be used: {_sentence(error)}"]) from None


def _chained(first: tuple[int, int], others: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    yield first
    yield from others


def write_cache(path: Path, url: str, tenants: Sequence[Tenant], rest: Callable[[], object] = no_pause) -> None:
    """Cache a good list atomically, readable by its owner only. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, lambda file: _write(file, url, tenants, rest))


def _write(file: BinaryIO, url: str, tenants: Sequence[Tenant], rest: Callable[[], object]) -> None:
    """Written part by part: the whole would need two more copies in memory."""
    file.write(b'{"registry":%b,"tenants":[' % msgspec.json.encode(url))
    for start in range(0, len(tenants), _BATCH):
        rest()
        listed = [
            _Listed(t.slug, list(t.domains) or None, t.status, list(t.cors_origins) or None)
            for t in tenants[start : start + _BATCH]
        ]
        file.write((b"," if start else b"") + msgspec.json.encode(listed)[1:-1])
    file.write(b"]}")

"""The list of tenants as the Admin service tells it (JSON), and the copy of the last good one on disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, cast

import msgspec

from ..config import ConfigurationError
from ..config.faults import ReadError, below, line, reason
from ..config.kinds import Where
from ..config.registry import TenantEntry
from ..config.tables import table
from ..policy.tenants import Tenant, conflicts

_ENTRY: Final = table(TenantEntry)
# Nothing in a tenant depends on where the list is.
_ANYWHERE: Final = Where(Path("/"), Path("/"))
_MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Listed(msgspec.Struct):
    """One tenant as the list has it; other members are ignored, null stands for no domains and no origins."""

    slug: str
    domains: list[str] | None = None
    status: str = "active"
    cors_origins: list[str] | None = None


class _Document(msgspec.Struct):
    """The list as a member of an object."""

    tenants: list[msgspec.Raw]


class _Cache(msgspec.Struct):
    """The last good list of one registry, by its URL."""

    registry: str
    tenants: list[msgspec.Raw]


def parse_tenants(data: bytes, name: str, base_domain: str) -> tuple[Tenant, ...]:
    """The tenants of a JSON list, bare or as the member `tenants` of an object, by the rules of the tenants file.

    Raises ConfigurationError with every fault; messages call the list `name`. For a thread: see `load_tenants`.
    """
    try:
        document = msgspec.json.decode(data, type=list[msgspec.Raw] | _Document)
    except _MALFORMED as error:
        raise ConfigurationError([f"{name}: is not a list of tenants: {_sentence(error)}"]) from None
    return _tenants(document.tenants if isinstance(document, _Document) else document, name, base_domain)


def _tenants(entries: Sequence[msgspec.Raw], name: str, base_domain: str) -> tuple[Tenant, ...]:
    tenants: list[Tenant] = []
    faults: list[str] = []
    decoder = msgspec.json.Decoder(_Listed)
    for index, raw in enumerate(entries):
        try:
            tenants.append(_tenant(decoder.decode(raw)))
        except ReadError as misread:
            faults += [line(name, at, message) for at, message in below(f"tenants[{index}]", misread.faults)]
        except _MALFORMED as error:
            faults.append(line(name, f"tenants[{index}]", f"is not a tenant: {_sentence(error)}"))
    faults += [line(name, "tenants", sentence) for sentence in conflicts(tenants, base_domain)]
    if faults:
        raise ConfigurationError(faults)
    return tuple(tenants)


def _tenant(listed: _Listed) -> Tenant:
    entry = _ENTRY.read(
        {
            "slug": listed.slug,
            "domains": listed.domains or [],
            "status": listed.status,
            "cors_origins": listed.cors_origins or [],
        },
        _ANYWHERE,
    )
    status = cast(Literal["active", "suspended"], entry.status)
    return Tenant(entry.slug, entry.domains, status, entry.cors_origins)


def _sentence(error: Exception) -> str:
    """What a decoder says; it names places and types, never what it has read."""
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def read_cache(path: Path, url: str, base_domain: str) -> tuple[Tenant, ...] | None:
    """The last good list of the registry at `url`; None where none was kept, or another registry's.

    Raises ConfigurationError for one that cannot be used.
    """
    try:
        cache = msgspec.json.decode(path.read_bytes(), type=_Cache)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError([f"{path}: cannot be used: {reason(error)}"]) from None
    except _MALFORMED as error:
        raise ConfigurationError([f"{path}: cannot be used: {_sentence(error)}"]) from None
    return _tenants(cache.tenants, str(path), base_domain) if cache.registry == url else None


def write_cache(path: Path, url: str, tenants: Sequence[Tenant]) -> None:
    """Keep a good list, whole or not at all, readable by its owner only. Raises OSError."""
    listed = [_Listed(t.slug, list(t.domains), t.status, list(t.cors_origins)) for t in tenants]
    data = msgspec.json.encode({"registry": url, "tenants": listed})
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # 0600 by its contract
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise

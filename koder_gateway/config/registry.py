"""The tenants file: TOML to tenants, every fault at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from ..policy.tenants import Tenant, conflicts
from .document import read_document
from .faults import ConfigurationError, Located, ReadError, below, line, step, unknown_key
from .kinds import Kind, Where, choice, collect, listing
from .tables import array, made, read_array, setting
from .values import DOMAIN, ORIGIN, SLUG

_ANYWHERE: Final = Where(Path("/"), Path("/"))


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


_TENANT = made(TenantEntry, _tenant)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantsFile:
    """The whole file, as the reference has it."""

    tenant: tuple[Tenant, ...] = setting(array(_TENANT))


def file_version(path: Path) -> object:
    """What tells one version of a file from the next. Asked before the file is read, it misses no change."""
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    return status.st_ino, status.st_mtime_ns, status.st_size


def load_tenants(path: Path, base_domain: str) -> tuple[Tenant, ...]:
    """The tenants of a registry file; ConfigurationError with every fault in it.

    Takes time in proportion to the file, about a minute for a million tenants: not for the reactor's thread.
    """
    return read_tenants(path, str(path), base_domain)


def read_tenants(path: Path, name: str, base_domain: str) -> tuple[Tenant, ...]:
    """The same for a file that the user knows as `name`."""
    document = read_document(path, name)
    unknown = [(field, unknown_key(field, ("tenant",))) for field in document if field != "tenant"]
    tenants, wrong = _collected(document)
    contradictions = [("tenant", sentence) for sentence in conflicts(tenants, base_domain)]
    faults = [(step(field), message) for field, message in unknown]
    faults += [*below("tenant", wrong), *contradictions]
    if faults:
        raise ConfigurationError(line(name, at, message) for at, message in faults)
    return tuple(tenants)


def _collected(document: dict[str, Any]) -> tuple[list[Tenant], list[Located]]:
    if "tenant" not in document:
        # A file cut short while it is written must not read as "there are no tenants".
        return [], [("", 'is missing; write [[tenant]] for each, or "tenant = []" to refuse all')]
    try:
        values = read_array(document["tenant"])
    except ReadError as misread:
        return [], list(misread.faults)
    # Nothing in a tenant depends on where the file is.
    tenants, faults = collect(_TENANT, values, _ANYWHERE)
    return (tenants, faults) if not faults else (_salvaged(values), faults)


def _salvaged(values: list[Any]) -> list[Tenant]:
    """What can be read of a faulty file, so that contradictions are told along with its faults."""
    return [
        Tenant(value["slug"], tuple({d.lower() for d in _list(value.get("domains")) if _reads(DOMAIN, d)}))
        for value in values
        if isinstance(value, dict) and _reads(SLUG, value.get("slug"))
    ]


def _reads(kind: Kind[Any], value: object) -> bool:
    try:
        kind.read(value, _ANYWHERE)
    except ReadError:
        return False
    return True


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []

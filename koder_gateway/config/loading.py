"""A file to settings: every section, then contradictions between sections, with all faults reported at once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from ..policy.limit_rules import HEADER
from ..policy.origins import covers_tenants
from ..policy.routing import normal_path
from ..policy.tenants import Tenant
from . import client_auth, defaults, signing_keys, worker_limits
from .document import read_document
from .faults import ConfigurationError, Located, ReadError, below, line, nearest, shown, step, unknown_key
from .kinds import Kind, Where, optional
from .misplaced_keys import misplaced
from .registry import no_pause, read_tenants
from .settings import Settings
from .stable_reads import StableReading, Version
from .tables import keys
from .values import DOMAIN, REGISTRY, SLUG

T = TypeVar("T")

DEFAULT_PATH: Final = Path("/etc/koder-gateway/koder-gateway.toml")


def load(
    path: str | Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    rest: Callable[[], object] = no_pause,
    caution: StableReading | None = None,
) -> Settings:
    """The settings in a file; without a path those of the default file if it exists, else the defaults.

    `environ` decides where the state folder is. Raises ConfigurationError with every fault of the file and of the
    registry that it names (at most ten of that); nothing else is touched. In a thread, `rest` lets others run: it is
    called between any two tenants. A caller that reads again passes `caution` for the registry, which may be half
    written.
    """
    if path is None:
        if _absent(DEFAULT_PATH):
            return read_settings({}, "", Where.beside(Path("koder-gateway.toml"), environ))
        path = DEFAULT_PATH
    path = Path(path)
    document = read_document(path, str(path))
    settings = read_settings(document, str(path), Where.beside(path, environ), rest, caution)
    return dataclasses.replace(settings, source=Path(os.path.abspath(path)))


def _absent(path: Path) -> bool:
    # An unreachable file is not an absent one: its settings must not silently become the defaults.
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def read_settings(
    document: dict[str, Any],
    name: str,
    where: Where,
    rest: Callable[[], object] = no_pause,
    caution: StableReading | None = None,
) -> Settings:
    """The settings in a document that messages call `name`; ConfigurationError with every fault."""
    parts, faults = _sections(document, where)
    faults.extend(_contradictions(document))
    lines = [line(name, at, message) for at, message in faults]
    registered: tuple[Tenant, ...] | None = None
    version: Version | None = None
    try:
        registered, version = _registered(document, name, where, rest, caution)
    except ConfigurationError as error:
        lines.extend(error.faults)
    else:
        lines.extend(line(name, at, message) for at, message in _default_tenant(document, registered, where))
    if lines:
        raise ConfigurationError(lines)
    written = frozenset(
        f"{section}.{key}" for section, table in document.items() if isinstance(table, dict) for key in table
    )
    return Settings(**parts, registered=registered, registry_version=version, written=written)


def _sections(document: dict[str, Any], where: Where) -> tuple[dict[str, Any], list[Located]]:
    """Every section by itself, so that a fault in one hides none in another."""
    sections = keys(Settings)
    known = tuple(sections)
    faults = [(step(name), unknown_key(name, known)) for name in document if name not in sections]
    parts: dict[str, Any] = {}
    for name, section in sections.items():
        try:
            parts[name] = section.kind.read(document.get(name, section.default), where)
        except ReadError as misread:
            faults.extend(below(name, misread.faults))
    return parts, [(at, misplaced(at, message, document)) for at, message in faults]


def _contradictions(document: dict[str, Any]) -> Iterator[Located]:
    """Contradictions between sections, found in the document itself, even if a section cannot be read."""
    given = document.get("services", {})
    services = {**defaults.SERVICES, **(given if isinstance(given, dict) else {})}
    for at, name in _texts(document.get("routes"), "service"):
        if name not in services:
            yield f"routes{at}", f"{shown(name)} is not one of the services; {nearest(name, services)}"
    yield from _repeated("routes", _texts(document.get("routes"), "path"), lambda path: normal_path(path.encode()))
    yield from _repeated("limits", _texts(document.get("limits"), "name"), lambda name: name)
    yield from _counts_tenant_header(document)
    tls = document.get("tls")
    if isinstance(tls, dict) and tls.get("default") and not tls.get("certificates"):
        yield "tls.default", "has no effect without tls.certificates; write the folder of the certificates too"
    yield from _tenants_wildcards(document)
    yield from client_auth.contradictions(document)
    yield from signing_keys.contradictions(document)
    yield from worker_limits.contradictions(document)


def _tenants_wildcards(document: dict[str, Any]) -> Iterator[Located]:
    """Wildcards among the origins that would make each tenant's pages act for every other."""
    cors, tenants = document.get("cors"), document.get("tenants")
    origins = cors.get("origins") if isinstance(cors, dict) else None
    base = tenants.get("base_domain") if isinstance(tenants, dict) else None
    base_domain = base if isinstance(base, str) else "id.koder.dev"
    for index, origin in enumerate(origins if isinstance(origins, list) else []):
        if isinstance(origin, str) and covers_tenants(origin, base_domain):
            wrong = (
                "covers the hosts of all tenants, whose pages would act for each other; list each origin by itself"
            )
            yield f"cors.origins[{index}]", f"{shown(origin)} {wrong}"


def _counts_tenant_header(document: dict[str, Any]) -> Iterator[Located]:
    """Limits that count the tenant header: elsewhere than on the base domain it names no tenant."""
    tenants = document.get("tenants")
    header = tenants.get("header") if isinstance(tenants, dict) else None
    name = header if isinstance(header, str) else "X-Tenant-ID"
    limits = document.get("limits")
    for index, entry in enumerate(limits if isinstance(limits, list) else []):
        key = entry.get("key") if isinstance(entry, dict) else None
        for place, part in enumerate(key if isinstance(key, list) else []):
            if isinstance(part, str) and part.lower() == HEADER + name.lower():
                yield f"limits[{index}].key[{place}]", f'{shown(part)} is the tenant header; write "tenant"'


def _texts(tables: object, name: str) -> list[Located]:
    """The place and value of each string with that name in an array of tables."""
    entries = tables if isinstance(tables, list) else []
    return [
        (f"[{index}].{name}", entry[name])
        for index, entry in enumerate(entries)
        if isinstance(entry, dict) and isinstance(entry.get(name), str)
    ]


def _repeated(section: str, texts: Iterable[Located], form: Callable[[str], Hashable]) -> Iterator[Located]:
    first: dict[Hashable, str] = {}
    for at, text in texts:
        earlier = first.setdefault(form(text), at)
        if earlier != at:
            entry = section + earlier.partition(".")[0]
            yield section + at, f"{shown(text)} is already used by {entry}; write another, or leave one out"


def _tenants_key(document: dict[str, Any], name: str, kind: Kind[T], default: T, where: Where) -> T:
    """One key of the tenants section, or its default if it cannot be read, which is reported elsewhere."""
    section = document.get("tenants")
    if not isinstance(section, dict) or name not in section:
        return default
    try:
        return kind.read(section[name], where)
    except ReadError:
        return default


def _registered(
    document: dict[str, Any], name: str, where: Where, rest: Callable[[], object], caution: StableReading | None
) -> tuple[tuple[Tenant, ...] | None, Version | None]:
    """The tenants in the registry file, and its version; nothing if there is no file."""
    registry = _tenants_key(document, "registry", optional(REGISTRY), None, where)
    if not isinstance(registry, Path):
        return None, None
    base_domain = _tenants_key(document, "base_domain", DOMAIN, "id.koder.dev", where)
    # Messages call the file as the user does: as written, relative to the name given for the main file.
    called = os.path.join(os.path.dirname(name), document["tenants"]["registry"])
    return read_tenants(registry, called, base_domain, rest, caution)


def _default_tenant(
    document: dict[str, Any], registered: tuple[Tenant, ...] | None, where: Where
) -> Iterator[Located]:
    default = _tenants_key(document, "default", SLUG, "", where)
    if default and registered is not None:
        slugs = [tenant.slug for tenant in registered]
        if default not in slugs:
            yield "tenants.default", f"{shown(default)} is not in the registry; {_near_slug(default, slugs)}"


def _near_slug(slug: str, slugs: list[str]) -> str:
    # A registry may have a million slugs: comparing or listing all would take too long.
    few = nearest(slug, slugs) if 0 < len(slugs) <= 20 else ""
    return few or "write the slug of a tenant that exists"

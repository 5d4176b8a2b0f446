"""A file to settings: every section, then contradictions between sections, with all faults reported at once."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

from ..policy.limit_rules import HEADER
from ..policy.origins import covers_tenants
from ..policy.routing import normal_path
from ..policy.sharded_index import no_pause
from ..policy.tenants import Registry
from . import acme, client_auth, defaults, signing_keys, worker_limits
from .document import LARGEST, parse_document, read_bytes
from .environment import overridden
from .faults import ConfigurationError, Located, ReadError, below, nearest, shown, step, unknown_key
from .kinds import Kind, Where, optional
from .misplaced_keys import misplaced
from .origins import Origins
from .registry import read_tenants
from .settings import Settings
from .stable_reads import StableReading, Version
from .tables import keys
from .tenant_entries import ListContext, TenantList
from .values import DOMAIN, REGISTRY, SHARE, SLUG

T = TypeVar("T")

DEFAULT_PATH: Final = Path("/etc/koder-gateway/koder-gateway.toml")


def load(
    path: str | Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    rest: Callable[[], object] = no_pause,
    caution: StableReading | None = None,
    before: Registry | None = None,
) -> Settings:
    """The settings in a file; without a path those of the default file if it exists, else the defaults.

    `environ` decides where the state folder is, and its variables take the place of keys of the file. Raises
    ConfigurationError with every fault of the file, of the variables, and of the registry that they name if that
    cannot be used as a whole; nothing else is touched. A registry is used without its bad entries, which are
    `registry_faults` of the settings, unless there are too many. In a thread, `rest` lets others run: it is called
    between any two tenants. A caller that reads again passes `caution` for the registry, which may be half written,
    and the one `before`, whose tenants keep the domains that others claim.
    """
    source = read_source(path, environ)
    try:
        settings = read_settings(
            source.document, source.name, source.where, rest, caution, before, variables=source.variables
        )
    except ConfigurationError as error:
        raise ConfigurationError([*source.faults, *error.faults]) from None
    if source.faults:
        raise ConfigurationError(source.faults)
    return dataclasses.replace(settings, source=source.path, digest=source.digest)


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A file as it was read, before its values are: `document` has what the environment has in place of some keys, by
    the `variables` of these keys, and `written` what the file itself has. `path` is absolute, None without a file;
    `name` is what messages call the file. `faults` are those of variables. `digest` is the SHA-256 of the
    file, "" without one, and `text` its text."""

    path: Path | None
    name: str
    where: Where
    document: dict[str, Any]
    written: dict[str, Any]
    variables: Mapping[str, str]
    faults: tuple[str, ...]
    digest: str
    text: str = ""


def read_source(path: str | Path | None, environ: Mapping[str, str]) -> Source:
    """The file of that path, without one the default file if it exists, else nothing; and the environment. Raises
    ConfigurationError if the file cannot be read."""
    if path is None and not _absent(DEFAULT_PATH):
        path = DEFAULT_PATH
    named = Path("koder-gateway.toml" if path is None else path)
    where = Where.beside(named, environ)
    try:
        data = b"" if path is None else read_bytes(named, str(named), LARGEST)
        document = parse_document(data, str(named))
    except ConfigurationError as error:
        raise ConfigurationError([*error.faults, *overridden({}, environ, where).faults]) from None
    found = overridden(document, environ, where)
    absolute = None if path is None else Path(os.path.abspath(named))
    name = "environment" if path is None else str(named)
    digest = "" if path is None else hashlib.sha256(data).hexdigest()
    text = data.decode("utf-8")
    return Source(absolute, name, where, found.document, document, found.variables, found.faults, digest, text)


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
    before: Registry | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Settings:
    """The settings in a document that messages call `name`; ConfigurationError with every fault. `variables` have set
    some of its keys."""
    parts, faults = _sections(document, where)
    faults.extend(_contradictions(document))
    origins = Origins(name, variables)
    lines = [origins.line(at, message) for at, message in faults]
    found: TenantList | None = None
    version: Version | None = None
    rules = {rule.name: rule for rule in parts["limits"]} if "limits" in parts else None
    try:
        found, version = _registered(document, name, where, caution, ListContext("", before, rules, rest))
    except ConfigurationError as error:
        lines.extend(error.faults)
    else:
        lines.extend(origins.line(at, message) for at, message in _default_tenant(document, found, where))
    if lines:
        raise ConfigurationError([*lines, *(() if found is None else found.faults)])
    written = frozenset(
        f"{section}.{key}" for section, table in document.items() if isinstance(table, dict) for key in table
    )
    parts |= {"written": written, "variables": variables}
    if found is None:
        return Settings(**parts)
    parts |= {"registered": found.registry, "registry_faults": found.faults, "registry_skipped": found.skipped}
    return Settings(**parts, registry_version=version)


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
    yield from acme.contradictions(document)


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
    document: dict[str, Any],
    name: str,
    where: Where,
    caution: StableReading | None,
    context: ListContext,
) -> tuple[TenantList | None, Version | None]:
    """The tenants in the registry file, and its version; nothing if there is no file. The context's base domain is
    still to be read."""
    registry = _tenants_key(document, "registry", optional(REGISTRY), None, where)
    if not isinstance(registry, Path):
        return None, None
    base_domain = _tenants_key(document, "base_domain", DOMAIN, "id.koder.dev", where)
    # Messages call the file as the user does: as written, relative to the name given for the main file.
    called = os.path.join(os.path.dirname(name), document["tenants"]["registry"])
    found, version = read_tenants(registry, called, dataclasses.replace(context, base_domain=base_domain), caution)
    found.check(called, _tenants_key(document, "max_loss", SHARE, 0.1, where))
    return found, version


def _default_tenant(document: dict[str, Any], found: TenantList | None, where: Where) -> Iterator[Located]:
    default = _tenants_key(document, "default", SLUG, "", where)
    if default and found is not None and found.registry.find(default.encode()) is None:
        yield "tenants.default", f"{shown(default)} is not in the registry; {_near_slug(default, found.registry)}"


def _near_slug(slug: str, registry: Registry) -> str:
    # A registry may have a million slugs: comparing or listing all would take too long.
    few = nearest(slug, sorted(tenant.slug for tenant in registry)) if 0 < len(registry) <= 20 else ""
    return few or "write the slug of a tenant that exists"

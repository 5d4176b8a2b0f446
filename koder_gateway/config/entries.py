"""What stands in the file for a service, a route and a limit, and the values they become."""

# Fields are declared by a call for each, whose values are immutable.
# ruff: noqa: RUF009

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from ..policy.limits import MAX_QUOTA, LimitRule, parse_rate
from ..policy.routing import Route
from . import defaults
from .faults import Located, ReadError, shown
from .kinds import Kind, Where, choice, listing, optional, optional_text, whole
from .tables import DERIVED, array, made, mapping, setting, table
from .values import (
    BOOLEAN,
    DEADLINE,
    DOMAIN,
    DURATION,
    FILE,
    HOST,
    METHOD,
    NAME,
    PATH_PREFIX,
    SERVICE_URL,
    saying,
)

_EXAMPLE: Final = '"http://127.0.0.1:4001"'
RATE = saying("rate", parse_rate)


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """One service behind the gateway.

    `urls` are its addresses. `ca`, `client_cert` and `client_key` are PEM files for `https://`, `server_name` is the
    name that its certificate must have, None for the host of each address. `connect`, `response` and `keepalive` are
    seconds, None for those of the timeouts section (the last for its `upstream_keepalive`). `health` is the path that
    probes ask for, None for no probes, `health_host` the Host that they name, "" for one that requests have.
    `max_connections` bounds the connections to all its addresses together. With `isolate` a connection serves one
    tenant alone.
    """

    name: str
    urls: tuple[str, ...]
    ca: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    server_name: str | None = None
    connect: float | None = None
    response: float | None = None
    health: str | None = None
    max_connections: int = 1024
    isolate: bool = False
    health_host: str = ""
    keepalive: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthEntry:
    """What probes ask for, where more than its path is said."""

    path: str = setting(PATH_PREFIX)
    host: str = setting(optional_text(HOST), "")


_HEALTH_TABLE: Final = table(HealthEntry)


def _read_health(value: object, where: Where) -> HealthEntry | None:
    if isinstance(value, dict):
        return _HEALTH_TABLE.read(value, where)
    path = optional(PATH_PREFIX).read(value, where)
    return None if path is None else HealthEntry(path=path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEntry:
    """The table of one service."""

    url: str | None = setting(optional(SERVICE_URL), "")
    urls: tuple[str, ...] = setting(listing(SERVICE_URL), [])
    ca: Path | None = setting(optional(FILE), "")
    client_cert: Path | None = setting(optional(FILE), "")
    client_key: Path | None = setting(optional(FILE), "")
    server_name: str | None = setting(optional(DOMAIN), "")
    connect: float | None = setting(optional(DEADLINE), "")
    response: float | None = setting(optional(DEADLINE), "")
    keepalive: float | None = setting(optional(DURATION), "")
    health: HealthEntry | None = setting(Kind("path or table", _read_health), "")
    max_connections: int = setting(whole(1, 65536), 1024)
    isolate: bool = setting(BOOLEAN, False)


def _read_service(name: str, value: Any, where: Where) -> ServiceSettings:
    faults: list[Located] = []
    try:
        NAME.read(name, where)
    except ReadError as misread:
        faults.extend(misread.faults)
    try:
        if isinstance(value, str):
            service = ServiceSettings(name, (SERVICE_URL.read(value, where),))
        elif not isinstance(value, dict):
            raise ReadError.because(f"{shown(value)} is not a service; write an address, as in {_EXAMPLE}")
        else:
            service = _service(name, table(ServiceEntry).read(value, where))
    except ReadError as misread:
        raise ReadError([*faults, *misread.faults]) from None
    if faults:
        raise ReadError(faults)
    return service


def _service(name: str, entry: ServiceEntry) -> ServiceSettings:
    faults: list[Located] = []
    if entry.url is not None and entry.urls:
        faults.append((".urls", "stands beside url; write one of the two"))
    urls = entry.urls if entry.url is None else (entry.url,)
    if not urls:
        faults.append((".url", "is missing; write the address, as in url = " + _EXAMPLE))
    secure = any(url.startswith("https:") for url in urls)
    for file in ("ca", "client_cert", "client_key", "server_name"):
        if urls and not secure and getattr(entry, file) is not None:
            faults.append((f".{file}", "has no use without TLS; leave it out, or write an https:// address"))
    if entry.client_key is not None and entry.client_cert is None:
        faults.append((".client_cert", "is missing, and client_key belongs to it; write both"))
    if entry.client_cert is not None and entry.client_key is None:
        faults.append((".client_key", "is missing, and client_cert needs it; write both"))
    if faults:
        raise ReadError(faults)
    return ServiceSettings(
        name,
        urls,
        entry.ca,
        entry.client_cert,
        entry.client_key,
        entry.server_name,
        entry.connect,
        entry.response,
        None if entry.health is None else entry.health.path,
        entry.max_connections,
        entry.isolate,
        "" if entry.health is None else entry.health.host,
        entry.keepalive,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteEntry:
    """One table of routes."""

    path: str = setting(PATH_PREFIX)
    service: str = setting(NAME)
    public: bool = setting(BOOLEAN, False)


def _route(entry: RouteEntry) -> Route:
    return Route(entry.path.encode(), entry.service, entry.public)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitEntry:
    """One table of limits."""

    name: str = setting(NAME)
    key: tuple[str, ...] = setting(listing(choice("tenant", "ip"), at_least=1), ["tenant", "ip"])
    rate: tuple[int, int] = setting(RATE)
    burst: int | None = setting(whole(1, MAX_QUOTA), DERIVED)
    paths: tuple[str, ...] = setting(listing(PATH_PREFIX), [])
    methods: tuple[str, ...] = setting(listing(METHOD), [])
    mode: str = setting(choice("enforce", "shadow"), "enforce")
    charge: str = setting(choice("requests", "failures", "refusals"), "requests")


def _limit(entry: LimitEntry) -> LimitRule:
    quota, window = entry.rate
    if entry.charge == "refusals":
        _check_refusals(entry)
    return LimitRule(
        entry.name,
        entry.key,
        quota,
        window,
        burst=quota if entry.burst is None else entry.burst,
        paths=tuple(path.encode() for path in entry.paths) or None,
        methods=frozenset(method.encode() for method in entry.methods) or None,
        mode=cast(Literal["enforce", "shadow"], entry.mode),
        charge=cast(Literal["requests", "failures", "refusals"], entry.charge),
    )


def _check_refusals(entry: LimitEntry) -> None:
    """What is refused may have no tenant, no path and no method."""
    faults: list[Located] = []
    if entry.key != ("ip",):
        faults.append((".key", 'must be ["ip"] with charge = "refusals": what is refused may have no tenant'))
    for name in ("paths", "methods"):
        if getattr(entry, name):
            faults.append((f".{name}", 'have no use with charge = "refusals": leave them out'))
    if faults:
        raise ReadError(faults)


SERVICES = mapping(ServiceEntry, _read_service, defaults.SERVICES)
ROUTES = array(made(RouteEntry, _route))
LIMITS = array(made(LimitEntry, _limit))

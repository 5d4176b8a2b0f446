"""Services and routes: their tables in the file, and the values made from them."""

# Fields are declared by a call for each, whose values are immutable.
# ruff: noqa: RUF009

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..policy.clients import NetworkSet
from ..policy.routing import Route
from . import defaults
from .faults import Located, ReadError, close, shown
from .health_entries import HEALTH, HealthSettings
from .kinds import Where, listing, optional, refined, whole
from .tables import array, keys, made, mapping, setting, table
from .values import (
    BOOLEAN,
    DEADLINE,
    DOMAIN,
    DURATION,
    FILE,
    NAME,
    NETWORK,
    PATH_PREFIX,
    SERVICE_URL,
)

_EXAMPLE: Final = '"http://127.0.0.1:4001"'
_WINDOW: Final = refined(DURATION, lambda seconds: seconds >= 1, 'is too short; write at least "1s"')


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """One service behind the gateway.

    `urls` are its addresses. `ca`, `client_cert` and `client_key` are PEM files for `https://`; `server_name` is the
    name that its certificate must have, None for the host of each address. `connect`, `response` and `keepalive` are
    seconds, None for the general timeouts (for `keepalive`: `upstream_keepalive`). `health` says how its addresses
    are probed, None for no probes. `eject_failures` failures within `eject_window` seconds take an address out of use
    (0: none do); a response with one of `eject_statuses` is such a failure too. `slow_start`: the seconds until an
    address that comes back has its whole share of the requests again. `max_connections` bounds the connections to all
    its addresses together. With `isolate` a connection is used for one tenant only.
    """

    name: str
    urls: tuple[str, ...]
    ca: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    server_name: str | None = None
    connect: float | None = None
    response: float | None = None
    health: HealthSettings | None = None
    max_connections: int = 1024
    isolate: bool = False
    keepalive: float | None = None
    eject_failures: int = 5
    eject_window: float = 10.0
    eject_statuses: tuple[int, ...] = ()
    slow_start: float = 10.0


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
    health: HealthSettings | None = setting(HEALTH, "")
    eject_failures: int = setting(whole(0, 1000), 5)
    eject_window: float = setting(_WINDOW, "10s")
    eject_statuses: tuple[int, ...] = setting(listing(whole(500, 599)), [])
    slow_start: float = setting(DURATION, "10s")
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
            service = _service(name, _read_entry(value, where))
    except ReadError as misread:
        raise ReadError([*faults, *misread.faults]) from None
    if faults:
        raise ReadError(faults)
    return service


def _read_entry(value: dict[str, Any], where: Where) -> ServiceEntry:
    """A service's table: each key by itself, and then the contradictions between keys, so that no fault hides
    another."""
    faults: list[Located] = []
    entry = None
    try:
        entry = table(ServiceEntry).read(value, where)
    except ReadError as misread:
        faults.extend(misread.faults)
    faults.extend(_contradictions(value, sound=not any(at.startswith(".url") for at, _ in faults)))
    if entry is None or faults:
        raise ReadError(faults)
    return entry


def _contradictions(value: dict[str, Any], sound: bool) -> Iterator[Located]:
    """Contradictions between a service's keys; `sound` says whether its addresses can be read. A key that is probably
    meant by a misspelled one does not count as missing."""
    known = keys(ServiceEntry)
    given = {name for name, each in value.items() if each not in ("", [])}
    meant = given | {close(name, known) for name in value if name not in known}
    if {"url", "urls"} <= given:
        yield ".urls", "is given as well as url; write one of the two"
    elif not meant & {"url", "urls"}:
        yield ".url", "is missing; write the address, as in url = " + _EXAMPLE
    urls = [value["url"]] if "url" in given else value.get("urls", [])
    if sound and urls and not any(url.startswith("https:") for url in urls):
        for file in ("ca", "client_cert", "client_key", "server_name"):
            if file in given:
                yield f".{file}", "has no effect without TLS; leave it out, or write an https:// address"
    if "client_key" in given and "client_cert" not in meant:
        yield ".client_cert", "is missing, and client_key needs it; write both"
    if "client_cert" in given and "client_key" not in meant:
        yield ".client_key", "is missing, and client_cert needs it; write both"


def _service(name: str, entry: ServiceEntry) -> ServiceSettings:
    urls = entry.urls if entry.url is None else (entry.url,)
    same = {key: getattr(entry, key) for key in keys(ServiceEntry) if key not in ("url", "urls")}
    return ServiceSettings(name, urls, **same)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteEntry:
    """One table of routes."""

    path: str = setting(PATH_PREFIX)
    service: str = setting(NAME)
    public: bool = setting(BOOLEAN, False)
    allow: tuple[str, ...] = setting(listing(NETWORK), [])


def _route(entry: RouteEntry) -> Route:
    return Route(entry.path.encode(), entry.service, entry.public, NetworkSet(entry.allow))


SERVICES = mapping(ServiceEntry, _read_service, defaults.SERVICES)
ROUTES = array(made(RouteEntry, _route))

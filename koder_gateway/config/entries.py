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
_WINDOW: Final = refined(DEADLINE, lambda seconds: seconds >= 1, 'is too short; write at least "1s"')


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

    url: str | None = setting(
        optional(SERVICE_URL),
        "",
        about="`http://`, `https://` or `unix:/path`; host and port only. A service has `url` or `urls`.",
    )
    urls: tuple[str, ...] = setting(
        listing(SERVICE_URL),
        [],
        about="Several addresses of the same service.",
    )
    ca: Path | None = setting(
        optional(FILE),
        "",
        about='PEM file of the authorities for `https://`; `""`: those of the system.',
    )
    client_cert: Path | None = setting(
        optional(FILE),
        "",
        about="PEM file of the certificate that the gateway shows to the service. With `client_key`.",
    )
    client_key: Path | None = setting(
        optional(FILE),
        "",
        about="PEM file of its key.",
    )
    server_name: str | None = setting(
        optional(DOMAIN),
        "",
        about='Name that the [certificate](#tls-towards-services) of an `https://` service must have; `""`: '
        "the URL's host.",
    )
    connect: float | None = setting(
        optional(DEADLINE),
        "",
        about='`timeouts.connect` for this service; `""`: the general one.',
    )
    response: float | None = setting(
        optional(DEADLINE),
        "",
        about='`timeouts.response` for this service; `""`: the general one.',
    )
    keepalive: float | None = setting(
        optional(DURATION),
        "",
        about="`timeouts.upstream_keepalive` for this service. Set it below the time after which the service "
        "closes idle connections; otherwise a POST can arrive as the connection closes, and is 502, or gets "
        'the 408 that some services then send. 0: none is kept, `""`: the general one. If the service\'s '
        "responses say `Keep-Alive: timeout=N`, connections are kept a second less than N if that is shorter.",
    )
    health: HealthSettings | None = setting(
        HEALTH,
        "",
        about="Path that [health probes](#health-probes) ask each address for, or a table of `path`, `interval`, "
        '`timeout`, `unhealthy`, `healthy`, `host` and `status`; `""`: no probes.',
    )
    eject_failures: int = setting(
        whole(0, 1000),
        5,
        about="Failed requests in `eject_window` after which one of several addresses gets none for a while: "
        "[ejection](#addresses-that-fail). 0: never.",
    )
    eject_window: float = setting(
        _WINDOW,
        "10s",
        about='The time in which these failures count; at least `"1s"`.',
    )
    eject_statuses: tuple[int, ...] = setting(
        listing(whole(500, 599)),
        [],
        about="Statuses of responses, 500 to 599, that count as failed requests too.",
    )
    slow_start: float = setting(
        DURATION,
        "10s",
        about="Time until an address that [comes back](#addresses-that-fail), or is new in DNS, has its whole "
        "share of the requests; 0: it has it at once.",
    )
    max_connections: int = setting(
        whole(1, 65536),
        1024,
        about="Requests that it handles at once, each on a connection of its own, all addresses together; "
        "more wait for `timeouts.queue`, then they are 503. 1 to 65536.",
    )
    isolate: bool = setting(
        BOOLEAN,
        False,
        about="A kept-alive connection is used for one tenant only, so a service that sends a second response "
        "cannot answer another tenant's request. Costs a connection for each tenant with requests in flight.",
    )


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

    path: str = setting(
        PATH_PREFIX,
        about="The path prefix: it matches this path and everything below it. Each once.",
    )
    service: str = setting(
        NAME,
        about="One of the services.",
    )
    public: bool = setting(
        BOOLEAN,
        False,
        about="Pages of any origin may read the responses: `Access-Control-Allow-Origin: *`, without "
        "credentials. In the default table for `/.well-known`, `/oauth/v2/keys` and `/oidc/v1/keys`.",
    )
    allow: tuple[str, ...] = setting(
        listing(NETWORK),
        [],
        about="The clients that [may use it](#who-may-use-a-route), `unix:` for those on UNIX sockets; all "
        "others get 403 `not_allowed`. `[]`: everybody. In the default table for `/v1/admin`: private "
        "addresses and loopback.",
    )


def _route(entry: RouteEntry) -> Route:
    return Route(entry.path.encode(), entry.service, entry.public, NetworkSet(entry.allow))


SERVICES = mapping(ServiceEntry, _read_service, defaults.SERVICES, SERVICE_URL.shape)
ROUTES = array(made(RouteEntry, _route))

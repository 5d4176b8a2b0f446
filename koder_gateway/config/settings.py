"""Everything that can be configured, frozen: one class for each section, one line for each key.

Durations are seconds (float), sizes bytes (int), paths absolute. A new key is one line here, and one in the
sample and the reference, which tests hold to this module.
"""

# Fields are declared by a call for each, whose values are immutable.
# ruff: noqa: RUF009

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..policy.cors import DEFAULT_EXPOSE, DEFAULT_MAX_AGE, DEFAULT_METHODS
from ..policy.limits import LimitRule
from ..policy.routing import Route
from ..policy.tenants import Tenant
from . import defaults
from .client_auth import AUTHORITIES, CLIENT_AUTH, Authorities
from .entries import LIMITS, ROUTES, SERVICES, ServiceSettings
from .field_names import CLAIM, FIELD_NAME, FORWARDED_FIELD, TENANT_HEADER, TRAILER
from .file_looks import Version
from .hsts import HSTS
from .kinds import any_number, listing, one_or_more, optional, optional_text, whole
from .tables import setting, table
from .values import (
    AGE,
    BOOLEAN,
    BUFFER,
    DEADLINE,
    DOMAIN,
    DURATION,
    ENDPOINT,
    FOLDER,
    LIMIT,
    LOG,
    METHOD,
    NAME,
    NETWORK,
    ORIGIN,
    PERCENT,
    PLAIN_ENDPOINT,
    REGISTRY,
    SHARE,
    SIZE,
    SLUG,
    STATE,
    STORE,
)

_MAX_COUNT = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSettings:
    """[tenants]: whose request it is. `registry`: a file, the URL of the Admin service's list, None: open.
    `max_loss`: the part of the tenants (0 to 1) that a list which is read again may lack."""

    base_domain: str = setting(DOMAIN, "id.koder.dev")
    header: str = setting(TENANT_HEADER, "X-Tenant-ID")
    refresh: float = setting(DEADLINE, "30s")
    default: str = setting(optional_text(SLUG), "")
    registry: Path | str | None = setting(optional(REGISTRY), "")
    max_loss: float = setting(SHARE, "10%")


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsSettings:
    """[cors]: which pages may call. Empty `headers`: those that a preflight asks for. `max_age`: seconds."""

    origins: tuple[str, ...] = setting(listing(ORIGIN), [])
    methods: tuple[str, ...] = setting(listing(METHOD, at_least=1), list(DEFAULT_METHODS))
    headers: tuple[str, ...] = setting(listing(FIELD_NAME), [])
    expose: tuple[str, ...] = setting(listing(FIELD_NAME), list(DEFAULT_EXPOSE))
    expose_add: tuple[str, ...] = setting(listing(FIELD_NAME), [])
    max_age: int = setting(AGE, DEFAULT_MAX_AGE)
    credentials: bool = setting(BOOLEAN, True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSettings:
    """[requests]: how much one request may be, in bytes; `min_rate` in bytes per second, 0 asks for none.
    `max_tunnels`: connections that have switched protocols, 0 for none. `allow_fields` and `allow_trailers` are what
    passes of clients' fields that are kept from services, and of their trailers. `max_buffered`: of answers that
    wait for clients, all together."""

    max_body: int = setting(LIMIT, "10MiB")
    max_head: int = setting(LIMIT, "32KiB")
    max_fields: int = setting(whole(1, 65536), 100)
    max_target: int = setting(LIMIT, "8KiB")
    max_streams: int = setting(whole(1, 10_000), 100)
    min_rate: int = setting(SIZE, "1KiB")
    max_tunnels: int = setting(whole(0, _MAX_COUNT), 10000)
    allow_fields: tuple[str, ...] = setting(listing(CLAIM), [])
    allow_trailers: tuple[str, ...] = setting(listing(TRAILER), [])
    max_buffered: int = setting(BUFFER, "256MiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareSettings:
    """[shares]: percents that one client address and one tenant may hold of a service's connections, of tunnels and
    of client connections."""

    address: int = setting(PERCENT, "25%")
    tenant: int = setting(PERCENT, "50%")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutSettings:
    """[timeouts]: absolute deadlines in seconds. `exchange` and `tunnel` 0 set none, `queue` 0 lets nobody wait."""

    head: float = setting(DEADLINE, "10s")
    body: float = setting(DEADLINE, "30s")
    connect: float = setting(DEADLINE, "2s")
    queue: float = setting(DURATION, "2s")
    response: float = setting(DEADLINE, "60s")
    idle: float = setting(DEADLINE, "60s")
    keepalive: float = setting(DURATION, "75s")
    upstream_keepalive: float = setting(DURATION, "60s")
    exchange: float = setting(DURATION, 0)
    tunnel: float = setting(DURATION, "10m")
    drain: float = setting(DURATION, "30s")
    linger: float = setting(DURATION, "2s")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenSettings:
    """[listen]: Twisted server endpoints, who speaks for clients. `max_connections` 0: by RLIMIT_NOFILE. `alt_svc`:
    whether a service's Alt-Svc passes. `half_close`: whether a client that has ended its side after its request is
    answered. `admin_hosts`: names under which the admin port is asked, besides addresses and localhost."""

    port: tuple[str, ...] = setting(one_or_more(ENDPOINT), "ssl:443")
    admin_port: str = setting(optional_text(ENDPOINT), "")
    admin_hosts: tuple[str, ...] = setting(listing(DOMAIN), [])
    redirect_port: tuple[str, ...] = setting(any_number(PLAIN_ENDPOINT), "")
    trusted_proxies: tuple[str, ...] = setting(listing(NETWORK), [])
    forwarded_fields: tuple[str, ...] = setting(listing(FORWARDED_FIELD), [])
    max_connections: int = setting(whole(0, _MAX_COUNT), 0)
    http2: bool = setting(BOOLEAN, True)
    half_close: bool = setting(BOOLEAN, True)
    alt_svc: bool = setting(BOOLEAN, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """[tls]: the folder of certificates, None for a self-signed one, the name of the default one, and whether it is
    kept from clients that ask for no name or an unknown one.

    `acme_webroot`: the folder in which certbot --webroot leaves its challenges.
    `client_auth` has (host pattern, "optional" or "required") for the hosts that ask for a client's certificate,
    which `client_ca` must have issued. `hsts` is the value of Strict-Transport-Security, "" for none.
    """

    certificates: Path | None = setting(optional(FOLDER), "")
    default: str = setting(optional_text(NAME), "")
    strict_sni: bool = setting(BOOLEAN, False)
    acme_webroot: Path | None = setting(optional(FOLDER), "")
    client_ca: Authorities | None = setting(optional(AUTHORITIES), "")
    client_auth: tuple[tuple[str, str], ...] = setting(CLIENT_AUTH, "")
    hsts: str = setting(HSTS, True)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSettings:
    """[state]: the folder of what must outlive the process."""

    dir: Path = setting(STATE, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsStoreSettings:
    """[limits_store]: where buckets are kept. `max_entries` bounds the buckets of all limits together."""

    url: str = setting(STORE, "memory:")
    max_entries: int = setting(whole(1, _MAX_COUNT), 262144)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """[log]: whether there is an access log, and its file; "-" is stdout."""

    access: bool = setting(BOOLEAN, True)
    file: str = setting(LOG, "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration.

    `source` is the file it came from, None for the defaults. `registered` are the tenants that stood in the
    registry file when it was checked, None where there is no such file; who has built a registry from them
    may drop them with `dataclasses.replace`. `registry_version` is that of the file that they are from.
    """

    tenants: TenantSettings = setting(table(TenantSettings), {})
    services: Mapping[str, ServiceSettings] = setting(SERVICES, {})
    routes: tuple[Route, ...] = setting(ROUTES, defaults.ROUTES)
    cors: CorsSettings = setting(table(CorsSettings), {})
    limits: tuple[LimitRule, ...] = setting(LIMITS, defaults.LIMITS)
    requests: RequestSettings = setting(table(RequestSettings), {})
    shares: ShareSettings = setting(table(ShareSettings), {})
    timeouts: TimeoutSettings = setting(table(TimeoutSettings), {})
    listen: ListenSettings = setting(table(ListenSettings), {})
    tls: TlsSettings = setting(table(TlsSettings), {})
    state: StateSettings = setting(table(StateSettings), {})
    limits_store: LimitsStoreSettings = setting(table(LimitsStoreSettings), {})
    log: LogSettings = setting(table(LogSettings), {})
    source: Path | None = None
    registered: tuple[Tenant, ...] | None = None
    registry_version: Version | None = None

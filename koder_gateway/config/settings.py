"""All settings, frozen: one class for each section, one line for each key.

Durations are seconds (float), sizes bytes (int), paths absolute. A new key is one line here, and one in the sample
and the reference; tests compare these with this module.
"""

# Fields are declared by a call for each, whose values are immutable.
# ruff: noqa: RUF009

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..policy.cors import DEFAULT_EXPOSE, DEFAULT_MAX_AGE, DEFAULT_METHODS
from ..policy.limit_rules import LimitRule
from ..policy.routing import Route
from ..policy.tenants import Registry
from ..wire import problem
from . import defaults
from .client_auth import AUTHORITIES, CLIENT_AUTH, Authorities
from .docs_url import DOCS_URL
from .entries import ROUTES, SERVICES, ServiceSettings
from .field_names import FIELD_NAME, FORWARDED_FIELD, SPOOFABLE_FIELD, TENANT_HEADER, TRAILER
from .hsts import HSTS
from .kinds import any_number, choice, listing, one_or_more, optional, optional_text, whole
from .limit_entries import LIMITS
from .limits_store import (
    DEFAULT_PREFIX,
    PASSWORD,
    PREFIX,
    STORE_TIMEOUT,
    STORE_URL,
    USER,
    Password,
    StoreUrl,
    checked,
)
from .signing_keys import ContextSettings
from .stable_reads import Version
from .tables import made, setting, table
from .values import (
    AGE,
    BOOLEAN,
    BUFFER,
    DEADLINE,
    DOMAIN,
    DURATION,
    ENDPOINT,
    FILE,
    FOLDER,
    LIMIT,
    LOG,
    METHOD,
    NAME,
    NETWORK,
    ORIGIN,
    PATH_PREFIX,
    PERCENT,
    PLAIN_ENDPOINT,
    REGISTRY,
    SHARE,
    SIZE,
    SLUG,
    STATE,
)
from .worker_limits import WORKERS

_MAX_COUNT = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSettings:
    """[tenants]: how a request's tenant is found. `registry`: a file, the URL of the Admin service's list, None:
    open. `max_loss`: the part of the tenants (0 to 1) that a list which is read again may lack.
    `suspended_allow`: the paths that are served for a suspended tenant too."""

    base_domain: str = setting(DOMAIN, "id.koder.dev")
    header: str = setting(TENANT_HEADER, "X-Tenant-ID")
    refresh: float = setting(DEADLINE, "30s")
    default: str = setting(optional_text(SLUG), "")
    registry: Path | str | None = setting(optional(REGISTRY), "")
    max_loss: float = setting(SHARE, "10%")
    suspended_allow: tuple[str, ...] = setting(listing(PATH_PREFIX), defaults.SUSPENDED_ALLOW)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsSettings:
    """[cors]: which pages may send requests. Empty `headers`: those that a preflight asks for. `max_age`: seconds."""

    origins: tuple[str, ...] = setting(listing(ORIGIN), [])
    methods: tuple[str, ...] = setting(listing(METHOD, at_least=1), list(DEFAULT_METHODS))
    headers: tuple[str, ...] = setting(listing(FIELD_NAME), [])
    expose: tuple[str, ...] = setting(listing(FIELD_NAME), list(DEFAULT_EXPOSE))
    expose_add: tuple[str, ...] = setting(listing(FIELD_NAME), [])
    max_age: int = setting(AGE, DEFAULT_MAX_AGE)
    credentials: bool = setting(BOOLEAN, True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSettings:
    """[requests]: how large one request may be, in bytes; `min_rate` in bytes per second, 0 for none. `max_tunnels`:
    upgraded connections, 0 for none. `allow_fields` and `allow_trailers` are the headers and trailers that pass
    although they are dropped by default. `max_buffered`: response bytes that wait for clients, all together."""

    max_body: int = setting(LIMIT, "10MiB")
    max_head: int = setting(LIMIT, "32KiB")
    max_fields: int = setting(whole(1, 65536), 100)
    max_target: int = setting(LIMIT, "8KiB")
    max_streams: int = setting(whole(1, 10_000), 100)
    min_rate: int = setting(SIZE, "1KiB")
    max_tunnels: int = setting(whole(0, _MAX_COUNT), 10000)
    allow_fields: tuple[str, ...] = setting(listing(SPOOFABLE_FIELD), [])
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
    """[timeouts]: absolute timeouts in seconds. With 0, `exchange` and `tunnel` are off, and `queue` lets no request
    wait."""

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
    """[listen]: Twisted server endpoints, and the proxies that are trusted.

    `workers` 0: one for each processor that may be used. `max_connections` 0: by RLIMIT_NOFILE. `alt_svc`: whether a
    service's Alt-Svc passes. `half_close`: whether a client that has closed its sending side after its request gets
    its response. `admin_hosts`: names by which the admin port may be reached, besides addresses and localhost.
    """

    port: tuple[str, ...] = setting(one_or_more(ENDPOINT), "ssl:443")
    admin_port: str = setting(optional_text(ENDPOINT), "")
    admin_hosts: tuple[str, ...] = setting(listing(DOMAIN), [])
    redirect_port: tuple[str, ...] = setting(any_number(PLAIN_ENDPOINT), "")
    trusted_proxies: tuple[str, ...] = setting(listing(NETWORK), [])
    forwarded_fields: tuple[str, ...] = setting(listing(FORWARDED_FIELD), [])
    workers: int = setting(WORKERS, 1)
    max_connections: int = setting(whole(0, _MAX_COUNT), 0)
    http2: bool = setting(BOOLEAN, True)
    half_close: bool = setting(BOOLEAN, True)
    alt_svc: bool = setting(BOOLEAN, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """[tls]: the folder of certificates, None for a self-signed one; the name of the default one; and `strict_sni`:
    whether clients with an unknown name, or with none, are refused.

    `acme_webroot`: the folder that certbot --webroot writes to. `client_auth` has (host pattern, "optional" or
    "required") for the hosts that ask for a client certificate, which `client_ca` must have issued. `hsts` is the
    value of Strict-Transport-Security, "" for none.
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
    """[state]: the folder of files that outlive the process."""

    dir: Path = setting(STATE, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsStoreSettings:
    """[limits_store]: where buckets are kept. `max_entries` bounds those in this process, of all limits together.

    The rest is for a store that gateways share: how long a request waits for it, the authorities of its certificate
    (None: the system's), who the gateway is there, and how its keys begin.
    """

    url: StoreUrl = setting(STORE_URL, "memory:")
    timeout: float = setting(STORE_TIMEOUT, "50ms")
    ca: Path | None = setting(optional(FILE), "")
    user: str = setting(optional_text(USER), "")
    password_file: Password | None = setting(optional(PASSWORD), "")
    prefix: str = setting(PREFIX, DEFAULT_PREFIX)
    max_entries: int = setting(whole(1, _MAX_COUNT), 262144)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSettings:
    """[problems]: what the gateway's own responses say. `docs_url`: what comes before the code in a problem's `type`,
    "" for none."""

    docs_url: str = setting(DOCS_URL, problem.DOCS_URL)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """[log]: whether there is an access log, its file ("-" is stdout) and its format; and how events are logged on
    stderr, and from which level on."""

    access: bool = setting(BOOLEAN, True)
    file: str = setting(LOG, "-")
    access_format: str = setting(choice("json", "combined"), "json")
    format: str = setting(choice("text", "json"), "text")
    level: str = setting(choice("debug", "info", "warn", "error"), "info")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration.

    `source` is the file it came from, None for the defaults, and `digest` the SHA-256 of what was in it, in
    hexadecimal. `registered` are the tenants that were in the registry
    file when it was read, None if there is no such file, and `registry_faults` a line for each of the first faults of
    entries of which `registry_skipped` were left out. `registry_version` is the version of that file. `written` are
    the keys that the configuration has in its tables, as in "limits_store.url".
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
    limits_store: LimitsStoreSettings = setting(made(LimitsStoreSettings, checked), {})
    context: ContextSettings = setting(table(ContextSettings), {})
    problems: ProblemSettings = setting(table(ProblemSettings), {})
    log: LogSettings = setting(table(LogSettings), {})
    source: Path | None = None
    digest: str = field(default="", compare=False)
    registered: Registry | None = None
    registry_faults: tuple[str, ...] = ()
    registry_skipped: int = 0
    registry_version: Version | None = None
    written: frozenset[str] = field(default=frozenset(), compare=False)

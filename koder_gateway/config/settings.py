"""All settings, frozen: one class for each section.

Durations are seconds (float), sizes bytes (int), paths absolute. A new key is one call of `setting` in the class of
its section, and a line in the sample with the reason for its default; `make reference` writes the rest.
"""

# Fields are declared by a call for each, whose values are immutable.
# ruff: noqa: RUF009

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..policy.limit_rules import LimitRule
from ..policy.routing import Route
from ..policy.tenants import Registry
from ..wire import problem
from . import defaults
from .acme import AcmeSettings
from .docs_url import DOCS_URL
from .entries import ROUTES, SERVICES, ServiceSettings
from .kinds import choice, optional, optional_text, whole
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
from .listen_settings import ListenSettings, TlsSettings
from .origins import Origins
from .request_settings import RequestSettings, ShareSettings, TimeoutSettings
from .signing_keys import ContextSettings
from .stable_reads import Version
from .tables import made, setting, table
from .tenant_settings import CorsSettings, TenantSettings
from .tracing import TracingSettings
from .tracing import checked as checked_tracing
from .values import (
    BOOLEAN,
    FILE,
    LOG,
    STATE,
)

_MAX_COUNT: Final = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSettings:
    """[state]: the folder of files that outlive the process."""

    dir: Path = setting(
        STATE,
        "",
        about='`""`: `STATE_DIRECTORY`, else `$XDG_STATE_HOME/koder-gateway`, else `~/.local/state/koder-gateway`.',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsStoreSettings:
    """[limits_store]: where buckets are kept. `max_entries` bounds those in this process, of all limits together.

    The rest is for a store that gateways share: how long a request waits for it, the authorities of its certificate
    (None: the system's), who the gateway is there, and how its keys begin.
    """

    url: StoreUrl = setting(
        STORE_URL,
        "memory:",
        about="Where buckets are kept: `memory:`, in this process; or on a Redis or Valkey that [gateways "
        "share](#limits-of-several-gateways): `redis://HOST:PORT/DATABASE`, `rediss://` for TLS, `unix:/PATH`.",
    )
    timeout: float = setting(
        STORE_TIMEOUT,
        "50ms",
        about="How long a request waits for the shared store's decision; at most 5 seconds.",
    )
    ca: Path | None = setting(
        optional(FILE),
        "",
        about="The authorities, in PEM, that may have issued the store's certificate; `\"\"`: the system's.",
    )
    user: str = setting(
        optional_text(USER),
        "",
        about='The user of the store\'s access list; `""`: its default user.',
    )
    password_file: Password | None = setting(
        optional(PASSWORD),
        "",
        about='A file with that user\'s password, in one line; `""`: none is needed.',
    )
    prefix: str = setting(
        PREFIX,
        DEFAULT_PREFIX,
        about="How the store's keys begin. Gateways share their limits if it is the same, and the limits are.",
    )
    max_entries: int = setting(
        whole(1, _MAX_COUNT),
        262144,
        about="The most buckets in this process, of all limits together. Limits that need few leave the rest "
        "to the others. See [many keys](#many-keys).",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSettings:
    """[problems]: what the gateway's own responses say. `docs_url`: what comes before the code in a problem's `type`,
    "" for none."""

    docs_url: str = setting(
        DOCS_URL,
        problem.DOCS_URL,
        about="Where people read what [the gateway's errors](errors.md) mean: a problem's `type` is this and "
        'the code. It ends in `/`, `#` or `=`. `""`: `urn:koder-gateway:` and the code.',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """[metrics]: what the metrics page shows. `tenants`: how many tenants of the registry are counted by
    themselves."""

    tenants: int = setting(
        whole(0, 1000),
        100,
        about="How many tenants of the registry are counted by themselves, in each worker: the first that have "
        "requests, 0 to 1000. All others are counted together, and so is every tenant without a registry. See "
        "[metrics](operations.md#metrics).",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """[log]: whether there is an access log, its file ("-" is stdout) and its format; and how events are logged on
    stderr, and from which level on."""

    access: bool = setting(
        BOOLEAN,
        True,
        about="Whether there is an access log.",
    )
    file: str = setting(
        LOG,
        "-",
        about='A file in an existing folder, or `"-"` for stdout. SIGHUP opens it again, unless the reload is '
        "refused; SIGUSR1 opens it again and does nothing else.",
    )
    access_format: str = setting(
        choice("json", "combined"),
        "json",
        about="The format of its lines: JSON with [all members](operations.md#access-log), or Apache's and "
        'nginx\'s "combined", for tools that know it.',
    )
    format: str = setting(
        choice("text", "json"),
        "text",
        about="The format of the gateway's own events, on stderr. twistd's own `--logfile`, `--syslog` and "
        "`--logger` go before.",
    )
    level: str = setting(
        choice("debug", "info", "warn", "error"),
        "info",
        about="The least level of events that are written.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration.

    `source` is the file it came from, None for the defaults. `registered` are the tenants that were in the registry
    file when it was read, None if there is no such file, and `registry_faults` a line for each of the first faults of
    entries of which `registry_skipped` were left out. `registry_version` is the version of that file. `written` are
    the keys that the configuration has in its tables, as in "limits_store.url", and `variables` the environment
    variables that have set some of them, by key. `digest` is the SHA-256 of the file, in hexadecimal; "" without a
    file.
    """

    tenants: TenantSettings = setting(
        table(TenantSettings),
        {},
        about="Whose request it is: the first label of the host names the tenant.",
    )
    services: Mapping[str, ServiceSettings] = setting(
        SERVICES,
        {},
        about="The services by name, each an address or a table with the keys below. They are added to the "
        "default services `identity`, `auth`, `oauth2`, `session` and `admin` (ports 4001 to 4005 of "
        "127.0.0.1), or take the place of the one with the same name.",
    )
    routes: tuple[Route, ...] = setting(
        ROUTES,
        defaults.ROUTES,
        about="Which path goes to which service: by whole segments, the longest first. An escaped letter, "
        "digit, `-`, `_` or `~` is equal to the plain one. Any of these tables replaces all default ones.",
    )
    cors: CorsSettings = setting(
        table(CorsSettings),
        {},
        about="Which pages of other origins may send requests from a browser.",
    )
    limits: tuple[LimitRule, ...] = setting(
        LIMITS,
        defaults.LIMITS,
        about="Replaces all default limits, also the one on refusals: keep that one, or `check` and the start "
        "warn. `limits = []`: none.",
    )
    requests: RequestSettings = setting(
        table(RequestSettings),
        {},
        about="How large one request may be.",
    )
    shares: ShareSettings = setting(
        table(ShareSettings),
        {},
        about="The most that one client may hold of each service's `max_connections`, of "
        "`requests.max_tunnels` and of `listen.max_connections`. A request beyond its share waits for "
        "`timeouts.queue`, then it is 503, while others are served.",
    )
    timeouts: TimeoutSettings = setting(
        table(TimeoutSettings),
        {},
        about="Deadlines: sending byte by byte does not extend them, unless the text says so. They are "
        "checked four times a second, so each may take effect up to a quarter of a second late.",
    )
    listen: ListenSettings = setting(
        table(ListenSettings),
        {},
        about="Where clients connect. `port`, `admin_port` and `redirect_port` need a restart.",
    )
    tls: TlsSettings = setting(
        table(TlsSettings),
        {},
        about="TLS towards clients.",
    )
    acme: AcmeSettings = setting(
        table(AcmeSettings),
        {},
        about="Certificates for the domains of active tenants, ordered from an ACME authority (RFC 8555). No request "
        "waits for it.",
    )
    state: StateSettings = setting(
        table(StateSettings),
        {},
        about="Files that must outlive the process.",
    )
    limits_store: LimitsStoreSettings = setting(
        made(LimitsStoreSettings, checked),
        {},
        about="Where the buckets of the limits are.",
    )
    context: ContextSettings = setting(
        table(ContextSettings),
        {},
        about="A signed header for services, which says that a request has come through the gateway.",
    )
    tracing: TracingSettings = setting(
        made(TracingSettings, checked_tracing),
        {},
        about="Spans of requests, for an OpenTelemetry collector. No request waits for it.",
    )
    problems: ProblemSettings = setting(
        table(ProblemSettings),
        {},
        about="The gateway's own responses: its errors.",
    )
    metrics: MetricsSettings = setting(
        table(MetricsSettings),
        {},
        about="The metrics page of the admin port.",
    )
    log: LogSettings = setting(
        table(LogSettings),
        {},
        about="The access log, one line for each exchange, and the log of the gateway's own events.",
    )
    source: Path | None = None
    registered: Registry | None = None
    registry_faults: tuple[str, ...] = ()
    registry_skipped: int = 0
    registry_version: Version | None = None
    written: frozenset[str] = field(default=frozenset(), compare=False)
    variables: Mapping[str, str] = field(default_factory=dict, compare=False)
    digest: str = field(default="", compare=False)

    @property
    def origins(self) -> Origins:
        """Where its keys come from, for the lines of reports about them."""
        return Origins(str(self.source or "koder-gateway.toml"), self.variables)

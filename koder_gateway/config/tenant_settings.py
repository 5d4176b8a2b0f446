"""`[tenants]` and `[cors]`: whose request it is, and which pages may send it."""

# Fields are declared by a call for each, whose values are immutable.
# ruff: noqa: RUF009

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..policy.cors import DEFAULT_EXPOSE, DEFAULT_MAX_AGE, DEFAULT_METHODS
from . import defaults
from .field_names import FIELD_NAME, TENANT_HEADER
from .kinds import listing, optional, optional_text
from .tables import setting
from .values import (
    AGE,
    BOOLEAN,
    DEADLINE,
    DOMAIN,
    METHOD,
    ORIGIN,
    PATH_PREFIX,
    REGISTRY,
    SHARE,
    SLUG,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSettings:
    """[tenants]: how a request's tenant is found. `registry`: a file, the URL of the Admin service's list, None:
    open. `max_loss`: the part of the tenants (0 to 1) that a list which is read again may lack.
    `suspended_allow`: the paths that are served for a suspended tenant too."""

    base_domain: str = setting(
        DOMAIN,
        "id.koder.dev",
        about="`<slug>.base_domain` is a tenant's host; the base domain itself needs the tenant header or a default.",
    )
    header: str = setting(
        TENANT_HEADER,
        "X-Tenant-ID",
        about="Names the tenant on the bare base domain; the gateway always sets it towards services. Not a "
        "name that HTTP or the gateway uses, and without `_`.",
    )
    refresh: float = setting(
        DEADLINE,
        "30s",
        about="How often the registry is read again, file or URL. A changed file is read once it is the same "
        "a second later; one with fewer tenants must be moved into place (`mv`).",
    )
    default: str = setting(
        optional_text(SLUG),
        "",
        about='The tenant of the bare base domain without a header; `""` refuses with 400 `tenant_required`. '
        "Must be in the registry file.",
    )
    registry: Path | str | None = setting(
        optional(REGISTRY),
        "",
        about="A tenants file or the [Admin service's URL](#a-registry-behind-a-url) (`http://`, `https://`); "
        '`""`: every well-formed slug is a tenant.',
    )
    max_loss: float = setting(
        SHARE,
        "10%",
        about="How many of the previous tenants a list that is read again may lack, and how many of its "
        "entries may have faults; one in any case. A list that lacks more is refused as a whole until a "
        'reload. `"100%"` accepts any list.',
    )
    suspended_allow: tuple[str, ...] = setting(
        listing(PATH_PREFIX),
        defaults.SUSPENDED_ALLOW,
        about="What is served for a [suspended tenant](operations.md#suspended-tenants) too, by whole "
        "segments as in `routes`. `[]`: nothing.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsSettings:
    """[cors]: which pages may send requests. Empty `headers`: those that a preflight asks for. `max_age`: seconds."""

    origins: tuple[str, ...] = setting(
        listing(ORIGIN),
        [],
        about="Allowed for every tenant, in addition to the tenants' own, which do not count on the bare base "
        "domain: `scheme://host[:port]` in lower case, or a [wildcard](#wildcard-origins) such as "
        "`https://*.app.example`.",
    )
    methods: tuple[str, ...] = setting(
        listing(METHOD, at_least=1),
        list(DEFAULT_METHODS),
        about="Methods that preflight responses list.",
    )
    headers: tuple[str, ...] = setting(
        listing(FIELD_NAME),
        [],
        about="Request headers that preflight responses list; `[]`: those that the preflight asks for, "
        "without empty elements of its list.",
    )
    expose: tuple[str, ...] = setting(
        listing(FIELD_NAME),
        list(DEFAULT_EXPOSE),
        about="Response headers that scripts may read.",
    )
    expose_add: tuple[str, ...] = setting(
        listing(FIELD_NAME),
        [],
        about="More such headers, in addition to `cors.expose`. What a service exposes itself is kept too.",
    )
    max_age: int = setting(
        AGE,
        DEFAULT_MAX_AGE,
        about="How long browsers cache a preflight response: an integer, or a duration of whole seconds.",
    )
    credentials: bool = setting(
        BOOLEAN,
        True,
        about="Whether requests may carry cookies and `Authorization`.",
    )

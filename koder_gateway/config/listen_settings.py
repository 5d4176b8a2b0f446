"""`[listen]` and `[tls]`: where and how clients connect."""

# Fields are declared by a call for each, whose values are immutable.
# ruff: noqa: RUF009

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .client_auth import AUTHORITIES, CLIENT_AUTH, Authorities
from .field_names import FORWARDED_FIELD
from .hsts import HSTS
from .kinds import any_number, listing, one_or_more, optional, optional_text, whole
from .tables import setting
from .values import (
    BOOLEAN,
    DOMAIN,
    ENDPOINT,
    FOLDER,
    NAME,
    NETWORK,
    PLAIN_ENDPOINT,
)
from .worker_limits import WORKERS

_MAX_COUNT: Final = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenSettings:
    """[listen]: Twisted server endpoints, and the proxies that are trusted.

    `workers` 0: one for each processor that may be used. `max_connections` 0: by RLIMIT_NOFILE. `alt_svc`: whether a
    service's Alt-Svc passes. `half_close`: whether a client that has closed its sending side after its request gets
    its response. `admin_hosts`: names by which the admin port may be reached, besides addresses and localhost.
    """

    port: tuple[str, ...] = setting(
        one_or_more(ENDPOINT),
        "ssl:443",
        about="Twisted server endpoints; `--port` wins.",
    )
    admin_port: str = setting(
        optional_text(ENDPOINT),
        "",
        about='Endpoint of the status page, `/readyz`, `/metrics` and others; `--admin-port` wins; `""`: none.',
    )
    admin_hosts: tuple[str, ...] = setting(
        listing(DOMAIN),
        [],
        about="Names by which the admin port may be reached, besides IP addresses and localhost; any other "
        "Host is 421 there.",
    )
    redirect_port: tuple[str, ...] = setting(
        any_number(PLAIN_ENDPOINT),
        "",
        about='Plain endpoints that redirect clients to https; `--redirect-port` wins; `""`: none.',
    )
    trusted_proxies: tuple[str, ...] = setting(
        listing(NETWORK),
        [],
        about="CIDRs of the proxies that are trusted to name the [client's address and "
        'scheme](operations.md#behind-a-balancer-or-proxy). `"unix:"`: any peer on a `unix:` endpoint. If the '
        "list is not empty, only these may send the PROXY header to a `haproxy:` endpoint. A balancer in TCP "
        "mode that does not set `X-Forwarded-Proto` lets clients forge it: have it send `PP2_TYPE_SSL` (PROXY "
        "version 2), or set the header.",
    )
    forwarded_fields: tuple[str, ...] = setting(
        listing(FORWARDED_FIELD),
        [],
        about="Further headers of trusted proxies that services get unchanged: other `X-Forwarded-*`, as in "
        '`["X-Forwarded-Port"]`, and [those that are dropped when clients send '
        "them](#headers-dropped-towards-services).",
    )
    workers: int = setting(
        WORKERS,
        1,
        about="[Worker processes](operations.md#several-workers) on the same ports; `--workers` wins; "
        '`"auto"`: one for each processor that the gateway may use. More than one needs a shared '
        '`limits_store.url`, or `"memory:"` written out there, unless there are no limits.',
    )
    max_connections: int = setting(
        whole(0, _MAX_COUNT),
        0,
        about="Open client connections of each worker. One more is 503, as is one beyond its `[shares]`. 0: "
        "by the limit of open files; `check` and the log warn if any other number needs more than that.",
    )
    http2: bool = setting(
        BOOLEAN,
        True,
        about="Offers HTTP/2 to clients that come over TLS (ALPN).",
    )
    half_close: bool = setting(
        BOOLEAN,
        True,
        about="Whether a client that closes its sending side after a [complete "
        "request](operations.md#half-closed-connections) still gets its response.",
    )
    alt_svc: bool = setting(
        BOOLEAN,
        False,
        about="Whether a service's `Alt-Svc` is passed on: it tells clients where else the gateway's names "
        "are served. Never as a trailer.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """[tls]: the folder of certificates, None for a self-signed one; the name of the default one; and `strict_sni`:
    whether clients with an unknown name, or with none, are refused.

    `acme_webroot`: the folder that certbot --webroot writes to. `client_auth` has (host pattern, "optional" or
    "required") for the hosts that ask for a client certificate, which `client_ca` must have issued. `hsts` is the
    value of Strict-Transport-Security, "" for none.
    """

    certificates: Path | None = setting(
        optional(FOLDER),
        "",
        about='Folder of `NAME.pem`, `NAME.key` with `NAME.crt`, or certbot\'s `live/NAME`; `""`: self-signed.',
    )
    default: str = setting(
        optional_text(NAME),
        "",
        about='The certificate for clients with an unknown server name, or with none; `""`: the first by '
        "name that is valid. With `tls.certificates`.",
    )
    strict_sni: bool = setting(
        BOOLEAN,
        False,
        about="Refuses those clients instead, with the alert `unrecognized_name`.",
    )
    acme_webroot: Path | None = setting(
        optional(FOLDER),
        "",
        about='What certbot\'s `--webroot` writes here is served on `listen.redirect_port`; `""`: nothing is.',
    )
    client_ca: Authorities | None = setting(
        optional(AUTHORITIES),
        "",
        about='PEM file of the authorities that issue client certificates; `""`: no client is asked for one. '
        "With `tls.client_auth`.",
    )
    client_auth: tuple[tuple[str, str], ...] = setting(
        CLIENT_AUTH,
        "",
        about='Which hosts ask for a client certificate: all, or a table of patterns (`"admin.id.koder.dev"`, '
        '`"*.partner.example"`, `"*"`), the exact one first; `""`: none.',
    )
    hsts: str = setting(
        HSTS,
        True,
        about="`Strict-Transport-Security` on responses over TLS: `true` for a year, a duration, or the "
        "header's value; `false`: none.",
    )

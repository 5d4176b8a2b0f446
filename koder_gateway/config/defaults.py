"""The services, routes and limits that apply until the file says otherwise, in the form they have there."""

from __future__ import annotations

from typing import Any, Final

SERVICES: Final[dict[str, Any]] = {
    "identity": "http://127.0.0.1:4001",
    "auth": "http://127.0.0.1:4002",
    "oauth2": "http://127.0.0.1:4003",
    "session": "http://127.0.0.1:4004",
    "admin": "http://127.0.0.1:4005",
}
# Private addresses and loopback (RFC 1918, RFC 4193, RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.3).
PRIVATE: Final = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "fc00::/7", "::1/128"]
ROUTES: Final[list[dict[str, Any]]] = [
    {"path": "/v1/users", "service": "identity"},
    {"path": "/v1/auth", "service": "auth"},
    {"path": "/oauth/v2", "service": "oauth2"},
    {"path": "/oidc/v1", "service": "oauth2"},
    # Public documents, which any page may read.
    {"path": "/.well-known", "service": "oauth2", "public": True},
    {"path": "/oauth/v2/keys", "service": "oauth2", "public": True},
    {"path": "/oidc/v1/keys", "service": "oauth2", "public": True},
    {"path": "/v1/sessions", "service": "session"},
    # The platform's own administration is not for the Internet.
    {"path": "/v1/admin", "service": "admin", "allow": PRIVATE},
]
# What others depend on when a tenant is suspended: tokens that were issued can be checked, revoked and ended.
SUSPENDED_ALLOW: Final[list[str]] = [
    "/.well-known",
    "/oauth/v2/keys",
    "/oauth/v2/introspect",
    "/oauth/v2/revoke",
    "/oidc/v1/end_session",
]
# The reasons are in etc/koder-gateway.toml. Failures distinguish guesses from honest requests: the tight rules charge
# for failures only, so that an office behind one address can log in freely.
LIMITS: Final[list[dict[str, Any]]] = [
    {"name": "traffic", "key": ["ip"], "rate": "200/s", "burst": 2000},
    {"name": "refusals", "key": ["ip"], "rate": "50/s", "burst": 3000, "charge": "refusals"},
    {
        "name": "login",
        "key": ["tenant", "ip"],
        "rate": "120/m",
        "burst": 600,
        "paths": ["/v1/auth"],
        "methods": ["POST"],
    },
    {
        "name": "login-failures",
        "key": ["tenant", "ip"],
        "rate": "20/m",
        "burst": 60,
        "paths": ["/v1/auth"],
        "methods": ["POST"],
        "charge": "failures",
    },
    {
        "name": "token",
        "key": ["tenant", "ip"],
        "rate": "1200/m",
        "burst": 600,
        "paths": ["/oauth/v2/token"],
        "methods": ["POST"],
    },
    {
        "name": "secret-failures",
        "key": ["tenant", "ip"],
        "rate": "30/m",
        "burst": 60,
        "paths": ["/oauth/v2/token", "/oauth/v2/introspect", "/oauth/v2/revoke"],
        "methods": ["POST"],
        "charge": "failures",
    },
    {
        "name": "account-failures",
        "key": ["tenant", "ip"],
        "rate": "30/m",
        "burst": 60,
        "paths": ["/v1/users"],
        "methods": ["POST", "PUT", "PATCH", "DELETE"],
        "charge": "failures",
    },
    {
        "name": "session-failures",
        "key": ["tenant", "ip"],
        "rate": "300/m",
        "burst": 2000,
        "paths": ["/v1/sessions"],
        "methods": ["POST", "PUT", "PATCH", "DELETE"],
        "charge": "failures",
    },
    {
        "name": "admin-failures",
        "key": ["ip"],
        "rate": "20/m",
        "burst": 60,
        "paths": ["/v1/admin"],
        "charge": "failures",
    },
]

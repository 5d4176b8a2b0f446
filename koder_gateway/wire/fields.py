"""Header names: what each one means to a gateway, in both directions (RFC 9110 sections 5 and 7.6.1).

A name is classified once and cached, under its exact spelling, in a bounded table that starts with the usual names:
the hot path does one dict look-up for each header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from .spoofable_fields import SPOOFABLE_FIELDS, SPOOFABLE_PREFIXES

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# One header line as both sides may send it: no control bytes, no white space before the colon.
FIELD_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")

# How many elements of a list are parsed one by one: honest clients send fewer, and each costs more than its bytes.
MAX_LISTED: Final = 64
_EMPTY: Final = frozenset((b"",))

# Every special prefix has more letters than these.
_FIRST: Final = 3
_LOWER: Final = bytes(range(256)).lower()
_MARKS: Final = b"!#$%&'*+-.^_`|~"


def folded(name: bytes) -> bytes:
    """What software that ignores case and punctuation reads in a name: its letters, in lower case, and its digits.

    Services that make variables of headers do so (X.Tenant.ID, X~Tenant~ID, x_tenant_id).
    """
    return name.translate(_LOWER, _MARKS)


# The kinds of headers. PASS is passed on unchanged; DROP never is; the others are examined.
PASS, DROP, HOST, LENGTH, CODING, CONNECTION = 0, 1, 2, 3, 4, 5
ORIGIN, EXPECT, REQUEST_ID, TENANT, FORWARDED, TRACE, TRAILER, DATE, RATE, HSTS, EXPOSE, HOPS, KEPT, AGENT = range(
    6, 20
)

# RFC 9110 section 7.6.1, and what older clients send; Proxy-Authorization is for a proxy, which ends here.
HOP_BY_HOP: Final = frozenset(
    (
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"upgrade",
        b"http2-settings",
    )
)
# Headers that no `Connection` option removes: framing and Host depend on them.
UNREMOVABLE: Final = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"trailer")
)
# Headers that no trailer may set (RFC 9110 section 6.5.1): framing, routing, identity, and those that are needed
# before the body.
PROTECTED: Final = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"trailer",
        b"te",
        b"upgrade",
        b"keep-alive",
        b"authorization",
        b"proxy-authorization",
        b"proxy-connection",
        b"www-authenticate",
        b"proxy-authenticate",
        b"cookie",
        b"set-cookie",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"expect",
        b"range",
        b"max-forwards",
        b"cache-control",
        b"age",
        b"expires",
        b"date",
        b"location",
        b"retry-after",
        b"vary",
        b"origin",
        b"via",
        b"forwarded",
        b"x-real-ip",
        b"x-request-id",
        b"traceparent",
        b"client-cert",
        b"client-cert-chain",
        b"x-koder-context",
        b"strict-transport-security",
        # Where else the gateway's names are served, what browsers are to clear, and what they may do with the page:
        # all of it is decided when the body begins.
        b"alt-svc",
        b"clear-site-data",
        b"set-cookie2",
        b"content-security-policy",
        b"content-disposition",
        b"content-location",
        b"refresh",
        b"http2-settings",
    )
)
_REQUEST: Final = {
    b"host": HOST,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"connection": CONNECTION,
    b"origin": ORIGIN,
    b"expect": EXPECT,
    b"x-request-id": REQUEST_ID,
    b"forwarded": FORWARDED,
    b"x-real-ip": FORWARDED,
    b"traceparent": TRACE,
    b"tracestate": TRACE,
    b"trailer": TRAILER,
    b"max-forwards": HOPS,
    b"user-agent": AGENT,
    b"content-type": PASS,
    # Only the verifier of a certificate may set it (RFC 9440 section 2.4).
    b"client-cert": DROP,
    b"client-cert-chain": DROP,
    # Signed by the gateway, or absent.
    b"x-koder-context": DROP,
}
# Headers that frame a message, end with a connection, or decide something in the gateway: services that fold names
# into variables, as CGI does, would accept them in any other spelling. Content-Type is such a variable itself, like
# the length (RFC 3875 sections 4.1.2 and 4.1.3).
_READ: Final = (*UNREMOVABLE, *HOP_BY_HOP, b"origin", b"max-forwards", b"content-type")
# Headers that only the gateway may set towards a service.
_OWN: Final = (
    b"x-request-id",
    b"forwarded",
    b"x-real-ip",
    b"traceparent",
    b"tracestate",
    b"client-cert",
    b"client-cert-chain",
    b"x-koder-context",
)
_RESPONSE: Final = {
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"connection": CONNECTION,
    b"x-request-id": DROP,
    # A service that mirrors what it gets must not hand it to the client.
    b"x-koder-context": DROP,
    b"trailer": TRAILER,
    b"date": DATE,
    b"ratelimit": RATE,
    b"ratelimit-policy": RATE,
    b"strict-transport-security": HSTS,
    b"access-control-expose-headers": EXPOSE,
    b"keep-alive": KEPT,
}
_USUAL: Final = (
    "Accept Accept-Charset Accept-Encoding Accept-Language Accept-Ranges Access-Control-Request-Headers "
    "Access-Control-Request-Method Age Allow Authorization Cache-Control Connection Content-Disposition "
    "Content-Encoding Content-Language Content-Length Content-Location Content-Range "
    "Content-Security-Policy Content-Type Cookie DNT Date ETag Expect Expires Forwarded Host If-Match "
    "If-Modified-Since If-None-Match If-Range If-Unmodified-Since Keep-Alive Last-Modified Link Location "
    "Origin Pragma Priority Range Referer Referrer-Policy Retry-After Sec-Fetch-Dest Sec-Fetch-Mode "
    "Sec-Fetch-Site Sec-Fetch-User Server Set-Cookie Strict-Transport-Security TE Transfer-Encoding "
    "Upgrade Upgrade-Insecure-Requests User-Agent Vary Via WWW-Authenticate X-Content-Type-Options "
    "X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Frame-Options X-Real-IP X-Request-ID "
    "X-Requested-With traceparent tracestate "
)


class FieldKinds:
    """The kinds of header names for one direction, cached under each spelling.

    A name that only resembles one that the gateway reads or sets would be taken for it by some services: it is always
    dropped.
    """

    # A flood of random names must not grow the table: beyond this they are classified each time.
    BOUND: Final = 2048

    def __init__(
        self,
        exact: dict[bytes, int],
        prefixes: Iterable[tuple[bytes, int]],
        own: Iterable[bytes],
        *,
        underscores_pass: bool,
    ) -> None:
        self._exact = {**dict.fromkeys(HOP_BY_HOP, DROP), **exact}
        self._prefixes = tuple(prefixes)
        self._folded = frozenset(map(folded, own))
        # By their first letters, since most names begin as none of them.
        beginnings: dict[bytes, tuple[bytes, ...]] = {}
        for prefix in (folded(prefix) for prefix, _ in self._prefixes):
            beginnings[prefix[:_FIRST]] = (*beginnings.get(prefix[:_FIRST], ()), prefix)
        self._folded_prefixes = beginnings
        self._underscores_pass = underscores_pass
        self.table: dict[bytes, int] = {}
        for name in _USUAL.split():
            for spelling in (name, name.lower()):
                self.classify(spelling.encode())

    @classmethod
    def of_requests(cls, tenant_header: bytes, allowed: frozenset[bytes] = frozenset()) -> FieldKinds:
        """The kinds of headers from clients, with the tenant header under its configured name. `allowed` (lower case)
        are those of `wire.spoofable_fields` that pass all the same."""
        spoofable = SPOOFABLE_FIELDS - allowed
        exact = {
            **dict.fromkeys(allowed, PASS),
            **dict.fromkeys(spoofable, FORWARDED),
            **_REQUEST,
            tenant_header.lower(): TENANT,
        }
        own = (tenant_header, *_OWN, *_READ, *spoofable)
        families = (b"x-forwarded-", *SPOOFABLE_PREFIXES)
        return cls(exact, [(family, FORWARDED) for family in families], own, underscores_pass=False)

    @classmethod
    def of_responses(cls, tenant_header: bytes, *, alt_svc: bool = False) -> FieldKinds:
        """The kinds of headers from services: their own CORS headers never pass, in any spelling, and Alt-Svc (RFC
        7838) passes only with `alt_svc`."""
        exact = {**_RESPONSE, b"alt-svc": PASS if alt_svc else DROP, tenant_header.lower(): DROP}
        own = (
            tenant_header,
            b"x-request-id",
            b"x-koder-context",
            b"alt-svc",
            *HOP_BY_HOP,
            *(UNREMOVABLE - {b"host", b"expect"}),
        )
        return cls(exact, [(b"access-control-", DROP)], own, underscores_pass=True)

    def classify(self, name: bytes) -> int:
        """The kind of a name that the table does not have yet."""
        kind = self._classify(name.lower())
        if len(self.table) < self.BOUND:
            self.table[name] = kind
        return kind

    def _classify(self, lower: bytes) -> int:
        known = self._exact.get(lower)
        if known is not None:
            return known
        if b"_" in lower and not (
            self._underscores_pass and self._classify(lower.replace(b"_", b"-")) == PASS
        ):  # An underscore reads as a hyphen to CGI-like services.
            return DROP
        form = folded(lower)
        if form in self._folded:
            return DROP
        prefixes = self._folded_prefixes.get(form[:_FIRST])
        if prefixes is None or not form.startswith(prefixes):
            return PASS
        for prefix, kind in self._prefixes:
            if lower.startswith(prefix) or lower == prefix[:-1]:
                return kind
        return DROP


def connection_options(values: list[bytes]) -> frozenset[bytes] | None:
    """The lower-case options of all `Connection` headers (RFC 9110 section 7.6.1); None if there are too many."""
    listed = values[0] if len(values) == 1 else b",".join(values)
    if listed.count(b",") >= MAX_LISTED:
        return None
    return frozenset([option.strip(b" \t").lower() for option in listed.split(b",")]) - _EMPTY


def without_fields(lines: list[bytes], names: frozenset[bytes]) -> list[bytes]:
    """The field lines whose name is none of `names` (lower case)."""
    return [line for line in lines if line.partition(b":")[0].lower() not in names]

"""Every decision the gateway takes, as one value: the policies that one configuration makes."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from ..errors import BODY_TOO_LARGE, OVERLOADED, RATE_LIMITED, TENANT_SUSPENDED, UNKNOWN_TENANT, Refusal
from ..wire.refusal_writer import RefusalWriter
from ..wire.request_head import RequestHead
from .certificates import ClientAuth
from .clients import TrustedProxies
from .cors import CorsPolicy
from .limit_rules import RateOverride
from .limits import Limiter
from .origins import wildcard_of
from .routing import PathSet, RouteTable
from .sampling import Sampler
from .tenants import Registry, Tenant, TenantPolicy

if TYPE_CHECKING:
    # With joserfc, which costs memory: only where a key is configured.
    from .signed_context import ContextSigner

# The service that speaks OAuth and OpenID Connect: clients of its paths expect OAuth errors.
OAUTH_SERVICE: Final = "oauth2"


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """Every decision the gateway takes, as one immutable value; a reload makes another.

    `hsts` is the finished Strict-Transport-Security line, b"" for none. `forwarded_fields` (lower case) are those of
    trusted proxies' fields that go on to services as they came. `suspended_allow` are the paths that are served for
    suspended tenants too. `refusals` writes refusals as responses. `signer` signs X-Koder-Context; without one there
    is no such header. `sampler` decides which exchanges are traced; without one none is.
    """

    registry: Registry
    tenants: TenantPolicy
    tenant_header: bytes
    cors: CorsPolicy
    limiter: Limiter
    routes: RouteTable
    proxies: TrustedProxies
    max_body: int
    hsts: bytes = b""
    client_auth: ClientAuth = ClientAuth()  # noqa: RUF009  (immutable)
    forwarded_fields: frozenset[bytes] = frozenset()
    refusals: RefusalWriter = RefusalWriter()  # noqa: RUF009  (it only caches)
    suspended_allow: PathSet = PathSet(())  # noqa: RUF009  (immutable)
    signer: ContextSigner | None = None
    sampler: Sampler | None = None

    @property
    def jwks(self) -> bytes:
        """The JWK Set of the keys that sign contexts; b"" if there are none."""
        return b"" if self.signer is None else self.signer.jwks

    def allows(self, origin: bytes | None, listed: Container[bytes], tenant: Tenant | None) -> bool:
        """Whether pages of this origin may read responses for this tenant (None if there is none). `listed` are the
        tenant's origins that count.

        A wildcard covers no page of another tenant, nor of the base domain: whoever has the domain of an application
        does not have the tenants below it.
        """
        if origin is None or b"*" in origin:
            return False
        if self.cors.allows(origin, listed):
            return True
        wildcard, host = wildcard_of(origin)
        if not wildcard or not (wildcard in self.cors.wildcards or wildcard in listed) or self.tenants.is_base(host):
            return False
        owner = self.tenants.owner(host)
        return owner is None or (tenant is not None and owner.wire == tenant.wire)

    def preflight(self, head: RequestHead, origins: frozenset[bytes]) -> bytes | None:
        """The field lines of the answer to a preflight; None when this is none, or not from an allowed origin.

        `origins` are those of the tenant (`exchange.context`): none on the bare base domain, where only the header
        could name one, which a preflight never carries. Public documents may be read from anywhere.
        """
        known = head.preflight
        if known is not None and known[0] is self and known[1] is origins:
            return known[2]
        fields = self._preflight(head, origins)
        if head.raw:
            head.preflight = self, origins, fields
        return fields

    def _preflight(self, head: RequestHead, origins: frozenset[bytes]) -> bytes | None:
        method = head.preflight_method
        if method is None or head.origin is None:
            return None
        if self.cors.allows(head.origin, origins):
            return self.cors.preflight(head.origin, method, head.preflight_headers, origins)
        route = self.routes.match(head.path)
        if route is None or not route.public:
            return None
        return self.cors.public_preflight(method, head.preflight_headers)

    def figures(self, slug: bytes) -> Mapping[str, RateOverride]:
        """The figures that a tenant has in place of the limits' own, by limit."""
        tenant = self.registry.find(slug)
        return {} if tenant is None else tenant.limits

    def tenant_refusal(self, slug: bytes, path: bytes) -> Refusal | None:
        """Why an exchange of this tenant (b"" for none) at this path, already in flight, may not go on."""
        if not slug:
            return None
        tenant = self.registry.find(slug)
        if tenant is None:
            return UNKNOWN_TENANT
        return None if tenant.status == "active" or self.suspended_allow.covers(path) else TENANT_SUSPENDED

    def body_refusal(self, head: RequestHead) -> Refusal | None:
        """The refusal of a body that says beforehand that it is too large."""
        if head.length is not None and head.length > self.max_body:
            return BODY_TOO_LARGE.because(f"The request's body is over the limit of {self.max_body} bytes.")
        return None


@lru_cache(maxsize=256)
def limit_refusal(name: str, in_flight: int = 0, crowded: bool = False) -> Refusal:
    """The refusal of the limit of this name, of one on requests `in_flight` if that is not 0; `crowded` as in
    `policy.meter`. Retry-After is among the fields that go out with every answer of the exchange."""
    if in_flight:
        detail = f'The limit "{name}" allows {in_flight} requests in flight; try again when one of them has ended.'
        return replace(OVERLOADED, detail=detail, fields=b"")
    if crowded:
        return RATE_LIMITED.because(f'Too many requests under the limit "{name}" are in flight; try again soon.')
    return RATE_LIMITED.because(f'The limit "{name}" is used up; Retry-After says when to try again.')


@lru_cache(maxsize=256)
def undecided_refusal(name: str) -> Refusal:
    """The 503 of the limit of this name, which no store decides at present."""
    return OVERLOADED.because(f'The limit "{name}" cannot be checked at present; try again.')


def charges_refusal(refusal: Refusal) -> bool:
    """Whether the limit on refusals is charged: a 429 is charged to its own limit, and what is the fault of a service
    or of the gateway to none."""
    return refusal.status != 429 and refusal.fault == "client"

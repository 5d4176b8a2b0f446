"""The whole answer for one request, put together from the policies in the order in which the gateway asks them.

The data path asks step by step and `explain` asks for everything at once: the same functions either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ..errors import (
    BODY_TOO_LARGE,
    MISDIRECTED_REQUEST,
    NO_ROUTE,
    NOT_ALLOWED,
    RATE_LIMITED,
    TENANT_SUSPENDED,
    UNKNOWN_TENANT,
    Refusal,
)
from ..wire.request_head import RequestHead
from .certificates import ClientAuth, Secured, certificate_refusal
from .clients import Trail, TrustedProxies
from .cors import VARY_ORIGIN, CorsPolicy
from .forwarding import HTTP, HTTPS, Fields, balancers_scheme, forwarding_fields, scheme, values
from .limits import Limiter, Verdict, address_key
from .origins import Page, pages
from .routing import Route, RouteTable
from .tenants import Registry, Tenant, TenantPolicy, bare_host

# What changes nothing (RFC 9110 section 9.2.1). A WebSocket may, whose opening is a GET.
SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS"))
# RFC 9110 section 7.4.
_NOT_SECURED = MISDIRECTED_REQUEST.because("The target is an https URL, and the connection is a plain one.")
_ANOTHERS_ORIGIN = NOT_ALLOWED.because(
    "The Origin belongs to another tenant, whose pages may change nothing of this tenant."
)


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """What stays the same for all requests of one client with one host, origin and tenant header.

    `tenant` is a Refusal where the host or header names none, or the connection is not for that host. `fields` and
    `transit` are finished field lines for the answer and for the service; the first are made of `cors` and `hsts`,
    and `drops_hsts` says that a service's own goes no further, since there is the latter or the client does not speak
    TLS. `origins` are those of the tenant whose pages may read what is answered, besides the ones of all tenants, and
    `readable` says whether this page may; a `foreign` page is another tenant's. `address` is the client's, `key` the
    form of it that limits count under. What a trusted proxy said, and what a foreign page may not do, holds for one
    request: such a standing is not `lasting`.
    """

    policy: Policy
    host: bytes
    origin: bytes | None
    tenants: tuple[bytes, ...]
    tenant: Tenant | Refusal
    cors: bytes
    origins: frozenset[bytes]
    readable: bool
    foreign: bool
    hsts: bytes
    drops_hsts: bool
    fields: bytes
    transit: bytes
    address: bytes
    key: bytes
    lasting: bool

    @property
    def misplaced(self) -> bool:
        """Whether an https URL is asked for on a plain connection, which only its refusal answers: no preflight's
        answer does, nor that for the whole server (RFC 9110 section 7.4)."""
        return self.tenant is _NOT_SECURED

    def fits(self, policy: Policy, head: RequestHead) -> bool:
        """Whether this standing holds for another head of the same connection."""
        return (
            self.lasting
            and self.host == head.host
            and self.origin == head.origin
            and self.tenants == head.tenants
            and self.policy is policy
            and head.forwarded is None
            and not head.https
        )

    def whose(self, head: RequestHead) -> bytes:
        """The slug of the tenant whose request this is, also of a suspended one; b"" where there is none."""
        tenant = self.tenant
        if isinstance(tenant, Tenant):
            return tenant.wire
        if tenant.code != TENANT_SUSPENDED.code:
            return b""
        tenants = self.policy.tenants
        suspended = tenants.owner(bare_host(head.host)) or tenants.named(head.tenants)
        return b"" if suspended is None else suspended.wire


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """Every decision the gateway takes, as one immutable value; a reload makes another.

    `hsts` is the finished Strict-Transport-Security line, b"" for none. `forwarded_fields` (lower case) are those of
    trusted proxies' fields that go on to services as they came.
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

    def standing(self, head: RequestHead, peer: str, secured: Secured | None) -> Standing:
        """Who asks, from where, and as which tenant. `peer` is the address that the connection comes from, `secured`
        what TLS has established on it, None without TLS."""
        trusted = self.proxies.trusts(peer)
        forwarded = head.forwarded if head.forwarded and self.proxies.vouches(peer) else []
        trail = self._trail(peer, forwarded)
        address = trail.client
        client_field = self.client_auth.field(head.host, secured)
        if isinstance(client_field, Refusal):
            tenant: Tenant | Refusal = client_field
            client_field = b""
        else:
            tenant = self._tenant(head, None if trusted else secured)
        introduced = balancers_scheme(peer)
        secure = secured is not None or introduced == HTTPS
        if head.https and not (secure or self.proxies.vouches(peer)):
            tenant = _NOT_SECURED
        on_base = self.tenants.is_base(bare_host(head.host))
        foreign = head.origin is not None and isinstance(tenant, Tenant) and self._is_anothers(head.origin, tenant)
        if foreign and (head.method not in SAFE or head.upgrade is not None):
            tenant = _ANOTHERS_ORIGIN
        origins = frozenset() if on_base else self._origins(head, tenant)
        wire = address.encode("ascii")
        # A client that is no proxy of ours may say anything of itself: over its balancer's word nothing counts.
        if introduced is None or trusted:
            proto = scheme(forwarded, trail, secure=secure)
        else:
            proto = HTTPS if secure else HTTP
        cors = self.cors.answer_fields(head.origin, origins, bool(self.registry.origins))
        if on_base or not head.host:
            # The host of a head that could not be read may be any.
            cors = self._by_tenant(cors)
        # It is for TLS alone (RFC 6797 section 7.2), be that a trusted proxy's, whoever says it.
        hsts = self.hsts if proto == HTTPS else b""
        return Standing(
            policy=self,
            host=head.host,
            origin=head.origin,
            tenants=head.tenants,
            tenant=tenant,
            cors=cors,
            origins=origins,
            readable=self.cors.allows(head.origin, origins),
            foreign=foreign,
            hsts=hsts,
            drops_hsts=bool(self.hsts) or proto != HTTPS,
            fields=cors + hsts,
            transit=b"%b: %b\r\n%b%b"
            % (
                self.tenant_header,
                tenant.wire if isinstance(tenant, Tenant) else b"",
                forwarding_fields(head.host, trail, proto, forwarded, self.forwarded_fields),
                client_field,
            ),
            address=wire,
            key=address_key(address),
            lasting=not (forwarded or foreign or head.https),
        )

    def _tenant(self, head: RequestHead, secured: Secured | None) -> Tenant | Refusal:
        """`secured` is None also for a trusted proxy's TLS: it has one connection for all its clients' hosts."""
        if secured is not None:
            refusal = certificate_refusal(self.tenants, head.host, head.tenants, secured)
            if refusal is not None:
                return refusal
        return self.tenants.resolve(head.host, head.tenants)

    def _trail(self, peer: str, forwarded: Fields) -> Trail:
        if not forwarded:
            return Trail((peer,))
        return self.proxies.trail(peer, values(forwarded, b"x-forwarded-for"), values(forwarded, b"forwarded"))

    def _is_anothers(self, origin: bytes, tenant: Tenant) -> bool:
        """Whether any origin that the field names is other tenants' alone. Among too many to look at one may be."""
        named = pages(origin)
        return named is None or any(self._is_foreign(page, tenant) for page in named)

    def _is_foreign(self, page: Page, tenant: Tenant) -> bool:
        """Whether a page is other tenants' alone, by its host or since it is listed for them, be they suspended."""
        if self.cors.allows(page.origin, tenant.origins):
            return False
        owner = self.tenants.owner(page.host)
        return page.origin in self.registry.origins if owner is None else owner.wire != tenant.wire

    def _origins(self, head: RequestHead, tenant: Tenant | Refusal) -> frozenset[bytes]:
        """The origins of a host's tenant. Pages of a suspended one may read that it is."""
        owner = self.tenants.owner(bare_host(head.host)) if tenant is TENANT_SUSPENDED else tenant
        return owner.origins if isinstance(owner, Tenant) else frozenset()

    def _by_tenant(self, cors: bytes) -> bytes:
        """CORS field lines with what caches must know of the base domain: answers depend on the tenant's header."""
        if cors.endswith(VARY_ORIGIN):
            return b"%b, %b\r\n" % (cors[:-2], self.tenant_header)
        return b"%bVary: %b\r\n" % (cors, self.tenant_header)

    def preflight(self, head: RequestHead, origins: frozenset[bytes]) -> bytes | None:
        """The field lines of the answer to a preflight; None when this is none, or not from an allowed origin.

        `origins` are those of the tenant (`Standing.origins`): none on the bare base domain, where only the header
        could name one, which a preflight never carries. Public documents may be read from anywhere.
        """
        method = head.preflight_method
        if method is None or head.origin is None:
            return None
        if self.cors.allows(head.origin, origins):
            return self.cors.preflight(head.origin, method, head.preflight_headers, origins)
        route = self.routes.match(head.path)
        if route is None or not route.public:
            return None
        return self.cors.public_preflight(method, head.preflight_headers)

    def tenant_refusal(self, slug: bytes) -> Refusal | None:
        """Why an exchange that began as this tenant's, or as nobody's (b""), may not go on."""
        if not slug:
            return None
        tenant = self.registry.find(slug)
        if tenant is None:
            return UNKNOWN_TENANT
        return None if tenant.status == "active" else TENANT_SUSPENDED

    def body_refusal(self, head: RequestHead) -> Refusal | None:
        """The refusal of a body that says beforehand that it is too large."""
        if head.length is not None and head.length > self.max_body:
            return BODY_TOO_LARGE.because(f"The request's body is over the limit of {self.max_body} bytes.")
        return None

    def admit(self, tenant: Tenant, key: bytes, head: RequestHead, now: float) -> Verdict:
        """What the limits say of a request, which is charged."""
        return self.limiter.admit(tenant.wire, key, head.method, head.path, now, head.plain)

    def route(self, path: bytes) -> Route | Refusal:
        """The route of a path."""
        return self.routes.match(path) or NO_ROUTE


@lru_cache(maxsize=256)
def limit_refusal(name: str) -> Refusal:
    """The 429 of the limit of this name; its fields go out with every answer of the exchange."""
    return RATE_LIMITED.because(f'The limit "{name}" is used up; Retry-After says when to try again.')


def charges_refusal(refusal: Refusal) -> bool:
    """Whether the limit on refusals is charged: a 429 is charged to its own limit, and what is the fault of a service
    or of the gateway to none."""
    return refusal.status != 429 and refusal.fault == "client"

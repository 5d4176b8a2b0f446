"""What is the same for all requests of one client with one host, origin and tenant header.

A connection keeps its context, so that the policies need not be asked again for each request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import MISDIRECTED_REQUEST, NOT_ALLOWED, TENANT_SUSPENDED, Refusal
from ..policy.certificates import TlsInfo, certificate_refusal
from ..policy.clients import NOWHERE, ForwardedChain, NetworkSet
from ..policy.cors import VARY_ORIGIN
from ..policy.decision import Policy
from ..policy.limit_keys import address_key
from ..policy.limit_rules import RateOverride
from ..policy.origins import Page, pages, wildcard_of
from ..policy.tenants import NO_LIMITS, Tenant, bare_host
from ..wire.request_head import RequestHead
from .forwarding import HTTPS, Fields, balancers_scheme, context_fields, forwarding_fields, scheme, values

if TYPE_CHECKING:
    from ..policy.signed_context import SignedField

# What changes nothing (RFC 9110 section 9.2.1). A WebSocket may, whose opening is a GET.
SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS"))
# RFC 9110 section 7.4.
_NOT_SECURED = MISDIRECTED_REQUEST.because("The target is an https URL, and the connection is a plain one.")
_CLIENT_FIELDS = (b"x-forwarded-for", b"forwarded", b"x-real-ip")
_UNKNOWN = NOWHERE.encode("ascii")
_ANOTHERS_ORIGIN = NOT_ALLOWED.because(
    "The Origin belongs to another tenant, whose pages may change nothing of this tenant."
)


@dataclass(frozen=True, slots=True, eq=False)
class RequestContext:
    """What is the same for all requests of one client with one host, origin and tenant header.

    `tenant` is a Refusal where neither names one, or the connection is not for that host. If that is because the
    tenant is suspended, and nothing else speaks against the request, it is `suspended`. `fields` are finished field
    lines for the response, made of `cors` and `hsts`; `service_fields` are those for the service, without the
    `signed` one. `drops_hsts`: a service's own HSTS goes no further, since the gateway has one or the client speaks
    no TLS. `origins` has the page's origin if it may read the response, and `readable` says whether this page may; a
    `foreign` page is another tenant's. `address` is the client's, `key` the form of it that limits count under; it is
    `certain` unless a header names a client that nobody vouches for, or that cannot be read, or a trusted proxy names
    none. `trusted`: the connection comes from such a proxy. What a trusted proxy said, and what a foreign page may
    not do, holds for one request: such a context is not `lasting`. `tls` is the version of TLS on the connection, b""
    without. `limits` are the figures that the tenant has in place of the own ones of limits.
    """

    policy: Policy
    host: bytes
    origin: bytes | None
    tenants: tuple[bytes, ...]
    tenant: Tenant | Refusal
    suspended: Tenant | None
    cors: bytes
    origins: frozenset[bytes]
    readable: bool
    foreign: bool
    hsts: bytes
    drops_hsts: bool
    fields: bytes
    service_fields: bytes
    signed: SignedField | None
    address: bytes
    key: bytes
    limits: Mapping[str, RateOverride]
    tls: bytes
    certain: bool
    trusted: bool
    lasting: bool

    @property
    def owner(self) -> Tenant | None:
        """The tenant whose requests may be served, at some paths if it is suspended; None if there is none."""
        return self.tenant if isinstance(self.tenant, Tenant) else self.suspended

    @property
    def misplaced(self) -> bool:
        """Whether an https URL is asked for on a plain connection, which only its refusal answers: no preflight's
        answer does, nor that for the whole server (RFC 9110 section 7.4)."""
        return self.tenant is _NOT_SECURED

    def fits(self, policy: Policy, head: RequestHead) -> bool:
        """Whether this context holds for another head of the same connection."""
        return (
            self.lasting
            and self.host == head.host
            and self.origin == head.origin
            and self.tenants == head.tenants
            and self.policy is policy
            and head.forwarded is None
            and not head.https
        )

    def comes_from(self, networks: NetworkSet) -> bool:
        """Whether the client's address is certain, and lies in one of these networks."""
        return self.certain and networks.covers(self.address.decode("ascii"))

    def fields_for_service(self) -> bytes:
        """The finished field lines that a service gets, X-Koder-Context with them."""
        return self.service_fields if self.signed is None else self.service_fields + self.signed.line()

    def whose(self, head: RequestHead) -> bytes:
        """The slug of the tenant whose request this is, also of a suspended one; b"" where there is none."""
        tenant = self.tenant
        if isinstance(tenant, Tenant):
            return tenant.wire
        if tenant.code != TENANT_SUSPENDED.code:
            return b""
        suspended = self.suspended or _suspended(self.policy, head)
        return b"" if suspended is None else suspended.wire


def request_context(policy: Policy, head: RequestHead, peer: str, secured: TlsInfo | None) -> RequestContext:
    """Who asks, from where, and as which tenant. `peer` is the address that the connection comes from, `secured`
    what TLS has established on it, None without TLS."""
    trusted = policy.proxies.trusts(peer)
    forwarded = head.forwarded if head.forwarded and policy.proxies.vouches(peer) else []
    chain = _chain(policy, peer, forwarded)
    address = chain.client
    certain = _is_certain(policy, head, peer, forwarded, chain)
    tenant, certificate = _tenant(policy, head, secured, trusted=trusted)
    introduced = balancers_scheme(peer)
    secure = secured is not None or introduced == HTTPS
    if head.https and not (secure or policy.proxies.vouches(peer)):
        tenant = _NOT_SECURED
    on_base = policy.tenants.is_base(bare_host(head.host))
    suspended = _suspended(policy, head) if tenant is TENANT_SUSPENDED else None
    owner = tenant if isinstance(tenant, Tenant) else suspended
    listed = frozenset() if on_base or owner is None else owner.origins
    readable = policy.allows(head.origin, listed, owner)
    origins = frozenset((head.origin,)) if readable and head.origin is not None else frozenset()
    foreign = head.origin is not None and owner is not None and _is_anothers(policy, head.origin, owner)
    if foreign and (head.method not in SAFE or head.upgrade is not None):
        # A suspended tenant's own refusal says more.
        tenant, owner, suspended = _ANOTHERS_ORIGIN if suspended is None else tenant, None, None
    wire = address.encode("ascii")
    # A client that is no proxy of ours may say anything of itself: over its balancer's word nothing counts.
    believed = forwarded if introduced is None or trusted else ()
    proto = scheme(believed, chain if believed else ForwardedChain((peer,)), secure=secure)
    cors = _cors_fields(policy, head, origins, on_base=on_base)
    # It is for TLS alone (RFC 6797 section 7.2), be that a trusted proxy's, whoever says it.
    hsts = policy.hsts if proto == HTTPS else b""
    return RequestContext(
        policy=policy,
        host=head.host,
        origin=head.origin,
        tenants=head.tenants,
        tenant=tenant,
        suspended=suspended,
        cors=cors,
        origins=origins,
        readable=readable,
        foreign=foreign,
        hsts=hsts,
        drops_hsts=bool(policy.hsts) or proto != HTTPS,
        fields=cors + hsts,
        service_fields=context_fields(
            (policy.tenant_header, b"" if owner is None else owner.wire),
            forwarding_fields(head.host, chain, proto, forwarded, policy.forwarded_fields),
            certificate,
        ),
        # A proxy's own address may mean more to a service than its client may do.
        signed=_signed(policy, head, owner, wire if certain else _UNKNOWN),
        address=wire,
        key=address_key(address),
        limits=NO_LIMITS if owner is None else owner.limits,
        tls=b"" if secured is None else secured.version,
        certain=certain,
        trusted=trusted,
        lasting=(certain or head.forwarded is None) and not (forwarded or foreign or head.https),
    )


def _tenant(
    policy: Policy, head: RequestHead, secured: TlsInfo | None, *, trusted: bool
) -> tuple[Tenant | Refusal, bytes]:
    """The tenant, and the client's certificate for its service."""
    certificate = policy.client_auth.certificate(head.host, secured)
    if isinstance(certificate, Refusal):
        return certificate, b""
    # A trusted proxy has one connection for all its clients' hosts.
    if secured is not None and not trusted:
        refusal = certificate_refusal(policy.tenants, head.host, head.tenants, secured)
        if refusal is not None:
            return refusal, certificate
    return policy.tenants.resolve(head.host, head.tenants), certificate


def _signed(policy: Policy, head: RequestHead, owner: Tenant | None, address: bytes) -> SignedField | None:
    if policy.signer is None or owner is None:
        return None
    return policy.signer.field(address, owner.wire, bare_host(head.host))


def _chain(policy: Policy, peer: str, forwarded: Fields) -> ForwardedChain:
    if not forwarded:
        return ForwardedChain((peer,))
    return policy.proxies.chain(peer, values(forwarded, b"x-forwarded-for"), values(forwarded, b"forwarded"))


def _is_certain(policy: Policy, head: RequestHead, peer: str, forwarded: Fields, chain: ForwardedChain) -> bool:
    """Whether the chain's client is the one that asks, and not a proxy which serves others."""
    address = chain.client
    hidden = policy.proxies.hides(peer, address)
    return chain.certain and not hidden and not _is_a_proxys(head.forwarded or (), forwarded, address)


def _is_a_proxys(sent: Fields, believed: Fields, address: str) -> bool:
    """Whether the address may be that of a proxy which serves others: it has sent headers that name a client, and
    either is not trusted for them, or names the client in a way that is not read."""
    if not sent:
        return False
    named = any(value for name in _CLIENT_FIELDS for value in values(sent, name))
    if not believed:
        return named
    read = any(values(believed, b"x-forwarded-for")) or any(values(believed, b"forwarded"))
    return not read and any(value != address.encode("ascii") for value in values(believed, b"x-real-ip") if value)


def _is_anothers(policy: Policy, origin: bytes, tenant: Tenant) -> bool:
    """Whether any origin that the field names is other tenants' alone. Among too many to look at one may be."""
    named = pages(origin)
    return named is None or any(_is_foreign(policy, page, tenant) for page in named)


def _is_foreign(policy: Policy, page: Page, tenant: Tenant) -> bool:
    """Whether a page is other tenants' alone, by its host or since it is listed for them, be they suspended."""
    if policy.allows(page.origin, tenant.origins, tenant):
        return False
    owner = policy.tenants.owner(page.host)
    if owner is not None:
        return owner.wire != tenant.wire
    return page.origin in policy.registry.origins or wildcard_of(page.origin)[0] in policy.registry.origins


def _suspended(policy: Policy, head: RequestHead) -> Tenant | None:
    """The tenant of a request that is refused because it is suspended."""
    tenants = policy.tenants
    return tenants.owner(bare_host(head.host)) or tenants.named(head.tenants)


def _cors_fields(policy: Policy, head: RequestHead, origins: frozenset[bytes], *, on_base: bool) -> bytes:
    """The CORS field lines, with what caches must know of the base domain: answers depend on the tenant's header."""
    cors = policy.cors.answer_fields(head.origin, origins, bool(policy.registry.origins))
    # The host of a head that could not be read may be any.
    if not on_base and head.host:
        return cors
    if cors.endswith(VARY_ORIGIN):
        return b"%b, %b\r\n" % (cors[:-2], policy.tenant_header)
    return b"%bVary: %b\r\n" % (cors, policy.tenant_header)

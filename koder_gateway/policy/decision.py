"""The whole answer for one request, put together from the policies in the order in which the gateway asks them.

The data path asks step by step and `explain` asks for everything at once: the same functions either way.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..errors import BODY_TOO_LARGE, NO_ROUTE, RATE_LIMITED, Refusal
from ..wire.request import RequestHead
from .certificates import ClientAuth, Secured, certificate_refusal
from .clients import Trail, TrustedProxies, node_of
from .cors import CorsPolicy
from .limits import Limiter, Verdict, address_key
from .routing import Route, RouteTable
from .tenants import Registry, Tenant, TenantPolicy

# Of what trusted proxies say, the fields that the gateway continues; the others go on as they came.
_OURS = frozenset((b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"x-real-ip"))


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """What stays the same for all requests of one client with one host, origin and tenant header.

    `tenant` is a Refusal where the host or header names none, or the connection is not for that host. `fields` and
    `transit` are finished field lines for the answer and for the service; the first are made of `cors` and `hsts`,
    and `own_hsts` says whether there is the latter. `address` is the client's, `key` the form of it that limits
    count under. What a trusted proxy said holds for its one request: such a standing is not `lasting`.
    """

    policy: Policy
    host: bytes
    origin: bytes | None
    tenants: tuple[bytes, ...]
    tenant: Tenant | Refusal
    cors: bytes
    hsts: bytes
    own_hsts: bool
    fields: bytes
    transit: bytes
    address: bytes
    key: bytes
    lasting: bool

    def fits(self, policy: Policy, head: RequestHead) -> bool:
        """Whether this standing holds for another head of the same connection."""
        return (
            self.lasting
            and self.host == head.host
            and self.origin == head.origin
            and self.tenants == head.tenants
            and self.policy is policy
            and head.forwarded is None
        )


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """Every decision the gateway takes, as one immutable value; a reload makes another.

    `hsts` is the finished Strict-Transport-Security line, b"" for none.
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

    def standing(self, head: RequestHead, peer: str, secured: Secured | None) -> Standing:
        """Who asks, from where, and as which tenant. `peer` is the address that the connection comes from, `secured`
        what TLS has established on it, None without TLS."""
        trusted = self.proxies.trusts(peer)
        forwarded = head.forwarded if trusted and head.forwarded else []
        trail = self._trail(peer, forwarded)
        address = trail.client
        client_field = self.client_auth.field(head.host, secured)
        if isinstance(client_field, Refusal):
            tenant: Tenant | Refusal = client_field
            client_field = b""
        else:
            tenant = self._tenant(head, None if trusted else secured)
        wire = address.encode("ascii")
        proto = self._proto(secured, forwarded, trail.proto)
        cors = self.cors_fields(head.origin, tenant)
        # Browsers take it from TLS alone (RFC 6797 section 7.2), be that a trusted proxy's.
        hsts = self.hsts if proto == b"https" else b""
        return Standing(
            policy=self,
            host=head.host,
            origin=head.origin,
            tenants=head.tenants,
            tenant=tenant,
            cors=cors,
            hsts=hsts,
            own_hsts=bool(hsts),
            fields=cors + hsts,
            transit=self._transit(head, tenant, trail, proto, secured, forwarded) + client_field,
            address=wire,
            key=address_key(address),
            lasting=not forwarded,
        )

    def _tenant(self, head: RequestHead, secured: Secured | None) -> Tenant | Refusal:
        """`secured` is None also for a trusted proxy's TLS: it has one connection for all its clients' hosts."""
        if secured is not None:
            refusal = certificate_refusal(self.tenants, head.host, head.tenants, secured)
            if refusal is not None:
                return refusal
        return self.tenants.resolve(head.host, head.tenants)

    @staticmethod
    def _proto(secured: Secured | None, forwarded: Sequence[tuple[bytes, bytes]], element: bytes) -> bytes:
        """What the client speaks: with the gateway, or with the trusted proxy that says so, in X-Forwarded-Proto or
        the client's `element` of Forwarded. Where these two differ it is the one that promises nothing."""
        # Schemes have no case (RFC 3986 section 3.1).
        plain = b", ".join(filter(None, _values(forwarded, b"x-forwarded-proto"))).lower()
        if plain and element and plain != element:
            return b"http"
        said = plain or element
        if said in (b"http", b"https"):
            return said
        return b"http" if secured is None else b"https"

    def _trail(self, peer: str, forwarded: Sequence[tuple[bytes, bytes]]) -> Trail:
        if not forwarded:
            return Trail((peer,), ())
        return self.proxies.trail(peer, _values(forwarded, b"x-forwarded-for"), _values(forwarded, b"forwarded"))

    def cors_fields(self, origin: bytes | None, tenant: Tenant | Refusal) -> bytes:
        """The CORS field lines of an answer."""
        allowed = tenant.origins if isinstance(tenant, Tenant) else frozenset()
        return self.cors.answer_fields(origin, allowed, bool(self.registry.origins))

    def preflight(self, head: RequestHead, tenant: Tenant | Refusal) -> bytes | None:
        """The field lines of the answer to a preflight; None when this is none, or not from an allowed origin.

        A preflight never carries the tenant header, so where only the header could name the tenant, an origin
        of any tenant may ask: what it learns is nothing, and the request itself is judged by its own tenant.
        """
        method = head.preflight_method
        if method is None or head.origin is None:
            return None
        allowed: Container[bytes] = tenant.origins if isinstance(tenant, Tenant) else frozenset()
        if isinstance(tenant, Refusal) and tenant.code == "tenant_required":
            allowed = self.registry.origins
        return self.cors.preflight(head.origin, method, head.preflight_headers, allowed)

    def body_refusal(self, head: RequestHead) -> Refusal | None:
        """The refusal of a body that says beforehand that it is too large."""
        if head.length is not None and head.length > self.max_body:
            return BODY_TOO_LARGE.because(f"The request's body is over the limit of {self.max_body} bytes.")
        return None

    def admit(self, tenant: Tenant, key: bytes, head: RequestHead, now: float) -> Verdict:
        """What the limits say of a request, which is charged."""
        return self.limiter.admit(tenant.wire, key, head.method, head.path, now)

    def route(self, path: bytes) -> Route | Refusal:
        """The route of a path."""
        return self.routes.match(path) or NO_ROUTE

    def _transit(
        self,
        head: RequestHead,
        tenant: Tenant | Refusal,
        trail: Trail,
        proto: bytes,
        secured: Secured | None,
        forwarded: Sequence[tuple[bytes, bytes]],
    ) -> bytes:
        """The field lines that the gateway sets for a service (RFC 7239, RFC 9110 section 7.6.3).

        X-Real-IP, where a trusted proxy sends it, names the client that the other two name: whichever field a service
        asks, it is the one that limits and logs see. Nothing is believed for what stands in it. `proto` is what the
        client speaks; where its element of Forwarded says something else, only the address in that goes on.
        """
        own = b'for=%b;host="%b";proto=%b' % (
            node_of(trail.hops[-1]),
            head.host,
            b"http" if secured is None else b"https",
        )
        elements = trail.elements
        if trail.proto not in (b"", proto):
            elements = (b"for=" + node_of(trail.client), *elements[1:])
        said_host = b", ".join(_values(forwarded, b"x-forwarded-host"))
        real = b"X-Real-IP: %b\r\n" % trail.client.encode("ascii") if _values(forwarded, b"x-real-ip") else b""
        return b"".join(
            (
                b"%b: %b\r\n" % (self.tenant_header, tenant.wire if isinstance(tenant, Tenant) else b""),
                b"X-Forwarded-For: %b\r\n" % ", ".join(trail.hops).encode("ascii"),
                b"X-Forwarded-Proto: %b\r\n" % proto,
                b"X-Forwarded-Host: %b\r\n" % (said_host or head.host),
                b"Forwarded: %b\r\n" % b", ".join((*elements, own)),
                b"Via: 1.1 koder-gateway\r\n",
                real,
                *(b"%b: %b\r\n" % (name, value) for name, value in forwarded if name.lower() not in _OURS),
            )
        )


@lru_cache(maxsize=256)
def limit_refusal(name: str) -> Refusal:
    """The 429 of the limit of this name; its fields go out with every answer of the exchange."""
    return RATE_LIMITED.because(f'The limit "{name}" is used up; Retry-After says when to come back.')


def _values(forwarded: Sequence[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for each, value in forwarded if each.lower() == name]

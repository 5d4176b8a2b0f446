"""Tenants: which tenant a request belongs to, by its Host and tenant header alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec.structs import force_setattr

from ..errors import (
    MISDIRECTED_REQUEST,
    TENANT_CONFLICT,
    TENANT_REQUIRED,
    TENANT_SUSPENDED,
    UNKNOWN_TENANT,
    Refusal,
)
from .limit_rules import RateOverride
from .sharded_index import MASK, ShardedIndex, no_pause
from .shared_figures import SharedFigures

_SLUG = re.compile(rb"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_OCTET = rb"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(_OCTET + rb"(?:\." + _OCTET + rb"){3}")
# How many tenants a registry caches: enough for every busy one, few compared with a flood of names.
_REMEMBERED = 16_384
_PLACES = _REMEMBERED - 1


def is_slug(name: bytes) -> bool:
    """Whether a name is a tenant's slug: a lower-case DNS label (RFC 1123 section 2.1)."""
    return _SLUG.fullmatch(name) is not None


def normal_domain(domain: str) -> bytes:
    """The form in which domains are compared: lower case, without one trailing dot."""
    return domain.lower().removesuffix(".").encode("ascii")


# Python creates a new empty frozenset each time, and a mapping has to be made.
_NO_ORIGINS: Final[frozenset[bytes]] = frozenset()
NO_LIMITS: Final[Mapping[str, RateOverride]] = MappingProxyType({})


# Objects without cycles need no garbage collection.
class Tenant(msgspec.Struct, frozen=True, gc=False):
    """One tenant of the registry; whoever read it has validated its domains, origins and slug.

    `limits` are the figures that it has in place of those of the limits with these names. `wire` is the slug and
    `origins` are the CORS origins in the form of header values; both are derived from the rest.
    """

    slug: str
    domains: tuple[str, ...] = ()
    status: Literal["active", "suspended"] = "active"
    cors_origins: tuple[str, ...] = ()
    limits: Mapping[str, RateOverride] = NO_LIMITS
    wire: bytes = b""
    origins: frozenset[bytes] = _NO_ORIGINS

    def __post_init__(self) -> None:
        """Compute the derived attributes."""
        if self.wire:
            return
        force_setattr(self, "wire", self.slug.encode("ascii"))
        if self.cors_origins:
            force_setattr(self, "origins", frozenset(origin.encode("ascii") for origin in self.cors_origins))


# A tenant as it is kept, beside its slug: of nearly all there is nothing to say, and of most others a domain. Origins
# are without their usual scheme, and limits are a number of `_FIGURES` where these have room.
class _Record(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    domains: tuple[str, ...] = ()
    suspended: bool = False
    cors_origins: tuple[str, ...] = ()
    limits: int | dict[str, RateOverride] = 0


_PLAIN: Final = b""
_USUAL: Final = "https://"
_FIGURES: Final = SharedFigures()
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Record).decode


def packed(tenant: Tenant) -> bytes:
    """A tenant as bytes, without its slug: a million of them need a fraction of the memory."""
    if tenant.domains or tenant.status != "active" or tenant.cors_origins or tenant.limits:
        limits: int | dict[str, RateOverride] = 0
        if tenant.limits:
            limits = _FIGURES.number(tenant.limits) or dict(tenant.limits)
        origins = tuple(origin.removeprefix(_USUAL) for origin in tenant.cors_origins)
        return _encode(_Record(tenant.domains, tenant.status != "active", origins, limits))
    return _PLAIN


def unpacked(slug: bytes, record: bytes) -> Tenant:
    """The tenant with this slug that `packed` has made these bytes of."""
    name = slug.decode("ascii")
    if not record:
        return Tenant(name, (), "active", (), NO_LIMITS, slug)
    read = _decode(record)
    limits: Mapping[str, RateOverride] = NO_LIMITS
    if read.limits:
        limits = _FIGURES[read.limits] if isinstance(read.limits, int) else read.limits
    listed = tuple(origin if "://" in origin else _USUAL + origin for origin in read.cors_origins)
    origins = frozenset(map(str.encode, listed)) if listed else _NO_ORIGINS
    status: Literal["active", "suspended"] = "suspended" if read.suspended else "active"
    return Tenant(name, read.domains, status, listed, limits, slug, origins)


@lru_cache(maxsize=_REMEMBERED)
def _unregistered(slug: bytes) -> Tenant:
    """The tenant of a well-formed slug if there is no registry."""
    return Tenant(slug.decode("ascii"))


class TenantIndices(NamedTuple):
    """The indices of a registry: tenants (`packed`) by slug, slugs by custom domain, and for each CORS origin how
    many tenants have it."""

    tenants: ShardedIndex[bytes]
    domains: ShardedIndex[bytes]
    origins: ShardedIndex[int]


class Registry:
    """Every known tenant, immutable: a refresh builds a new one. Iterating over it yields all of them.

    With None it is open: every well-formed slug is an active tenant, and the services decide. `origins` are the CORS
    origins of all tenants together. `rest` is called between any two tenants while it is built. A list that may
    contradict itself is read by a `RegistryBuilder`.
    """

    __slots__ = ("__weakref__", "_domains", "_recent", "_tenants", "indices", "is_open", "origins")

    def __init__(self, tenants: Iterable[Tenant] | None, rest: Callable[[], object] = no_pause) -> None:
        self.is_open = tenants is None
        self._index(TenantIndices(ShardedIndex(), ShardedIndex(), ShardedIndex()))
        # Tenants that were looked up lately, unpacked, each at a place that its slug gives.
        self._recent: list[Tenant | None] = [None] * _REMEMBERED
        for tenant in tenants or ():
            rest()
            index_tenant(self.indices, tenant)

    @classmethod
    def indexed(cls, indices: TenantIndices) -> Registry:
        """The registry of these indices, which nobody changes any more."""
        registry = cls(())
        registry._index(indices)
        return registry

    def _index(self, indices: TenantIndices) -> None:
        self.indices = indices
        self.origins = indices.origins
        # The parts, since a look-up is short enough for a call to count.
        self._tenants, self._domains = indices.tenants.parts, indices.domains.parts

    def __len__(self) -> int:
        return len(self.indices.tenants)

    def __iter__(self) -> Iterator[Tenant]:
        for part in self.indices.tenants.parts:
            for slug, record in part.items():
                yield unpacked(slug, record)

    def find(self, slug: bytes) -> Tenant | None:
        """The tenant with this slug."""
        code = hash(slug)
        tenant = self._recent[code & _PLACES]
        if tenant is not None and tenant.wire == slug:
            return tenant
        if self.is_open:
            return _unregistered(slug) if _SLUG.fullmatch(slug) else None
        record = self._tenants[code & MASK].get(slug)
        if record is None:
            return None
        tenant = self._recent[code & _PLACES] = unpacked(slug, record)
        return tenant

    def at(self, domain: bytes) -> Tenant | None:
        """The tenant with this custom domain, given in lower case without port and trailing dot."""
        slug = self._domains[hash(domain) & MASK].get(domain)
        return None if slug is None else self.find(slug)


def index_tenant(indices: TenantIndices, tenant: Tenant) -> None:
    """Add a tenant to the indices; its domains are its own from now on."""
    slug = tenant.wire
    indices.tenants.put(slug, packed(tenant))
    for domain in tenant.domains:
        indices.domains.put(normal_domain(domain), slug)
    for origin in tenant.origins:
        indices.origins.put(origin, (indices.origins.get(origin) or 0) + 1)


def bare_host(host: bytes) -> bytes:
    """A Host value in lower case without port and one trailing dot; an IPv6 literal keeps its brackets."""
    name = host.lower()
    if name.startswith(b"["):
        return name[: name.find(b"]") + 1]
    if b":" in name:
        name = name[: name.find(b":")]
    return name.removesuffix(b".")


class TenantPolicy:
    """The order in which a request's tenant is looked up in one registry.

    `local_hosts` treats localhost and IP addresses as the bare base domain, for a demo. `base` is that domain in the
    form in which names are compared; `mark` is a different object for each policy, for those who cache its answers.
    """

    __slots__ = (
        "_conflict",
        "_default",
        "_local_hosts",
        "_misdirected",
        "_registry",
        "_required",
        "_suffix",
        "_unknown_host",
        "_unknown_name",
        "base",
        "mark",
    )

    def __init__(
        self, base_domain: str, header: str, default: str, registry: Registry, local_hosts: bool = False
    ) -> None:
        self.base = normal_domain(base_domain)
        self.mark = object()
        self._suffix = b"." + self.base
        self._default = default.encode("ascii")
        self._registry = registry
        self._local_hosts = local_hosts
        # Refusals mention only what every client may know: the base domain and the header, never a tenant.
        self._conflict = TENANT_CONFLICT.because(f"The {header} header contradicts the host or itself.")
        self._required = TENANT_REQUIRED.because(
            f"This host needs a tenant: send the {header} header or use <tenant>.{base_domain}."
        )
        self._unknown_host = UNKNOWN_TENANT.because("There is no tenant at this host.")
        self._unknown_name = UNKNOWN_TENANT.because(f"The {header} header names no tenant.")
        self._misdirected = MISDIRECTED_REQUEST.because(
            f"This host is not served here: it is neither {base_domain} nor a tenant's."
        )

    def resolve(self, host: bytes, named: Sequence[bytes]) -> Tenant | Refusal:
        """The tenant of a request, or the refusal if there is none.

        `host` is the Host value as the client sent it, known to be well-formed; `named` are the values of the tenant
        header without surrounding whitespace, usually none.
        """
        name = bare_host(host)
        registry = self._registry
        tenant = registry.at(name)
        if tenant is None:
            if not name.endswith(self._suffix):
                if self.is_base(name):
                    return self._resolve_named(named)
                return self._misdirected
            slug = name[: -len(self._suffix)]
            tenant = registry.find(slug)
            if tenant is None:
                return self._unknown_host if is_slug(slug) else self._misdirected
        if named:
            for value in named:
                if value and value != tenant.wire:
                    return self._conflict
        return tenant if tenant.status == "active" else TENANT_SUSPENDED

    def host_refusal(self, host: bytes) -> Refusal | None:
        """The refusal of a Host that the gateway does not serve; None if it is the base domain or a tenant's,
        whatever its status."""
        name = bare_host(host)
        registry = self._registry
        if registry.at(name) is not None or self.is_base(name):
            return None
        if not name.endswith(self._suffix):
            return self._misdirected
        slug = name[: -len(self._suffix)]
        if registry.find(slug) is not None:
            return None
        return self._unknown_host if is_slug(slug) else self._misdirected

    def _resolve_named(self, named: Sequence[bytes]) -> Tenant | Refusal:
        """The tenant on the bare base domain: the header's, else the default."""
        values = {value for value in named if value}
        if len(values) > 1:
            return self._conflict
        slug = values.pop() if values else self._default
        if not slug:
            return self._required
        tenant = self._registry.find(slug)
        if tenant is None:
            return self._unknown_name if named else self._unknown_host
        return tenant if tenant.status == "active" else TENANT_SUSPENDED

    def is_base(self, name: bytes) -> bool:
        """Whether a bare host is the base domain, or is treated as it."""
        return name == self.base or (self._local_hosts and _is_local(name))

    def owner(self, name: bytes) -> Tenant | None:
        """The tenant with this bare host as a custom domain or below the base domain, active or not."""
        tenant = self._registry.at(name)
        if tenant is None and name.endswith(self._suffix):
            tenant = self._registry.find(name[: -len(self._suffix)])
        return tenant

    def named(self, named: Sequence[bytes]) -> Tenant | None:
        """The tenant that the header names on the base domain, or the default, active or not."""
        values = {value for value in named if value} or {self._default}
        return self._registry.find(values.pop()) if len(values) == 1 else None


def _is_local(name: bytes) -> bool:
    """Whether a bare host is localhost or an IP address."""
    return name == b"localhost" or name.startswith(b"[") or _IPV4.fullmatch(name) is not None

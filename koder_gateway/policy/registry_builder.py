"""Makes a registry of a list that may contradict itself: nobody gets what is another's.

Slugs and domains are given once. Of a slug with two different entries neither counts: the tenant stays as it was in
the registry before, and without one there is none. A domain that several tenants claim stays with the one that had
it; if none of them had, nobody gets it until only one claims it. So an entry that is added to a list takes nothing
away from a tenant that is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from itertools import islice
from typing import Final

from msgspec.structs import replace

from .origins import covers_tenants
from .sharded_index import ShardedIndex, no_pause
from .tenants import Registry, Tenant, TenantIndices, index_tenant, normal_domain, packed, unpacked

# How many claimants of one domain a message names.
_NAMED: Final = 5


class RegistryBuilder:
    """Takes the entries of one list, and then makes the registry; each is used once.

    `before` is the registry in force, None if none is known. `changes`: the entries are changes to it, and all other
    tenants stay. `rest` is called between any two entries.
    """

    def __init__(
        self,
        base_domain: str,
        before: Registry | None = None,
        rest: Callable[[], object] = no_pause,
        *,
        changes: bool = False,
    ) -> None:
        self._base_domain = base_domain
        self._base = normal_domain(base_domain)
        self._before = Registry(()) if before is None or before.is_open else before
        self._rest = rest
        if changes:
            tenants, domains, origins = self._before.indices
            self._indices = TenantIndices(tenants.copy(), domains.copy(), origins.copy())
        else:
            self._indices = TenantIndices(ShardedIndex(), ShardedIndex(), ShardedIndex())
        # Slugs with two entries; those of entries that were left out; and domains that several entries claim, or one
        # that was left out, with their slugs in order.
        self._twice: set[bytes] = set()
        self._faulty: set[bytes] = set()
        self._claims: dict[bytes, dict[bytes, None]] = {}
        # After `registry`: the slugs of all entries that contradict each other.
        self.contested: set[bytes] = set()

    def add(self, tenant: Tenant) -> str | None:
        """Take an entry, or say in one sentence why it is left out."""
        self._rest()
        indices, slug = self._indices, tenant.wire
        for domain in tenant.domains:
            name = normal_domain(domain)
            if name == self._base or name.endswith(b"." + self._base):
                return (
                    f'the domain "{domain}" of tenant "{tenant.slug}" lies within the base domain '
                    f'"{self._base_domain}", whose names belong to slugs; a custom domain must lie outside it'
                )
        for origin in tenant.cors_origins:
            if covers_tenants(origin, self._base_domain):
                return (
                    f'the origin "{origin}" of tenant "{tenant.slug}" would cover the hosts of all tenants, which no'
                    " wildcard may; list each origin by itself"
                )
        present = indices.tenants.get(slug)
        if present is not None or slug in self._faulty:
            if present != packed(tenant):
                self._twice.add(slug)
            return f'the slug "{tenant.slug}" is given to two tenants; each needs its own'
        self._put(tenant)
        return None

    def add_faulty(self, slug: bytes, domains: Iterable[str]) -> None:
        """Take what an entry claims that is left out for its faults: another one does not get it for that."""
        if slug in self._indices.tenants:
            self._twice.add(slug)
        self._faulty.add(slug)
        for domain in domains:
            self._claim(normal_domain(domain), slug, certain=False)

    def _put(self, tenant: Tenant) -> None:
        for domain in tenant.domains:
            self._claim(normal_domain(domain), tenant.wire, certain=True)
        index_tenant(self._indices, tenant)

    def _claim(self, name: bytes, slug: bytes, *, certain: bool) -> None:
        """Remember who claims a domain, unless it is a single tenant's for certain."""
        claimants = self._claims.get(name)
        owner = self._indices.domains.get(name) if claimants is None else None
        if claimants is None and owner is None and certain:
            return
        if claimants is None:
            claimants = self._claims[name] = {} if owner is None else {owner: None}
        claimants[slug] = None

    def remove(self, slug: bytes) -> None:
        """Forget a tenant, its domains and its origins."""
        record = self._indices.tenants.get(slug)
        if record is None:
            return
        tenant = unpacked(slug, record)
        self._indices.tenants.drop(slug)
        for domain in tenant.domains:
            name = normal_domain(domain)
            claimants = self._claims.get(name)
            if claimants is not None:
                claimants.pop(slug, None)
            elif self._indices.domains.get(name) == slug:
                self._indices.domains.drop(name)
        for origin in tenant.origins:
            count = (self._indices.origins.get(origin) or 0) - 1
            if count > 0:
                self._indices.origins.put(origin, count)
            else:
                self._indices.origins.drop(origin)

    def registry(self, tell: Callable[[str], object]) -> Registry:
        """The registry. `tell` gets a sentence for each contradiction that has been resolved."""
        self.contested = self._twice | self._faulty
        for slug in self._twice:
            self._rest()
            self.remove(slug)
            if slug in self._before.indices.tenants:
                self._put(unpacked(slug, self._before.indices.tenants.get(slug) or b""))
                tell(f'the tenant "{slug.decode()}" stays as it was, since its slug is given to two tenants')
            else:
                tell(f'there is no tenant "{slug.decode()}", since its slug is given to two tenants')
        lost: dict[bytes, set[bytes]] = {}
        for name, claimants in self._claims.items():
            self._rest()
            owner = self._owner(name, claimants)
            if owner is None:
                self._indices.domains.drop(name)
            else:
                self._indices.domains.put(name, owner)
            for slug in claimants:
                if slug != owner and slug in self._indices.tenants:
                    lost.setdefault(slug, set()).add(name)
            if len(claimants) > 1:
                self.contested.update(claimants)
                tell(_contest(name, claimants, owner))
        for slug, names in lost.items():
            self._rest()
            self._take_away(slug, names)
        return Registry.indexed(self._indices)

    def _owner(self, name: bytes, claimants: Collection[bytes]) -> bytes | None:
        """Which tenant of those that claim a domain gets it."""
        owner = next(iter(claimants)) if len(claimants) == 1 else self._before.indices.domains.get(name)
        return owner if owner is not None and owner in claimants and owner in self._indices.tenants else None

    def _take_away(self, slug: bytes, names: set[bytes]) -> None:
        """Leave these domains out of a tenant's own."""
        tenants = self._indices.tenants
        tenant = unpacked(slug, tenants.get(slug) or b"")
        kept = tuple(domain for domain in tenant.domains if normal_domain(domain) not in names)
        tenants.put(slug, packed(replace(tenant, domains=kept)))


def _contest(name: bytes, claimants: Collection[bytes], owner: bytes | None) -> str:
    named = ", ".join(f'"{slug.decode()}"' for slug in islice(claimants, _NAMED))
    others = f" and {len(claimants) - _NAMED:,} more" if len(claimants) > _NAMED else ""
    gets = "nobody gets it" if owner is None else f'it stays with "{owner.decode()}", which had it'
    return f'the domain "{name.decode()}" is claimed by several tenants ({named}{others}); {gets}'

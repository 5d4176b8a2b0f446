"""Registries of tenants, as tests compare them."""

from __future__ import annotations

from collections.abc import Iterable

from koder_gateway.policy.tenants import Tenant


def in_order(tenants: Iterable[Tenant] | None) -> tuple[Tenant, ...]:
    """Tenants by slug: a registry has them in no order."""
    return tuple(sorted(tenants or (), key=lambda tenant: tenant.slug))

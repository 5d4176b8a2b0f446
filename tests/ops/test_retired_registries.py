"""Registries that are no longer of use are taken apart a little at a time."""

from __future__ import annotations

from koder_gateway.ops.retired_registries import RetiredRegistries
from koder_gateway.policy.sharded_index import PARTS
from koder_gateway.policy.tenants import Registry, Tenant


def test_what_is_left_goes_once_nobody_has_it() -> None:
    leavings = RetiredRegistries()
    registry = Registry(Tenant(f"t{n}", (f"t{n}.example",)) for n in range(1000))
    leavings.follow(registry)
    leavings.follow(registry)
    leavings.sweep()
    assert len(leavings) == 0
    assert len(registry) == 1000, "it is still in use"
    del registry
    parts = len(leavings)
    assert parts == 2 * 3 * PARTS, "it has not gone at once"
    while len(leavings):
        before = len(leavings)
        leavings.sweep()
        assert len(leavings) < before

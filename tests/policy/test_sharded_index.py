"""An index in parts is one dictionary, and a copy of it another one."""

from __future__ import annotations

import gc
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.policy.sharded_index import PARTS, ShardedIndex
from koder_gateway.policy.tenants import Registry, Tenant

names = st.binary(max_size=2)
steps = st.lists(st.tuples(names, st.none() | st.integers(0, 9)), max_size=40)


def apply(index: ShardedIndex[int], model: dict[bytes, int], changes: list[tuple[bytes, int | None]]) -> None:
    for name, value in changes:
        if value is None:
            index.drop(name)
            model.pop(name, None)
        else:
            index.put(name, value)
            model[name] = value


@given(steps, steps, steps)
def test_it_and_its_copy_are_dictionaries(
    first: list[tuple[bytes, int | None]],
    then: list[tuple[bytes, int | None]],
    other: list[tuple[bytes, int | None]],
) -> None:
    index: ShardedIndex[int] = ShardedIndex()
    model: dict[bytes, int] = {}
    apply(index, model, first)
    copy, copied = index.copy(), dict(model)
    apply(index, model, then)
    apply(copy, copied, other)
    for one, expected in ((index, model), (copy, copied)):
        assert sorted(one) == sorted(expected)
        assert len(one) == len(expected)
        assert all(one.get(name) == value and name in one for name, value in expected.items())
        assert one.get(b"absent") is None
    assert index.count_missing(copy) == len(model.keys() - copied.keys())


def test_a_copy_has_of_its_own_what_was_changed() -> None:
    index: ShardedIndex[int] = ShardedIndex()
    for number in range(20_000):
        index.put(b"%d" % number, number)
    assert max(map(len, index.parts)) < 20_000 // PARTS * 3, "the parts are alike"
    copy = index.copy()
    copy.put(b"new", 1)
    assert sum(one is not other for one, other in zip(index.parts, copy.parts, strict=True)) == 1
    rests: list[None] = []
    assert copy.count_missing(index, lambda: rests.append(None)) == 1
    assert len(rests) == 1


def test_a_tenant_takes_less_than_400_bytes_and_no_time_of_the_garbage_collector() -> None:
    tenants = [Tenant(f"tenant-{number:07d}", (f"login.tenant-{number:07d}.example",)) for number in range(20_000)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        registry = Registry(Tenant(tenant.slug, tenant.domains) for tenant in tenants)
        each = (tracemalloc.get_traced_memory()[0] - before) / len(tenants)
    finally:
        tracemalloc.stop()
    assert each < 400
    assert len(registry) == len(tenants)
    assert not any(gc.is_tracked(part) for index in registry.indices for part in index.parts)

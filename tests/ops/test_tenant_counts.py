"""Tenants as labels: those of the registry, and no more than there may be."""

from __future__ import annotations

from koder_gateway.ops import tenant_counts as module
from koder_gateway.ops.counters import Counters
from koder_gateway.ops.tenant_counts import TenantCounts
from tests.kit.exchanges import count

REGISTERED = frozenset((b"a", b"b", b"c", b"other"))


def counted(counters: Counters, *slugs: bytes) -> dict[str, int]:
    """How many exchanges there are of each label, after one more of each of these."""
    for slug in slugs:
        count(counters, tenant=slug)
    return labels(counters.tenant_counts)


def labels(counts: TenantCounts) -> dict[str, int]:
    shown = list(counts)
    assert len(shown) == len(dict(shown)), "each label once"
    return {label: sum(classes) for label, classes in shown}


def following(most: int) -> Counters:
    counters = Counters()
    counters.tenant_counts.follow(most, REGISTERED.__contains__)
    return counters


def test_tenants_of_the_registry_have_their_own_counts() -> None:
    counters = following(10)
    assert counted(counters, b"a", b"b", b"a", b"") == {"": 1, "a": 2, "b": 1, "other": 0}
    count(counters, "", 503, tenant=b"a")
    assert dict(counters.tenant_counts)["a"] == [0, 0, 2, 0, 0, 1]


def test_the_first_ones_have_them_and_the_rest_is_counted_together() -> None:
    counters = following(2)
    assert counted(counters, b"a", b"c", b"b", b"b") == {"": 0, "a": 1, "c": 1, "other": 2}
    assert counted(following(0), b"a") == {"": 0, "other": 1}


def test_what_the_registry_does_not_have_is_no_label() -> None:
    assert counted(following(10), b"x", b"y", b"x") == {"": 0, "other": 3}


def test_without_a_registry_no_tenant_is_a_label() -> None:
    """Clients choose their names."""
    counters = Counters()
    assert counted(counters, b"a", b"b") == {"": 0, "other": 2}, "before there is any"
    counters = following(10)
    counted(counters, b"a")
    counters.tenant_counts.follow(10, None)
    assert counted(counters, b"a", b"b") == {"": 0, "other": 2}


def test_a_tenant_called_as_the_rest_is_part_of_it() -> None:
    assert counted(following(10), b"other", b"x") == {"": 0, "other": 2}


def test_a_tenant_that_leaves_the_registry_leaves_the_page() -> None:
    """What it had is not added to the others, where it would look like a burst; what it still has is."""
    counters = following(2)
    counted(counters, b"a", b"b", b"c")
    counters.tenant_counts.follow(2, frozenset((b"b", b"c")).__contains__)
    assert counted(counters) == {"": 0, "b": 1, "other": 1}
    assert counted(counters, b"b", b"a") == {"": 0, "b": 2, "other": 2}
    assert counted(counters, b"c") == {"": 0, "b": 2, "c": 1, "other": 2}, "there is room for another one"


def test_fewer_places_keep_the_first_tenants() -> None:
    counters = following(3)
    counted(counters, b"b", b"a", b"c")
    counters.tenant_counts.follow(1, REGISTERED.__contains__)
    assert counted(counters, b"a") == {"": 0, "b": 1, "other": 1}


def test_what_is_remembered_is_bounded() -> None:
    counters = following(2)
    slugs = [b"x%d" % number for number in range(module._REMEMBERED + 100)]
    assert counted(counters, *slugs, *slugs) == {"": 0, "other": 2 * len(slugs)}
    assert len(counters.tenant_counts.by_slug) == module._REMEMBERED
    assert counted(counters, b"a")["a"] == 1, "a tenant of the registry still has its place"
    assert len(counters.tenant_counts.by_slug) == module._REMEMBERED + 1

"""A list that contradicts itself: who keeps what, and that nobody gets what is another's."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.policy.limit_rules import RateOverride
from koder_gateway.policy.registry_builder import RegistryBuilder
from koder_gateway.policy.tenants import Registry, Tenant, normal_domain
from tests.kit.tenants import in_order

BASE = "id.koder.dev"


def built(
    entries: Iterable[Tenant], before: Registry | None = None, *, changes: bool = False
) -> tuple[Registry, list[str]]:
    """The registry of these entries, and everything that was said about them."""
    builder = RegistryBuilder(BASE, before, changes=changes)
    told: list[str] = []
    for entry in entries:
        if changes:
            builder.remove(entry.wire)
        fault = builder.add(entry)
        told += [] if fault is None else [fault]
    return builder.registry(told.append), told


def owner(registry: Registry, domain: str) -> str:
    """The slug of the tenant at this domain; "" for none. What it says of itself must agree."""
    tenant = registry.at(normal_domain(domain))
    assert tenant is None or domain in tenant.domains
    return "" if tenant is None else tenant.slug


def test_a_list_without_contradictions() -> None:
    tenants = [
        Tenant("a", ("a.example", "b.example"), "suspended", ("https://a.example",)),
        Tenant("b", ("myid.koder.dev", "koder.dev"), limits={"login": RateOverride(9, 1, 9)}),
        Tenant("c"),
    ]
    registry, told = built(tenants)
    assert (in_order(registry), told) == (tuple(tenants), [])
    assert owner(registry, "b.example") == "a"
    assert b"https://a.example" in registry.origins


@pytest.mark.parametrize("domain", ["id.koder.dev", "ID.koder.dev", "b.id.koder.dev", "b.c.id.koder.dev"])
def test_names_within_the_base_domain_belong_to_slugs(domain: str) -> None:
    registry, told = built([Tenant("a", (domain,)), Tenant("b")])
    assert in_order(registry) == (Tenant("b"),)
    (line,) = told
    assert line.startswith(f'the domain "{domain}" of tenant "a" lies within the base domain "{BASE}"')


def test_a_domain_stays_with_the_one_that_had_it() -> None:
    before, _ = built([Tenant("a", ("x.example", "a.example")), Tenant("b")])
    for entries in (
        [Tenant("a", ("x.example", "a.example")), Tenant("b", ("b.example", "x.example"))],
        [Tenant("b", ("b.example", "x.example")), Tenant("a", ("x.example", "a.example"))],
    ):
        registry, (line,) = built(entries, before)
        assert [owner(registry, name) for name in ("x.example", "a.example", "b.example")] == ["a", "a", "b"]
        assert line.startswith('the domain "x.example" is claimed by several tenants (')
        assert line.endswith('); it stays with "a", which had it')
        again, _ = built(entries, registry)
        assert owner(again, "x.example") == "a", "however often the list is read"
    free, told = built([Tenant("a", ("a.example",)), Tenant("b", ("x.example",))], before)
    assert (owner(free, "x.example"), told) == ("b", []), "it can be given away"


@pytest.mark.parametrize("had", [None, "c", ""])
def test_without_a_history_nobody_gets_it(had: str | None) -> None:
    before = None if had is None else Registry([Tenant(had, ("x.example",))] if had else [Tenant("a"), Tenant("b")])
    registry, (line,) = built([Tenant("a", ("x.example",)), Tenant("b", ("x.example", "y.example"))], before)
    assert [owner(registry, name) for name in ("x.example", "y.example")] == ["", "b"]
    assert in_order(registry) == (Tenant("a"), Tenant("b", ("y.example",)))
    assert line == 'the domain "x.example" is claimed by several tenants ("a", "b"); nobody gets it'


def test_of_many_claimants_five_are_named() -> None:
    registry, (line,) = built([Tenant(f"t{number}", ("x.example",)) for number in range(1007)])
    assert owner(registry, "x.example") == ""
    assert '("t0", "t1", "t2", "t3", "t4" and 1,002 more)' in line


def test_a_slug_that_is_given_twice_stays_as_it_was() -> None:
    honest = Tenant("a", ("a.example",), limits={"login": RateOverride(9, 1, 9)})
    before = Registry([honest])
    for entries in (
        [Tenant("a", ("evil.example",)), honest],
        [honest, Tenant("a", ("evil.example",))],
        [Tenant("a", ("evil.example",)), Tenant("a", (), "suspended")],
    ):
        registry, told = built(entries, before)
        assert in_order(registry) == (honest,)
        assert [owner(registry, name) for name in ("a.example", "evil.example")] == ["a", ""]
        assert told[0].startswith('the slug "a" is given to two tenants; ')
        assert told[1] == 'the tenant "a" stays as it was, since its slug is given to two tenants'
    registry, told = built(entries)
    assert in_order(registry) == ()
    assert told[1] == 'there is no tenant "a", since its slug is given to two tenants'


def test_the_same_entry_twice_is_one() -> None:
    registry, told = built([Tenant("a", ("a.example",)), Tenant("a", ("a.example",))])
    assert in_order(registry) == (Tenant("a", ("a.example",)),)
    assert len(told) == 1


def test_nobody_gets_the_domain_of_an_entry_that_was_left_out() -> None:
    """Else a typing error in one entry would hand its domain to whoever claims it too."""
    before, _ = built([Tenant("a", ("x.example",))])
    for early in (True, False):
        builder = RegistryBuilder(BASE, before)
        if early:
            builder.add_faulty(b"a", ["x.example", "free.example"])
        assert builder.add(Tenant("b", ("x.example", "b.example"))) is None
        if not early:
            builder.add_faulty(b"a", ["x.example", "free.example"])
        told: list[str] = []
        registry = builder.registry(told.append)
        assert [owner(registry, name) for name in ("x.example", "b.example", "free.example")] == ["", "b", ""]
        assert len(told) == 1


def test_a_slug_whose_other_entry_was_left_out_stays_as_it_was() -> None:
    before = Registry([Tenant("a", ("a.example",))])
    for early in (True, False):
        builder = RegistryBuilder(BASE, before)
        if early:
            builder.add_faulty(b"a", [])
        builder.add(Tenant("a", ("evil.example",)))
        if not early:
            builder.add_faulty(b"a", [])
        assert in_order(builder.registry(lambda told: None)) == (Tenant("a", ("a.example",)),)


# Changes to a registry.


def test_changes_leave_the_others_and_the_registry_before_as_they_are() -> None:
    first = [Tenant(f"t{number}", (f"t{number}.example",), "active", ("https://x.example",)) for number in range(500)]
    before = Registry(first)
    builder = RegistryBuilder(BASE, before, changes=True)
    builder.remove(b"t1")
    builder.remove(b"t2")
    builder.remove(b"nobody")
    assert builder.add(Tenant("t2", ("new.example",), "suspended")) is None
    assert builder.add(Tenant("added")) is None
    registry = builder.registry(lambda told: pytest.fail(told))
    changed = [*first[:1], *first[3:], Tenant("t2", ("new.example",), "suspended"), Tenant("added")]
    assert in_order(registry) == in_order(changed)
    assert in_order(before) == in_order(first)
    assert [owner(registry, name) for name in ("t1.example", "t2.example", "new.example")] == ["", "", "t2"]
    assert [owner(before, name) for name in ("t1.example", "t2.example", "new.example")] == ["t1", "t2", ""]
    pairs = zip(registry.indices.tenants.parts, before.indices.tenants.parts, strict=True)
    shared = sum(one is other for one, other in pairs)
    assert shared >= 253, "the others are not copied"


def test_a_change_takes_no_domain_from_a_tenant_that_stays() -> None:
    before = Registry([Tenant("a", ("x.example",))])
    registry, (line,) = built([Tenant("b", ("x.example",))], before, changes=True)
    assert owner(registry, "x.example") == "a"
    assert "it stays with" in line
    moved, told = built([Tenant("b", ("x.example",)), Tenant("a", ())], before, changes=True)
    assert (owner(moved, "x.example"), told) == ("b", [])


def test_an_origin_goes_with_the_last_tenant_that_has_it() -> None:
    origin = "https://x.example"
    before = Registry([Tenant("a", cors_origins=(origin,)), Tenant("b", cors_origins=(origin,))])
    one, _ = built([Tenant("a")], before, changes=True)
    none, _ = built([Tenant("b")], one, changes=True)
    assert [origin.encode() in each.origins for each in (before, one, none)] == [True, True, False]


slugs = st.sampled_from(["a", "b", "c"])
names = st.lists(st.sampled_from(["x.example", "y.example", "z.example"]), unique=True, max_size=3).map(tuple)
lists = st.lists(st.builds(Tenant, slugs, names, st.sampled_from(["active", "suspended"])), max_size=5)


@given(lists, lists)
def test_whatever_is_listed_a_domain_has_one_owner_who_claims_it(first: list[Tenant], then: list[Tenant]) -> None:
    before, _ = built(first)
    after, _ = built(then, before)
    for registry in (before, after):
        held = [domain for tenant in registry for domain in tenant.domains]
        assert len(held) == len(set(held)) == len(registry.indices.domains)
        for tenant in registry:
            assert all(owner(registry, domain) == tenant.slug for domain in tenant.domains)
    for tenant in before:
        entries = [entry for entry in then if entry.slug == tenant.slug]
        if len(entries) == 1:
            kept = set(tenant.domains) & set(entries[0].domains)
            assert all(owner(after, domain) == tenant.slug for domain in kept), "what it had and claims it keeps"
        elif any(entry != entries[0] for entry in entries):
            assert after.find(tenant.wire) is not None


@given(lists, lists)
def test_changes_come_to_what_the_whole_list_would(first: list[Tenant], then: list[Tenant]) -> None:
    distinct = {tenant.slug: tenant for tenant in then}
    before, _ = built({tenant.slug: tenant for tenant in first}.values())
    changed, _ = built(distinct.values(), before, changes=True)
    stays = [tenant for tenant in before if tenant.slug not in distinct]
    whole, _ = built([*stays, *distinct.values()], before)
    assert in_order(changed) == in_order(whole)

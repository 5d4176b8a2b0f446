"""The list of tenants in JSON: read by the rules of the tenants file, and kept on disk."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.config import ConfigurationError, ListContext, TenantList
from koder_gateway.policy.limit_rules import LimitRule, RateOverride
from koder_gateway.policy.tenants import Registry, Tenant
from koder_gateway.tenants.tenant_list import parse_tenant_list, read_cache, write_cache
from tests.kit.tenants import in_order

BASE = "id.koder.dev"
CONTEXT = ListContext(BASE)
URL = "http://127.0.0.1:4005/v1/admin/tenants?key=7"

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)


@st.composite
def tenants(draw: st.DrawFn) -> tuple[Tenant, ...]:
    """Tenants that contradict each other in nothing."""
    slugs = draw(st.lists(labels, unique=True, max_size=6))
    made = []
    for slug in slugs:
        domains = tuple(f"{label}.{slug}.example" for label in draw(st.lists(labels, unique=True, max_size=3)))
        origins = tuple(f"https://{domain}" for domain in domains[:1])
        made.append(Tenant(slug, domains, draw(st.sampled_from(["active", "suspended"])), origins))
    return tuple(made)


def listed(tenant: Tenant) -> dict[str, Any]:
    return {
        "slug": tenant.slug,
        "domains": list(tenant.domains),
        "status": tenant.status,
        "cors_origins": list(tenant.cors_origins),
    }


def read(document: Any) -> TenantList:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_tenant_list(data, "LIST", CONTEXT)


def parse(document: Any) -> tuple[Tenant, ...]:
    found = read(document)
    assert (found.faults, found.skipped) == ((), 0)
    return in_order(found.registry)


def faults(document: Any) -> list[str]:
    try:
        told = list(read(document).faults)
    except ConfigurationError as error:
        told = error.faults
    for line in told:
        assert line.startswith("LIST: ")
        assert line.isprintable()
    return [line.removeprefix("LIST: ") for line in told]


@given(tenants(), st.booleans())
def test_a_list_bare_or_in_an_object(expected: tuple[Tenant, ...], bare: bool) -> None:
    entries = [listed(tenant) for tenant in expected]
    assert parse(entries if bare else {"tenants": entries}) == in_order(expected)


def test_members_that_are_not_known_are_ignored() -> None:
    entry = {"id": 7, "slug": "koder", "plan": {"name": "free"}, "created_at": None, "status": "suspended"}
    assert parse({"tenants": [entry], "total": 1, "next": None}) == (Tenant("koder", (), "suspended"),)


def test_members_that_are_absent_or_null_are_those_of_the_file() -> None:
    assert parse([{"slug": "a"}, {"slug": "b", "domains": None, "cors_origins": None}]) == (Tenant("a"), Tenant("b"))


def test_domains_are_taken_without_regard_to_case() -> None:
    assert parse([{"slug": "a", "domains": ["Login.A.Example"]}]) == (Tenant("a", ("login.a.example",)),)


@pytest.mark.parametrize("document", [[], {"tenants": []}])
def test_an_empty_list_has_nobody_in_it(document: Any) -> None:
    assert parse(document) == ()


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[",
        b"null",
        b"7",
        b'"tenants"',
        b"{}",
        b'{"tenants": null}',
        b'{"tenants": {"koder": {}}}',
        b'{"data": []}',
        b"[] []",
        b"<html>404</html>",
        b'[{"slug": "a"}',
        b"[" * 100_000,
        b'{"tenants": ' * 100_000,
        b"\xff\xfe",
    ],
    ids=range(15),
)
def test_what_is_no_list_is_one_fault(document: bytes) -> None:
    (line,) = faults(document)
    assert line.startswith("is not a list of tenants: ")


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({}, "tenants[1]: is not a tenant: "),
        ("koder", "tenants[1]: is not a tenant: "),
        (None, "tenants[1]: is not a tenant: "),
        ({"slug": None}, "tenants[1]: is not a tenant: "),
        ({"slug": "a", "status": None}, "tenants[1]: is not a tenant: "),
        ({"slug": "a", "domains": "a.example"}, "tenants[1]: is not a tenant: "),
        ({"slug": "a", "domains": [None]}, "tenants[1]: is not a tenant: "),
        ({"slug": "A"}, 'tenants[1].slug: "A" is not a slug; '),
        ({"slug": ""}, 'tenants[1].slug: "" is not a slug; '),
        ({"slug": "a", "status": "deleted"}, 'tenants[1].status: "deleted" is not an accepted value'),
        ({"slug": "a", "domains": ["b.example", "::1"]}, 'tenants[1].domains[1]: "::1" is an address, '),
        ({"slug": "a", "domains": ["a.example", "A.example"]}, "tenants[1].domains[1]: is the same as [0]; "),
        ({"slug": "a", "cors_origins": ["null"]}, 'tenants[1].cors_origins[0]: "null" is every sandboxed page'),
        ({"slug": "a", "domains": ["x.id.koder.dev"]}, 'tenants[1]: the domain "x.id.koder.dev" of tenant "a" lies '),
        ({"slug": "good", "domains": ["g.example"]}, 'tenants[1]: the slug "good" is given to two tenants; '),
    ],
)  # fmt: skip
def test_a_bad_entry_is_left_out_by_the_rules_of_the_file(entry: Any, line: str) -> None:
    found = read([{"slug": "good", "domains": ["g.example"]}, entry, {"slug": "last"}])
    assert in_order(found.registry) == (Tenant("good", ("g.example",)), Tenant("last"))
    (told,) = found.faults
    assert told.startswith(f"LIST: {line}")
    assert (found.skipped, found.entries) == (1, 3)


@pytest.mark.parametrize(
    "ignored",
    [rb'"\ud83d"', rb'{"\udc00": ["\ud83d\ud83d", "\ud83dA"]}', b'"\\ud83d", "n": ' + b"9" * 5000],
    ids=range(3),
)
def test_half_a_character_in_a_member_that_is_ignored_is_ignored(ignored: bytes) -> None:
    """JSON.stringify and json.dumps write such halves of a text that was cut."""
    own = b'"limits": {"login": {"rate": "9/s", "burst": 7}}'
    found = read(b'[{"slug": "a"}, {"slug": "b", %b, "status": "suspended", "name": %b}]' % (own, ignored))
    limits = {"login": RateOverride(9, 1, 7)}
    assert in_order(found.registry) == (Tenant("a"), Tenant("b", (), "suspended", limits=limits))
    assert found.faults == ()


def test_half_a_character_in_another_member_is_a_fault_of_its_entry() -> None:
    for entry in (rb'{"slug": "\ud83d"}', rb'{"slug": "b", "domains": ["\udc00.example"]}'):
        found = read(b'[{"slug": "a"}, %b, {"slug": "c"}]' % entry)
        assert in_order(found.registry) == (Tenant("a"), Tenant("c"))
        assert found.faults == (
            "LIST: tenants[1]: is not a tenant: it has one half of a character, a lone surrogate",
        )
        assert found.skipped == 1


@pytest.mark.parametrize(
    "entry", [b'{"slug": "b" "c"}', rb'{"slug": "b", "n": NaN, "m": "\ud83d"}', b'{"slug": "\x01"}']
)
def test_an_entry_that_is_no_json_is_a_fault_of_the_list_that_names_it(entry: bytes) -> None:
    (line,) = faults(b'[{"slug": "a"}, %b]' % entry)
    assert line.startswith("is not a list of tenants: tenants[1]: ")


def test_an_entry_that_is_nested_too_deeply_is_left_out() -> None:
    deep = b"[" * 5000 + b"]" * 5000
    found = read(b'[{"slug": "a"}, {"slug": "b", "meta": %b}, {"slug": "c"}]' % deep)
    assert in_order(found.registry) == (Tenant("a"), Tenant("c"))
    assert found.faults == ("LIST: tenants[1]: is not a tenant: nested too deeply",)


def test_an_entry_with_half_a_character_keeps_its_claims() -> None:
    """Nobody gets its slug or its domain for that."""
    left_out = rb'{"slug": "b", "domains": ["b.example", "\udc00.example"]}'
    found = read(b'[%b, {"slug": "b"}, {"slug": "c", "domains": ["b.example"]}, {"slug": "d"}]' % left_out)
    assert in_order(found.registry) == (Tenant("c"), Tenant("d"))


def test_every_bad_entry_is_told() -> None:
    told = faults([{"slug": "-"}, 5, {"slug": "a"}, {"slug": "b", "status": "x", "domains": ["?"]}])
    assert [line.partition(": ")[0] for line in told] == [
        "tenants[0].slug",
        "tenants[1]",
        "tenants[3].domains[0]",
        "tenants[3].status",
    ]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
entries = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("slug", "domains", "status", "cors_origins", "other"), values)
)


def parsed_or_told(data: bytes) -> tuple[Tenant, ...]:
    """The tenants; every fault is a line."""
    try:
        found = read(data)
        told, tenants = list(found.faults), in_order(found.registry)
        assert len(tenants) + found.skipped <= found.entries
    except ConfigurationError as error:
        told, tenants = error.faults, ()
        assert told
    assert all(line.startswith("LIST: ") and line.isprintable() for line in told)
    return tenants


@given(st.lists(entries | values, max_size=4) | values | st.fixed_dictionaries({"tenants": values}))
def test_whatever_is_listed_it_is_tenants_or_faults(document: Any) -> None:
    assert all(isinstance(tenant, Tenant) for tenant in parsed_or_told(json.dumps(document).encode()))


@given(tenants(), st.data())
def test_bytes_that_were_changed_are_tenants_or_faults(expected: tuple[Tenant, ...], data: st.DataObject) -> None:
    text = bytearray(json.dumps([listed(tenant) for tenant in expected]).encode())
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    assert all(isinstance(tenant, Tenant) for tenant in parsed_or_told(bytes(text)))


# The limits of a tenant.


def test_limits_of_a_tenant() -> None:
    own = {"login": {"rate": "600/m", "burst": 300}, "traffic": {"rate": "9/s"}, "wide": {"in_flight": 7}}
    (tenant,) = parse([{"slug": "a", "limits": own}])
    assert tenant.limits == {
        "login": RateOverride(600, 60, 300),
        "traffic": RateOverride(9, 1, 9),
        "wide": RateOverride(in_flight=7),
    }
    assert parse([{"slug": "a", "limits": None}, {"slug": "b", "limits": {}}]) == (Tenant("a"), Tenant("b"))


@pytest.mark.parametrize(
    ("limits", "fault"),
    [
        ({"login": {"rate": "fast"}}, '.login.rate: "fast" is not a rate; '),
        ({"login": {"rate": "1/s", "burst": 0}}, ".login.burst: 0 is out of range; "),
        ({"login": {"rate": "1/s", "in_flight": 2}}, ".login.rate: is given as well as in_flight; "),
        ({"login": {"in_flight": 2, "burst": 3}}, ".login.burst: has no effect with in_flight; "),
        ({"login": {"in_flight": 0}}, ".login.in_flight: 0 is out of range; "),
        ({"login": {}}, ".login.rate: is missing; "),
        ({"login": {"rates": "1/s"}}, '.login.rates: is an unknown key; did you mean "rate"?'),
        ({"login": 5}, ".login: 5 is not a table; "),
        ({"a b": {"rate": "x"}}, '."a b".rate: "x" is not a rate; '),
    ],
    ids=range(9),
)
def test_a_bad_override_is_left_out_and_not_its_tenant(limits: Any, fault: str) -> None:
    found = read([{"slug": "a", "limits": {**limits, "traffic": {"rate": "9/s"}}}])
    (tenant,) = found.registry
    assert tenant.limits == {"traffic": RateOverride(9, 1, 9)}
    assert found.faults[0].startswith(f"LIST: tenants[0].limits{fault}")
    assert found.skipped == 0


@pytest.mark.parametrize("limits", [[], 5, "9/s"])
def test_limits_that_are_no_table_do_not_cost_the_tenant(limits: Any) -> None:
    """PHP writes an empty map as []."""
    found = read([{"slug": "a", "limits": limits, "status": "suspended"}])
    assert in_order(found.registry) == (Tenant("a", (), "suspended"),)
    (told,) = found.faults
    assert told.startswith("LIST: tenants[0].limits: ")
    assert " is not a table; " in told
    assert found.skipped == 0


@pytest.mark.parametrize(
    ("name", "figures", "fault"),
    [
        ("logn", {"rate": "9/s"}, 'logn: "logn" is none of the limits; did you mean "login"?'),
        ("login", {"in_flight": 3}, 'login: "login" is a limit on a rate; write rate and burst'),
    ],
)
def test_an_override_without_effect_is_told_and_kept(name: str, figures: Any, fault: str) -> None:
    """The limits may be read again without the tenants."""
    data = json.dumps([{"slug": "a", "limits": {name: figures}}]).encode()
    rules = {name: LimitRule(name, ("tenant",), 1, 1) for name in ("login", "traffic")}
    found = parse_tenant_list(data, "LIST", ListContext(BASE, rules=rules))
    assert found.faults == (f"LIST: tenants[0].limits.{fault}",)
    (tenant,) = found.registry
    assert set(tenant.limits) == {name}


# The copy on disk.


@given(tenants())
def test_what_was_kept_comes_back(tmp_path_factory: pytest.TempPathFactory, expected: tuple[Tenant, ...]) -> None:
    path = tmp_path_factory.mktemp("state") / "tenants-cache.json"
    write_cache(path, URL, Registry(expected))
    kept = read_cache(path, URL, CONTEXT)
    assert kept is not None
    assert in_order(kept) == in_order(expected)


def test_limits_come_back(tmp_path: Path) -> None:
    path = tmp_path / "tenants-cache.json"
    own = {"login": RateOverride(600, 86400, 300), "wide": RateOverride(in_flight=7)}
    write_cache(path, URL, Registry([Tenant("a", limits=own)]))
    assert in_order(read_cache(path, URL, CONTEXT)) == (Tenant("a", limits=own),)


def test_it_is_its_owners_alone_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state" / "tenants-cache.json"
    for slug in ("a", "b"):
        write_cache(path, URL, Registry([Tenant(slug)]))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]
    assert in_order(read_cache(path, URL, CONTEXT)) == (Tenant("b"),)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "tenants-cache.json"
    path.mkdir()  # cannot be replaced by a file
    with pytest.raises(OSError, match="tenants-cache"):
        write_cache(path, URL, Registry([Tenant("a")]))
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_was_kept(tmp_path: Path) -> None:
    assert read_cache(tmp_path / "none" / "tenants-cache.json", URL, CONTEXT) is None


def test_the_tenants_of_another_registry_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "tenants-cache.json"
    write_cache(path, URL, Registry([Tenant("a")]))
    assert read_cache(path, URL + "0", CONTEXT) is None


def test_what_was_kept_is_judged_again(tmp_path: Path) -> None:
    path = tmp_path / "tenants-cache.json"
    write_cache(path, URL, Registry([Tenant("a", ("login.a.example",))]))
    with pytest.raises(ConfigurationError, match="lies within the base domain"):
        read_cache(path, URL, ListContext("a.example"))


@pytest.mark.parametrize("data", [b"", b"[]", b'{"registry": 5}', b'{"tenants": []}', b"\xff", b"[" * 100_000])
def test_what_is_no_cache_is_one_fault(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tenants-cache.json"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError) as caught:
        read_cache(path, URL, CONTEXT)
    (line,) = caught.value.faults
    assert line.startswith(f"{path}: cannot be used: ")

"""Tenant resolution from Host and header, and the registry behind it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.errors import Refusal
from koder_gateway.policy.tenants import Registry, Tenant, TenantPolicy, is_slug

KODER = Tenant("koder", domains=("Login.Koder.example.",), cors_origins=("https://koder.example",))
ACME = Tenant("acme", domains=("id.acme.example",))
GONE = Tenant("gone", domains=("gone.example",), status="suspended", cors_origins=("https://gone.example",))
REGISTRY = Registry([KODER, ACME, GONE])
POLICY = TenantPolicy("id.koder.dev", "X-Tenant-ID", "", REGISTRY)


def outcome(policy: TenantPolicy, host: bytes, *named: bytes) -> str:
    """A tenant's slug or a refusal's status and code."""
    answer = policy.resolve(host, named)
    return f"{answer.status} {answer.code}" if isinstance(answer, Refusal) else answer.slug


@pytest.mark.parametrize(
    ("host", "named", "expected"),
    [
        # 1. A custom domain.
        (b"login.koder.example", (), "koder"),
        (b"LOGIN.koder.Example.:8443", (), "koder"),
        (b"id.acme.example", (b"acme",), "acme"),
        (b"id.acme.example", (b"koder",), "400 tenant_conflict"),
        (b"gone.example", (), "403 tenant_suspended"),
        (b"gone.example", (b"koder",), "400 tenant_conflict"),
        (b"x.login.koder.example", (), "421 misdirected_request"),
        # 2. A slug under the base domain.
        (b"koder.id.koder.dev", (), "koder"),
        (b"KODER.ID.koder.dev.", (), "koder"),
        (b"koder.id.koder.dev:443", (), "koder"),
        (b"koder.id.koder.dev.:443", (b"koder",), "koder"),
        (b"koder.id.koder.dev", (b"", b"koder", b"koder"), "koder"),
        (b"koder.id.koder.dev", (b"",), "koder"),
        (b"koder.id.koder.dev", (b"acme",), "400 tenant_conflict"),
        (b"koder.id.koder.dev", (b"Koder",), "400 tenant_conflict"),
        (b"koder.id.koder.dev", (b"koder", b"acme"), "400 tenant_conflict"),
        (b"nobody.id.koder.dev", (), "404 unknown_tenant"),
        (b"nobody.id.koder.dev", (b"koder",), "404 unknown_tenant"),
        (b"gone.id.koder.dev", (), "403 tenant_suspended"),
        (b"gone.id.koder.dev", (b"gone",), "403 tenant_suspended"),
        (b"gone.id.koder.dev", (b"acme",), "400 tenant_conflict"),
        (b"a.koder.id.koder.dev", (), "421 misdirected_request"),
        (b"-koder.id.koder.dev", (), "421 misdirected_request"),
        (b"ko_der.id.koder.dev", (), "421 misdirected_request"),
        (b".id.koder.dev", (), "421 misdirected_request"),
        (b"k" * 64 + b".id.koder.dev", (), "421 misdirected_request"),
        # 3. The bare base domain.
        (b"id.koder.dev", (), "400 tenant_required"),
        (b"id.koder.dev", (b"", b""), "400 tenant_required"),
        (b"ID.koder.dev.:8443", (b"acme",), "acme"),
        (b"id.koder.dev", (b"acme", b"acme"), "acme"),
        (b"id.koder.dev", (b"acme", b"koder"), "400 tenant_conflict"),
        (b"id.koder.dev", (b"nobody",), "404 unknown_tenant"),
        (b"id.koder.dev", (b"ACME",), "404 unknown_tenant"),
        (b"id.koder.dev", (b"acme, koder",), "404 unknown_tenant"),
        (b"id.koder.dev", (b"gone",), "403 tenant_suspended"),
        # 4. Any other.
        (b"example.com", (b"koder",), "421 misdirected_request"),
        (b"xid.koder.dev", (), "421 misdirected_request"),
        (b"id.koder.dev..", (), "421 misdirected_request"),
        (b"koder.dev", (), "421 misdirected_request"),
        (b"localhost", (b"koder",), "421 misdirected_request"),
        (b"127.0.0.1", (b"koder",), "421 misdirected_request"),
        (b"[::1]:80", (b"koder",), "421 misdirected_request"),
        (b"", (), "421 misdirected_request"),
    ],
)
def test_order_of_resolution(host: bytes, named: tuple[bytes, ...], expected: str) -> None:
    assert outcome(POLICY, host, *named) == expected


@pytest.mark.parametrize("host", [b"localhost", b"LOCALHOST.:80", b"127.0.0.1:8443", b"10.0.0.255", b"[::1]:80"])
def test_local_hosts_stand_for_the_base_domain(host: bytes) -> None:
    local = TenantPolicy("id.localhost", "X-Tenant-ID", "", REGISTRY, local_hosts=True)
    assert outcome(local, host, b"koder") == "koder"
    assert outcome(local, host) == "400 tenant_required"


@pytest.mark.parametrize("host", [b"256.0.0.1", b"1.2.3", b"1.2.3.4.5", b"localhost2", b"x.localhost", b"01.2.3.4"])
def test_not_every_name_is_local(host: bytes) -> None:
    local = TenantPolicy("id.localhost", "X-Tenant-ID", "", REGISTRY, local_hosts=True)
    assert outcome(local, host, b"koder") == "421 misdirected_request"


def test_the_default_stands_in_only_on_the_bare_base_domain_without_a_header() -> None:
    policy = TenantPolicy("id.koder.dev", "X-Tenant-ID", "acme", REGISTRY)
    assert outcome(policy, b"id.koder.dev") == "acme"
    assert outcome(policy, b"id.koder.dev", b"") == "acme"
    assert outcome(policy, b"id.koder.dev", b"koder") == "koder"
    assert outcome(policy, b"id.koder.dev", b"nobody") == "404 unknown_tenant"
    assert outcome(policy, b"nobody.id.koder.dev") == "404 unknown_tenant"
    assert outcome(policy, b"example.com") == "421 misdirected_request"


def test_a_default_that_left_the_registry_is_unknown() -> None:
    policy = TenantPolicy("id.koder.dev", "X-Tenant-ID", "left", REGISTRY)
    assert outcome(policy, b"id.koder.dev") == "404 unknown_tenant"


def test_a_custom_domain_equal_to_the_host_wins_over_the_base_domain() -> None:
    odd = Registry([Tenant("a", domains=("id.koder.dev", "b.id.koder.dev")), Tenant("b")])
    policy = TenantPolicy("id.koder.dev", "X-Tenant-ID", "b", odd)
    assert outcome(policy, b"id.koder.dev") == "a"
    assert outcome(policy, b"b.id.koder.dev") == "a"


def test_an_open_registry_takes_every_well_formed_slug() -> None:
    policy = TenantPolicy("id.koder.dev", "X-Tenant-ID", "", Registry(None))
    assert outcome(policy, b"anything-7.id.koder.dev") == "anything-7"
    assert outcome(policy, b"id.koder.dev", b"other") == "other"
    assert outcome(policy, b"id.koder.dev", b"not a slug") == "404 unknown_tenant"
    assert outcome(policy, b"a.b.id.koder.dev") == "421 misdirected_request"
    assert outcome(policy, b"x.id.koder.dev", b"y") == "400 tenant_conflict"


def test_an_open_registry_hands_out_equal_tenants_past_any_bound() -> None:
    registry = Registry(None)
    first = registry.find(b"first")
    for number in range(20_000):
        assert registry.find(b"t%d" % number) == Tenant(f"t{number}")
    assert registry.find(b"first") == first == Tenant("first")


def test_refusals_name_no_other_tenant() -> None:
    everyone = ("koder", "acme", "gone")
    asked = [
        (b"nobody.id.koder.dev", ()),
        (b"example.com", ()),
        (b"id.koder.dev", ()),
        (b"id.koder.dev", (b"no",)),
    ]
    asked += [(b"koder.id.koder.dev", (b"nobody",)), (b"id.acme.example", (b"nobody",))]
    for host, named in asked:
        answer = POLICY.resolve(host, named)
        assert isinstance(answer, Refusal)
        words = answer.detail.replace("id.koder.dev", "BASE")
        assert not any(slug in words for slug in everyone), words


def test_details_say_what_to_do() -> None:
    policy = TenantPolicy("id.koder.dev", "X-Realm", "", REGISTRY)
    answer = policy.resolve(b"id.koder.dev", ())
    assert isinstance(answer, Refusal)
    assert "X-Realm" in answer.detail
    assert "<tenant>.id.koder.dev" in answer.detail


def test_registry_lookups() -> None:
    assert REGISTRY.find(b"koder") == KODER
    assert REGISTRY.find(b"nobody") is None
    assert REGISTRY.at(b"login.koder.example") == KODER
    assert REGISTRY.at(b"koder") is None
    assert len(REGISTRY) == 3
    assert not REGISTRY.is_open
    assert Registry(None).is_open


def test_every_tenant_brings_origins() -> None:
    """Also one that is suspended, whose pages may read that it is."""
    assert set(REGISTRY.origins) == {b"https://koder.example", b"https://gone.example"}
    assert KODER.origins == {b"https://koder.example"}
    assert KODER.wire == b"koder"


@pytest.mark.parametrize("slug", [b"a", b"7", b"a-b", b"a--b", b"a" * 63])
def test_slugs(slug: bytes) -> None:
    assert is_slug(slug)


@pytest.mark.parametrize("slug", [b"", b"-a", b"a-", b"A", b"a.b", b"a_b", b"a" * 64, b"a\n", b"\xc3\xa4"])
def test_no_slugs(slug: bytes) -> None:
    assert not is_slug(slug)


hosts = st.sampled_from(
    [
        "koder.id.koder.dev",
        "login.koder.example",
        "id.koder.dev",
        "nobody.id.koder.dev",
        "a.b.example",
        "gone.example",
    ]
)


@given(
    hosts,
    st.randoms(use_true_random=False),
    st.integers(0, 65535),
    st.sampled_from([(), (b"koder",), (b"x",)]),
)
def test_case_port_and_one_dot_never_matter(host: str, random: object, port: int, named: tuple[bytes, ...]) -> None:
    choice = random.choice  # type: ignore[attr-defined]
    spelt = "".join(choice((letter, letter.upper())) for letter in host).encode()
    plain = POLICY.resolve(host.encode(), named)
    for variant in (spelt, spelt + b".", spelt + b":%d" % port, spelt + b".:%d" % port):
        assert POLICY.resolve(variant, named) == plain


@given(st.binary(max_size=80), st.lists(st.binary(max_size=10), max_size=3))
def test_nothing_foreign_is_ever_a_tenant(host: bytes, named: list[bytes]) -> None:
    answer = POLICY.resolve(host, named)
    assert isinstance(answer, Refusal)
    assert answer.status == 421


HOSTS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"koder", b"gone", b"nobody", b"-", b"", b"a.koder", b"k" * 64, b"ko_der"],
    ).map(lambda slug: slug + b".id.koder.dev"),
    st.sampled_from(
        [b"id.koder.dev", b"ID.koder.dev.:80", b"login.koder.example", b"gone.example:1", b"evil.example"]
    ),
    st.sampled_from([b"localhost", b"127.0.0.1:80", b"[::1]:80", b"LOCALHOST.", b"127.0.0.256"]),
)


@pytest.mark.parametrize("registry", [REGISTRY, Registry(None), Registry([])], ids=["closed", "open", "empty"])
@given(host=HOSTS, local=st.booleans())
def test_a_host_is_ours_unless_no_header_could_make_its_request_a_tenant_s(
    registry: Registry, host: bytes, local: bool
) -> None:
    """A suspended tenant's, and the base domain without a header, are ours as well."""
    policy = TenantPolicy("id.koder.dev", "X-Tenant-ID", "", registry, local_hosts=local)
    answer = policy.resolve(host, ())
    ours = not isinstance(answer, Refusal) or answer.code in ("tenant_required", "tenant_suspended")
    assert policy.host_refusal(host) == (None if ours else answer)

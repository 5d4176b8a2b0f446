"""Wildcards of origins: one whole label, byte for byte else, and no page of another tenant."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.policy.clients import TrustedProxies
from koder_gateway.policy.cors import CorsPolicy, origin_fault
from koder_gateway.policy.decision import Policy
from koder_gateway.policy.limits import Limiter
from koder_gateway.policy.origins import covers_tenants, wildcard_of
from koder_gateway.policy.registry_builder import RegistryBuilder
from koder_gateway.policy.routing import RouteTable
from koder_gateway.policy.tenants import Registry, Tenant, TenantPolicy

BASE = "id.koder.dev"
KODER = Tenant("koder", domains=("koder.app.example",), cors_origins=("https://*.koder.example",))
ACME = Tenant("acme", domains=("acme.app.example", "acme.koder.example"))


def policy(*origins: str, tenants: tuple[Tenant, ...] | None = (KODER, ACME)) -> Policy:
    registry = Registry(tenants)
    return Policy(
        registry=registry,
        tenants=TenantPolicy(BASE, "X-Tenant-ID", "", registry),
        tenant_header=b"X-Tenant-ID",
        cors=CorsPolicy(origins),
        limiter=Limiter((), 100),
        routes=RouteTable([]),
        proxies=TrustedProxies(()),
        max_body=1000,
    )


@pytest.mark.parametrize(
    ("origin", "wildcard", "host"),
    [
        (b"https://a.app.example", b"https://*.app.example", b"a.app.example"),
        (b"https://a-1.app.example:8443", b"https://*.app.example:8443", b"a-1.app.example"),
        (b"https://xn--bcher-kva.app.example", b"https://*.app.example", b"xn--bcher-kva.app.example"),
        (b"https://a.b.app.example", b"https://*.b.app.example", b"a.b.app.example"),
    ],
)
def test_the_one_wildcard_of_an_origin(origin: bytes, wildcard: bytes, host: bytes) -> None:
    assert wildcard_of(origin) == (wildcard, host)


@pytest.mark.parametrize(
    "origin",
    [
        b"https://app.example", b"https://example", b"http://a.app.example", b"https://.app.example",
        b"https://*.app.example", b"https://A.app.example", b"https://-a.app.example", b"https://a-.app.example",
        b"https://a_b.app.example", b"https://a.app.example.", b"https://a.app.example/", b"https://a.app.example:0",
        b"https://x@a.app.example", b"https://a.app.example\n", b"https://a.app.example?", b"https://a.app.example#b",
        b"https://\xc3\xa4.app.example", b"https://%61.app.example", b"https://a..app.example", b"null", b"",
        b"https://" + b"a" * 64 + b".app.example", b"https://a.app.example https://b.app.example",
        b"https://a" + b".app" * 80 + b".example",
    ],
)  # fmt: skip
def test_origins_that_no_wildcard_covers(origin: bytes) -> None:
    assert wildcard_of(origin) == (b"", b"")


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (b"https://a.app.example", True),
        (b"https://xn--80ak6aa92e.app.example", True),
        (b"https://app.example", False),
        (b"https://a.b.app.example", False),
        (b"https://a.app.example:8443", False),
        (b"http://a.app.example", False),
        (b"https://evilapp.example", False),
        (b"https://a.app.example.attacker.example", False),
        (b"https://evil.example/.app.example", False),
        (b"https://evil.example#.app.example", False),
        (b"https://evil.example\\.app.example", False),
        (b"https://evil.example:1@a.app.example", False),
        (b"https://a.app.example, https://b.app.example", False),
        (b"https://*.app.example", False),
        (None, False),
        # Hosts of tenants, and their common one.
        (b"https://koder.app.example", False),
        (b"https://acme.app.example", False),
    ],
)
def test_what_a_wildcard_of_all_tenants_covers(origin: bytes | None, allowed: bool) -> None:
    assert policy("https://*.app.example").allows(origin, frozenset(), None) is allowed


def test_a_tenants_own_page_is_covered_for_that_tenant_alone() -> None:
    made = policy("https://*.app.example")
    assert made.allows(b"https://koder.app.example", frozenset(), KODER)
    assert not made.allows(b"https://acme.app.example", frozenset(), KODER)
    assert made.allows(b"https://acme.koder.example", frozenset(), ACME) is False
    # KODER's own wildcard covers its application, not the host that another tenant has there.
    assert made.allows(b"https://web.koder.example", KODER.origins, KODER)
    assert not made.allows(b"https://acme.koder.example", KODER.origins, KODER)
    assert not made.allows(b"https://web.koder.example", ACME.origins, ACME)


def test_no_wildcard_covers_the_tenants_below_the_base_domain_nor_that_itself() -> None:
    for tenants in ((KODER, ACME), None):
        made = policy("https://*.koder.dev", "https://*.id.koder.dev", tenants=tenants)
        assert not made.allows(b"https://acme.id.koder.dev", frozenset(), KODER)
        assert not made.allows(b"https://id.koder.dev", frozenset(), KODER)
        assert made.allows(b"https://koder.id.koder.dev", frozenset(), KODER)
        assert made.allows(b"https://docs.koder.dev", frozenset(), KODER)


@pytest.mark.parametrize(
    ("origin", "covers"),
    [
        ("https://*.id.koder.dev", True),
        ("https://*.id.koder.dev:8443", True),
        ("https://*.x.id.koder.dev", False),
        ("https://*.koder.dev", False),
        ("https://a.id.koder.dev", False),
        ("https://*.idxkoder.dev", False),
    ],
)
def test_wildcards_of_the_tenants_own_hosts(origin: str, covers: bool) -> None:
    assert covers_tenants(origin, "ID.koder.dev") is covers
    fault = RegistryBuilder(BASE).add(Tenant("a", cors_origins=(origin,)))
    said = [] if fault is None else [fault]
    assert [('the origin "' + origin) in sentence for sentence in said] == ([True] if covers else [])


LABELS = st.text("ab-1.*", min_size=1, max_size=12)


@given(LABELS, LABELS)
def test_what_is_covered_is_one_label_before_the_domain(label: str, domain: str) -> None:
    configured = f"https://*.{domain}"
    origin = f"https://{label}.app.example"
    if origin_fault(configured) is None:
        assert re.fullmatch(r"[^.*]+(\.[^.*]+)+", domain)
    covered = policy("https://*.app.example", tenants=()).allows(origin.encode(), frozenset(), None)
    assert covered is (re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", label) is not None)

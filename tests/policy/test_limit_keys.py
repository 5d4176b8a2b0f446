"""What limits count apart: addresses, routes, headers, and the keys made of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.policy.limit_keys import Subject, address_key, address_text, key_of, key_parts
from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.limits import Limiter
from koder_gateway.wire.request_head import RequestHead

NOW = 5000.0
ADDRESS = "2001:db8:1:2::7"


def subject(
    *fields: tuple[bytes, bytes], tenant: bytes = b"koder", address: str = ADDRESS, route: bytes = b"/v1/users"
) -> Subject:
    head = RequestHead(b"GET", b"/v1/users/7", 1, list(fields))
    return Subject(tenant, address, address_key(address), head, route)


def key(rule: LimitRule, who: Subject) -> bytes:
    made = key_of(rule, b"secret")
    assert made is not None
    return made(who)


def shared(rule: LimitRule, one: Subject, other: Subject) -> bool:
    """Whether the two have one bucket, as a limiter has it."""
    limiter = Limiter([rule], 100)
    plan = limiter.plan(b"GET", b"/")
    assert plan is not None
    assert plan.judge_subject(one, NOW).refused is None
    return plan.judge_subject(other, NOW).refused is not None


# Addresses


@pytest.mark.parametrize(
    ("address", "counts_as"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("64:ff9b::192.0.2.1", "192.0.2.1"),
        ("64:ff9b::c000:201", "192.0.2.1"),
        ("64:ff9b::10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3::7", "2001:db8:1:2::"),
    ],
)
def test_addresses_that_are_one_client(address: str, counts_as: str) -> None:
    assert address_key(address) == address_key(counts_as)
    assert address_key(address, 64) == address_key(counts_as, 64)


@pytest.mark.parametrize("other", ["64:ff9b::192.0.2.2", "64:ff9b:1::c000:201", "64:ff9b::1:c000:201", "::c000:201"])
def test_addresses_that_are_another_client(other: str) -> None:
    assert address_key(other) != address_key("192.0.2.1")


@pytest.mark.parametrize(
    ("prefix", "text"),
    [
        (32, "2001:db8::/32"),
        (48, "2001:db8:1::/48"),
        (56, "2001:db8:1:200::/56"),
        (64, "2001:db8:1:2ff::/64"),
        (65, "2001:db8:1:2ff:8000::/65"),
        (128, "2001:db8:1:2ff:ffff::7/128"),
    ],
)
def test_networks(prefix: int, text: str) -> None:
    assert address_text(address_key("2001:db8:1:2ff:ffff::7", prefix), prefix) == text
    assert address_text(address_key("192.0.2.1", prefix), prefix) == "192.0.2.1"
    assert address_key("unknown", prefix) == b"unknown"


@given(st.integers(32, 128), st.ip_addresses(v=6), st.integers(0, 127))
def test_two_addresses_share_a_bucket_when_they_share_the_prefix(prefix: int, address: object, bit: int) -> None:
    number = int(address)  # type: ignore[call-overload]
    if number >> 32 in (0xFFFF, 0x64FF9B << 64):
        return
    other = type(address)(number ^ 1 << 127 - bit)  # type: ignore[call-arg]
    if int(other) >> 32 in (0xFFFF, 0x64FF9B << 64):  # type: ignore[call-overload]
        return
    one_client = address_key(str(address), prefix) == address_key(str(other), prefix)
    assert one_client == (bit >= prefix)


def test_a_network_of_another_size_never_collides_with_ipv4() -> None:
    assert address_key("3fff:1::", 32) != address_key("63.255.0.1", 32)


@pytest.mark.parametrize(("prefix", "one_bucket"), [(48, True), (56, True), (64, False), (128, False)])
def test_a_rule_counts_by_its_prefix(prefix: int, one_bucket: bool) -> None:
    rule = LimitRule("a", ("tenant", "ip"), 1, 60, ipv6_prefix=prefix)
    assert shared(rule, subject(address="2001:db8:1:1::1"), subject(address="2001:db8:1:2::1")) == one_bucket


# Routes


def test_a_route_has_its_own_bucket() -> None:
    rule = LimitRule("a", ("route",), 1, 60)
    assert shared(rule, subject(), subject(tenant=b"acme", address="192.0.2.1"))
    assert not shared(rule, subject(), subject(route=b"/v1/auth"))
    assert shared(rule, subject(route=b""), subject(route=b""))


# Headers

HEADER = LimitRule("a", ("header:x-api-key",), 1, 60)
ONE = (b"X-API-Key", b"one")


@pytest.mark.parametrize("other", [(b"X-API-Key", b"one"), (b"x-api-key", b"one"), (b"X-Api-Key", b"one \t")])
def test_the_same_value_has_the_same_bucket(other: tuple[bytes, bytes]) -> None:
    assert shared(HEADER, subject(ONE), subject((b"Accept", b"*/*"), other, tenant=b"acme"))


@pytest.mark.parametrize(
    "other", [(), ((b"X-API-Key", b"One"),), ((b"X_API_Key", b"one"),), ((b"X-API-Keys", b"one"),), (ONE, ONE)]
)
def test_another_value_has_another_bucket(other: tuple[tuple[bytes, bytes], ...]) -> None:
    assert not shared(HEADER, subject(ONE), subject(*other))


@pytest.mark.parametrize("fields", [(), ((b"X-API-Key", b""),), (ONE, ONE), (ONE, (b"x-api-key", b"junk"))])
def test_no_clear_value_is_one_shared_bucket(fields: tuple[tuple[bytes, bytes], ...]) -> None:
    """Which of several lines a service reads is its own affair: none of them may be a fresh bucket."""
    assert shared(HEADER, subject(), subject(*fields))


@pytest.mark.parametrize("value", [b"bearer abc", b"BEARER abc", b"Bearer   abc"])
def test_the_scheme_of_authorization_has_one_spelling(value: bytes) -> None:
    rule = LimitRule("a", ("header:authorization",), 1, 60)
    assert shared(rule, subject((b"Authorization", b"Bearer abc")), subject((b"authorization", value)))
    assert not shared(rule, subject((b"Authorization", b"Bearer ABC")), subject((b"authorization", value)))


def test_a_value_cannot_be_read_in_a_key() -> None:
    who = subject((b"X-API-Key", b"hunter2"))
    made = key(LimitRule("a", ("tenant", "header:x-api-key"), 1, 60), who)
    assert b"hunter2" not in made
    other = key_of(LimitRule("a", ("tenant", "header:x-api-key"), 1, 60), b"another secret")
    assert other is not None
    assert other(who) != made, "hashes of two processes cannot be compared"


# Keys of several parts

PARTS = st.sampled_from(["tenant", "ip", "route", "header:x-a", "header:x-b"])
TEXTS = st.binary(min_size=0, max_size=6).filter(lambda text: text == text.strip(b" \t"))
SUBJECTS = st.builds(
    lambda tenant, address, route, a, b: subject(
        (b"X-A", a), (b"X-B", b), tenant=tenant, address=address, route=route
    ),
    st.sampled_from([b"a", b"a1", b"1"]),
    st.sampled_from(["192.0.2.1", "2001:db8::1", "2001:db8:0:1::1", "unknown", "1:a"]),
    st.sampled_from([b"", b"/a", b"/a/1:a", b"1:a"]),
    TEXTS,
    TEXTS,
)


@given(st.lists(PARTS, min_size=1, max_size=5, unique=True), SUBJECTS, SUBJECTS)
def test_two_keys_are_equal_only_if_all_their_parts_are(parts: list[str], one: Subject, other: Subject) -> None:
    rule = LimitRule("a", tuple(parts), 1, 60, ipv6_prefix=128)

    def values(who: Subject) -> list[object]:
        headers = dict(who.head.fields)
        known = {"tenant": who.tenant, "ip": who.address, "route": who.route}
        return [known.get(part, headers.get(part.removeprefix("header:").upper().encode())) for part in parts]

    made = key_of(rule, b"secret")
    if made is not None:
        assert (made(one) == made(other)) == (values(one) == values(other))


def test_a_key_can_be_read_back() -> None:
    rule = LimitRule("a", ("tenant", "route", "ip", "header:x-a"), 1, 60, ipv6_prefix=48)
    read = dict(key_parts(rule, key(rule, subject((b"X-A", b"1")))))
    assert (read["tenant"], read["route"], read["ip"]) == ("koder", "/v1/users", "2001:db8:1::/48")
    assert read["header:x-a"].startswith("hash ")
    assert len(read["header:x-a"]) == len("hash ") + 32
    assert dict(key_parts(rule, key(rule, subject(route=b""))))["header:x-a"] == "none, or several"
    clients = LimitRule("d", ("client_id", "ip"), 1, 60)
    asking = subject()
    assert dict(key_parts(clients, key(clients, asking)))["client_id"] == "none, or several"
    asking.client = b"myapp"
    assert dict(key_parts(clients, key(clients, asking)))["client_id"] == "myapp"
    limiter = Limiter([LimitRule("b", ("ip", "tenant"), 1, 60)], 10)
    usual = limiter.meters[0].key(b"koder", address_key("2001:db8:0:2f00::1"))
    assert key_parts(limiter.meters[0].rule, usual) == (("ip", "2001:db8:0:2f00::/64"), ("tenant", "koder"))
    assert key_parts(LimitRule("c", (), 1, 60), b"") == ()

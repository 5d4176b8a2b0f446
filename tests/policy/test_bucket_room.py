"""The bound that all limits share: who has room, and what a flood of keys can make the gateway forget: nothing.

`KODER_TEST_KEYS` is the number of keys in the floods (`make test-long`: ten million).
"""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.policy.bucket_room import OVERFLOW_SLOTS, Room, overflow_key
from koder_gateway.policy.buckets import NO_ROOM, Buckets
from koder_gateway.policy.limit_keys import address_key
from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.limits import Limiter
from koder_gateway.policy.meter import Meter

KEYS = int(os.environ.get("KODER_TEST_KEYS", "100000"))
START = 5000.0


def fill(buckets: Buckets, count: int, tokens: int = 1, name: str = "k") -> int:
    """Take tokens of so many keys; how many of these keys were counted."""
    counted = 0
    for number in range(count):
        lefts = [buckets.spend(b"%b%d" % (name.encode(), number), START) for _ in range(tokens)]
        counted += NO_ROOM not in lefts
    return counted


# Who has room


def test_a_rule_has_what_the_others_do_not_need() -> None:
    room = Room(800)
    busy, _ = Buckets(0.01, 5, room), Buckets(0.01, 5, room)
    fill(busy, 2000)
    assert len(busy) == len(room) == 750, "an eighth is guaranteed, half of that to the other rule"


def test_a_rule_has_its_part_of_the_guaranteed_eighth() -> None:
    room = Room(800)
    busy, quiet = Buckets(0.01, 5, room), Buckets(0.01, 5, room)
    fill(busy, 2000, tokens=5)
    assert (len(busy), busy.spare) == (750, 0), "all of them are used up"
    assert fill(quiet, 50) == 50
    assert len(room) == 800
    assert quiet.spend(b"one more", START) == 4.0, "in place of an older one of its own"
    assert len(room) == 800
    assert busy.spend(b"one more", START) == NO_ROOM


def test_the_largest_gives_way() -> None:
    room = Room(800)
    busy, quiet, other = (Buckets(0.01, 5, room) for _ in range(3))
    fill(quiet, 100)
    fill(busy, 2000)
    fill(other, 300)
    assert (len(quiet), len(other)) == (100, 300)
    assert len(room) <= 800


def test_what_leaves_gives_its_place_back() -> None:
    room = Room(80)
    old, new = Buckets(1.0, 5, room), Buckets(1.0, 5, room)
    fill(old, 70)
    old.sweep(START + 10.0, 1000)
    assert len(room) == 0
    assert fill(new, 75) == 75
    new.leave()
    assert len(room) == 0
    assert fill(old, 80) == 80


def test_a_smaller_room_is_made_at_once() -> None:
    old = Limiter([LimitRule("a", ("ip",), 9, 60), LimitRule("b", ("tenant",), 9, 60)], 100)
    for number in range(60):
        old.admit(b"t%d" % number, b"%04d" % number, b"GET", b"/", START)
    assert old.entries == 100
    new = Limiter([LimitRule("b", ("tenant",), 9, 60), LimitRule("a", ("ip",), 9, 60)], 30)
    new.adopt(old)
    assert new.entries == 30


# What a flood can do


@pytest.mark.parametrize("burst", [1, 2, 5])
def test_a_flood_makes_nobody_forget(burst: int) -> None:
    """Neither one's own used-up bucket nor another's, whether the keys of the flood are used up as well or not."""
    room = Room(1000)
    buckets, others = Buckets(1e-6, burst, room), Buckets(1e-6, burst, room)
    for each in (buckets, others):
        assert fill(each, 20, tokens=burst, name="spent") == 20
    for number in range(KEYS):
        key = b"flood%d" % number
        for _ in range(1 + number % burst):
            buckets.spend(key, START + number / KEYS)
        if number % (KEYS // 50) == 0:
            assert all(buckets.spend(b"spent%d" % each, START + 1.0) < 0 for each in range(20))
            assert all(others.spend(b"spent%d" % each, START + 1.0) < 0 for each in range(20))
            assert len(room) <= 1000


def test_keys_in_a_circle_have_no_fresh_buckets() -> None:
    """Where few places are left, keys that come in turn do not push each other out of them."""
    buckets = Buckets(1e-9, 3, Room(800))
    fill(buckets, 790, tokens=3)
    taken = sum(buckets.spend(b"%d" % (number % 30), START) >= 0 for number in range(20 * 30))
    assert taken == 3 * 10


@pytest.mark.parametrize("charge", ["requests", "failures"])
def test_a_provider_of_many_networks_has_one_bucket_more(charge: str) -> None:
    """Each /64 of a /32 uses up its bucket, and the table is full of these: the rest of the /32 shares one bucket."""
    rule = LimitRule("login", ("tenant", "ip"), 1, 3600, burst=2, charge=charge)  # type: ignore[arg-type]
    limiter = Limiter([rule], 100)

    def guess(address: str) -> bool:
        plan = limiter.plan(b"POST", b"/", plain=True)
        assert plan is not None
        verdict = plan.judge(b"koder", address_key(address), START)
        if charge == "failures":
            limiter.settle(verdict, 401, True, START)
        return verdict.refused is None

    passed = [guess(f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1") for number in range(3000) for _ in range(2)]
    spent = 100 - 100 // 8
    assert 2 * spent <= sum(passed) <= 2 * 100 + 8
    assert not guess("2001:db8:0:0::1"), "the first is still used up"
    assert guess("2001:db9::1")
    assert guess("192.0.2.1")


def test_the_sole_rule_and_refusals_count_by_network_too() -> None:
    traffic = LimitRule("traffic", ("ip",), 1, 3600, burst=1)
    refusals = LimitRule("refusals", ("ip",), 1, 3600, burst=1, charge="refusals")
    limiter = Limiter([traffic, refusals], 16)
    addresses = [b"%08d" % number for number in range(1000)]
    assert sum(limiter.admit(b"t", each, b"GET", b"/", START, True).refused is None for each in addresses) < 20
    assert sum(not limiter.refused(each, START) for each in addresses) < 20
    assert limiter.entries <= 16


def test_networks_are_wide_and_few() -> None:
    assert overflow_key(address_key("2001:db8:1::1")) == overflow_key(address_key("2001:db8:ffff::1"))
    assert overflow_key(address_key("192.0.2.1")) == overflow_key(address_key("192.0.77.1"))
    seen = {overflow_key(number.to_bytes(4, "big")) for number in range(0, 1 << 32, 1 << 16)}
    assert len(seen) == OVERFLOW_SLOTS


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["spend", "charge", "knock", "left", "sweep"]),
        st.integers(0, 40),
        st.sampled_from([0.0, 0.1, 1.0, 5.0]),
    ),
    max_size=200,
)


@given(STEPS, st.integers(1, 30))
def test_whatever_happens_the_bound_holds_and_the_spent_stay(
    steps: list[tuple[int, str, int, float]], bound: int
) -> None:
    room, now = Room(bound), START
    pools = [Buckets(1.0, 2, room, debt) for debt in (0, 0, 4)]
    spent: dict[tuple[int, bytes], float] = {}
    for which, action, number, wait in steps:
        now += wait
        buckets, key = pools[which], b"%d" % number
        if action == "sweep":
            buckets.sweep(now, 10)
        else:
            getattr(buckets, action)(key, now)
        if key in buckets and (left := buckets.left(key, now)) < 0.9:
            spent[which, key] = now + 1.0 - left
        assert len(room) == sum(map(len, pools)) <= bound
        for (each, used), until in list(spent.items()):
            if now >= until - 1e-3:
                del spent[each, used]
            else:
                assert used in pools[each]
                assert pools[each].left(used, now) < 1.0


@pytest.mark.parametrize("key", [("ip",), ("tenant", "ip"), ("tenant",)])
def test_a_failure_without_room_is_charged_to_its_own_network_or_to_nobody(key: tuple[str, ...]) -> None:
    rule = LimitRule("login", key, 3, 3600, charge="failures")
    room = Room(100)
    meter = Meter(rule, room)
    network = address_key("192.0.2.1")
    counted = meter.key(b"koder", network)
    meter.held[counted] = 1
    assert fill(meter.buckets, 100, tokens=3) == 100
    meter.settle(counted, True, START)
    assert meter.held == {}
    assert counted not in meter.buckets
    left = meter.buckets.left(overflow_key(network), START)
    assert left == (3.0 if key == ("tenant",) else 2.0)
    assert meter.buckets.idle is False
    assert len(meter.buckets._overflow) == (key != ("tenant",))

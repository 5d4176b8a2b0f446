"""Token buckets: their invariants, what is given back, bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from koder_gateway.policy.bucket_room import Room
from koder_gateway.policy.buckets import NO_ROOM, Buckets

START = 5000.0


# One bucket


def test_a_bucket_gives_its_burst_then_refills_at_its_rate() -> None:
    buckets = Buckets(rate=0.5, burst=3, room=Room(10))
    assert [buckets.spend(b"k", START) for _ in range(4)] == [2.0, 1.0, 0.0, -1.0]
    assert buckets.spend(b"k", START + 1.0) == -0.5
    assert buckets.spend(b"k", START + 2.0) == 0.0
    assert buckets.spend(b"k", START + 2.0) == -1.0
    assert buckets.left(b"k", START + 4.0) == 1.0
    assert buckets.left(b"k", START + 100.0) == 3.0
    assert buckets.left(b"never seen", START) == 3.0


def test_refused_requests_cost_nothing() -> None:
    buckets = Buckets(rate=1.0, burst=1, room=Room(10))
    buckets.spend(b"k", START)
    for _ in range(100):
        assert buckets.spend(b"k", START + 0.5) < 0
    assert buckets.spend(b"k", START + 1.0) == 0.0


@pytest.mark.parametrize("spent", [1, 5])
def test_a_clock_set_back_locks_nobody_out(spent: int) -> None:
    buckets = Buckets(rate=1.0, burst=5, room=Room(10))
    for _ in range(spent):
        buckets.spend(b"k", START)
    earlier = START - 4000.0
    assert buckets.left(b"k", earlier) == 0.0
    assert buckets.spend(b"k", earlier) == -1.0
    assert buckets.spend(b"k", earlier + 1.0) == 0.0
    assert buckets.left(b"k", earlier + 6.0) == 5.0


def test_a_sweep_after_the_clock_was_set_back_locks_nobody_in() -> None:
    buckets = Buckets(rate=1.0, burst=2, room=Room(10))
    buckets.spend(b"spare", START)
    for _ in range(2):
        buckets.spend(b"spent", START)
    earlier = START - 4000.0
    for seconds in (0.0, 3.0):
        buckets.sweep(earlier + seconds, 10)
    assert len(buckets) == 0


rates = st.sampled_from([(1, 1), (10, 60), (7, 3600), (3, 1), (1000, 1)])
bursts = st.integers(1, 8)
gaps = st.lists(st.floats(0.0, 30.0) | st.just(0.0), max_size=60)


@given(rates, bursts, gaps, st.floats(0.0, 1e6))
def test_no_window_admits_more_than_burst_and_rate_allow(
    rate: tuple[int, int], burst: int, waits: list[float], start: float
) -> None:
    per_second = rate[0] / rate[1]
    buckets = Buckets(per_second, burst, Room(10))
    admitted, now = [], start
    for wait in waits:
        now += wait
        if buckets.spend(b"k", now) >= 0:
            admitted.append(now)
    for first, begin in enumerate(admitted):
        for last in range(first, len(admitted)):
            assert last - first + 1 <= burst + per_second * (admitted[last] - begin) + 1e-3


@given(rates, bursts, gaps)
def test_a_bucket_is_never_stricter_than_its_definition(
    rate: tuple[int, int], burst: int, waits: list[float]
) -> None:
    """Beside the textbook bucket: tokens as a float, refilled by elapsed time."""
    per_second = rate[0] / rate[1]
    buckets = Buckets(per_second, burst, Room(10))
    tokens, now = float(burst), START
    for wait in waits:
        now += wait
        tokens = min(float(burst), tokens + wait * per_second)
        assume(abs(tokens - 1.0) > 1e-5)  # On the very edge either answer is right.
        taken = buckets.spend(b"k", now) >= 0
        assert taken == (tokens >= 1.0)
        tokens -= taken
        assert buckets.left(b"k", now) == pytest.approx(tokens, abs=1e-4)


@given(st.permutations([b"a"] * 4 + [b"b"] * 4 + [b"c"] * 2))
def test_keys_do_not_disturb_each_other_in_any_order(order: list[bytes]) -> None:
    buckets = Buckets(rate=1.0, burst=3, room=Room(10))
    taken = dict.fromkeys(order, 0)
    for key in order:
        taken[key] += buckets.spend(key, START) >= 0
    assert taken == {b"a": 3, b"b": 3, b"c": 2}


# Tokens charged afterwards


def test_what_is_charged_afterwards_may_be_owed() -> None:
    buckets = Buckets(rate=1.0, burst=2, room=Room(10), debt=3)
    for left, owed in ((1.0, 0.0), (0.0, 0.0), (0.0, 1.0), (0.0, 2.0), (0.0, 3.0), (0.0, 3.0)):
        buckets.charge(b"k", START)
        assert (buckets.left(b"k", START), buckets.owed(b"k", START)) == (left, owed)
    buckets.knock(b"k", START)
    buckets.sweep(START, 10)
    assert buckets.spend(b"k", START + 3.5) < 0
    assert buckets.owed(b"k", START + 2.0) == 1.0
    assert buckets.spend(b"k", START + 4.0) == 0.0


def test_without_debt_a_bucket_is_empty_at_most() -> None:
    buckets = Buckets(rate=1.0, burst=2, room=Room(10))
    for _ in range(5):
        buckets.charge(b"k", START)
    assert (buckets.left(b"k", START), buckets.owed(b"k", START)) == (0.0, 0.0)
    assert buckets.spend(b"k", START + 1.0) == 0.0


script = st.lists(
    st.tuples(st.sampled_from(["spend", "charge", "knock"]), st.integers(0, 12), st.floats(0.0, 2.0)), max_size=80
)


@given(script, bursts, st.integers(1, 10), st.integers(0, 5))
def test_charging_keeps_the_bounds(script: list[tuple[str, int, float]], burst: int, bound: int, debt: int) -> None:
    """Whatever is charged, and when: no bucket passes its burst or debt, nor their number the bound."""
    buckets, now = Buckets(1.0, burst, Room(bound), debt), START
    for action, number, wait in script:
        now += wait
        key = b"%d" % number
        getattr(buckets, action)(key, now)
        left = buckets.left(key, now)
        assert 0.0 <= left <= burst or (left == NO_ROOM and len(buckets) == bound)
        assert buckets.owed(key, now) <= debt + 1e-6
        assert len(buckets) <= bound


# Bounded memory


def test_a_flood_of_keys_stays_bounded_and_offenders_stay_limited() -> None:
    buckets = Buckets(rate=0.01, burst=5, room=Room(200))
    offenders = [b"bad%d" % number for number in range(20)]
    for key in offenders * 5:
        buckets.spend(key, START)
    for number in range(50_000):
        assert buckets.spend(b"random%d" % number, START + number / 1e4) >= 0
        assert len(buckets) <= 200
    assert all(buckets.spend(key, START + 5.0) < 0 for key in offenders)


def test_one_request_keys_do_not_push_out_one_that_keeps_knocking() -> None:
    """With a burst of 1 every key is used up at once: the one that knocked last is kept longest."""
    buckets = Buckets(rate=0.001, burst=1, room=Room(50))
    buckets.spend(b"bad", START)
    for number in range(5000):
        now = START + number / 1e3
        buckets.spend(b"random%d" % number, now)
        if number % 10 == 0:
            assert buckets.spend(b"bad", now) < 0
        assert len(buckets) <= 50


def test_the_bucket_nearest_to_full_is_forgotten_first() -> None:
    buckets = Buckets(rate=1.0, burst=10, room=Room(3))
    for key, times in ((b"busy", 6), (b"quiet", 1), (b"middle", 3)):
        for _ in range(times):
            buckets.spend(key, START)
    buckets.spend(b"new", START)
    assert b"quiet" not in buckets
    assert all(key in buckets for key in (b"busy", b"middle", b"new"))


def test_recovered_buckets_make_room_before_new_ones() -> None:
    buckets = Buckets(rate=1.0, burst=2, room=Room(2))
    for _ in range(2):
        buckets.spend(b"old", START)
    buckets.spend(b"new", START + 1.5)
    buckets.spend(b"newest", START + 1.6)
    assert b"old" not in buckets
    assert b"new" in buckets


def test_recovered_buckets_make_room_before_spent_ones() -> None:
    buckets = Buckets(rate=1.0, burst=2, room=Room(2))
    for _ in range(2):
        buckets.spend(b"old", START)
    for _ in range(2):
        buckets.spend(b"bad", START + 1.5)
    buckets.spend(b"new", START + 1.6)
    assert b"old" not in buckets
    assert buckets.spend(b"bad", START + 1.6) < 0


steps = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 4), st.floats(0.0, 0.3)),
    max_size=150,
)


@given(steps, st.integers(1, 20))
def test_no_spent_key_is_forgotten_while_another_could_be(script: list[tuple[int, int, float]], bound: int) -> None:
    """A key without a whole token vanishes only if every other has none, or got its one just now.

    Up to the handful that is looked at there is no "just now".
    """
    buckets = Buckets(rate=1.0, burst=3, room=Room(bound))
    allowed = 1.0 if bound <= 8 else 2.0
    now, seen = START, set[bytes]()
    for number, times, wait in script:
        now += wait
        key = b"%d" % number
        for _ in range(times):
            before = {each: buckets.left(each, now) for each in seen if each in buckets}
            buckets.spend(key, now)
            seen.add(key)
            assert len(buckets) <= bound
            if any(left < 0.99 and each not in buckets for each, left in before.items()):
                assert all(left < allowed for left in before.values())


def test_a_sweep_forgets_full_buckets_within_its_budget() -> None:
    buckets = Buckets(rate=1.0, burst=3, room=Room(100))
    for number in range(30):
        buckets.spend(b"%d" % number, START)
    for _ in range(3):
        buckets.spend(b"busy", START)
    buckets.sweep(START + 0.5, 100)
    assert len(buckets) == 31
    buckets.sweep(START + 1.0, 10)
    assert len(buckets) == 21
    for _ in range(3):
        buckets.sweep(START + 2.0, 10)
    assert len(buckets) == 1
    assert buckets.left(b"busy", START + 2.0) == 2.0
    buckets.sweep(START + 3.0, 10)
    assert len(buckets) == 0


def test_a_sweep_gets_past_buckets_that_are_in_use() -> None:
    buckets = Buckets(rate=0.001, burst=3, room=Room(100))
    for number in range(10):
        buckets.spend(b"slow%d" % number, START)
        buckets.spend(b"slow%d" % number, START)
    buckets.spend(b"quick", START - 999.0)
    for _ in range(6):
        buckets.sweep(START + 1.0, 2)
    assert b"quick" not in buckets
    assert len(buckets) == 10

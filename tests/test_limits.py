"""Rate limits: bucket invariants, bounded memory, the fields that clients see."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from koder_gateway.policy.limits import (
    MAX_QUOTA,
    Buckets,
    Limiter,
    LimitRule,
    Verdict,
    address_key,
    parse_rate,
)

POST = frozenset([b"POST"])
LOGIN = LimitRule("login", ("tenant", "ip"), 10, 60, paths=(b"/v1/auth",), methods=POST)
WIDE = LimitRule("wide", ("ip",), 100, 1)
START = 5000.0


def ask(
    limiter: Limiter,
    now: float = START,
    *,
    tenant: bytes = b"koder",
    address: bytes = b"\x0a\0\0\1",
    method: bytes = b"POST",
    path: bytes = b"/v1/auth/login",
) -> Verdict:
    return limiter.admit(tenant, address, method, path, now)


def refusals(limiter: Limiter, count: int, now: float = START) -> int:
    return sum(ask(limiter, now).refused is not None for _ in range(count))


def field(verdict: Verdict, name: str) -> str | None:
    lines = verdict.fields.decode("ascii").split("\r\n")
    assert lines[-1] == ""
    found = [line.partition(": ")[2] for line in lines if line.startswith(name + ": ")]
    assert len(found) <= 1
    return found[0] if found else None


# Rates and addresses


@pytest.mark.parametrize(
    ("text", "rate"),
    [("10/m", (10, 60)), ("1/s", (1, 1)), ("5/h", (5, 3600)), (f"{MAX_QUOTA}/s", (MAX_QUOTA, 1))],
)
def test_rates(text: str, rate: tuple[int, int]) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "10", "10/x", "10/min", "-1/s", "1.5/s", " 1/s", "1/s\n", "/s", "\u0661/s", "1 /s"]
)
def test_no_rates(text: str) -> None:
    with pytest.raises(ValueError, match=r'is not a rate; write a number and s, m or h, as in "10/m"'):
        parse_rate(text)


@pytest.mark.parametrize("text", ["0/s", f"{MAX_QUOTA + 1}/s"])
def test_rates_out_of_range(text: str) -> None:
    with pytest.raises(ValueError, match=f"must be from 1 to {MAX_QUOTA}"):
        parse_rate(text)


def test_addresses_that_belong_together_share_a_key() -> None:
    assert address_key("2001:db8:1:2::1") == address_key("2001:db8:1:2:ffff:ffff:ffff:ffff")
    assert address_key("2001:db8:1:2::1") != address_key("2001:db8:1:3::1")
    assert address_key("::ffff:10.0.0.1") == address_key("10.0.0.1")
    assert address_key("10.0.0.1") != address_key("10.0.0.2")
    assert address_key("fe80::1%eth0") == address_key("fe80::1")
    assert address_key("") == b""


def test_the_burst_is_the_quota_unless_given() -> None:
    assert LOGIN.burst == 10
    assert LimitRule("a", (), 10, 60, 5).burst == 5


# One bucket


def test_a_bucket_gives_its_burst_then_refills_at_its_rate() -> None:
    buckets = Buckets(rate=0.5, burst=3, max_entries=10)
    assert [buckets.spend(b"k", START) for _ in range(4)] == [2.0, 1.0, 0.0, -1.0]
    assert buckets.spend(b"k", START + 1.0) == -0.5
    assert buckets.spend(b"k", START + 2.0) == 0.0
    assert buckets.spend(b"k", START + 2.0) == -1.0
    assert buckets.left(b"k", START + 4.0) == 1.0
    assert buckets.left(b"k", START + 100.0) == 3.0
    assert buckets.left(b"never seen", START) == 3.0


def test_refused_requests_cost_nothing() -> None:
    buckets = Buckets(rate=1.0, burst=1, max_entries=10)
    buckets.spend(b"k", START)
    for _ in range(100):
        assert buckets.spend(b"k", START + 0.5) < 0
    assert buckets.spend(b"k", START + 1.0) == 0.0


@pytest.mark.parametrize("spent", [1, 5])
def test_a_clock_set_back_locks_nobody_out(spent: int) -> None:
    buckets = Buckets(rate=1.0, burst=5, max_entries=10)
    for _ in range(spent):
        buckets.spend(b"k", START)
    earlier = START - 4000.0
    assert buckets.left(b"k", earlier) == 0.0
    assert buckets.spend(b"k", earlier) == -1.0
    assert buckets.spend(b"k", earlier + 1.0) == 0.0
    assert buckets.left(b"k", earlier + 6.0) == 5.0


def test_a_sweep_after_the_clock_was_set_back_locks_nobody_in() -> None:
    buckets = Buckets(rate=1.0, burst=2, max_entries=10)
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
    buckets = Buckets(per_second, burst, 10)
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
    buckets = Buckets(per_second, burst, 10)
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
    buckets = Buckets(rate=1.0, burst=3, max_entries=10)
    taken = dict.fromkeys(order, 0)
    for key in order:
        taken[key] += buckets.spend(key, START) >= 0
    assert taken == {b"a": 3, b"b": 3, b"c": 2}


# Bounded memory


def test_a_flood_of_keys_stays_bounded_and_offenders_stay_limited() -> None:
    buckets = Buckets(rate=0.01, burst=5, max_entries=200)
    offenders = [b"bad%d" % number for number in range(20)]
    for key in offenders * 5:
        buckets.spend(key, START)
    for number in range(50_000):
        assert buckets.spend(b"random%d" % number, START + number / 1e4) >= 0
        assert len(buckets) <= 200
    assert all(buckets.spend(key, START + 5.0) < 0 for key in offenders)


def test_one_request_keys_do_not_push_out_one_that_keeps_knocking() -> None:
    """With a burst of 1 every key is used up at once: the one that knocked last is kept longest."""
    buckets = Buckets(rate=0.001, burst=1, max_entries=50)
    buckets.spend(b"bad", START)
    for number in range(5000):
        now = START + number / 1e3
        buckets.spend(b"random%d" % number, now)
        if number % 10 == 0:
            assert buckets.spend(b"bad", now) < 0
        assert len(buckets) <= 50


def test_the_bucket_nearest_to_full_is_forgotten_first() -> None:
    buckets = Buckets(rate=1.0, burst=10, max_entries=3)
    for key, times in ((b"busy", 6), (b"quiet", 1), (b"middle", 3)):
        for _ in range(times):
            buckets.spend(key, START)
    buckets.spend(b"new", START)
    assert b"quiet" not in buckets
    assert all(key in buckets for key in (b"busy", b"middle", b"new"))


def test_recovered_buckets_make_room_before_new_ones() -> None:
    buckets = Buckets(rate=1.0, burst=2, max_entries=2)
    for _ in range(2):
        buckets.spend(b"old", START)
    buckets.spend(b"new", START + 1.5)
    buckets.spend(b"newest", START + 1.6)
    assert b"old" not in buckets
    assert b"new" in buckets


def test_recovered_buckets_make_room_before_spent_ones() -> None:
    buckets = Buckets(rate=1.0, burst=2, max_entries=2)
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
    buckets = Buckets(rate=1.0, burst=3, max_entries=bound)
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
    buckets = Buckets(rate=1.0, burst=3, max_entries=100)
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
    buckets = Buckets(rate=0.001, burst=3, max_entries=100)
    for number in range(10):
        buckets.spend(b"slow%d" % number, START)
        buckets.spend(b"slow%d" % number, START)
    buckets.spend(b"quick", START - 999.0)
    for _ in range(6):
        buckets.sweep(START + 1.0, 2)
    assert b"quick" not in buckets
    assert len(buckets) == 10


# Fields


def test_the_fields_of_one_rule() -> None:
    limiter = Limiter([LOGIN], 100)
    first = ask(limiter)
    assert first == Verdict(None, b'RateLimit-Policy: "login";q=10;w=60\r\nRateLimit: "login";r=9;t=6\r\n')
    for _ in range(9):
        last = ask(limiter, START + 2.0)
    assert field(last, "RateLimit") == '"login";r=0;t=4'
    refused = ask(limiter, START + 2.0)
    assert refused.refused is LOGIN
    assert refused.fields == (
        b'RateLimit-Policy: "login";q=10;w=60\r\nRateLimit: "login";r=0;t=4\r\nRetry-After: 4\r\n'
    )


@pytest.mark.parametrize(
    ("rule", "policy"),
    [
        (LimitRule("a", (), 10, 60, 5), '"a";q=5;w=30'),
        (LimitRule("a", (), 10, 60, 20), '"a";q=20;w=120'),
        (LimitRule("a", (), 7, 60, 1), '"a";q=1;w=9'),
        (LimitRule("a", (), 1000000, 1, 1000000), '"a";q=1000000;w=1'),
        (LimitRule("a", (), 100, 1, 1), '"a";q=1;w=1'),
        (LimitRule('a"\\%d', (), 1, 1), '"a\\"\\\\%d";q=1;w=1'),
    ],
)
def test_the_policy_is_one_that_can_be_obeyed(rule: LimitRule, policy: str) -> None:
    for rules in ([rule], [rule, LimitRule("shadow", (), 1, 1, mode="shadow")]):
        verdict = ask(Limiter(rules, 10))
        assert field(verdict, "RateLimit-Policy") == policy
        assert (field(verdict, "RateLimit") or "").startswith(policy.partition(";")[0] + ";r=")


@given(st.integers(1, 50), st.sampled_from([1, 60, 3600]), bursts, st.floats(0.0, 1e6), st.integers(1, 5))
def test_a_client_that_obeys_is_never_refused(quota: int, window: int, burst: int, start: float, rounds: int) -> None:
    limiter = Limiter([LimitRule("a", (), quota, window, burst)], 10)
    now = start
    for _ in range(rounds):
        for _ in range(burst):
            verdict = ask(limiter, now)
            assert verdict.refused is None
        match = re.fullmatch(r'"a";q=(\d+);w=(\d+)', field(verdict, "RateLimit-Policy") or "")
        assert match is not None
        assert int(match[1]) == burst
        now += int(match[2])


@given(st.integers(1, 50), st.sampled_from([1, 60, 3600]), bursts, st.floats(0.0, 1e6), st.floats(0.0, 10.0))
def test_a_client_that_waits_as_told_is_admitted(
    quota: int, window: int, burst: int, start: float, wait: float
) -> None:
    limiter = Limiter([LimitRule("a", (), quota, window, burst)], 10)
    for _ in range(burst):
        ask(limiter, start)
    verdict = ask(limiter, start + wait)
    if verdict.refused is not None:
        retry = int(field(verdict, "Retry-After") or 0)
        assert retry >= 1
        assert field(verdict, "RateLimit") == f'"a";r=0;t={retry}'
        assert ask(limiter, start + wait + retry).refused is None
        assert retry == 1 or limiter.meters[0].buckets.left(b"", start + wait + retry - 1.0) < 1.0


def test_fields_do_not_depend_on_the_last_bit_of_a_float() -> None:
    for rules in ([LOGIN], [LOGIN, LimitRule("s", (), 1, 60, mode="shadow")]):
        for number in range(500):
            limiter, now = Limiter(rules, 100), 8170.0 + number * 0.1  # Floats get coarser at 8192.
            for _ in range(10):
                last = ask(limiter, now)
            assert field(last, "RateLimit") == '"login";r=0;t=6'
            for back in (6.0, 12.0):
                assert field(ask(limiter, now + back), "RateLimit") == '"login";r=0;t=6'
            assert field(ask(limiter, now + 24.0), "RateLimit") == '"login";r=1;t=6'


def test_remaining_counts_down_and_t_never_grows_within_a_moment() -> None:
    limiter = Limiter([LimitRule("a", (), 5, 60)], 10)
    seen = [re.fullmatch(r'"a";r=(\d+);t=(\d+)', field(ask(limiter), "RateLimit") or "") for _ in range(5)]
    left = [int(match[1]) for match in seen if match]
    assert left == [4, 3, 2, 1, 0]
    assert all(int(a[2]) == int(b[2]) == 12 for a, b in pairwise(seen) if a and b)


# Which rules apply


@pytest.mark.parametrize(
    ("method", "path", "names"),
    [
        (b"POST", b"/v1/auth", ["login", "deep", "wide"]),
        (b"POST", b"/v1/auth/a/b", ["login", "deep", "wide"]),
        (b"POST", b"/v1/auth/mfa/x", ["login", "deep", "mfa", "wide"]),
        (b"GET", b"/v1/auth/mfa/x", ["deep", "mfa", "wide"]),
        (b"GET", b"/v1/auth", ["deep", "wide"]),
        (b"POST", b"/v1/auth2", ["wide"]),
        (b"PATCH", b"/", ["wide"]),
        (b"OPTIONS", b"*", ["wide"]),
    ],
)
def test_rules_apply_by_path_and_method(method: bytes, path: bytes, names: list[str]) -> None:
    rules = [
        LOGIN,
        LimitRule("deep", ("ip",), 100, 1, paths=(b"/v1/auth/", b"/other")),
        LimitRule("mfa", ("ip",), 100, 1, paths=(b"/v1/auth/mfa",)),
        WIDE,
    ]
    limiter = Limiter(rules, 100)
    assert [rule.name for rule in limiter.rules_for(method, path)] == names
    verdict = ask(limiter, method=method, path=path)
    policies = (field(verdict, "RateLimit-Policy") or "").split(", ")
    assert [policy.split('"')[1] for policy in policies] == names
    assert len((field(verdict, "RateLimit") or "").split(", ")) == len(names)


def test_no_rule_no_fields() -> None:
    assert ask(Limiter([], 10)) == Verdict()
    assert ask(Limiter([LOGIN], 10), method=b"GET") == Verdict()
    assert ask(Limiter([LOGIN], 10), path=b"/v1/authx") == Verdict()
    assert Limiter([LOGIN], 10).rules_for(b"GET", b"/x") == ()


@pytest.mark.parametrize(
    ("key", "same_tenant", "same_address"),
    [(("tenant", "ip"), False, False), (("tenant",), False, True), (("ip",), True, False), ((), True, True)],
)
def test_what_is_counted_apart(key: tuple[str, ...], same_tenant: bool, same_address: bool) -> None:
    """`same_tenant`: whether another tenant from the same address shares the bucket, and so on."""
    limiter = Limiter([LimitRule("a", key, 1, 60)], 100)
    ask(limiter)
    assert ask(limiter).refused is not None
    assert (ask(limiter, tenant=b"acme").refused is not None) == same_tenant
    assert (ask(limiter, address=b"\x0a\0\0\2").refused is not None) == same_address


# Several rules


def test_a_refusal_charges_no_other_rule() -> None:
    strict = LimitRule("strict", ("ip",), 1, 60)
    limiter = Limiter([strict, LimitRule("wide", ("ip",), 10, 60)], 100)
    assert field(ask(limiter), "RateLimit") == '"strict";r=0;t=60, "wide";r=9;t=6'
    for _ in range(5):
        refused = ask(limiter)
        assert refused.refused is strict
        assert field(refused, "RateLimit") == '"strict";r=0;t=60, "wide";r=9;t=6'
        assert field(refused, "Retry-After") == "60"


def test_the_longest_wait_decides() -> None:
    short, long = LimitRule("short", (), 1, 1), LimitRule("long", (), 1, 3600)
    for rules in ([short, long], [long, short]):
        limiter = Limiter(rules, 100)
        ask(limiter)
        verdict = ask(limiter)
        assert verdict.refused is long
        assert field(verdict, "Retry-After") == "3600"


def test_a_clock_set_back_locks_nobody_out_of_several_rules() -> None:
    limiter = Limiter([LimitRule("a", (), 1, 60), LimitRule("b", (), 9, 60)], 100)
    ask(limiter)
    earlier = START - 4000.0
    assert ask(limiter, earlier).refused is not None
    assert ask(limiter, earlier + 60.0).refused is None


def test_counters() -> None:
    limiter = Limiter([LimitRule("a", (), 2, 60), LimitRule("s", (), 1, 60, mode="shadow")], 100)
    assert refusals(limiter, 5) == 3
    a, s = limiter.meters
    assert (a.admitted, a.refused, a.shadowed) == (2, 3, 0)
    assert (s.admitted, s.refused, s.shadowed) == (1, 0, 4)
    assert limiter.entries == 2
    limiter.sweep(START + 1000.0, 10)
    assert limiter.entries == 0


def test_a_shadow_rule_only_counts() -> None:
    limiter = Limiter([LimitRule("s", (), 1, 60, mode="shadow")], 100)
    assert ask(limiter) == Verdict()
    for _ in range(3):
        assert ask(limiter) == Verdict(shadowed=("s",))
    assert limiter.meters[0].shadowed == 3


def test_a_shadow_rule_changes_nothing_for_the_others() -> None:
    limiter = Limiter([LimitRule("s", (), 1, 60, mode="shadow"), LimitRule("a", (), 3, 60)], 100)
    ask(limiter)
    verdict = ask(limiter)
    assert verdict.shadowed == ("s",)
    assert verdict.fields == b'RateLimit-Policy: "a";q=3;w=60\r\nRateLimit: "a";r=1;t=20\r\n'


# Charged by failure


FAILURES = LimitRule("guess", ("ip",), 2, 60, charge="failures")


@pytest.mark.parametrize(
    ("status", "charged"),
    [(200, False), (302, False), (399, False), (429, False), (500, False), (502, False), (0, False)]
    + [(status, True) for status in (400, 401, 403, 404, 422, 499)],
)
def test_only_failures_are_charged(status: int, charged: bool) -> None:
    limiter = Limiter([FAILURES], 100)
    verdict = ask(limiter)
    assert field(verdict, "RateLimit") == '"guess";r=2;t=30'
    limiter.settle(verdict, status, START)
    assert field(ask(limiter), "RateLimit") == f'"guess";r={1 if charged else 2};t=30'


def test_enough_failures_refuse() -> None:
    limiter = Limiter([FAILURES], 100)
    for _ in range(2):
        limiter.settle(ask(limiter), 401, START)
    refused = ask(limiter)
    assert refused.refused is FAILURES
    assert field(refused, "Retry-After") == "30"
    assert refused.pending == ()
    limiter.settle(refused, 429, START)
    assert ask(limiter, START + 30.0).refused is None
    assert ask(limiter, START + 29.0).refused is not None


def test_failures_under_way_together_empty_the_bucket_but_go_no_deeper() -> None:
    limiter = Limiter([FAILURES], 100)
    for verdict in [ask(limiter) for _ in range(50)]:
        limiter.settle(verdict, 401, START)
    assert field(ask(limiter), "Retry-After") == "30"


def test_a_refused_request_owes_nothing_to_the_other_rules() -> None:
    limiter = Limiter([FAILURES, LimitRule("a", (), 1, 60)], 100)
    assert len(ask(limiter).pending) == 1
    assert ask(limiter).pending == ()


# Reload and bounds


def test_a_reload_keeps_buckets_and_counters() -> None:
    old = Limiter([LOGIN], 100)
    refusals(old, 12)
    new = Limiter([WIDE, LOGIN], 100)
    new.adopt(old)
    assert ask(new).refused == LOGIN
    assert (new.meters[1].admitted, new.meters[1].refused) == (10, 3)


@pytest.mark.parametrize(
    "changed",
    [
        LimitRule("other", ("tenant", "ip"), 10, 60),
        LimitRule("login", ("ip",), 10, 60),
        LimitRule("login", ("tenant", "ip"), 11, 60),
        LimitRule("login", ("tenant", "ip"), 10, 60, 9),
    ],
)
def test_a_reload_with_another_meaning_starts_afresh(changed: LimitRule) -> None:
    old = Limiter([LOGIN], 100)
    refusals(old, 12)
    new = Limiter([changed], 100)
    new.adopt(old)
    assert ask(new).refused is None


def test_what_is_under_way_at_a_reload_is_charged_where_it_counts() -> None:
    old = Limiter([FAILURES], 100)
    under_way = [ask(old), ask(old)]
    new = Limiter([FAILURES], 100)
    new.adopt(old)
    for verdict in under_way:
        new.settle(verdict, 401, START)
    assert ask(new).refused is not None


def test_a_reload_to_a_smaller_bound_forgets_what_is_nearest_to_full() -> None:
    rule = LimitRule("a", ("ip",), 10, 60)
    old = Limiter([rule], 100)
    for number in range(50):
        ask(old, address=b"%d" % number)
    for _ in range(10):
        ask(old, address=b"bad")
    new = Limiter([rule], 5)
    new.adopt(old)
    assert new.entries == 5
    assert ask(new, address=b"bad").refused is not None


def test_the_bound_is_shared_by_the_rules() -> None:
    limiter = Limiter([WIDE, LOGIN], 100)
    for number in range(500):
        ask(limiter, address=b"%d" % number)
    assert limiter.entries == 100

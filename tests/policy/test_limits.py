"""Rate limits: which rules apply, what they charge, the fields that clients see."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.policy.limit_keys import address_key
from koder_gateway.policy.limit_rules import MAX_QUOTA, LimitRule, parse_rate
from koder_gateway.policy.limits import Limiter
from koder_gateway.policy.meter import SIDE_BY_SIDE, Crowded, LimitResult
from tests.kit.limits import rules_of

POST = frozenset([b"POST"])
LOGIN = LimitRule("login", ("tenant", "ip"), 10, 60, paths=(b"/v1/auth",), methods=POST)
WIDE = LimitRule("wide", ("ip",), 100, 1)
START = 5000.0
bursts = st.integers(1, 8)


def ask(
    limiter: Limiter,
    now: float = START,
    *,
    tenant: bytes = b"koder",
    address: bytes = b"\x0a\0\0\1",
    method: bytes = b"POST",
    path: bytes = b"/v1/auth/login",
) -> LimitResult:
    return limiter.admit(tenant, address, method, path, now)


def refusals(limiter: Limiter, count: int, now: float = START) -> int:
    return sum(ask(limiter, now).refused is not None for _ in range(count))


def field(verdict: LimitResult, name: str) -> str | None:
    lines = verdict.fields.decode("ascii").split("\r\n")
    assert lines[-1] == ""
    found = [line.partition(": ")[2] for line in lines if line.startswith(name + ": ")]
    assert len(found) <= 1
    return found[0] if found else None


# Rates and addresses


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/m", (10, 60)),
        ("1/s", (1, 1)),
        ("5/h", (5, 3600)),
        ("3/d", (3, 86400)),
        (f"{MAX_QUOTA}/s", (MAX_QUOTA, 1)),
    ],
)
def test_rates(text: str, rate: tuple[int, int]) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "10", "10/x", "10/min", "-1/s", "1.5/s", " 1/s", "1/s\n", "/s", "\u0661/s", "1 /s"]
)
def test_no_rates(text: str) -> None:
    with pytest.raises(ValueError, match=r'is not a rate; write a number and s, m, h or d, as in "10/m"'):
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


# Fields


def test_the_fields_of_one_rule() -> None:
    limiter = Limiter([LOGIN], 100)
    first = ask(limiter)
    assert first == LimitResult(None, b'RateLimit-Policy: "login";q=10;w=60\r\nRateLimit: "login";r=9;t=6\r\n')
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
    assert [rule.name for rule in rules_of(limiter, method, path)] == names
    verdict = ask(limiter, method=method, path=path)
    policies = (field(verdict, "RateLimit-Policy") or "").split(", ")
    assert [policy.split('"')[1] for policy in policies] == names
    assert len((field(verdict, "RateLimit") or "").split(", ")) == len(names)


def test_no_rule_no_fields() -> None:
    assert ask(Limiter([], 10)) == LimitResult()
    assert ask(Limiter([LOGIN], 10), method=b"GET") == LimitResult()
    assert ask(Limiter([LOGIN], 10), path=b"/v1/authx") == LimitResult()
    assert rules_of(Limiter([LOGIN], 10), b"GET", b"/x") == ()


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


KEYS = ((), ("tenant",), ("ip",), ("tenant", "ip"))


@pytest.mark.parametrize("first", KEYS)
@pytest.mark.parametrize("second", KEYS)
def test_each_of_several_rules_counts_under_its_own_key(first: tuple[str, ...], second: tuple[str, ...]) -> None:
    plan = Limiter((LimitRule("wide", first, 5, 60), LimitRule("narrow", second, 1, 60)), max_entries=100).plan(
        b"GET", b"/", True
    )
    assert plan is not None
    assert plan.judge(b"acme", b"1111", 0.0).refused is None
    for tenant, address in ((b"acme", b"2222"), (b"other", b"1111"), (b"acme", b"1111")):
        same = ("tenant" not in second or tenant == b"acme") and ("ip" not in second or address == b"1111")
        refused = plan.judge(tenant, address, 0.0).refused
        assert (refused is not None and refused.name == "narrow") == same


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
    assert ask(limiter) == LimitResult()
    for _ in range(3):
        assert ask(limiter) == LimitResult(shadowed=("s",))
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
    ("status", "served", "charged"),
    [(status, True, False) for status in (200, 302, 399, 402, 404, 409, 422, 429, 499, 500, 502, 599)]
    + [(status, True, True) for status in (400, 401, 403)]
    # The gateway's own refusals cost nothing, sent or not; an answer that nobody waited for does.
    + [(status, False, False) for status in (400, 404, 408, 413, 429, 502, 504)]
    + [(0, False, False), (0, True, True)],
)
def test_only_failures_are_charged(status: int, served: bool, charged: bool) -> None:
    limiter = Limiter([FAILURES], 100)
    for _ in range(3):
        ask(limiter, address=b"somebody else's")
    verdict = ask(limiter)
    assert field(verdict, "RateLimit") == '"guess";r=2;t=30'
    limiter.settle(verdict, status, served, START)
    assert field(ask(limiter), "RateLimit") == f'"guess";r={1 if charged else 2};t=30'


def test_each_rule_has_its_own_failures() -> None:
    fewer = replace(FAILURES, name="fewer", statuses=frozenset((401, 422)))
    limiter = Limiter([FAILURES, fewer], 100)
    for status, left in ((422, (2, 1)), (403, (1, 1)), (401, (0, 0))):
        verdict = ask(limiter)
        limiter.settle(verdict, status, True, START)
        assert tuple(int(meter.buckets.left(key, START)) for meter, key in verdict.pending) == left, status


def test_enough_failures_refuse() -> None:
    limiter = Limiter([FAILURES], 100)
    for _ in range(2):
        limiter.settle(ask(limiter), 401, True, START)
    refused = ask(limiter)
    assert refused.refused is FAILURES
    assert field(refused, "Retry-After") == "30"
    assert refused.pending == ()
    limiter.settle(refused, 429, False, START)
    assert ask(limiter, START + 29.0).refused is not None
    assert ask(limiter, START + 30.0).refused is None


def test_guesses_side_by_side_are_paid_for_afterwards() -> None:
    """A clean key may have many under way; what fails of them beyond the burst is owed, so the rate holds."""
    limiter = Limiter([FAILURES], 100)
    verdicts = [ask(limiter) for _ in range(50)]
    admitted = SIDE_BY_SIDE * FAILURES.burst
    assert [verdict.refused is None for verdict in verdicts] == [True] * admitted + [False] * (50 - admitted)
    assert isinstance(verdicts[-1], Crowded)
    assert field(verdicts[-1], "Retry-After") == "1"
    assert field(verdicts[-1], "RateLimit") == f'"guess";r={FAILURES.burst};t=30'
    for verdict in verdicts:
        limiter.settle(verdict, 401, True, START)
    owed = admitted - FAILURES.burst
    assert field(ask(limiter), "Retry-After") == str(30 * (owed + 1))
    assert ask(limiter, START + 30 * (owed + 1) - 1).refused is not None
    assert ask(limiter, START + 30 * (owed + 1)).refused is None


def test_a_crowded_shadow_charges_and_holds_nothing() -> None:
    limiter = Limiter([replace(FAILURES, mode="shadow")], 100)
    verdicts = [ask(limiter) for _ in range(50)]
    assert {verdict.refused for verdict in verdicts} == {None}
    assert sum(bool(verdict.pending) for verdict in verdicts) == SIDE_BY_SIDE * FAILURES.burst
    assert verdicts[-1].shadowed == ("guess",)


def test_the_rule_that_refuses_for_longest_is_named() -> None:
    limiter = Limiter([replace(FAILURES, burst=1, window=1), LimitRule("a", (), 4, 60)], 100)
    for _ in range(SIDE_BY_SIDE):
        ask(limiter)
    verdict = ask(limiter)
    assert (verdict.refused, type(verdict)) == (limiter.meters[1].rule, LimitResult)
    assert field(verdict, "Retry-After") == "15"


def test_who_has_failed_lately_has_less_room() -> None:
    limiter = Limiter([FAILURES], 100)
    limiter.settle(ask(limiter), 401, True, START)
    assert sum(ask(limiter).refused is None for _ in range(50)) == SIDE_BY_SIDE


def test_successes_leave_nothing_behind() -> None:
    limiter = Limiter([FAILURES], 100)
    for _ in range(50):
        under_way = [ask(limiter), ask(limiter)]
        assert all(verdict.refused is None for verdict in under_way)
        for verdict in under_way:
            limiter.settle(verdict, 200, True, START)
    assert limiter.entries == 0


def test_failures_are_charged_to_the_address_that_failed() -> None:
    limiter = Limiter([FAILURES], 100)
    mine, theirs = ask(limiter, address=b"mine"), ask(limiter, address=b"theirs")
    limiter.settle(mine, 200, True, START)
    limiter.settle(theirs, 401, True, START)
    assert field(ask(limiter, address=b"mine"), "RateLimit") == '"guess";r=2;t=30'
    assert field(ask(limiter, address=b"theirs"), "RateLimit") == '"guess";r=1;t=30'


def test_only_rules_that_charge_failures_wait_for_the_answer() -> None:
    limiter = Limiter([FAILURES, LimitRule("a", (), 9, 60)], 100)
    limiter.settle(ask(limiter), 200, True, START)
    assert field(ask(limiter), "RateLimit") == '"guess";r=2;t=30, "a";r=7;t=7'


def test_a_refused_request_takes_nothing_from_the_other_rules() -> None:
    limiter = Limiter([FAILURES, LimitRule("a", (), 1, 60)], 100)
    assert len(ask(limiter).pending) == 1
    refused = ask(limiter)
    assert refused.pending == ()
    assert field(refused, "RateLimit") == '"guess";r=2;t=30, "a";r=0;t=60'


def test_a_shadow_of_failures_counts_what_it_would_refuse() -> None:
    limiter = Limiter([LimitRule("guess", (), 2, 60, mode="shadow", charge="failures")], 100)
    for status in (200, 401, 401):
        limiter.settle(ask(limiter), status, True, START)
    shadowed = ask(limiter)
    assert (shadowed.refused, shadowed.shadowed, shadowed.pending) == (None, ("guess",), ())
    assert limiter.meters[0].shadowed == 1


answers = st.tuples(st.sampled_from([0, 200, 401, 404, 429, 500]), st.booleans())


@given(st.lists(answers, max_size=40), st.integers(1, 8), st.randoms(use_true_random=False))
def test_in_any_order_of_answers_failures_are_bounded(
    script: list[tuple[int, bool]], side_by_side: int, random: Random
) -> None:
    """Some requests at a time, answered in any order: those under way are as many as the tokens left allow."""
    rule = LimitRule("guess", (), 5, 3600, charge="failures")
    limiter = Limiter([rule], 100)
    failed, under_way = 0, list[tuple[LimitResult, int, bool]]()
    for status, served in script:
        verdict = ask(limiter)
        left = rule.burst - failed
        assert (verdict.refused is None) == (left > 0 and len(under_way) < SIDE_BY_SIDE * left)
        if verdict.refused is None:
            under_way.append((verdict, status, served))
        if len(under_way) >= side_by_side or verdict.refused is not None:
            random.shuffle(under_way)
            while under_way:
                passed, status, served = under_way.pop()
                limiter.settle(passed, status, served, START)
                failed += served and status in (0, 401)
    assert failed < rule.burst + side_by_side
    for passed, status, served in under_way:
        limiter.settle(passed, status, served, START)
    assert not limiter.meters[0].held


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


def test_what_is_under_way_at_a_reload_is_settled_where_it_counts() -> None:
    old = Limiter([FAILURES], 100)
    under_way = [ask(old) for _ in range(SIDE_BY_SIDE * FAILURES.burst)]
    new = Limiter([FAILURES], 100)
    new.adopt(old)
    assert ask(new).refused is not None
    new.settle(under_way.pop(), 200, True, START)
    under_way.append(ask(new))
    assert under_way[-1].refused is None
    new.settle(under_way.pop(0), 401, True, START)
    assert ask(new).refused is not None
    for verdict in under_way:
        new.settle(verdict, 200, True, START)
    assert field(ask(new), "RateLimit") == '"guess";r=1;t=30'


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


# In flight


REPORTS = LimitRule("reports", ("tenant",), 0, 1, in_flight=2)
BUSY = b"Retry-After: 1\r\n"


def test_so_many_are_in_flight_and_no_more() -> None:
    limiter = Limiter([REPORTS], 100)
    first, second = ask(limiter), ask(limiter)
    assert (first.refused, first.fields, second.refused) == (None, b"", None)
    third = ask(limiter)
    assert (third.refused, third.fields, third.pending) == (REPORTS, BUSY, ())
    assert ask(limiter, tenant=b"acme").refused is None
    limiter.settle(third, 503, False, START)
    assert ask(limiter).refused is REPORTS, "a refused request has no place to give back"
    limiter.settle(first, 200, True, START)
    assert ask(limiter).refused is None
    assert ask(limiter).refused is REPORTS
    (meter,) = limiter.meters
    assert (meter.admitted, meter.refused, meter.shadowed) == (4, 3, 0)


def test_a_shadow_counts_what_it_would_refuse() -> None:
    limiter = Limiter([replace(REPORTS, mode="shadow")], 100)
    verdicts = [ask(limiter) for _ in range(5)]
    assert [verdict.refused for verdict in verdicts] == [None] * 5
    assert [verdict.shadowed for verdict in verdicts] == [(), (), ("reports",), ("reports",), ("reports",)]
    for verdict in verdicts:
        limiter.settle(verdict, 200, True, START)
    assert limiter.meters[0].held == {}
    assert limiter.meters[0].shadowed == 3


def test_the_fields_are_those_of_the_rates() -> None:
    limiter = Limiter([REPORTS, LOGIN], 100)
    ask(limiter)
    assert ask(limiter).fields == b'RateLimit-Policy: "login";q=10;w=60\r\nRateLimit: "login";r=8;t=6\r\n'
    refused = ask(limiter)
    assert refused.fields == b'RateLimit-Policy: "login";q=10;w=60\r\nRateLimit: "login";r=8;t=6\r\n' + BUSY


def test_what_is_in_flight_survives_a_reload() -> None:
    old = Limiter([REPORTS], 100)
    under_way = [ask(old), ask(old)]
    new = Limiter([replace(REPORTS, in_flight=3, paths=(b"/v1",))], 100)
    new.adopt(old)
    under_way.append(ask(new))
    assert ask(new).refused is not None
    for verdict in under_way:
        new.settle(verdict, 0, True, START)
    assert new.meters[0].held == {}
    other_key = Limiter([replace(REPORTS, key=("ip",))], 100)
    ask(new)
    other_key.adopt(new)
    assert other_key.meters[0].held == {}


def test_fewer_may_be_in_flight_than_are() -> None:
    """What is under way beyond a new figure makes no room anywhere else."""
    old = Limiter([replace(REPORTS, in_flight=6)], 100)
    under_way = [ask(old) for _ in range(6)]
    new = Limiter([replace(REPORTS, in_flight=4)], 100)
    new.adopt(old)
    assert ask(new).refused is not None
    for verdict in under_way[:3]:
        new.settle(verdict, 200, True, START)
    assert [ask(new).refused is None for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    "rules",
    [(REPORTS, replace(REPORTS, key=("ip",), name="b")), (REPORTS, LimitRule("guess", (), 3, 60, charge="failures"))],
)
@given(data=st.data())
def test_the_count_returns_to_zero(rules: tuple[LimitRule, ...], data: st.DataObject) -> None:
    """Requests of several clients come and end in any order, some of them as tunnels, settled at their start."""
    limiter, under_way, now = Limiter(rules, 100), [], START
    for _ in range(data.draw(st.integers(0, 30))):
        if under_way and data.draw(st.booleans()):
            verdict = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
            if data.draw(st.booleans()):
                limiter.settle(verdict, 101, True, now, ended=False)
                verdict = verdict.still_in_flight() or LimitResult()
            limiter.settle(verdict, data.draw(st.sampled_from([0, 200, 401, 503])), data.draw(st.booleans()), now)
        else:
            under_way.append(ask(limiter, now, tenant=data.draw(st.sampled_from([b"a", b"b"]))))
        counted = limiter.meters[0]
        admitted = sum(verdict.refused is None for verdict in under_way)
        assert sum(counted.held.values()) == admitted
        assert all(1 <= count <= 2 for count in counted.held.values())
    for verdict in under_way:
        limiter.settle(verdict, 200, True, now)
    assert [meter.held for meter in limiter.meters] == [{}, {}]


def test_a_limit_on_get_is_one_on_head_too() -> None:
    limiter = Limiter([LimitRule("reads", (), 5, 60, methods=frozenset([b"GET"])), LimitRule("all", (), 9, 60)], 100)
    names = {
        method: [rule.name for rule in rules_of(limiter, method, b"/x")]
        for method in (b"GET", b"HEAD", b"POST", b"PURGE")
    }
    assert names == {b"GET": ["reads", "all"], b"HEAD": ["reads", "all"], b"POST": ["all"], b"PURGE": ["all"]}
    heads = Limiter([LimitRule("heads", (), 5, 60, methods=frozenset([b"HEAD"]))], 100)
    assert not rules_of(heads, b"GET", b"/x")

"""Figures that a tenant has in place of a rule's own: what they change, for whom, and what stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from koder_gateway.policy import limit_overrides
from koder_gateway.policy.limit_overrides import misfit
from koder_gateway.policy.limit_rules import LimitRule, RateOverride
from koder_gateway.policy.limits import Limiter
from koder_gateway.policy.meter import LimitResult

START = 5000.0
LOGIN = LimitRule("login", ("tenant", "ip"), 2, 60)
TRAFFIC = LimitRule("traffic", ("ip",), 100, 60)
REPORTS = LimitRule("reports", ("tenant",), 0, 1, in_flight=1)
MORE = {"login": RateOverride(600, 60, 4)}
ADDRESS = b"\x0a\0\0\1"


def ask(
    limiter: Limiter, limits: Mapping[str, RateOverride], tenant: bytes = b"big", now: float = START
) -> LimitResult:
    plan = limiter.plan(b"POST", b"/v1/auth", plain=True)
    assert plan is not None
    return limiter.for_tenant(plan, tenant, limits).judge(tenant, ADDRESS, now)


def passed(limiter: Limiter, limits: Mapping[str, RateOverride], tenant: bytes = b"big", now: float = START) -> int:
    """How many of ten requests pass."""
    return sum(ask(limiter, limits, tenant, now).refused is None for _ in range(10))


def test_a_tenant_has_its_own_figures_and_the_others_have_the_rule_s() -> None:
    limiter = Limiter([LOGIN], 100)
    first = ask(limiter, MORE)
    assert first.fields == b'RateLimit-Policy: "login";q=4;w=1\r\nRateLimit: "login";r=3;t=1\r\n'
    assert passed(limiter, MORE) == 3
    assert passed(limiter, MORE, b"as-big") == 4, "the same figures, but a bucket of its own"
    assert passed(limiter, {}, b"small") == 2
    assert passed(limiter, MORE, now=START + 0.2) == 2
    assert list(limiter.counts()) == [("login", 12, 29, 0)]


def test_only_the_rule_of_that_name_changes() -> None:
    limiter = Limiter([LOGIN, TRAFFIC], 100)
    fields = ask(limiter, MORE).fields
    assert b'RateLimit-Policy: "login";q=4;w=1, "traffic";q=100;w=60\r\n' in fields
    plan = limiter.plan(b"POST", b"/")
    assert plan is not None
    assert limiter.for_tenant(plan, b"big", {"nothing": RateOverride(1, 1, 1)}) is plan


def test_an_override_is_live_at_once_and_the_same_one_keeps_its_bucket() -> None:
    limiter = Limiter([LOGIN], 100)
    assert passed(limiter, MORE) == 4
    assert passed(limiter, dict(MORE)) == 0, "read again, and the same"
    assert passed(limiter, {"login": RateOverride(600, 60, 6)}) == 6
    assert passed(limiter, {}) == 2
    assert passed(limiter, MORE) == 0, "a bucket that is used up stays so"


def test_a_rule_without_tenant_counts_such_a_tenant_apart() -> None:
    rule = replace(TRAFFIC, quota=2, burst=2)
    limiter = Limiter([rule], 100)
    more = {"traffic": RateOverride(3, 60, 3)}
    assert passed(limiter, {}, b"a") + passed(limiter, {}, b"b") == 2, "one address"
    assert passed(limiter, more) == 3
    assert passed(limiter, more, b"as-big") == 3
    assert passed(limiter, {}, b"c") == 0


@pytest.mark.parametrize(
    ("rule", "override", "why"),
    [
        (None, RateOverride(1, 1, 1), "is none of the limits"),
        (LOGIN, RateOverride(in_flight=3), "is a limit on a rate; write rate and burst"),
        (REPORTS, RateOverride(1, 1, 1), "is a limit on requests in flight; write in_flight"),
        (
            LimitRule("r", ("ip",), 1, 1, charge="refusals"),
            RateOverride(1, 1, 1),
            "is a limit on refusals, which may have no tenant",
        ),
        (LOGIN, RateOverride(1, 1, 1), None),
        (REPORTS, RateOverride(in_flight=3), None),
    ],
)
def test_what_does_not_fit_has_no_effect(rule: LimitRule | None, override: RateOverride, why: str | None) -> None:
    assert misfit(rule, override) == why
    if rule is not None and why is not None and rule.charge != "refusals":
        limiter = Limiter([rule], 100)
        assert passed(limiter, {rule.name: override}) == (rule.in_flight or rule.burst)


def test_what_is_in_flight_is_counted_on_when_the_number_changes() -> None:
    limiter = Limiter([REPORTS], 100)
    held = [ask(limiter, {})]
    assert passed(limiter, {"reports": RateOverride(in_flight=1)}) == 0
    held.append(ask(limiter, {"reports": RateOverride(in_flight=2)}))
    assert held[1].refused is None
    assert passed(limiter, {"reports": RateOverride(in_flight=2)}) == 0
    for verdict in held:
        limiter.settle(verdict, 200, True, START)
    assert all(meter.held == {} for meter in limiter.at_work())


def test_in_flight_without_tenant_counts_such_a_tenant_apart() -> None:
    limiter = Limiter([replace(REPORTS, key=("ip",))], 100)
    two = {"reports": RateOverride(in_flight=2)}
    assert passed(limiter, {}, b"a") == 1
    assert passed(limiter, two) == 2
    assert passed(limiter, {"reports": RateOverride(in_flight=3)}) == 1
    assert passed(limiter, two, b"as-big") == 2


@pytest.mark.parametrize("rule", [LOGIN, REPORTS, replace(REPORTS, key=("ip",))])
def test_a_reload_keeps_what_is_the_same(rule: LimitRule) -> None:
    more = {"login": RateOverride(600, 60, 4), "reports": RateOverride(in_flight=4)}
    old = Limiter([rule], 100)
    assert passed(old, more) == 4
    new = Limiter([replace(rule, paths=(b"/v1",))], 100)
    new.adopt(old)
    assert passed(new, more) == 0
    assert list(new.counts()) == [(rule.name, 4, 16, 0)]
    changed = Limiter([replace(rule, key=("tenant", "route"))], 100)
    changed.adopt(new)
    assert all(not meter.held and meter.buckets.idle for meter in changed.at_work())


def test_what_is_in_flight_is_counted_once_for_every_figure() -> None:
    shared, apart = REPORTS, LimitRule("all", (), 0, 1, in_flight=3)
    limiter = Limiter([shared, apart, LOGIN], 100)
    for _ in range(2):
        ask(limiter, {"reports": RateOverride(in_flight=4), "all": RateOverride(in_flight=9)})
    ask(limiter, {"reports": RateOverride(in_flight=5)}, b"other")
    assert limiter.in_flight() == {"reports": 3, "all": 3}


def test_failures_are_settled_where_they_were_admitted() -> None:
    limiter = Limiter([replace(LOGIN, charge="failures")], 100)
    verdicts = [ask(limiter, MORE) for _ in range(3)]
    for verdict in verdicts:
        limiter.settle(verdict, 401, True, START)
    assert b'"login";r=1;' in ask(limiter, MORE).fields
    assert b'"login";r=2;' in ask(limiter, {}, b"small").fields


def test_all_share_the_room() -> None:
    limiter = Limiter([LOGIN], 50)
    for number in range(200):
        figures = {"login": RateOverride(60 + number % 7, 60, 1)}
        ask(limiter, figures, b"t%d" % number)
    assert limiter.entries <= 50


def test_meters_of_nobody_are_dropped_and_their_counts_kept() -> None:
    limiter = Limiter([LOGIN, REPORTS], 1000)
    for number in range(20):
        verdict = ask(
            limiter, {"login": RateOverride(60, 1, number + 1), "reports": RateOverride(in_flight=number + 2)}
        )
        limiter.settle(verdict, 200, True, START)
    assert len(list(limiter.at_work())) == 2 + 40
    limiter.sweep(START + 10.0, 100)
    assert len(list(limiter.at_work())) == 2
    assert list(limiter.counts()) == [("login", 20, 0, 0), ("reports", 20, 0, 0)]
    assert limiter.entries == 0
    assert passed(limiter, MORE) == 1, "one at a time"


def test_beyond_so_many_figures_the_rule_s_own_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit_overrides, "_METERS", 3)
    monkeypatch.setattr(limit_overrides, "_PLANS", 2)
    limiter = Limiter([LOGIN], 1000)
    for number in range(5):
        taken = passed(limiter, {"login": RateOverride(1, 86400, 5 + number)}, b"t%d" % number)
        assert taken == (5 + number if number < 3 else 2)
    assert len(list(limiter.at_work())) == 4

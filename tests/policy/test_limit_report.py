"""Who is near a limit and who over it: found in bounded work, without charging anybody."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.policy.limit_keys import address_key
from koder_gateway.policy.limit_report import SHOWN, RuleUse, rule_uses
from koder_gateway.policy.limit_rules import LimitRule, RateOverride
from koder_gateway.policy.limits import Limiter

ACME = {"busy": RateOverride(in_flight=10), "login": RateOverride(600, 3600, 100)}


def figures(slug: bytes) -> dict[str, RateOverride]:
    return ACME if slug == b"acme" else {}


BOTH = LimitRule("login", ("tenant", "ip"), 60, 3600, 10)


def spend(limiter: Limiter, address: str, times: int, tenant: bytes = b"koder", now: float = 100) -> None:
    for _ in range(times):
        limiter.admit(tenant, address_key(address), b"GET", b"/", now, True)


def only(limiter: Limiter, now: float = 100.0, **options: int) -> RuleUse:
    (use,) = rule_uses(limiter, figures, now, **options)
    return use


def test_nobody() -> None:
    use = only(Limiter([BOTH], 100))
    assert (use.entries, use.examined, use.over, use.near) == (0, 0, (), ())


def test_who_is_near_and_who_over() -> None:
    limiter = Limiter([BOTH], 100)
    for number, times in enumerate((7, 8, 9, 10, 12)):
        spend(limiter, f"192.0.2.{number}", times)
    use = only(limiter)
    assert [(dict(key.parts)["ip"], key.left) for key in use.near] == [("192.0.2.2", 1), ("192.0.2.1", 2)]
    assert [(dict(key.parts)["ip"], key.left) for key in use.over] == [("192.0.2.4", 0), ("192.0.2.3", 0)]
    assert {key.wait for key in use.over} == {60}
    assert use.over[0].parts == (("tenant", "koder"), ("ip", "192.0.2.4"))
    assert (use.meter.admitted, use.meter.refused) == (44, 2)


def test_looking_changes_nothing() -> None:
    limiter = Limiter([BOTH], 100)
    spend(limiter, "192.0.2.1", 9)
    assert only(limiter) == only(limiter)
    assert only(limiter).near[0].left == 1


def test_a_limit_recovers_as_time_passes() -> None:
    limiter = Limiter([BOTH], 100)
    spend(limiter, "192.0.2.1", 10)
    assert [key.wait for key in only(limiter, 130).over] == [30]
    assert only(limiter, 160).over == ()
    assert [key.left for key in only(limiter, 160).near] == [1]
    assert only(limiter, 100.0 + 180).near == ()


def test_requests_in_flight() -> None:
    limiter = Limiter([LimitRule("busy", ("tenant",), 0, 1, in_flight=5)], 100)
    spend(limiter, "192.0.2.1", 4, b"globex")
    spend(limiter, "192.0.2.1", 5, b"acme")
    spend(limiter, "192.0.2.1", 6, b"koder")
    use = only(limiter)
    assert [(key.parts, key.left) for key in use.over] == [((("tenant", "koder"),), 0)]
    assert [(key.parts, key.left) for key in use.near] == [((("tenant", "globex"),), 1)]
    assert use.meter.refused == 1


def test_the_first_are_shown_and_the_rest_counted() -> None:
    limiter = Limiter([BOTH], 1000)
    for number in range(100):
        spend(limiter, f"192.0.2.{number}", 10)
    use = only(limiter)
    assert (use.entries, use.examined, len(use.over)) == (100, 100, SHOWN)


def test_those_over_are_found_among_many() -> None:
    limiter = Limiter([BOTH, LimitRule("few", ("tenant",), 1_000_000, 1)], 100_000)
    spend(limiter, "192.0.2.1", 11, now=100)
    for number in range(20_000):
        limiter.admit(b"koder", b"%04d" % number, b"GET", b"/", 100.0, True)
    both, few = rule_uses(limiter, figures, 100.0, most=50)
    assert (both.entries, both.examined, few.examined) == (20_001, 49, 1)
    assert [dict(key.parts)["ip"] for key in both.over] == ["192.0.2.1"]


@pytest.mark.parametrize("most", [0, 1, 7])
def test_no_more_is_examined_than_may(most: int) -> None:
    limiter = Limiter([BOTH, LimitRule("other", ("ip",), 10, 1)], 1000)
    for number in range(30):
        spend(limiter, f"192.0.2.{number}", 1)
    uses = rule_uses(limiter, figures, 100.0, most=most)
    assert [use.meter.rule.name for use in uses] == ["login", "other"]
    assert sum(use.examined for use in uses) == most


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 12)), max_size=20))
def test_what_is_shown_is_what_a_request_would_find(spent: list[tuple[int, int]]) -> None:
    limiter = Limiter([BOTH], 100)
    total: dict[str, int] = {}
    for number, times in spent:
        address = f"192.0.2.{number}"
        spend(limiter, address, times)
        total[address] = total.get(address, 0) + times
    use = only(limiter)
    assert {dict(key.parts)["ip"] for key in use.over} == {name for name, times in total.items() if times >= 10}
    assert {dict(key.parts)["ip"] for key in use.near} == {name for name, times in total.items() if times in (8, 9)}


def test_counts_go_on_from_their_beginning_across_a_reload() -> None:
    before = Limiter([BOTH], 100)
    before.begin(50)
    spend(before, "192.0.2.1", 1)
    after = Limiter([BOTH, LimitRule("new", ("ip",), 1, 1)], 100)
    after.begin(200)
    after.adopt(before)
    login, new = rule_uses(after, figures, 200)
    assert (login.meter.since, login.meter.admitted) == (50.0, 1)
    assert (new.meter.since, new.meter.admitted) == (200.0, 0)


@pytest.mark.parametrize(
    "changed", [{"quota": 20}, {"burst": 5}, {"mode": "enforce"}, {"key": ("ip",)}, {"paths": (b"/v1",)}]
)
def test_the_report_of_a_rule_that_has_changed_begins_anew(changed: dict[str, Any]) -> None:
    """What one shadow rule would have refused says nothing of another; a metric must not go back."""
    tried = replace(BOTH, mode="shadow")
    before = Limiter([tried], 100)
    before.begin(50)
    spend(before, "192.0.2.1", 12)
    (seen,) = before.counts_as_it_is()
    assert seen[1:] == (10, 0, 2)
    after = Limiter([replace(tried, **changed)], 100)
    after.begin(200)
    after.adopt(before)
    assert (after.meters[0].since, list(after.counts_as_it_is())) == (200.0, [("login", 0, 0, 0)])
    assert list(after.counts()) == [seen]
    # And goes on at a reload that changes nothing.
    after.meters[0].admitted += 3
    again = Limiter([after.meters[0].rule], 100)
    again.begin(300)
    again.adopt(after)
    assert (again.meters[0].since, list(again.counts_as_it_is())) == (200.0, [("login", 3, 0, 0)])


def test_a_tenant_with_figures_of_its_own() -> None:
    limiter = Limiter([BOTH], 100)
    plan = limiter.plan(b"GET", b"/", True)
    assert plan is not None
    own = limiter.for_tenant(plan, b"acme", ACME)
    for _ in range(90):
        own.judge(b"acme", address_key("192.0.2.1"), 100.0)
    spend(limiter, "192.0.2.1", 10)
    use = only(limiter)
    assert (use.entries, use.examined) == (2, 2)
    assert [(dict(key.parts)["tenant"], key.left, key.most) for key in use.near] == [("acme", 10, 100)]
    assert [(dict(key.parts)["tenant"], key.left, key.most) for key in use.over] == [("koder", 0, 10)]


@pytest.mark.parametrize(("held", "over", "near"), [(5, 0, 0), (8, 0, 1), (10, 1, 0)])
def test_a_tenant_with_places_of_its_own(held: int, over: int, near: int) -> None:
    limiter = Limiter([LimitRule("busy", ("tenant",), 0, 1, in_flight=5)], 100)
    plan = limiter.plan(b"GET", b"/", True)
    assert plan is not None
    own = limiter.for_tenant(plan, b"acme", ACME)
    for _ in range(held):
        own.judge(b"acme", address_key("192.0.2.1"), 100.0)
    use = only(limiter)
    assert (use.entries, len(use.over), len(use.near)) == (1, over, near)

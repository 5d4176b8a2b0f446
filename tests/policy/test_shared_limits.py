"""Limits that a store decides about: the same as this process would, and what happens where it cannot."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.policy.limit_plan import Plan
from koder_gateway.policy.limit_rules import LimitRule, RateOverride
from koder_gateway.policy.limits import Limiter
from koder_gateway.policy.meter import Crowded, LimitResult
from koder_gateway.policy.shared_limits import SharedLimits, Undecided, shared_rule
from koder_gateway.policy.shared_store import (
    CROWDED,
    OK,
    SHORT,
    SharedAnswer,
    SharedQuestion,
    SharedRule,
    SharedStore,
)

RULE = LimitRule("r", ("tenant", "ip"), 3, 60)


class Scripted(SharedStore, SharedQuestion):
    """A store that answers as a test says, and remembers what it was asked."""

    def __init__(self, *answers: SharedAnswer) -> None:
        self.up = True
        self.answers = list(answers)
        self.asked: list[tuple[list[bytes], bytes]] = []
        self.settled: list[tuple[bytes, bytes, bool]] = []
        self.missing: list[float] = []
        self.left_after: float | None = None
        self.rules: tuple[SharedRule, ...] = ()

    def question(self, rules: Sequence[SharedRule]) -> SharedQuestion:
        self.rules = tuple(rules)
        return self

    def ask(
        self,
        keys: Sequence[bytes],
        missing: Sequence[float],
        request: bytes,
        answered: Callable[[SharedAnswer], None],
    ) -> None:
        self.missing = list(missing)
        self.asked.append((list(keys), request))
        answered(self.answers.pop(0))

    def request(self) -> bytes:
        return b"request %d" % len(self.asked)

    def settle(
        self,
        rule: SharedRule,
        key: bytes,
        missing: float,
        request: bytes,
        failed: bool,
        answered: Callable[[SharedAnswer], None],
    ) -> None:
        self.missing = [missing]
        self.settled.append((key, request, failed))
        answered(None if self.left_after is None else [(self.left_after, OK)])


def decide(store: Scripted, *rules: LimitRule, now: float = 0.0) -> tuple[Limiter, Plan, Callable[[], LimitResult]]:
    """A limiter over the store, its only plan, and a function that decides about one more request of a client."""
    limiter = Limiter(rules, 1000, shared=SharedLimits(store, lambda: now))
    plan = limiter.plan(b"GET", b"/")
    assert plan is not None
    assert limiter.shared is not None
    shared = limiter.shared.plan(plan)

    def once() -> LimitResult:
        verdicts: list[LimitResult] = []
        shared.decide([b"k"] * len(plan.meters), b"network", verdicts.append)
        [verdict] = verdicts
        return verdict

    return limiter, plan, once


def test_a_plan_that_a_store_decides_is_not_taken_for_a_usual_one() -> None:
    _, plan, _ = decide(Scripted(), RULE)
    assert plan.sole is None
    assert plan.needs


def test_fields_are_those_of_the_stores_answer() -> None:
    _, _, once = decide(Scripted([(1.5, OK)], [(0.25, SHORT)]), RULE)
    verdict = once()
    assert verdict.refused is None
    assert verdict.fields == b'RateLimit-Policy: "r";q=3;w=60\r\nRateLimit: "r";r=1;t=10\r\n'
    verdict = once()
    assert verdict.refused == RULE
    assert verdict.fields == b'RateLimit-Policy: "r";q=3;w=60\r\nRateLimit: "r";r=0;t=15\r\nRetry-After: 15\r\n'


def test_without_an_answer_the_buckets_here_go_on_from_what_was_last_known() -> None:
    store = Scripted([(1.0, OK)], None, None)
    limiter, _, once = decide(store, RULE)
    assert once().refused is None
    assert once().refused is None
    assert once().refused == RULE
    assert limiter.shared is not None
    assert limiter.shared.limits.without == 2


def test_the_store_is_told_what_is_known_here() -> None:
    store = Scripted([(2.0, OK)], None, [(0.0, SHORT)], [(3.0, OK)])
    _, _, once = decide(store, RULE)
    told = []
    for _ in range(4):
        once()
        told.append(store.missing)
    # Nothing; what it said; that, and what was charged here without it; what it said.
    assert told == [[0.0], [1.0], [2.0], [3.0]]


def test_what_comes_back_while_the_store_answers_is_not_counted_as_missing() -> None:
    """The store's answer is as of when it was asked: else each round trip would make the bucket emptier."""
    clock = [100.0]
    store = Scripted([(0.0, OK)], [(0.5, SHORT)])
    store_ask = store.ask

    def slow(keys: Sequence[bytes], missing: Sequence[float], request: bytes, answered: Any) -> None:
        clock[0] += 5.0
        store_ask(keys, missing, request, answered)

    store.ask = slow  # type: ignore[method-assign]
    limiter = Limiter((RULE,), 1000, shared=SharedLimits(store, lambda: clock[0]))
    plan = limiter.plan(b"GET", b"/")
    assert plan is not None
    assert limiter.shared is not None
    shared = limiter.shared.plan(plan)
    for _ in range(2):
        shared.decide([b"k"], b"network", lambda verdict: None)
    assert store.missing == [pytest.approx(3.0 - 5.0 / 20.0)]


def test_a_failure_tells_the_store_what_was_missing_before_it() -> None:
    store = Scripted([(2.0, OK)])
    limiter, _, once = decide(store, LimitRule("r", ("tenant",), 3, 60, charge="failures"))
    verdict = once()
    limiter.settle(verdict, 401, True, 0.0)
    assert store.missing == [1.0]


def test_a_store_that_is_away_is_not_asked() -> None:
    store = Scripted()
    store.up = False
    _, _, once = decide(store, RULE)
    assert [once().refused for _ in range(4)] == [None, None, None, RULE]
    assert store.asked == []


def test_a_full_bucket_takes_no_memory_here() -> None:
    limiter, _, once = decide(Scripted([(3.0, OK)], [(2.0, OK)]), RULE)
    once()
    assert limiter.entries == 0
    once()
    assert limiter.entries == 1


@pytest.mark.parametrize(
    ("modes", "refused"),
    [
        (("open",), False),
        (("closed",), True),
        (("open", "closed"), True),
        (("local", "closed"), True),
        (("local", "open"), False),
    ],
)
def test_each_rule_says_what_happens_without_a_store(modes: tuple[str, ...], refused: bool) -> None:
    rules = [replace(RULE, name=mode, on_failure=mode) for mode in modes]
    verdict = decide(Scripted(None), *rules)[2]()
    assert isinstance(verdict, Undecided) is refused
    assert (verdict.refused is not None) is refused
    shown = b'"local"' in verdict.fields
    assert shown is (not refused and "local" in modes)
    assert b'"open"' not in verdict.fields


def test_an_open_rule_is_never_used_up_without_a_store() -> None:
    _, _, once = decide(Scripted(*[None] * 10), replace(RULE, on_failure="open"))
    assert {once().refused for _ in range(10)} == {None}


def test_a_closed_shadow_refuses_nothing() -> None:
    verdict = decide(Scripted(None), replace(RULE, mode="shadow", on_failure="closed"))[2]()
    assert verdict.refused is None


def test_a_shadow_counts_what_the_store_would_refuse() -> None:
    limiter, _, once = decide(Scripted([(0.0, SHORT)]), replace(RULE, mode="shadow"))
    verdict = once()
    assert verdict.refused is None
    assert verdict.shadowed == ("r",)
    assert limiter.meters[0].shadowed == 1


def test_a_failure_is_charged_in_the_store_and_here() -> None:
    store = Scripted([(3.0, OK)])
    store.left_after = 0.5
    limiter, _, once = decide(store, replace(RULE, charge="failures"))
    verdict = once()
    meter = limiter.meters[0]
    assert meter.held == {b"k": 1}
    limiter.settle(verdict, 401, True, 0.0)
    assert store.settled == [(b"k", b"request 0", True)]
    assert meter.held == {}
    assert meter.buckets.left(b"k", 0.0) == 0.5


def test_a_crowded_key_is_refused_although_tokens_are_left() -> None:
    rule = replace(RULE, charge="failures")
    verdict = decide(Scripted([(2.5, CROWDED)]), rule)[2]()
    assert verdict.refused == rule
    assert isinstance(verdict, Crowded)
    assert b"r=2;" in verdict.fields
    assert verdict.fields.endswith(b"Retry-After: 1\r\n")
    assert verdict.pending == ()


def test_a_refusal_by_one_rule_charges_no_other() -> None:
    other = replace(RULE, name="other", charge="failures")
    limiter, _, once = decide(Scripted([(0.0, SHORT), (3.0, OK)]), RULE, other)
    verdict = once()
    assert verdict.refused == RULE
    assert verdict.pending == ()
    assert [meter.held for meter in limiter.meters] == [{}, {}]
    assert [meter.admitted for meter in limiter.meters] == [0, 0]


@given(st.sampled_from(["quota", "window", "burst", "key", "charge", "ipv6_prefix"]))
def test_a_rule_of_another_meaning_has_other_buckets(changed: str) -> None:
    values = {"quota": 4, "window": 3600, "burst": 7, "key": ("ip",), "charge": "failures", "ipv6_prefix": 56}
    [before] = Limiter([RULE], 10).meters
    [after] = Limiter([replace(RULE, **{changed: values[changed]})], 10).meters
    assert shared_rule(before).name != shared_rule(after).name
    [same] = Limiter([replace(RULE, mode="shadow", on_failure="open", paths=(b"/a",))], 10).meters
    assert shared_rule(same).name == shared_rule(before).name


PLACES = LimitRule("places", ("tenant",), 0, 1, in_flight=1)


def test_places_in_flight_are_counted_here_and_given_back_when_the_store_refuses() -> None:
    store = Scripted([(1.0, OK)], [(0.0, SHORT)], None)
    limiter, _, once = decide(store, RULE, PLACES)
    places = limiter.meters[1]
    first = once()
    assert first.refused is None
    assert places.held == {b"k": 1}
    assert once().refused == PLACES
    assert len(store.asked) == 1
    limiter.settle(first, 200, True, 0.0)
    assert places.held == {}
    assert once().refused == RULE
    assert places.held == {}
    # Without the store: none is left as far as is known here.
    assert once().refused == RULE
    assert places.held == {}
    assert [len(keys) for keys, _ in store.asked] == [1, 1, 1]


def test_a_plan_of_places_alone_needs_no_store() -> None:
    limiter = Limiter([PLACES], 10, shared=SharedLimits(Scripted(), lambda: 0.0))
    plan = limiter.plan(b"GET", b"/")
    assert plan is not None
    assert not plan.needs


class Counting(Scripted):
    """A store that knows which of its questions still exist."""

    def __init__(self) -> None:
        super().__init__()
        self.questions: weakref.WeakSet[SharedQuestion] = weakref.WeakSet()

    def question(self, rules: Sequence[SharedRule]) -> SharedQuestion:
        made = Scripted()
        self.questions.add(made)
        return made


def test_a_reload_leaves_no_plan_of_the_limiter_before_it() -> None:
    """A plan has the buckets of all its keys."""
    store = Counting()
    limits = SharedLimits(store, lambda: 0.0)
    limiter = Limiter([RULE], 10, shared=limits)
    for _ in range(3):
        plan = limiter.plan(b"GET", b"/")
        assert plan is not None
        assert limiter.shared is not None
        assert limiter.shared.plan(plan) is limiter.shared.plan(plan)
        assert len(store.questions) == 1
        before, limiter = limiter, Limiter([RULE], 10, shared=limits)
        limiter.adopt(before)
        del before, plan
        gc.collect()


def test_the_figures_of_a_tenant_are_shared_as_well() -> None:
    store = Scripted([(4.0, OK)])
    limiter = Limiter([RULE], 10, shared=SharedLimits(store, lambda: 0.0))
    plan = limiter.plan(b"GET", b"/")
    assert plan is not None
    assert limiter.shared is not None
    own = limiter.for_tenant(plan, b"koder", {"r": RateOverride(5, 60, 5)})
    assert own.sole is None
    assert own.needs == plan.needs
    verdicts: list[LimitResult] = []
    limiter.shared.plan(own).decide([b"koder/k"], b"network", verdicts.append)
    assert verdicts[0].fields == b'RateLimit-Policy: "r";q=5;w=60\r\nRateLimit: "r";r=4;t=12\r\n'
    [rule] = store.rules
    assert (rule.burst, rule.rate) == (5, 5 / 60)
    assert rule.name != shared_rule(limiter.meters[0]).name

"""The end of each exchange: charged and counted once, whatever it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from koder_gateway.errors import NO_ROUTE, OVERLOADED, RATE_LIMITED
from koder_gateway.exchange.context import request_context
from koder_gateway.exchange.ending import Ending, goes_unanswered, settle
from koder_gateway.exchange.states import Exchange
from koder_gateway.ops.counters import Counters
from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.limits import Limiter
from koder_gateway.policy.meter import UNLIMITED
from koder_gateway.wire.request_head import RequestHead
from tests.exchange.test_context import policy


def exchange(status: int = 200, code: str = "", **facts: Any) -> Exchange:
    """One that has ended so."""
    head = RequestHead(b"GET", b"/v1/users/7?token=secret", 1, [])
    made = Exchange(head, request_context(policy(), head, "192.0.2.1", None), 100.0, b"r1")
    made.head.path = b"/v1/users/7"
    made.status, made.code = status, code
    for name, value in facts.items():
        setattr(made, name, value)
    return made


class Kept:
    """The ending under test, with its clock and counters."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(100.25)
        self.counters = Counters()
        self.ending = Ending(self.counters, self.clock.seconds, lambda: 0.0)


# -- counted


def test_an_exchange_is_counted_once() -> None:
    kept = Kept()
    kept.ending.finished(exchange(200, service="identity", bytes_in=3, bytes_out=5))
    kept.ending.finished(exchange(404, "no_route", bytes_out=7))
    kept.ending.finished(exchange(0, "client_gone", service="identity"))
    identity, nobody = kept.counters.series["identity"], kept.counters.series[""]
    assert (sum(identity.classes), identity.classes[2], identity.classes[0]) == (2, 1, 1)
    assert (sum(nobody.classes), nobody.classes[4]) == (1, 1)
    assert (identity.bytes_in, identity.bytes_out, nobody.bytes_out) == (3, 5, 7)
    assert (identity.seconds, nobody.seconds) == (0.5, 0.25)
    assert kept.counters.refusals == {"no_route": 1, "client_gone": 1}


# -- charged

FEW = LimitRule("few", ("ip",), 1, 60, charge="failures")


def is_charged(status: int, code: str, rule: LimitRule = FEW) -> bool:
    """Whether an exchange that ended so has cost its token."""
    kept = Kept()
    limiter = Limiter([rule], 100)
    now = kept.clock.seconds()
    verdict = limiter.admit(b"koder", b"a", b"GET", b"/", now)
    assert verdict.refused is None
    kept.ending.finished(exchange(status, code, charges=verdict))
    return limiter.admit(b"koder", b"a", b"GET", b"/", now).refused is not None


@pytest.mark.parametrize(
    ("status", "code", "charged"),
    [
        (200, "", False),
        (302, "", False),
        (400, "", True),
        (401, "", True),
        (403, "", True),
        (404, "", False),
        (429, "", False),
        (500, "", False),
        # The gateway's own: no guess was judged by anybody.
        (404, "no_route", False),
        (413, "body_too_large", False),
        (408, "request_timeout", False),
        (429, "rate_limited", False),
        (502, "upstream_closed", False),
        (504, "upstream_timeout", False),
        (503, "draining", False),
        # Who leaves before the answer must not guess for nothing; who leaves within it has read enough.
        (0, "client_gone", True),
        # The gateway's own, of which the client is not even told.
        (0, "request_timeout", False),
        (401, "client_gone", True),
        (200, "client_gone", False),
        # The service's answer was cut short, but its head was there.
        (401, "closed", True),
        (403, "timeout", True),
        (200, "invalid", False),
        (0, "", True),
    ],
)
def test_only_failures_stay_charged(status: int, code: str, charged: bool) -> None:
    assert is_charged(status, code) is charged
    assert is_charged(status, code, replace(FEW, charge="requests")), "such a rule gives nothing back"


def test_a_failure_is_charged_when_its_exchange_ends() -> None:
    """Until then it holds nothing, and what was none never does."""
    kept = Kept()
    limiter = Limiter([replace(FEW, burst=2)], 100)

    def admit() -> Any:
        return limiter.admit(b"koder", b"a", b"GET", b"/", kept.clock.seconds())

    first, second, third = admit(), admit(), admit()
    kept.ending.finished(exchange(200, charges=first))
    kept.ending.finished(exchange(401, charges=second))
    assert admit().refused is None
    kept.ending.finished(exchange(401, charges=third))
    assert admit().refused is not None
    kept.clock.advance(60)
    assert admit().refused is None


@pytest.mark.parametrize("charges", [None, UNLIMITED])
def test_what_no_limit_applied_to(charges: object) -> None:
    kept = Kept()
    kept.ending.finished(exchange(401, charges=charges))
    assert sum(kept.counters.series[""].classes) == 1


@given(
    st.lists(st.tuples(st.sampled_from([0, 200, 401, 429, 503]), st.sampled_from(["", "client_gone", "draining"])))
)
def test_every_exchange_is_counted_whatever_it_was(ends: list[tuple[int, str]]) -> None:
    kept = Kept()
    for status, code in ends:
        kept.ending.finished(exchange(status, code, service="a"))
    counted = sum(kept.counters.series["a"].classes) if ends else 0
    assert counted == len(ends)
    assert sum(kept.counters.refusals.values()) == sum(bool(code) for _, code in ends)


def test_what_is_settled_before_the_end_is_charged_once() -> None:
    """As a tunnel's is, with its 101."""
    kept = Kept()
    limiter = Limiter([replace(FEW, burst=2)], 100)
    failed = exchange(401, charges=limiter.admit(b"koder", b"a", b"GET", b"/", 100.0))
    settle(failed, 100.0)
    assert failed.charges is None
    settle(failed, 100.0)
    kept.ending.finished(failed)
    assert limiter.admit(b"koder", b"a", b"GET", b"/", 100.25).refused is None, "two tokens, one failure"


def test_an_excused_answer_is_no_failure() -> None:
    limiter = Limiter([FEW], 100)
    Kept().ending.finished(exchange(400, excused=True, charges=limiter.admit(b"koder", b"a", b"GET", b"/", 100.0)))
    assert limiter.admit(b"koder", b"a", b"GET", b"/", 100.25).refused is None


# -- refused


def test_who_has_had_too_many_refusals_gets_no_more() -> None:
    made = policy(rules=(LimitRule("refusals", ("ip",), 2, 60, charge="refusals"),))
    head = RequestHead(b"GET", b"/", 1, [])

    def refused(refusal: Any, now: float = 0.0) -> tuple[str, bool]:
        each = Exchange(head, request_context(made, head, "192.0.2.1", None), now, b"r1")
        unanswered = goes_unanswered(each, refusal)
        return each.code, unanswered

    for uncharged in (RATE_LIMITED, OVERLOADED):
        assert [refused(uncharged) for _ in range(3)] == [(uncharged.code, False)] * 3
    assert [refused(NO_ROUTE)[1] for _ in range(3)] == [False, False, True]
    assert refused(NO_ROUTE, 60.0) == ("no_route", False)

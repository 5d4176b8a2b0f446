"""What limits would say of a request: the same as they then say, and nobody is charged for the question."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.policy.limit_keys import address_key
from koder_gateway.policy.limit_reading import LimitReading
from koder_gateway.policy.limit_rules import LimitRule, RateOverride
from koder_gateway.policy.limits import Limiter

RULES = (
    LimitRule("first", ("ip",), 3, 60),
    LimitRule("second", ("tenant",), 60, 60, 5),
    LimitRule("failures", ("ip",), 2, 60, charge="failures"),
    LimitRule("shadow", ("ip",), 1, 60, mode="shadow"),
    LimitRule("busy", ("tenant",), 0, 1, in_flight=4),
)
ADDRESSES = [address_key(f"192.0.2.{number}") for number in range(3)]


def state(limiter: Limiter) -> list[object]:
    return [
        (meter.admitted, meter.refused, meter.shadowed, dict(meter.held), len(meter.buckets))
        for meter in limiter.at_work()
    ]


def read(limiter: Limiter, address: bytes, now: float) -> tuple[bytes, dict[str, int], str | None]:
    reading = LimitReading(limiter)
    plan = reading.plan(b"GET", b"/", True)
    assert plan is not None
    verdict = plan.judge(b"koder", address, now)
    return verdict.fields, reading.lefts, None if verdict.refused is None else verdict.refused.name


@given(
    st.sets(st.sampled_from(RULES), min_size=1),
    st.lists(st.tuples(st.sampled_from(ADDRESSES), st.floats(0.0, 30.0)), max_size=12),
)
def test_it_says_what_the_next_request_gets(rules: set[LimitRule], asked: list[tuple[bytes, float]]) -> None:
    limiter = Limiter([rule for rule in RULES if rule in rules], 100)
    now = 100.0
    for address, seconds in asked:
        now += seconds
        before = state(limiter)
        fields, _, refused = read(limiter, address, now)
        assert state(limiter) == before
        verdict = limiter.admit(b"koder", address, b"GET", b"/", now, True)
        assert (verdict.fields, None if verdict.refused is None else verdict.refused.name) == (fields, refused)


def test_what_is_left() -> None:
    limiter = Limiter(RULES, 100)
    limiter.admit(b"koder", ADDRESSES[0], b"GET", b"/", 100.0, True)
    assert read(limiter, ADDRESSES[0], 100.0)[1] == {"first": 2, "second": 4, "failures": 2, "shadow": 0, "busy": 3}
    assert read(limiter, ADDRESSES[1], 100.0)[1] == {"first": 3, "second": 4, "failures": 2, "shadow": 1, "busy": 3}


def test_a_full_table_loses_nothing_by_a_question() -> None:
    limiter = Limiter(RULES[:1], 8)
    for number in range(50):
        limiter.admit(b"koder", b"%04d" % number, b"GET", b"/", 100.0, True)
    meter = limiter.meters[0]
    before = meter.buckets.latest(100)
    assert read(limiter, b"9999", 100.0)[1] == {"first": 3}
    assert meter.buckets.latest(100) == before


def test_a_tenants_own_figures() -> None:
    limiter = Limiter(RULES[1:2], 100)
    reading = LimitReading(limiter)
    figures = {"second": RateOverride(600, 60, 50)}
    for expected in (50, 49):
        plan = reading.plan(b"GET", b"/", True)
        assert plan is not None
        own = reading.for_tenant(plan, b"acme", figures)
        own.judge(b"acme", ADDRESSES[0], 100.0)
        assert reading.lefts == {"second": expected}
        live = limiter.plan(b"GET", b"/", True)
        assert live is not None
        limiter.for_tenant(live, b"acme", figures).judge(b"acme", ADDRESSES[0], 100.0)
    # What is prepared for tenants is the limiter's own plan, which charges.
    assert type(limiter.for_tenant(live, b"other", {})) is type(live)


def test_no_rule_applies() -> None:
    assert LimitReading(Limiter([], 10)).plan(b"GET", b"/", True) is None


def test_what_is_left_of_refusals() -> None:
    rule = LimitRule("refusals", ("ip",), 2, 60, charge="refusals")
    limiter = Limiter([rule], 100)
    for left in (2, 1, 0):
        reading = LimitReading(limiter)
        before = state(limiter)
        over = reading.refused(ADDRESSES[0], 100.0)
        assert (reading.lefts, state(limiter)) == ({"refusals": left}, before)
        assert limiter.refused(ADDRESSES[0], 100.0) is over is (left == 0)

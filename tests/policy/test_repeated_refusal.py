"""Who asks on over a limit is told what the limits would say anew, and counted as by them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.policy.limit_plan import Plan
from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.limits import Limiter
from koder_gateway.policy.meter import LimitResult

START = 5000.0
TENANT, ADDRESSES = b"acme", (b"\x0a\0\0\1", b"\x0a\0\0\2")

kinds = st.sampled_from(["requests", "failures"])
rules = st.builds(
    lambda quota, window, burst, charge, mode, key: (quota, window, burst, charge, mode, key),
    st.integers(1, 5),
    st.sampled_from([1, 3, 60]),
    st.integers(1, 4),
    kinds,
    st.sampled_from(["enforce", "enforce", "shadow"]),
    st.sampled_from([("tenant", "ip"), ("ip",), ("tenant",)]),
)
pauses = st.sampled_from([0.0, 0.0, 1e-4, 0.05, 1 / 3, 0.5, 1.0, 2.7, 20.0])
asked = st.tuples(pauses, st.sampled_from(ADDRESSES), st.booleans())


def made(figures: list[tuple[int, int, int, str, str, tuple[str, ...]]]) -> Limiter:
    """A limiter with these rules."""
    return Limiter(
        [
            LimitRule(f"rule{at}", key, quota, window, burst, charge=charge, mode=mode)  # type: ignore[arg-type]
            for at, (quota, window, burst, charge, mode, key) in enumerate(figures)
        ],
        max_entries=100,
    )


def plan_of(limiter: Limiter) -> Plan:
    plan = limiter.plan(b"GET", b"/v1/users", True)
    assert plan is not None
    return plan


def told(result: LimitResult) -> tuple[object, ...]:
    """All that anybody learns from a result."""
    refused = None if result.refused is None else result.refused.name
    return type(result), refused, result.fields, result.shadowed, [key for _, key in result.pending]


Figures = tuple[int, int, int, str, str, tuple[str, ...]]


def compare(figures: list[Figures], requests: list[tuple[float, bytes, bool]]) -> None:
    """Ask a limiter, and one that forgets whatever it remembers: each gets these requests, after these pauses, from
    these addresses, and is told whether they failed."""
    limiter, reference = made(figures), made(figures)
    plan, plain = plan_of(limiter), plan_of(reference)
    now = START
    for pause, address, failed in requests:
        now += pause
        plain._repeated = None
        results = [each.judge(TENANT, address, now) for each in (plan, plain)]
        assert told(results[0]) == told(results[1])
        for result in results:
            Limiter.settle(result, 401 if failed else 200, True, now)
        assert list(limiter.counts()) == list(reference.counts())


@given(st.lists(rules, min_size=1, max_size=3), st.lists(asked, min_size=1, max_size=60))
def test_it_is_what_the_limits_would_say(figures: list[Figures], requests: list[tuple[float, bytes, bool]]) -> None:
    compare(figures, requests)


def test_what_a_client_owes_is_told_to_the_second() -> None:
    """Failures side by side are more than the bucket had."""
    limiter, reference = (made([(1, 60, 2, "failures", "enforce", ("ip",))]) for _ in range(2))
    plan, plain = plan_of(limiter), plan_of(reference)
    for each in (plan, plain):
        for result in [each.judge(TENANT, ADDRESSES[0], START) for _ in range(6)]:
            Limiter.settle(result, 401, True, START)
    for at in (0.3, 0.3, 0.3, 1.1, 1.1, 1.1, 59.7, 59.7, 60.1, 200.0, 230.0, 230.0, 230.4, 239.9, 240.1):
        plain._repeated = None
        assert plan.judge(TENANT, ADDRESSES[0], START + at) == plain.judge(TENANT, ADDRESSES[0], START + at)


def test_rules_that_are_tried_out_count_each_request() -> None:
    shadow: Figures = (1, 60, 1, "requests", "shadow", ("ip",))
    compare([shadow, (1, 60, 1, "requests", "enforce", ("ip",))], [(0.0, ADDRESSES[0], False)] * 6)


def test_a_rule_beside_it_sees_what_is_in_flight() -> None:
    limiter = Limiter(
        [
            LimitRule("one", ("ip",), 1, 60, 1, methods=frozenset([b"GET"])),
            LimitRule("guesses", ("ip",), 1, 60, 1, charge="failures"),
        ],
        max_entries=100,
    )
    for _ in range(4):
        limiter.admit(TENANT, ADDRESSES[0], b"GET", b"/", START)
    counted = {name: refused for name, _, refused, _ in limiter.counts()}
    for _ in range(3):
        limiter.admit(TENANT, ADDRESSES[0], b"POST", b"/", START)  # now there are four in flight

    for _ in range(2):
        limiter.admit(TENANT, ADDRESSES[0], b"GET", b"/", START)

    assert counted == {"one": 3, "guesses": 0}
    assert {name: refused for name, _, refused, _ in limiter.counts()} == {"one": 5, "guesses": 2}


def test_who_asks_on_is_forgotten_last() -> None:
    posts = LimitRule("posts", ("ip",), 9, 60, 9, methods=frozenset([b"POST"]))
    limiter = Limiter([LimitRule("one", ("ip",), 1, 60, 1), LimitRule("all", (), 99, 1), posts], max_entries=100)
    for address in ADDRESSES:
        limiter.admit(TENANT, address, b"GET", b"/", START)
    for _ in range(3):
        limiter.admit(TENANT, ADDRESSES[0], b"GET", b"/", START)
    limiter.admit(TENANT, ADDRESSES[1], b"POST", b"/", START)
    limiter.admit(TENANT, ADDRESSES[0], b"GET", b"/", START)

    assert limiter.meters[0].buckets.latest(1) == [ADDRESSES[0]]


def test_the_second_refusal_in_a_row_is_kept_until_a_figure_changes() -> None:
    plan = plan_of(made([(1, 60, 1, "requests", "enforce", ("ip",)), (9, 1, 9, "requests", "enforce", ("ip",))]))
    assert plan.judge(TENANT, ADDRESSES[0], START).refused is None

    first, second, third = (plan.judge(TENANT, ADDRESSES[0], START + 0.3) for _ in range(3))
    later = plan.judge(TENANT, ADDRESSES[0], START + 1.1)

    assert first is not second
    assert second is third
    assert b"Retry-After: 60\r\n" in third.fields
    assert b"Retry-After: 59\r\n" in later.fields


def test_what_others_spend_is_seen_at_once() -> None:
    limiter = Limiter(
        [LimitRule("all", ("tenant",), 100, 60, 100), LimitRule("own", ("ip",), 1, 60, 1, paths=(b"/v1/auth",))],
        max_entries=100,
    )
    plan = limiter.plan(b"GET", b"/v1/auth", True)
    assert plan is not None
    for _ in range(3):
        result = plan.judge(TENANT, ADDRESSES[0], START)
    assert b'"all";r=99;' in result.fields

    limiter.admit(TENANT, ADDRESSES[1], b"GET", b"/v1/users", START)

    assert b'"all";r=98;' in plan.judge(TENANT, ADDRESSES[0], START).fields


def test_clients_in_turns_have_their_own_refusals() -> None:
    plan = plan_of(made([(1, 60, 1, "requests", "enforce", ("ip",)), (9, 1, 9, "requests", "enforce", ("ip",))]))
    plan.judge(TENANT, ADDRESSES[0], START)
    plan.judge(TENANT, ADDRESSES[1], START + 10.0)

    results = [plan.judge(TENANT, ADDRESSES[at % 2], START + 10.5).fields for at in range(6)]

    assert [b"Retry-After: 50\r\n" in each for each in results] == [True, False] * 3
    assert [b"Retry-After: 60\r\n" in each for each in results] == [False, True] * 3

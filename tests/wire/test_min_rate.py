"""The pace of a peer that takes slowly: what puts its deadline off, and by how much."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.wire.min_rate import MinRate

RATE = 1024.0
A_BYTE = 1 / RATE
GRACE = 60.0


def ends(step: float, size: int, *, rate: float = RATE, grace: float = GRACE, most: float = 100_000.0) -> float:
    """When a peer that takes `size` bytes every `step` seconds has taken too little; infinite if never."""
    pace = MinRate()
    pace.begin(0, 0.0, grace)
    now, taken = 0.0, 0
    while now < most:
        now += step
        if not pace.keeps(taken, now, 1 / rate if rate else math.inf, grace):
            return now
        taken += size
    return math.inf


def test_nothing_taken_within_the_grace_is_too_little() -> None:
    assert ends(1.0, 0) == GRACE


def test_a_byte_now_and_then_puts_nothing_off_worth_mention() -> None:
    assert ends(5.0, 1) <= GRACE + 5


def test_a_peer_at_the_rate_goes_on_for_ever() -> None:
    assert ends(1.0, 1024) == math.inf


def test_a_peer_at_half_the_rate_has_twice_the_grace() -> None:
    assert 2 * GRACE - 1 < ends(0.25, 128) <= 2 * GRACE


def test_a_peer_that_takes_much_and_then_nothing_has_the_grace_and_no_more() -> None:
    pace = MinRate()
    pace.begin(0, 0.0, GRACE)
    assert pace.keeps(1 << 30, 10.0, A_BYTE, GRACE)
    assert pace.due == 10.0 + GRACE
    assert not pace.keeps(1 << 30, 10.0 + GRACE, A_BYTE, GRACE)


def test_pauses_shorter_than_the_grace_are_made_up_for() -> None:
    assert ends(50.0, 50 * 1024) == math.inf


def test_without_a_rate_any_byte_will_do() -> None:
    assert ends(59.0, 1, rate=0) == math.inf
    assert ends(1.0, 0, rate=0) == GRACE


def test_nothing_is_asked_of_a_peer_for_which_nothing_waits() -> None:
    pace = MinRate()
    assert pace.keeps(0, 1e9, A_BYTE, GRACE)
    pace.begin(0, 0.0, GRACE)
    pace.end()
    assert pace.keeps(0, 1e9, A_BYTE, GRACE)


def test_what_was_taken_before_something_waited_does_not_count() -> None:
    pace = MinRate()
    pace.begin(1 << 30, 0.0, GRACE)
    assert not pace.keeps(1 << 30, GRACE, A_BYTE, GRACE)


def test_to_begin_twice_gives_no_second_grace() -> None:
    pace = MinRate()
    pace.begin(0, 0.0, GRACE)
    pace.begin(0, 50.0, GRACE)
    assert pace.due == GRACE


def test_what_is_put_off_has_its_whole_grace_again() -> None:
    pace = MinRate()
    pace.begin(0, 0.0, GRACE)
    pace.put_off(50.0, GRACE)
    assert pace.keeps(0, 50.0 + GRACE - 1, A_BYTE, GRACE)
    assert not pace.keeps(0, 50.0 + GRACE, A_BYTE, GRACE)


def test_where_nothing_waits_nothing_is_put_off() -> None:
    pace = MinRate()
    pace.put_off(50.0, GRACE)
    assert pace.due == math.inf


@given(
    st.lists(st.tuples(st.floats(0.01, 100.0), st.integers(0, 100_000)), max_size=60),
    st.floats(1.0, 100_000.0),
    st.floats(0.5, 300.0),
)
def test_whoever_goes_on_has_taken_its_rate_but_for_the_grace(
    steps: list[tuple[float, int]], rate: float, grace: float
) -> None:
    pace = MinRate()
    pace.begin(0, 0.0, grace)
    now, taken = 0.0, 0
    for seconds, size in steps:
        now += seconds
        taken += size
        if not pace.keeps(taken, now, 1 / rate, grace):
            return
        assert taken >= (now - grace) * rate * (1 - 1e-9)
        assert now < pace.due <= now + grace

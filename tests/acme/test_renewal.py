"""When a certificate is renewed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.acme.layout import NameRecord
from koder_gateway.acme.renewal import (
    ask_after,
    by_life,
    by_window,
    is_overdue,
    renewal_time,
    rests_until,
    retry_latest,
)

DAY = 86400.0
PARTS = st.floats(0, 1)


@given(st.floats(60, 400 * DAY), PARTS)
def test_without_a_word_it_is_at_two_thirds_or_a_little_earlier(life: float, part: float) -> None:
    at = by_life(1000.0, 1000.0 + life, part)
    assert 0.63 * life <= at - 1000.0 <= 0.67 * life


@given(st.floats(60, 400 * DAY), st.floats(-1e9, 1e9), st.floats(0, 1e8), PARTS)
def test_the_authoritys_window_counts_but_never_the_last_tenth(
    life: float, start: float, width: float, part: float
) -> None:
    at = by_window(0.0, life, (start, start + width), part)
    assert at <= life * 0.9 + 1e-6
    assert at >= min(start, life * 0.9) - 1e-6
    assert at <= start + width + 1e-6


def test_a_window_that_has_passed_is_now() -> None:
    record = NameRecord(name="a.example", first_seen=0.0, not_before=0.0, not_after=90 * DAY, window=(-2.0, -1.0))
    assert renewal_time(record, 0.5) == 0.0
    record.window = None
    assert renewal_time(record, 0.0) == 60 * DAY


def test_a_window_that_is_always_in_the_past_does_not_renew_without_end() -> None:
    renewed = 100 * DAY
    record = NameRecord(name="a.example", first_seen=0.0, not_before=renewed, not_after=190 * DAY, window=(1.0, 2.0))
    record.earliest = rests_until(record.not_before, record.not_after, renewed)
    assert renewal_time(record, 0.5) == renewed + DAY / 2
    assert rests_until(0.0, 600.0, 5.0) == 35.0


def test_how_soon_the_authority_is_asked_again() -> None:
    assert ask_after(None) == 6 * 3600
    assert ask_after(0.0) == 60
    assert ask_after(3600.0) == 3600
    assert ask_after(1e9) == DAY


@given(st.floats(60, 400 * DAY), PARTS)
def test_a_failed_renewal_has_several_tries_left(life: float, part: float) -> None:
    now = life * part
    record = NameRecord(name="a.example", first_seen=0.0, not_before=0.0, not_after=life)
    wait = retry_latest(record, now)
    assert wait <= DAY
    if life - now > life / 10:
        assert wait <= (life - now) / 2


def test_one_that_has_ended_is_tried_no_more_often_than_one_that_never_was() -> None:
    ended = NameRecord(name="a.example", first_seen=0.0, not_before=0.0, not_after=90 * DAY)
    never = NameRecord(name="a.example", first_seen=0.0)
    assert retry_latest(ended, 91 * DAY) == retry_latest(never, 91 * DAY) == DAY


def test_it_is_told_when_a_third_of_what_was_left_is_gone() -> None:
    record = NameRecord(name="a.example", first_seen=0.0, not_before=0.0, not_after=90 * DAY, next_renewal=60 * DAY)
    assert not is_overdue(record, 69.9 * DAY)
    assert is_overdue(record, 70 * DAY)
    assert not is_overdue(NameRecord(name="a.example", first_seen=0.0), 1e9)

"""How many retries there may be, by hand-made time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.upstream.retry_budget import LEAST, SHARE, RetryBudget


def taken(budget: RetryBudget, answered: int, wanted: int = 10_000) -> int:
    """How many of so many retries there are."""
    return sum(budget.take(answered) for _ in range(wanted))


def test_a_quiet_service_has_a_few_in_any_case() -> None:
    budget = RetryBudget()
    budget.turn(100.0, 0)
    assert taken(budget, 0) == LEAST
    assert budget.denied == 10_000 - LEAST
    budget.turn(105.0, 0)
    assert taken(budget, 0) == 0, "those of the half before still count"
    budget.turn(110.0, 0)
    assert taken(budget, 0) == LEAST


def test_a_busy_one_has_a_fifth_of_its_responses() -> None:
    budget = RetryBudget()
    budget.turn(100.0, 5000)
    assert taken(budget, 6000) == 200
    budget.turn(105.0, 6000)
    assert taken(budget, 6500) == 100
    budget.turn(110.0, 6500)
    assert taken(budget, 6500) == 0, "500 responses, and 100 retries"


def test_after_a_pause_everything_begins_anew() -> None:
    budget = RetryBudget()
    budget.turn(100.0, 0)
    taken(budget, 10_000)
    budget.turn(200.0, 10_000)
    assert taken(budget, 10_000) == LEAST


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200), st.integers(0, 100)), max_size=40))
def test_no_half_has_more_than_a_fifth(steps: list[tuple[int, int, int]]) -> None:
    """However time, responses and failures mix, retries are within the share of all responses and the least of each
    half."""
    budget, now, answered, retries, halves = RetryBudget(), 100.0, 0, 0, 1
    budget.turn(now, answered)
    for passed, responses, failures in steps:
        now += passed
        halves += passed > 0
        answered += responses
        budget.turn(now, answered)
        retries += taken(budget, answered, failures)
        assert retries <= LEAST * halves + SHARE * answered * 2

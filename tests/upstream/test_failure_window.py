"""When failures are reason enough to eject an address, by hand-made time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.upstream.failure_window import CLIENTS, OF_EACH, Ejection, FailureWindow

FEW = Ejection(failures=5, window=10.0)


def window(ejection: Ejection = FEW) -> FailureWindow:
    made = FailureWindow(ejection)
    made.turn(100.0, 0)
    return made


def test_failures_of_several_clients_speak_against_an_address_that_does_not_respond() -> None:
    failures = window()
    said = [failures.add(b"client %d" % (number % 3), 0) for number in range(5)]
    assert said == ["", "", "", "", "5 failures for 3 clients, and 0 responses"]


@pytest.mark.parametrize("clients", [1, 2])
def test_one_or_two_clients_alone_never_do(clients: int) -> None:
    failures = window()
    for now in range(100, 200):
        failures.turn(float(now), 0)
        assert not any(failures.add(b"client %d" % (number % clients), 0) for number in range(100))


def test_of_each_client_only_two_count() -> None:
    failures = window()
    assert not any(failures.add(client, 100) for client in (b"a", b"b", b"c") for _ in range(1000))


def test_an_address_that_serves_most_requests_stays() -> None:
    failures = window()
    said = [failures.add(b"client %d" % number, 20) for number in range(20)]
    assert said[:19] == [""] * 19
    assert said[19] == "20 failures for 20 clients, and 20 responses"


def test_responses_from_before_the_window_do_not_count() -> None:
    failures = window()
    for now in (105.0, 110.0, 115.0):
        failures.turn(now, 1000)
    assert [failures.add(b"client %d" % number, 1000) for number in range(5)][-1]


def test_failures_from_before_the_window_do_not_count() -> None:
    failures = window()
    for number in range(4):
        failures.add(b"client %d" % number, 0)
    failures.turn(105.0, 0)
    assert failures.add(b"another", 0), "the half before counts as well"
    failures.turn(110.0, 0)
    failures.turn(115.0, 0)
    assert not failures.add(b"another", 0)


def test_a_pause_as_long_as_the_window_ends_all_of_it() -> None:
    failures = window()
    for number in range(4):
        failures.add(b"client %d" % number, 0)
    failures.turn(110.0, 0)
    assert not failures.add(b"another", 0)


def test_with_no_failures_none_is_enough() -> None:
    failures = window(Ejection(failures=0))
    assert not any(failures.add(b"client %d" % number, 0) for number in range(100))


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=200), st.integers(1, 12))
def test_the_verdict_is_never_less_than_the_rule(events: list[tuple[int, bool]], needed: int) -> None:
    """Whatever comes in which order: who is convicted has failed often enough, for several clients, and not less
    often than it has responded."""
    failures = window(Ejection(failures=needed))
    answered, counted = 0, dict[int, int]()
    for client, good in events:
        if good:
            answered += 1
            continue
        verdict = failures.add(b"%d" % client, answered)
        counted[client] = min(counted.get(client, 0) + 1, OF_EACH)
        failed = sum(counted.values())
        assert bool(verdict) == (failed >= needed and failed >= answered and len(counted) >= CLIENTS)

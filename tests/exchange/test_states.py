"""The states of one exchange: every pair of phase and event has its move, or is known to be impossible."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.errors import Refusal
from koder_gateway.exchange.context import request_context
from koder_gateway.exchange.states import (
    ANSWER,
    ANSWERED,
    ANSWERS,
    CLIENT_GONE,
    CUT,
    DROP,
    END,
    ENDED,
    EVENTS,
    FORWARDED,
    GO,
    HEAD,
    HELD,
    IDEMPOTENT,
    MOVES,
    PHASES,
    RELAYING,
    RETRY,
    SERVICE_FAULTS,
    SWITCHED,
    TUNNELLING,
    WAITING,
    Exchange,
    IllegalMove,
)
from koder_gateway.wire.request_head import RequestHead
from tests.exchange.test_context import policy


def exchange(phase: str = HELD, method: bytes = b"GET") -> Exchange:
    head = RequestHead(method, b"/", 1, [])
    made = Exchange(head, request_context(policy(), head, "192.0.2.1", None), 1.5, b"r1")
    made.phase = phase
    return made


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("phase", PHASES)
def test_every_pair_of_phase_and_event(phase: str, event: str) -> None:
    made = exchange(phase)
    if (phase, event) not in MOVES:
        with pytest.raises(IllegalMove):
            made.move(event)
        assert (made.phase, made.code) == (phase, "")
        return
    after, action = MOVES[phase, event]
    assert made.move(event) is action
    assert made.phase is after
    assert made.code == (event if action in (CUT, DROP) else "")


def test_an_ended_exchange_has_no_move() -> None:
    assert not [pair for pair in MOVES if pair[0] == ENDED]


def test_the_table_names_only_what_there_is() -> None:
    for (phase, event), (after, action) in MOVES.items():
        assert {phase, after} <= set(PHASES)
        assert event in EVENTS
        assert action in (GO, ANSWER, RETRY, CUT, DROP)


def test_nothing_is_answered_twice_or_cut_before_it_began() -> None:
    for (phase, _), (after, action) in MOVES.items():
        if action == CUT:
            assert phase in (RELAYING, TUNNELLING)
        if action in (ANSWER, RETRY):
            assert phase in (HELD, WAITING)
        if action in (ANSWER, CUT, DROP):
            assert after == ENDED
        if action == RETRY:
            assert after == WAITING


def test_every_failure_that_can_be_answered_has_its_answer() -> None:
    answered = {event for (_, event), (_, action) in MOVES.items() if action in (ANSWER, RETRY)}
    assert set(ANSWERS) == answered
    assert all(isinstance(refusal, Refusal) and refusal.status >= 400 for refusal in ANSWERS.values())


@pytest.mark.parametrize(
    ("event", "status", "code"),
    [
        ("unreachable", 502, "upstream_unreachable"),
        ("closed", 502, "upstream_closed"),
        ("invalid", 502, "upstream_invalid"),
        ("timeout", 504, "upstream_timeout"),
        ("full", 503, "overloaded"),
        ("slow", 408, "request_timeout"),
        ("broken", 400, "bad_request"),
        ("too_large", 413, "body_too_large"),
    ],
)
def test_what_a_failure_is_answered_with(event: str, status: int, code: str) -> None:
    assert (ANSWERS[event].status, ANSWERS[event].code) == (status, code)


def test_what_fails_in_mid_answer_is_cut() -> None:
    for event in ("closed", "invalid", "timeout", "slow", "broken", "too_large"):
        assert MOVES[RELAYING, event] == (ENDED, CUT)


def test_the_client_can_go_in_every_phase_but_the_last() -> None:
    for phase in (HELD, WAITING, RELAYING, TUNNELLING):
        assert MOVES[phase, CLIENT_GONE] == (ENDED, DROP)


def test_the_faults_of_a_service_can_happen_only_with_a_service() -> None:
    for event in SERVICE_FAULTS:
        assert (HELD, event) not in MOVES
        assert (WAITING, event) in MOVES


@given(st.lists(st.sampled_from(EVENTS), max_size=12))
def test_whatever_happens_an_exchange_ends_at_most_once_and_stays_ended(events: list[str]) -> None:
    made = exchange()
    ends = 0
    for event in events:
        before = made.phase
        try:
            made.move(event)
        except IllegalMove:
            assert made.phase is before
            continue
        ends += made.phase is ENDED
        assert before is not ENDED
    assert ends <= 1


def test_the_usual_lives() -> None:
    proxied = exchange()
    assert [proxied.move(event) for event in (FORWARDED, HEAD, END)] == [GO, GO, GO]
    answered = exchange()
    assert answered.move(ANSWERED) is GO
    tunnelled = exchange()
    assert [tunnelled.move(event) for event in (FORWARDED, SWITCHED, END)] == [GO, GO, GO]
    assert (proxied.phase, answered.phase, tunnelled.phase) == (ENDED, ENDED, ENDED)
    with pytest.raises(IllegalMove, match="end in phase ended"):
        proxied.move(END)


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"POST", b"PATCH"])
@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("replayable", [False, True])
@pytest.mark.parametrize("retries", [0, 1])
def test_a_retry_is_once_and_only_where_it_is_safe(method: bytes, sent: bool, replayable: bool, retries: int) -> None:
    made = exchange(WAITING, method)
    made.retries = retries
    safe = not sent or method not in (b"POST", b"PATCH")
    assert made.may_retry(sent=sent, replayable=replayable) == (not retries and replayable and safe)
    assert (method in IDEMPOTENT) == (method not in (b"POST", b"PATCH"))


def test_an_exchange_begins_with_nothing() -> None:
    made = exchange()
    assert (made.peer, made.started, made.request_id) == (b"192.0.2.1", 1.5, b"r1")
    assert (made.status, made.code, made.service, made.tenant, made.route) == (0, "", "", b"", b"")
    assert (made.bytes_in, made.bytes_out, made.retries, made.limited, made.charges) == (0, 0, 0, False, None)

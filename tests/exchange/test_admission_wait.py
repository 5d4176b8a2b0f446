"""An exchange that waits, as a play: a client that writes down what it is told, and decisions that the test takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.exchange.admission_wait import AdmissionWait
from koder_gateway.exchange.pending import FIRST_PART, Outcome
from koder_gateway.exchange.states import BROKEN, CLIENT_GONE, ENDED, HELD, SLOW, TOO_LARGE
from tests.exchange.test_admission import begun
from tests.exchange.test_context import head, policy
from tests.kit.decisions import REFUSED, Decision
from tests.upstream.test_relay import Caller


class Play:
    """A client whose body is `body` so far, and the decision that it waits for; `gone_on` counts."""

    def __init__(self, decision: Decision, body: bytes = b"", *, done: bool = False) -> None:
        self.client = Caller(begun(policy(), head(b"Content-Length: 9", method=b"POST")), body, done)
        self.gone_on = 0
        self.wait = AdmissionWait(self.client, self._go_on)
        self.wait.begin(decision)

    def _go_on(self) -> None:
        assert self.client.sink is None
        assert self.client.exchange.phase is HELD
        self.gone_on += 1


def test_a_body_that_nobody_wants_is_paused_once() -> None:
    decision = Decision()
    play = Play(decision)
    play.wait.body_received(b"abc")
    assert play.client.take() == ["pause"]
    assert not decision.seen
    decision.decide()
    assert (play.client.take(), play.gone_on, play.client.body) == (["resume"], 1, b"abc")


def test_a_complete_body_is_not_paused() -> None:
    decision = Decision()
    play = Play(decision, b"abc", done=True)
    decision.decide()
    assert (play.client.take(), play.gone_on) == ([], 1)


def test_a_body_that_is_here_decides_at_once() -> None:
    decision = Decision(3)
    play = Play(decision, b"abc")
    assert (play.client.take(), play.gone_on, decision.seen) == ([], 1, [(b"abc", False)])
    refused = Play(Decision(3, REFUSED), b"abc")
    assert (refused.client.take(), refused.gone_on, refused.client.sink) == ([("refuse", "rate_limited")], 0, None)


def test_a_body_that_comes_when_it_may_come_again() -> None:
    """What the client's side has read before it stopped comes at once."""
    decision = Decision()
    play = Play(decision)
    play.client.resume_body = lambda: play.wait.body_received(b"late")  # type: ignore[method-assign]
    decision.decide()
    assert (play.gone_on, play.client.body) == (1, b"late")


def test_a_body_that_turns_out_to_be_broken() -> None:
    decision = Decision()
    play = Play(decision)
    play.client.resume_body = lambda: play.wait.client_failed(BROKEN)  # type: ignore[method-assign]
    decision.decide()
    assert (play.client.take(), play.gone_on) == (["pause", ("refuse", "bad_request")], 0)


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (CLIENT_GONE, []),
        (SLOW, [("refuse", "request_timeout")]),
        (BROKEN, [("refuse", "bad_request")]),
        (TOO_LARGE, [("refuse", "body_too_large")]),
    ],
)
@pytest.mark.parametrize("wanted", [0, 10])
def test_the_end_of_the_client_or_its_body_cancels_the_decision(event: str, told: list[object], wanted: int) -> None:
    decision = Decision(wanted)
    play = Play(decision)
    play.client.take()
    play.wait.client_failed(event)
    assert decision.cancelled
    assert (play.client.take(), play.gone_on, play.client.exchange.phase) == (told, 0, ENDED)


def test_who_abandons_it_ends_the_exchange() -> None:
    decision = Decision()
    play = Play(decision)
    play.wait.abandon()
    assert decision.cancelled
    assert play.client.exchange.phase is HELD
    assert play.client.take() == ["pause"]


@given(
    st.lists(st.binary(min_size=1, max_size=3000), max_size=8),
    st.integers(0, 2 * FIRST_PART),
    st.sampled_from([None, REFUSED]),
    st.booleans(),
    st.integers(0, 8),
)
def test_every_byte_is_kept_in_order_and_the_outcome_comes_once(
    pieces: list[bytes], wanted: int, verdict: Outcome, ends: bool, with_head: int
) -> None:
    body = b"".join(pieces)
    came, rest = b"".join(pieces[:with_head]), pieces[with_head:]
    decision = Decision(wanted, verdict)
    play = Play(decision, came, done=ends and not rest)
    for piece in rest:
        if play.client.sink is None:
            break
        came += piece
        play.wait.body_received(piece)
    if play.client.sink is not None and ends and not play.client.body_done:
        play.client.body_done = True
        play.wait.body_ended([])
    assert play.client.body == came
    paused = play.client.take().count("pause")
    if play.client.sink is None:
        decided = len(came) >= wanted > 0 or (ends and came == body)
        assert decided
        assert play.gone_on == (verdict is None)
    else:
        assert play.gone_on == 0
        assert paused == (wanted == 0 or len(came) >= FIRST_PART) or play.client.body_done
        play.wait.abandon()
        assert decision.cancelled

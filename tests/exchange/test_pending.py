"""Decisions that are taken later, for who cannot wait."""

from __future__ import annotations

import pytest

from koder_gateway.exchange.pending import FIRST_PART, Outcome, decide_now
from tests.kit.decisions import REFUSED, Decision


@pytest.mark.parametrize("verdict", [None, REFUSED])
@pytest.mark.parametrize("body", [b"", b"abc", bytes(FIRST_PART + 1)])
def test_what_the_body_decides_is_decided_at_once(body: bytes, verdict: Outcome) -> None:
    decision = Decision(FIRST_PART, verdict)
    assert decide_now(decision, body, 7.0) is verdict
    assert (decision.seen, decision.times, decision.cancelled) == ([(body, True)], [7.0], False)


def test_one_decision_after_the_other() -> None:
    last = Decision(1, REFUSED)
    assert decide_now(Decision(1, last), b"x", 0.0) is REFUSED
    assert last.seen == [(b"x", True)]


def test_what_takes_time_is_cancelled() -> None:
    later = Decision()
    assert decide_now(Decision(1, later), b"x", 0.0) is None
    assert later.cancelled

"""The time that a client has for its body: bytes earn more of it, and none passes while the service takes nothing."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.downstream.body_deadline import BodyDeadline
from koder_gateway.wire.clock import CoarseClock

GRACE = 30.0
RATE = 1024


class Channel(BodyDeadline):
    """A channel that a body comes on until it is `done`; `told` has what followed from a hold or a release."""

    def __init__(self) -> None:
        self.clock = CoarseClock(100.0)
        timeouts = SimpleNamespace(body=GRACE)
        self.site: Any = SimpleNamespace(clock=self.clock, timeouts=timeouts, seconds_per_byte=1 / RATE)
        self.deadline = self.clock.now + GRACE
        self.told: list[str] = []
        self.done = False
        self._held = False
        self._held_for = 0.0

    def _may_hold(self) -> bool:
        return not self.done

    _expects_body = _may_hold

    def _body_held(self) -> None:
        self.told.append("held")

    def _body_released(self) -> None:
        self.told.append("released")

    def receive(self, size: int) -> None:
        self._renew_deadline(size)

    @property
    def left(self) -> float:
        return self.deadline - self.clock.now


def test_bytes_earn_time_but_never_more_than_the_grace() -> None:
    channel = Channel()
    channel.clock.now += 20
    channel.receive(5 * RATE)
    assert channel.left == 15
    channel.receive(1000 * RATE)
    assert channel.left == GRACE


def test_no_time_passes_while_the_service_takes_nothing() -> None:
    channel = Channel()
    channel.clock.now += 10
    channel.hold_body()
    assert channel.deadline == math.inf
    channel.clock.now += 1000
    channel.hold_body()
    channel.release_body()
    assert channel.left == 20
    channel.release_body()
    assert (channel.left, channel.told) == (20, ["held", "released"])


def test_a_body_that_is_complete_is_not_held() -> None:
    channel = Channel()
    channel.done = True
    channel.hold_body()
    assert (channel.left, channel.told) == (GRACE, [])


def test_one_that_is_complete_when_it_is_released_has_no_deadline() -> None:
    channel = Channel()
    channel.hold_body()
    channel.done = True
    channel.release_body()
    assert (channel.deadline, channel.told) == (math.inf, ["held", "released"])


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 100 * RATE)), max_size=30))
def test_only_a_client_that_falls_behind_by_the_grace_is_late(pieces: list[tuple[int, int]]) -> None:
    channel = Channel()
    behind = 0.0
    for seconds, size in pieces:
        channel.clock.now += seconds
        behind += seconds
        assert (channel.left <= 0) is (behind >= GRACE)
        if behind >= GRACE:
            return
        channel.receive(size)
        behind = max(0.0, behind - size / RATE)


@pytest.mark.parametrize("pause", [1, 10, 29])
def test_at_the_rate_there_is_no_end(pause: int) -> None:
    channel = Channel()
    for _ in range(1000):
        channel.clock.now += pause
        assert channel.left > 0
        channel.receive(pause * RATE)
    assert channel.left == GRACE

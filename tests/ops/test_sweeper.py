"""The sweep: every part has its turn, whatever another one does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock

from koder_gateway.ops.sweeper import SWEEP, Sweeper
from koder_gateway.wire.clock import CoarseClock
from tests.conftest import LoggedErrors


class Parts:
    """A sweeper on a clock of its own, and the times at which its parts were called."""

    def __init__(self) -> None:
        self.reactor = Clock()
        self.coarse = CoarseClock(0.0)
        self.calls: list[tuple[str, float]] = []
        self.broken: set[str] = set()
        self.sweeper = Sweeper(
            self.coarse,
            lambda: self.reactor.seconds() + 100.0,
            self.reactor,
            parts=(lambda now: self.call("first", now), lambda now: self.call("second", now)),
            seconds=(lambda now: self.call("by the second", now),),
        )

    def call(self, name: str, now: float) -> None:
        self.calls.append((name, now))
        if name in self.broken:
            raise RuntimeError(name)

    def after(self, seconds: float) -> list[tuple[str, float]]:
        """What is called in these seconds."""
        self.calls.clear()
        for _ in range(round(seconds / SWEEP)):
            self.reactor.advance(SWEEP)
        return list(self.calls)


def said(errors: LoggedErrors) -> list[str]:
    return [event["log_failure"].getErrorMessage() for event in errors.take()]


@pytest.fixture
def parts() -> Iterator[Parts]:
    parts = Parts()
    parts.sweeper.start()
    yield parts
    parts.sweeper.stop()
    assert not parts.reactor.getDelayedCalls()


def test_the_first_tick_is_at_once(parts: Parts) -> None:
    assert parts.calls == [("first", 100.0), ("second", 100.0)]
    assert parts.sweeper.running


def test_each_part_has_its_turn_at_each_tick_and_some_once_a_second(parts: Parts) -> None:
    calls = parts.after(2.0)
    assert [name for name, _ in calls].count("first") == 8
    assert [now for name, now in calls if name == "by the second"] == [100.75, 101.75]
    assert parts.coarse.now == 102.0


@pytest.mark.parametrize("broken", ["first", "second", "by the second"])
def test_a_part_that_fails_keeps_nobody_from_his_turn(broken: str, parts: Parts, logged_errors: LoggedErrors) -> None:
    whole = parts.after(2.0)
    parts.broken = {broken}
    assert [name for name, _ in parts.after(2.0)] == [name for name, _ in whole]
    assert said(logged_errors) == [broken], "once"
    parts.after(60.0)
    assert said(logged_errors) == [broken], "and once more after a minute"


def test_after_its_end_nothing_is_called(parts: Parts) -> None:
    parts.sweeper.stop()
    parts.sweeper.stop()
    assert not parts.sweeper.running
    assert parts.after(2.0) == []


def test_ticks_in_time_are_not_late(parts: Parts) -> None:
    parts.after(5.0)
    lag = parts.sweeper.lag
    assert (lag.counts[0], sum(lag.counts), lag.seconds) == (20, 20, 0.0), (
        "none for the first one, which was never due"
    )


@pytest.mark.parametrize("late", [0.1, 0.25, 1.3])
def test_a_tick_that_is_late_says_by_how_much(parts: Parts, late: float) -> None:
    """The reactor was busy: its timer fires once it is done, and then at the next multiple of the interval."""
    parts.after(1.0)
    parts.reactor.advance(SWEEP + late)
    lag = parts.sweeper.lag
    assert lag.seconds == pytest.approx(late)
    assert lag.most == pytest.approx(late)
    parts.reactor.advance(SWEEP - late % SWEEP)
    parts.after(1.0)
    assert lag.seconds == pytest.approx(late), "those after it are in time again"
    assert sum(lag.counts) == 10

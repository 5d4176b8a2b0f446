"""Lines that peers can cause: a few at a time, and the number of the others, also when nothing follows them."""

from __future__ import annotations

import pytest

from koder_gateway.wire.clock import CoarseClock
from koder_gateway.wire.rate_limited_log import RateLimitedLog


class Log:
    """Complaints that are written down."""

    def __init__(self) -> None:
        self.clock = CoarseClock(100.0)
        self.lines: list[str] = []
        self.fault_log = RateLimitedLog(self.clock, lambda form, **values: self.lines.append(form.format(**values)))

    def say(self, count: int) -> None:
        for number in range(count):
            self.fault_log.warn(f"fault {number}")

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.fault_log.sweep(self.clock.now)


@pytest.fixture
def log() -> Log:
    return Log()


def test_ten_lines_in_ten_seconds(log: Log) -> None:
    log.say(50)
    assert log.lines == [f"fault {number}" for number in range(10)]
    log.pass_time(9.5)
    log.say(1)
    assert len(log.lines) == 10


def test_the_next_line_has_the_number_of_the_others(log: Log) -> None:
    log.say(50)
    log.clock.now += 10
    log.say(2)
    assert log.lines[10:] == ["fault 0 (40 similar lines were left out before)", "fault 1"]


def test_without_a_next_line_the_number_is_told_all_the_same(log: Log) -> None:
    log.say(50)
    log.pass_time(9.5)
    assert len(log.lines) == 10
    log.pass_time(0.5)
    log.pass_time(100)
    assert log.lines[10:] == ["40 more similar lines were left out"]


def test_nothing_is_told_where_nothing_was_left_out(log: Log) -> None:
    log.say(10)
    log.pass_time(100)
    assert len(log.lines) == 10

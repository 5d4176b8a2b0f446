"""The log's line for a table of limits that is full: few of them, and with what to set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from koder_gateway.ops.full_limits import FullLimits
from koder_gateway.policy.limit_keys import address_key
from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.limits import Limiter

RULE = LimitRule("one", ("ip",), 1, 3600)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged."""
    seen: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace", "").endswith("FullLimits"):
            seen.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


def ask(limiter: Limiter, first: int, count: int) -> None:
    """A request of each of so many addresses, which uses up its limit."""
    for number in range(first, first + count):
        address = address_key(f"10.0.{number >> 8}.{number & 255}")
        limiter.admit(b"koder", address, b"GET", b"/", 0.0, True)


def test_nothing_is_said_while_there_is_room(lines: list[str]) -> None:
    limiter, told = Limiter([RULE], 100), FullLimits()
    ask(limiter, 0, 100)
    told.tell(limiter, 0.0)
    assert (limiter.entries, limiter.max_entries, limiter.crowded_out) == (100, 100, 0)
    assert lines == []


def test_a_full_table_is_told_every_five_minutes_at_most(lines: list[str]) -> None:
    limiter, told = Limiter([RULE], 100), FullLimits()
    ask(limiter, 0, 107)
    told.tell(limiter, 0.0)
    assert limiter.entries == 100
    (line,) = lines
    assert line.startswith("the table of limits is full, all 100 entries are in use: 7 decisions were made by ")
    assert line.endswith("; raise limits_store.max_entries")
    ask(limiter, 200, 5)
    told.tell(limiter, 299.0)
    assert len(lines) == 1
    told.tell(limiter, 301.0)
    assert ": 5 decisions " in lines[1]
    told.tell(limiter, 700.0)
    assert len(lines) == 2


def test_the_count_goes_on_after_a_reload(lines: list[str]) -> None:
    before, told = Limiter([RULE], 10), FullLimits()
    ask(before, 0, 13)
    told.tell(before, 0.0)
    after = Limiter([RULE], 20)
    after.adopt(before)
    assert (after.crowded_out, after.max_entries) == (3, 20)
    told.tell(after, 400.0)
    assert len(lines) == 1

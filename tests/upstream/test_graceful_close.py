"""Closes that wait for a service to take what was written: each has its deadline, and there are not too many."""

from __future__ import annotations

import pytest

from koder_gateway.upstream.graceful_close import ClosingConnection, GracefulCloses
from koder_gateway.wire.clock import CoarseClock


class Connection(ClosingConnection):
    """A connection whose service takes nothing: it is closed when its deadline has passed."""

    def __init__(self, closes: GracefulCloses) -> None:
        self.closes = closes
        self.abandoned = 0
        closes.add(self)

    def abandon(self) -> None:
        self.abandoned += 1
        self.closes.discard(self)


def test_each_has_a_deadline_of_its_own() -> None:
    clock = CoarseClock(100.0)
    closes = GracefulCloses(clock, 60.0)
    first = Connection(closes)
    clock.now = 130.0
    second = Connection(closes)
    closes.sweep(159.0)
    assert (first.abandoned, second.abandoned, len(closes)) == (0, 0, 2)
    closes.sweep(160.0)
    assert (first.abandoned, second.abandoned, len(closes)) == (1, 0, 1)
    closes.sweep(190.0)
    assert (first.abandoned, second.abandoned, len(closes)) == (1, 1, 0)


def test_other_seconds_are_those_of_later_closes() -> None:
    clock = CoarseClock(0.0)
    closes = GracefulCloses(clock, 60.0)
    before = Connection(closes)
    closes.seconds = 5.0
    after = Connection(closes)
    closes.sweep(5.0)
    assert (before.abandoned, after.abandoned) == (0, 1)


def test_one_that_is_closed_has_no_deadline() -> None:
    closes = GracefulCloses(CoarseClock(0.0), 60.0)
    connection = Connection(closes)
    closes.discard(connection)
    closes.discard(connection)
    closes.sweep(1000.0)
    assert (connection.abandoned, len(closes)) == (0, 0)


def test_it_is_full_at_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("koder_gateway.upstream.graceful_close._MOST", 2)
    closes = GracefulCloses(CoarseClock(0.0), 60.0)
    first = Connection(closes)
    assert not closes.full
    Connection(closes)
    assert closes.full
    closes.discard(first)
    assert not closes.full
